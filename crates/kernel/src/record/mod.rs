//! The key layout: every kind of row, its key and its value.

pub mod kind;
pub mod run;
