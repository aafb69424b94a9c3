//! A group of the log: whatever stands on the disk, reading it ends, and what was sealed is read back whole.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use selvedge_store::entry::{Entry, entries, rows};
use selvedge_store::group::{self, Header};

const STORE: [u8; 16] = [7; 16];

fuzz_target!(|bytes: &[u8]| {
    if let Some(group) = group::parse(bytes, &STORE) {
        read(group.body);
    }
    // The same bytes as a body with a right checksum, so that the entries behind it are reached too.
    let mut buffer = Vec::new();
    group::begin(&mut buffer);
    buffer.extend_from_slice(bytes);
    let header = Header { store: STORE, incarnation: 3, number: 9, entries: 1 };
    group::seal(&mut buffer, &header);
    let Some(group) = group::parse(&buffer, &STORE) else { panic!("a sealed group is not read back") };
    assert_eq!((group.header, group.body, group.bytes), (header, bytes, buffer.len()));
    read(group.body);
});

fn read(body: &[u8]) {
    for entry in entries(body).flatten() {
        if let Entry::Commit { rows: encoded, .. } = entry {
            let encoded = Bytes::copy_from_slice(encoded);
            rows(&encoded).into_iter().flatten().for_each(drop);
        }
    }
}
