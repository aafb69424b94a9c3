//! The kernel through its public face.
#![allow(clippy::unwrap_used)]

mod broken;
mod compliance;
mod expressions;
mod pipelines;
mod settings;
