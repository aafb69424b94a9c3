//! Pipelines: the definition, its validation, expressions, and the plan of a run.

pub(crate) mod activity;
pub mod agree;
pub mod attributes;
pub mod changes;
mod code;
pub mod compiled;
pub mod definition;
mod doc;
pub mod document;
pub mod editor;
mod evaluate;
pub mod expression;
pub mod functions;
pub(crate) mod http;
mod modes;
mod number;
pub mod parse;
pub mod plan;
pub(crate) mod policies;
pub mod request;
pub mod run;
mod scheduled;
pub mod schema;
mod scope;
pub mod shared;
mod stage;
pub mod template;
pub mod throttle;
mod validate;

pub use code::{Read, Step};
