//! The reader of the log: whatever became of a segment, only groups that were written are read, in order, and whole.
#![no_main]

use libfuzzer_sys::fuzz_target;
use selvedge_store::group::{self, HEADER_BYTES, Header};
use selvedge_store::recovery;
use std::path::Path;

const STORE: [u8; 16] = [7; 16];
const GROUPS: u64 = 6;

fn first(incarnation: u64, number: u64) -> Header {
    Header { store: STORE, incarnation, number, entries: 1 }
}

/// A segment with six groups of one use of the file over six of an earlier use; says where the later ones end.
fn segment() -> (Vec<u8>, Vec<usize>) {
    let mut bytes = Vec::new();
    let mut ends = Vec::new();
    for (incarnation, from, size) in [(4, 1, 150), (5, 11, 90)] {
        let mut at = 0;
        ends.clear();
        for number in from..from + GROUPS {
            let mut buffer = Vec::new();
            group::begin(&mut buffer);
            buffer.extend((0..size + number as usize).map(|n| n as u8 ^ number as u8));
            group::seal(&mut buffer, &first(incarnation, number));
            bytes.resize(bytes.len().max(at + buffer.len()), 0);
            bytes[at..at + buffer.len()].copy_from_slice(&buffer);
            at += buffer.len();
            ends.push(at);
        }
    }
    (bytes, ends)
}

fuzz_target!(|changes: &[u8]| {
    let (original, ends) = segment();
    let mut bytes = original.clone();
    // Three bytes a change: where, and what. The last odd byte cuts the file.
    let mut chunks = changes.chunks_exact(3);
    for change in &mut chunks {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % bytes.len();
        bytes[at] = change[2];
    }
    if let [cut] = chunks.remainder() {
        let keep = bytes.len() * usize::from(*cut) / 256;
        bytes.truncate(keep.max(HEADER_BYTES));
    }
    let header = first(5, 11);
    let mut count = 0;
    let walked = recovery::walk(&bytes, &STORE, &header, |offset, group| {
        let start = if count == 0 { 0 } else { ends[count - 1] };
        assert_eq!(offset, start as u64, "a group is read where none was written");
        assert_eq!(group.body, &original[start + HEADER_BYTES..][..group.body.len()], "a group is read that was not written");
        count += 1;
        Ok(())
    });
    let Ok(end) = walked else { panic!("walking fails only if its visitor does") };
    assert_eq!(end.last, 10 + count as u64);
    let refused = recovery::refuse_damage(Path::new("fuzz"), &bytes, &STORE, &header, end, None).is_err();
    // What pads a group is not checked.
    let whole = |n: &usize| {
        let start = ends[n - 1];
        let end = start + HEADER_BYTES + 90 + 11 + n;
        bytes.get(start..end) == Some(&original[start..end])
    };
    let damaged_before_a_whole_group = (count + 1..GROUPS as usize).any(|n| whole(&n));
    assert_eq!(refused, damaged_before_a_whole_group, "refused if and only if a whole group stands behind the end");
});
