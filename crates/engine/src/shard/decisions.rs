//! Records of decisions as rows: written in batches, a bounded number of them, and read back.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use selvedge_kernel::id::Key;
use selvedge_kernel::limit::DECISIONS;
use selvedge_kernel::record::Writes;
use selvedge_kernel::record::decision::{What, decisions_of, row};
use selvedge_kernel::time::{Day, Millis};
use selvedge_kernel::wire;

use super::{Alarm, Effect, Reply, Shard, VerbError};

/// Between two writes of what was noted: a denial that comes again and again is not a write each time.
const EVERY: Duration = Duration::from_secs(1);
/// Records of one transition.
const TOGETHER: usize = 40;
/// Records of one write: those behind them wait for the next one, so that accepted work does not wait for them.
const AT_ONCE: usize = 200;
/// Records of one tenant of one write, before the next one's turn.
const SHARE: usize = 50;
/// How many of the oldest go when a kind is full.
const ROOM: usize = DECISIONS / 20;

/// What a shard knows of the decisions that it writes.
#[derive(Default)]
pub(crate) struct Decided {
    /// Tenants of which something is to be written.
    waiting: VecDeque<String>,
    /// When that may be.
    next: Millis,
    /// When the shard is woken for that.
    alarm: Option<Millis>,
    /// At most so many rows there are; none: nobody has counted.
    rows: HashMap<(String, What), usize>,
}

impl Shard {
    /// Something of a tenant is to be written: now, or when the time has come.
    pub(crate) async fn decided(&mut self, tenant: String) {
        if !self.decided.waiting.contains(&tenant) {
            self.decided.waiting.push_back(tenant);
        }
        self.write_when_due().await;
    }

    /// The time to write has come, unless something was written meanwhile.
    pub(super) async fn decided_due(&mut self) {
        self.decided.alarm = None;
        self.write_when_due().await;
    }

    async fn write_when_due(&mut self) {
        let now = self.tick.wall;
        // A clock that was set back is not waited for.
        if self.decided.next <= now || self.decided.next > now.after(EVERY) {
            self.decided.next = now.after(EVERY);
            self.write_decided().await;
        }
        // An alarm from before the clock was set back would wait for the time that it was.
        let alarmed = self.decided.alarm.is_some_and(|at| at <= now.after(EVERY));
        if !self.decided.waiting.is_empty() && !alarmed {
            self.decided.alarm = Some(self.decided.next);
            self.set_alarm(self.decided.next, Alarm::Decided);
        }
    }

    /// Writes what was noted, as much as goes at once.
    async fn write_decided(&mut self) {
        let mut left = AT_ONCE;
        while left > 0
            && let Some(tenant) = self.decided.waiting.pop_front()
        {
            // One that has much to write keeps nobody else from a share.
            let share = left.min(SHARE);
            match self.write_some(&tenant, share).await {
                Ok(written) => {
                    left -= written;
                    if written == share {
                        self.decided.waiting.push_back(tenant);
                    }
                }
                Err(error) => return self.wiring.stop(error.message),
            }
        }
    }

    /// This process closes: writes all that was noted.
    pub(crate) async fn write_all_decided(&mut self) {
        let here: Vec<String> = self.wiring.decisions.waiting().into_iter().filter(|tenant| self.wiring.shard_of_decisions(tenant) == self.id).collect();
        for tenant in here {
            if let Err(error) = self.write_some(&tenant, usize::MAX).await {
                return self.wiring.stop(error.message);
            }
        }
    }

    async fn write_some(&mut self, tenant: &str, most: usize) -> Result<usize, VerbError> {
        let of = self.wiring.decisions.of(tenant);
        let keep = self.wiring.settings.keep.decisions;
        let mut written = 0;
        while written < most {
            let taken = of.take(TOGETHER.min(most - written), self.tick.wall);
            if taken.is_empty() {
                break;
            }
            for what in What::ALL {
                let fresh = taken.iter().filter(|(record, fresh)| *fresh && record.what == what).count();
                self.make_room(tenant, what, fresh).await?;
            }
            let mut writes = Writes::default();
            for (record, _) in &taken {
                writes.put_until(row(tenant, record.what, record.id), wire::encode(record), Day::expiry(record.first, keep));
            }
            self.write(writes, Vec::new());
            written += taken.len();
        }
        Ok(written)
    }

    /// Counts rows that come, and lets the oldest go if there would be more than may be.
    async fn make_room(&mut self, tenant: &str, what: What, fresh: usize) -> Result<(), VerbError> {
        if fresh == 0 {
            return Ok(());
        }
        let place = (tenant.to_owned(), what);
        let mut rows = match self.decided.rows.get(&place) {
            Some(rows) => *rows,
            None => self.decision_rows(tenant, what).await?.len(),
        };
        if rows + fresh > DECISIONS {
            // Some may have left by themselves meanwhile.
            let keys = self.decision_rows(tenant, what).await?;
            rows = keys.len().min(DECISIONS - ROOM);
            for gone in keys[rows..].chunks(TOGETHER) {
                let mut writes = Writes::default();
                gone.iter().for_each(|key| writes.delete(key.clone()));
                self.write(writes, Vec::new());
            }
        }
        self.decided.rows.insert(place, rows + fresh);
        Ok(())
    }

    async fn decision_rows(&self, tenant: &str, what: What) -> Result<Vec<Key>, VerbError> {
        Ok(self.scan_all(&decisions_of(tenant, what)).await?.into_iter().map(|(key, _)| key).collect())
    }

    /// Writes what was noted of a tenant until now; answered once that is durable, for whoever reads it then.
    pub(super) async fn write_noted(&mut self, tenant: &str, reply: Reply<()>) {
        match self.write_some(tenant, usize::MAX).await {
            Ok(_) => self.after_all(Effect::Answer(Box::new(move || drop(reply.send(Ok(())))))),
            Err(error) => self.answer(reply, Err(error)),
        }
    }
}
