//! Tokens of other issuers, with keys that are fetched again when they are old.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use selvedge_adapters::jwt::Issuers;
use selvedge_http::Tokens;
use selvedge_kernel::auth::Issuer;
use selvedge_kernel::config::Level;
use selvedge_kernel::ports::Boxed;
use tokio::task::JoinHandle;

use crate::log::{Log, said};

pub use selvedge_adapters::jwt::{Pace, Unusable};

/// Between two looks at what is old.
const LOOK: Duration = Duration::from_secs(1);

/// Keeps keys fresh for as long as it lives.
struct Keeping(JoinHandle<()>);

impl Drop for Keeping {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Who presents a token of these issuers; none: nobody's tokens are believed. Keys are kept fresh for as long as somebody holds
/// what this gives.
///
/// # Errors
/// A file of keys that cannot be used.
pub async fn believed(issuers: BTreeMap<String, Issuer>, pace: Pace, log: Option<Log>) -> Result<Option<Tokens>, Unusable> {
    if issuers.is_empty() {
        return Ok(None);
    }
    let issuers = Arc::new(Issuers::open(issuers, pace).await?);
    let keeping = Keeping(tokio::spawn(keep(issuers.clone(), log)));
    let known = issuers.clone();
    let verify = Arc::new(move |token: String, request| -> Boxed<'static, _> {
        let _kept = &keeping;
        let issuers = issuers.clone();
        Box::pin(async move { issuers.verify(&token, request).await })
    });
    Ok(Some(Tokens { verify, issuers: Arc::new(move || known.states()) }))
}

/// Tells what is wrong with somebody's keys, once, and when it is right again.
async fn keep(issuers: Arc<Issuers>, log: Option<Log>) {
    let mut told: Vec<String> = Vec::new();
    loop {
        issuers.keep_fresh().await;
        let troubles = issuers.troubles();
        for trouble in troubles.iter().filter(|trouble| !told.contains(trouble)) {
            said(log.as_ref(), Level::Error, "issuer_keys_refused", trouble);
        }
        if troubles.is_empty() && !told.is_empty() {
            said(log.as_ref(), Level::Info, "issuer_keys_read", "the keys of all issuers are read");
        }
        told = troubles;
        tokio::time::sleep(LOOK).await;
    }
}
