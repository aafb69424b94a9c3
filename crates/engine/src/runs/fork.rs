//! A fork of a run: a new run of the same definition, which takes over the stages of an ended one that ended well.

use bytes::Bytes;
use selvedge_kernel::auth::{Action, AuthorizationContext, Permit};
use selvedge_kernel::error::Consequence;
use selvedge_kernel::id::{Key, RunId};
use selvedge_kernel::journal::Payload;
use selvedge_kernel::limit;
use selvedge_kernel::pipeline::attributes;
use selvedge_kernel::pipeline::run::{Effects, Run, Start, Taken};
use selvedge_kernel::ports::{Put, under};
use selvedge_kernel::record::attribute;
use selvedge_kernel::record::kind::Kind;
use selvedge_kernel::record::run::{Pinned, Stored, TaskEnd, TaskRow, definition_key, parts_of_group_key, prefix, run_key, seal_key_key, stage_of_key};
use selvedge_kernel::wire;
use serde::Serialize;

use super::accept::checked_input;
use super::lists::refused;
use super::memory::{active, unknown};
use super::{Active, RunCommand};
use crate::door::{check_part, check_reason, tenant_for};
use crate::engine::Engine;
use crate::in_flight::InFlight;
use crate::shard::{Shard, VerbError};

/// Rows and bytes of one commit of a copy: what closes the commit stands beside them.
const COPIED: (usize, usize) = (80, 1024 * 1024);

/// What somebody asks of a fork.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunFork {
    /// The stage that is done anew, with all that depends on it; none: what did not end well.
    pub from: Option<String>,
    /// The input of the new run; none: that of the old one.
    pub input: Option<Bytes>,
    /// Why.
    pub reason: String,
    /// The same key, the same fork.
    pub key: String,
}

/// What a fork became.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ForkedRun {
    /// The new run.
    pub id: RunId,
    /// The stages that it took over; none if it was there already.
    pub taken: Option<Vec<String>>,
}

impl Engine {
    /// Starts a new run of the definition of an ended one, which takes over what ended well there: durable when this returns.
    /// Errors: a run that has not ended, a stage that it does not have, an input that does not fit, more rows than one may take over.
    pub async fn fork_run(&self, permit: Permit, id: RunId, fork: RunFork) -> Result<ForkedRun, VerbError> {
        let tenant = tenant_for(&permit, Action::Rewrite)?;
        check_reason(&fork.reason)?;
        check_part("the key of the fork", &fork.key)?;
        let bytes = fork.input.as_ref().map_or(0, Bytes::len);
        crate::door::check_body(self.limits(), bytes)?;
        self.admit().await?;
        let held = InFlight::take(&self.wiring, bytes)?;
        let (fork, context) = (Box::new(fork), permit.into_context());
        self.ask_run_holding(id, held, |reply| RunCommand::Fork { id, tenant, fork, context, reply }).await
    }
}

/// The row of another run that stands for a row of one.
fn moved(row: &[u8], to: RunId) -> Option<Key> {
    let (kind, rest) = (row.get(2)?, row.get(21..)?);
    let mut key = Vec::with_capacity(row.len());
    key.extend_from_slice(&to.0.hash.0.to_be_bytes());
    key.push(*kind);
    key.extend_from_slice(&to.0.to_bytes());
    key.extend_from_slice(rest);
    Some(Key::from(key))
}

/// Rows of stages that are taken over, and the large values that they name.
#[derive(Default)]
struct Copied {
    rows: Vec<(Key, Bytes)>,
    large: Vec<Stored>,
    bytes: u64,
}

impl Shard {
    pub(super) async fn fork_run(&mut self, id: RunId, tenant: &str, fork: RunFork, context: AuthorizationContext) -> Result<ForkedRun, VerbError> {
        let source = self.read_run(id).await?;
        if source.run.header().tenant != tenant {
            return Err(unknown(id));
        }
        // Both in one shard, so that one turn sees the one as it is and makes the other.
        let Some(new) = (0..=u32::MAX).map(|n| forked(tenant, id, &fork.key, n)).find(|new| new.0.hash.shard(self.wiring.shards) == self.id) else {
            return Err(VerbError::new(Consequence::Conflict, "open", format!("no id was found for a fork of {id}: take another key")));
        };
        if self.get(run_key(new)).await?.is_some() {
            return Ok(ForkedRun { id: new, taken: None });
        }
        if !source.run.header().state.ended() {
            let text = format!("{id} has not ended: wait for its end, or cancel it first and fork it then");
            return Err(VerbError::new(Consequence::Conflict, "open", text));
        }
        let taken = source.run.taken(fork.from.as_deref()).map_err(|error| refused(id, &error))?;
        let pinned = self.get(definition_key(id)).await?.ok_or_else(|| unknown(id))?;
        let pinned: Pinned = wire::decode("pinned definition", &pinned)?;
        let compiled = source.run.compiled().clone();
        let input = match (&fork.input, pinned.input) {
            (Some(input), _) => checked_input(&compiled.definition, input)?,
            (None, Stored::Inline(input)) => input,
            (None, Stored::Chunked { seal, len }) => self.payload(id.0, seal, &Payload::Chunked { len }).await?,
        };
        let seal_key = self.get(seal_key_key(id)).await?.ok_or_else(|| unknown(id))?;
        let seal_key = wire::decode("seal key", &seal_key)?;
        let copied = self.rows_of(id, &taken, new).await?;
        let attributes = attributes::evaluate(&compiled.definition, &input).map_err(|error| VerbError::new(Consequence::FixInput, "input", error))?;
        // What must be read is read, and what may be refused was not: it is made.
        for value in &copied.large {
            let Stored::Chunked { seal, len } = value else { continue };
            let payload = self.payload(id.0, *seal, &Payload::Chunked { len: *len }).await?;
            self.write_all_chunks(new.0, *seal, &payload);
        }
        let names = taken.stages().map(|stage| compiled.plan[usize::from(stage)].name.clone()).collect();
        let now = self.now();
        let why = format!("forked from {id} by {}: {}", context.principal.id, fork.reason);
        let limits = self.wiring.settings.limits;
        let rows = attribute::Place { tenant, started_at: now, run: new }.rows(&attributes);
        // The seals of what it takes over stay what they are.
        let trace = source.run.trace().map(str::to_owned);
        let start = Start { id: new, tenant: tenant.to_owned(), compiled, input, context, seal_key, limits, parent: None, deadline: None, trace };
        let (mut run, mut effects) = Run::start(start, now);
        run.hold_for(&id.to_string(), now);
        effects.puts.extend(rows.puts);
        let mut made = Active { ended: true, ..active(run) };
        self.commit_run(&mut made, effects, true, now).await?;
        let mut rows = copied.rows.into_iter().peekable();
        while rows.peek().is_some() {
            let mut effects = Effects::default();
            while effects.ops() < COPIED.0
                && effects.bytes() < COPIED.1
                && let Some((row, value)) = rows.next()
            {
                effects.puts.push(Put { key: row, value, expires: None });
            }
            self.commit_run(&mut made, effects, true, now).await?;
        }
        made.run.take_over(taken, why);
        self.commit_run(&mut made, Effects::default(), true, now).await?;
        // Its rows say what it is from here on, as after a restart.
        made.run = self.read_run(new).await?.run;
        self.settle_run(made).await?;
        Ok(ForkedRun { id: new, taken: Some(names) })
    }

    /// The rows of the stages that are taken over, under the keys of the new run.
    async fn rows_of(&self, id: RunId, taken: &Taken, new: RunId) -> Result<Copied, VerbError> {
        let kept: std::collections::BTreeSet<u16> = taken.stages().collect();
        let mut copied = Copied::default();
        for kind in [Kind::RunItems, Kind::RunTask, Kind::RunGroup] {
            let mut range = under(&prefix(kind, id));
            loop {
                let rows = self.scan(range.clone(), 500).await?;
                let last = rows.last().map(|(last, _)| last.clone());
                let full = rows.len() == 500;
                for (row, value) in rows {
                    let stage = match kind {
                        // Whose end has put it there: the gather may start over, its members do not.
                        Kind::RunGroup => parts_of_group_key(&row).map(|(_, member, _)| member),
                        _ => stage_of_key(&row),
                    };
                    if stage.is_some_and(|stage| kept.contains(&stage)) {
                        copied.take(id, kind, row, value, new)?;
                    }
                }
                let Some(last) = last.filter(|_| full) else { break };
                let mut next = last.to_vec();
                next.push(0);
                range.start = Key::from(next);
            }
        }
        Ok(copied)
    }
}

impl Copied {
    fn take(&mut self, id: RunId, kind: Kind, row: Key, value: Bytes, new: RunId) -> Result<(), VerbError> {
        self.bytes += value.len() as u64;
        if kind == Kind::RunTask {
            let task: TaskRow = wire::decode("task", &value)?;
            if let TaskEnd::Completed { output: stored @ Stored::Chunked { .. } } | TaskEnd::Failed { item: stored @ Stored::Chunked { .. }, .. } = task.end {
                self.bytes += stored.len();
                self.large.push(stored);
            }
        }
        let Some(row) = moved(&row, new) else { return Err(unknown(id)) };
        self.rows.push((row, value));
        if self.rows.len() > limit::RUN_FORK_ROWS || self.bytes > limit::FORK_BYTES as u64 {
            let text = format!(
                "what {id} has done is more than a fork takes over ({} rows or {} bytes): fork it from an earlier stage, or take it up itself with `selvedge runs retry {id} --from STAGE`",
                limit::RUN_FORK_ROWS,
                limit::FORK_BYTES
            );
            return Err(VerbError::new(Consequence::Limit, "limit: fork", text));
        }
        Ok(())
    }
}

/// The id of a fork: the `n`th that its key gives.
fn forked(tenant: &str, of: RunId, key: &str, n: u32) -> RunId {
    RunId::keyed(tenant, &format!("a fork of {of}, {n}"), key)
}
