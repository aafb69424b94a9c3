//! What a fire does: it looks at the run before, starts the next one, and marks the record.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use selvedge_kernel::auth::{Action, Resource, from_schedule};
use selvedge_kernel::error::{Consequence, WorkError};
use selvedge_kernel::id::RunId;
use selvedge_kernel::limit::SCHEDULE_CATCH_UP;
use selvedge_kernel::pipeline::run::{RunInput, RunStatus};
use selvedge_kernel::pressure::RETRY_AFTER;
use selvedge_kernel::record::schedule::{ScheduleRecord, actor, run_of};
use selvedge_kernel::schedule::{Due, OnOverlap, Overlap, Schedule, UnderWay, due, next, on_overlap};
use selvedge_kernel::time::Millis;
use tokio::sync::oneshot;

use super::shard::schedule_of;
use super::{Mark, ScheduleCommand};
use crate::definitions::in_force;
use crate::in_flight::InFlight;
use crate::runs::accept::{checked_input, compiled};
use crate::runs::{NewRun, RunCommand};
use crate::shard::{Command, Reply, VerbError};
use crate::wiring::Wiring;
use crate::worker::Event;

/// One timer of a schedule that was due.
pub(super) struct Job {
    pub wiring: Arc<Wiring>,
    pub record: ScheduleRecord,
    pub now: Millis,
    /// Whether it is for the fire that waits for the end of the run under way.
    pub buffered: bool,
}

/// Counts as something that moves by itself, for whoever waits until nothing does.
struct Moving(Arc<AtomicU64>);

impl Moving {
    fn new(pending: &Arc<AtomicU64>) -> Moving {
        pending.fetch_add(1, Ordering::SeqCst);
        Moving(pending.clone())
    }
}

impl Drop for Moving {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Job {
    /// What is to be polled until it ends; it counts as moving from now on.
    pub(super) fn begin(self) -> impl Future<Output = ()> + Send {
        let moving = Moving::new(&self.wiring.pending);
        self.run(moving)
    }

    async fn run(mut self, moving: Moving) {
        // How long the run before takes is its own matter.
        let moving = (!self.buffered).then_some(moving);
        while self.passes(self.fire_and_mark().await) {
            tokio::time::sleep(RETRY_AFTER).await;
            match show(&self.wiring, &self.record.tenant, &self.record.pipeline).await {
                Ok(record) if record.timer == self.record.timer && record.buffer_timer == self.record.buffer_timer => self.record = record,
                // It was changed or removed meanwhile, and its timers with it; or the engine ends.
                Ok(_) => break,
                Err(error) if self.passes(Err(error.clone())) => {}
                Err(_) => break,
            }
        }
        drop(moving);
    }

    async fn fire_and_mark(&self) -> Result<(), VerbError> {
        let mark = if self.buffered { self.after_the_run_before().await? } else { self.fire().await? };
        mark_record(&self.wiring, &self.record, mark).await
    }

    /// Whether what went wrong passes while this engine runs: then it is tried again, and meets what it has started. An
    /// engine that ends leaves the timer's row to the next one.
    fn passes(&self, done: Result<(), VerbError>) -> bool {
        done.is_err_and(|error| error.consequence == Consequence::Retry && error.code != "closed") && self.wiring.stop_reason().is_none()
    }

    async fn fire(&self) -> Result<Mark, VerbError> {
        let record = &self.record;
        let mut mark = Mark { timer: record.timer, ..Mark::default() };
        let schedule = match schedule_of(record) {
            Ok(schedule) => schedule,
            Err(error) => return Ok(Mark { error: Some(WorkError::new(error.code, error.message)), ..mark }),
        };
        let found = due(&schedule, &record.pipeline, record.last, self.now);
        mark.until = found.until;
        mark.counts.missed = found.missed;
        let overlap = schedule.spec().overlap;
        let (mut under_way, mut waits) = (record.under_way, record.buffered.is_some());
        let begun = if found.missed > 0 { self.begun(&schedule, &found).await? } else { Vec::new() };
        if let Some(run) = begun.last() {
            mark.started = Some(*run);
            mark.counts.started = begun.len() as u64;
            mark.counts.missed = found.missed.saturating_sub(begun.len() as u64);
            under_way = Some(*run);
        }
        for fire in found.fire {
            let open = match under_way {
                Some(run) if overlap != Overlap::Allow => self.is_open(run).await?,
                _ => false,
            };
            let state = match (open, waits) {
                (false, false) => UnderWay::Nothing,
                (_, true) => UnderWay::OneAndBuffered,
                (true, false) => UnderWay::One,
            };
            match on_overlap(state, overlap) {
                OnOverlap::Skip => mark.counts.overlapped += 1,
                OnOverlap::Buffer => {
                    mark.buffered = Some(fire);
                    waits = true;
                }
                decision @ (OnOverlap::Start | OnOverlap::CancelAndStart) => {
                    if let (OnOverlap::CancelAndStart, Some(run)) = (decision, under_way) {
                        self.cancel(run, fire).await?;
                    }
                    start(&self.wiring, record, fire, &mut mark).await?;
                    under_way = mark.started.or(under_way);
                }
            }
        }
        Ok(mark)
    }

    /// The runs of fires that are due and seem to be missed: a process before this one has started them, and ended before it
    /// said so. Such a one has worked on the first fires after the last that was taken care of.
    async fn begun(&self, schedule: &Schedule, found: &Due) -> Result<Vec<RunId>, VerbError> {
        let mut begun = Vec::new();
        for fire in next(schedule, self.record.last, SCHEDULE_CATCH_UP) {
            if found.until.is_none_or(|until| fire > until) {
                break;
            }
            let run = run_of(&self.record.tenant, &self.record.pipeline, fire);
            if !found.fire.contains(&fire) && self.status(run).await?.is_some() {
                begun.push(run);
            }
        }
        Ok(begun)
    }

    /// Waits for the end of the run under way, and starts what waits for it.
    async fn after_the_run_before(&self) -> Result<Mark, VerbError> {
        let mut mark = Mark { unbuffered: self.record.buffered, ..Mark::default() };
        if let Some(run) = self.record.under_way {
            let tenant = self.record.tenant.clone();
            match ask_run(&self.wiring, run, |reply| RunCommand::Wait { id: run, tenant, reply }).await {
                Err(error) if unanswered(&error) => return Err(error),
                // It has ended, or is gone, or goes no further.
                _ => {}
            }
        }
        if let Some(fire) = self.record.buffered {
            start(&self.wiring, &self.record, fire, &mut mark).await?;
        }
        Ok(mark)
    }

    async fn is_open(&self, run: RunId) -> Result<bool, VerbError> {
        Ok(self.status(run).await?.is_some_and(|status| !status.state.ended()))
    }

    /// How a run stands, if there is one.
    async fn status(&self, run: RunId) -> Result<Option<RunStatus>, VerbError> {
        let tenant = self.record.tenant.clone();
        match ask_run(&self.wiring, run, |reply| RunCommand::Status { id: run, tenant, reply }).await {
            Ok(status) => Ok(Some(status)),
            Err(error) if unanswered(&error) => Err(error),
            Err(_) => Ok(None),
        }
    }

    async fn cancel(&self, run: RunId, fire: Millis) -> Result<(), VerbError> {
        let tenant = self.record.tenant.clone();
        let input = RunInput::Cancel { by: format!("the schedule, for its fire at {fire}") };
        match ask_run(&self.wiring, run, |reply| RunCommand::Tell { id: run, tenant, input, reply }).await {
            Err(error) if unanswered(&error) => Err(error),
            // It may have ended meanwhile.
            _ => Ok(()),
        }
    }
}

/// Whether an error says nothing of what was asked: the store does not answer now, or the engine ends.
fn unanswered(error: &VerbError) -> bool {
    matches!(error.consequence, Consequence::Retry | Consequence::Stop)
}

/// Starts the run of a fire, and takes note of it in the mark. Errors: a store that does not answer, an engine that ends; any
/// other is noted.
pub(super) async fn start(wiring: &Arc<Wiring>, record: &ScheduleRecord, fire: Millis, mark: &mut Mark) -> Result<(), VerbError> {
    match try_start(wiring, record, fire).await {
        Ok(run) => {
            mark.started = Some(run);
            mark.counts.started += 1;
            Ok(())
        }
        Err(error) if unanswered(&error) => Err(error),
        Err(error) => {
            mark.counts.failed += 1;
            mark.error = Some(WorkError::new(error.code, format!("the fire at {fire} started nothing: {}", error.message)).bounded());
            Ok(())
        }
    }
}

async fn try_start(wiring: &Arc<Wiring>, record: &ScheduleRecord, fire: Millis) -> Result<RunId, VerbError> {
    let (tenant, name) = (record.tenant.clone(), record.pipeline.clone());
    // Whoever stored it is asked for again at each fire.
    let resource = Resource::Pipeline { tenant: tenant.clone(), name: name.clone() };
    let permit = wiring.permit(from_schedule(record, fire), Action::Start, resource)?;
    let definition = in_force(wiring, &tenant, &name).await?;
    let schedule = schedule_of(record)?;
    let input = serde_json::to_vec(&schedule.spec().input).map_err(|error| VerbError::new(Consequence::FixInput, "input", error.to_string()))?;
    let input = checked_input(&definition, &input.into())?;
    let compiled = compiled(&wiring.registry, definition)?;
    let id = run_of(&tenant, &name, fire);
    let new = Box::new(NewRun { id, tenant, compiled, input, context: permit.into_context(), parent: None, deadline: None, trace: None });
    ask_run(wiring, id, |reply| RunCommand::Start { new, reply }).await
}

/// The record as it is.
async fn show(wiring: &Arc<Wiring>, tenant: &str, pipeline: &str) -> Result<ScheduleRecord, VerbError> {
    let shard = wiring.shard_of(&actor(tenant, pipeline));
    let (tenant, pipeline) = (tenant.to_owned(), pipeline.to_owned());
    let (reply, answer) = oneshot::channel();
    let held = InFlight::again(wiring);
    wiring.send(shard, Event::Command(shard, Command::Schedule(ScheduleCommand::Show { tenant, pipeline, reply }), held));
    answer.await.unwrap_or_else(|_| Err(VerbError::closed(wiring.stop_reason())))
}

/// Writes what was done into the record.
pub(super) async fn mark_record(wiring: &Arc<Wiring>, record: &ScheduleRecord, mark: Mark) -> Result<(), VerbError> {
    let shard = wiring.shard_of(&actor(&record.tenant, &record.pipeline));
    let (tenant, pipeline, mark) = (record.tenant.clone(), record.pipeline.clone(), Box::new(mark));
    let (reply, answer) = oneshot::channel();
    // One question at a time for each schedule: it is not refused.
    let held = InFlight::again(wiring);
    wiring.send(shard, Event::Command(shard, Command::Schedule(ScheduleCommand::Mark { tenant, pipeline, mark, reply }), held));
    answer.await.unwrap_or_else(|_| Err(VerbError::closed(wiring.stop_reason())))
}

async fn ask_run<T>(wiring: &Arc<Wiring>, run: RunId, command: impl FnOnce(Reply<T>) -> RunCommand) -> Result<T, VerbError> {
    let shard = run.0.hash.shard(wiring.shards);
    let (reply, answer) = oneshot::channel();
    // One question at a time for each schedule: it is not refused.
    let held = InFlight::again(wiring);
    wiring.send(shard, Event::Command(shard, Command::Run(command(reply)), held));
    answer.await.unwrap_or_else(|_| Err(VerbError::closed(wiring.stop_reason())))
}
