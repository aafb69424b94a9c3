#![allow(clippy::unwrap_used)]

mod cases;
mod model;
mod modes;
mod options;
mod retries;
mod scale;
mod undo;
mod waits;
mod world;
