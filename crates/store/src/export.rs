//! The portable form of an open store, at one position of its log, taken while commits run: `kernel::record::portable`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::iter::Peekable;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use selvedge_kernel::id::{Key, RawId, ShardId};
use selvedge_kernel::ports::StoreError;
use selvedge_kernel::record::deal::{home, receiver};
use selvedge_kernel::record::key;
use selvedge_kernel::record::kind::Kind;
use selvedge_kernel::record::message::{Envelope, OutboxRow};
use selvedge_kernel::record::portable::{self, FORMAT, Head, LedgerHead, LedgerWalk, Line, Unportable};
use selvedge_kernel::record::shard::{LedgerLine, ShardHead};
use selvedge_kernel::time::{Day, Millis};
use selvedge_kernel::wire;

use crate::disk::{Disk, Faults};
use crate::embedded::EmbeddedStore;
use crate::error::OpenError;
use crate::place::{PlaceError, failed};
use crate::still::Still;

/// How much was exported.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Exported {
    /// Lines of the file, its last one included.
    pub lines: u64,
    /// Its bytes.
    pub bytes: u64,
    /// Messages between shards that were on their way.
    pub envelopes: u64,
    /// The last group of the log that is in it.
    pub group: u64,
}

/// Why something was not exported, or not imported.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The file of an export is there already.
    #[error("{} is there already: nothing was written; name a new file", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// What is to be exported does not hold together.
    #[error("nothing was exported, because what lies there does not hold together: shard {}: {reason}", shard.0)]
    Unsound {
        /// Where.
        shard: ShardId,
        /// What was found.
        reason: Unportable,
    },
    /// It is no export, or not as it was written.
    #[error("line {line} of the export {}: {reason}. Nothing was imported; export again", file.display())]
    Damaged {
        /// Its file.
        file: PathBuf,
        /// Where in it, from 1.
        line: u64,
        /// What was found.
        reason: Unportable,
    },
    /// No store has so many shards.
    #[error("a store has 1 to {most} shards, not {asked}")]
    Shards {
        /// What was asked for.
        asked: u16,
        /// What there may be.
        most: u16,
    },
    /// It cannot be read or written where it is.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The store does not answer any more.
    #[error("nothing was exported")]
    Store(#[source] StoreError),
    /// The store that was made is not as it should be.
    #[error("the store that was made does not open; remove it and import again, to another disk")]
    Made(#[from] OpenError),
}

/// Why writing the lines ended early.
enum Ended {
    Io(io::Error),
    Unsound(ShardId, Unportable),
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Ended {
        Ended::Io(error)
    }
}

/// Writes everything that an open store holds into a new file, as all shards stand at one position of the log, while
/// commits go on. Blocks until it is durable; until then the file has `.part` behind its name. `notes` come along.
///
/// # Errors
/// The file is there, something cannot be written, the store has stopped, or what lies there does not hold together: a
/// ledger that was changed is not given new chain values.
pub fn export(store: &EmbeddedStore, to: &Path, notes: Option<String>) -> Result<Exported, PortError> {
    let part = part_of(to);
    for path in [to, &part] {
        if path.exists() {
            return Err(PortError::Exists { path: path.to_owned() });
        }
    }
    let still = store.stand_still().map_err(PortError::Store)?;
    let file = File::create_new(&part).map_err(failed("cannot create", &part))?;
    let mut out = Out { file: BufWriter::new(file), hash: blake3::Hasher::new(), done: Exported { group: still.group, ..Exported::default() } };
    let written = write(&still, store.meta().store, notes, &mut out).and_then(|()| Ok(out.finish()?));
    let done = written.map_err(|ended| -> PortError {
        // It is of no use, and a second try shall not stumble over it.
        std::fs::remove_file(&part).unwrap_or(());
        match ended {
            Ended::Io(source) => failed("cannot write the export", &part)(source).into(),
            Ended::Unsound(shard, reason) => PortError::Unsound { shard, reason },
        }
    })?;
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let placed = std::fs::rename(&part, to).and_then(|()| Disk::new(Faults::none()).sync_directory(folder));
    placed.map_err(failed("cannot put the export in place at", to))?;
    Ok(done)
}

fn part_of(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".part");
    PathBuf::from(name)
}

/// The file that is being written.
struct Out {
    file: BufWriter<File>,
    hash: blake3::Hasher,
    done: Exported,
}

impl Out {
    fn line(&mut self, line: &Line) -> io::Result<()> {
        let mut text = portable::print(line);
        text.push('\n');
        self.hash.update(text.as_bytes());
        self.done.lines += 1;
        self.done.bytes += text.len() as u64;
        self.file.write_all(text.as_bytes())
    }

    fn finish(mut self) -> io::Result<Exported> {
        let end = portable::End { lines: self.done.lines, blake3: self.hash.finalize().to_hex().to_string() };
        self.line(&Line::End(end))?;
        self.file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        Ok(self.done)
    }
}

type Row = (ShardId, Bytes, Bytes, Option<Day>);

fn write(still: &Still, store: [u8; 16], notes: Option<String>, out: &mut Out) -> Result<(), Ended> {
    let heads: Vec<ShardHead> = (0..still.shards.len()).map(|n| head_of(still, n)).collect::<Result<_, _>>()?;
    let head = Head {
        selvedge_export: FORMAT,
        store: store.iter().map(|byte| format!("{byte:02x}")).collect(),
        group: still.group,
        time: heads.iter().map(|head| head.time).max().unwrap_or_default(),
        next: heads.iter().map(|head| head.next).max().unwrap_or_default(),
        clean: heads.iter().all(|head| head.clean),
        epoch: still.states.iter().map(|state| state.epoch.0).max().unwrap_or_default(),
        ledgers: heads.iter().map(|head| LedgerHead { lines: head.ledger_lines, head: format!("{:?}", head.ledger) }).collect(),
        notes,
    };
    let ledgers = head.ledgers.clone();
    out.line(&Line::Head(head))?;
    merged(
        still,
        Kind::Timer,
        |_, key, _| Ok(key::numbers::<2>(key)),
        |[due, number], (_, _, value, _)| out.line(&Line::Timer(portable::Timer { due: Millis(due), number, value })),
    )?;
    merged(still, Kind::Ready, |_, key, _| Ok(key::numbers::<1>(key)), |_, (_, _, value, _)| out.line(&Line::Ready(portable::Ready { value })))?;
    let sent = envelopes(still, out)?;
    ledger_lines(still, &ledgers, out)?;
    rows(still, &sent, out)
}

fn head_of(still: &Still, n: usize) -> Result<ShardHead, Ended> {
    match still.rows_under(n, &key::shard_head()).next() {
        None => Ok(ShardHead { clean: true, ..ShardHead::default() }),
        Some(row) => read("shard head", ShardId(n as u16), &row?.2),
    }
}

fn read<T: serde::de::DeserializeOwned>(what: &'static str, shard: ShardId, value: &[u8]) -> Result<T, Ended> {
    wire::decode(what, value).map_err(|error| Ended::Unsound(shard, error.into()))
}

fn undecodable(row: &Row) -> Ended {
    Ended::Unsound(row.0, Unportable(format!("the key of a row ({} bytes) does not decode: `selvedge verify` says more", row.1.len())))
}

/// The rows of a kind over all shards, by what stands in their keys or values, which rises within each shard.
fn merged<const N: usize>(
    still: &Still,
    kind: Kind,
    order: impl Fn(ShardId, &[u8], &[u8]) -> Result<Option<[u64; N]>, Ended>,
    mut each: impl FnMut([u64; N], Row) -> io::Result<()>,
) -> Result<(), Ended> {
    let prefix = key::all(kind);
    let mut shards: Vec<Peekable<_>> = (0..still.shards.len())
        .map(|n| {
            let rows = still.rows_under(n, &prefix).map(|row| {
                let row: Row = row?;
                let place = order(row.0, &row.1, &row.2)?.ok_or_else(|| undecodable(&row))?;
                Ok::<_, Ended>((place, row))
            });
            rows.peekable()
        })
        .collect();
    loop {
        let first = shards.iter_mut().enumerate().filter_map(|(n, rows)| {
            // An error comes first.
            rows.peek().map(|row| (row.as_ref().ok().map(|(place, _)| *place), n))
        });
        let Some((_, n)) = first.min() else { return Ok(()) };
        let Some(row) = shards[n].next() else { return Ok(()) };
        let (place, row) = row?;
        each(place, row)?;
    }
}

/// Chunks of envelopes: they travel with their envelope, not as rows.
type Sent = BTreeSet<(ShardId, Key)>;

/// Messages between shards that their receiver has not taken, each in the order of its sender.
fn envelopes(still: &Still, out: &mut Out) -> Result<Sent, Ended> {
    let mut taken: BTreeMap<(ShardId, ShardId), u64> = BTreeMap::new();
    for n in 0..still.shards.len() {
        for row in still.rows_under(n, &key::all(Kind::Taken)) {
            let row: Row = row?;
            let from = two_bytes(&row.1).ok_or_else(|| undecodable(&row))?;
            taken.insert((from, row.0), read("mark", row.0, &row.2)?);
        }
    }
    let mut sent = Sent::new();
    for n in 0..still.shards.len() {
        for row in still.rows_under(n, &key::all(Kind::Outbox)) {
            let row: Row = row?;
            let (Some(to), Some(number)) = (two_bytes(&row.1), key::last_u64(&row.1)) else { return Err(undecodable(&row)) };
            let (owner, value) = whole(still, n, &row, &mut sent)?;
            if number > taken.get(&(row.0, to)).copied().unwrap_or(0) {
                let envelope: Envelope = read("envelope", row.0, &value)?;
                if receiver(&envelope).is_some() {
                    out.done.envelopes += 1;
                    out.line(&Line::Envelope(portable::Envelope { owner, value }))?;
                }
            }
        }
    }
    Ok(sent)
}

/// The shard that stands in a key behind hash and kind.
fn two_bytes(key: &[u8]) -> Option<ShardId> {
    Some(ShardId(u16::from_be_bytes(key.get(3..5)?.try_into().ok()?)))
}

/// An envelope with what its sender kept in chunks.
fn whole(still: &Still, n: usize, row: &Row, sent: &mut Sent) -> Result<(Bytes, Bytes), Ended> {
    match read("outbox row", row.0, &row.2)? {
        OutboxRow::Whole(envelope) => Ok((Bytes::copy_from_slice(&owner_of(&envelope).to_bytes()), wire::encode(&envelope))),
        OutboxRow::Chunked { owner, seal, len } => {
            let mut value = Vec::new();
            let mut prefix = key::of_id(Kind::Chunk, owner).to_vec();
            prefix.extend_from_slice(&seal.0);
            for piece in still.rows_under(n, &prefix) {
                let (shard, key, bytes, _) = piece?;
                value.extend_from_slice(&bytes);
                sent.insert((shard, key));
            }
            if value.len() as u64 != len {
                let text = format!("an envelope has {len} bytes, {} of them are there: `selvedge verify` says more", value.len());
                return Err(Ended::Unsound(row.0, Unportable(text)));
            }
            Ok((Bytes::copy_from_slice(&owner.to_bytes()), value.into()))
        }
    }
}

/// Whose chunks hold an envelope where it is too large for a row: its message's, or whoever it is about.
fn owner_of(envelope: &Envelope) -> RawId {
    match envelope {
        Envelope::Invoke(message) | Envelope::Later { message, .. } => message.id.0,
        Envelope::Reply { from, .. } => from.0,
        Envelope::Cancel { invocation, .. } => invocation.0,
        Envelope::StartRun { run, .. }
        | Envelope::StartChild { run, .. }
        | Envelope::StartChildUntil { run, .. }
        | Envelope::Line { run, .. }
        | Envelope::CancelRun { run, .. } => run.0,
        Envelope::Traced { start, .. } => start.run.0,
        Envelope::EnterLine(place) | Envelope::EnterLineBelow { entering: place, .. } | Envelope::LeaveLine(place) => place.run.0,
        Envelope::Borrow { limit, .. }
        | Envelope::Unwant { limit, .. }
        | Envelope::Grant { limit, .. }
        | Envelope::AskBreaker { limit, .. }
        | Envelope::Pass { limit, .. } => RawId { hash: limit.hash16(), uuid: [0; 16] },
    }
}

fn ledger_lines(still: &Still, heads: &[LedgerHead], out: &mut Out) -> Result<(), Ended> {
    let mut walks = vec![LedgerWalk::default(); heads.len()];
    let mut unsound = None;
    let order = |shard: ShardId, _: &[u8], value: &[u8]| Ok(Some([read::<LedgerLine>("ledger line", shard, value)?.at.0]));
    merged(still, Kind::Ledger, order, |_, (shard, key, value, until)| {
        let (Some([n]), Ok(line)) = (key::numbers::<1>(&key), wire::decode::<LedgerLine>("ledger line", &value)) else { return Ok(()) };
        if let Err(reason) = walks[usize::from(shard.0)].line(n, &line) {
            unsound.get_or_insert(Ended::Unsound(shard, reason));
        }
        out.line(&Line::Ledger(portable::Ledger { shard: shard.0, n, until, value }))
    })?;
    for (n, (walk, head)) in walks.iter().zip(heads).enumerate() {
        if let Err(reason) = walk.ended(head) {
            unsound.get_or_insert(Ended::Unsound(ShardId(n as u16), reason));
        }
    }
    unsound.map_or(Ok(()), Err)
}

/// Rows that go with an identity.
fn rows(still: &Still, sent: &Sent, out: &mut Out) -> Result<(), Ended> {
    let count = still.shards.len() as u16;
    for row in still.rows() {
        let row: Row = row?;
        let kind = Kind::of(&row.1).ok_or_else(|| undecodable(&row))?;
        if matches!(kind, Kind::Timer | Kind::Ready | Kind::Ledger) || sent.contains(&(row.0, row.1.clone())) {
            continue;
        }
        let Some(hash) = home(kind, &row.1, &row.2).map_err(|error| Ended::Unsound(row.0, error))? else { continue };
        if hash.shard(count) != row.0 {
            if kind == Kind::Chunk {
                // What a crash left of an envelope that was never sent.
                continue;
            }
            return Err(Ended::Unsound(row.0, Unportable(format!("a row of the kind {kind:?} belongs to shard {}", hash.shard(count).0))));
        }
        let (_, key, value, until) = row;
        out.line(&Line::Row(portable::Row { kind, until, key, value }))?;
    }
    Ok(())
}
