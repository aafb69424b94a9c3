//! The same workloads here and on Restate, both durable, interleaved in one run.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::child::{Running, ask, emptied, free_address};
use super::compare::{Pair, of_us, serving, table};
use super::wrk::Asked;
use crate::load::Failed;

const ROUNDS: usize = 3;
/// How long Restate may take to start.
const STARTS_WITHIN: Duration = Duration::from_secs(60);
/// The counters that are added to in turn.
const COUNTERS: u32 = 1_000;

/// Restate with the service on it.
struct Restate {
    _server: Running,
    _service: Running,
    ingress: SocketAddr,
}

fn restate(dir: &Path, server: &Path, service: &Path) -> Result<Restate, Failed> {
    let base = emptied(dir.join("restate"))?;
    let (ingress, admin, node, own) = (free_address()?, free_address()?, free_address()?, free_address()?);
    let running = Running::start(Command::new(service).arg(own.to_string()), &dir.join("service.log"))?;
    let mut command = Command::new(server);
    // Its defaults, but for where it listens and what it tells its makers: it syncs its log before it answers.
    command.arg("--base-dir").arg(&base).args(["--listen-mode", "tcp", "--no-logo"]);
    command.env("RESTATE_BIND_ADDRESS", node.to_string()).env("RESTATE_ADVERTISED_ADDRESS", format!("http://{node}"));
    command.env("RESTATE_INGRESS__BIND_ADDRESS", ingress.to_string()).env("RESTATE_ADMIN__BIND_ADDRESS", admin.to_string());
    command.env("RESTATE_DISABLE_TELEMETRY", "true").env("RESTATE_LOG_FILTER", "error");
    let started = Running::start(&mut command, &dir.join("restate.log"))?;
    let begun = Instant::now();
    loop {
        match ask(admin, None, "POST", "/deployments", &format!("{{\"uri\":\"http://{own}\"}}")) {
            Ok((200..300, _)) => break,
            other if begun.elapsed() > STARTS_WITHIN => {
                return Err(format!("Restate takes no service within {STARTS_WITHIN:?}: {other:?}; restate.log in {} has what it said", dir.display()).into());
            }
            _ => std::thread::sleep(Duration::from_millis(200)),
        }
    }
    Ok(Restate { _server: started, _service: running, ingress })
}

/// Prints the table.
pub fn measure(dir: &Path, server: PathBuf, service: PathBuf) -> Result<(), Failed> {
    let theirs = restate(dir, &server, &service)?;
    let (_ours, us) = serving(dir, "peers", "1000000")?;
    let on_restate = |path: &str, body: &'static str, keys: Option<u32>| Asked {
        address: theirs.ingress,
        key: None,
        method: "POST",
        path: path.to_owned(),
        body,
        keys,
        pause_ms: 0,
    };
    let pairs = [
        Pair {
            what: "call that does nothing",
            ours: of_us(&us, "POST", "/v1/actors/idle/KEY/call/nothing", "null"),
            theirs: on_restate("/Work/nothing", "", None),
        },
        Pair { what: "ten steps", ours: of_us(&us, "POST", "/v1/actors/worker/KEY/call/steps", "10"), theirs: on_restate("/Work/steps", "", None) },
        Pair {
            what: "counter by its key",
            ours: Asked { keys: Some(COUNTERS), ..of_us(&us, "POST", "/v1/actors/counter/KEY/call/add", "1") },
            theirs: on_restate("/Counter/KEY/add", "1", Some(COUNTERS)),
        },
    ];
    table(dir, &pairs, "Restate", ROUNDS)
}
