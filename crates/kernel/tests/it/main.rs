//! The kernel through its public face.
#![allow(clippy::unwrap_used)]

mod compliance;
mod expressions;
