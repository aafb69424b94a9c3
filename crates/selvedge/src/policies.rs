//! The policies of a folder, read again when something in it changes, or when somebody asks for it.

use std::sync::Arc;
use std::time::Duration;

use selvedge_adapters::cedar::{CedarPolicies, Mark, Refused};
use selvedge_kernel::config::Level;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::log::{Log, said};

/// Between two looks; a change is in force after two of them that see the same.
const LOOK: Duration = Duration::from_secs(1);

/// What came of reading it: how many policies are in force.
type Read = Result<usize, Refused>;

/// Looks at a folder for as long as it lives.
pub(crate) struct Watch {
    task: JoinHandle<()>,
    policies: Arc<CedarPolicies>,
    role: &'static str,
    asked: mpsc::Sender<oneshot::Sender<Read>>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watch {
    /// Reads the folder at once, whether or not it has changed, and says what came of it.
    pub(crate) async fn read_now(&self) -> Result<String, String> {
        let (reply, answer) = oneshot::channel();
        let folder = self.policies.folder().display();
        let gone = || format!("{folder} is not looked at any more: start again to change it");
        self.asked.send(reply).await.map_err(|_| gone())?;
        match answer.await {
            Ok(Ok(count)) => Ok(format!("{count} {} of {folder} are in force from now on", self.role)),
            Ok(Err(refused)) => Err(refusal(self.role, &refused)),
            Err(_) => Err(gone()),
        }
    }
}

fn refusal(role: &str, refused: &Refused) -> String {
    format!("the changed {role} are refused, and those before them stay in force\n{refused}")
}

/// Reads the folder again whenever it says something else than at the last look, and tells on standard error what came of it.
/// A set with a fault is told once, and what was in force stays in force.
pub(crate) fn watch(policies: Arc<CedarPolicies>, role: &'static str, log: Option<Log>) -> Watch {
    let (asked, mut questions) = mpsc::channel::<oneshot::Sender<Read>>(1);
    let watched = policies.clone();
    let task = tokio::spawn(async move {
        let folder = watched.folder().display();
        // Nothing was seen yet: what changed while the engine opened is read too.
        let (mut seen, mut before, mut first) = (None, None, true);
        loop {
            let reply = tokio::select! {
                () = tokio::time::sleep(LOOK) => None,
                Some(reply) = questions.recv() => Some(reply),
            };
            let (looked, at_once) = (watched.clone(), reply.is_some());
            let Ok(Looked { mark, read, whole }) = spawn_blocking(move || if at_once { read_whole(&looked) } else { look(&looked, seen, before) }).await else {
                let text = format!("{folder} is not looked at any more: what is in force stays in force, start again to change it");
                said(log.as_ref(), Level::Error, "policies_unwatched", &text);
                return;
            };
            before = mark;
            if whole {
                seen = mark;
            }
            let quiet = read.is_some() && std::mem::take(&mut first);
            match (read, reply) {
                (Some(read), Some(reply)) => {
                    // Whoever asked may have gone; the policies are read all the same.
                    let _ = reply.send(read.map(|()| watched.count()));
                }
                (Some(Ok(())), None) if !quiet => {
                    let text = format!("{} {role} of {folder} are in force from now on", watched.count());
                    said(log.as_ref(), Level::Info, "policies_reloaded", &text);
                }
                (Some(Err(refused)), None) => said(log.as_ref(), Level::Error, "policies_refused", &refusal(role, &refused)),
                _ => {}
            }
        }
    });
    Watch { task, policies, role, asked }
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
    read_marked(policies, mark)
}

/// Reads it, whatever it says.
fn read_whole(policies: &CedarPolicies) -> Looked {
    read_marked(policies, policies.mark())
}

fn read_marked(policies: &CedarPolicies, mark: Option<Mark>) -> Looked {
    let read = policies.reload();
    Looked { mark, read: Some(read), whole: policies.mark() == mark }
}
