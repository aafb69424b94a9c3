//! The end of an ended run: its rows leave when its retention time is over.

use std::time::Duration;

use selvedge_kernel::id::{Key, RunId};
use selvedge_kernel::ports::under;
use selvedge_kernel::record::attribute::{self, Place};
use selvedge_kernel::record::kind::Kind;
use selvedge_kernel::record::run::{annex_key, prefix, run_key, seal_key_key};
use selvedge_kernel::record::shard::Timer;
use selvedge_kernel::record::{Writes, kept};

use super::lists::gone;
use super::turn::{RETENTION, timer_number};
use crate::shard::{Shard, VerbError};

/// Rows removed by one commit.
const PIECE: usize = 80;
/// Commits of one turn; the rest follows in the next one.
const PIECES: usize = 25;

/// Everything that belongs to a run; its header goes last, so that what a crash leaves is found by it.
const KINDS: [Kind; 7] = [Kind::RunItems, Kind::RunTask, Kind::RunGroup, Kind::RunEvent, Kind::RunChain, Kind::InvocationSignal, Kind::Chunk];

impl Shard {
    /// Removes a run, unless it was retried since and its time is not over.
    pub(super) async fn remove_run(&mut self, id: RunId, row: Key) -> Result<(), VerbError> {
        let mut writes = Writes::default();
        writes.delete(row);
        let keep = self.wiring.settings.keep.finished;
        let now = self.now();
        let mut listed = None;
        let mut bytes = 0;
        let over = match self.read_run(id).await {
            Ok(read) => {
                let header = read.run.header();
                listed = Some((header.tenant.clone(), header.started_at));
                bytes = read.run.kept();
                let retention = read.run.compiled().definition.retention.map_or(keep, |span| span.0);
                read.run.header().state.ended() && read.run.header().ended_at.is_some_and(|at| at.after(retention) <= now)
            }
            Err(error) if error.code == "unknown_run" => false,
            Err(error) => return Err(error),
        };
        if !over {
            self.write(writes, Vec::new());
            return Ok(());
        }
        self.drop_run(id);
        let mut pieces = 0;
        for kind in KINDS {
            let mut range = under(&prefix(kind, id));
            loop {
                let rows = self.scan(range.clone(), PIECE).await?;
                let Some((last, _)) = rows.last() else { break };
                let mut next = last.to_vec();
                next.push(0);
                range.start = next.into();
                let mut piece = Writes::default();
                for (row, value) in rows {
                    if let Some((tenant, _)) = &listed {
                        piece.keep(tenant, -kept::change(kept::of_run_row(&row, &value).unwrap_or(0)));
                    }
                    piece.delete(row);
                }
                self.write(piece, Vec::new());
                pieces += 1;
                if pieces >= PIECES {
                    self.set_numbered_timer(&mut writes, now.after(Duration::from_millis(1)), timer_number(id) ^ 1, Timer::Run { run: id, token: RETENTION });
                    self.write(writes, Vec::new());
                    return Ok(());
                }
            }
        }
        if let Some((tenant, started_at)) = listed {
            let place = Place { tenant: &tenant, started_at, run: id };
            writes.keep(&tenant, -kept::change(bytes));
            if let Some(row) = self.get(place.row()).await? {
                place.remove(&attribute::decode(&row)?, &mut writes);
            }
        }
        writes.delete(prefix(Kind::RunDefinition, id));
        writes.delete(annex_key(id));
        writes.delete(seal_key_key(id));
        writes.delete(run_key(id));
        gone(id, self.runs.waiters.remove(&id).unwrap_or_default());
        self.write(writes, Vec::new());
        Ok(())
    }
}
