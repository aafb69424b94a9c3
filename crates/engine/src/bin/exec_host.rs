//! A small engine process for the tests of the exec executor: it is the shim, and it is the host that a test kills.

#![allow(clippy::disallowed_methods, reason = "a program of its own: it is where arguments, environment and runtime come from")]

use bytes::Bytes;
use selvedge_engine::exec::{ExecPool, ExecSpec, ExecTask, INHERITED, Points, SHIM_VERB, Shim, ShimPoint, Shut, shim_main_observed};
use selvedge_kernel::config::Landlock;
use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1).peekable();
    if args.next_if(|first| first == SHIM_VERB).is_some() {
        return shim_main_observed(args, &crash_at);
    }
    let words: Vec<String> = args.map(|word| word.to_string_lossy().into_owned()).collect();
    match host(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("exec-host: {error}");
            ExitCode::FAILURE
        }
    }
}

/// At the point that `EXEC_HOST_AT` names, once for the mark `EXEC_HOST_MARK`, kills the process whose id stands in the file
/// `EXEC_HOST_VICTIM`, or this one where there is no such variable.
fn crash_at(point: ShimPoint) {
    let (Some(at), Some(mark)) = (std::env::var_os("EXEC_HOST_AT"), std::env::var_os("EXEC_HOST_MARK")) else { return };
    if at.to_string_lossy() != format!("{point:?}") || std::fs::File::create_new(mark).is_err() {
        return;
    }
    match std::env::var_os("EXEC_HOST_VICTIM") {
        None => std::process::abort(),
        Some(file) => {
            let victim = std::fs::read_to_string(file).ok().and_then(|id| id.trim().parse().ok()).and_then(rustix::process::Pid::from_raw);
            if let Some(victim) = victim {
                let _ = rustix::process::kill_process(victim, rustix::process::Signal::KILL);
            }
        }
    }
}

/// The folder that `EXEC_HOST_SHUT` names is kept shut to programs, where that takes nothing else from them.
fn shut() -> Option<Shut> {
    let data = PathBuf::from(std::env::var_os("EXEC_HOST_SHUT")?);
    Some(Shut { scratch: data.join("scratch"), data, landlock: Landlock::Auto })
}

/// `LOCK PERSISTENT FOLDER COMMAND…`: runs one task and prints what it gave.
fn host(words: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    let [lock, persistent, folder, command @ ..] = words else { return Err("usage: exec-host LOCK true|false FOLDER COMMAND…".into()) };
    let spec = ExecSpec {
        activities: vec!["work".to_owned()],
        command: command.to_vec(),
        folder: PathBuf::from(folder),
        environment: std::env::vars().filter(|(name, _)| INHERITED.contains(&name.as_str())).collect(),
        secrets: Vec::new(),
        unresolved: Vec::new(),
        persistent: persistent.parse()?,
        processes: 1,
        as_file: false,
        shim: Some(Shim { program: std::env::current_exe()?, lock: Some(PathBuf::from(lock)), shut: shut() }),
        scratch: PathBuf::from(folder),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let pool = ExecPool::open(spec, tokio::runtime::Handle::current(), Points::default())?;
        let task =
            ExecTask { activity: "work".to_owned(), attempt: 1, key: "k".to_owned(), deadline_ms: None, trace: None, input: Bytes::from_static(b"null") };
        let result = pool.run(task, |_| (), |line| eprintln!("{line}")).await.map_err(|error| error.error.to_string())?;
        println!("{}", String::from_utf8_lossy(&result));
        pool.close().await;
        Ok(())
    })
}
