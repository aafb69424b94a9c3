//! What a run keeps of its tenant's bytes.

use selvedge_kernel::record::run::run_key;
use selvedge_kernel::record::{Writes, kept};

use super::{Active, NewRun};
use crate::shard::{Shard, VerbError};
use selvedge_kernel::id::RunId;

impl Shard {
    /// Counts what a commit of a run keeps more or less: by its header, and by rows of its own.
    pub(super) async fn keep_run(&self, active: &mut Active, writes: &mut Writes) -> Result<(), VerbError> {
        let now = active.run.kept();
        let mut change = kept::change(now) - kept::change(active.kept);
        active.kept = now;
        for put in &writes.puts {
            if kept::has_run_bytes(&put.key) {
                change += kept::change(kept::of_run_row(&put.key, &put.value)?) - self.run_row_bytes(&put.key).await?;
            }
        }
        for gone in &writes.deletes {
            if kept::has_run_bytes(gone) {
                change -= self.run_row_bytes(gone).await?;
            }
        }
        writes.keep(&active.run.header().tenant, change);
        Ok(())
    }

    /// The bytes of a row as it stands.
    async fn run_row_bytes(&self, row: &selvedge_kernel::id::Key) -> Result<i64, VerbError> {
        Ok(match self.get(row.clone()).await? {
            Some(value) => kept::change(kept::of_run_row(row, &value)?),
            None => 0,
        })
    }

    /// Accepts a run that somebody starts, if its tenant may keep more, or it is there already.
    pub(super) async fn start_new_run(&mut self, new: NewRun) -> Result<RunId, VerbError> {
        if self.get(run_key(new.id)).await?.is_none() {
            self.room_to_keep(&new.tenant)?;
        }
        self.accept_run(new).await
    }
}
