//! Selvedge: durable actors, pipelines and queued work, in one crate and one binary.
//!
//! Everything that is accepted is on disk before it is acknowledged. Kill the process at any instruction: it carries on
//! where it was, and no finished step is done twice. `examples/embedded` is a whole program.

mod app;
pub mod bootstrap;
mod build;
#[cfg(feature = "server")]
mod certificates;
#[cfg(feature = "cli")]
mod cli;
pub mod client;
pub mod config;
pub mod control;
mod ctx;
mod failure;
mod json;
pub mod log;
pub mod manifest;
mod name;
mod observed;
#[cfg(feature = "cedar")]
mod policies;
mod program;
mod rehearse;
pub mod run;
pub mod schedule;
#[cfg(feature = "server")]
pub mod serve;
mod state;
mod stream;
#[cfg(feature = "test")]
pub mod test;
#[cfg(feature = "jwt")]
pub mod tokens;
mod verify;

pub use app::App;
pub use bootstrap::{Engine, EngineError};
#[cfg(feature = "cli")]
pub use cli::main;
pub use client::{CallError, Client, Pending, SendError, SignalError};
pub use config::Config;
pub use ctx::{Attempt, Child, Ctx, Either, Op, Sent, Step, Wait};
pub use failure::{Failure, Outcome};
pub use manifest::{FileError, LoadedPipeline};
pub use name::{Activity, Handler, SharedHandler, Signal, Target};
pub use rehearse::RehearseError;
pub use run::Run;
pub use schedule::{Schedule, ScheduleError, ScheduleStatus};
pub use selvedge_engine::registry::ActorOptions;
pub use selvedge_engine::verify::ShardReport;
pub use selvedge_engine::why::Why;
pub use selvedge_engine::wiring::Settings;
pub use selvedge_kernel::auth::AuthorizationContext;
pub use selvedge_kernel::id::{InvocationId, RunId};
pub use selvedge_kernel::pipeline::definition::Definition;
pub use selvedge_kernel::pipeline::parse::parse_pipeline as pipeline;
pub use selvedge_kernel::policy::{Backoff, Breaker, Rate, Retry, Span, Throttle, Timeout};
pub use selvedge_kernel::record::build::{Build, Builds};
pub use selvedge_kernel::time::Millis;
pub use selvedge_kernel::waiting::Waiting;
pub use state::{State, View};
pub use stream::{Chunks, Emitted};
pub use verify::VerifyError;
