//! What requests are made with.

use std::net::IpAddr;
use std::sync::Arc;

use selvedge_kernel::ports::Boxed;

/// Gives the addresses of a name.
pub type Resolve = Arc<dyn Fn(String) -> Boxed<'static, std::io::Result<Vec<IpAddr>>> + Send + Sync>;

/// What requests are made with.
#[derive(Clone, Default)]
pub struct HttpSettings {
    /// How names become addresses; none: as the system does it.
    pub resolve: Option<Resolve>,
    /// The certificates, as DER, that servers are verified with; none: the system's.
    pub roots: Option<Vec<Vec<u8>>>,
}

impl std::fmt::Debug for HttpSettings {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("HttpSettings")
    }
}
