//! Backups: every row at one position of the log, taken while commits run; and a new store made of one.

use std::path::{Path, PathBuf};

use selvedge_kernel::id::ShardId;
use selvedge_kernel::ports::{Epoch, Owner, StoreError};

use crate::bring::Chunk;
use crate::check::{self, Report};
use crate::directory;
use crate::disk::{Disk, Faults};
use crate::dump::{Head, Reader, Record, Unreadable, Writer};
use crate::embedded::EmbeddedStore;
use crate::error::OpenError;
use crate::log::ShardState;
use crate::options;
use crate::place::{self, PlaceError, failed};
use crate::position::Position;
use crate::tree::Tree;

/// The file in the directory of a backup.
pub const FILE: &str = "rows";
/// The same while it is being written.
const PART: &str = "rows.part";
/// Epochs of a restored store start this much above those in the backup: above those that the old store has claimed since.
pub(crate) const EPOCHS_ABOVE: u64 = 1 << 32;
/// How often progress is told.
pub(crate) const ROWS_TOLD: u64 = 10_000;

/// How far a backup or a restore is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// Rows.
    pub rows: u64,
    /// Bytes of the backup's file.
    pub bytes: u64,
}

/// What a backup holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Backup {
    /// The store that it was taken of.
    pub store: [u8; 16],
    /// The last group of the log that is in it.
    pub group: u64,
    /// Shards that somebody has claimed, with the last number that is in it.
    pub shards: Vec<(ShardId, u64)>,
    /// How much.
    pub size: Progress,
}

/// Why a backup was not taken, or not restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// It is no backup, or not as it was written.
    #[error("the backup {} is not whole, at byte {offset}: {reason}. Nothing was restored; take another backup", file.display())]
    Damaged {
        /// Its file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// What was found.
        reason: String,
    },
    /// It cannot be read or written where it is.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The store does not answer any more.
    #[error("the backup was not taken")]
    Store(#[source] StoreError),
    /// The restored store is not as it should be.
    #[error("the restored store does not open; remove it and restore again, to another disk")]
    Restored(#[from] OpenError),
}

/// Writes every row of an open store into a new directory, as all shards stand at one position of the log, while commits
/// go on. Blocks until it is durable. Until then the directory holds no file that [`restore`] takes.
///
/// The rows in memory at the position are kept until the end, beside what comes after it.
///
/// # Errors
/// The directory is not empty, something cannot be written, or the store has stopped.
pub fn backup(store: &EmbeddedStore, to: &Path, mut progress: impl FnMut(Progress)) -> Result<Backup, BackupError> {
    place::empty(to)?;
    let still = store.stand_still().map_err(BackupError::Store)?;
    let head = Head { store: store.meta().store, group: still.group, shards: still.states.iter().map(|state| (state.epoch, state.last)).collect() };
    let (part, file) = (to.join(PART), to.join(FILE));
    let mut write = |part: &Path| {
        let mut writer = Writer::create(part, &head)?;
        for row in still.rows() {
            let (shard, key, value, expires) = row?;
            writer.add(&Record { shard, key, value, expires })?;
            let (rows, bytes) = writer.written();
            if rows % ROWS_TOLD == 0 {
                progress(Progress { rows, bytes });
            }
        }
        writer.finish()
    };
    let (rows, bytes) = write(&part).map_err(failed("cannot write the backup", &part))?;
    let disk = Disk::new(Faults::none());
    let placed = std::fs::rename(&part, &file).and_then(|()| disk.sync_directory(to));
    placed.map_err(failed("cannot put the backup in place at", &file))?;
    Ok(summary(&head, Progress { rows, bytes }))
}

fn summary(head: &Head, size: Progress) -> Backup {
    let claimed = head.shards.iter().enumerate().filter(|(_, (epoch, _))| epoch.0 > 0);
    Backup { store: head.store, group: head.group, shards: claimed.map(|(n, (_, last))| (ShardId(n as u16), *last)).collect(), size }
}

/// Reads a backup through: every checksum, the count and the hash.
///
/// # Errors
/// It is no backup, or is not as it was written; file and offset are named.
pub fn verify(from: &Path, mut progress: impl FnMut(Progress)) -> Result<Backup, BackupError> {
    let file = from.join(FILE);
    let (head, size) = read(&file, |rows, bytes, _| {
        if rows % ROWS_TOLD == 0 {
            progress(Progress { rows, bytes });
        }
        Ok(())
    })?;
    Ok(summary(&head, size))
}

/// Makes a new store of a backup in an empty or new directory: reads the backup through first, then writes, then checks
/// what was written. It has an id of its own, and its epochs start above those of the old one. A directory in which this
/// was interrupted is no store, and is refused by both.
///
/// # Errors
/// The directory is not empty, the backup is damaged, or something cannot be written.
pub fn restore(from: &Path, to: &Path, command: &str, mut progress: impl FnMut(Progress)) -> Result<(Backup, Report), BackupError> {
    place::empty(to)?;
    let backup = verify(from, &mut progress)?;
    let file = from.join(FILE);
    let lock = directory::lock(to, command)?;
    let tree_path = to.join("tree");
    let (_, head) = Reader::open(&file).map_err(|error| unreadable(&file, error))?;
    let mut tree = Tree::open(&tree_path, head.shards.len() as u16).map_err(failed("cannot make the tree", &tree_path))?;
    let mut chunk = Chunk::new(options::today());
    let (_, size) = read(&file, |rows, bytes, record| {
        chunk.add(record);
        if chunk.is_full() {
            chunk.bring(&mut tree).map_err(failed("cannot write the tree", &tree_path))?;
        }
        if rows % ROWS_TOLD == 0 {
            progress(Progress { rows, bytes });
        }
        Ok(())
    })?;
    let last = chunk.bring(&mut tree).and_then(|()| {
        let state = |(epoch, last): &(Epoch, u64)| match epoch.0 {
            0 => ShardState::default(),
            epoch => ShardState { epoch: Epoch(epoch.saturating_add(EPOCHS_ABOVE)), owner: Owner([0; 16]), last: *last },
        };
        let shards = head.shards.iter().map(state).collect();
        tree.set_position(Position { shards, ..Position::start(head.shards.len() as u16) })
    });
    last.map_err(failed("cannot write the tree", &tree_path))?;
    drop(tree);
    std::fs::create_dir(to.join("log")).map_err(failed("cannot create the log in", to))?;
    // Only now it is a store.
    directory::make(to, head.shards.len() as u16, &Disk::new(Faults::none()))?;
    drop(lock);
    let report = check::check(to)?;
    if size != backup.size || report.rows + report.expiring_rows != size.rows {
        let reason = format!("{} rows were read and {} written", size.rows, report.rows + report.expiring_rows);
        return Err(BackupError::Damaged { file, offset: 0, reason });
    }
    Ok((backup, report))
}

fn unreadable(file: &Path, error: Unreadable) -> BackupError {
    match error {
        Unreadable::Io(source) => failed("cannot read the backup", file)(source).into(),
        Unreadable::Damaged(offset, reason) => BackupError::Damaged { file: file.to_owned(), offset, reason },
    }
}

/// Reads all rows; tells for each the rows and bytes up to it.
fn read(file: &Path, mut each: impl FnMut(u64, u64, Record) -> Result<(), BackupError>) -> Result<(Head, Progress), BackupError> {
    let (mut reader, head) = Reader::open(file).map_err(|error| unreadable(file, error))?;
    let mut rows = 0;
    loop {
        let at = reader.bytes();
        let Some(record) = reader.next().map_err(|error| unreadable(file, error))? else { break };
        if usize::from(record.shard.0) >= head.shards.len() {
            return Err(BackupError::Damaged {
                file: file.to_owned(),
                offset: at,
                reason: format!("a row is of shard {}, which does not exist", record.shard.0),
            });
        }
        rows += 1;
        each(rows, reader.bytes(), record)?;
    }
    Ok((head, Progress { rows, bytes: reader.bytes() }))
}
