//! `log/files`: which files the log has, and how long each was made.
//!
//! A file of the log is filled with zeros to its end before it is used, and never gets shorter. Written down, a
//! file that was cut or removed is told from a torn tail, which leaves a file as long as it was.
//!
//! ```text
//! selvedge-log 1
//! SLOT BYTES        a line for each file
//! sum CRC-64/NVME   in hexadecimal, over the lines before
//! ```

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};

use crc_fast::{CrcAlgorithm, checksum};

use crate::disk::Disk;
use crate::error::OpenError;
use crate::recovery::Scan;
use crate::segment::file_name;

const NAME: &str = "files";
const MAGIC_LINE: &str = "selvedge-log 1";

/// The files of the log by the number in their name, with their lengths in bytes.
pub type Lengths = BTreeMap<u32, u64>;

/// The list as it stands on the disk, and its one writer.
pub struct Files {
    path: PathBuf,
    disk: Disk,
    lengths: Lengths,
}

impl Files {
    /// The list of a folder in which these files stand; nothing is written yet.
    #[must_use]
    pub fn new(folder: &Path, disk: &Disk, lengths: Lengths) -> Files {
        Files { path: folder.join(NAME), disk: disk.clone(), lengths }
    }

    /// The files and their lengths.
    #[must_use]
    pub fn lengths(&self) -> &Lengths {
        &self.lengths
    }

    /// Adds a file that is durable.
    pub fn add(&mut self, slot: u32, bytes: u64) -> io::Result<()> {
        self.lengths.insert(slot, bytes);
        self.write()
    }

    /// Takes a file off the list, before it is removed.
    pub fn take_off(&mut self, slot: u32) -> io::Result<()> {
        self.lengths.remove(&slot);
        self.write()
    }

    /// Puts the list in place.
    pub fn write(&self) -> io::Result<()> {
        self.disk.replace(&self.path, encode(&self.lengths).as_bytes())
    }
}

/// The files that a scan found.
#[must_use]
pub fn found(scan: &Scan) -> Lengths {
    let spares = scan.used.iter().map(|used| &used.spare).chain(scan.blank.iter().map(|blank| &blank.spare));
    spares.map(|spare| (spare.slot, spare.capacity)).collect()
}

/// The list in a folder; `None` if there is none, because an older version wrote the log.
pub fn read(folder: &Path) -> Result<Option<Lengths>, OpenError> {
    let file = folder.join(NAME);
    match std::fs::read(&file) {
        Ok(bytes) => match decode(&bytes) {
            Some(lengths) => Ok(Some(lengths)),
            None => {
                let reason =
                    "it does not read as the list of the log's files; if nothing else is wrong, remove it: the files are then taken as long as they are";
                Err(OpenError::Damaged { file, offset: 0, reason: reason.to_owned() })
            }
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(OpenError::io("cannot read", &file)(error)),
    }
}

/// Refuses a log of which a file is gone, or shorter than it was made.
pub fn refuse_cut(folder: &Path, listed: &Lengths, found: &Lengths) -> Result<(), OpenError> {
    for (slot, made) in listed {
        let file = folder.join(file_name(*slot));
        let (offset, what) = match found.get(slot) {
            // A group that is larger than a whole file makes it longer.
            Some(bytes) if bytes >= made => continue,
            Some(bytes) => (*bytes, format!("it has {bytes} bytes and was made with {made}: it was cut")),
            None => (0, "it was removed".to_owned()),
        };
        let way = format!("to go on without what was lost, keep a copy of the directory and run `truncate -s {made} {}`", file.display());
        return Err(OpenError::Damaged { file, offset, reason: format!("{what}, and no crash does that; {way}") });
    }
    Ok(())
}

fn encode(lengths: &Lengths) -> String {
    let mut text = format!("{MAGIC_LINE}\n");
    for (slot, bytes) in lengths {
        // Writing to a string does not fail.
        writeln!(text, "{slot} {bytes}").unwrap_or(());
    }
    let sum = checksum(CrcAlgorithm::Crc64Nvme, text.as_bytes());
    writeln!(text, "sum {sum:016x}").unwrap_or(());
    text
}

fn decode(bytes: &[u8]) -> Option<Lengths> {
    let text = std::str::from_utf8(bytes).ok()?;
    let lines = text.strip_prefix(MAGIC_LINE)?.strip_prefix('\n')?;
    let lines = &lines[..lines.rfind("sum ")?];
    let lengths = lines.lines().map(|line| {
        let (slot, bytes) = line.split_once(' ')?;
        Some((slot.parse().ok()?, bytes.parse().ok()?))
    });
    let lengths = lengths.collect::<Option<Lengths>>()?;
    (encode(&lengths) == text).then_some(lengths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn list_reads_back_and_any_changed_byte_is_refused(lengths in proptest::collection::btree_map(any::<u32>(), any::<u64>(), 0..6), at: usize, bit in 0..8u8) {
            let mut bytes = encode(&lengths).into_bytes();
            prop_assert_eq!(decode(&bytes), Some(lengths));
            for cut in 0..bytes.len() {
                prop_assert_eq!(decode(&bytes[..cut]), None);
            }
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(decode(&bytes), None);
        }
    }
}
