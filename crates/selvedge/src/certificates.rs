//! The certificate of a server and its key, read again when their files change.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use selvedge_http::{Certificates, Mark, Unusable};
use selvedge_kernel::config::Level;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::log::{Log, said};

/// Between two looks; a change is in force after two of them that see the same: a pair is two files, written one after the other.
const LOOK: Duration = Duration::from_secs(1);

/// Looks at the files for as long as it lives.
pub(crate) struct Watch(JoinHandle<()>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Reads the files again whenever they say something else than at the last look, and tells what came of it. A pair that cannot be
/// used is told once, and the one before stays in force.
pub(crate) fn watch(certificates: Arc<Certificates>, log: Option<Log>) -> Watch {
    Watch(tokio::spawn(async move {
        // A pair that was exchanged while the engine opened is read too.
        let mut seen = certificates.opened().cloned();
        let mut before = seen.clone();
        loop {
            tokio::time::sleep(LOOK).await;
            let mark = marked(&certificates).await;
            if mark == seen || mark != before {
                before = mark;
                continue;
            }
            seen = mark;
            match reread(&certificates).await {
                Ok(()) => {
                    let text = format!("the certificate of {} is in force from now on", certificates.file().display());
                    said(log.as_ref(), Level::Info, "certificate_reloaded", &text);
                }
                Err(unusable) => {
                    let text = format!("the changed certificate is refused, and the one before it stays in force\n{unusable}");
                    said(log.as_ref(), Level::Error, "certificate_refused", &text);
                }
            }
        }
    }))
}

async fn marked(certificates: &Arc<Certificates>) -> Option<Mark> {
    let looked = certificates.clone();
    spawn_blocking(move || looked.mark()).await.ok().flatten()
}

async fn reread(certificates: &Arc<Certificates>) -> Result<(), Unusable> {
    let looked = certificates.clone();
    // It does not panic, and is not cancelled: what was in force stays.
    spawn_blocking(move || looked.reload(SystemTime::now())).await.unwrap_or(Ok(()))
}
