//! What all requests share.

use std::fmt;
use std::sync::Arc;

use selvedge_engine::engine::Engine;
use selvedge_kernel::auth::{AuthorizationContext, RequestFacts};
use tokio::sync::watch;

/// Tells who presents a credential; none: nobody whom we know. It is asked for each request, and again while a stream goes on.
pub type Authenticate = Arc<dyn Fn(&str, RequestFacts) -> Option<AuthorizationContext> + Send + Sync>;

/// Says of each part that the server depends on, by name, why it is not ready; none: it is.
pub type Ready = Arc<dyn Fn() -> Vec<(&'static str, Option<String>)> + Send + Sync>;

/// What all requests share.
#[derive(Clone)]
pub struct Door {
    /// The engine.
    pub engine: Arc<Engine>,
    /// Tells who asks.
    pub authenticate: Authenticate,
    /// Tells what is not ready.
    pub ready: Ready,
    /// This program, in a sentence.
    pub binary: String,
    /// Becomes true when the server stops: streams end, and new ones are not begun.
    pub closing: watch::Receiver<bool>,
}

impl fmt::Debug for Door {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Door")
    }
}
