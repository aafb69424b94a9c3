//! The http executor: activities that are requests.
//!
//! A request goes only where `egress` says, to the address that was checked, on a connection of its own. Proxy variables
//! are not read. What comes back is bounded after it is unpacked.

mod settings;
pub use settings::{HttpSettings, Resolve};

#[cfg(feature = "http-executor")]
mod answer;
#[cfg(feature = "http-executor")]
mod client;
#[cfg(feature = "http-executor")]
mod connect;
#[cfg(feature = "http-executor")]
mod tls;
#[cfg(feature = "http-executor")]
pub use client::Client;
