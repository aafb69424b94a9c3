//! Checks the rows of a run against its chain, and its chain against the ledger.

use bytes::Bytes;
use selvedge_kernel::id::RunId;
use selvedge_kernel::journal::{Hash32, Payload, SealKey, seal};
use selvedge_kernel::pipeline::run::ChainVerifier;
use selvedge_kernel::ports::under;
use selvedge_kernel::record::key;
use selvedge_kernel::record::kind::Kind;
use selvedge_kernel::record::run::{ChainRow, Pinned, RunRow, Stored, TaskEnd, TaskRow, definition_key, prefix, run_key, seal_key_key};
use selvedge_kernel::record::shard::{LedgerLine, LedgerState};
use selvedge_kernel::wire;

use crate::shard::{Shard, VerbError};
use crate::verify::ShardReport;

/// What a chain covers beside itself and the header.
const COVERED: [Kind; 8] =
    [Kind::SealKey, Kind::RunAnnex, Kind::InvocationSignal, Kind::RunDefinition, Kind::RunItems, Kind::RunTask, Kind::RunGroup, Kind::RunEvent];
/// Rows read at once.
const PAGE: usize = 500;

impl Shard {
    /// Walks the chain of a run and its rows; false if it has no header. A run that was retried goes on behind its end:
    /// `behind` is what to say if no later line fits.
    pub(crate) async fn verify_run(&self, line: &LedgerLine, report: &mut ShardReport, behind: &mut Option<String>) -> Result<bool, VerbError> {
        let id = RunId(line.id);
        let Some(row) = self.get(run_key(id)).await? else { return Ok(false) };
        let row: RunRow = wire::decode("run", &row)?;
        if line.state == LedgerState::Accepted && row.header.state.ended() {
            // The line of its end says more.
            return Ok(true);
        }
        report.runs += 1;
        let Some(definition) = self.get(definition_key(id)).await? else {
            report.faults.push(format!("{id}: its definition is missing"));
            return Ok(true);
        };
        let pinned: Pinned = wire::decode("pinned definition", &definition)?;
        let seal_key: Option<SealKey> = match self.get(seal_key_key(id)).await? {
            Some(bytes) => Some(wire::decode("seal key", &bytes)?),
            None => None,
        };
        let input_seal = match (&pinned.input, &seal_key) {
            (Stored::Chunked { seal, .. }, _) => *seal,
            (Stored::Inline(input), Some(seal_key)) => seal(seal_key, input),
            (Stored::Inline(_), None) => {
                report.faults.push(format!("{id}: its seal key is missing"));
                return Ok(true);
            }
        };
        let mut verifier = ChainVerifier::new(id, input_seal, seal_key);
        let walked = self.walk_run(id, &mut verifier, seal_key.as_ref(), report).await?;
        if let Err(fault) = walked {
            report.faults.push(fault);
            return Ok(true);
        }
        if let Stored::Chunked { seal, len } = &pinned.input
            && let Some(fault) = self.check_payload(id, *seal, *len, seal_key.as_ref()).await
        {
            report.faults.push(fault);
        }
        match verifier.finish(&row) {
            Ok((head, commits)) => {
                if line.state != LedgerState::Accepted && (head, commits) != (line.last, u64::from(line.count)) {
                    let fault = format!("{id}: the ledger says that it ended with {} commits, its chain has {commits}", line.count);
                    if commits > u64::from(line.count) { *behind = Some(fault) } else { report.faults.push(fault) }
                }
            }
            Err(fault) => report.faults.push(fault.to_string()),
        }
        Ok(true)
    }

    async fn walk_run(
        &self,
        id: RunId,
        verifier: &mut ChainVerifier,
        seal_key: Option<&SealKey>,
        report: &mut ShardReport,
    ) -> Result<Result<(), String>, VerbError> {
        let mut faults = None;
        self.each_row(id, Kind::RunChain, |row, value| {
            report.entries += 1;
            let checked = match (key::last_u64(row), wire::decode::<ChainRow>("chain entry", value)) {
                (Some(n), Ok(entry)) => verifier.entry(n, entry).map_err(|fault| fault.to_string()),
                (_, Err(error)) => Err(format!("{id}: {error}")),
                (None, _) => Err(format!("{id}: a chain entry has no number")),
            };
            if let Err(fault) = checked {
                faults.get_or_insert(fault);
            }
        })
        .await?;
        let mut large = Vec::new();
        for kind in COVERED {
            self.each_row(id, kind, |row, value| {
                if let Err(fault) = verifier.row(row, value) {
                    faults.get_or_insert(fault.to_string());
                }
                if kind == Kind::RunTask
                    && let Ok(TaskRow { end: TaskEnd::Completed { output: Stored::Chunked { seal, len } }, .. }) = wire::decode("task", value)
                {
                    large.push((seal, len));
                }
            })
            .await?;
        }
        for (sealed, len) in large {
            if let Some(fault) = self.check_payload(id, sealed, len, seal_key).await {
                faults.get_or_insert(fault);
            }
        }
        Ok(faults.map_or(Ok(()), Err))
    }

    async fn check_payload(&self, id: RunId, sealed: Hash32, len: u64, seal_key: Option<&SealKey>) -> Option<String> {
        let fits = |bytes: &Bytes| seal_key.is_none_or(|seal_key| seal(seal_key, bytes) == sealed);
        match self.payload(id.0, sealed, &Payload::Chunked { len }).await {
            Ok(bytes) if fits(&bytes) => None,
            Ok(_) => Some(format!("{id}: a payload of {len} bytes was changed")),
            Err(error) => Some(format!("{id}: {}", error.message)),
        }
    }

    async fn each_row(&self, id: RunId, kind: Kind, mut look: impl FnMut(&[u8], &[u8])) -> Result<(), VerbError> {
        let mut range = under(&prefix(kind, id));
        loop {
            let rows = self.scan(range.clone(), PAGE).await?;
            for (row, value) in &rows {
                look(row, value);
            }
            match rows.last() {
                Some((last, _)) if rows.len() == PAGE => {
                    let mut next = last.to_vec();
                    next.push(0);
                    range.start = next.into();
                }
                _ => return Ok(()),
            }
        }
    }
}
