//! A fork: a new invocation of the same message, which takes over what another one's journal says up to an operation.

use std::collections::BTreeSet;

use selvedge_kernel::error::Consequence;
use selvedge_kernel::id::InvocationId;
use selvedge_kernel::journal::{Ending, Entry, OpKind, Payload, SealKey};
use selvedge_kernel::limit;
use selvedge_kernel::record::hand::{Link, Origin, StandIns, stand_ins};
use selvedge_kernel::record::invocation::{Blocked, Invocation, Status};
use selvedge_kernel::record::message::Message;
use selvedge_kernel::record::shard::LedgerState;
use selvedge_kernel::record::{Writes, key};
use selvedge_kernel::time::Day;
use selvedge_kernel::transition::{self, Journal, forked_id, signature};
use selvedge_kernel::wire;

use super::{Command, Reply, Shard, VerbError};
use crate::hand::{Fork, Forked};

/// Inline bytes of one fork; what is beyond is written before, in commits of its own.
const INLINE: usize = 256 * 1024;

impl Shard {
    pub(super) async fn fork_when_durable(&mut self, fork: Box<Fork>, by: String, reply: Reply<Forked>) {
        if self.on_its_way(fork.id) {
            return self.again_when_durable(Command::Fork { fork, by, reply });
        }
        let result = self.fork(*fork, by).await;
        self.answer(reply, result);
    }

    async fn fork(&mut self, fork: Fork, by: String) -> Result<Forked, VerbError> {
        let (id, new) = (fork.id, forked_id(fork.id, &fork.key));
        if self.record_in_memory(new).await?.is_some() {
            return Ok(Forked { id: new, entries: None });
        }
        let record = self.known_record(id).await?;
        match record.status {
            Status::Blocked if !fork.kill_original => {
                let text = format!(
                    "{id} is blocked and holds its actor, so that a fork would wait behind it for ever: add --kill-original, or kill it first and fork it then"
                );
                return Err(VerbError::new(Consequence::Conflict, "holds_actor", text));
            }
            status if status != Status::Blocked && !status.ended() => {
                let text = format!("{id} has not ended and is not blocked: wait for its end, or kill it first and fork it then");
                return Err(VerbError::new(Consequence::Conflict, "open", text));
            }
            _ => {}
        }
        let seal_key: SealKey = match self.get(key::seal_key(id.0)).await? {
            Some(bytes) => wire::decode("seal key", &bytes)?,
            None => return Err(VerbError::new(Consequence::NotFound, "erased", format!("what {id} was given and did has been erased: send it anew"))),
        };
        let input = self.payload(id.0, record.input_seal, &record.input).await?;
        let entries = self.all_entries(id).await?;
        let stand_ins = stand_ins(&entries)?;
        let cut = cut(&record, &entries, &stand_ins, fork.from)?;
        let own = &record.message;
        let message = Message { id: new, input, idempotency_key: None, deadline: None, reply_to: None, parent: None, chain: Vec::new(), ..own.clone() };
        self.room(&message).await?;
        self.room_to_keep(&message.target.tenant)?;
        // What must be read is read: from here on nothing refuses it.
        let origin = Origin { from: id, entries: cut as u32, by, reason: fork.reason.clone() };
        let mut copy = self.copy(new, seal_key, record.input_seal, &origin, &entries[..cut], &stand_ins, (id, &message.target.tenant)).await?;
        if !record.status.ended() {
            self.kill(id, &format!("forked as {new}: {}", fork.reason)).await?;
        }
        let ended = self.known_record(id).await?;
        let expires = Day::expiry(ended.end.as_ref().map_or(self.head.time, |end| end.at), self.keep_of(&ended).finished);
        copy.writes.put_until(key::fork(id, new), wire::encode(&Link::Into), expires);
        copy.writes.put(key::fork(new, id), wire::encode(&Link::From));
        self.take_in(message, &record, seal_key, copy).await?;
        Ok(Forked { id: new, entries: Some(cut as u32) })
    }

    /// Accepts the fork with its journal, in one transition.
    async fn take_in(&mut self, message: Message, old: &Invocation, seal_key: SealKey, copy: Copied) -> Result<(), VerbError> {
        let (new, actor) = (message.id, message.target.clone());
        let Copied { mut writes, journal } = copy;
        self.load_actor(&actor).await?;
        let (mut record, mut accepted) = self.accept(message, seal_key);
        record.version = match &old.blocked {
            Some(Blocked::Version { has, .. }) => has.last().copied().unwrap_or(old.version),
            _ => old.version,
        };
        if journal.next > 1 {
            // What `now` gives before the first result stays what it was.
            record.accepted_at = old.accepted_at;
            record.build = old.build;
        }
        accepted.puts.retain(|put| put.key != key::invocation(new));
        accepted.put(key::invocation(new), record.encode());
        let first = match self.actors.get_mut(&actor) {
            Some(found) => {
                found.queue.push_back((record.order, new));
                found.queue.len() == 1
            }
            None => false,
        };
        if first {
            let ready = self.put_ready(&mut accepted, new);
            self.kept_ready.insert(new, ready);
        }
        let keep = self.wiring.settings.keep;
        transition::write_ledger(&mut self.head, &mut accepted, new.0, false, LedgerState::Accepted, (journal.chain, journal.next), &keep);
        writes.extend(accepted);
        self.write(writes, Vec::new());
        if first {
            self.activate(new).await?;
        }
        Ok(())
    }

    /// A journal that begins with where it came from and goes on with entries of another one, each with its result. The
    /// seals stay what they are: the key is the same, so that random values are, too.
    async fn copy(
        &mut self,
        new: InvocationId,
        seal_key: SealKey,
        input_seal: selvedge_kernel::journal::Hash32,
        origin: &Origin,
        entries: &[Entry],
        stand_ins: &StandIns,
        (old, tenant): (InvocationId, &str),
    ) -> Result<Copied, VerbError> {
        let now = self.now();
        let mut payloads = Vec::with_capacity(entries.len());
        let mut bytes = 0;
        for entry in entries {
            let payload = match stand_ins.get(&entry.header.index) {
                Some(resolution) => {
                    let mut resolution = resolution.clone();
                    // It stands in its place from the start.
                    resolution.supersedes = None;
                    wire::encode(&resolution)
                }
                None => self.payload(old.0, entry.seal, &entry.payload).await?,
            };
            bytes += payload.len();
            if bytes > limit::FORK_BYTES {
                let text = format!(
                    "what {old} has recorded is more than {} bytes, the limit of what a fork takes over: fork it from an earlier operation",
                    limit::FORK_BYTES
                );
                return Err(VerbError::new(Consequence::Limit, "limit: fork", text));
            }
            payloads.push(payload);
        }
        let mut journal = Journal::start(new, seal_key, input_seal);
        let mut copied = Vec::with_capacity(entries.len() + 1);
        journal.append(&mut copied, signature(u32::MAX, OpKind::Forked, "", ""), Ending::Value, &wire::encode(origin), None, now);
        let mut inline = 0;
        for (entry, payload) in entries.iter().zip(&payloads) {
            let header = &entry.header;
            let resolved = stand_ins.contains_key(&header.index);
            if header.signature.kind == OpKind::Forked || (header.signature.kind == OpKind::Resolved && !resolved && supersedes(entry)) {
                continue;
            }
            let (sign, ending) = match resolved {
                true => (signature(header.signature.number, OpKind::Resolved, "", ""), Ending::Value),
                false => (header.signature.clone(), header.ending),
            };
            inline += payload.len();
            if payload.len() > limit::INLINE_BYTES || (inline > INLINE && header.signature.kind != OpKind::Resolved && !resolved) {
                inline -= payload.len();
                self.write_all_chunks(new.0, selvedge_kernel::journal::seal(&seal_key, payload), payload);
                journal.append_chunked(&mut copied, sign, ending, payload, header.request_seal, header.at);
            } else {
                journal.append(&mut copied, sign, ending, payload, header.request_seal, header.at);
            }
        }
        let mut writes = Writes::default();
        journal.write(&mut writes, &copied, tenant);
        Ok(Copied { writes, journal })
    }
}

/// The rows of a copied journal, and where it goes on.
struct Copied {
    writes: Writes,
    journal: Journal,
}

fn supersedes(entry: &Entry) -> bool {
    selvedge_kernel::record::hand::Resolution::of(entry).is_ok_and(|resolution| resolution.supersedes.is_some())
}

/// How many entries are taken over: as asked for, or up to what does not fit. Never a cancel, which was asked of the old
/// one, and no child that is not joined by then, which answers the old one.
fn cut(record: &Invocation, entries: &[Entry], stand_ins: &StandIns, from: Option<u32>) -> Result<usize, VerbError> {
    let id = record.message.id;
    let place = |number: u32| {
        let of = |entry: &&Entry| entry.header.signature.number == number && entry.header.signature.kind != OpKind::Version;
        entries.iter().find(of).map(|entry| entry.header.index as usize)
    };
    let wanted = match (from, &record.blocked) {
        (Some(number), _) => match place(number) {
            Some(place) => place,
            None => {
                let text = format!("{id} has no entry of an operation #{number}: `selvedge invocations journal {id}` lists them");
                return Err(VerbError::new(Consequence::NotFound, "unknown_operation", text));
            }
        },
        (None, Some(Blocked::Mismatch { recorded: Some(recorded), .. })) => place(recorded.number).unwrap_or(entries.len()),
        (None, _) => entries.len(),
    };
    let mut cut = wanted;
    if let Some(cancel) = entries.iter().position(|entry| entry.header.signature.kind == OpKind::Cancel) {
        cut = cut.min(cancel);
    }
    loop {
        let joined: BTreeSet<String> =
            entries[..cut].iter().filter(|entry| entry.header.signature.kind == OpKind::Join).map(|entry| entry.header.signature.target.clone()).collect();
        let open = |entry: &Entry| entry.header.signature.kind == OpKind::Spawn && !joined.contains(&format!("#{}", entry.header.signature.number));
        match entries[..cut].iter().position(open) {
            Some(earlier) => cut = earlier,
            None => break,
        }
    }
    if cut < wanted && from.is_some() {
        let first = entries[cut].header.signature.clone();
        let what = if first.kind == OpKind::Cancel { "the cancel".to_owned() } else { format!("{first}, a child that answers {id} alone") };
        let text = format!("a fork cannot take over {what}: fork it from there or from before, or leave --from out");
        return Err(VerbError::new(Consequence::Conflict, "not_forkable", text));
    }
    if cut > limit::FORK_ENTRIES {
        let text = format!("{cut} entries would be taken over, the limit of a fork is {}: fork it from an earlier operation", limit::FORK_ENTRIES);
        return Err(VerbError::new(Consequence::Limit, "limit: fork", text));
    }
    let erased = |entry: &Entry| entry.payload == Payload::Erased && !stand_ins.contains_key(&entry.header.index);
    if entries[..cut].iter().any(erased) {
        return Err(VerbError::new(Consequence::NotFound, "erased", format!("what {id} recorded has been erased: send it anew")));
    }
    Ok(cut)
}
