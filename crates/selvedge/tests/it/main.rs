//! The tests of the facade: one binary.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod accept;
mod cancel;
mod failing;
mod kit;
mod messages;
mod mismatch;
mod operations;
mod polling;
mod property;
mod replay;
