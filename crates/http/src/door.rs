//! What all requests share.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use selvedge_engine::engine::Engine;
use selvedge_kernel::auth::{AuthorizationContext, RequestFacts, TokenError};
use selvedge_kernel::ports::Boxed;
use tokio::sync::watch;

use crate::rates::Rates;
use crate::session::Sessions;

/// Says of each part that the server depends on, by name, why it is not ready; none: it is.
pub type Ready = Arc<dyn Fn() -> Vec<(&'static str, Option<String>)> + Send + Sync>;

/// Says who presents a token, or why it opens nothing.
pub type Verify = Arc<dyn Fn(String, RequestFacts) -> Boxed<'static, Result<AuthorizationContext, TokenError>> + Send + Sync>;

/// Whose tokens are believed, beside keys of ours.
#[derive(Clone)]
pub struct Tokens {
    /// Says who presents one of them.
    pub verify: Verify,
    /// The issuers, by name, each with whether its keys could be read when that was tried last.
    pub issuers: Arc<dyn Fn() -> Vec<(String, bool)> + Send + Sync>,
}

/// What all requests share.
#[derive(Clone)]
pub struct Door {
    /// The engine.
    pub engine: Arc<Engine>,
    /// Tells what is not ready.
    pub ready: Ready,
    /// Whose tokens are believed, beside keys; none: nobody's.
    pub tokens: Option<Tokens>,
    /// How long the body of a request may take to be there.
    pub body_within: Duration,
    /// How long the reader of a stream may leave a page untaken.
    pub slow_after: Duration,
    /// This program, in a sentence.
    pub binary: String,
    /// The version of policies and keys: when it changes, streams ask again who reads.
    pub versions: watch::Receiver<u64>,
    /// The sessions of browsers.
    pub sessions: Arc<Sessions>,
    /// How often each tenant asks, and each address fails to say who it is.
    pub rates: Arc<Rates>,
    /// Becomes true when the server stops: streams end, and new ones are not begun.
    pub closing: watch::Receiver<bool>,
}

impl fmt::Debug for Door {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Door")
    }
}
