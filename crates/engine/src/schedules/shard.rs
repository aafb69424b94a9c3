//! The records of schedules in their shard, and their timers.

use selvedge_kernel::error::Consequence;
use selvedge_kernel::record::Writes;
use selvedge_kernel::record::schedule::{ScheduleRecord, decode, encode, schedule_key, schedules_of};
use selvedge_kernel::record::shard::Timer;
use selvedge_kernel::schedule::{Schedule, due_at, next_after};
use selvedge_kernel::time::Millis;

use super::fire::Job;
use super::{Mark, ScheduleChange, ScheduleCommand};
use crate::shard::{Shard, VerbError};
use crate::wiring::Tasks;

/// What a record says, ready to be asked.
pub(super) fn schedule_of(record: &ScheduleRecord) -> Result<Schedule, VerbError> {
    let damaged = |reason: String| {
        let what = format!("the schedule of `{}` cannot be read ({reason}): store it again, with its pipeline's file as it should be", record.pipeline);
        VerbError::new(Consequence::FixInput, "schedule", what)
    };
    let spec = serde_json::from_slice(&record.spec).map_err(|error| damaged(error.to_string()))?;
    Schedule::new(spec).map_err(|errors| damaged(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")))
}

pub(super) fn unknown(pipeline: &str) -> VerbError {
    let text = format!("the pipeline `{pipeline}` has no schedule here: `selvedge schedules list` shows those there are");
    VerbError::new(Consequence::NotFound, "unknown_schedule", text)
}

impl Shard {
    pub(crate) async fn schedule_command(&mut self, command: ScheduleCommand) {
        match command {
            ScheduleCommand::Put { record, reply } => {
                let mut writes = Writes::default();
                let result = self.put_schedule(*record, &mut writes).await;
                if result.is_ok() && !writes.puts.is_empty() {
                    self.write(writes, Vec::new());
                }
                self.answer(reply, result);
            }
            ScheduleCommand::List { tenant, reply } => {
                let result = self.list_schedules(&tenant).await;
                self.answer(reply, result);
            }
            ScheduleCommand::Show { tenant, pipeline, reply } => {
                let result = self.schedule_record(&tenant, &pipeline).await.and_then(|found| found.ok_or_else(|| unknown(&pipeline)));
                self.answer(reply, result);
            }
            ScheduleCommand::Change { tenant, pipeline, change, reply } => {
                let result = self.change_schedule(&tenant, &pipeline, change).await;
                self.answer(reply, result);
            }
            ScheduleCommand::Mark { tenant, pipeline, mark, reply } => {
                let result = self.mark_schedule(&tenant, &pipeline, *mark).await;
                self.answer(reply, result);
            }
        }
    }

    async fn schedule_record(&self, tenant: &str, pipeline: &str) -> Result<Option<ScheduleRecord>, VerbError> {
        let row = self.get(schedule_key(tenant, pipeline)).await?;
        Ok(row.map(|bytes| decode(&bytes)).transpose()?)
    }

    async fn list_schedules(&self, tenant: &str) -> Result<Vec<ScheduleRecord>, VerbError> {
        let rows = self.scan_all(&schedules_of(tenant)).await?;
        rows.iter().map(|(_, value)| Ok(decode(value)?)).collect()
    }

    /// Stores a schedule. One that says the same goes on as it is, for whoever stored it last; one that says something else
    /// starts anew from now.
    pub(crate) async fn put_schedule(&mut self, record: ScheduleRecord, writes: &mut Writes) -> Result<(), VerbError> {
        let known = self.schedule_record(&record.tenant, &record.pipeline).await?;
        if let Some(known) = known.as_ref().filter(|known| known.spec == record.spec) {
            if !known.context.speaks_for(&record.context) {
                let next = ScheduleRecord { context: record.context, ..known.clone() };
                writes.put(schedule_key(&next.tenant, &next.pipeline), encode(&next));
            }
            return Ok(());
        }
        let now = self.now();
        let mut next = ScheduleRecord { since: now, last: now, ..record };
        if let Some(known) = known {
            self.disarm(&known, writes);
            next.paused = known.paused;
            next.under_way = known.under_way;
            next.counts = known.counts;
        }
        self.arm(&mut next, writes)?;
        writes.put(schedule_key(&next.tenant, &next.pipeline), encode(&next));
        Ok(())
    }

    /// Takes a schedule away with its timers, if there is one, and gives it.
    pub(crate) async fn remove_schedule(&mut self, tenant: &str, pipeline: &str, writes: &mut Writes) -> Result<Option<ScheduleRecord>, VerbError> {
        let Some(record) = self.schedule_record(tenant, pipeline).await? else { return Ok(None) };
        self.disarm(&record, writes);
        writes.delete(schedule_key(tenant, pipeline));
        Ok(Some(record))
    }

    async fn change_schedule(&mut self, tenant: &str, pipeline: &str, change: ScheduleChange) -> Result<ScheduleRecord, VerbError> {
        let Some(mut record) = self.schedule_record(tenant, pipeline).await? else { return Err(unknown(pipeline)) };
        let now = self.now();
        let mut writes = Writes::default();
        match (change, record.paused) {
            (ScheduleChange::Pause, Some(_)) | (ScheduleChange::Resume, None) => return Ok(record),
            (ScheduleChange::Pause, None) => {
                self.disarm(&record, &mut writes);
                record = ScheduleRecord { paused: Some(now), next: None, timer: None, buffered: None, buffer_timer: None, ..record };
            }
            (ScheduleChange::Resume, Some(_)) => {
                record = ScheduleRecord { paused: None, last: now, ..record };
                self.arm(&mut record, &mut writes)?;
            }
            (ScheduleChange::Remove, _) => {
                self.remove_schedule(tenant, pipeline, &mut writes).await?;
                self.write(writes, Vec::new());
                return Ok(record);
            }
        }
        self.keep_schedule(record.clone(), writes);
        Ok(record)
    }

    async fn mark_schedule(&mut self, tenant: &str, pipeline: &str, mark: Mark) -> Result<(), VerbError> {
        let mut writes = Writes::default();
        let Some(mut record) = self.schedule_record(tenant, pipeline).await? else {
            // It was removed meanwhile, its timers with it.
            return Ok(());
        };
        record.counts.started += mark.counts.started;
        record.counts.overlapped += mark.counts.overlapped;
        record.counts.missed += mark.counts.missed;
        record.counts.failed += mark.counts.failed;
        record.under_way = mark.started.or(record.under_way);
        record.last_error = mark.error.or(record.last_error);
        if mark.unbuffered.is_some() && mark.unbuffered == record.buffered {
            record.buffered = None;
            if let Some(timer) = record.buffer_timer.take() {
                self.clear_timer(&mut writes, timer);
            }
        }
        if let Some(fire) = mark.buffered.filter(|_| record.paused.is_none() && record.buffered.is_none()) {
            record.buffered = Some(fire);
            let now = self.now();
            record.buffer_timer = Some(self.set_timer(&mut writes, now, timer(&record)));
        }
        // A timer that is not the record's any more went when the record was changed.
        if mark.timer.is_some() && mark.timer == record.timer {
            record.last = record.last.max(mark.until.unwrap_or(record.last));
            if let Some(timer) = record.timer.take() {
                self.clear_timer(&mut writes, timer);
            }
            self.arm(&mut record, &mut writes)?;
        }
        self.keep_schedule(record, writes);
        Ok(())
    }

    fn keep_schedule(&mut self, record: ScheduleRecord, mut writes: Writes) {
        writes.put(schedule_key(&record.tenant, &record.pipeline), encode(&record));
        self.write(writes, Vec::new());
    }

    /// Sets the timer of the next fire.
    fn arm(&mut self, record: &mut ScheduleRecord, writes: &mut Writes) -> Result<(), VerbError> {
        if record.paused.is_some() {
            return Ok(());
        }
        let schedule = schedule_of(record)?;
        record.next = next_after(&schedule, record.last);
        record.timer = record.next.map(|fire| self.set_timer(writes, due_at(&schedule, &record.pipeline, fire), timer(record)));
        Ok(())
    }

    fn disarm(&mut self, record: &ScheduleRecord, writes: &mut Writes) {
        for timer in [record.timer, record.buffer_timer].into_iter().flatten() {
            self.clear_timer(writes, timer);
        }
    }

    /// A timer of a schedule is due: what follows is done beside the shard, and comes back as a mark.
    pub(crate) async fn schedule_due(&mut self, tenant: &str, pipeline: &str, own: (Millis, u64)) {
        if self.wiring.settings.tasks == Tasks::Leave {
            return;
        }
        match self.schedule_record(tenant, pipeline).await {
            Ok(Some(record)) if record.timer == Some(own) || record.buffer_timer == Some(own) => {
                let now = self.now();
                let job = Job { wiring: self.wiring.clone(), buffered: record.buffer_timer == Some(own), record, now };
                self.wiring.side.spawn(job.begin());
            }
            Ok(_) => {
                let mut writes = Writes::default();
                self.clear_timer(&mut writes, own);
                self.write(writes, Vec::new());
            }
            Err(error) => self.wiring.stop(error.message),
        }
    }
}

fn timer(record: &ScheduleRecord) -> Timer {
    Timer::Schedule { tenant: record.tenant.clone(), pipeline: record.pipeline.clone() }
}
