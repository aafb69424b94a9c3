//! Runs that are tasks of other runs: started, answered and cancelled by message, each exactly once.

use bytes::Bytes;
use selvedge_kernel::error::{AttemptError, Consequence, WorkError};
use selvedge_kernel::id::{InvocationId, RunId};
use selvedge_kernel::journal::Payload;
use selvedge_kernel::limit::CALL_DEPTH;
use selvedge_kernel::machine::RunState;
use selvedge_kernel::pipeline::run::{LargePayload, Run, RunInput, child_id};
use selvedge_kernel::record::Writes;
use selvedge_kernel::record::message::{Awaited, Envelope, Outcome, Peer, Starting};
use selvedge_kernel::record::run::{Parent, Stored};
use selvedge_kernel::time::Millis;

use super::accept::checked_input;
use super::{Doing, Task};
use crate::definitions::found;
use crate::shard::{Asker, Effect, Shard, VerbError};

impl Shard {
    /// Starts a run for a task; its end is the end of the attempt. The deadline of the attempt is the run's.
    pub(super) async fn start_child(
        &mut self,
        run: RunId,
        task: (u16, u32, u32),
        (round, deadline): (u32, Option<Millis>),
        name: &str,
        input: &Bytes,
    ) -> Result<(), VerbError> {
        let (stage, item, attempt) = task;
        let Some(active) = self.runs.active.get(&run) else { return Ok(()) };
        let tenant = active.run.header().tenant.clone();
        let found = match found(&self.wiring, &tenant, name).await {
            Ok(Some(definition)) => Ok(definition),
            Ok(None) => Err(format!(
                "there is no pipeline `{name}` here: store it with `selvedge pipelines put FILE`, or name its file under `pipelines` in app.yaml, \
                 or register it, and start again"
            )),
            Err(error) if matches!(error.consequence, Consequence::Stop | Consequence::Retry) => return Err(error),
            Err(error) => Err(error.message),
        };
        let definition = match found {
            Ok(definition) => definition,
            Err(reason) => {
                self.limits.done(Asker::Task(run, stage, item));
                self.runs.tell(run, RunInput::NoExecutor { stage, item, attempt, reason });
                return Ok(());
            }
        };
        let depth = active.run.parent().map_or(0, |parent| parent.depth) + 1;
        let checked = if depth as usize > CALL_DEPTH {
            let text = format!(
                "`{name}` would be the {depth}th run that waits for one below it (limit: call_depth = {CALL_DEPTH}): it calls itself, or is nested too deep"
            );
            Err(WorkError::new("limit: call depth", text))
        } else {
            checked_input(&definition, input).map_err(|error| WorkError::new(error.code, error.message))
        };
        let input = match checked {
            Ok(input) => input,
            Err(error) => {
                self.limits.done(Asker::Task(run, stage, item));
                let result = Err(AttemptError { error, retryable: false, retry_after_ms: None });
                self.runs.tell(run, RunInput::TaskEnded { stage, item, attempt, result });
                return Ok(());
            }
        };
        let stage_name = active.run.compiled().plan.get(usize::from(stage)).map_or("", |stage| &stage.name);
        let context = active.run.context().through(&run.actor(&tenant), stage_name);
        let trace = active.run.trace().map(str::to_owned);
        let child = child_id(run, &tenant, task, round);
        self.runs.tasks.insert((run, stage, item), Task { attempt, alarm: None, work: Doing::Called });
        let definition = Bytes::from(serde_json::to_vec(&definition).unwrap_or_default());
        let parent = Parent { peer: Peer::Task { run, stage, item, attempt }, depth };
        let mut writes = Writes::default();
        let mut effects = Vec::new();
        let to = child.0.hash.shard(self.wiring.shards);
        let start = Starting { run: child, definition, input, context, awaited: Awaited::End { parent, deadline } };
        self.send(to, run.0, Envelope::start(start, trace), &mut writes, &mut effects).await?;
        self.write(writes, effects);
        Ok(())
    }

    /// The end of a run is the answer to the task that waits for it, in the commit that ends it.
    pub(super) async fn answer_parent(&mut self, run: &Run, large: &[LargePayload], writes: &mut Writes, effects: &mut Vec<Effect>) -> Result<(), VerbError> {
        let Some(parent) = run.parent() else { return Ok(()) };
        let (id, header) = (run.id(), run.header());
        let outcome = match (header.state, &header.output) {
            (RunState::Completed, Some(Stored::Inline(bytes))) => Outcome::Value(bytes.clone()),
            (RunState::Completed, Some(Stored::Chunked { seal, len })) => match large.iter().find(|large| large.seal == *seal) {
                Some(large) => Outcome::Value(large.bytes.clone()),
                None => Outcome::Value(self.payload(id.0, *seal, &Payload::Chunked { len: *len }).await?),
            },
            (RunState::Completed, None) => Outcome::Value(Bytes::from_static(b"null")),
            (RunState::Cancelled, _) => Outcome::Error(WorkError::new("cancelled", format!("{id} of `{}` was cancelled", header.pipeline))),
            _ => {
                let error = header.error.clone().unwrap_or_else(|| WorkError::new("unknown", "it failed"));
                Outcome::Error(WorkError::new(error.code, format!("{id} of `{}`: {}", header.pipeline, error.message)))
            }
        };
        self.reply(parent.peer, InvocationId(id.0), outcome, writes, effects).await
    }

    /// Ends a run because the one above it needs it no more; one that is gone or has ended stays as it is.
    pub(crate) async fn keep_run_cancel(&mut self, id: RunId, reason: String) -> Result<(), VerbError> {
        self.apply_to_run(id, RunInput::Cancel { by: reason }).await
    }

    /// Gives a run what a message brings, in a commit before the one that raises the message's mark: if it comes twice,
    /// the second one changes nothing. One that is gone, or does not take it, stays as it is.
    pub(super) async fn apply_to_run(&mut self, id: RunId, input: RunInput) -> Result<(), VerbError> {
        match self.activate_run(id).await {
            Ok(()) => {}
            Err(error) if matches!(error.code.as_str(), "unknown_run" | "store_damaged") => return Ok(()),
            Err(error) => return Err(error),
        }
        let Some(mut active) = self.runs.active.remove(&id) else { return Ok(()) };
        let now = self.now();
        match active.run.apply(input, now) {
            Ok(effects) => self.move_on(active, effects).await,
            Err(_) => {
                self.keep(active);
                Ok(())
            }
        }
    }
}
