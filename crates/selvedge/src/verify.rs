//! Are the chains and ledgers of the whole store sound?

use selvedge_engine::verify::ShardReport;
use selvedge_kernel::auth::{Action, Resource};

use crate::client::{Client, VerbFailed};

/// Why the store could not be verified.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct VerifyError(#[from] pub VerbFailed);

impl Client {
    /// Walks every ledger and every chain: one report for each shard, whose `faults` are empty where all is sound.
    ///
    /// ```
    /// # async fn example(client: selvedge::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let sound = client.verify().await?.iter().all(|shard| shard.faults.is_empty());
    /// # assert!(sound); Ok(()) }
    /// ```
    pub async fn verify(&self) -> Result<Vec<ShardReport>, VerifyError> {
        let permit = self.permit(Action::Operate, Resource::Store)?;
        Ok(self.engine.verify(permit).await.map_err(VerbFailed::from)?)
    }
}
