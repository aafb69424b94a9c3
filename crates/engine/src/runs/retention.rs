//! The end of an ended run: its rows leave when its retention time is over.

use selvedge_kernel::id::{Key, RunId};
use selvedge_kernel::ports::under;
use selvedge_kernel::record::Writes;
use selvedge_kernel::record::kind::Kind;
use selvedge_kernel::record::run::{prefix, run_key};

use super::lists::gone;
use crate::shard::{Shard, VerbError};

/// Rows removed by one commit.
const PIECE: usize = 80;

/// Everything that belongs to a run, its header last: what a crash leaves is found by it.
const KINDS: [Kind; 8] =
    [Kind::RunItems, Kind::RunTask, Kind::RunGroup, Kind::RunEvent, Kind::RunChain, Kind::InvocationSignal, Kind::Chunk, Kind::RunDefinition];

impl Shard {
    /// Removes a run, unless it was retried since and its time is not over.
    pub(super) async fn remove_run(&mut self, id: RunId, row: Key) -> Result<(), VerbError> {
        let mut writes = Writes::default();
        let keep = self.wiring.settings.keep.finished;
        let over = match self.read_run(id).await {
            Ok(read) => {
                let retention = read.run.compiled().definition.retention.map_or(keep, |span| span.0);
                let now = self.now();
                read.run.header().state.ended() && read.run.header().ended_at.is_some_and(|at| at.after(retention) <= now)
            }
            Err(error) if error.code == "unknown_run" => false,
            Err(error) => return Err(error),
        };
        if over {
            self.drop_run(id);
            for kind in KINDS {
                let rows = prefix(kind, id);
                loop {
                    let page = self.scan(under(&rows), PIECE).await?;
                    let last = page.len() < PIECE;
                    for (row, _) in page {
                        writes.delete(row);
                    }
                    if !last {
                        self.write(std::mem::take(&mut writes), Vec::new());
                        continue;
                    }
                    break;
                }
                if !writes.deletes.is_empty() {
                    self.write(std::mem::take(&mut writes), Vec::new());
                }
            }
            writes.delete(run_key(id));
            writes.delete(selvedge_kernel::record::run::seal_key_key(id));
            gone(id, self.runs.waiters.remove(&id).unwrap_or_default());
        }
        writes.delete(row);
        self.write(writes, Vec::new());
        Ok(())
    }
}
