//! The tests of the facade: one binary.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod accept;
mod failing;
mod kit;
mod mismatch;
mod operations;
mod polling;
mod property;
mod replay;
