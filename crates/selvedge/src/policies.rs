//! The policies of a folder, read again when something in it changes.

use std::sync::Arc;
use std::time::Duration;

use selvedge_adapters::cedar::{CedarPolicies, Refused};
use tokio::task::{JoinHandle, spawn_blocking};

/// How long after a change it is noticed at the latest.
const LOOK: Duration = Duration::from_secs(2);

/// Looks at a folder for as long as it lives.
pub(crate) struct Watch(JoinHandle<()>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Reads the folder again whenever it says something else than at the last look, and tells on standard error what came of it.
/// A set with a fault is told once, and what was in force stays in force.
pub(crate) fn watch(policies: Arc<CedarPolicies>) -> Watch {
    Watch(tokio::spawn(async move {
        let mut seen = policies.mark();
        loop {
            tokio::time::sleep(LOOK).await;
            let looked = policies.clone();
            let Ok((mark, read)) = spawn_blocking(move || look(&looked, seen)).await else { return };
            seen = mark;
            match read {
                None => {}
                Some(Ok(())) => eprintln!("selvedge: {} policies of {} are in force from now on", policies.count(), policies.folder().display()),
                Some(Err(refused)) => eprintln!("selvedge: the changed policies are refused, and those before them stay in force\n{refused}"),
            }
        }
    }))
}

fn look(policies: &CedarPolicies, seen: Option<selvedge_adapters::cedar::Mark>) -> (Option<selvedge_adapters::cedar::Mark>, Option<Result<(), Refused>>) {
    let mark = policies.mark();
    (mark, (mark != seen).then(|| policies.reload()))
}
