//! Pipelines: the definition, its validation, expressions, and the plan of a run.

mod code;
pub mod definition;
mod doc;
mod evaluate;
pub mod expression;
pub mod functions;
mod number;
pub mod template;

pub use code::{Read, Step};
