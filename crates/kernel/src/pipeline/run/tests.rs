#![allow(clippy::unwrap_used)]

mod borrow;
mod cases;
mod model;
mod options;
mod scale;
mod waits;
mod world;
