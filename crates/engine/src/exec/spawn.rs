//! Starting programs, and ending them with all that they started.

use std::ffi::OsStr;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::point::{ExecPoint, Points};
use super::spec::ExecSpec;
use super::{shim, shut};

/// How long a program may take to end after it was asked to, before it is killed.
pub const GRACE: Duration = Duration::from_secs(3);

struct Request {
    command: Command,
    reply: oneshot::Sender<io::Result<Child>>,
}

/// The thread that starts programs. A parent-death signal is bound to the thread that started the child, so this one
/// lives as long as anything that it started: whoever holds a [`Program`] holds its spawner.
#[derive(Clone, Debug)]
pub struct Spawner {
    requests: std::sync::mpsc::Sender<Request>,
    points: Points,
}

impl Spawner {
    /// A spawner whose programs are watched by this runtime. `points` is told what happens to them.
    ///
    /// # Errors
    /// When the system gives no thread.
    #[allow(clippy::disallowed_methods, reason = "a parent-death signal needs a thread that outlives what it starts, and does nothing else")]
    pub fn start(runtime: Handle, points: Points) -> io::Result<Spawner> {
        let (requests, taken) = std::sync::mpsc::channel::<Request>();
        std::thread::Builder::new().name("exec-spawner".to_owned()).spawn(move || {
            for mut request in taken {
                let _inside = runtime.enter();
                let started = request.command.spawn();
                if let Err(Ok(mut unwanted)) = request.reply.send(started) {
                    let _ = unwanted.start_kill();
                }
            }
        })?;
        Ok(Spawner { requests, points })
    }

    /// Starts what the spec says, with these variables besides.
    pub async fn spawn(&self, spec: &ExecSpec, variables: &[(&str, String)]) -> io::Result<Program> {
        let mut command = command(spec)?;
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        let (reply, started) = oneshot::channel();
        let gone = || io::Error::other("the thread that starts programs has ended");
        self.pass(ExecPoint::Spawning);
        self.requests.send(Request { command, reply }).map_err(|_| gone())?;
        let child = started.await.map_err(|_| gone())??;
        self.pass(ExecPoint::Spawned);
        Ok(Program { child, supervised: spec.shim.is_some(), spawner: self.clone() })
    }

    /// Tells whoever listens where a program of this spawner is.
    pub fn pass(&self, point: ExecPoint) {
        self.points.pass(point);
    }
}

fn command(spec: &ExecSpec) -> io::Result<Command> {
    let (program, arguments) = spec.command.split_first().ok_or_else(|| io::Error::other("its command is empty"))?;
    if !spec.folder.is_dir() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "its folder does not exist"));
    }
    let mut command = match &spec.shim {
        None => Command::new(program),
        Some(shim) => {
            let mut command = Command::new(&shim.program);
            let lock = shim.lock.as_deref().map_or(OsStr::new(shim::NO_LOCK), AsRef::as_ref);
            command.arg(shim::VERB).arg(shim::SUPERVISE).arg(std::process::id().to_string()).arg(lock);
            command.args(shim.shut.as_ref().map_or(shut::OPEN.map(OsStr::new), shut::Shut::arguments)).arg("--").arg(program);
            command
        }
    };
    command.args(arguments).current_dir(&spec.folder).env_clear();
    command.envs(&spec.environment).process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command)
}

/// A program that runs, in a process group of its own.
#[derive(Debug)]
pub struct Program {
    /// The process that we started: the supervisor where there is a shim, else the program itself.
    pub child: Child,
    supervised: bool,
    spawner: Spawner,
}

impl Program {
    /// What started it.
    pub fn spawner(&self) -> &Spawner {
        &self.spawner
    }

    /// Ends it and what it started: at once where there is no shim; the supervisor gets [`GRACE`] to do it.
    pub async fn end(&mut self) {
        use rustix::process::{Signal, kill_process, kill_process_group};

        let Some(first) = pid_of(&self.child) else { return };
        if self.supervised {
            let _ = kill_process(first, Signal::TERM);
            self.spawner.pass(ExecPoint::Ending);
            if tokio::time::timeout(GRACE, self.child.wait()).await.is_ok() {
                self.spawner.pass(ExecPoint::Ended);
                return;
            }
        }
        if let Some(still) = pid_of(&self.child) {
            let _ = kill_process_group(still, Signal::KILL);
        }
        let _ = self.child.wait().await;
        self.spawner.pass(ExecPoint::Ended);
    }

    /// Waits for its end; what takes longer than [`GRACE`] is ended by us.
    pub async fn ended(&mut self) -> Option<ExitStatus> {
        match tokio::time::timeout(GRACE, self.child.wait()).await {
            Ok(status) => status.ok(),
            Err(_) => {
                self.end().await;
                self.child.try_wait().ok().flatten()
            }
        }
    }
}

impl Drop for Program {
    /// What nobody ended goes with its last owner; the runtime reaps it.
    fn drop(&mut self) {
        use rustix::process::{Signal, kill_process, kill_process_group};
        if let Some(pid) = pid_of(&self.child) {
            let _ = if self.supervised { kill_process(pid, Signal::TERM) } else { kill_process_group(pid, Signal::KILL) };
        }
    }
}

fn pid_of(child: &Child) -> Option<rustix::process::Pid> {
    child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw)
}

/// The number that names how a program ended: its exit status, or 128 and its signal as shells have it.
#[must_use]
pub fn exit_number(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// The same in words.
#[must_use]
pub fn exit_words(status: Option<ExitStatus>) -> String {
    match status.map(exit_number) {
        None => "its end was not seen".to_owned(),
        Some(number @ 129..=192) => format!("it was killed by signal {}", number - 128),
        Some(number) => format!("it ended with exit status {number}"),
    }
}
