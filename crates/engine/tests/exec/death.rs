//! Failure case 50: after `kill -9` of the engine its exec children are gone before the retry starts.

use selvedge_engine::exec::orphans_gone;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::rig::{Folder, needs, open, run, runs, shim, spec, task, until};

/// A program with a child, a grandchild in a session of its own, and one that left its parent; all deaf to SIGTERM and to
/// the end of their input. Their ids are in `pids`.
const TREE: &str = r#"
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
ids = [os.getpid()]
ids.append(subprocess.Popen(["sleep", "1000"]).pid)
ids.append(subprocess.Popen(["sleep", "1000"], start_new_session=True).pid)
read, write = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.write(write, str(os.getpid()).encode())
        while True: time.sleep(1000)
    os._exit(0)
ids.append(int(os.read(read, 20)))
open("pids.new", "w").write(" ".join(map(str, ids)))
os.rename("pids.new", "pids")
if "persistent" in sys.argv: print('{"hello": 1, "activities": ["work"]}', flush=True)
while True: time.sleep(1000)
"#;

fn host(folder: &Folder, persistent: bool) -> Child {
    needs("python3");
    folder.write("tree.py", TREE);
    let kind = if persistent { "persistent" } else { "once" };
    Command::new(env!("CARGO_BIN_EXE_exec-host"))
        .arg(folder.0.join("exec.lock"))
        .arg(persistent.to_string())
        .arg(&folder.0)
        .args(["python3", "tree.py", kind])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn after_kill_9_of_the_engine_its_exec_children_are_gone_before_the_retry_starts() {
    for persistent in [true, false] {
        let folder = Folder::new(&format!("tree-{persistent}"));
        let mut engine = host(&folder, persistent);
        until("the process tree stands", || !folder.read("pids").is_empty()).await;
        let pids: Vec<String> = folder.read("pids").split_whitespace().map(str::to_owned).collect();
        assert_eq!(pids.len(), 4);
        assert!(pids.iter().all(|pid| runs(pid)));
        let lock = folder.0.join("exec.lock");
        assert!(!orphans_gone(&lock, Duration::from_millis(20)).await.unwrap(), "the lock is not held");

        engine.kill().unwrap();
        engine.wait().unwrap();
        // This is what the next engine does before it starts anything.
        assert!(orphans_gone(&lock, Duration::from_secs(20)).await.unwrap());
        let left: Vec<&String> = pids.iter().filter(|pid| runs(pid)).collect();
        assert!(left.is_empty(), "still there: {left:?} of {pids:?}");
    }
}

#[tokio::test]
async fn a_lock_file_that_cannot_be_held_is_named_with_what_to_do() {
    let folder = Folder::new("no-lock");
    let lock = folder.0.join("gone/exec.lock");
    for persistent in [true, false] {
        let mut spec = spec(&folder, persistent, &["cat"]);
        spec.shim = Some(shim(Some(lock.clone())));
        let told = run(&open(spec), task(&serde_json::json!(1))).await;
        let error = told.error();
        assert_eq!(error.error.code, "exec_start");
        for words in [&*lock.to_string_lossy(), "No such file", "start selvedge again"] {
            assert!(error.error.message.contains(words), "{words}: {}", error.error.message);
        }
    }
}

#[tokio::test]
async fn a_killed_supervisor_takes_its_program_along() {
    let folder = Folder::new("supervisor");
    let mut engine = host(&folder, true);
    until("the process tree stands", || !folder.read("pids").is_empty()).await;
    let program = folder.read("pids").split_whitespace().next().unwrap().to_owned();
    let stat = std::fs::read_to_string(format!("/proc/{program}/stat")).unwrap();
    let supervisor = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().to_owned();
    assert!(Command::new("kill").args(["-9", &supervisor]).status().unwrap().success());
    until("the program is gone", || !runs(&program)).await;
    for pid in folder.read("pids").split_whitespace() {
        let _ = Command::new("kill").args(["-9", pid]).stderr(Stdio::null()).status();
    }
    engine.kill().unwrap();
    engine.wait().unwrap();
}
