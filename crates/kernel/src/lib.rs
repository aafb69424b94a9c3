//! Selvedge's kernel: the vocabulary and every decision, as pure functions over typed data.
//!
//! Nothing here reads a clock, draws a random number, opens a file or awaits. A function is given
//! state, an event and the time, and gives back what to write and what to do; the engine performs it.

pub mod auth;
pub mod calls;
pub mod config;
pub mod diagnostic;
pub mod egress;
pub mod error;
mod fields;
pub mod filter;
pub mod id;
pub mod journal;
pub mod lend;
pub mod limit;
pub mod machine;
pub mod manifest;
#[cfg(feature = "test")]
pub mod model;
pub mod nearest;
pub mod pipeline;
pub mod policy;
pub mod ports;
pub mod pressure;
pub mod record;
pub mod replay;
pub mod schedule;
pub mod time;
pub mod transition;
pub mod waiting;
pub mod wire;
