//! The HTTP API, over real connections.

mod abuse;
mod calls;
pub mod client;
mod crowd;
mod disabled;
mod document;
mod everyone;
mod metrics;
mod notified;
mod pages;
mod planted;
mod policy;
mod rates;
mod remote;
pub mod rig;
mod runs;
mod saved;
mod served;
mod session;
mod shaped;
mod shapes;
mod streams;
mod tasks;
mod tls;
mod traces;
mod waits;
mod work;
