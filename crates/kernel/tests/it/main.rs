//! The kernel through its public face.
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "the tests read files and measure; the kernel itself does neither")]

mod broken;
mod compliance;
mod expressions;
mod pipelines;
mod reference;
mod schedules;
mod settings;
mod vocabulary;
