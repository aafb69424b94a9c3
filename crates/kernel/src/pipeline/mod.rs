//! Pipelines: the definition, its validation, expressions, and the plan of a run.

pub(crate) mod activity;
mod code;
pub mod definition;
mod doc;
pub mod document;
mod evaluate;
pub mod expression;
pub mod functions;
mod number;
pub mod parse;
pub(crate) mod policies;
pub mod schema;
mod scope;
mod stage;
pub mod template;
mod validate;

pub use code::{Read, Step};
