//! The tests of the facade: one binary.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod accept;
mod kit;
mod property;
mod replay;
