//! Named moments in the life of a program, for whoever wants to know what happens when the process is gone right after one.

use crate::env::{Observation, Observer};

/// A moment of an executor. The names say what has happened, or is about to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ExecPoint {
    /// A program is about to be started.
    Spawning,
    /// It has a process, and has said nothing yet.
    Spawned,
    /// A persistent worker said `hello`.
    Hello,
    /// A line, a task or a cancel, was written to a persistent worker.
    Written,
    /// A one-shot program has ended by itself, and its output is not judged yet.
    Exited,
    /// An answer was read, and its task does not know it yet.
    Answered,
    /// The shard was given the answer, and nothing of it is durable yet.
    Reported,
    /// Nobody waits for a task any more: its worker is about to be told.
    TakenBack,
    /// A program and its group were asked to end.
    Ending,
    /// They are gone.
    Ended,
}

impl ExecPoint {
    /// All of them.
    pub const ALL: [ExecPoint; 10] = [
        ExecPoint::Spawning,
        ExecPoint::Spawned,
        ExecPoint::Hello,
        ExecPoint::Written,
        ExecPoint::Exited,
        ExecPoint::Answered,
        ExecPoint::Reported,
        ExecPoint::TakenBack,
        ExecPoint::Ending,
        ExecPoint::Ended,
    ];
}

/// Who is told of these moments, if anybody.
#[derive(Clone, Default)]
pub struct Points(pub Option<Observer>);

impl Points {
    pub(crate) fn pass(&self, point: ExecPoint) {
        if let Some(observer) = &self.0 {
            observer(&Observation::Exec { point });
        }
    }
}

impl std::fmt::Debug for Points {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(if self.0.is_some() { "Points(observed)" } else { "Points" })
    }
}
