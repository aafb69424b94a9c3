//! Selvedge's engine: it performs what the kernel decides. Shards, activation, replay, messages between shards, timers,
//! activity executors.

pub mod ctx;
pub mod desk;
pub mod engine;
pub mod env;
pub mod exec;
pub mod hand;
pub mod happened;
pub mod http;
pub mod listing;
pub mod registry;
pub mod rehearse;
pub mod verify;
pub mod view;
pub mod why;
pub mod wiring;

mod core;
pub mod decisions;
mod definitions;
mod disabled;
mod door;
mod draft;
mod edit;
mod flight;
mod given;
mod idmap;
mod in_flight;
pub mod keys;
mod known;
mod lending;
mod letters;
pub mod load;
pub mod node;
mod permitted;
mod runs;
mod schedules;
mod shadow;
mod shard;
pub mod step;
mod tasks;
pub mod trace;
pub mod work;
mod worker;

pub use crate::core::{BlockingFn, Given, Request};
pub use crate::decisions::Wanted;
pub use crate::in_flight::Held;
pub use crate::runs::{
    Again, ForkedRun, Retry, RunControl, RunEnd, RunEvent, RunFork, RunStart, RunStatus, RunSummary, StageStatus, TaskNumber, TaskPage, TaskStatus, TasksAsked,
    Undoes,
};
pub use crate::schedules::ScheduleChange;
pub use crate::shard::{Answer, Progress, Redriven, SignalTarget, VerbError};
