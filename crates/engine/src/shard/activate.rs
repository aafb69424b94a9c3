//! Invocations in memory: how they come in, and how they leave.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use selvedge_kernel::error::AttemptError;
use selvedge_kernel::id::{ActorId, InvocationId};
use selvedge_kernel::journal::{Entry, OpKind, Payload, SealKey};
use selvedge_kernel::ports::under;
use selvedge_kernel::record::hand::{StandIns, seen};
use selvedge_kernel::record::invocation::{Begun, Blocked, Invocation, Status};
use selvedge_kernel::record::kind::Kind;
use selvedge_kernel::record::shard::Ready;
use selvedge_kernel::record::{Writes, key};
use selvedge_kernel::replay::Replay;
use selvedge_kernel::time::Millis;
use selvedge_kernel::transition::Journal;
use selvedge_kernel::wire;

use super::timers::Alarm;
use super::{Shard, VerbError};
use crate::core::{Core, Given};
use crate::ctx::Ctx;
use crate::happened::Became;
use crate::registry::{Ended, Handler, LocalFuture};

/// Rows of a journal read at once.
const PAGE: usize = 512;

/// A result that is durable and not yet given to the handler.
pub(crate) enum Delivery {
    Given { number: u32, given: Given, at: Millis },
    Cancel { reason: String, at: Millis },
}

/// Something from outside that becomes a result once the handler is live.
pub(crate) enum Outside {
    /// A timer of an operation has fired; its row is deleted with the decision.
    Due { number: u32, timer: (Millis, u64) },
    /// The answer to a call, or of a child, lies in the row of the operation.
    Replied { number: u32 },
    /// An activity or a blocking step has ended.
    TaskDone { number: u32, attempt: u32, result: Result<Bytes, AttemptError>, told: Option<crate::work::Told> },
    /// An attempt of a step is given up.
    TimedOut { number: u32, attempt: u32 },
    /// A signal was kept for it, or for its actor.
    Signal { name: String },
    /// Somebody asks it to end.
    Cancel { reason: String },
}

/// Unclean ends of the process in a row after which an invocation is parked.
pub(super) const CRASHES: u32 = 10;

/// One invocation in memory.
pub(crate) struct Activation {
    pub record: Invocation,
    pub input: Bytes,
    pub journal: Journal,
    pub core: Rc<Core>,
    pub future: Option<LocalFuture<'static, Ended>>,
    /// Its end, waiting for what was called before it.
    pub handler: Runs,
    /// The rows of its acceptance, not written yet.
    pub pending: Option<Writes>,
    /// Whether its acceptance is durable.
    pub durable: bool,
    /// Which activation of this process it is.
    pub life: u64,
    pub ready: Option<u64>,
    pub deliveries: VecDeque<Delivery>,
    /// Its handler was polled until it waited, and nothing has been given to it since.
    pub resting: bool,
    pub outside: VecDeque<Outside>,
    /// Results decided and not delivered.
    pub ahead: usize,
    pub undecided: VecDeque<(u32, Given, Writes)>,
    /// Who reported the end of what is among these.
    pub told: Vec<(u32, crate::work::Told)>,
    /// Rows of the journal not loaded yet start here.
    pub next_row: Option<selvedge_kernel::id::Key>,
    pub begun_any: bool,
    pub idle_since: Millis,
    pub cancel_sent: bool,
    pub slow_polls: u32,
    pub suspend_planned: bool,
    /// Whether it was brought back when its shard was opened, and has not rested since.
    pub recovered: bool,
    /// Whether it is to be counted that it runs again after an unclean end, once its program has a place for it.
    pub uncounted: bool,
    /// What a transition handler has answered.
    pub answer: Option<Ended>,
    /// A cancel is decided and not delivered: nothing else is decided until it is.
    pub cancelling: bool,
    /// Whether it owns chunks of payloads or of output.
    pub chunked: bool,
    /// What stands in the place of entries of its journal, by hand.
    pub stand_ins: StandIns,
    /// What goes into the transition of its end.
    pub closing: Option<(Writes, Vec<super::Effect>)>,
}

/// Whether rows of this entry are left that only a timer takes away after retention.
pub(super) fn leaves_rows(entry: &Entry) -> bool {
    matches!(entry.payload, Payload::Chunked { .. }) || matches!(entry.header.signature.kind, OpKind::Emit | OpKind::Resolved | OpKind::Forked)
}

/// How an activation runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Runs {
    /// Its handler is replayed.
    Replayed,
    /// Its handler is a transition.
    Transition,
}

impl Activation {
    pub(crate) fn id(&self) -> InvocationId {
        self.record.message.id
    }

    /// Whether a native step of it runs.
    pub(crate) fn runs_step(&self) -> bool {
        self.core.state.borrow().ops.values().any(|op| matches!(op.step, crate::core::StepState::Allowed(_)))
    }

    /// Whether it can leave memory: it waits, and nothing of it is on its way. A transition handler never does: what it
    /// waits for is the one answer that it is.
    pub(crate) fn rests(&self) -> bool {
        self.handler == Runs::Replayed
            && self.durable
            && self.deliveries.is_empty()
            && self.outside.is_empty()
            && self.ahead == 0
            && self.undecided.is_empty()
            && !self.runs_step()
    }
}

impl Shard {
    /// Brings an actor's queue into memory.
    pub(crate) async fn load_actor(&mut self, actor: &ActorId) -> Result<(), VerbError> {
        if !self.actors.contains_key(actor) {
            let rows = self.scan_all(&key::of_actor(Kind::Inbox, actor)).await?;
            let mut queue = VecDeque::with_capacity(rows.len());
            for (row, value) in rows {
                if let Some(order) = key::last_u64(&row) {
                    queue.push_back((order, wire::decode("inbox row", &value)?));
                }
            }
            self.actors.insert(actor.clone(), super::Actor { queue, ..super::Actor::default() });
        }
        self.touch(actor);
        Ok(())
    }

    fn touch(&mut self, actor: &ActorId) {
        self.touches += 1;
        if let Some(found) = self.actors.get_mut(actor) {
            self.lru.remove(&found.touched);
            found.touched = self.touches;
            self.lru.insert(self.touches, actor.clone());
        }
    }

    /// Forgets the actors that were used longest ago and have nothing in memory.
    pub(super) fn evict(&mut self) {
        let bound = (usize::try_from(self.wiring.settings.limits.resident_actors).unwrap_or(usize::MAX) / usize::from(self.wiring.shards)).max(8);
        let mut looked = 0;
        while self.actors.len() > bound && looked < 64 {
            looked += 1;
            let Some((&touched, actor)) = self.lru.first_key_value() else { return };
            let actor = actor.clone();
            let held = self.actors.get(&actor).and_then(|found| found.queue.front()).is_some_and(|(_, id)| self.active.contains_key(id));
            self.lru.remove(&touched);
            if held {
                self.touch(&actor);
            } else {
                self.actors.remove(&actor);
            }
        }
    }

    /// Reads the record of an invocation.
    pub(crate) async fn record(&self, id: InvocationId) -> Result<Option<Invocation>, VerbError> {
        match self.get(key::invocation(id)).await? {
            Some(bytes) => Ok(Some(Invocation::decode(&bytes)?)),
            None => Ok(None),
        }
    }

    /// The rows of operations that an invocation has begun.
    pub(crate) async fn begun_rows(&self, id: InvocationId) -> Result<Vec<Begun>, VerbError> {
        let rows = self.scan_all(&key::of_id(Kind::Begun, id.0)).await?;
        rows.iter().map(|(_, value)| wire::decode("begun operation", value).map_err(VerbError::from)).collect()
    }

    /// Brings an open invocation into memory, to be replayed. Gives false if there is nothing to bring in.
    pub(crate) async fn activate(&mut self, id: InvocationId) -> Result<bool, VerbError> {
        if self.active.contains_key(&id) {
            return Ok(true);
        }
        let Some(record) = self.record(id).await? else { return Ok(false) };
        if record.status.ended() || record.status == Status::Blocked || record.retry_at.is_some() {
            return Ok(false);
        }
        let seal_key: SealKey = match self.get(key::seal_key(id.0)).await? {
            Some(bytes) => wire::decode("seal key", &bytes)?,
            None => {
                return Err(VerbError::new(
                    selvedge_kernel::error::Consequence::Stop,
                    "store_damaged",
                    format!("the seal key of {id} is missing: run `selvedge verify`"),
                ));
            }
        };
        let begun = self.begun_rows(id).await?;
        if record.cancel.is_some() && record.attempt == 1 && begun.is_empty() && self.scan(under(&key::of_id(Kind::Journal, id.0)), 1).await?.is_empty() {
            // Nothing of it has happened: it is never started.
            self.doomed.push_back(id);
            return Ok(false);
        }
        let input = self.payload(id.0, record.input_seal, &record.input).await?;
        self.load_actor(&record.message.target.clone()).await?;
        let begun_any = !begun.is_empty();
        let begun_chunks = begun.iter().any(Begun::keeps_chunks);
        let mut activation = self.prepare(record, input, seal_key, Replay::new(begun));
        // What it is replayed from may be on its way to the disk: nothing new is let out before it is there.
        activation.durable = false;
        activation.begun_any = begun_any;
        activation.journal.output = None;
        activation.chunked = matches!(activation.record.input, Payload::Chunked { .. }) || begun_chunks;
        activation.next_row = Some(key::of_id(Kind::Journal, id.0));
        activation.core.state.borrow_mut().replay.more = true;
        activation.core.state.borrow_mut().live = false;
        activation.ready = self.kept_ready.remove(&id);
        self.joining.remove(&id);
        activation.outside.extend(self.late.remove(&id).unwrap_or_default());
        activation.stand_ins = self.stand_ins(id).await?;
        self.load_journal(&mut activation).await?;
        self.note_build(&mut activation);
        let life = activation.life;
        self.active.insert(id, Box::new(activation));
        self.after_all(super::Effect::Accepted(id, life));
        self.enqueue_start(id);
        Ok(true)
    }

    /// One that another build accepted and that has done nothing yet is recorded by this one.
    fn note_build(&mut self, activation: &mut Activation) {
        let message = &activation.record.message;
        let build = self.wiring.build(&message.target.kind, &message.handler);
        let fresh = activation.journal.next == 0 && !activation.begun_any;
        if build.is_none() || build == activation.record.build || !fresh || self.wiring.settings.tasks == crate::wiring::Tasks::Leave {
            return;
        }
        activation.record.build = build;
        let mut writes = Writes::default();
        writes.put(key::invocation(activation.id()), activation.record.encode());
        self.write(writes, Vec::new());
    }

    /// Loads the next entries of a journal that is being replayed.
    pub(crate) async fn load_journal(&self, activation: &mut Activation) -> Result<(), VerbError> {
        let prefix = key::of_id(Kind::Journal, activation.id().0);
        while activation.core.state.borrow().replay.starved() {
            let Some(from) = activation.next_row.take() else {
                activation.core.state.borrow_mut().replay.more = false;
                break;
            };
            let mut range = under(&prefix);
            range.start = from;
            let rows = self.scan(range, PAGE).await?;
            let full = rows.len() == PAGE;
            if let Some((last, _)) = rows.last() {
                let mut next = last.to_vec();
                next.push(0);
                activation.next_row = full.then(|| next.into());
            }
            let mut state = activation.core.state.borrow_mut();
            state.replay.more = full;
            for (_, value) in rows {
                let entries: Vec<Entry> = wire::decode("journal entries", &value)?;
                activation.journal.pass(&entries);
                activation.chunked |= entries.iter().any(leaves_rows);
                state.replay.load(seen(entries, &activation.stand_ins)?);
            }
        }
        Ok(())
    }

    /// Makes the memory of an invocation; its handler is not polled yet.
    pub(crate) fn prepare(&mut self, record: Invocation, input: Bytes, seal_key: SealKey, replay: Replay) -> Activation {
        let id = record.message.id;
        let actor = record.message.target.clone();
        let context = record.message.context.clone();
        let journal = Journal::start(id, seal_key, record.input_seal);
        let mailbox = self.wiring.mailbox(self.id).clone();
        let core = Core::new(id, actor.clone(), context, seal_key, record.accepted_at, replay, &self.wiring.settings.limits, mailbox, self.wiring.env.clone());
        let handler = self.wiring.registry.pinned(&actor.kind, &record.message.handler, record.version);
        let (future, kind) = match handler {
            Ok(Handler::Exclusive(run)) => (Some(run(Ctx::new(core.clone()), input.clone())), Runs::Replayed),
            Ok(Handler::Transition(_)) => (None, Runs::Transition),
            Ok(Handler::Shared(_)) | Err(_) => (None, Runs::Replayed),
        };
        let idle_since = self.now();
        self.lives += 1;
        Activation {
            record,
            input,
            journal,
            core,
            future,
            handler: kind,
            pending: None,
            durable: false,
            life: self.lives,
            ready: None,
            deliveries: VecDeque::new(),
            resting: false,
            outside: VecDeque::new(),
            ahead: 0,
            undecided: VecDeque::new(),
            told: Vec::new(),
            next_row: None,
            begun_any: false,
            idle_since,
            cancel_sent: false,
            slow_polls: 0,
            suspend_planned: false,
            recovered: false,
            uncounted: false,
            answer: None,
            cancelling: false,
            chunked: false,
            stand_ins: StandIns::new(),
            closing: None,
        }
    }

    /// Activates what was running when the last owner ended, its attempt written first if that end was unclean.
    pub(super) async fn recover_ready(&mut self) -> Result<(), VerbError> {
        let mut range = under(&key::all(Kind::Ready));
        range.start = key::ready(self.head.ready_from);
        let mut found = Vec::new();
        loop {
            let rows = self.scan(range.clone(), 500).await?;
            let full = rows.len() == 500;
            for (row, value) in &rows {
                let Some([number]) = key::numbers::<1>(row) else { continue };
                // All are known before one is given up: the mark never passes a row that was not looked at.
                self.live_ready.insert(number);
                found.push((wire::decode::<Ready>("ready row", value)?, number));
            }
            match rows.last() {
                Some((last, _)) if full => {
                    let mut next = last.to_vec();
                    next.push(0);
                    range.start = next.into();
                }
                _ => break,
            }
        }
        if self.was_clean && !found.is_empty() {
            // From here on an end is unclean until it is written that it was not.
            self.write(Writes::default(), Vec::new());
        }
        for (what, number) in found {
            match what {
                Ready::Invocation(id) => {
                    // Whatever brings it back before its turn takes its row with it.
                    self.kept_ready.insert(id, number);
                    self.in_line.push_back((id, number));
                }
                Ready::Run(id) => self.line_up_run(id, number),
            }
        }
        self.recover_in_line().await
    }

    /// Whether one of those that wait in line since the opening can come in.
    pub(super) fn line_moves(&self) -> bool {
        !self.in_line.is_empty() && self.recovering.len() < self.wiring.settings.recovered_at_once.max(1)
    }

    /// Brings in those that wait in line since the opening, as the ones before them rest or end.
    pub(super) async fn recover_in_line(&mut self) -> Result<(), VerbError> {
        while self.line_moves()
            && let Some((id, number)) = self.in_line.pop_front()
        {
            if self.kept_ready.get(&id) == Some(&number) {
                self.kept_ready.remove(&id);
                self.recover_one(id, number).await?;
            } else if self.live_ready.contains(&number) && self.active.get(&id).is_none_or(|activation| activation.ready != Some(number)) {
                // It has another row.
                let mut writes = Writes::default();
                self.delete_ready(&mut writes, number);
                self.write(writes, Vec::new());
            }
        }
        Ok(())
    }

    async fn recover_one(&mut self, id: InvocationId, number: u64) -> Result<(), VerbError> {
        if self.still_lacks_code(id).await? {
            self.kept_ready.insert(id, number);
            return Ok(());
        }
        if self.active.contains_key(&id) || !self.activate(id).await? {
            if self.doomed.contains(&id) {
                self.kept_ready.insert(id, number);
                return Ok(());
            }
            let mut writes = Writes::default();
            self.delete_ready(&mut writes, number);
            self.write(writes, Vec::new());
            return Ok(());
        }
        let clean = self.was_clean;
        let Some(activation) = self.active.get_mut(&id) else { return Ok(()) };
        activation.ready = Some(number);
        activation.recovered = true;
        self.recovering.insert(id);
        if clean {
            return Ok(());
        }
        if activation.handler == Runs::Transition {
            // What runs is its program, and that is not there yet.
            activation.uncounted = true;
            return Ok(());
        }
        self.lives += 1;
        activation.life = self.lives;
        let life = activation.life;
        activation.record.status = Status::Running;
        activation.record.crashes.0 += 1;
        let blocked = activation.record.crashes.0 >= CRASHES;
        let mut writes = Writes::default();
        writes.put(key::invocation(id), activation.record.encode());
        // The attempt is durable before anything of it runs.
        self.write(writes, vec![super::Effect::Accepted(id, life)]);
        if blocked {
            self.block(id, Blocked::Crashes);
        }
        Ok(())
    }

    /// Whether an invocation is blocked for want of code that this binary does not have either. If it has it by now, it
    /// goes on.
    async fn still_lacks_code(&mut self, id: InvocationId) -> Result<bool, VerbError> {
        let Some(mut record) = self.record(id).await?.filter(|record| record.blocked.as_ref().is_some_and(Blocked::lacks_code)) else { return Ok(false) };
        let message = &record.message;
        if self.wiring.settings.tasks == crate::wiring::Tasks::Leave
            || self.wiring.registry.pinned(&message.target.kind, &message.handler, record.version).is_err()
        {
            return Ok(true);
        }
        record.status = Status::Running;
        record.blocked = None;
        let mut writes = Writes::default();
        writes.put(key::invocation(id), record.encode());
        self.write(writes, Vec::new());
        Ok(false)
    }

    /// Drops an invocation from memory; its rows bring it back.
    pub(crate) fn drop_from_memory(&mut self, id: InvocationId) -> Option<Box<Activation>> {
        let mut activation = self.active.remove(&id)?;
        self.recovering.remove(&id);
        activation.core.ended.set(true);
        activation.core.waker.gone.store(true, std::sync::atomic::Ordering::SeqCst);
        // The time of what goes on elsewhere is still watched.
        let alarms: Vec<_> = {
            let mut state = activation.core.state.borrow_mut();
            let here = state.ops.iter_mut().filter(|(number, _)| !self.tasks.contains_key(&(id, **number)));
            here.filter_map(|(_, op)| op.alarm.take()).collect()
        };
        for alarm in alarms {
            self.clear_alarm(Some(alarm));
        }
        // What a handler owns may panic when it goes.
        let future = activation.future.take();
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(future))).is_err() {
            self.wiring.dropped_badly(id);
        }
        Some(activation)
    }

    /// Parks an invocation until somebody looks at it.
    pub(crate) fn block(&mut self, id: InvocationId, reason: Blocked) {
        let Some(mut activation) = self.drop_from_memory(id) else { return };
        // What runs for it is given up; it runs again, under the same key, once somebody has looked.
        self.drop_tasks(id);
        activation.record.status = Status::Blocked;
        // What lacks code is looked at again when a binary starts: its row stays.
        let again = reason.lacks_code();
        let mut told = Vec::new();
        let became = Became::Blocked { reason: word(&reason) };
        self.tell_of(&mut told, became, false, |became| super::ending::of_invocation(&activation.record.message, became));
        activation.record.blocked = Some(reason);
        let mut writes = activation.pending.take().unwrap_or_default();
        let newly_accepted = !writes.puts.is_empty();
        writes.put(key::invocation(id), activation.record.encode());
        match activation.ready {
            ready if again => {
                let ready = ready.unwrap_or_else(|| self.put_ready(&mut writes, id));
                self.kept_ready.insert(id, ready);
            }
            Some(ready) => self.delete_ready(&mut writes, ready),
            None => {}
        }
        if newly_accepted {
            let keep = self.wiring.settings.keep;
            let last = (activation.journal.chain, activation.journal.next);
            selvedge_kernel::transition::write_ledger(
                &mut self.head,
                &mut writes,
                id.0,
                false,
                selvedge_kernel::record::shard::LedgerState::Accepted,
                last,
                &keep,
            );
        }
        self.write(writes, told);
    }

    /// Sets the wake-up after which a waiting handler leaves memory.
    pub(crate) fn plan_suspend(&mut self, id: InvocationId) {
        if self.wiring.settings.tasks == crate::wiring::Tasks::Leave {
            // Whoever only looks leaves every row where it is.
            return;
        }
        let Some(activation) = self.active.get_mut(&id) else { return };
        if activation.suspend_planned {
            return;
        }
        activation.suspend_planned = true;
        let after = self.wiring.settings.suspend_after.unwrap_or_else(|| {
            self.wiring
                .registry
                .actors
                .get(&activation.record.message.target.kind)
                .map_or_else(|| crate::registry::ActorOptions::default().suspend_after, |actor| actor.options.suspend_after)
        });
        let now = self.head.time;
        activation.idle_since = now;
        self.set_alarm(now.after(after), Alarm::Suspend { invocation: id });
    }

    pub(super) fn enqueue_suspend(&mut self, id: InvocationId) {
        let now = self.now();
        let queued = self.runnable.contains(&id);
        let Some(activation) = self.active.get_mut(&id) else { return };
        activation.suspend_planned = false;
        let Some(activation) = self.active.get(&id) else { return };
        if !activation.rests() || queued {
            return;
        }
        let kind = activation.record.message.target.kind.clone();
        let idle_since = activation.idle_since;
        let after = self.wiring.settings.suspend_after.unwrap_or_else(|| self.options(&kind).suspend_after);
        if now.since(idle_since) < after {
            let at = idle_since.after(after);
            if let Some(activation) = self.active.get_mut(&id) {
                activation.suspend_planned = true;
            }
            self.set_alarm(at, Alarm::Suspend { invocation: id });
            return;
        }
        self.suspend(id);
    }

    /// Takes an invocation that rests out of memory: what it waits for brings it back.
    pub(super) fn suspend(&mut self, id: InvocationId) {
        let in_process = self.tasks.keys().any(|(owner, _)| *owner == id);
        let Some(activation) = self.active.get(&id) else { return };
        let (waits, children) = super::rings::awaited(activation);
        let in_ring = waits && self.has_queue(&activation.record.message.target);
        let Some(activation) = self.drop_from_memory(id) else { return };
        if !children.is_empty() {
            self.joining.insert(id, children);
        }
        // What only this process knows of must be found again by the next one, and so must who may wait for itself.
        if let Some(ready) = activation.ready
            && !in_process
            && !in_ring
        {
            let mut writes = Writes::default();
            self.delete_ready(&mut writes, ready);
            self.write(writes, Vec::new());
        } else if let Some(ready) = activation.ready {
            self.kept_ready.insert(id, ready);
        }
    }

    /// Writes a ready row: a reopened shard activates this invocation.
    pub(crate) fn put_ready(&mut self, writes: &mut Writes, id: InvocationId) -> u64 {
        self.put_ready_row(writes, Ready::Invocation(id))
    }

    pub(crate) fn put_ready_row(&mut self, writes: &mut Writes, ready: Ready) -> u64 {
        let number = self.next_number();
        writes.put(key::ready(number), wire::encode(&ready));
        self.live_ready.insert(number);
        self.head.ready_from = self.live_ready.first().copied().unwrap_or(number);
        number
    }

    /// Removes a ready row.
    pub(crate) fn delete_ready(&mut self, writes: &mut Writes, number: u64) {
        writes.delete(key::ready(number));
        self.live_ready.remove(&number);
        self.head.ready_from = self.live_ready.first().copied().unwrap_or(self.head.next);
    }

    /// The context of a shared handler.
    pub(crate) fn view(&self, actor: &ActorId, context: &selvedge_kernel::auth::AuthorizationContext) -> crate::view::View {
        crate::view::View { actor: Rc::new(actor.clone()), context: Rc::new(context.clone()), state: Rc::new(RefCell::new(crate::view::ViewState::default())) }
    }

    /// Polls a future once with a waker that does nothing.
    pub(crate) fn poll_plain<T>(future: &mut LocalFuture<'static, T>) -> Poll<T> {
        future.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()))
    }
}

/// Why something is blocked, in a word that stays the same.
fn word(reason: &Blocked) -> &'static str {
    match reason {
        Blocked::Mismatch { .. } => "mismatch",
        Blocked::Missing { .. } => "missing",
        Blocked::ForeignWait => "foreign_wait",
        Blocked::Crashes => "crashes",
        Blocked::Damaged { .. } => "damaged",
        Blocked::Version { .. } => "version",
    }
}
