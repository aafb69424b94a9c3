//! State machines as tables: `(state, event) → state`; every other pair is refused with both names.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::fmt::Display;

/// One state machine.
#[derive(Clone, Copy, Debug)]
pub struct Machine<S: 'static, E: 'static> {
    /// What it is the machine of.
    pub name: &'static str,
    /// Where it starts.
    pub start: S,
    /// Every state.
    pub states: &'static [S],
    /// Every event.
    pub events: &'static [E],
    /// Every pair that is allowed, and where it leads.
    pub arrows: &'static [(S, E, S)],
}

/// An event that a state does not take.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a {machine} that is {state} does not take `{event}`")]
pub struct Refused {
    /// Of which machine.
    pub machine: &'static str,
    /// The state it is in.
    pub state: String,
    /// The event that came.
    pub event: String,
}

impl<S: Copy + PartialEq + Display, E: Copy + PartialEq + Display> Machine<S, E> {
    /// Where `event` leads from `state`.
    pub fn next(&self, state: S, event: E) -> Result<S, Refused> {
        let found = self.arrows.iter().find(|(from, on, _)| *from == state && *on == event);
        match found {
            Some((_, _, to)) => Ok(*to),
            None => Err(Refused { machine: self.name, state: state.to_string(), event: event.to_string() }),
        }
    }

    /// Whether nothing leads out of `state`.
    #[must_use]
    pub fn is_final(&self, state: S) -> bool {
        !self.arrows.iter().any(|(from, _, to)| *from == state && *to != state)
    }

    /// The diagram for the documentation, in Mermaid.
    #[must_use]
    pub fn mermaid(&self) -> String {
        let mut text = format!("stateDiagram-v2\n    [*] --> {}\n", self.start);
        for (from, event, to) in self.arrows {
            text.push_str(&format!("    {from} --> {to}: {event}\n"));
        }
        for state in self.states.iter().filter(|state| self.is_final(**state)) {
            text.push_str(&format!("    {state} --> [*]\n"));
        }
        text
    }
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$each:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$each])* $variant),+ }

        impl $name {
            /// All of them.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];
        }
        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(match self { $($name::$variant => $word),+ })
            }
        }
    };
}

words!(
    /// Where a run is.
    RunState {
        /// Accepted; nothing of it was looked at.
        Pending = "pending",
        /// A task of it runs or can run.
        Running = "running",
        /// It waits for a time, a person or a signal alone.
        Waiting = "waiting",
        /// Somebody stopped it for a while.
        Paused = "paused",
        /// It cannot go on until someone changes something.
        Blocked = "blocked",
        /// It ended well.
        Completed = "completed",
        /// It ended badly.
        Failed = "failed",
        /// It was told to end.
        Cancelled = "cancelled",
    }
);

words!(
    /// What happens to a run.
    RunEvent {
        /// Its first turn.
        Start = "start",
        /// Nothing is left but waiting.
        Wait = "wait",
        /// What it waited for came.
        Wake = "wake",
        /// Somebody says pause.
        Pause = "pause",
        /// Somebody says resume.
        Resume = "resume",
        /// Something that it needs is gone.
        Block = "block",
        /// It is back.
        Unblock = "unblock",
        /// Every stage has ended.
        Complete = "complete",
        /// A stage failed, or its time was up.
        Fail = "fail",
        /// Somebody says cancel.
        Cancel = "cancel",
        /// Somebody says retry.
        Retry = "retry",
    }
);

/// The machine of a run.
pub const RUN: Machine<RunState, RunEvent> = {
    use RunEvent as E;
    use RunState as S;
    Machine {
        name: "run",
        start: S::Pending,
        states: S::ALL,
        events: E::ALL,
        arrows: &[
            (S::Pending, E::Start, S::Running),
            (S::Pending, E::Pause, S::Paused),
            (S::Pending, E::Fail, S::Failed),
            (S::Pending, E::Cancel, S::Cancelled),
            (S::Running, E::Wait, S::Waiting),
            (S::Running, E::Pause, S::Paused),
            (S::Running, E::Block, S::Blocked),
            (S::Running, E::Complete, S::Completed),
            (S::Running, E::Fail, S::Failed),
            (S::Running, E::Cancel, S::Cancelled),
            (S::Waiting, E::Wake, S::Running),
            (S::Waiting, E::Pause, S::Paused),
            (S::Waiting, E::Block, S::Blocked),
            (S::Waiting, E::Fail, S::Failed),
            (S::Waiting, E::Cancel, S::Cancelled),
            (S::Paused, E::Resume, S::Running),
            (S::Paused, E::Fail, S::Failed),
            (S::Paused, E::Cancel, S::Cancelled),
            (S::Blocked, E::Unblock, S::Running),
            (S::Blocked, E::Pause, S::Paused),
            (S::Blocked, E::Fail, S::Failed),
            (S::Blocked, E::Cancel, S::Cancelled),
            (S::Failed, E::Retry, S::Running),
            (S::Cancelled, E::Retry, S::Running),
        ],
    }
};

impl RunState {
    /// Whether it has ended.
    #[must_use]
    pub fn ended(self) -> bool {
        matches!(self, RunState::Completed | RunState::Failed | RunState::Cancelled)
    }
}

words!(
    /// Where a stage is.
    StageState {
        /// A stage before it has not ended.
        Pending = "pending",
        /// All before it have ended.
        Ready = "ready",
        /// It runs, or waits.
        Running = "running",
        /// It has its output.
        Completed = "completed",
        /// Its `when` was false.
        Skipped = "skipped",
        /// It failed, and the run with it.
        Failed = "failed",
        /// The run ended before it did.
        Cancelled = "cancelled",
    }
);

words!(
    /// What happens to a stage.
    StageEvent {
        /// The last stage before it ended.
        Ready = "ready",
        /// Its `when` holds.
        Start = "start",
        /// Its `when` does not hold.
        Skip = "skip",
        /// Its last task ended.
        Complete = "complete",
        /// It failed.
        Fail = "fail",
        /// The run ends.
        Cancel = "cancel",
        /// Somebody says retry.
        Retry = "retry",
    }
);

/// The machine of a stage.
pub const STAGE: Machine<StageState, StageEvent> = {
    use StageEvent as E;
    use StageState as S;
    Machine {
        name: "stage",
        start: S::Pending,
        states: S::ALL,
        events: E::ALL,
        arrows: &[
            (S::Pending, E::Ready, S::Ready),
            (S::Pending, E::Cancel, S::Cancelled),
            (S::Ready, E::Start, S::Running),
            (S::Ready, E::Skip, S::Skipped),
            (S::Ready, E::Fail, S::Failed),
            (S::Ready, E::Cancel, S::Cancelled),
            (S::Running, E::Complete, S::Completed),
            (S::Running, E::Fail, S::Failed),
            (S::Running, E::Cancel, S::Cancelled),
            (S::Failed, E::Retry, S::Pending),
            (S::Cancelled, E::Retry, S::Pending),
            (S::Completed, E::Retry, S::Pending),
            (S::Skipped, E::Retry, S::Pending),
        ],
    }
};

impl StageState {
    /// Whether stages that depend on it may start.
    #[must_use]
    pub fn lets_on(self) -> bool {
        matches!(self, StageState::Completed | StageState::Skipped)
    }

    /// Whether it has ended, well or not.
    #[must_use]
    pub fn ended(self) -> bool {
        !matches!(self, StageState::Pending | StageState::Ready | StageState::Running)
    }
}

words!(
    /// Where a task is.
    TaskState {
        /// It can start, or waits for its next attempt.
        Queued = "queued",
        /// An attempt runs.
        Running = "running",
        /// It has its output.
        Completed = "completed",
        /// Its last attempt failed.
        Failed = "failed",
        /// Its stage ended before it did.
        Cancelled = "cancelled",
    }
);

words!(
    /// What happens to a task.
    TaskEvent {
        /// An attempt starts.
        Start = "start",
        /// An attempt failed and another follows.
        Again = "again",
        /// The process that ran it is gone.
        Lost = "lost",
        /// An attempt gave a result.
        Complete = "complete",
        /// The last attempt failed.
        Fail = "fail",
        /// Its stage ends.
        Cancel = "cancel",
        /// Somebody says retry.
        Retry = "retry",
    }
);

/// The machine of a task.
pub const TASK: Machine<TaskState, TaskEvent> = {
    use TaskEvent as E;
    use TaskState as S;
    Machine {
        name: "task",
        start: S::Queued,
        states: S::ALL,
        events: E::ALL,
        arrows: &[
            (S::Queued, E::Start, S::Running),
            (S::Queued, E::Fail, S::Failed),
            (S::Queued, E::Cancel, S::Cancelled),
            (S::Running, E::Again, S::Queued),
            (S::Running, E::Lost, S::Queued),
            (S::Running, E::Complete, S::Completed),
            (S::Running, E::Fail, S::Failed),
            (S::Running, E::Cancel, S::Cancelled),
            (S::Failed, E::Retry, S::Queued),
            (S::Cancelled, E::Retry, S::Queued),
        ],
    }
};

words!(
    /// Where an approval is.
    ApprovalState {
        /// Its assignees are asked.
        Open = "open",
        /// Its time was up once and others are asked.
        Escalated = "escalated",
        /// Yes.
        Approved = "approved",
        /// No.
        Rejected = "rejected",
        /// Its stage ended before anyone answered.
        Withdrawn = "withdrawn",
    }
);

words!(
    /// What happens to an approval.
    ApprovalEvent {
        /// Somebody says yes, or its fallback does.
        Approve = "approve",
        /// Somebody says no, or its fallback does.
        Reject = "reject",
        /// Its time is up and its fallback asks others.
        Escalate = "escalate",
        /// Its stage ends.
        Withdraw = "withdraw",
    }
);

/// The machine of an approval.
pub const APPROVAL: Machine<ApprovalState, ApprovalEvent> = {
    use ApprovalEvent as E;
    use ApprovalState as S;
    Machine {
        name: "approval",
        start: S::Open,
        states: S::ALL,
        events: E::ALL,
        arrows: &[
            (S::Open, E::Approve, S::Approved),
            (S::Open, E::Reject, S::Rejected),
            (S::Open, E::Escalate, S::Escalated),
            (S::Open, E::Withdraw, S::Withdrawn),
            (S::Escalated, E::Approve, S::Approved),
            (S::Escalated, E::Reject, S::Rejected),
            (S::Escalated, E::Withdraw, S::Withdrawn),
        ],
    }
};

words!(
    /// What a breaker lets through.
    BreakerState {
        /// Everything.
        Closed = "closed",
        /// Nothing.
        Open = "open",
        /// A few, to find out.
        HalfOpen = "half_open",
    }
);

words!(
    /// What happens to a breaker.
    BreakerEvent {
        /// Too many failures in its window, or the one that was to find out.
        Trip = "trip",
        /// Its time is over.
        Elapse = "elapse",
        /// One that was to find out has succeeded.
        Close = "close",
    }
);

/// The machine of a breaker.
pub const BREAKER: Machine<BreakerState, BreakerEvent> = {
    use BreakerEvent as E;
    use BreakerState as S;
    Machine {
        name: "breaker",
        start: S::Closed,
        states: S::ALL,
        events: E::ALL,
        arrows: &[(S::Closed, E::Trip, S::Open), (S::Open, E::Elapse, S::HalfOpen), (S::HalfOpen, E::Trip, S::Open), (S::HalfOpen, E::Close, S::Closed)],
    }
};

words!(
    /// Where an invocation is.
    InvocationState {
        /// Durable in its inbox.
        Accepted = "accepted",
        /// Its handler is in memory.
        Running = "running",
        /// It waits, and its handler is not in memory.
        Suspended = "suspended",
        /// Its journal does not fit its code, its code is missing, or it crashed too often.
        Blocked = "blocked",
        /// It has its result.
        Completed = "completed",
        /// It has its error.
        Failed = "failed",
        /// It was told to end.
        Cancelled = "cancelled",
    }
);

words!(
    /// What happens to an invocation.
    InvocationEvent {
        /// Its turn has come.
        Start = "start",
        /// It waits long enough to leave memory.
        Suspend = "suspend",
        /// What it waited for came.
        Wake = "wake",
        /// It cannot go on with the code at hand.
        Block = "block",
        /// Fitting code is there, or someone resolved the entry.
        Unblock = "unblock",
        /// Its handler gave a result.
        Complete = "complete",
        /// Its handler gave a terminal error, or its attempts are used up.
        Fail = "fail",
        /// It ends after its cancel was delivered, before it started, or by kill.
        Cancel = "cancel",
    }
);

/// The machine of an invocation.
pub const INVOCATION: Machine<InvocationState, InvocationEvent> = {
    use InvocationEvent as E;
    use InvocationState as S;
    Machine {
        name: "invocation",
        start: S::Accepted,
        states: S::ALL,
        events: E::ALL,
        arrows: &[
            (S::Accepted, E::Start, S::Running),
            (S::Accepted, E::Block, S::Blocked),
            (S::Accepted, E::Fail, S::Failed),
            (S::Accepted, E::Cancel, S::Cancelled),
            (S::Running, E::Suspend, S::Suspended),
            (S::Running, E::Block, S::Blocked),
            (S::Running, E::Complete, S::Completed),
            (S::Running, E::Fail, S::Failed),
            (S::Running, E::Cancel, S::Cancelled),
            (S::Suspended, E::Wake, S::Running),
            (S::Suspended, E::Block, S::Blocked),
            (S::Suspended, E::Fail, S::Failed),
            (S::Suspended, E::Cancel, S::Cancelled),
            (S::Blocked, E::Unblock, S::Running),
            (S::Blocked, E::Fail, S::Failed),
            (S::Blocked, E::Cancel, S::Cancelled),
        ],
    }
};

/// Every machine as a Mermaid diagram under its name: what the documentation shows.
#[must_use]
pub fn diagrams() -> Vec<(&'static str, String)> {
    vec![
        (RUN.name, RUN.mermaid()),
        (STAGE.name, STAGE.mermaid()),
        (TASK.name, TASK.mermaid()),
        (APPROVAL.name, APPROVAL.mermaid()),
        (INVOCATION.name, INVOCATION.mermaid()),
        (BREAKER.name, BREAKER.mermaid()),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn is_a_function<S: Copy + PartialEq + Display + Eq + Ord, E: Copy + PartialEq + Display>(machine: &Machine<S, E>) {
        let mut reached = vec![machine.start];
        for state in machine.states {
            for event in machine.events {
                let arrows: Vec<_> = machine.arrows.iter().filter(|(from, on, _)| from == state && on == event).collect();
                assert!(arrows.len() <= 1, "{} has two arrows for ({state}, {event})", machine.name);
                match machine.next(*state, *event) {
                    Ok(to) => assert!(arrows[0].2 == to && to != *state),
                    Err(refused) => {
                        let text = refused.to_string();
                        assert!(arrows.is_empty() && text.contains(&state.to_string()) && text.contains(&event.to_string()));
                    }
                }
            }
        }
        for _ in machine.states {
            for (from, _, to) in machine.arrows {
                if reached.contains(from) && !reached.contains(to) {
                    reached.push(*to);
                }
            }
        }
        assert_eq!(reached.len(), machine.states.len(), "every state of {} is reached", machine.name);
        assert!(machine.mermaid().starts_with("stateDiagram-v2"));
        for (from, event, to) in machine.arrows {
            assert!(machine.mermaid().contains(&format!("{from} --> {to}: {event}")));
        }
    }

    #[test]
    fn every_pair_of_state_and_event_has_one_answer_and_a_refusal_names_both() {
        is_a_function(&RUN);
        is_a_function(&STAGE);
        is_a_function(&TASK);
        is_a_function(&APPROVAL);
        is_a_function(&INVOCATION);
        is_a_function(&BREAKER);
    }

    #[test]
    fn every_machine_has_its_diagram_under_its_own_name() {
        let names: Vec<_> = diagrams().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["run", "stage", "task", "approval", "invocation", "breaker"]);
    }

    #[test]
    fn an_ended_run_takes_nothing_but_a_retry_of_what_failed() {
        for event in RunEvent::ALL {
            assert!(RUN.next(RunState::Completed, *event).is_err());
            assert_eq!(RUN.next(RunState::Failed, *event).is_ok(), *event == RunEvent::Retry);
            assert_eq!(RUN.next(RunState::Cancelled, *event).is_ok(), *event == RunEvent::Retry);
        }
    }
}
