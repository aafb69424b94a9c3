//! Journals for people: entry by entry, by pages.

use selvedge_kernel::error::WorkError;
use selvedge_kernel::id::InvocationId;
use selvedge_kernel::journal::{Ending, Entry, OpKind, Payload, unfold};
use selvedge_kernel::limit;
use selvedge_kernel::ports::under;
use selvedge_kernel::record::hand::{Link, Origin, Resolution, StandIns};
use selvedge_kernel::record::key;
use selvedge_kernel::record::kind::Kind;
use selvedge_kernel::wire;

use super::{Command, Effect, Reply, Shard, VerbError};
use crate::hand::{ByHand, JournalLine, JournalPage};
use crate::in_flight::InFlight;
use crate::why::Forks;
use crate::worker::Event;

/// More entries than one row holds.
const ROW_ENTRIES: u32 = 2 * selvedge_kernel::replay::CALLED_PER_TRANSITION as u32;

impl Shard {
    /// Whether rows of an invocation are on their way to the disk: while its end is, its journal is neither where it was
    /// nor where it will be.
    pub(super) fn on_its_way(&self, id: InvocationId) -> bool {
        self.overlay.get(&key::invocation(id)).is_some()
    }

    /// Comes again behind what was decided so far.
    pub(super) fn again_when_durable(&mut self, command: Command) {
        let (wiring, shard) = (self.wiring.clone(), self.id);
        self.after_all(Effect::Answer(Box::new(move || {
            let held = InFlight::again(&wiring);
            wiring.send(shard, Event::Command(shard, command, held));
        })));
    }

    pub(super) async fn journal_when_durable(&mut self, id: InvocationId, from: u32, reply: Reply<JournalPage>) {
        if self.on_its_way(id) {
            return self.again_when_durable(Command::Journal { id, from, reply });
        }
        let result = self.journal_page(id, from).await;
        self.answer(reply, result);
    }

    async fn journal_page(&self, id: InvocationId, from: u32) -> Result<JournalPage, VerbError> {
        self.known_record(id).await?;
        let mut entries = Vec::new();
        let mut range = under(&key::of_id(Kind::Journal, id.0));
        // Entries of one transition share the row of the first.
        range.start = key::journal(id, from.saturating_sub(ROW_ENTRIES));
        loop {
            let rows = self.scan(range.clone(), 100).await?;
            for (_, value) in &rows {
                keep(&mut entries, from, value)?;
            }
            match rows.last() {
                Some((row, _)) if rows.len() == 100 && entries.len() <= limit::PAGE => range.start = behind(row),
                _ => break,
            }
        }
        if entries.is_empty() {
            // Of an ended one it is folded, sooner or later.
            let mut range = under(&key::of_id(Kind::FoldedJournal, id.0));
            while entries.len() <= limit::PAGE
                && let Some((row, value)) = self.scan(range.clone(), 1).await?.pop()
            {
                for (_, value) in unfold(&value) {
                    keep(&mut entries, from, &value)?;
                }
                range.start = behind(&row);
            }
        }
        let next = entries.get(limit::PAGE).map(|entry| entry.header.index);
        entries.truncate(limit::PAGE);
        Ok(JournalPage { entries: entries.iter().map(line).collect(), next })
    }

    /// What stands in the place of entries of an open invocation.
    pub(super) async fn stand_ins(&self, id: InvocationId) -> Result<StandIns, VerbError> {
        let mut found = StandIns::new();
        for (row, value) in self.scan_all(&key::of_id(Kind::Resolved, id.0)).await? {
            let by: u32 = wire::decode("resolved entry", &value)?;
            let entries: Vec<Entry> = match self.get(key::journal(id, by)).await? {
                Some(bytes) => wire::decode("journal entries", &bytes)?,
                None => Vec::new(),
            };
            if let (Some(index), Some(entry)) = (key::last_u32(&row), entries.first()) {
                found.insert(index, Resolution::of(entry)?);
            }
        }
        Ok(found)
    }

    /// Whom an invocation was forked from, and who was forked from it.
    pub(super) async fn forks_of(&self, id: InvocationId) -> Result<Forks, VerbError> {
        let mut forks = Forks::default();
        let prefix = key::of_id(Kind::Fork, id.0);
        for (row, value) in self.scan(under(&prefix), limit::PAGE).await? {
            let Some(other) = row.get(prefix.len()..).and_then(selvedge_kernel::id::RawId::from_bytes).map(InvocationId) else { continue };
            match wire::decode::<Link>("fork", &value)? {
                Link::From => forks.from = Some(other),
                Link::Into => forks.into.push(other),
            }
        }
        Ok(forks)
    }
}

fn keep(entries: &mut Vec<Entry>, from: u32, value: &[u8]) -> Result<(), VerbError> {
    let more: Vec<Entry> = wire::decode("journal entries", value)?;
    entries.extend(more.into_iter().filter(|entry| entry.header.index >= from));
    Ok(())
}

fn behind(row: &[u8]) -> selvedge_kernel::id::Key {
    let mut next = row.to_vec();
    next.push(0);
    next.into()
}

fn line(entry: &Entry) -> JournalLine {
    let header = &entry.header;
    let kind = header.signature.kind;
    let error = match (&entry.payload, header.ending) {
        (Payload::Inline(bytes), Ending::Error) => wire::decode::<WorkError>("error", bytes).ok(),
        _ => None,
    };
    let bytes = match &entry.payload {
        Payload::Inline(bytes) => Some(bytes.len() as u64),
        Payload::Chunked { len } => Some(*len),
        Payload::Erased => None,
    };
    let outcome = match (bytes, header.ending) {
        (None, _) => "erased",
        _ if kind == OpKind::Cancel => "delivered",
        _ if kind == OpKind::Resolved => "by hand",
        _ if kind == OpKind::Forked => "copied",
        _ if kind.at_call() => "recorded",
        (_, Ending::Value) => "value",
        (_, Ending::Error) => "error",
        (_, Ending::TimeUp) => "time up",
    };
    let by_hand = match (&entry.payload, kind) {
        (_, OpKind::Resolved) => Resolution::of(entry).ok().map(|told| ByHand {
            by: told.by,
            reason: told.reason,
            supersedes: told.supersedes,
            stands_for: Some(told.stands_for.to_string()),
            from: None,
        }),
        (Payload::Inline(bytes), OpKind::Forked) => wire::decode::<Origin>("forked entry", bytes).ok().map(|told| ByHand {
            by: told.by,
            reason: told.reason,
            supersedes: None,
            stands_for: None,
            from: Some(told.from),
        }),
        _ => None,
    };
    let numbered = header.signature.number != u32::MAX;
    JournalLine {
        entry: header.index,
        operation: numbered.then_some(header.signature.number),
        kind: kind.word(),
        name: header.signature.name.clone(),
        target: header.signature.target.clone(),
        outcome,
        error,
        bytes,
        at: header.at,
        seal: format!("{:?}", entry.seal).chars().take(12).collect(),
        chain: format!("{:?}", entry.chain).chars().take(12).collect(),
        by_hand,
    }
}
