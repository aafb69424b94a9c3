//! The verbs on schedules.

use crate::ScheduleChange;
use crate::listing::row::{self, Fields};
use selvedge_kernel::auth::{Action, Permit, Resource};
use selvedge_kernel::filter::{List, Row, matches};
use serde_json::{Value, json};

use super::asker::Asker;
use super::json::value;
use super::scheduled::ScheduleStatus;
use super::{Problem, SteerSchedule};

/// Asks about schedules.
pub struct Schedules<'a>(pub Asker<'a>);

impl Schedules<'_> {
    fn permit(&self, action: Action, pipeline: &str) -> Result<Permit, Problem> {
        self.0.permit(action, Resource::Pipeline { tenant: self.0.tenant(), name: pipeline.to_owned() })
    }

    /// Schedules, by the names of their pipelines.
    pub async fn list(&self, filter: &str) -> Result<Value, Problem> {
        let filter = row::filter(List::Schedules, filter)?;
        let records = self.0.engine.schedules(self.permit(Action::Read, "")?).await?;
        let statuses = records.into_iter().map(ScheduleStatus::of).filter(|status| matches(&filter, &line(status)));
        statuses.map(|status| shown(&status)).collect::<Result<Vec<_>, _>>().map(Value::Array)
    }

    /// The schedule of a pipeline.
    pub async fn show(&self, pipeline: &str) -> Result<Value, Problem> {
        shown(&ScheduleStatus::of(self.0.engine.schedule(self.permit(Action::Read, pipeline)?).await?))
    }

    /// Steers a schedule.
    pub async fn steer(&self, pipeline: &str, steer: SteerSchedule) -> Result<Value, Problem> {
        let change = match steer {
            SteerSchedule::Pause => ScheduleChange::Pause,
            SteerSchedule::Resume => ScheduleChange::Resume,
            SteerSchedule::Remove => ScheduleChange::Remove,
            SteerSchedule::Fire => {
                let run = self.0.engine.fire_schedule(self.permit(Action::Start, pipeline)?).await?;
                return Ok(json!({ "run": run.to_string() }));
            }
        };
        shown(&ScheduleStatus::of(self.0.engine.change_schedule(self.permit(Action::Control, pipeline)?, change).await?))
    }
}

/// What `where` sees of it.
fn line(status: &ScheduleStatus) -> Row {
    let word = if status.paused.is_some() { "paused" } else { "active" };
    let fields = Fields::default().text("pipeline", &status.pipeline).text("status", word).time("next", status.next).time("last", Some(status.last));
    fields.number("started", status.counts.started as f64).number("missed", status.counts.missed as f64).row()
}

fn shown(status: &ScheduleStatus) -> Result<Value, Problem> {
    let mut shown = value(status)?;
    for name in ["paused", "next", "last", "buffered"] {
        if let Some(at) = shown[name].as_u64() {
            shown[name] = selvedge_kernel::time::Millis(at).to_string().into();
        }
    }
    shown["sentence"] = status.sentence().into();
    Ok(shown)
}
