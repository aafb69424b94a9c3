//! The verbs that look, and those that interfere.

use bytes::Bytes;

use selvedge_kernel::error::{Consequence, WorkError};
use selvedge_kernel::id::InvocationId;
use selvedge_kernel::journal::{Entry, OpKind, Payload, SealKey, unfold};
use selvedge_kernel::limit;
use selvedge_kernel::policy::look_after;
use selvedge_kernel::record::build::Builds;
use selvedge_kernel::record::invocation::{Begun, Invocation, OutputChunk, Restarts, Status};
use selvedge_kernel::record::kind::Kind;
use selvedge_kernel::record::message::Outcome;
use selvedge_kernel::record::{Writes, key};
use selvedge_kernel::time::Millis;
use selvedge_kernel::transition::{Ended, Journal};
use selvedge_kernel::waiting::Waiting;
use selvedge_kernel::wire;

use super::verify::Walk;
use super::{Answer, Command, Progress, Reply, Shard, VerbError};
use crate::core::{Request, StepState};
use crate::verify::Head;
use crate::why::{Census, Forks, Why};

impl Shard {
    pub(super) async fn inspect(&mut self, command: Command) {
        match command {
            Command::Invoke { .. } | Command::Edit { .. } => {}
            Command::Resolve { resolve, by, reply } => {
                let result = self.resolve(*resolve, by).await;
                self.answer(reply, result);
            }
            Command::Fork { fork, by, reply } => self.fork_when_durable(fork, by, reply).await,
            Command::Journal { id, from, reply } => self.journal_when_durable(id, from, reply).await,
            Command::Signal { target, name, payload, context, key, reply } => {
                let result = self.signal(target, &name, payload, context, key, Writes::default()).await;
                self.answer(reply, result);
            }
            Command::Result { id, wait, reply } => self.result(id, wait, reply).await,
            Command::Cancel { id, reason, reply } => {
                let result = match self.cancel_delayed(id).await {
                    Ok(false) => self.open_record(id).await.map(|_| true),
                    done => done.map(|_| false),
                };
                if matches!(result, Ok(true)) {
                    self.cancel(id, reason).await;
                }
                self.answer(reply, result.map(|_| ()));
            }
            Command::Kill { id, reason, reply } => {
                let result = match self.cancel_delayed(id).await {
                    Ok(false) => self.kill(id, &reason).await,
                    done => done.map(|_| ()),
                };
                self.answer(reply, result);
            }
            Command::Retry { id, reply } => {
                let result = self.retry(id).await;
                self.answer(reply, result);
            }
            Command::Tenant { id, reply } => {
                let found = self.tenant_of(id).await;
                let _ = reply.send(found);
            }
            Command::Erase { id, reply } => {
                self.erase_when_durable(id, reply).await;
            }
            Command::Rehearse { id, reply } => {
                let found = self.rehearse(id).await;
                let _ = reply.send(found);
            }
            Command::Why { id, reply } => {
                let result = self.why(id).await;
                self.answer(reply, result);
            }
            Command::Output { id, from, reply } => {
                let result = self.output(id, from).await;
                self.answer(reply, result);
            }
            Command::State { actor, reply } => {
                let result = self.state_entries(&actor, "").await;
                self.answer(reply, result);
            }
            Command::Verify { quick, kept, reply } => self.walks.push_back(Box::new(Walk::new(self.id, quick, kept, reply))),
            Command::Head { reply } => {
                let head = Head { shard: self.id.0, lines: self.head.ledger_lines, head: format!("{:?}", self.head.ledger) };
                self.answer(reply, Ok(head));
            }
            Command::DeadLetter { id, tenant, reply } => {
                let result = self.dead_letter(id, &tenant).await;
                self.answer(reply, result);
            }
            Command::Redrive { id, tenant, input, reply } => {
                let result = self.redrive(id, &tenant, input).await;
                self.answer(reply, result);
            }
            Command::Census { reply } => {
                let (runs, run_tasks) = self.runs.census();
                let census = Census {
                    runs,
                    actors: self.actors.len(),
                    active: self.active.len(),
                    tasks: self.tasks.len() + run_tasks,
                    outbox: self.outbox.values().map(super::mail::Pair::open).sum(),
                    on_their_way: self.outbox.values().map(super::mail::Pair::out).sum(),
                    timers: self.timers.len(),
                };
                let _ = reply.send(Ok(census));
            }
            Command::Run(command) => self.run_command(command).await,
            Command::Schedule(command) => self.schedule_command(command).await,
            Command::Key(command) => self.key_command(command).await,
            Command::Disable(command) => self.disable_command(command).await,
            Command::Decisions { tenant, reply } => self.write_noted(&tenant, reply).await,
            Command::PutDefinition { put, reply } => {
                let result = self.put_definition(*put).await;
                self.answer(reply, result);
            }
        }
    }

    pub(super) async fn known_record(&self, id: InvocationId) -> Result<Invocation, VerbError> {
        self.record_in_memory(id).await?.ok_or_else(|| {
            VerbError::new(
                Consequence::NotFound,
                "unknown_invocation",
                format!("there is no invocation {id}: it may have been removed after its retention time"),
            )
        })
    }

    pub(super) async fn record_in_memory(&self, id: InvocationId) -> Result<Option<Invocation>, VerbError> {
        match self.active.get(&id) {
            Some(activation) => Ok(Some(activation.record.clone())),
            None => self.record(id).await,
        }
    }

    async fn tenant_of(&self, id: InvocationId) -> Result<Option<String>, VerbError> {
        if let Some(record) = self.record_in_memory(id).await? {
            return Ok(Some(record.message.target.tenant));
        }
        Ok(self.delayed(id).await?.map(|(_, _, message)| message.target.tenant))
    }

    pub(super) async fn open_record(&self, id: InvocationId) -> Result<Invocation, VerbError> {
        let record = self.known_record(id).await?;
        if record.status.ended() {
            return Err(VerbError::new(Consequence::Conflict, "ended", format!("{id} has ended already")));
        }
        Ok(record)
    }

    async fn result(&mut self, id: InvocationId, wait: bool, reply: Reply<Answer>) {
        if !wait && self.active.get(&id).is_some_and(|activation| activation.pending.is_some()) {
            // Whoever hears that it goes on may rely on it: its acceptance is written before the answer.
            self.advance(id).await;
        }
        let answer = match self.known_record(id).await {
            Err(error) => match self.delayed(id).await {
                Ok(Some(_)) if wait => {
                    self.wait_for(id, reply);
                    return;
                }
                Ok(Some(_)) => Ok(Answer { joined: false, id: Some(id), progress: Progress::Open }),
                Ok(None) => Err(error),
                Err(error) => Err(error),
            },
            Ok(record) => match self.follow_restarts(record).await {
                Ok(last) if last.status.ended() => {
                    self.outcome(&last).await.map(|outcome| Answer { joined: false, id: Some(id), progress: Progress::Ended(outcome) })
                }
                Ok(last) if wait => {
                    self.wait_for(last.message.id, reply);
                    return;
                }
                Ok(_) => Ok(Answer { joined: false, id: Some(id), progress: Progress::Open }),
                Err(error) => Err(error),
            },
        };
        self.answer(reply, answer);
    }

    async fn cancel(&mut self, id: InvocationId, reason: String) {
        if let Some(activation) = self.active.get_mut(&id)
            && let Some(pending) = activation.pending.take()
        {
            // Its acceptance has not been written: it is, and the cancel comes behind it.
            activation.pending = Some(pending);
            self.advance(id).await;
        }
        self.request_cancel(id, reason).await;
    }

    /// Ends what was cancelled, or whose deadline passed, before its turn came.
    pub(super) async fn end_doomed(&mut self, id: InvocationId) {
        match self.record(id).await {
            Ok(Some(record)) if !record.status.ended() => {
                let error = super::ending::cancel_error(record.cancel.as_deref(), None);
                self.end_unstarted(record, Status::Cancelled, error).await;
            }
            Ok(_) => {}
            Err(error) => self.wiring.stop(error.message),
        }
    }

    pub(super) async fn kill(&mut self, id: InvocationId, reason: &str) -> Result<(), VerbError> {
        let record = self.open_record(id).await?;
        let error = WorkError::new("killed", reason);
        self.end_unstarted(record, Status::Killed, error).await;
        Ok(())
    }

    /// Ends an invocation without running its code.
    async fn end_unstarted(&mut self, record: Invocation, status: Status, error: WorkError) {
        let id = record.message.id;
        // One whose journal was not replayed to its end knows neither its last entry nor what it has begun.
        let unread = self.active.get(&id).is_some_and(|activation| activation.pending.is_none() && !activation.core.state.borrow().live);
        if unread
            && let Some(activation) = self.drop_from_memory(id)
            && let Some(ready) = activation.ready
        {
            self.kept_ready.insert(id, ready);
        }
        if !self.active.contains_key(&id) {
            let prepared = self.prepare_to_end(record).await;
            if let Err(error) = prepared {
                self.wiring.stop(error.message);
                return;
            }
        }
        self.end(id, Ended { status, outcome: Outcome::Error(error), dead_letter: false }).await;
    }

    async fn prepare_to_end(&mut self, record: Invocation) -> Result<(), VerbError> {
        let id = record.message.id;
        let seal_key: SealKey = match self.get(key::seal_key(id.0)).await? {
            Some(bytes) => wire::decode("seal key", &bytes)?,
            None => SealKey([0; 32]),
        };
        let input = self.payload(id.0, record.input_seal, &record.input).await?;
        let start = record.input_seal;
        let mut activation = self.prepare(record, input, seal_key, selvedge_kernel::replay::Replay::default());
        activation.durable = true;
        activation.begun_any = true;
        activation.future = None;
        activation.core.state.borrow_mut().live = false;
        activation.ready = self.kept_ready.remove(&id);
        activation.journal = Journal { output: None, ..Journal::start(id, seal_key, start) };
        activation.chunked = matches!(activation.record.input, Payload::Chunked { .. }) || self.begun_rows(id).await?.iter().any(Begun::keeps_chunks);
        let mut range = selvedge_kernel::ports::under(&key::of_id(Kind::Journal, id.0));
        loop {
            let rows = self.scan(range.clone(), 100).await?;
            for (_, value) in &rows {
                let entries: Vec<Entry> = wire::decode("journal entries", value)?;
                activation.chunked |= entries.iter().any(super::activate::leaves_rows);
                activation.journal.pass(&entries);
            }
            match rows.last() {
                Some((last, _)) if rows.len() == 100 => {
                    let mut next = last.to_vec();
                    next.push(0);
                    range.start = next.into();
                }
                _ => break,
            }
        }
        self.active.insert(id, Box::new(activation));
        Ok(())
    }

    /// Looks at a blocked invocation again.
    async fn retry(&mut self, id: InvocationId) -> Result<(), VerbError> {
        let record = self.open_record(id).await?;
        if record.status != Status::Blocked && record.retry_at.is_none() {
            return Err(VerbError::new(
                Consequence::Conflict,
                "not_blocked",
                format!("{id} is neither blocked nor waiting for its next attempt: there is nothing to retry"),
            ));
        }
        self.take_up(record, Writes::default()).await
    }

    /// Lets one that is blocked, or waits for its next attempt, run again, with rows that go into the same transition.
    pub(super) async fn take_up(&mut self, mut record: Invocation, mut writes: Writes) -> Result<(), VerbError> {
        let id = record.message.id;
        record.status = Status::Running;
        record.blocked = None;
        record.retry_at = None;
        record.crashes = (0, record.crashes.1);
        writes.put(key::invocation(id), record.encode());
        if !self.kept_ready.contains_key(&id) {
            let ready = self.put_ready(&mut writes, id);
            self.kept_ready.insert(id, ready);
        }
        self.write(writes, Vec::new());
        self.activate(id).await?;
        Ok(())
    }

    async fn why(&mut self, id: InvocationId) -> Result<Why, VerbError> {
        if self.record_in_memory(id).await?.is_none()
            && let Some((delayed, _, message)) = self.delayed(id).await?
        {
            return Ok(Why {
                id,
                actor: message.target,
                handler: message.handler,
                status: Status::Accepted,
                attempt: 0,
                accepted_at: delayed.at,
                last_error: None,
                waiting: vec![Waiting::Timer { until: delayed.timer.0 }],
                since: delayed.at,
                blocked: None,
                slow_polls: 0,
                caller: message.context,
                version: crate::registry::FIRST_VERSION,
                restarts: Restarts::default(),
                forks: Forks::default(),
                builds: Builds::default(),
            });
        }
        let record = self.known_record(id).await?;
        let waiting = if record.status.ended() { Vec::new() } else { self.waiting(id, &record).await? };
        let admission = self.wiring.settings.pressure.admission();
        let waiting = waiting.into_iter().map(|waiting| waiting.under(admission)).collect();
        let begun = self.begun_rows(id).await?.into_iter().map(|row| row.since);
        let running = self.tasks.iter().filter(|((owner, _), _)| *owner == id).map(|(_, task)| task.since);
        let since = begun.chain(running).max().unwrap_or(record.accepted_at);
        let last_error = record.end.as_ref().and_then(|end| end.error.clone()).or_else(|| record.last_error.clone());
        Ok(Why {
            id,
            actor: record.message.target.clone(),
            handler: record.message.handler.clone(),
            status: record.status,
            attempt: record.attempt,
            accepted_at: record.accepted_at,
            last_error,
            waiting,
            since,
            blocked: record.blocked.clone(),
            slow_polls: self.active.get(&id).map_or(0, |activation| activation.slow_polls),
            caller: record.message.context.clone(),
            version: record.version,
            restarts: record.restarts,
            forks: self.forks_of(id).await?,
            builds: Builds { recorded: record.build, here: self.wiring.build(&record.message.target.kind, &record.message.handler) },
        })
    }

    /// What an open invocation waits for: never empty.
    async fn waiting(&mut self, id: InvocationId, record: &Invocation) -> Result<Vec<Waiting>, VerbError> {
        if let Some(blocked) = &record.blocked {
            return Ok(vec![Waiting::Blocked { reason: blocked.to_string() }]);
        }
        if let Some(at) = record.retry_at {
            let last_error = record.last_error.as_ref().map(ToString::to_string).unwrap_or_default();
            let (name, attempt) = (record.message.handler.clone(), record.attempt);
            let retry = self.wiring.registry.retry_of(&record.message.target.kind, &name);
            let of = look_after(&retry).filter(|failed| attempt > *failed).map(|_| retry.max_attempts);
            return Ok(vec![Waiting::RetryAt { name, attempt, at, last_error, of }]);
        }
        self.load_actor(&record.message.target).await?;
        if let Some((order, first)) = self.actors.get(&record.message.target).and_then(|actor| actor.queue.front())
            && *order != record.order
        {
            return Ok(vec![Waiting::Behind { invocation: *first }]);
        }
        let mut waiting = Vec::new();
        if let Some(activation) = self.active.get(&id) {
            let state = activation.core.state.borrow();
            let mut numbers: Vec<u32> = state.ops.keys().copied().collect();
            numbers.sort_unstable();
            for number in numbers {
                let Some(op) = state.ops.get(&number).filter(|op| op.given.is_none() && op.polled) else { continue };
                if let Some(aside) = self.aside(id, number).filter(|_| !op.decided) {
                    waiting.push(aside);
                    continue;
                }
                waiting.push(match (&op.request, op.step, &op.row) {
                    _ if op.decided => Waiting::Commit,
                    (_, StepState::Allowed(attempt), _) => Waiting::Step { name: op.signature.name.clone(), attempt, since: op.since },
                    (Request::Join { child }, ..) => match state.children.get(child).and_then(|row| row.peer.clone()) {
                        Some((_, invocation)) => Waiting::Child { invocation },
                        None => Waiting::Commit,
                    },
                    (_, _, Some(row)) => of_row(row),
                    _ => match self.tasks.get(&(id, number)) {
                        Some(task) => Waiting::Step { name: op.signature.name.clone(), attempt: task.attempt, since: task.since },
                        None => Waiting::Commit,
                    },
                });
            }
            if waiting.is_empty() {
                let transition = self.tasks.get(&(id, u32::MAX));
                waiting.push(match transition {
                    Some(task) => {
                        let step = Waiting::Step { name: record.message.handler.clone(), attempt: task.attempt, since: task.since };
                        self.aside(id, u32::MAX).unwrap_or(step)
                    }
                    None if self.runnable.contains(&id) || self.wiring.settings.tasks == crate::wiring::Tasks::Leave => {
                        Waiting::Turn { position: self.runnable.len() as u64 }
                    }
                    None => Waiting::Commit,
                });
            }
            return Ok(waiting);
        }
        if self.kept_ready.contains_key(&id)
            && let Some(position) = self.in_line.iter().position(|(waits, _)| *waits == id)
        {
            return Ok(vec![Waiting::Turn { position: position as u64 }]);
        }
        for row in self.begun_rows(id).await? {
            if self.aside(id, row.signature.number).is_none() {
                waiting.push(of_row(&row));
            }
        }
        for ((_, number), task) in self.tasks.iter().filter(|((owner, _), _)| *owner == id) {
            let step = || Waiting::Step { name: format!("operation {number}"), attempt: task.attempt, since: task.since };
            waiting.push(self.aside(id, *number).unwrap_or_else(step));
        }
        if waiting.is_empty() {
            waiting.push(Waiting::Turn { position: self.runnable.len() as u64 });
        }
        Ok(waiting)
    }

    /// Appends a chunk of output in a transition. It stays while its invocation is open, however long that is: the timer
    /// that its end sets takes it away.
    pub(super) fn append_output(&mut self, id: InvocationId, data: Bytes, writes: &mut Writes, at: Millis) {
        let n = self.next_number();
        writes.put(key::output(id, n), wire::encode(&OutputChunk { at, data }));
    }

    async fn output(&self, id: InvocationId, from: u64) -> Result<Vec<(u64, Bytes)>, VerbError> {
        let prefix = key::of_id(Kind::Output, id.0);
        let mut range = selvedge_kernel::ports::under(&prefix);
        range.start = key::output(id, from);
        let mut chunks = Vec::new();
        let mut bytes = 0;
        while chunks.len() < limit::STREAM_CHUNKS && bytes < limit::STREAM_BYTES {
            let rows = self.scan(range.clone(), 8).await?;
            let Some((last, _)) = rows.last() else { break };
            let mut next = last.to_vec();
            next.push(0);
            range.start = next.into();
            for (row, value) in rows {
                let chunk = wire::decode::<OutputChunk>("output chunk", &value)?;
                if bytes > 0 && bytes + chunk.data.len() > limit::STREAM_BYTES {
                    return Ok(chunks);
                }
                bytes += chunk.data.len();
                if let Some(n) = key::last_u64(&row) {
                    chunks.push((n, chunk.data));
                }
                if chunks.len() == limit::STREAM_CHUNKS {
                    break;
                }
            }
        }
        Ok(chunks)
    }

    /// The entries of a journal, folded or not.
    pub(crate) async fn all_entries(&self, id: InvocationId) -> Result<Vec<Entry>, VerbError> {
        let mut entries = Vec::new();
        for (_, value) in self.scan_all(&key::of_id(Kind::Journal, id.0)).await? {
            entries.extend(wire::decode::<Vec<Entry>>("journal entries", &value)?);
        }
        if entries.is_empty() {
            for (_, value) in self.scan_all(&key::of_id(Kind::FoldedJournal, id.0)).await? {
                for (_, value) in unfold(&value) {
                    entries.extend(wire::decode::<Vec<Entry>>("journal entries", &value)?);
                }
            }
        }
        Ok(entries)
    }
}

fn of_row(row: &Begun) -> Waiting {
    let name = row.signature.name.clone();
    match (row.signature.kind, row.timer, &row.peer) {
        (OpKind::Sleep, Some((until, _)), _) => Waiting::Timer { until },
        (OpKind::Signal, timer, _) => Waiting::Signal { name, until: timer.map(|timer| timer.0) },
        (OpKind::Call | OpKind::Spawn | OpKind::Start, _, Some((target, invocation))) => {
            let handler = row.signature.target.rsplit('.').next().unwrap_or_default().to_owned();
            Waiting::Call { target: target.clone(), handler, invocation: *invocation }
        }
        (_, Some((at, _)), _) => {
            Waiting::RetryAt { name, attempt: row.attempts + 1, at, last_error: row.last_error.as_ref().map(ToString::to_string).unwrap_or_default(), of: None }
        }
        _ => Waiting::Step { name, attempt: row.attempts + 1, since: row.since },
    }
}
