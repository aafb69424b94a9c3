//! What an approval shows to whom it asks.

use bytes::Bytes;
use selvedge_kernel::auth::{Action, Permit};
use selvedge_kernel::id::RunId;
use selvedge_kernel::pipeline::definition::Mode;
use selvedge_kernel::record::run::{Piece, items_key};
use selvedge_kernel::wire;

use super::RunCommand;
use crate::door::tenant_for;
use crate::engine::Engine;
use crate::shard::{Shard, VerbError};

impl Engine {
    /// What the approval of a stage shows to whom it asks, as JSON; none if the stage is no approval, or has not asked yet.
    pub async fn run_shown(&self, permit: Permit, id: RunId, stage: &str) -> Result<Option<Bytes>, VerbError> {
        let tenant = tenant_for(&permit, Action::Read)?;
        let stage = stage.to_owned();
        self.ask_run(id, |reply| RunCommand::Shown { id, tenant, stage, reply }).await
    }
}

impl Shard {
    pub(super) async fn run_shown(&mut self, id: RunId, tenant: &str, stage: &str) -> Result<Option<Bytes>, VerbError> {
        let active = self.take_run(id, tenant).await?;
        let stages = active.run.compiled().definition.stages.iter();
        let place = stages.clone().position(|other| other.name == stage && matches!(other.mode, Mode::Approval { .. }));
        self.keep(active);
        let Some(place) = place.and_then(|place| u16::try_from(place).ok()) else { return Ok(None) };
        let Some(row) = self.get(items_key(id, place, 0)).await? else { return Ok(None) };
        let piece: Piece = wire::decode("what an approval shows", &row)?;
        Ok(piece.into_iter().next())
    }
}
