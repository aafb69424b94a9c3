//! What both doors stand on, the control socket and HTTP: requests in words become verbs of the engine, and their answers JSON.

mod approvals;
mod asker;
mod hand;
mod invocations;
mod json;
mod keys;
mod letters;
mod lists;
mod nodes;
mod paged;
mod pipelines;
mod problem;
mod runs;
mod scheduled;
mod schedules;
mod started;
mod stuck;
mod tasks;
mod why;
mod words;
mod worked;

pub use asker::Asker;
pub use hand::{EditState, Gives};
pub use invocations::no_work;
pub use json::{of_bytes, value};
pub use keys::Keys;
pub use paged::{Paged, Pages};
pub use pipelines::{Pipelines, definition_of};
pub use problem::Problem;
pub use runs::{Runs, sentence};
pub use scheduled::ScheduleStatus;
pub use schedules::Schedules;
pub use why::why;
pub use words::{Decision, Invoke, KeyVerb, Steer, SteerSchedule};
pub use worked::Failed;
