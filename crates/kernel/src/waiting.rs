//! What work can wait for: one closed enum. What is not terminal has one.

use serde::{Deserialize, Serialize};

use crate::id::{ActorId, InvocationId, RunId, ShardId};
use crate::machine::BreakerState;
use crate::policy::Throttle;
use crate::pressure::Admission;
use crate::time::Millis;

/// Why something that is not finished is not moving on.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "for", rename_all = "snake_case")]
pub enum Waiting {
    /// A time.
    Timer {
        #[serde(with = "crate::time::text")]
        until: Millis,
    },
    /// A signal by name.
    Signal {
        name: String,
        #[serde(with = "crate::time::text::optional")]
        until: Option<Millis>,
    },
    /// The answer to a call.
    Call { target: ActorId, handler: String, invocation: InvocationId },
    /// A step or activity that runs now.
    Step {
        name: String,
        attempt: u32,
        #[serde(with = "crate::time::text")]
        since: Millis,
    },
    /// The next attempt.
    RetryAt {
        name: String,
        attempt: u32,
        #[serde(with = "crate::time::text")]
        at: Millis,
        last_error: String,
        /// How many attempts of a message there may be, where so many have failed that somebody is to look.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        of: Option<u32>,
    },
    /// A slot or a token of a throttle.
    Throttle {
        limit: String,
        position: u64,
        /// Of one that is shared with other runs: how it stands.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lending: Option<Lending>,
    },
    /// A breaker: it is open, or lets a few through to find out, or was asked just now.
    Breaker {
        target: String,
        state: BreakerState,
        #[serde(with = "crate::time::text::optional")]
        since: Option<Millis>,
        /// Of an open one: when it lets somebody find out.
        #[serde(with = "crate::time::text::optional")]
        until: Option<Millis>,
    },
    /// A person.
    Approval {
        stage: String,
        assignees: Vec<String>,
        #[serde(with = "crate::time::text")]
        expires: Millis,
    },
    /// An earlier message of the same actor.
    Behind { invocation: InvocationId },
    /// A shard lease.
    Lease { node: String },
    /// Someone who looks at it: its journal does not fit its code, its code is missing, it crashed too often.
    Blocked { reason: String },
    /// Something that can run it.
    NoExecutor { activity: String },
    /// Somebody paused it.
    Paused {
        by: String,
        #[serde(with = "crate::time::text")]
        since: Millis,
    },
    /// The store to catch up.
    StoreBehind,
    /// Its turn in its shard.
    Turn { position: u64 },
    /// Its write to be durable.
    Commit,
    /// The tasks of a stage.
    Tasks { stage: String, done: u64, total: u64 },
    /// A slot among the runs of its pipeline.
    RunLimit { key: String, holder: RunId },
    /// A child.
    Child { invocation: InvocationId },
    /// A run that a task of it called.
    ChildRun { stage: String, run: RunId },
}

/// How a limit over all shards stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Lending {
    /// What it limits to.
    pub throttle: Throttle,
    /// The shards whose attempts have a permit, and how many have.
    pub borrowers: Vec<(ShardId, u32)>,
    /// How many wait for one in all shards.
    pub waiting: u64,
}

/// Borrowers of one limit in a sentence.
const BORROWERS_SHOWN: usize = 5;

impl Waiting {
    /// The same while the store takes new work in like this: what waits for its write waits for the store, if that is
    /// behind.
    ///
    /// ```
    /// use selvedge_kernel::{pressure::Admission, waiting::Waiting};
    /// assert_eq!(Waiting::Commit.under(Admission::Refused), Waiting::StoreBehind);
    /// assert_eq!(Waiting::Commit.under(Admission::Now), Waiting::Commit);
    /// assert_eq!(Waiting::Turn { position: 3 }.under(Admission::Refused), Waiting::Turn { position: 3 });
    /// ```
    #[must_use]
    pub fn under(self, admission: Admission) -> Waiting {
        match (self, admission) {
            (Waiting::Commit, Admission::Refused) => Waiting::StoreBehind,
            (waiting, _) => waiting,
        }
    }

    /// One sentence without its full stop, to stand behind "waits".
    #[must_use]
    pub fn sentence(&self) -> String {
        match self {
            Waiting::Timer { until } => format!("for its timer at {until}"),
            Waiting::Signal { name, until: Some(until) } => format!("for the signal `{name}` until {until}"),
            Waiting::Signal { name, until: None } => format!("for the signal `{name}`"),
            Waiting::Call { target, handler, invocation } => format!("for the answer of {target}.{handler} ({invocation})"),
            Waiting::Step { name, attempt, since } => format!("for `{name}`, attempt {attempt}, running since {since}"),
            Waiting::RetryAt { name, attempt, at, last_error, of: Some(of) } => format!(
                "to try `{name}` again at {at} (attempt {attempt} of {of}: after the last of them it is a dead letter; the one before this said: {last_error})"
            ),
            Waiting::RetryAt { name, attempt, at, last_error, of: None } => {
                format!("to try `{name}` again at {at} (attempt {attempt}; the last one said: {last_error})")
            }
            Waiting::Throttle { limit, position, lending } => {
                format!("for the throttle of {limit}, {position} before it{}", lending.as_ref().map(of_lending).unwrap_or_default())
            }
            Waiting::Breaker { target, state, since, until } => of_breaker(target, *state, *since, *until),
            Waiting::Approval { stage, assignees, expires } => {
                format!("for an approval at `{stage}` by {} until {expires}", assignees.join(", "))
            }
            Waiting::Behind { invocation } => format!("behind {invocation}, which holds the same actor"),
            Waiting::Lease { node } => format!("for the shard lease of {node}"),
            Waiting::Blocked { reason } => format!("for someone to look at it: blocked ({reason})"),
            Waiting::NoExecutor { activity } => format!("for something that can run the activity `{activity}`"),
            Waiting::Paused { by, since } => format!("because {by} paused it at {since}"),
            Waiting::StoreBehind => "for the store to catch up".to_owned(),
            Waiting::Turn { position } => format!("for its turn, {position} before it"),
            Waiting::Commit => "for its write to be durable".to_owned(),
            Waiting::Tasks { stage, done, total } => format!("for the tasks of `{stage}`, {done} of {total} done"),
            Waiting::RunLimit { key, holder } if key.is_empty() => format!("for the run limit of its pipeline, held by {holder}"),
            Waiting::RunLimit { key, holder } => format!("for the run limit of `{key}`, held by {holder}"),
            Waiting::Child { invocation } => format!("for its child {invocation}"),
            Waiting::ChildRun { stage, run } => format!("at `{stage}` for its child {run}"),
        }
    }
}

/// A sentence with its full stop, if it has no end of its own: an error at its end may bring one along.
///
/// ```
/// use selvedge_kernel::waiting::closed;
/// assert_eq!(closed("it has ended: failed".to_owned()), "it has ended: failed.");
/// assert_eq!(closed("it has ended: is it installed?".to_owned()), "it has ended: is it installed?");
/// ```
#[must_use]
pub fn closed(sentence: String) -> String {
    if sentence.ends_with(['.', '?', '!']) { sentence } else { format!("{sentence}.") }
}

fn of_lending(Lending { throttle, borrowers, waiting }: &Lending) -> String {
    let mut held: Vec<String> = borrowers.iter().take(BORROWERS_SHOWN).map(|(shard, permits)| format!("{permits} in shard {}", shard.0)).collect();
    if let Some(more) = borrowers.len().checked_sub(BORROWERS_SHOWN).filter(|more| *more > 0) {
        held.push(format!("others in {more} more shards"));
    }
    let held = if held.is_empty() { "no attempt".to_owned() } else { held.join(", ") };
    format!("; of {throttle} is taken: {held}; {waiting} wait in all")
}

fn of_breaker(target: &str, state: BreakerState, since: Option<Millis>, until: Option<Millis>) -> String {
    let since = since.map_or_else(String::new, |since| format!(" since {since}"));
    match (state, until) {
        (BreakerState::Open, Some(until)) => format!("for the breaker of {target}, open{since} because of its failures; at {until} it lets somebody try"),
        (BreakerState::Open, None) => format!("for the breaker of {target}, open{since} because of its failures"),
        (BreakerState::HalfOpen, _) => format!("for the breaker of {target}, half open{since}: others find out whether it is well"),
        (BreakerState::Closed, _) => format!("for the breaker of {target} to let it through"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_breaker_is_named_with_its_state_since_when_and_until_when() {
        let breaker = |state, until| Waiting::Breaker { target: "activity charge".to_owned(), state, since: Some(Millis(0)), until };
        let open = breaker(BreakerState::Open, Some(Millis(30_000)));
        assert_eq!(
            open.sentence(),
            "for the breaker of activity charge, open since 1970-01-01T00:00:00.000Z because of its failures; at 1970-01-01T00:00:30.000Z it lets somebody try"
        );
        assert_eq!(
            serde_json::to_string(&open).unwrap(),
            r#"{"for":"breaker","target":"activity charge","state":"open","since":"1970-01-01T00:00:00.000Z","until":"1970-01-01T00:00:30.000Z"}"#
        );
        assert_eq!(
            breaker(BreakerState::HalfOpen, None).sentence(),
            "for the breaker of activity charge, half open since 1970-01-01T00:00:00.000Z: others find out whether it is well"
        );
    }

    #[test]
    fn a_throttle_is_named_with_its_numbers_who_holds_it_and_how_many_wait() {
        let throttle = Throttle { concurrency: Some(9), ..Throttle::default() };
        let lending = |borrowers: u16| Lending { throttle: throttle.clone(), borrowers: (0..borrowers).map(|shard| (ShardId(shard), 1)).collect(), waiting: 4 };
        let sentence = |lending| Waiting::Throttle { limit: "activity charge".to_owned(), position: 3, lending }.sentence();
        assert_eq!(sentence(None), "for the throttle of activity charge, 3 before it");
        assert_eq!(
            sentence(Some(lending(2))),
            "for the throttle of activity charge, 3 before it; of {concurrency: 9} is taken: 1 in shard 0, 1 in shard 1; 4 wait in all"
        );
        assert!(sentence(Some(lending(7))).ends_with("1 in shard 4, others in 2 more shards; 4 wait in all"));
        assert!(sentence(Some(lending(0))).ends_with("is taken: no attempt; 4 wait in all"));
    }

    #[test]
    fn times_are_text_for_programs_too_and_come_back_as_they_were() {
        let at = Millis(1_795_632_622_048);
        for waiting in
            [Waiting::Timer { until: at }, Waiting::Signal { name: "s".to_owned(), until: None }, Waiting::Signal { name: "s".to_owned(), until: Some(at) }]
        {
            let text = serde_json::to_string(&waiting).unwrap();
            assert!(!text.contains("1795632622048"), "{text}");
            assert_eq!(serde_json::from_str::<Waiting>(&text).unwrap(), waiting);
        }
        assert_eq!(serde_json::to_string(&Waiting::Timer { until: at }).unwrap(), r#"{"for":"timer","until":"2026-11-25T18:50:22.048Z"}"#);
    }
}
