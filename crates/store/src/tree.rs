//! The tree: what the log brought, in fjall. One keyspace for rows that stay, one a day for rows that expire, one for
//! the position in the log.
//!
//! A key of the tree is the shard (`u16`, big endian) and the row's key. A value is a byte that says whether a day
//! follows, the day of expiry (`u32`, little endian) if so, and the row's value. A row stands in one keyspace at most.

use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, Readable, Snapshot};
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::Path;

use selvedge_kernel::id::ShardId;
use selvedge_kernel::ports::after_prefix;
use selvedge_kernel::time::Day;

use crate::layer::{Cell, Stored};
use crate::merge::{Source, Stream};
use crate::position::{Intent, Kinds, Position};

/// Blocks that are kept in memory.
const CACHE_BYTES: u64 = 32 << 20;
/// fjall's own journal is not used but for its record of keyspaces.
const JOURNAL_BYTES: u64 = 64 << 20;
const POSITION_KEY: &[u8] = b"position";
const INTENT_KEY: &[u8] = b"intent";
const PLAIN: u8 = 0;
const EXPIRES: u8 = 1;
/// Not a shard: stands before the marks of folds.
const FOLDS: u16 = u16::MAX;

/// The tree as its one writer sees it.
pub struct Tree {
    database: Database,
    /// Rows that stay.
    pub rows: Keyspace,
    meta: Keyspace,
    days: BTreeMap<Day, (Keyspace, Kinds)>,
    /// Where it stands.
    pub position: Position,
    /// The carrying that is under way, or was when a process died.
    pub intent: Option<Intent>,
}

/// The tree as readers see it, standing still.
pub struct View {
    snapshot: Snapshot,
    rows: Keyspace,
    days: Vec<DayView>,
}

struct DayView {
    day: Day,
    keyspace: Keyspace,
    kinds: Kinds,
}

/// A change of one key in one keyspace: a value as it stands in the tree, or a tombstone.
pub type Change = Option<Vec<u8>>;

fn other(error: fjall::Error) -> io::Error {
    match error {
        fjall::Error::Io(error) => error,
        error => io::Error::other(error),
    }
}

fn day_name(day: Day) -> String {
    format!("day-{}", day.0)
}

/// A key as it stands in the tree.
#[must_use]
pub fn tree_key(shard: ShardId, key: &[u8]) -> Vec<u8> {
    let mut whole = Vec::with_capacity(2 + key.len());
    whole.extend_from_slice(&shard.0.to_be_bytes());
    whole.extend_from_slice(key);
    whole
}

/// The key of the mark that a fold was carried.
#[must_use]
pub fn fold_key(shard: ShardId, commit: (u64, u8)) -> Vec<u8> {
    let mut key = Vec::with_capacity(13);
    key.extend_from_slice(&FOLDS.to_be_bytes());
    key.extend_from_slice(&shard.0.to_be_bytes());
    key.extend_from_slice(&commit.0.to_be_bytes());
    key.push(commit.1);
    key
}

/// The shard and the commit's number in the key of such a mark.
#[must_use]
pub fn fold_of_key(key: &[u8]) -> Option<(ShardId, u64)> {
    let shard = u16::from_be_bytes(key.get(2..4)?.try_into().ok()?);
    Some((ShardId(shard), u64::from_be_bytes(key.get(4..12)?.try_into().ok()?)))
}

/// A value as it stands in the tree.
#[must_use]
pub fn encode_value(value: &[u8], expires: Option<Day>) -> Vec<u8> {
    let mut whole = Vec::with_capacity(5 + value.len());
    match expires {
        None => whole.push(PLAIN),
        Some(day) => {
            whole.push(EXPIRES);
            whole.extend_from_slice(&day.0.to_le_bytes());
        }
    }
    whole.extend_from_slice(value);
    whole
}

fn decode_value(bytes: &[u8]) -> io::Result<Cell> {
    let unreadable = || io::Error::new(io::ErrorKind::InvalidData, "a row of the tree is unreadable");
    let (flag, rest) = bytes.split_first().ok_or_else(unreadable)?;
    let (expires, value) = match *flag {
        PLAIN => (None, rest),
        EXPIRES => {
            let (day, value) = rest.split_first_chunk::<4>().ok_or_else(unreadable)?;
            (Some(Day(u32::from_le_bytes(*day))), value)
        }
        _ => return Err(unreadable()),
    };
    Ok(Cell::Put { value: Stored::Inline(Bytes::copy_from_slice(value)), expires })
}

/// The day in whose keyspace a row stands that expires on `expires`: that day, or for far days a later one, so that
/// there are never more than some ninety keyspaces.
#[must_use]
pub fn bucket(expires: Day, today: Day) -> Day {
    let step = match expires.0.saturating_sub(today.0) {
        0..=32 => 1,
        33..=512 => 16,
        _ => 128,
    };
    Day(expires.0.checked_next_multiple_of(step).unwrap_or(u32::MAX))
}

impl Tree {
    /// Opens the tree, and makes it if there is none.
    pub fn open(path: &Path, shards: u16) -> io::Result<Tree> {
        if !path.exists() {
            create(path)?;
        }
        let database = database(path)?;
        let rows = database.keyspace(ROWS, KeyspaceCreateOptions::default).map_err(other)?;
        let meta = database.keyspace(META, KeyspaceCreateOptions::default).map_err(other)?;
        let position = match meta.get(POSITION_KEY).map_err(other)? {
            None => Position::start(shards),
            Some(bytes) => Position::decode(&bytes)
                .filter(|position| position.shards.len() == usize::from(shards))
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the position in the log is unreadable"))?,
        };
        let intent = match meta.get(INTENT_KEY).map_err(other)? {
            None => None,
            Some(bytes) => {
                let unreadable = || io::Error::new(io::ErrorKind::InvalidData, "what was being carried is unreadable");
                Some(Intent::decode(&bytes).ok_or_else(unreadable)?).filter(|intent| intent.group > position.group)
            }
        };
        let known = intent.as_ref().map_or(&position.days, |intent| &intent.days);
        let mut days = BTreeMap::new();
        for name in database.list_keyspace_names() {
            let Some(day) = name.strip_prefix("day-").and_then(|day| day.parse().ok()).map(Day) else { continue };
            let keyspace = database.keyspace(&name, KeyspaceCreateOptions::default).map_err(other)?;
            let known = known.iter().find(|(known, _)| *known == day);
            days.insert(day, (keyspace, known.map_or(Kinds::ALL, |(_, kinds)| *kinds)));
        }
        Ok(Tree { database, rows, meta, days, position, intent })
    }

    /// What readers see from now on.
    #[must_use]
    pub fn view(&self) -> View {
        let day = |(day, (keyspace, kinds)): (&Day, &(Keyspace, Kinds))| DayView { day: *day, keyspace: keyspace.clone(), kinds: *kinds };
        View { snapshot: self.database.snapshot(), rows: self.rows.clone(), days: self.days.iter().map(day).collect() }
    }

    /// The keyspace of a day, made if there is none.
    pub fn day(&mut self, day: Day) -> io::Result<Keyspace> {
        if let Some((keyspace, _)) = self.days.get(&day) {
            return Ok(keyspace.clone());
        }
        let keyspace = self.database.keyspace(&day_name(day), KeyspaceCreateOptions::default).map_err(other)?;
        self.days.insert(day, (keyspace.clone(), Kinds::NONE));
        Ok(keyspace)
    }

    /// Says which kinds of rows will come into the keyspace of a day, which is made if there is none.
    pub fn add_kinds(&mut self, day: Day, kinds: &Kinds) -> io::Result<()> {
        self.day(day)?;
        if let Some((_, known)) = self.days.get_mut(&day) {
            known.0.iter_mut().zip(kinds.0).for_each(|(known, new)| *known |= new);
        }
        Ok(())
    }

    /// How many keyspaces of days there are.
    #[must_use]
    pub fn day_count(&self) -> usize {
        self.days.len()
    }

    /// Makes a position durable: everything up to it is in the tree.
    pub fn set_position(&mut self, position: Position) -> io::Result<()> {
        let days = self.days.iter().filter(|(day, _)| **day > position.watermark);
        self.position = Position { days: days.map(|(day, (_, kinds))| (*day, *kinds)).collect(), ..position };
        self.intent = None;
        let changes = [(INTENT_KEY.to_vec(), None), (POSITION_KEY.to_vec(), Some(self.position.encode()))];
        ingest(&self.meta, changes.into_iter().map(Ok))
    }

    /// Makes durable what is being carried, and how many passes over it are done.
    pub fn set_intent(&mut self, group: u64, passes: u32) -> io::Result<()> {
        let intent = Intent { group, passes, days: self.days.iter().map(|(day, (_, kinds))| (*day, *kinds)).collect() };
        let bytes = intent.encode();
        self.intent = Some(intent);
        ingest(&self.meta, std::iter::once(Ok((INTENT_KEY.to_vec(), Some(bytes)))))
    }

    /// Drops the keyspaces of days that are past. Readers that have a view of them finish.
    pub fn drop_past(&mut self) -> io::Result<()> {
        let past: Vec<Day> = self.days.range(..=self.position.watermark).map(|(day, _)| *day).collect();
        for day in past {
            if let Some((keyspace, _)) = self.days.remove(&day) {
                self.database.delete_keyspace(keyspace).map_err(other)?;
            }
        }
        Ok(())
    }

    /// The marks of folds that were carried among the rows that stay; those up to the position are not needed any more.
    pub fn fold_marks(&self) -> io::Result<Vec<Vec<u8>>> {
        let marks = self.rows.prefix(FOLDS.to_be_bytes());
        marks.map(|guard| Ok(guard.key().map_err(other)?.to_vec())).collect()
    }
}

/// Writes changes, in ascending order of their keys, straight into table files of a keyspace; whole or not at all.
pub fn ingest(keyspace: &Keyspace, changes: impl Iterator<Item = io::Result<(Vec<u8>, Change)>>) -> io::Result<()> {
    let mut ingestion = keyspace.start_ingestion().map_err(other)?;
    for change in changes {
        match change? {
            (key, Some(value)) => ingestion.write(key, value).map_err(other)?,
            (key, None) => ingestion.write_tombstone(key).map_err(other)?,
        }
    }
    ingestion.finish().map_err(other)
}

impl View {
    /// A row, expired or not.
    pub fn get(&self, shard: ShardId, key: &[u8]) -> io::Result<Option<Cell>> {
        let whole = tree_key(shard, key);
        if let Some(value) = self.snapshot.get(&self.rows, &whole).map_err(other)? {
            return decode_value(&value).map(Some);
        }
        for day in self.days.iter().filter(|day| day.kinds.may_hold(key)) {
            if let Some(value) = self.snapshot.get(&day.keyspace, &whole).map_err(other)? {
                return decode_value(&value).map(Some);
            }
        }
        Ok(None)
    }

    /// Whether a key stands among the rows that stay.
    pub fn stays(&self, shard: ShardId, key: &[u8]) -> io::Result<bool> {
        self.snapshot.contains_key(&self.rows, tree_key(shard, key)).map_err(other)
    }

    /// The days, but for `except`, in whose keyspace a key stands.
    pub fn days_of(&self, shard: ShardId, key: &[u8], except: Option<Day>) -> io::Result<Vec<Day>> {
        let mut found = Vec::new();
        for day in self.days.iter().filter(|day| Some(day.day) != except && day.kinds.may_hold(key)) {
            if self.snapshot.contains_key(&day.keyspace, tree_key(shard, key)).map_err(other)? {
                found.push(day.day);
            }
        }
        Ok(found)
    }

    /// Whether a fold was carried: `day` is where its rows stand, `None` among the rows that stay.
    pub fn fold_carried(&self, shard: ShardId, commit: (u64, u8), day: Option<Day>) -> io::Result<bool> {
        self.keyspace(day).map_or(Ok(false), |keyspace| self.snapshot.contains_key(keyspace, fold_key(shard, commit)).map_err(other))
    }

    /// The rows of a range, one source a keyspace that can hold some; the first is that of the rows that stay.
    #[must_use]
    pub fn sources<'s>(&self, shard: ShardId, range: &Range<Bytes>) -> Vec<Source<'s, Cell>> {
        let one_kind = range.start.len() >= 3 && range.end <= after_prefix(&range.start[..3]);
        let days = self.days.iter().filter(|day| !one_kind || day.kinds.may_hold(&range.start));
        let keyspaces = std::iter::once(&self.rows).chain(days.map(|day| &day.keyspace));
        keyspaces.map(|keyspace| self.source(keyspace, shard, range)).collect()
    }

    /// The rows of a range in one keyspace: that of a day, or with `None` that of the rows that stay.
    #[must_use]
    pub fn source_in<'s>(&self, day: Option<Day>, shard: ShardId, range: &Range<Bytes>) -> Option<Source<'s, Cell>> {
        self.keyspace(day).map(|keyspace| self.source(keyspace, shard, range))
    }

    fn keyspace(&self, day: Option<Day>) -> Option<&Keyspace> {
        match day {
            None => Some(&self.rows),
            Some(day) => self.days.iter().find(|view| view.day == day).map(|view| &view.keyspace),
        }
    }

    fn source<'s>(&self, keyspace: &Keyspace, shard: ShardId, range: &Range<Bytes>) -> Source<'s, Cell> {
        let (start, end) = (tree_key(shard, &range.start), tree_key(shard, &range.end));
        let (snapshot, keyspace) = (self.snapshot.clone(), keyspace.clone());
        let open = move || {
            let rows = (start < end).then(|| snapshot.range(&keyspace, start..end));
            let rows = rows.into_iter().flatten().map(|guard| {
                let (key, value) = guard.into_inner().map_err(other)?;
                Ok((Bytes::copy_from_slice(&key[2..]), decode_value(&value)?))
            });
            Box::new(rows) as Stream<'s, Cell>
        };
        Source { from: range.start.clone(), open: Box::new(open) }
    }

    /// Reads every row of every keyspace; tells for each whether it expires, and the bytes of its value.
    pub fn walk(&self, mut each: impl FnMut(bool, u64)) -> io::Result<()> {
        for (n, keyspace) in std::iter::once(&self.rows).chain(self.days.iter().map(|day| &day.keyspace)).enumerate() {
            for guard in self.snapshot.iter(keyspace) {
                let (key, value) = guard.into_inner().map_err(other)?;
                if !key.starts_with(&FOLDS.to_be_bytes()) {
                    decode_value(&value)?;
                    each(n > 0, value.len() as u64);
                }
            }
        }
        Ok(())
    }

    /// The keys under a prefix, with the day in whose keyspace each stands; those of one keyspace in order.
    pub fn keys_under(&self, shard: ShardId, prefix: &[u8]) -> impl Iterator<Item = io::Result<(Bytes, Option<Day>)>> {
        let whole = tree_key(shard, prefix);
        let days = self.days.iter().filter(|day| prefix.len() < 3 || day.kinds.may_hold(prefix));
        let keyspaces = std::iter::once((&self.rows, None)).chain(days.map(|day| (&day.keyspace, Some(day.day))));
        keyspaces.flat_map(move |(keyspace, day)| {
            let rows = self.snapshot.prefix(keyspace, &whole);
            rows.map(move |guard| Ok((Bytes::copy_from_slice(&guard.key().map_err(other)?[2..]), day)))
        })
    }
}

const ROWS: &str = "rows";
const META: &str = "meta";

fn database(path: &Path) -> io::Result<Database> {
    let builder = Database::builder(path).cache_size(CACHE_BYTES).max_journaling_size(JOURNAL_BYTES).worker_threads(1);
    builder.max_cached_files(Some(256)).open().map_err(other)
}

/// Makes an empty tree beside its place and moves it there whole: a process that dies while fjall makes its files leaves
/// some that it does not open again.
fn create(path: &Path) -> io::Result<()> {
    let new = path.with_extension("new");
    if new.exists() {
        std::fs::remove_dir_all(&new)?;
    }
    let made = database(&new)?;
    for name in [ROWS, META] {
        made.keyspace(name, KeyspaceCreateOptions::default).map_err(other)?;
    }
    made.persist(fjall::PersistMode::SyncAll).map_err(other)?;
    drop(made);
    std::fs::rename(&new, path)?;
    match path.parent() {
        Some(folder) => std::fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}
