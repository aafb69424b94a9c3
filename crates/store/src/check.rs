//! The physical check of a data directory that no process has open: every group, every checksum, every position.

use bytes::Bytes;
use std::io;
use std::path::{Path, PathBuf};

use selvedge_kernel::id::ShardId;

use crate::directory::{self, Directory, Meta};
use crate::disk::Disk;
use crate::entry::{self, Entry};
use crate::error::OpenError;
use crate::group::Group;
use crate::log::ShardState;
use crate::recovery::{self, Used};
use crate::shadow::Shadow;
use crate::tree::Tree;

/// What a check found. That there is a report means that nothing is damaged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// What the directory's `meta` says.
    pub meta: Meta,
    /// The segments of the log that hold groups, oldest first.
    pub segments: Vec<SegmentReport>,
    /// Files of the log that hold nothing.
    pub spare_files: usize,
    /// The last group that the tree has.
    pub carried: u64,
    /// The last group.
    pub last: u64,
    /// Commits in groups that the tree does not have.
    pub commits: u64,
    /// Where a torn tail stands, which the next start cuts.
    pub torn: Option<(PathBuf, u64)>,
    /// Rows of the tree that stay.
    pub rows: u64,
    /// Rows of the tree that expire.
    pub expiring_rows: u64,
    /// Bytes of the values of all rows of the tree.
    pub value_bytes: u64,
    /// Shards that somebody has claimed, with their last number.
    pub shards: Vec<(ShardId, u64)>,
}

/// One segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SegmentReport {
    /// Its file.
    pub file: PathBuf,
    /// The use of the file.
    pub incarnation: u64,
    /// Its first group.
    pub first: u64,
    /// Its last group.
    pub last: u64,
    /// Bytes in use.
    pub bytes: u64,
    /// Everything in it is in the tree.
    pub carried: bool,
}

/// Checks a data directory. Writes nothing in it but, if it can, who has it locked: the medium may be full, or mounted to
/// be read only. The small files of the tree are copied to `/dev/shm` or the folder for temporary files.
///
/// # Errors
/// As for opening a store; damage names file and offset.
pub fn check(dir: &Path) -> Result<Report, OpenError> {
    let disk = Disk::looking();
    let directory = directory::look(dir, "check")?;
    let shadow = Shadow::of(&directory.tree()).map_err(|error| unreadable(&directory, &error))?;
    let tree = Tree::open(&shadow.tree(), directory.meta.shards).map_err(|error| unreadable(&directory, &error))?;
    let mut report = Report {
        meta: directory.meta,
        segments: Vec::new(),
        spare_files: 0,
        carried: tree.position.group,
        last: tree.position.group,
        commits: 0,
        torn: None,
        rows: 0,
        expiring_rows: 0,
        value_bytes: 0,
        shards: Vec::new(),
    };
    tree.view()
        .walk(|expires, bytes| {
            if expires {
                report.expiring_rows += 1;
            } else {
                report.rows += 1;
            }
            report.value_bytes += bytes;
        })
        .map_err(|error| unreadable(&directory, &error))?;
    let states = check_log(&directory, &disk, &tree, &mut report)?;
    let claimed = states.iter().enumerate().filter(|(_, state)| state.epoch.0 > 0);
    report.shards = claimed.map(|(n, state)| (ShardId(n as u16), state.last)).collect();
    Ok(report)
}

fn unreadable(directory: &Directory, error: &io::Error) -> OpenError {
    OpenError::Tree { path: directory.tree(), reason: error.to_string() }
}

fn check_log(directory: &Directory, disk: &Disk, tree: &Tree, report: &mut Report) -> Result<Vec<ShardState>, OpenError> {
    let store = directory.meta.store;
    let scan = recovery::scan(disk, &directory.log(), &store)?;
    recovery::refuse_lost(&directory.log(), &scan)?;
    let live = recovery::live(&directory.log(), scan, tree.position.group, tree.position.incarnation)?;
    report.spare_files = live.blank.len();
    let mut states = tree.position.shards.clone();
    for Used { spare, first } in &live.carried {
        let file = spare.file.path().to_owned();
        report.segments.push(SegmentReport { file, incarnation: first.incarnation, first: first.number, last: first.number, bytes: 0, carried: true });
    }
    let nexts: Vec<_> = live.used.iter().skip(1).map(|used| used.first).collect();
    for (n, Used { spare, first }) in live.used.iter().enumerate() {
        let bytes = recovery::read_whole(&spare.file)?;
        let path = spare.file.path();
        let end = recovery::walk(&bytes, &store, first, |offset, group| {
            if group.header.number <= tree.position.group {
                return Ok(());
            }
            report.commits += check_group(path, offset, &group, &mut states)?;
            Ok(())
        })?;
        recovery::refuse_headless(&live.blank, first.incarnation, end.last, nexts.get(n))?;
        recovery::refuse_damage(path, &bytes, &store, first, end, nexts.get(n))?;
        if n == nexts.len() && crate::group::claimed_incarnation(&bytes[end.offset as usize..], &store) == Some(first.incarnation) {
            report.torn = Some((path.to_owned(), end.offset));
        }
        if n == nexts.len() {
            recovery::refuse_short(path, first, end, &tree.position)?;
        }
        let carried = end.last <= tree.position.group;
        report.last = report.last.max(end.last);
        let file = path.to_owned();
        report.segments.push(SegmentReport { file, incarnation: first.incarnation, first: first.number, last: end.last, bytes: end.offset, carried });
    }
    Ok(states)
}

/// Checks the entries of a group; says how many commits it holds.
fn check_group(path: &Path, offset: u64, group: &Group<'_>, states: &mut [ShardState]) -> Result<u64, OpenError> {
    let damaged = |reason: &str| OpenError::Damaged { file: path.to_owned(), offset, reason: format!("group {}: {reason}", group.header.number) };
    let (mut count, mut commits) = (0, 0);
    for entry in entry::entries(group.body) {
        count += 1;
        let entry = entry.ok_or_else(|| damaged("an entry is unreadable although the checksum fits"))?;
        let (Entry::Claim { shard, .. } | Entry::Commit { shard, .. }) = entry;
        let state = states.get_mut(usize::from(shard.0)).ok_or_else(|| damaged("an entry names a shard that does not exist"))?;
        match entry {
            Entry::Claim { epoch, .. } if epoch <= state.epoch => return Err(damaged("a claim does not raise the epoch")),
            Entry::Claim { epoch, owner, .. } => (state.epoch, state.owner) = (epoch, owner),
            Entry::Commit { number, .. } if number != state.last + 1 => {
                return Err(damaged("the number of a commit does not follow the one before"));
            }
            Entry::Commit { number, rows, .. } => {
                state.last = number;
                commits += 1;
                let rows = Bytes::copy_from_slice(rows);
                let mut read = entry::rows(&rows).ok_or_else(|| damaged("the rows of a commit are unreadable"))?;
                if read.any(|row| row.is_none()) {
                    return Err(damaged("the rows of a commit are unreadable"));
                }
            }
        }
    }
    if count != group.header.entries {
        return Err(damaged("it has not as many entries as its header says"));
    }
    Ok(commits)
}
