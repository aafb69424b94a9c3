//! The policies of a folder, read again when something in it changes.

use std::sync::Arc;
use std::time::Duration;

use selvedge_adapters::cedar::{CedarPolicies, Mark, Refused};
use tokio::task::{JoinHandle, spawn_blocking};

/// Between two looks; a change is in force after two of them that see the same.
const LOOK: Duration = Duration::from_secs(1);

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
        // Nothing was seen yet: what changed while the engine opened is read too.
        let (mut seen, mut before, mut first) = (None, None, true);
        loop {
            tokio::time::sleep(LOOK).await;
            let looked = policies.clone();
            let Ok(Looked { mark, read, whole }) = spawn_blocking(move || look(&looked, seen, before)).await else {
                eprintln!("selvedge: {} is not looked at any more: what is in force stays in force, start again to change it", policies.folder().display());
                return;
            };
            before = mark;
            if whole {
                seen = mark;
            }
            let quiet = read.is_some() && std::mem::take(&mut first);
            match read {
                None => {}
                Some(Ok(())) if quiet => {}
                Some(Ok(())) => eprintln!("selvedge: {} policies of {} are in force from now on", policies.count(), policies.folder().display()),
                Some(Err(refused)) => eprintln!("selvedge: the changed policies are refused, and those before them stay in force\n{refused}"),
            }
        }
    }))
}

struct Looked {
    mark: Option<Mark>,
    /// What came of reading it.
    read: Option<Result<(), Refused>>,
    /// It was read, and did not change meanwhile.
    whole: bool,
}

/// Reads what differs from what was seen and is as it was a look before: a file that is being written is not half read.
fn look(policies: &CedarPolicies, seen: Option<Mark>, before: Option<Mark>) -> Looked {
    let mark = policies.mark();
    if mark == seen || mark != before {
        return Looked { mark, read: None, whole: false };
    }
    let read = policies.reload();
    Looked { mark, read: Some(read), whole: policies.mark() == mark }
}
