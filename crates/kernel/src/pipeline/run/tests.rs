#![allow(clippy::unwrap_used)]

mod borrow;
mod cases;
mod model;
mod modes;
mod options;
mod retries;
mod scale;
mod undo;
mod waits;
mod world;
