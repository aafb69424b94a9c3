//! A folder with a pipeline in it, and the real binary.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long a condition may take to come true.
const LIMIT: Duration = Duration::from_secs(60);

/// A folder that goes with the test.
pub struct Folder {
    folder: tempfile::TempDir,
}

/// What the binary said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Folder {
    pub fn new() -> Folder {
        Folder { folder: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.join(name), text).unwrap();
    }

    pub fn lines(&self, name: &str) -> Vec<String> {
        std::fs::read_to_string(self.join(name)).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_selvedge"));
        command.args(words).current_dir(self.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env("USER", "ada");
        command
    }

    /// Runs the binary to its end.
    pub fn selvedge(&self, words: &[&str]) -> Said {
        self.said(self.command(words).output().unwrap())
    }

    /// Runs it, expects success, and gives what it printed as JSON.
    pub fn json(&self, words: &[&str]) -> Value {
        let said = self.selvedge(&[words, &["-o", "json"]].concat());
        assert_eq!(said.code, 0, "{words:?}: {}", said.err);
        serde_json::from_str(&said.out).unwrap()
    }

    /// Starts it, to be watched.
    pub fn start(&self, words: &[&str]) -> Running {
        self.start_with(words, &[])
    }

    /// The same, with variables.
    pub fn start_with(&self, words: &[&str], variables: &[(&str, &str)]) -> Running {
        Running::of(self.command(words).envs(variables.iter().copied()).spawn().unwrap())
    }

    /// What it said, with this folder as `DIR`.
    pub fn said(&self, output: Output) -> Said {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().replace(&self.path().display().to_string(), "DIR");
        Said { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Waits for a condition on what is in this folder.
    pub fn until(&self, what: &str, holds: impl Fn(&Folder) -> bool) {
        let began = Instant::now();
        while !holds(self) {
            assert!(began.elapsed() < LIMIT, "waited {LIMIT:?} for: {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until the one run waits for something that has these words in it, and gives its id.
    pub fn until_run(&self, words: &str) -> String {
        let began = Instant::now();
        loop {
            if self.join(".selvedge/control.sock").exists() {
                let list = self.selvedge(&["runs", "list", "-o", "json"]);
                let runs: Value = serde_json::from_str(&list.out).unwrap_or_default();
                if let Some(id) = runs[0]["id"].as_str() {
                    let why = self.selvedge(&["why", id]);
                    if why.out.contains(words) {
                        return id.to_owned();
                    }
                }
            }
            assert!(began.elapsed() < LIMIT, "waited {LIMIT:?} for a run that waits {words}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until it ends, and gives what it said.
    pub fn end(&self, mut running: Running) -> Said {
        self.said(running.child.take().unwrap().wait_with_output().unwrap())
    }
}

/// A process that is killed if the test does not wait for it.
pub struct Running {
    child: Option<Child>,
}

impl Running {
    pub fn of(child: Child) -> Running {
        Running { child: Some(child) }
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// The next line of its standard output, while it goes on.
    pub fn line(&mut self) -> String {
        use std::io::Read;
        let out = self.child.as_mut().unwrap().stdout.as_mut().unwrap();
        let (mut line, mut byte) = (Vec::new(), [0]);
        while out.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
            line.push(byte[0]);
        }
        String::from_utf8(line).unwrap()
    }

    pub fn signal(&self, name: &str) {
        let done = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status().unwrap();
        assert!(done.success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
