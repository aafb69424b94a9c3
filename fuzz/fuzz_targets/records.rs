//! Values of the store: any bytes are a record or an error, and a record survives being written again.
#![no_main]

use std::fmt::Debug;

use libfuzzer_sys::fuzz_target;
use selvedge_kernel::journal::Entry;
use selvedge_kernel::record::{actor, invocation, message, run, shard};
use selvedge_kernel::wire;
use serde::Serialize;
use serde::de::DeserializeOwned;

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 14 {
        0 => again::<Entry>(bytes),
        1 => again::<message::Message>(bytes),
        2 => again::<message::Envelope>(bytes),
        3 => again::<message::KeptSignal>(bytes),
        4 => again::<message::OutboxRow>(bytes),
        5 => again::<message::KeptReply>(bytes),
        6 => again::<actor::DeadLetter>(bytes),
        7 => invocation_again(bytes),
        8 => again::<invocation::Begun>(bytes),
        9 => again::<invocation::Idempotent>(bytes),
        10 => again::<invocation::OutputChunk>(bytes),
        11 => again::<shard::ShardHead>(bytes),
        12 => annex_again(bytes),
        _ => again::<shard::Timer>(bytes),
    }
});

fn again<T: Serialize + DeserializeOwned + Debug>(bytes: &[u8]) {
    if let Ok(value) = wire::decode::<T>("record", bytes) {
        let written = wire::encode(&value);
        match wire::decode::<T>("record", &written) {
            Ok(read) => assert_eq!(wire::encode(&read), written),
            Err(error) => panic!("{value:?} cannot be read again: {error}"),
        }
    }
}

/// What a run knows beside its header has grown: it has a version that says its trace, and one that does not.
fn annex_again(bytes: &[u8]) {
    if let Ok(value) = run::Annex::decode(bytes) {
        match run::Annex::decode(&value.encode()) {
            Ok(read) => assert_eq!(read, value),
            Err(error) => panic!("{value:?} cannot be read again: {error}"),
        }
    }
}

/// The record of an invocation has grown: it has a version that says its build, and one that does not.
fn invocation_again(bytes: &[u8]) {
    if let Ok(value) = invocation::Invocation::decode(bytes) {
        let written = value.encode();
        match invocation::Invocation::decode(&written) {
            Ok(read) => assert_eq!(read.encode(), written),
            Err(error) => panic!("{value:?} cannot be read again: {error}"),
        }
    }
}
