//! A group: what one write and one sync bring to the log.
//!
//! ```text
//!  0  checksum     u64   CRC-64/NVME over everything from byte 8 to the end of the body
//!  8  magic        u64
//! 16  store        16 B  the store's id
//! 32  incarnation  u64   of the segment: counted up with each use of a file
//! 40  number       u64   of the group: one more than that of the group before
//! 48  length       u32   of the body
//! 52  entries      u32
//! 56  reserved     u64   zero
//! 64  body, then zeros up to the next multiple of 64
//! ```
//! All numbers are little endian.

use crc_fast::{CrcAlgorithm, checksum};

/// Bytes in front of the body; also what a group's place is a multiple of.
pub const HEADER_BYTES: usize = 64;
const MAGIC: u64 = u64::from_le_bytes(*b"selvlog1");

/// What stands in front of a group's body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// The store it belongs to.
    pub store: [u8; 16],
    /// The use of the segment that it was written in.
    pub incarnation: u64,
    /// Counted without a hole from 1, over all segments.
    pub number: u64,
    /// Entries of the body.
    pub entries: u32,
}

/// A group as read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Group<'a> {
    /// Its header.
    pub header: Header,
    /// Its entries.
    pub body: &'a [u8],
    /// Bytes from its start to where the next one starts.
    pub bytes: usize,
}

/// Empties a buffer and leaves room for the header.
pub fn begin(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.resize(HEADER_BYTES, 0);
}

/// Writes the header of the body that was appended since [`begin`], and pads.
pub fn seal(buffer: &mut Vec<u8>, header: &Header) {
    let length = (buffer.len() - HEADER_BYTES) as u32;
    buffer[8..16].copy_from_slice(&MAGIC.to_le_bytes());
    buffer[16..32].copy_from_slice(&header.store);
    buffer[32..40].copy_from_slice(&header.incarnation.to_le_bytes());
    buffer[40..48].copy_from_slice(&header.number.to_le_bytes());
    buffer[48..52].copy_from_slice(&length.to_le_bytes());
    buffer[52..56].copy_from_slice(&header.entries.to_le_bytes());
    let sum = checksum(CrcAlgorithm::Crc64Nvme, &buffer[8..]);
    buffer[..8].copy_from_slice(&sum.to_le_bytes());
    buffer.resize(buffer.len().next_multiple_of(HEADER_BYTES), 0);
}

/// The length of the body that a header claims, if it looks like one of this store; nothing is checked.
#[must_use]
pub fn claimed_length(header: &[u8], store: &[u8; 16]) -> Option<usize> {
    if header.get(8..16)? != MAGIC.to_le_bytes() || header.get(16..32)? != store {
        return None;
    }
    Some(u32::from_le_bytes(header.get(48..52)?.try_into().ok()?) as usize)
}

/// The incarnation that a header claims, if it looks like one of this store; nothing is checked.
#[must_use]
pub fn claimed_incarnation(header: &[u8], store: &[u8; 16]) -> Option<u64> {
    claimed_length(header, store)?;
    Some(u64::from_le_bytes(header.get(32..40)?.try_into().ok()?))
}

/// The group that starts at the front of `bytes`, or `None` if no whole group of this store does.
#[must_use]
pub fn parse<'a>(bytes: &'a [u8], store: &[u8; 16]) -> Option<Group<'a>> {
    let header = bytes.get(..HEADER_BYTES)?;
    let length = claimed_length(header, store)?;
    let end = HEADER_BYTES.checked_add(length)?;
    let sum = checksum(CrcAlgorithm::Crc64Nvme, bytes.get(8..end)?);
    if header[..8] != sum.to_le_bytes() {
        return None;
    }
    Some(Group {
        header: Header {
            store: *store,
            incarnation: u64::from_le_bytes(header[32..40].try_into().ok()?),
            number: u64::from_le_bytes(header[40..48].try_into().ok()?),
            entries: u32::from_le_bytes(header[52..56].try_into().ok()?),
        },
        body: &bytes[HEADER_BYTES..end],
        bytes: end.next_multiple_of(HEADER_BYTES),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn group_reads_back_and_any_changed_byte_is_refused(body in proptest::collection::vec(any::<u8>(), 0..300),
                                                            incarnation: u64, number: u64, at: usize, bit in 0..8u8) {
            let header = Header { store: [7; 16], incarnation, number, entries: 3 };
            let mut buffer = Vec::new();
            begin(&mut buffer);
            buffer.extend_from_slice(&body);
            seal(&mut buffer, &header);
            let group = parse(&buffer, &[7; 16]).unwrap();
            prop_assert_eq!(group.header, header);
            prop_assert_eq!(group.body, &body[..]);
            prop_assert_eq!(group.bytes, buffer.len());
            let at = at % (HEADER_BYTES + body.len());
            buffer[at] ^= 1 << bit;
            prop_assert_eq!(parse(&buffer, &[7; 16]), None);
        }
    }
}
