//! Why something is where it is.

use selvedge_kernel::auth::AuthorizationContext;
use selvedge_kernel::error::WorkError;
use selvedge_kernel::id::{ActorId, InvocationId};
use selvedge_kernel::record::build::Builds;
use selvedge_kernel::record::invocation::{Blocked, Restarts, Status};
use selvedge_kernel::time::Millis;
use selvedge_kernel::waiting::{Waiting, closed};
use serde::Serialize;

/// The answer to `why`.
#[derive(Clone, Debug, Serialize)]
pub struct Why {
    /// Of which invocation.
    pub id: InvocationId,
    /// Of which actor.
    pub actor: ActorId,
    /// Which handler.
    pub handler: String,
    /// Where it stands.
    pub status: Status,
    /// Which attempt it is in.
    pub attempt: u32,
    /// When it was accepted.
    pub accepted_at: Millis,
    /// The error of the last failed attempt.
    pub last_error: Option<WorkError>,
    /// What it waits for; empty once it has ended.
    pub waiting: Vec<Waiting>,
    /// Since when: the time at which the newest of what it waits for began. Attempts that failed begin nothing.
    pub since: Millis,
    /// Why it is blocked, if it is.
    pub blocked: Option<Blocked>,
    /// How often its handler was polled for longer than 100 ms since it came into memory.
    pub slow_polls: u32,
    /// Who asked for it, and through whom.
    pub caller: AuthorizationContext,
    /// The version of its handler that accepted it.
    pub version: u32,
    /// The invocation that it went on from, and the one that goes on for it.
    pub restarts: Restarts,
    /// The invocation that its journal was copied from, and those that were made of its own.
    pub forks: Forks,
    /// The build that recorded it, and the one that would handle it now.
    pub builds: Builds,
}

/// The neighbours of an invocation among those whose journals were copied from one another.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Forks {
    /// From which it was forked.
    pub from: Option<InvocationId>,
    /// Which were forked from it; at most a page.
    pub into: Vec<InvocationId>,
}

impl Why {
    /// One sentence.
    #[must_use]
    pub fn sentence(&self) -> String {
        let version = if self.version > 1 { format!("@{}", self.version) } else { String::new() };
        let from = self.restarts.before.map(|before| format!(", which goes on from {before},")).unwrap_or_default();
        let who = format!("{} ({}.{}{version}){from}", self.id, self.actor, self.handler);
        if let Some(after) = self.restarts.after {
            return format!("{who} has ended: it started anew as {after}.");
        }
        if self.status.ended() {
            let error = self.last_error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
            return closed(format!("{who} has ended: {}{error}", word(self.status)));
        }
        let waits: Vec<String> = self.waiting.iter().map(Waiting::sentence).collect();
        let slow = match self.slow_polls {
            0 => String::new(),
            count => format!(" Its handler has held its thread for longer than 100 ms {count} times: move that work into `blocking`."),
        };
        // A journal that does not fit says which two programs to compare.
        let builds = self.blocked.as_ref().and_then(|_| self.builds.sentence()).map(|builds| format!(" {builds}")).unwrap_or_default();
        format!("{}{builds}{slow}", closed(format!("{who} waits {}", waits.join("; and "))))
    }
}

fn word(status: Status) -> &'static str {
    match status {
        Status::Accepted => "accepted",
        Status::Running => "running",
        Status::Blocked => "blocked",
        Status::Completed => "completed",
        Status::Failed => "failed",
        Status::Cancelled => "cancelled",
        Status::Killed => "killed",
    }
}

/// What a shard holds in memory.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Census {
    /// Actors.
    pub actors: usize,
    /// Invocations with a handler in memory.
    pub active: usize,
    /// Tasks that run outside handlers.
    pub tasks: usize,
    /// Runs of pipelines.
    pub runs: usize,
    /// Envelopes not acknowledged.
    pub outbox: usize,
    /// Envelopes let out and not acknowledged: of what a reopened store holds, at most the next 256 of each pair of shards.
    pub on_their_way: usize,
    /// Durable timers in memory: at most the next thousand of each shard.
    pub timers: usize,
}
