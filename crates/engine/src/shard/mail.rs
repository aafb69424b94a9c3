//! Messages between shards: an outbox at the sender, marks at the receiver. Once into the inbox, in the order sent.

use bytes::Bytes;
use std::collections::BTreeMap;

use selvedge_kernel::id::{InvocationId, RawId, ShardId};
use selvedge_kernel::journal::{Hash32, SealKey, seal};
use selvedge_kernel::limit;
use selvedge_kernel::ports::under;
use selvedge_kernel::record::invocation::Begun;
use selvedge_kernel::record::kind::Kind;
use selvedge_kernel::record::message::{Awaited, Envelope, KeptReply, Message, OutboxRow, Outcome, Peer, Starting};
use selvedge_kernel::record::{Writes, key};
use selvedge_kernel::time::Millis;
use selvedge_kernel::transition::place;
use selvedge_kernel::wire;

use super::activate::Outside;
use super::{Effect, Shard, VerbError};
use crate::wiring::Tasks;
use crate::worker::Event;

/// What is on its way to one other shard.
#[derive(Default)]
pub(crate) struct Pair {
    /// The number of the last envelope; 0 if none is known.
    last: u64,
    /// Envelopes not acknowledged, and the chunks of large ones.
    open: BTreeMap<u64, Chunked>,
    known: bool,
    /// The number of the last envelope that was let out.
    sent: u64,
    /// The number of the last one that was kept back behind others: it goes out of the store when they are acknowledged.
    held: u64,
}

/// How many envelopes of a pair are read out of the store at once, and let out before the first is acknowledged.
const WINDOW: u64 = 256;

/// Whose chunks hold an envelope, under which seal, and how long it is; none if its row holds it.
pub(crate) type Chunked = Option<(RawId, Hash32, u64)>;

/// Rows of the outbox read at once.
const ROWS: usize = 256;

/// A message to an actor of the same shard goes into its inbox at once while a transition has fewer operations than this.
const DIRECT: usize = 8;

impl Pair {
    /// Takes note of an envelope that the last owner left; says whether it goes out at once.
    fn restore(&mut self, n: u64) -> bool {
        if self.open.is_empty() {
            self.sent = n.saturating_sub(1);
        }
        self.last = self.last.max(n);
        self.known = true;
        self.open.insert(n, None);
        if self.open.len() as u64 > WINDOW {
            self.held = n;
            return false;
        }
        true
    }

    /// Whether a durable envelope goes out now: what is kept back goes first, and what is out does not go again.
    pub(super) fn lets_out(&mut self, n: u64) -> bool {
        let next = n == self.sent + 1;
        if next {
            self.sent = n;
        } else if n > self.sent {
            self.held = self.held.max(n);
        }
        next
    }

    /// How many envelopes are let out and not acknowledged.
    pub(crate) fn out(&self) -> usize {
        let first = self.open.first_key_value().map_or(self.sent + 1, |first| *first.0);
        usize::try_from((self.sent + 1).saturating_sub(first)).unwrap_or(usize::MAX)
    }

    /// How many envelopes are not acknowledged.
    pub(crate) fn open(&self) -> usize {
        self.open.len()
    }
}

impl Shard {
    /// Sends a message in a transition: into the inbox if the actor lives here, else into the outbox.
    pub(crate) async fn post(&mut self, message: Message, writes: &mut Writes, effects: &mut Vec<Effect>) -> Result<(), VerbError> {
        let to = self.wiring.shard_of(&message.target);
        if self.goes_directly(to, writes) && message.input.len() <= limit::INLINE_BYTES {
            return self.accept_message(message, writes, effects).await;
        }
        let owner = message.id.0;
        self.send(to, owner, Envelope::Invoke(message), writes, effects).await
    }

    /// Whether what goes to an actor of a shard is written in the transition that sends it. Behind an envelope that is on its
    /// way to this very shard, it goes by envelope too: they arrive in order.
    fn goes_directly(&self, to: ShardId, writes: &Writes) -> bool {
        let behind = self.outbox.get(&to).is_some_and(|pair| !pair.open.is_empty());
        to == self.id && !behind && writes.puts.len() + writes.deletes.len() < DIRECT
    }

    /// Sends a delayed message in a transition. It waits where it goes, so that it is ordered there by its due time: here if
    /// the actor lives here and the transition has room for its rows, else behind an envelope.
    pub(super) async fn post_later(&mut self, at: Millis, message: Message, writes: &mut Writes, effects: &mut Vec<Effect>) -> Result<(), VerbError> {
        let to = self.wiring.shard_of(&message.target);
        if self.goes_directly(to, writes) {
            self.delay_message(writes, at, message);
            return Ok(());
        }
        let owner = message.id.0;
        self.send(to, owner, Envelope::Later { at, message }, writes, effects).await
    }

    /// Answers whoever waits.
    pub(crate) async fn reply(
        &mut self,
        to: Peer,
        from: InvocationId,
        outcome: Outcome,
        writes: &mut Writes,
        effects: &mut Vec<Effect>,
    ) -> Result<(), VerbError> {
        let small = match &outcome {
            Outcome::Value(value) => value.len() <= limit::INLINE_BYTES,
            Outcome::Error(_) => true,
        };
        if small
            && self.wiring.shard_of_peer(to) == self.id
            && let Peer::Operation { invocation, number } = to
        {
            return self.keep_reply(invocation, number, outcome, writes).await;
        }
        self.reply_by_envelope(to, from, outcome, writes, effects).await
    }

    /// Answers at once somebody who may be in the middle of asking: the answer comes back behind the question.
    pub(super) async fn reply_by_envelope(
        &mut self,
        to: Peer,
        from: InvocationId,
        outcome: Outcome,
        writes: &mut Writes,
        effects: &mut Vec<Effect>,
    ) -> Result<(), VerbError> {
        let shard = self.wiring.shard_of_peer(to);
        self.send(shard, from.0, Envelope::Reply { to, from, outcome }, writes, effects).await
    }

    /// Asks an invocation to end.
    pub(crate) async fn post_cancel(
        &mut self,
        invocation: InvocationId,
        reason: String,
        writes: &mut Writes,
        effects: &mut Vec<Effect>,
    ) -> Result<(), VerbError> {
        let to = self.wiring.shard_of_invocation(invocation);
        self.send(to, invocation.0, Envelope::Cancel { invocation, reason }, writes, effects).await
    }

    /// The number of the next envelope to a shard: dense per pair, so that what was sent before is known from the
    /// receiver's mark even when the outbox is empty.
    async fn next_envelope(&mut self, to: ShardId) -> Result<u64, VerbError> {
        if !self.outbox.get(&to).is_some_and(|pair| pair.known) {
            let sent = self.get(key::sent(to)).await?;
            let last = match sent {
                Some(bytes) => wire::decode("sent mark", &bytes)?,
                None => 0,
            };
            let pair = self.outbox.entry(to).or_default();
            pair.last = pair.last.max(last);
            pair.sent = pair.last;
            pair.known = true;
        }
        let pair = self.outbox.entry(to).or_default();
        pair.last += 1;
        Ok(pair.last)
    }

    pub(crate) async fn send(
        &mut self,
        to: ShardId,
        owner: RawId,
        envelope: Envelope,
        writes: &mut Writes,
        effects: &mut Vec<Effect>,
    ) -> Result<(), VerbError> {
        let n = self.next_envelope(to).await?;
        let encoded = wire::encode(&envelope);
        let mut chunked = None;
        let row = if encoded.len() <= limit::INLINE_BYTES {
            wire::encode(&OutboxRow::Whole(envelope.clone()))
        } else {
            let sealed = Hash32(*blake3_of(&encoded).as_bytes());
            self.write_chunks(owner, sealed, &encoded);
            chunked = Some((owner, sealed, encoded.len() as u64));
            wire::encode(&OutboxRow::Chunked { owner, seal: sealed, len: encoded.len() as u64 })
        };
        writes.put(key::outbox(to, n), row);
        if let Some(pair) = self.outbox.get_mut(&to) {
            pair.open.insert(n, chunked);
        }
        effects.push(Effect::Send { to, n, envelope: Box::new(envelope) });
        Ok(())
    }

    /// Goes on with what the last owner sent and nobody acknowledged: the first of each pair at once, the others out of
    /// the store as those are acknowledged.
    pub(super) async fn recover_outbox(&mut self) -> Result<(), VerbError> {
        let mut range = under(&key::all(Kind::Outbox));
        loop {
            let rows = self.scan(range.clone(), ROWS).await?;
            for (row, value) in &rows {
                let (Some(to), Some(n)) = (row.get(3..5), key::last_u64(row)) else { continue };
                let to = ShardId(u16::from_be_bytes([to[0], to[1]]));
                let goes = self.outbox.entry(to).or_default().restore(n);
                let chunked = match wire::decode("outbox row", value)? {
                    OutboxRow::Chunked { owner, seal, len } => Some((owner, seal, len)),
                    OutboxRow::Whole(_) => None,
                };
                if let Some(pair) = self.outbox.get_mut(&to) {
                    pair.open.insert(n, chunked);
                }
                if goes {
                    let (envelope, _) = self.envelope(value).await?;
                    self.effects.push_back(Effect::Send { to, n, envelope: Box::new(envelope) });
                }
            }
            match rows.last() {
                Some((last, _)) if rows.len() == ROWS => {
                    let mut next = last.to_vec();
                    next.push(0);
                    range.start = next.into();
                }
                _ => {
                    self.own_first = self.outbox.get(&self.id).map_or(0, |own| own.last);
                    return Ok(());
                }
            }
        }
    }

    /// Lets out what is kept back of a pair, as far as its window goes. What is not durable yet goes out with its commit.
    async fn send_held(&mut self, to: ShardId) -> Result<(), VerbError> {
        let Some(pair) = self.outbox.get(&to).filter(|pair| pair.held > pair.sent && pair.out() as u64 <= WINDOW / 2) else { return Ok(()) };
        let room = usize::try_from(WINDOW).unwrap_or(usize::MAX).saturating_sub(pair.out());
        let mut range = under(&key::outbox_to(to));
        range.start = key::outbox(to, pair.sent + 1);
        for (row, value) in self.wiring.store.scan(self.id, range, room).await? {
            let Some(n) = key::last_u64(&row) else { continue };
            let (envelope, _) = self.envelope(&value).await?;
            if !self.outbox.get_mut(&to).is_some_and(|pair| pair.lets_out(n)) {
                break;
            }
            self.wiring.send(to, Event::Envelope { from: self.id, to, n, envelope: Box::new(envelope) });
        }
        Ok(())
    }

    /// Reads an envelope of the outbox.
    pub(super) async fn envelope(&self, value: &Bytes) -> Result<(Envelope, Chunked), VerbError> {
        match wire::decode("outbox row", value)? {
            OutboxRow::Whole(envelope) => Ok((envelope, None)),
            OutboxRow::Chunked { owner, seal, len } => {
                let bytes = self.payload(owner, seal, &selvedge_kernel::journal::Payload::Chunked { len }).await?;
                Ok((wire::decode("envelope", &bytes)?, Some((owner, seal, len))))
            }
        }
    }

    /// The receiver has everything up to n.
    pub(crate) async fn acknowledged(&mut self, by: ShardId, n: u64) {
        let Some(pair) = self.outbox.get_mut(&by) else { return };
        let rest = pair.open.split_off(&(n + 1));
        let gone = std::mem::replace(&mut pair.open, rest);
        let Some(newest) = gone.last_key_value().map(|gone| *gone.0) else { return };
        let mut writes = Writes::default();
        // What was sent is known from its rows; once the last of them goes, from this mark.
        writes.put(key::sent(by), wire::encode(&newest));
        for (n, chunked) in gone {
            writes.delete(key::outbox(by, n));
            if let Some((owner, sealed, len)) = chunked {
                for piece in 0..len.div_ceil(limit::CHUNK_BYTES as u64) {
                    writes.delete(key::chunk(owner, sealed, u32::try_from(piece).unwrap_or(u32::MAX)));
                    if writes.deletes.len() > 60 {
                        self.write(std::mem::take(&mut writes), Vec::new());
                    }
                }
            }
            if writes.deletes.len() > 60 {
                self.write(std::mem::take(&mut writes), Vec::new());
            }
        }
        if writes != Writes::default() {
            self.write(writes, Vec::new());
        }
        if let Err(error) = self.send_held(by).await {
            self.wiring.stop(error.message);
        }
    }

    /// The receiver misses something after n: it is sent again.
    pub(crate) async fn send_again(&mut self, by: ShardId, n: u64) {
        let mut range = under(&key::outbox_to(by));
        range.start = key::outbox(by, n + 1);
        // What is not durable yet goes out with its commit, and not before.
        let Ok(rows) = self.wiring.store.scan(self.id, range, ROWS).await else { return };
        if rows.first().and_then(|(row, _)| key::last_u64(row)).is_some_and(|first| first > n + 1) {
            // Commits are durable in their order, so it was there before those that are: to ask for it again would never end.
            self.wiring.stop(format!(
                "envelope {} from shard {} to shard {} is missing in the outbox, and later ones are there: the store is damaged; run `selvedge verify`",
                n + 1,
                self.id.0,
                by.0
            ));
            return;
        }
        for (row, value) in rows {
            if let (Some(n), Ok((envelope, _))) = (key::last_u64(&row), self.envelope(&value).await) {
                if let Some(pair) = self.outbox.get_mut(&by) {
                    pair.lets_out(n);
                }
                self.wiring.send(by, Event::Envelope { from: self.id, to: by, n, envelope: Box::new(envelope) });
            }
        }
    }

    /// Takes an envelope. What a shard had sent to itself before it was opened comes first: an import puts there what was on
    /// its way from shards that are no more, and who sent it may send again.
    pub(crate) async fn take(&mut self, from: ShardId, n: u64, envelope: Envelope) {
        if self.wiring.settings.tasks == Tasks::Leave {
            // This program may not even have the handlers: it stays in its outbox for whoever does the work.
            return;
        }
        if from != self.id && self.owes_itself() {
            self.early.push_back((from, n, envelope));
            return;
        }
        self.take_next(from, n, envelope).await;
        while !self.owes_itself()
            && let Some((from, n, envelope)) = self.early.pop_front()
        {
            self.take_next(from, n, envelope).await;
        }
    }

    fn owes_itself(&self) -> bool {
        self.taken.get(&self.id).copied().unwrap_or(0) < self.own_first
    }

    /// Takes an envelope: its effect and the raised mark are one commit.
    async fn take_next(&mut self, from: ShardId, n: u64, envelope: Envelope) {
        let last = self.taken.get(&from).copied().unwrap_or(0);
        let answers_run = n == last + 1 && matches!(envelope, Envelope::Reply { to: Peer::Task { .. }, .. });
        if self.owes_marks() && !answers_run {
            // Marks are raised in order, and only then acknowledged.
            self.turn_runs().await;
        }
        if n <= last {
            self.after_all(Effect::Acknowledge { to: from, n: last });
            return;
        }
        if n > last + 1 {
            self.wiring.send(from, Event::Missing { by: self.id, from, n: last });
            return;
        }
        self.taken.insert(from, n);
        let mut writes = Writes::default();
        writes.put(key::taken(from), wire::encode(&n));
        let mut effects = vec![Effect::Acknowledge { to: from, n }];
        if let Err(error) = self.take_into(envelope, &mut writes, &mut effects).await {
            self.wiring.stop(error.message);
            return;
        }
        if writes != Writes::default() || !effects.is_empty() {
            self.write(writes, effects);
        }
    }

    async fn take_into(&mut self, envelope: Envelope, writes: &mut Writes, effects: &mut Vec<Effect>) -> Result<(), VerbError> {
        match envelope {
            Envelope::Invoke(message) => self.accept_message(message, writes, effects).await,
            Envelope::Later { at, message } => {
                match self.room_for_delayed(&message.target.tenant) {
                    Ok(()) => self.delay_message(writes, at, message),
                    Err(error) => self.keep_refused(message, selvedge_kernel::error::WorkError::new("refused", error.message), writes),
                }
                Ok(())
            }
            Envelope::Reply { to: Peer::Operation { invocation, number }, outcome, .. } => self.keep_reply(invocation, number, outcome, writes).await,
            Envelope::Reply { to: Peer::Task { run, stage, item, attempt }, from, outcome } => {
                self.keep_task_reply((run, stage, item, attempt), from, outcome, writes, effects).await
            }
            Envelope::StartRun { run, definition, input, context, reply_to } => {
                self.take_start(Starting { run, definition, input, context, awaited: Awaited::Acceptance(reply_to) }, None, writes, effects).await
            }
            Envelope::Cancel { invocation, reason } => self.keep_cancel(invocation, reason, writes).await,
            Envelope::Borrow { limit, from, life, throttle, report } => self.take_report(limit, (from, life), &throttle, report, writes, effects).await,
            Envelope::Unwant { limit, from, life, permits } => self.take_unwant(limit, (from, life), permits, writes, effects).await,
            Envelope::Grant { limit, life, throttle, permits } => {
                self.take_grant(&limit, life, &throttle, permits);
                Ok(())
            }
            Envelope::AskBreaker { limit, from, life, breaker, report } => {
                self.take_breaker_report(limit, (from, life), &breaker, report, writes, effects).await
            }
            Envelope::Pass { limit, life, breaker, word, permits } => {
                self.take_pass(&limit, life, &breaker, word, permits);
                Ok(())
            }
            Envelope::StartChild { run, definition, input, context, parent } => {
                self.take_start(Starting { run, definition, input, context, awaited: Awaited::End { parent, deadline: None } }, None, writes, effects).await
            }
            Envelope::StartChildUntil { run, definition, input, context, parent, deadline } => {
                let awaited = Awaited::End { parent, deadline: Some(deadline) };
                self.take_start(Starting { run, definition, input, context, awaited }, None, writes, effects).await
            }
            Envelope::Traced { trace, start } => self.take_start(*start, Some(trace), writes, effects).await,
            Envelope::EnterLine(entering) => self.enter_line(entering, &[], writes, effects).await,
            Envelope::EnterLineBelow { entering, above } => self.enter_line(entering, &above, writes, effects).await,
            Envelope::LeaveLine(leaving) => self.leave_line(leaving, writes, effects).await,
            Envelope::Line { run, says } => self.take_line(run, says).await,
            Envelope::CancelRun { run, reason } => self.keep_run_cancel(run, reason).await,
        }
    }

    /// Keeps an answer in the row of its operation, which brings its invocation back into memory. One that has ended wants no
    /// answer any more.
    async fn keep_reply(&mut self, id: InvocationId, number: u32, outcome: Outcome, writes: &mut Writes) -> Result<(), VerbError> {
        let Some(bytes) = self.get(key::begun(id, number)).await? else { return Ok(()) };
        let mut row: Begun = wire::decode("begun operation", &bytes)?;
        if row.reply.is_some() || self.has_ended(id).await? {
            return Ok(());
        }
        row.reply = Some(match outcome {
            Outcome::Error(error) => KeptReply::Error(error),
            Outcome::Value(value) => {
                let Some(bytes) = self.get(key::seal_key(id.0)).await? else { return Ok(()) };
                let seal_key: SealKey = wire::decode("seal key", &bytes)?;
                let sealed = seal(&seal_key, &value);
                self.write_chunks(id.0, sealed, &value);
                KeptReply::Value { payload: place(&value), seal: sealed }
            }
        });
        writes.put(key::begun(id, number), wire::encode(&row));
        self.wake_with(id, Outside::Replied { number }, writes).await?;
        if row.keeps_chunks()
            && let Some(activation) = self.active.get_mut(&id)
        {
            // Whether it is taken or not, they go with their owner.
            activation.chunked = true;
        }
        Ok(())
    }

    /// Whether an invocation has ended and only its leftovers are being removed, or is gone.
    async fn has_ended(&self, id: InvocationId) -> Result<bool, VerbError> {
        if self.active.contains_key(&id) {
            return Ok(false);
        }
        Ok(self.record(id).await?.is_none_or(|record| record.status.ended()))
    }

    /// Brings an invocation back into memory for something that has come for it, and makes sure that a crash before
    /// it was taken in brings it back too.
    pub(super) async fn wake_with(&mut self, id: InvocationId, outside: Outside, writes: &mut Writes) -> Result<(), VerbError> {
        if !self.activate(id).await? {
            return Ok(());
        }
        let first = matches!(outside, Outside::Cancel { .. } | Outside::Signal { .. });
        let missing = self.active.get(&id).is_some_and(|activation| activation.ready.is_none());
        let ready = if missing { Some(self.put_ready(writes, id)) } else { None };
        if let Some(activation) = self.active.get_mut(&id) {
            activation.ready = activation.ready.or(ready);
            activation.outside.push_back(outside);
        }
        if first {
            self.enqueue_first(id)
        } else {
            self.enqueue(id)
        }
        Ok(())
    }

    pub(super) async fn keep_cancel(&mut self, id: InvocationId, reason: String, writes: &mut Writes) -> Result<(), VerbError> {
        let known = match self.active.get(&id) {
            Some(activation) => Some(activation.record.clone()),
            None => self.record(id).await?,
        };
        let Some(mut record) = known else { return Ok(()) };
        if record.status.ended() || record.cancel.is_some() {
            return Ok(());
        }
        record.cancel = Some(reason.clone());
        if !self.holds_actor(&record).await? {
            // It waits for its turn, and is never started.
            writes.put(key::invocation(id), record.encode());
            self.doomed.push_back(id);
            return Ok(());
        }
        if record.retry_at.take().is_some() {
            // Its next attempt is the one that is told.
            let ready = self.put_ready(writes, id);
            self.kept_ready.insert(id, ready);
            self.revived.push_back(id);
        } else {
            self.wake_with(id, Outside::Cancel { reason: reason.clone() }, writes).await?;
            if let Some(activation) = self.active.get_mut(&id) {
                activation.record.cancel = Some(reason);
            }
        }
        writes.put(key::invocation(id), record.encode());
        Ok(())
    }

    /// A deadline has passed, or a client asks: a cancel, kept until it is delivered.
    pub(crate) async fn request_cancel(&mut self, id: InvocationId, reason: String) {
        self.cancel_into(id, reason, Writes::default()).await;
    }

    /// The same in a transition that has begun.
    pub(super) async fn cancel_into(&mut self, id: InvocationId, reason: String, mut writes: Writes) {
        match self.keep_cancel(id, reason, &mut writes).await {
            Ok(()) if writes != Writes::default() => self.write(writes, Vec::new()),
            Ok(()) => {}
            Err(error) => self.wiring.stop(error.message),
        }
    }
}

fn blake3_of(bytes: &Bytes) -> blake3::Hash {
    blake3::hash(bytes)
}
