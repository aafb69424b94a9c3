//! Opening: the log is read into the table, and its tail made ready.

use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;

use crate::directory::Directory;
use crate::disk::Disk;
use crate::embedded::Shared;
use crate::entry::{self, Entry};
use crate::error::OpenError;
use crate::files::{self, Files};
use crate::group::{self, Group, HEADER_BYTES};
use crate::log::{GROUP_MAX_BYTES, Log};
use crate::options::Options;
use crate::recovery::{self, End, Live, Used};
use crate::segment::{Pool, Segment};
use crate::table::Applied;
use crate::tree::{Tree, View};

/// A log that is ready to be written, and the tree that it is carried into.
pub struct Opened {
    /// The state of its thread.
    pub log: Log,
    /// The tree.
    pub tree: Tree,
    /// Where a torn tail was cut, if one was.
    pub cut: Option<String>,
}

/// Opens the tree of a directory and reads the log behind it into the tables.
pub fn read(directory: &Directory, disk: &Disk, options: &Options, shared: &Arc<Shared>) -> Result<Opened, OpenError> {
    let (folder, store) = (directory.log(), directory.meta.store);
    let path = directory.tree();
    let scan = recovery::scan(disk, &folder, &store)?;
    recovery::refuse_lost(&folder, &scan)?;
    if !scan.used.is_empty() {
        recovery::note_begun(&folder).map_err(OpenError::io("cannot write", &folder))?;
    }
    let mut tree = Tree::open(&path, directory.meta.shards).map_err(|error| tree_error(&path, &error))?;
    tree.drop_past().map_err(|error| tree_error(&path, &error))?;
    let position = tree.position.clone();
    let view = Arc::new(tree.view());
    shared.tables.carried(&view, &[]);

    let files = Files::new(&folder, disk, files::found(&scan));
    if files::read(&folder)?.as_ref() != Some(files.lengths()) {
        files.write().map_err(OpenError::io("cannot write the list of files in", &folder))?;
    }
    let Live { carried, used, blank, next_slot, incarnation } = recovery::live(&folder, scan, position.group, position.incarnation)?;
    let pool = Pool::new(&folder, disk, options.segment_bytes, next_slot, files);
    let mut log = Log {
        shared: Arc::clone(shared),
        pool: Arc::clone(&pool),
        store,
        shards: position.shards.clone(),
        settled: position.shards.clone(),
        tail: None,
        next_group: position.group + 1,
        next_incarnation: incarnation + 1,
        span: 0,
        filled: Vec::new(),
        bytes_before: 0,
    };
    let mut cut = None;
    let nexts: Vec<_> = used.iter().skip(1).map(|used| used.first).collect();
    for (n, Used { spare, first }) in used.into_iter().enumerate() {
        let bytes = recovery::read_whole(&spare.file)?;
        let segment = Arc::new(Segment::new(spare, first.incarnation, &pool));
        let path = segment.file.path();
        let end = recovery::walk(&bytes, &store, &first, |offset, group| {
            if group.header.number > position.group {
                replay(path, &segment, offset, group, &mut log, &view)?;
            }
            if let Some(intent) = tree.intent.as_ref().filter(|intent| intent.group == group.header.number) {
                // The same commits make the same layers, so the passes that were done are known by their number.
                let span = log.span;
                log.end_span(position.watermark, intent.passes);
                for _ in 0..intent.passes {
                    shared.tables.carried(&view, &shared.tables.oldest(span));
                }
            }
            Ok(())
        })?;
        recovery::refuse_headless(&blank, first.incarnation, end.last, nexts.get(n))?;
        recovery::refuse_damage(path, &bytes, &store, &first, end, nexts.get(n))?;
        if n < nexts.len() {
            log.filled.push(segment);
            let incarnation = std::mem::replace(&mut log.next_incarnation, first.incarnation + 1);
            // Later groups may hold folds of any day since the position was written.
            log.end_span(position.watermark, 0);
            log.next_incarnation = incarnation;
        } else if end.last < position.group {
            recovery::refuse_short(path, &first, end, &position)?;
            // The tree has more than this segment shows: it is not written any further.
            segment.set_carried();
        } else {
            cut = make_tail_ready(&segment, &bytes, end, &store)?;
            log.tail = Some((segment, end.offset));
        }
    }
    pool.adopt(carried.into_iter().map(|used| used.spare).chain(blank.into_iter().map(|blank| blank.spare)));
    Ok(Opened { log, tree, cut })
}

fn tree_error(path: &Path, error: &std::io::Error) -> OpenError {
    OpenError::Tree { path: path.to_owned(), reason: error.to_string() }
}

/// Applies one group to the tables and the states of the shards.
fn replay(path: &Path, segment: &Arc<Segment>, offset: u64, group: Group<'_>, log: &mut Log, view: &View) -> Result<(), OpenError> {
    let damaged = |reason: &str| OpenError::Damaged { file: path.to_owned(), offset, reason: format!("group {}: {reason}", group.header.number) };
    let mut count = 0;
    for entry in entry::entries(group.body) {
        count += 1;
        match entry.ok_or_else(|| damaged("an entry is unreadable although the checksum fits"))? {
            Entry::Claim { shard, epoch, owner } => {
                let state = log.shards.get_mut(usize::from(shard.0)).ok_or_else(|| damaged("a claim names a shard that does not exist"))?;
                (state.epoch, state.owner) = (epoch, owner);
            }
            Entry::Commit { shard, number, rows, large_at } => {
                let state = log.shards.get_mut(usize::from(shard.0)).ok_or_else(|| damaged("a commit names a shard that does not exist"))?;
                if number != state.last + 1 {
                    return Err(damaged("the number of a commit does not follow the one before"));
                }
                state.last = number;
                let large_at = offset + (HEADER_BYTES + large_at) as u64;
                let commit = Applied { shard, number, rows: &Bytes::copy_from_slice(rows), segment, large_at, span: log.span };
                let applied = log.shared.tables.apply(&commit, Some(view));
                if !applied.map_err(OpenError::io("cannot read the tree for", path))? {
                    return Err(damaged("the rows of a commit are unreadable although the checksum fits"));
                }
            }
        }
    }
    if count != group.header.entries {
        return Err(damaged("it has not as many entries as its header says"));
    }
    log.next_group = group.header.number + 1;
    log.settled.clone_from(&log.shards);
    Ok(())
}

/// Makes the last group durable and clears what stands behind it, so that a torn group never comes back.
///
/// The last group may have been written but not synced before the process died: it is written again, because a sync
/// that failed once may have left pages that look clean.
fn make_tail_ready(segment: &Segment, bytes: &[u8], end: End, store: &[u8; 16]) -> Result<Option<String>, OpenError> {
    let file = &segment.file;
    let start = (end.offset - end.last_bytes) as usize;
    let stop = (end.offset as usize).min(bytes.len());
    file.write_at(&bytes[start..stop], start as u64).map_err(OpenError::io("cannot write", file.path()))?;
    let behind = &bytes[stop..bytes.len().min(stop + GROUP_MAX_BYTES)];
    if behind.iter().any(|&byte| byte != 0) {
        file.write_at(&vec![0; behind.len()], stop as u64).map_err(OpenError::io("cannot write", file.path()))?;
    }
    file.sync().map_err(OpenError::io("cannot sync", file.path()))?;
    // Anything else is what the file held when it was used before.
    let torn = group::claimed_incarnation(behind, store) == Some(segment.incarnation);
    Ok(torn.then(|| format!("{} at byte {}", file.path().display(), end.offset)))
}
