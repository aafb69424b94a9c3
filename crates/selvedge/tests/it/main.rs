//! The tests of the facade and of the binary: one binary.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod accept;
mod cancel;
mod children;
mod cli;
mod clock;
mod disk;
mod embedded;
mod erase;
mod failing;
mod kit;
mod limits;
mod memory;
mod mended;
mod messages;
mod mismatch;
mod modes;
mod operations;
mod polling;
mod property;
mod readme;
mod replay;
mod rig;
mod runbook;
mod runs;
mod state;
