//! Opening: the log is read into the table, and its tail made ready.

use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;

use crate::directory::Directory;
use crate::disk::Disk;
use crate::embedded::{Shared, unclaimed};
use crate::entry::{self, Entry};
use crate::error::OpenError;
use crate::group::{Group, HEADER_BYTES};
use crate::log::{GROUP_MAX_BYTES, Log, ShardState};
use crate::options::Options;
use crate::recovery::{self, End, Scan, Used};
use crate::segment::{Pool, Segment, Spare};
use crate::table::Place;

/// A log that is ready to be written.
pub struct Opened {
    /// The state of its thread.
    pub log: Log,
    /// Where a torn tail was cut, if one was.
    pub cut: Option<String>,
}

/// Reads the log of a directory into the tables.
pub fn read(directory: &Directory, disk: &Disk, options: &Options, shared: &Arc<Shared>) -> Result<Opened, OpenError> {
    let folder = directory.log();
    let store = directory.meta.store;
    let Scan { used, blank, next_slot } = recovery::scan(disk, &folder, &store)?;
    let files = used.len() + blank.len();
    let highest = used.last().map_or(0, |used| used.first.incarnation);
    let inside = blank.iter().filter_map(|blank| blank.inside.map(|(header, _)| header.incarnation)).max();
    let mut shards = unclaimed(directory.meta.shards);
    let mut last = 0;
    let mut tail = None;
    let mut cut = None;

    if let Some(first) = used.first().filter(|used| used.first.number != 1) {
        recovery::refuse_headless(&blank, 0, 0, Some(&first.first))?;
    }
    if let Some(first) = used.first().filter(|used| used.first.number != 1) {
        return Err(missing(&folder, 1, first));
    }
    let nexts: Vec<_> = used.iter().skip(1).map(|used| used.first).collect();
    let free: Vec<Spare> = Vec::new();
    let pool = Pool::new(&folder, disk, options.segment_bytes, free, next_slot, files);
    let mut blank = blank;
    for (n, Used { spare, first }) in used.into_iter().enumerate() {
        let bytes = recovery::read_whole(&spare.file)?;
        let segment = Arc::new(Segment::new(spare, first.incarnation, &pool));
        let path = segment.file.path();
        let end = recovery::walk(&bytes, &store, &first, |offset, group| replay(path, &segment, offset, group, &mut shards, shared))?;
        recovery::refuse_headless(&blank, first.incarnation, end.last, nexts.get(n))?;
        recovery::refuse_damage(path, &bytes, &store, &first, end, nexts.get(n))?;
        last = end.last;
        if n == nexts.len() {
            cut = make_tail_ready(&segment, &bytes, end)?;
            tail = Some((segment, end.offset));
        }
    }
    if last == 0 {
        recovery::refuse_headless(&blank, 0, 0, None)?;
    }
    pool.adopt(blank.drain(..).map(|blank| blank.spare));
    let log = Log { shared: Arc::clone(shared), pool, store, shards, tail, next_group: last + 1, next_incarnation: highest.max(inside.unwrap_or(0)) + 1 };
    Ok(Opened { log, cut })
}

fn missing(folder: &Path, expected: u64, first: &Used) -> OpenError {
    let reason = format!(
        "group {expected} is missing: the log goes on with group {} in {}; a file of the log was removed or its first group is bad",
        first.first.number,
        first.spare.file.path().display()
    );
    OpenError::Damaged { file: folder.to_owned(), offset: 0, reason }
}

/// Applies one group to the tables and the states of the shards.
fn replay(path: &Path, segment: &Arc<Segment>, offset: u64, group: Group<'_>, shards: &mut [ShardState], shared: &Shared) -> Result<(), OpenError> {
    let damaged = |reason: &str| OpenError::Damaged { file: path.to_owned(), offset, reason: format!("group {}: {reason}", group.header.number) };
    let mut count = 0;
    for entry in entry::entries(group.body) {
        count += 1;
        match entry.ok_or_else(|| damaged("an entry is unreadable although the checksum fits"))? {
            Entry::Claim { shard, epoch, owner } => {
                let state = shards.get_mut(usize::from(shard.0)).ok_or_else(|| damaged("a claim names a shard that does not exist"))?;
                (state.epoch, state.owner) = (epoch, owner);
            }
            Entry::Commit { shard, number, rows, large_at } => {
                let state = shards.get_mut(usize::from(shard.0)).ok_or_else(|| damaged("a commit names a shard that does not exist"))?;
                if number != state.last + 1 {
                    return Err(damaged("the number of a commit does not follow the one before"));
                }
                state.last = number;
                let place = Place { segment, offset: offset + (HEADER_BYTES + large_at) as u64 };
                let applied = shared.tables.apply(shard, &Bytes::copy_from_slice(rows), &place);
                if !applied.map_err(OpenError::io("cannot read", path))? {
                    return Err(damaged("the rows of a commit are unreadable although the checksum fits"));
                }
            }
        }
    }
    if count != group.header.entries {
        return Err(damaged("it has not as many entries as its header says"));
    }
    Ok(())
}

/// Makes the last group durable and clears what stands behind it, so that a torn group never comes back.
///
/// The last group may have been written but not synced before the process died: it is written again, because a sync
/// that failed once may have left pages that look clean.
fn make_tail_ready(segment: &Segment, bytes: &[u8], end: End) -> Result<Option<String>, OpenError> {
    let file = &segment.file;
    let start = (end.offset - end.last_bytes) as usize;
    let stop = (end.offset as usize).min(bytes.len());
    file.write_at(&bytes[start..stop], start as u64).map_err(OpenError::io("cannot write", file.path()))?;
    let behind = &bytes[stop..bytes.len().min(stop + GROUP_MAX_BYTES)];
    let torn = behind.iter().any(|&byte| byte != 0);
    if torn {
        file.write_at(&vec![0; behind.len()], stop as u64).map_err(OpenError::io("cannot write", file.path()))?;
    }
    file.sync().map_err(OpenError::io("cannot sync", file.path()))?;
    Ok(torn.then(|| format!("{} at byte {}", file.path().display(), end.offset)))
}
