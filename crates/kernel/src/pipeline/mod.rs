//! Pipelines: the definition, its validation, expressions, and the plan of a run.

pub mod definition;
