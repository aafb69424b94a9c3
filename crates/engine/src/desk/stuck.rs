//! What waits for long.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::listing::{Page, row};
use selvedge_kernel::auth::{Action, Resource};
use selvedge_kernel::filter::{Filter, List, Operator, Says, Term, Value as Worth};
use selvedge_kernel::id::PIPELINE_TYPE;
use selvedge_kernel::machine::RunState;
use selvedge_kernel::pipeline::run::RunStatus;
use selvedge_kernel::policy::Span;
use selvedge_kernel::record::run::{Event, Happening};
use selvedge_kernel::time::Millis;
use serde_json::{Value, json};

use super::Problem;
use super::asker::Asker;
use super::invocations::in_words;
use super::runs::{Runs, sentence};

/// How many of the newest events of a run are asked for the one that last moved it on.
const EVENTS: u64 = 200;

/// What a filter keeps of what is open and has been for a span.
fn open_for(mut filter: Filter, span: Duration) -> Filter {
    let field = |name: &str, operator, value| Says::Field { name: name.to_owned(), operator, value };
    let ended = ["completed", "failed", "cancelled"].map(|state| Term { negated: true, says: field("status", Operator::Is, Worth::Text(state.to_owned())) });
    filter.terms.extend(ended);
    filter.terms.push(Term { negated: false, says: field("age", Operator::AtLeast, Worth::Duration(Span(span))) });
    filter
}

/// When something of these events moved a run on, if one did: an attempt that failed, and the next one, do not.
fn moved_on(events: &[(u64, Event)]) -> Option<Millis> {
    let mut ended: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
    let mut moved = None;
    for (_, event) in events {
        // A run waits for its next attempt, and runs with it, over and over.
        let again =
            |happening: &Happening| matches!(happening, Happening::Retrying { .. } | Happening::Run { state: RunState::Running | RunState::Waiting, .. });
        let happened = event.happened.iter().any(|happening| !again(happening));
        let mut counts = event.progress.iter();
        // What the first of them says of a stage may have been so before.
        let counted = counts.any(|at| ended.get(at.stage.as_str()).is_some_and(|before| *before != (at.done, at.failed)));
        ended.extend(event.progress.iter().map(|at| (at.stage.as_str(), (at.done, at.failed))));
        if happened || counted {
            moved = Some(event.at);
        }
    }
    moved
}

impl Asker<'_> {
    /// Open runs and invocations that have waited for longer than a span, or than their type expects, those that wait longest
    /// first, each with its sentence.
    pub async fn stuck(&self, longer_than: Option<Duration>, filter: &str) -> Result<Value, Problem> {
        let filter = row::filter(List::Stuck, filter)?;
        let now = self.engine.now();
        let expected = |kind: &str| longer_than.unwrap_or_else(|| self.engine.expected_within(kind));
        let mut found: Vec<(Millis, Value)> = Vec::new();
        for line in self.engine.oldest_invocations(self.permit(Action::Read, Resource::Store)?, expected, &filter).await? {
            let id = line.id.to_string();
            let why = self.engine.why(self.work(Action::Read, &id)?, line.id).await?;
            if !why.status.ended() && now.since(why.since) >= expected(line.kind()) {
                let shown =
                    json!({ "id": id, "status": why.status, "since": why.since.to_string(), "since_ms": why.since, "sentence": in_words(&why, self.binary) });
                found.push((why.since, shown));
            }
        }
        let longer_than = expected(PIPELINE_TYPE);
        for run in self.engine.find_runs(self.permit(Action::Read, Resource::Store)?, &open_for(filter, longer_than), &Page::default()).await? {
            if run.state.ended() || now.since(run.started_at) < longer_than {
                continue;
            }
            let id = run.id.to_string();
            let status = Runs(*self).status(&id).await?;
            let since = self.waits_since(&id, &status).await?;
            if !status.state.ended() && now.since(since) >= longer_than {
                let shown = json!({ "id": id, "status": status.state, "since": since.to_string(), "since_ms": since, "sentence": sentence(&status) });
                found.push((since, shown));
            }
        }
        found.sort_by_key(|(since, _)| *since);
        Ok(Value::Array(found.into_iter().map(|(_, line)| line).collect()))
    }

    /// When something last moved a run on; its start, if none of its newest events did.
    async fn waits_since(&self, id: &str, status: &RunStatus) -> Result<Millis, Problem> {
        let events = Runs(*self).engine_events(id, status.commits.saturating_sub(EVENTS), false).await?;
        Ok(moved_on(&events).unwrap_or(status.started_at))
    }
}
