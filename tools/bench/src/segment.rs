//! A file that is zero-filled and synced ahead of use, and written round and round: the bare disk, as a log sees it.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// How large a segment is.
pub const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;

/// One zero-filled file and the place of the next write.
#[derive(Debug)]
pub struct Segment {
    file: File,
    at: u64,
}

impl Segment {
    /// Makes the file, fills it and syncs it. It is filled a page at a time, as the store fills its own: what is filled in larger
    /// pieces lies in larger pieces of the page cache, and each small write then costs a whole piece.
    pub fn create(path: &Path) -> std::io::Result<Segment> {
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(path)?;
        let zeros = vec![0; 4096];
        for _ in 0..SEGMENT_BYTES / zeros.len() as u64 {
            file.write_all(&zeros)?;
        }
        file.sync_all()?;
        Ok(Segment { file, at: 0 })
    }

    /// Writes at the next place, from the start again when the end is reached, and waits until it is on disk.
    pub fn append(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        if self.at + bytes.len() as u64 > SEGMENT_BYTES {
            self.at = 0;
        }
        self.file.write_all_at(bytes, self.at)?;
        self.at += bytes.len() as u64;
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_segment_keeps_its_length_and_holds_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("segment");
        let mut segment = Segment::create(&path).unwrap();
        segment.append(b"one").unwrap();
        segment.at = SEGMENT_BYTES - 1;
        segment.append(b"two").unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!((bytes.len() as u64, &bytes[..4]), (SEGMENT_BYTES, &b"two\0"[..]));
    }
}
