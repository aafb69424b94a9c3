//! Reading the log when a store opens.
//!
//! One write is in flight at a time, so group n + 1 exists only if group n was synced. A bad group with no valid group
//! after it is a torn tail and is cut; a bad group before a valid one is damage, and the store does not start.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, DiskFile};
use crate::error::OpenError;
use crate::files;
use crate::group::{self, Group, HEADER_BYTES, Header};
use crate::position::Position;
use crate::segment::Spare;

/// What stands in the folder of the log.
pub struct Scan {
    /// Uses of files that hold groups, by incarnation.
    pub used: Vec<Used>,
    /// Files that hold none.
    pub blank: Vec<Blank>,
    /// Above every slot in the folder.
    pub next_slot: u32,
}

/// A file that starts with a valid group.
pub struct Used {
    /// The file.
    pub spare: Spare,
    /// The first group in it.
    pub first: Header,
}

/// A file that does not start with a valid group.
pub struct Blank {
    /// The file.
    pub spare: Spare,
    /// The highest valid group further inside, and where: old content, or damage.
    pub inside: Option<(Header, u64)>,
    /// The incarnation that its bad header claims, if it looks like one of this store.
    pub claims: Option<u64>,
}

/// One place in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct End {
    /// Bytes of the last segment that are in use.
    pub offset: u64,
    /// The number of the last group, 0 if there is none.
    pub last: u64,
    /// Bytes of the last group, 0 if it is not in this segment.
    pub last_bytes: u64,
}

/// Looks at every file in the folder.
pub fn scan(disk: &Disk, folder: &Path, store: &[u8; 16]) -> Result<Scan, OpenError> {
    let mut scan = Scan { used: Vec::new(), blank: Vec::new(), next_slot: 1 };
    let entries = std::fs::read_dir(folder).map_err(OpenError::io("cannot read the directory", folder))?;
    for entry in entries {
        let path = entry.map_err(OpenError::io("cannot read the directory", folder))?.path();
        let Some(slot) = slot_of(&path) else { continue };
        scan.next_slot = scan.next_slot.max(slot + 1);
        let file = disk.open(&path).map_err(OpenError::io("cannot open", &path))?;
        let capacity = file.length().map_err(OpenError::io("cannot read", &path))?;
        let first = read_first(&file, store).map_err(OpenError::io("cannot read", &path))?;
        let (inside, claims) = match first {
            Some(_) => (None, None),
            None => {
                let bytes = read_whole(&file)?;
                (highest(&bytes, 0, store), group::claimed_incarnation(&bytes, store))
            }
        };
        let spare = Spare { slot, file: Arc::new(file), capacity };
        match first {
            Some(first) => scan.used.push(Used { spare, first }),
            None => scan.blank.push(Blank { spare, inside, claims }),
        }
    }
    scan.used.sort_by_key(|used| used.first.incarnation);
    Ok(scan)
}

/// The file beside the segments that says that groups have been written: from then on there is always a segment that
/// holds some.
const BEGUN: &str = "begun";

/// Refuses a log that has lost what it held: no segment with groups although there have been some, or a file that is
/// gone or was cut. Nothing is changed before this.
pub fn refuse_lost(folder: &Path, scan: &Scan) -> Result<(), OpenError> {
    let advice = "nothing was changed; restore a backup, or copy the directory before you try anything";
    if scan.used.is_empty() && folder.join(BEGUN).exists() {
        let reason = format!("no segment of the log holds anything, and the store has been written to: files were removed or emptied; {advice}");
        return Err(OpenError::Damaged { file: folder.to_owned(), offset: 0, reason });
    }
    match files::read(folder)? {
        Some(listed) => files::refuse_cut(folder, &listed, &files::found(scan)),
        None => Ok(()),
    }
}

/// Refuses a last segment that ends before the group up to which the tree has it: it was synced before the tree had it.
pub fn refuse_short(path: &Path, first: &Header, end: End, position: &Position) -> Result<(), OpenError> {
    if first.incarnation != position.incarnation || end.last >= position.group {
        return Ok(());
    }
    let reason =
        format!("the tree has everything up to group {}, and the log ends with group {}: what stood behind it was overwritten", position.group, end.last);
    Err(OpenError::Damaged { file: path.to_owned(), offset: end.offset, reason })
}

/// Notes that groups have been written.
pub fn note_begun(folder: &Path) -> std::io::Result<()> {
    let path = folder.join(BEGUN);
    if path.exists() {
        return Ok(());
    }
    std::fs::File::create(&path)?.sync_all()?;
    std::fs::File::open(folder)?.sync_all()
}

/// Whether a file of the log starts with something.
pub fn looks_used(folder: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else { return false };
    entries.flatten().filter(|entry| slot_of(&entry.path()).is_some()).any(|entry| {
        let mut start = [0u8; 16];
        let read = std::fs::File::open(entry.path()).and_then(|mut file| std::io::Read::read_exact(&mut file, &mut start));
        read.is_ok() && start != [0; 16]
    })
}

/// The log behind a position.
pub struct Live {
    /// Uses of files before the one that holds the first group behind the position.
    pub carried: Vec<Used>,
    /// The rest, by incarnation.
    pub used: Vec<Used>,
    /// Files that hold no groups.
    pub blank: Vec<Blank>,
    /// Above every slot in the folder.
    pub next_slot: u32,
    /// The highest incarnation that was seen.
    pub incarnation: u64,
}

/// Splits what stands in the folder at a position; refuses a log that does not go on there.
pub fn live(folder: &Path, scan: Scan, group: u64, incarnation: u64) -> Result<Live, OpenError> {
    let Scan { used: mut carried, blank, next_slot } = scan;
    let highest = carried.last().map_or(0, |used| used.first.incarnation);
    let inside = blank.iter().filter_map(|blank| blank.inside.map(|(header, _)| header.incarnation)).max();
    let needed = carried.iter().rposition(|used| used.first.number <= group + 1).unwrap_or(0);
    let used = carried.split_off(needed);
    if let Some(first) = used.first().filter(|used| used.first.number > group + 1) {
        refuse_headless(&blank, incarnation, group, Some(&first.first))?;
        let (number, file) = (first.first.number, first.spare.file.path().display());
        let reason = format!("group {} is missing: the log goes on with group {number} in {file}; a file was removed or its first group is bad", group + 1);
        return Err(OpenError::Damaged { file: folder.to_owned(), offset: 0, reason });
    }
    if used.is_empty() {
        refuse_headless(&blank, incarnation, group, None)?;
    }
    Ok(Live { carried, used, blank, next_slot, incarnation: highest.max(inside.unwrap_or(0)).max(incarnation) })
}

/// The number in the name of a file of the log.
fn slot_of(path: &Path) -> Option<u32> {
    path.file_name()?.to_str()?.strip_suffix(".log")?.parse().ok()
}

fn read_first(file: &DiskFile, store: &[u8; 16]) -> std::io::Result<Option<Header>> {
    let mut head = vec![0; HEADER_BYTES];
    if file.read_at(&mut head, 0)? < HEADER_BYTES {
        return Ok(None);
    }
    let Some(length) = group::claimed_length(&head, store) else {
        return Ok(None);
    };
    if length as u64 + HEADER_BYTES as u64 > file.length()? {
        return Ok(None);
    }
    let mut whole = vec![0; HEADER_BYTES + length];
    let count = file.read_at(&mut whole, 0)?;
    Ok(group::parse(&whole[..count], store).map(|group| group.header))
}

/// The bytes of a file.
pub fn read_whole(file: &DiskFile) -> Result<Vec<u8>, OpenError> {
    let length = file.length().map_err(OpenError::io("cannot read", file.path()))?;
    let mut bytes = vec![0; length as usize];
    let count = file.read_at(&mut bytes, 0).map_err(OpenError::io("cannot read", file.path()))?;
    bytes.truncate(count);
    Ok(bytes)
}

/// The valid group with the highest incarnation and number from `from` on, and where it starts.
fn highest(bytes: &[u8], from: usize, store: &[u8; 16]) -> Option<(Header, u64)> {
    let places = (from..bytes.len()).step_by(HEADER_BYTES);
    let groups = places.filter_map(|at| Some((group::parse(&bytes[at..], store)?.header, at as u64)));
    groups.max_by_key(|(header, _)| (header.incarnation, header.number))
}

/// Walks the groups of one use of a file, from `expected` on; says where they end.
pub fn walk<'a>(bytes: &'a [u8], store: &[u8; 16], first: &Header, mut each: impl FnMut(u64, Group<'a>) -> Result<(), OpenError>) -> Result<End, OpenError> {
    let mut end = End { offset: 0, last: first.number - 1, last_bytes: 0 };
    while let Some(group) = bytes.get(end.offset as usize..).and_then(|rest| group::parse(rest, store)) {
        if group.header.incarnation != first.incarnation || group.header.number != end.last + 1 {
            break;
        }
        each(end.offset, group)?;
        end = End { offset: end.offset + group.bytes as u64, last: group.header.number, last_bytes: group.bytes as u64 };
    }
    Ok(end)
}

/// Refuses a log in which a valid group stands after the place where the groups of a segment ended.
///
/// `next` is the first group of the segment after it, if there is one.
pub fn refuse_damage(path: &Path, bytes: &[u8], store: &[u8; 16], first: &Header, end: End, next: Option<&Header>) -> Result<(), OpenError> {
    let damaged = |reason: String| Err(OpenError::Damaged { file: path.to_owned(), offset: end.offset, reason });
    if let Some(next) = next {
        if next.number != end.last + 1 {
            return damaged(format!("group {} is bad or missing, and the next segment begins with group {}", end.last + 1, next.number));
        }
        return Ok(());
    }
    match highest(bytes, end.offset as usize, store) {
        Some((header, at)) if header.incarnation >= first.incarnation && header.number > end.last => {
            damaged(format!("group {} is bad, and a valid group {} stands after it at byte {at}", end.last + 1, header.number))
        }
        _ => Ok(()),
    }
}

/// Refuses a log in which a file without a valid first group stands between two segments or holds newer groups.
///
/// `last` is the last group of the segment that ended, `next` the first group of the segment after it.
pub fn refuse_headless(blank: &[Blank], incarnation: u64, last: u64, next: Option<&Header>) -> Result<(), OpenError> {
    for Blank { spare, inside, claims } in blank {
        let damaged = |reason: String| Err(OpenError::Damaged { file: PathBuf::from(spare.file.path()), offset: 0, reason });
        if let Some((header, at)) = inside
            && header.incarnation > incarnation
            && header.number > last
        {
            return damaged(format!("the first group is bad, and a valid group {} stands after it at byte {at}", header.number));
        }
        if let Some(next) = next
            && next.number != last + 1
            && claims.is_some_and(|claims| incarnation < claims && claims < next.incarnation)
        {
            return damaged(format!("the first group is bad, and the next segment begins with group {}", next.number));
        }
    }
    Ok(())
}
