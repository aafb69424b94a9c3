//! Walks the ledger of a shard and every chain that it names, a slice a turn, so that work goes on beside it.

use std::collections::BTreeMap;

use selvedge_kernel::id::{InvocationId, RawId, ShardId};
use selvedge_kernel::journal::{Hash32, Payload, SealKey, Verifier, chain_start, seal};
use selvedge_kernel::ports::under;
use selvedge_kernel::record::key;
use selvedge_kernel::record::kind::Kind;
use selvedge_kernel::record::shard::{LedgerLine, LedgerState, ledger_chain};
use selvedge_kernel::time::{Day, Millis};
use selvedge_kernel::wire;

use super::{Reply, Shard, VerbError};
use crate::verify::ShardReport;

/// Ledger lines in one slice, and entries after which a slice ends.
const LINES: usize = 64;
const ENTRIES: u64 = 2_000;

/// A walk that is under way.
pub(crate) struct Walk {
    report: ShardReport,
    reply: Reply<ShardReport>,
    head: Hash32,
    /// The number of the line that comes next.
    next: u64,
    /// Work that was accepted, has no record, and whose end has not been met yet.
    gone: BTreeMap<RawId, bool>,
    /// Runs that went on behind the end that was met last, and what that is if no later one is met.
    behind: BTreeMap<RawId, String>,
}

impl Walk {
    pub(super) fn new(shard: ShardId, reply: Reply<ShardReport>) -> Walk {
        Walk { report: ShardReport::of(shard), reply, head: Hash32::default(), next: 0, gone: BTreeMap::new(), behind: BTreeMap::new() }
    }
}

impl Shard {
    /// Goes on with the walk that was asked for first.
    pub(super) async fn walk_on(&mut self) {
        let Some(mut walk) = self.walks.pop_front() else { return };
        match self.slice(&mut walk).await {
            Ok(false) => self.walks.push_front(walk),
            Ok(true) => {
                walk.report.head = format!("{:?}", self.head.ledger);
                self.answer(walk.reply, Ok(walk.report));
            }
            Err(error) => self.answer(walk.reply, Err(error)),
        }
    }

    /// Whether the walk has come to its end.
    async fn slice(&mut self, walk: &mut Walk) -> Result<bool, VerbError> {
        let mut range = under(&key::all(Kind::Ledger));
        range.start = key::ledger(walk.next);
        let lines = self.scan(range, LINES).await?;
        let until = walk.report.entries + ENTRIES;
        let last = lines.len() < LINES;
        for (row, value) in lines {
            let Some([n]) = key::numbers::<1>(&row) else { continue };
            let line: LedgerLine = wire::decode("ledger line", &value)?;
            self.check_line(walk, n, &line);
            self.check_work(walk, line).await?;
            if walk.report.entries >= until {
                return Ok(false);
            }
        }
        if last {
            self.check_end(walk);
        }
        Ok(last)
    }

    fn check_line(&self, walk: &mut Walk, n: u64, line: &LedgerLine) {
        let shard = self.id.0;
        if n != walk.next && walk.report.ledger_lines == 0 && self.left_the_ledger(line.before) {
            // Older lines have left by retention: the chain goes on from here.
            walk.head = line.chain;
        } else {
            if n != walk.next {
                walk.report.faults.push(format!("ledger of shard {shard}: line {} is missing, line {n} stands in its place", walk.next));
            }
            let chain = ledger_chain(walk.head, line);
            if chain != line.chain {
                walk.report.faults.push(format!("ledger of shard {shard}: line {n} ({:?}) was changed, or a line before it was", line.id));
            }
            walk.head = line.chain;
        }
        walk.next = n + 1;
        walk.report.ledger_lines += 1;
    }

    /// Whether a line of that time may have left the ledger by now.
    fn left_the_ledger(&self, at: Millis) -> bool {
        Day::expiry(at, self.wiring.settings.keep.ledger) <= self.head.time.day()
    }

    async fn check_work(&mut self, walk: &mut Walk, line: LedgerLine) -> Result<(), VerbError> {
        let mut behind = None;
        let found = match line.run {
            true => self.verify_run(&line, &mut walk.report, &mut behind).await?,
            false => self.verify_invocation(&line, &mut walk.report).await?,
        };
        walk.behind.remove(&line.id);
        walk.behind.extend(behind.map(|fault| (line.id, fault)));
        if line.state == LedgerState::Accepted {
            if !found {
                walk.gone.insert(line.id, line.run);
            }
            return Ok(());
        }
        walk.gone.remove(&line.id);
        if !found && self.within_retention(line.at) {
            let what = name_of(line.id, line.run);
            walk.report
                .faults
                .push(format!("{what}: the ledger says that it ended at {}, and its record is missing although its retention has not passed", line.at));
        }
        Ok(())
    }

    fn check_end(&self, walk: &mut Walk) {
        let (lines, shard) = (self.head.ledger_lines, self.id.0);
        if walk.report.ledger_lines == 0 {
            if lines > 0 && !self.left_the_ledger(self.head.ledger_at) {
                walk.report.faults.push(format!("ledger of shard {shard}: it is empty, its head says {lines} lines, the last one of {}", self.head.ledger_at));
            }
        } else if walk.head != self.head.ledger || walk.next != lines {
            walk.report.faults.push(format!("ledger of shard {shard}: it ends at line {}, its head says {lines}", walk.next));
        }
        walk.report.faults.extend(std::mem::take(&mut walk.behind).into_values());
        for (id, run) in std::mem::take(&mut walk.gone) {
            walk.report.faults.push(format!("{}: the ledger says that it was accepted, and its record is missing", name_of(id, run)));
        }
    }

    /// Checks one invocation against a line of the ledger; false if it has no record.
    async fn verify_invocation(&self, line: &LedgerLine, report: &mut ShardReport) -> Result<bool, VerbError> {
        let id = InvocationId(line.id);
        let Some(record) = self.record(id).await? else { return Ok(false) };
        if line.state == LedgerState::Accepted && record.status.ended() {
            // The line of its end says more.
            return Ok(true);
        }
        report.invocations += 1;
        let seal_key: Option<SealKey> = match self.get(key::seal_key(id.0)).await? {
            Some(bytes) => Some(wire::decode("seal key", &bytes)?),
            None => None,
        };
        self.check_payload_of(id, "input", &record.input, record.input_seal, seal_key.as_ref(), report).await;
        if let Some(end) = &record.end
            && let (Some(value), Some(sealed)) = (&end.value, end.value_seal)
        {
            self.check_payload_of(id, "result", value, sealed, seal_key.as_ref(), report).await;
        }
        let mut verifier = Verifier::new(chain_start(id.0, record.input_seal));
        for entry in self.all_entries(id).await? {
            let payload = match &entry.payload {
                Payload::Erased => None,
                payload => self.payload(id.0, entry.seal, payload).await.ok(),
            };
            if payload.is_none() && entry.payload != Payload::Erased {
                report.faults.push(format!("{id}: the payload of entry {} is missing", entry.header.index));
            }
            report.entries += 1;
            if let Err(fault) = verifier.check(&entry, seal_key.as_ref(), payload.as_deref()) {
                report.faults.push(format!("{id}: {fault}"));
                return Ok(true);
            }
        }
        report.erased += u64::from(verifier.erased);
        if line.state != LedgerState::Accepted && verifier.head() != (line.last, line.count) {
            report.faults.push(format!("{id}: the ledger says that it ended with {} entries, {} are there", line.count, verifier.head().1));
        }
        Ok(true)
    }

    /// Checks a payload beside the journal against its seal; without a key it was erased.
    async fn check_payload_of(&self, id: InvocationId, what: &str, payload: &Payload, sealed: Hash32, key: Option<&SealKey>, report: &mut ShardReport) {
        let Some(key) = key.filter(|_| *payload != Payload::Erased) else { return };
        match self.payload(id.0, sealed, payload).await {
            Ok(value) if seal(key, &value) == sealed => {}
            Ok(_) => report.faults.push(format!("{id}: its {what} is not the one that was recorded")),
            Err(error) => report.faults.push(format!("{id}: its {what} cannot be read: {error}")),
        }
    }
}

fn name_of(id: RawId, run: bool) -> String {
    if run { selvedge_kernel::id::RunId(id).to_string() } else { InvocationId(id).to_string() }
}
