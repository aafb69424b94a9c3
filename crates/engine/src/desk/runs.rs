//! The verbs on runs.

use crate::listing::row::{self, Fields};
use crate::{Again, Retry, RunControl, RunEnd, RunFork, RunSummary};
use selvedge_kernel::auth::{Action, Resource};
use selvedge_kernel::error::Consequence;
use selvedge_kernel::filter::{List, matches};
use selvedge_kernel::id::{IdError, RunId};
use selvedge_kernel::machine::{RunState, StageState};
use selvedge_kernel::pipeline::run::{Decision as Answered, RunStatus, Undoes};
use selvedge_kernel::record::run::{Event, Happening};
use selvedge_kernel::time::Millis;
use selvedge_kernel::waiting::{Waiting, closed};
use serde_json::{Value, json};

use super::asker::Asker;
use super::json::{of_bytes, text_of, value};
use super::paged::{Paged, Pages, at, newest};
use super::why::{Place, who};
use super::{Decision, Problem, Steer};

/// Asks about runs.
pub struct Runs<'a>(pub Asker<'a>);

impl Runs<'_> {
    /// Where a run stands.
    pub async fn status(&self, id: &str) -> Result<RunStatus, Problem> {
        Ok(self.0.engine.run_status(self.0.work(Action::Read, id)?, run_id(id)?).await?)
    }

    /// Waits for the end of a run.
    pub async fn end(&self, id: &str) -> Result<RunEnd, Problem> {
        Ok(self.0.engine.run_wait(self.0.work(Action::Read, id)?, run_id(id)?).await?)
    }

    /// What happened to a run from a number on, a page of it; waits for one if that is asked for.
    pub async fn engine_events(&self, id: &str, from: u64, wait: bool) -> Result<Vec<(u64, Event)>, Problem> {
        Ok(self.0.engine.run_events(self.0.work(Action::Read, id)?, run_id(id)?, from, wait).await?)
    }

    /// Waits until there is one; none then means that the run has ended.
    pub async fn events(&self, id: &str, from: u64) -> Result<Vec<(u64, Event)>, Problem> {
        self.engine_events(id, from, true).await
    }

    /// A new run that takes over what an ended one did well.
    pub async fn fork(&self, id: &str, from: Option<String>, input: Option<String>, reason: String, key: String) -> Result<Value, Problem> {
        let fork = RunFork { from, input: input.map(text_of).transpose()?, reason, key };
        let forked = self.0.engine.fork_run(self.0.work(Action::Rewrite, id)?, run_id(id)?, fork).await?;
        Ok(json!({ "id": forked.id.to_string(), "forked_from": id, "taken": forked.taken }))
    }

    /// Runs, the newest first.
    pub async fn list(&self, filter: &str, pages: &Pages) -> Result<Paged, Problem> {
        let filter = row::filter(List::Runs, filter)?;
        let found = self.0.engine.find_runs(self.0.permit(Action::Read, Resource::Store)?, &filter, &pages.page(newest)?).await?;
        let (runs, next) = pages.shown(found, |run| at(run.started_at, run.id))?;
        let mut lines = Vec::with_capacity(runs.len());
        for run in runs {
            let attributes = self.0.engine.run_attributes(self.0.permit(Action::Read, Resource::Store)?, &run).await?;
            lines.push(with(line(&run), &json!({ "attributes": attributes })));
        }
        Ok(Paged { lines: Value::Array(lines), next })
    }

    /// One run, stage by stage.
    pub async fn show(&self, id: &str) -> Result<Value, Problem> {
        let status = self.status(id).await?;
        let past = self.past(id, &status).await?;
        let mut shown = shown(&status)?;
        shown["sentence"] = ended_because(&status, past.reason.as_deref()).into();
        shown["reason"] = past.reason.into();
        if let Some(caller) = &status.caller {
            shown["caller"] = who(caller)?;
        }
        shown["failures"] = Value::Array(past.failures);
        shown["more_failures"] = past.more.into();
        if status.state.ended()
            && let Some(output) = self.end(id).await?.output
        {
            shown["output"] = of_bytes(&output);
        }
        Ok(shown)
    }

    pub(super) async fn place(&self, id: &str) -> Result<Place, Problem> {
        let status = self.status(id).await?;
        let reason = self.past(id, &status).await?.reason;
        let sentence = ended_because(&status, reason.as_deref());
        Ok(Place { sentence, status: json!(status.state), last_error: json!(status.error), waiting: status.waiting, builds: None, caller: status.caller })
    }

    /// What of a run stands in its events alone: the reason of a cancel, and the tasks that failed.
    async fn past(&self, id: &str, status: &RunStatus) -> Result<Past, Problem> {
        let mut past = Past::default();
        if status.state != RunState::Cancelled && status.stages.iter().all(|stage| stage.failed == 0) {
            return Ok(past);
        }
        let mut next = 0;
        loop {
            let page = self.engine_events(id, next, false).await?;
            let Some((last, _)) = page.last() else { return Ok(past) };
            next = last + 1;
            for (at, happening) in page.iter().flat_map(|(_, event)| event.happened.iter().map(|happening| (event.at, happening))) {
                past.take(at, happening);
            }
        }
    }

    /// Approvals that are open, then those that were answered, of the newest runs.
    pub async fn approvals(&self, filter: &str) -> Result<Value, Problem> {
        let filter = row::filter(List::Approvals, filter)?;
        let runs = self.0.engine.list_runs(self.0.permit(Action::Read, Resource::Store)?).await?;
        let (mut open, mut answered) = (Vec::new(), Vec::new());
        for run in runs {
            let run = run.id.to_string();
            let status = self.status(&run).await?;
            for stage in status.stages.iter().filter(|stage| stage.approval.is_some()) {
                let asked = status.waiting.iter().find_map(|waits| match waits {
                    Waiting::Approval { stage: asks, assignees, expires } if *asks == stage.name => Some((assignees, expires)),
                    _ => None,
                });
                let line = json!({ "id": stage.approval, "run": run, "pipeline": status.pipeline, "stage": stage.name });
                let fields = Fields::default().text("id", stage.approval.clone().unwrap_or_default()).text("run", &run).text("pipeline", &status.pipeline);
                let fields = fields.text("stage", &stage.name).age(stage.since, self.0.engine.now());
                let keeps = |fields: Fields| matches(&filter, &fields.row());
                match (asked, &stage.decision) {
                    (_, Some(decision)) => {
                        let (decision, by) = (decided(decision)?, decision.by.clone());
                        let fields = fields.text("status", decision["status"].as_str().unwrap_or_default()).found(by);
                        if keeps(fields.found(decision["comment"].as_str().unwrap_or_default())) {
                            answered.push(with(line, &decision));
                        }
                    }
                    (Some((assignees, expires)), None) => {
                        let asked =
                            assignees.iter().fold(fields.text("status", "open").time("expires", Some(*expires)), |fields, who| fields.text("assignee", who));
                        if keeps(asked) {
                            open.push(with(line, &json!({ "status": "open", "assignees": assignees, "expires": expires.to_string() })));
                        }
                    }
                    (None, None) => {}
                }
            }
        }
        open.append(&mut answered);
        Ok(Value::Array(open))
    }

    /// Steers a run.
    pub async fn steer(&self, id: &str, steer: Steer) -> Result<Value, Problem> {
        let control = match steer {
            Steer::Cancel { reason } => RunControl::Cancel { reason },
            Steer::Pause => RunControl::Pause,
            Steer::Resume => RunControl::Resume,
            Steer::Retry => RunControl::RetryFailed,
            Steer::RetryMore { from, failed_only } => RunControl::Retry(Retry { from, tasks: if failed_only { Again::Failed } else { Again::All } }),
        };
        self.0.engine.run_control(self.0.work(Action::Control, id)?, run_id(id)?, control).await?;
        Ok(Value::Null)
    }

    /// Answers an approval.
    pub async fn decide(&self, id: &str, stage: Option<String>, answer: Decision, by: &str, comment: &str) -> Result<Value, Problem> {
        let stage = match stage {
            Some(stage) => stage,
            None => self.asking(id).await?,
        };
        let approve = answer == Decision::Approve;
        self.0.engine.run_decide(self.0.work(Action::Signal, id)?, run_id(id)?, &stage, approve, by, (!comment.is_empty()).then(|| comment.to_owned())).await?;
        Ok(json!({ "stage": stage }))
    }

    /// The one stage that asks a person.
    async fn asking(&self, id: &str) -> Result<String, Problem> {
        let status = self.status(id).await?;
        let mut asking: Vec<&String> =
            status.waiting.iter().filter_map(|waits| if let Waiting::Approval { stage, .. } = waits { Some(stage) } else { None }).collect();
        match (asking.pop(), asking.is_empty()) {
            (Some(only), true) => Ok(only.clone()),
            (None, _) => Err(Problem::new(Consequence::Conflict, "no_approval", format!("nobody is asked in it: {}", sentence(&status)))),
            (Some(last), false) => {
                let all: Vec<String> = asking.into_iter().chain([last]).map(|stage| format!("--stage {stage}")).collect();
                Err(Problem::new(Consequence::FixInput, "which_approval", format!("more than one stage asks: add {}", all.join(" or "))))
            }
        }
    }

    /// Delivers a signal to a run.
    pub async fn signal(&self, id: &str, name: &str, payload: String, key: Option<String>) -> Result<Value, Problem> {
        self.0.engine.run_signal(self.0.work(Action::Signal, id)?, run_id(id)?, name, text_of(payload)?, key).await?;
        Ok(Value::Null)
    }
}

/// A line of the list of runs.
fn line(run: &RunSummary) -> Value {
    let (id, at) = (run.id.to_string(), run.started_at.to_string());
    json!({
        "id": id, "pipeline": run.pipeline, "status": run.state, "started_at": at, "started_at_ms": run.started_at,
        "ended_at": run.ended_at.map(|at| at.to_string()),
    })
}

/// Failed tasks that are shown.
const FAILURES: usize = 100;

#[derive(Default)]
struct Past {
    reason: Option<String>,
    failures: Vec<Value>,
    more: usize,
}

impl Past {
    fn take(&mut self, at: Millis, happening: &Happening) {
        match happening {
            // A stage that starts over has its failures again, or none.
            Happening::Stage { stage, state: StageState::Pending | StageState::Running, .. } => {
                self.failures.retain(|failure| failure["stage"] != stage.as_str())
            }
            Happening::Run { state, reason } => self.reason = reason.clone().filter(|_| state.ended()),
            Happening::TaskFailed { .. } if self.failures.len() == FAILURES => self.more += 1,
            Happening::TaskFailed { stage, item, attempts, error } => {
                self.failures.push(json!({ "stage": stage, "item": item, "attempts": attempts, "error": error, "at": at.to_string() }));
            }
            _ => {}
        }
    }
}

/// A run as JSON for people and programs: `status` says where something is, times are RFC 3339.
fn shown(status: &RunStatus) -> Result<Value, Problem> {
    let mut shown = value(status)?;
    renamed(&mut shown);
    shown["started_at"] = status.started_at.to_string().into();
    shown["ended_at"] = status.ended_at.map(|at| at.to_string()).into();
    for (stage, written) in status.stages.iter().zip(shown["stages"].as_array_mut().into_iter().flatten()) {
        renamed(written);
        if let Some(decision) = &stage.decision {
            written["decision"] = decided(decision)?;
        }
    }
    Ok(shown)
}

/// Where something is stands under `status`; `state` is what an actor keeps.
fn renamed(value: &mut Value) {
    if let Some(entries) = value.as_object_mut()
        && let Some(state) = entries.remove("state")
    {
        entries.insert("status".to_owned(), state);
    }
}

pub(super) fn decided(decision: &Answered) -> Result<Value, Problem> {
    let mut shown = value(decision)?;
    shown["at"] = decision.at.map(|at| at.to_string()).into();
    Ok(shown)
}

fn with(mut line: Value, more: &Value) -> Value {
    for (name, value) in more.as_object().into_iter().flatten() {
        line[name.as_str()] = value.clone();
    }
    line
}

fn ended_because(status: &RunStatus, reason: Option<&str>) -> String {
    match (status.state, reason) {
        (RunState::Cancelled, Some(reason)) => closed(format!("{} ({}) has ended: {reason}", status.id, status.pipeline)),
        _ => sentence(status),
    }
}

/// Why a run is where it is, in one sentence.
pub fn sentence(status: &RunStatus) -> String {
    let who = format!("{} ({})", status.id, status.pipeline);
    if status.state.ended() {
        let error = status.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
        return closed(format!("{who} has ended: {}{error}", status.state));
    }
    let waits: Vec<String> = status.waiting.iter().map(Waiting::sentence).collect();
    let undoes = status.undoes.as_ref().map(|Undoes { because, done, of }| format!(" is to undo what it did, {done} of {of} stages so far ({because}), and"));
    closed(format!("{who}{} waits {}", undoes.unwrap_or_default(), waits.join("; and ")))
}

pub(super) fn run_id(id: &str) -> Result<RunId, Problem> {
    id.parse().map_err(|error: IdError| super::invocations::no_id(id, "a run", &error))
}
