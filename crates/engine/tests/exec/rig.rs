//! What the tests share: a folder, a spec, and a pool that hears what its tasks say.

use bytes::Bytes;
use selvedge_engine::exec::{ExecPool, ExecSpec, ExecTask, Points, Shim};
use selvedge_kernel::error::AttemptError;
use selvedge_kernel::pipeline::definition::Exec;
use serde_json::Value;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A folder that goes with the test.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("selvedge-exec-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.join(name), text).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.join(name)).unwrap_or_default()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The shim of these tests.
pub fn shim(lock: Option<PathBuf>) -> Shim {
    Shim { program: PathBuf::from(env!("CARGO_BIN_EXE_exec-host")), lock, shut: None }
}

/// That this program is there: a test that needs it says so instead of passing without it.
pub fn needs(program: &str) {
    let found = std::process::Command::new(program).arg("--version").output();
    assert!(found.is_ok(), "this test runs {program}, which is not on PATH: install it (apt-get install python3 nodejs)");
}

pub fn spec(folder: &Folder, persistent: bool, command: &[&str]) -> ExecSpec {
    let exec = Exec {
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        persistent,
        processes: 1,
        environment: Default::default(),
        folder: folder.0.to_string_lossy().into_owned(),
        as_file: false,
    };
    let activities = if persistent { vec!["work".to_owned()] } else { Vec::new() };
    ExecSpec::new(&exec, activities, &std::env::vars().collect(), folder.0.clone()).with_shim(shim(None))
}

pub fn open(spec: ExecSpec) -> ExecPool {
    ExecPool::open(spec, tokio::runtime::Handle::current(), Points::default()).unwrap()
}

/// A persistent worker in Python of which the test writes what follows a task `t`; `say` writes a line and flushes.
pub fn python_worker(folder: &Folder, body: &str) -> ExecSpec {
    needs("python3");
    let head = r#"
import sys, json, os, time
def say(value):
    sys.stdout.write(value if isinstance(value, str) else json.dumps(value) + "\n")
    sys.stdout.flush()
"#;
    folder.write("worker.py", &format!("{head}{body}"));
    spec(folder, true, &["python3", "worker.py"])
}

pub fn task(input: &Value) -> ExecTask {
    ExecTask { activity: "work".to_owned(), attempt: 1, key: "key-1".to_owned(), deadline_ms: Some(10_000), trace: None, input: Bytes::from(input.to_string()) }
}

/// What a task said and gave.
#[derive(Debug)]
pub struct Told {
    pub result: Result<Value, AttemptError>,
    pub log: Vec<String>,
    pub heartbeats: Vec<Value>,
}

impl Told {
    pub fn error(&self) -> &AttemptError {
        self.result.as_ref().unwrap_err()
    }
}

pub async fn run(pool: &ExecPool, task: ExecTask) -> Told {
    let (log, heartbeats) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
    let result = {
        let (log, heartbeats) = (log.clone(), heartbeats.clone());
        let running = pool.run(
            task,
            move |progress| heartbeats.lock().unwrap().push(serde_json::from_slice(&progress).unwrap()),
            move |line| log.lock().unwrap().push(line),
        );
        tokio::time::timeout(Duration::from_secs(60), running).await.expect("the task hangs")
    };
    let result = result.map(|bytes| serde_json::from_slice(&bytes).unwrap());
    Told { result, log: log.lock().unwrap().clone(), heartbeats: heartbeats.lock().unwrap().clone() }
}

/// Waits for a condition; the limit is for a test that fails.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..6_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("waited 30 s for: {what}");
}

/// Whether a process runs: there, and not only waiting to be reaped.
pub fn runs(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}
