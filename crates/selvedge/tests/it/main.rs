//! The tests of the facade: one binary.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod accept;
mod cancel;
mod clock;
mod embedded;
mod failing;
mod kit;
mod limits;
mod memory;
mod messages;
mod mismatch;
mod operations;
mod polling;
mod property;
mod replay;
mod state;
