//! Pipelines: the definition, its validation, expressions, and the plan of a run.

mod code;
pub mod compiled;
pub mod definition;
mod doc;
mod evaluate;
pub mod expression;
pub mod functions;
mod number;
pub mod plan;
pub mod run;
pub mod template;
pub mod throttle;

pub use code::{Read, Step};
