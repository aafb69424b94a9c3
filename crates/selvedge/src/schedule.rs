//! Schedules of pipelines, from outside.

use selvedge_engine::ScheduleChange;
pub use selvedge_engine::desk::ScheduleStatus;
use selvedge_kernel::auth::{Action, Permit, Resource};

use crate::client::{Client, VerbFailed};
use crate::run::Run;

/// Why a schedule was not looked at, paused, resumed or fired.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct ScheduleError(#[from] pub VerbFailed);

impl Client {
    /// The schedules of this tenant, by the names of their pipelines.
    pub async fn schedules(&self) -> Result<Vec<ScheduleStatus>, ScheduleError> {
        let permit = self.permit(Action::Read, Resource::Pipeline { tenant: self.tenant().to_owned(), name: String::new() })?;
        let records = self.engine.schedules(permit).await.map_err(VerbFailed::from)?;
        Ok(records.into_iter().map(ScheduleStatus::of).collect())
    }

    /// The schedule of a pipeline. It is stored when an engine opens with a pipeline whose file has a `schedule`, or when such a pipeline is stored.
    #[must_use]
    pub fn schedule(&self, pipeline: &str) -> Schedule {
        Schedule { client: self.clone(), pipeline: pipeline.to_owned() }
    }
}

/// One schedule.
#[derive(Clone)]
pub struct Schedule {
    client: Client,
    pipeline: String,
}

impl Schedule {
    fn permit(&self, action: Action) -> Result<Permit, VerbFailed> {
        self.client.permit(action, Resource::Pipeline { tenant: self.client.tenant().to_owned(), name: self.pipeline.clone() })
    }

    async fn change(&self, change: ScheduleChange) -> Result<ScheduleStatus, ScheduleError> {
        let permit = self.permit(Action::Control)?;
        Ok(ScheduleStatus::of(self.client.engine.change_schedule(permit, change).await.map_err(VerbFailed::from)?))
    }

    /// Where it is.
    pub async fn status(&self) -> Result<ScheduleStatus, ScheduleError> {
        let permit = self.permit(Action::Read)?;
        Ok(ScheduleStatus::of(self.client.engine.schedule(permit).await.map_err(VerbFailed::from)?))
    }

    /// It fires no more until it is resumed.
    pub async fn pause(&self) -> Result<ScheduleStatus, ScheduleError> {
        self.change(ScheduleChange::Pause).await
    }

    /// It fires again from now on; what it left out meanwhile was not missed.
    pub async fn resume(&self) -> Result<ScheduleStatus, ScheduleError> {
        self.change(ScheduleChange::Resume).await
    }

    /// It is gone, until an engine opens with its pipeline again, or its pipeline is stored again.
    pub async fn remove(&self) -> Result<ScheduleStatus, ScheduleError> {
        self.change(ScheduleChange::Remove).await
    }

    /// Fires it now, whatever is under way and although it is paused; its next fire stays what it is.
    pub async fn fire(&self) -> Result<Run, ScheduleError> {
        let permit = self.permit(Action::Start)?;
        let id = self.client.engine.fire_schedule(permit).await.map_err(VerbFailed::from)?;
        Ok(self.client.run(id))
    }
}
