//! The shim: our own binary, started again between us and a program, so that the program cannot outlive us.
//!
//! Two processes of it stand in the chain. The *supervisor* is our child. It is told by a parent-death signal when we die,
//! and by the same signal from us when the program is to end; then, or when the program ends by itself, it kills whatever
//! is left of the program's process tree, waits until all of it is gone, and goes too. The *leaf* asks for SIGKILL at the
//! death of its supervisor, sets limits, shuts the data directory to itself, and becomes the program.
//!
//! The supervisor holds a shared lock on a file for its whole life, so that the next engine can wait until nothing of the
//! last one runs any more: [`orphans_gone`].

use rustix::process::{Pid, Resource, Rlimit, Signal, WaitOptions, WaitStatus};
use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use super::shut::Shut;

/// The first argument of a binary that is started as a shim.
pub const VERB: &str = "__exec-shim";
pub(super) const SUPERVISE: &str = "supervise";
const LEAF: &str = "leaf";
pub(super) const NO_LOCK: &str = "-";
/// What the shim ends with when it could not start the program: as shells have it.
pub(super) const NOT_STARTED: u8 = 127;
/// Open files of a program, unless the system allows fewer.
const OPEN_FILES: u64 = 4096;

/// A moment in the life of a shim.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ShimPoint {
    /// The supervisor has begun, and holds no lock yet.
    Begun,
    /// It holds the lock.
    Locked,
    /// It will be told when its engine dies; nothing is started yet.
    Bound,
    /// It has started the leaf.
    Started,
    /// The leaf is bound to its supervisor, and is about to become the program.
    LeafBound,
    /// The program has ended, or is to end; what is left of it is about to be killed.
    Ending,
    /// Nothing of it is left.
    Swept,
}

impl ShimPoint {
    /// All of them.
    pub const ALL: [ShimPoint; 7] =
        [ShimPoint::Begun, ShimPoint::Locked, ShimPoint::Bound, ShimPoint::Started, ShimPoint::LeafBound, ShimPoint::Ending, ShimPoint::Swept];
}

/// Is the shim; `args` are those after [`VERB`]. A binary calls this first thing in `main`, before it has threads.
pub fn shim_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    shim_main_observed(args, &|_| ())
}

/// The same, and `pass` is told where it is.
pub fn shim_main_observed(args: impl IntoIterator<Item = OsString>, pass: &dyn Fn(ShimPoint)) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let ended = match args.iter().map(OsString::as_os_str).collect::<Vec<_>>().as_slice() {
        [role, parent, lock, when, data, scratch, dashes, command @ ..] if *role == SUPERVISE && *dashes == "--" => {
            supervise(parent, lock, [when, data, scratch], command, pass)
        }
        [role, parent, when, data, scratch, dashes, command @ ..] if *role == LEAF && *dashes == "--" => leaf(parent, [when, data, scratch], command, pass),
        _ => Err(other_version()),
    };
    ended.unwrap_or_else(|error| {
        eprintln!("selvedge exec: {error}");
        ExitCode::from(NOT_STARTED)
    })
}

fn other_version() -> io::Error {
    io::Error::other("its arguments are not those of this version: the binary was replaced while it ran")
}

/// Asks for a signal at the death of the parent, and makes sure that the parent is still the one that started us.
fn die_with(parent: &OsStr, signal: Signal) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(signal))?;
    let expected = parent.to_str().and_then(|text| text.parse().ok()).and_then(Pid::from_raw);
    if expected.is_none() || rustix::process::getppid() != expected {
        return Err(io::Error::other("its parent died while it started"));
    }
    Ok(())
}

fn leaf(parent: &OsStr, shut: [&OsStr; 3], command: &[&OsStr], pass: &dyn Fn(ShimPoint)) -> io::Result<ExitCode> {
    die_with(parent, Signal::KILL)?;
    pass(ShimPoint::LeafBound);
    let (program, arguments) = command.split_first().ok_or_else(|| io::Error::other("no program was named"))?;
    rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    let files = rustix::process::getrlimit(Resource::Nofile).maximum;
    let current = files.map_or(OPEN_FILES, |hard| hard.min(OPEN_FILES));
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum: files })?;
    // Last of all: nothing of ours is read after it.
    Shut::from_arguments(shut).ok_or_else(other_version)?.enclose()?;
    let error = Command::new(program).args(arguments).exec();
    Err(io::Error::new(error.kind(), format!("`{}` cannot be started: {error}; is it installed and on PATH?", program.to_string_lossy())))
}

#[allow(clippy::disallowed_methods, reason = "the shim is a process of its own: it starts itself once more as the leaf")]
fn supervise(parent: &OsStr, lock: &OsStr, shut: [&OsStr; 3], command: &[&OsStr], pass: &dyn Fn(ShimPoint)) -> io::Result<ExitCode> {
    pass(ShimPoint::Begun);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut asked, mut child_ended) = (signal(SignalKind::terminate())?, signal(SignalKind::child())?);
        let _held = if lock == NO_LOCK { None } else { Some(shared(Path::new(lock))?) };
        pass(ShimPoint::Locked);
        die_with(parent, Signal::TERM)?;
        pass(ShimPoint::Bound);
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        let program = Command::new(std::env::current_exe()?)
            .args([VERB, LEAF])
            .arg(std::process::id().to_string())
            .args(shut)
            .arg("--")
            .args(command)
            .process_group(0)
            .spawn()?;
        let program = i32::try_from(program.id()).ok().and_then(Pid::from_raw).ok_or_else(|| io::Error::other("the program has no process id"))?;
        pass(ShimPoint::Started);
        let status = loop {
            tokio::select! {
                _ = asked.recv() => break None,
                _ = child_ended.recv() => if let Some(status) = reap(program)?.status { break Some(status) },
            }
        };
        pass(ShimPoint::Ending);
        let status = end_tree(program, status).await?;
        pass(ShimPoint::Swept);
        let number = status.and_then(|status| status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal)));
        Ok(ExitCode::from(number.and_then(|number| u8::try_from(number).ok()).unwrap_or(u8::MAX)))
    })
}

struct Reaped {
    status: Option<WaitStatus>,
    any_left: bool,
}

/// Takes every child that has ended; those of dead children became ours.
fn reap(program: Pid) -> io::Result<Reaped> {
    let mut reaped = Reaped { status: None, any_left: true };
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == program => reaped.status = Some(status),
            Ok(Some(_)) => {}
            Ok(None) => return Ok(reaped),
            Err(rustix::io::Errno::CHILD) => {
                reaped.any_left = false;
                return Ok(reaped);
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Kills the program's group and every other descendant until none is left.
async fn end_tree(program: Pid, mut status: Option<WaitStatus>) -> io::Result<Option<WaitStatus>> {
    loop {
        let reaped = reap(program)?;
        status = status.or(reaped.status);
        if !reaped.any_left {
            return Ok(status);
        }
        if status.is_none() {
            let _ = rustix::process::kill_process_group(program, Signal::KILL);
        }
        for child in children()? {
            let _ = rustix::process::kill_process(child, Signal::KILL);
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Our children of this moment, from `/proc`.
fn children() -> io::Result<Vec<Pid>> {
    let own = std::process::id().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Ok(entry) = entry else { continue };
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw) else { continue };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        // pid (name) state parent …: the name may hold anything, so the last bracket ends it.
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().nth(1));
        if parent == Some(own.as_str()) {
            found.push(pid);
        }
    }
    Ok(found)
}

fn open(lock: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).open(lock)
}

fn shared(lock: &Path) -> io::Result<File> {
    open(lock).and_then(|file| file.lock_shared().map(|()| file)).map_err(|error| {
        let hint = "the folder must be there, writable and on a file system with locks; start selvedge again if it was moved or removed while it ran";
        io::Error::new(error.kind(), format!("the lock file {} of its programs cannot be held: {error}; {hint}", lock.display()))
    })
}

/// Waits until nothing runs any more that was started through a shim with this lock file: what an engine that was killed
/// left behind is then gone. To be called once, before the first pool is opened; true when it is so, false when `limit`
/// passed before.
///
/// # Errors
/// When the file cannot be opened or locked.
pub async fn orphans_gone(lock: &Path, limit: Duration) -> io::Result<bool> {
    let file = open(lock)?;
    let free = async {
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(()),
                Err(TryLockError::WouldBlock) => tokio::time::sleep(Duration::from_millis(5)).await,
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    };
    match tokio::time::timeout(limit, free).await {
        Ok(locked) => locked.map(|()| true),
        Err(_) => Ok(false),
    }
}
