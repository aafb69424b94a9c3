//! The engine's verbs for schedules. Each consumes a permit.

use selvedge_kernel::auth::{Action, Permit, Resource};
use selvedge_kernel::error::Consequence;
use selvedge_kernel::id::{RunId, ShardId};
use selvedge_kernel::record::schedule::{ScheduleRecord, actor};

use super::fire::{mark_record, start};
use super::{Mark, ScheduleChange, ScheduleCommand, new_record};
use crate::definitions::in_force;
use crate::door::{expect_action, misused};
use crate::engine::Engine;
use crate::shard::{Command, Reply, VerbError};

impl Engine {
    /// Stores the schedule that a pipeline's file names, as its name is understood here: durable when this returns. One that
    /// says the same goes on as it is. Its runs act as whoever stored it last. Errors: a pipeline that is not here or has no
    /// schedule.
    pub async fn put_schedule(&self, permit: Permit) -> Result<(), VerbError> {
        let (tenant, pipeline) = named(&permit, Action::Define)?;
        let Some(spec) = in_force(&self.wiring, &tenant, &pipeline).await?.schedule else {
            let text = format!("the file of `{pipeline}` has no `schedule`: write one, such as schedule: {{cron: \"0 2 * * *\", zone: Europe/Vienna}}");
            return Err(VerbError::new(Consequence::FixInput, "no_schedule", text));
        };
        let record = Box::new(new_record(permit, &spec, self.now())?);
        self.ask_schedule(&tenant, &pipeline, |reply| ScheduleCommand::Put { record, reply }).await
    }

    /// The schedules of a tenant, by name.
    pub async fn schedules(&self, permit: Permit) -> Result<Vec<ScheduleRecord>, VerbError> {
        expect_action(&permit, Action::Read)?;
        let tenant = permit.context().principal.tenant.clone();
        let mut found = Vec::new();
        for shard in (0..self.wiring.shards).map(ShardId) {
            let tenant = tenant.clone();
            found.extend(self.ask(shard, |reply| Command::Schedule(ScheduleCommand::List { tenant, reply })).await?);
        }
        found.sort_by(|a: &ScheduleRecord, b| a.pipeline.cmp(&b.pipeline));
        Ok(found)
    }

    /// One schedule.
    pub async fn schedule(&self, permit: Permit) -> Result<ScheduleRecord, VerbError> {
        let (tenant, pipeline) = named(&permit, Action::Read)?;
        self.ask_schedule(&tenant, &pipeline, |reply| ScheduleCommand::Show { tenant: tenant.clone(), pipeline: pipeline.clone(), reply }).await
    }

    /// Pauses, resumes or removes a schedule: durable when this returns. Gives the record as it is then, or was.
    pub async fn change_schedule(&self, permit: Permit, change: ScheduleChange) -> Result<ScheduleRecord, VerbError> {
        let (tenant, pipeline) = named(&permit, Action::Control)?;
        self.ask_schedule(&tenant, &pipeline, |reply| ScheduleCommand::Change { tenant: tenant.clone(), pipeline: pipeline.clone(), change, reply }).await
    }

    /// Fires a schedule now, whatever is under way and although it is paused; its next fire stays what it is.
    pub async fn fire_schedule(&self, permit: Permit) -> Result<RunId, VerbError> {
        let (tenant, pipeline) = named(&permit, Action::Start)?;
        let record = self.ask_schedule(&tenant, &pipeline, |reply| ScheduleCommand::Show { tenant: tenant.clone(), pipeline: pipeline.clone(), reply }).await?;
        let record = ScheduleRecord { context: permit.into_context(), ..record };
        let mut mark = Mark::default();
        start(&self.wiring, &record, self.now(), &mut mark).await?;
        let (started, error) = (mark.started, mark.error.clone());
        mark_record(&self.wiring, &record, mark).await?;
        started.ok_or_else(|| {
            let error = error.map_or_else(|| "nothing was started".to_owned(), |error| error.message);
            VerbError::new(Consequence::FixInput, "not_started", error)
        })
    }

    async fn ask_schedule<T>(&self, tenant: &str, pipeline: &str, command: impl FnOnce(Reply<T>) -> ScheduleCommand) -> Result<T, VerbError> {
        self.ask(self.wiring.shard_of(&actor(tenant, pipeline)), |reply| Command::Schedule(command(reply))).await
    }
}

fn named(permit: &Permit, action: Action) -> Result<(String, String), VerbError> {
    expect_action(permit, action)?;
    let Resource::Pipeline { tenant, name } = permit.resource().clone() else { return Err(misused(permit)) };
    Ok((tenant, name))
}
