//! A tree that falls behind: new work is slowed down and refused, what was accepted goes on, and nothing is lost.

use std::time::{Duration, Instant};

use crate::support::{Place, claim, small, wait};
use bytes::Bytes;
use selvedge_kernel::id::{Key, ShardId};
use selvedge_kernel::ports::{Commit, CommitOutcome, Epoch, Put, Store, under};
use selvedge_kernel::pressure::Admission;
use selvedge_store::{EmbeddedStore, Faults, Options};

const SHARD: ShardId = ShardId(2);

fn commit(store: &EmbeddedStore, epoch: Epoch, number: u64, bytes: usize) {
    let put = Put { key: Key::from(format!("k/{number:05}")), value: Bytes::from(vec![7; bytes]), expires: None };
    let commit = Commit { shard: SHARD, epoch, number, puts: vec![put], deletes: Vec::new(), folds: Vec::new() };
    assert_eq!(wait(store.commit(vec![commit])), [CommitOutcome::Done], "{number}");
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::yield_now();
    }
}

fn refused_and_taken_again(name: &str, options: Options, bytes: usize) {
    let place = Place::new(name);
    let faults = Faults::none();
    let store = EmbeddedStore::open(&place.data(), Options { faults: faults.clone(), ..options.clone() }).unwrap();
    let (epoch, mut last) = claim(&store, SHARD.0);
    faults.hold_carrier();
    let (mut slowed, pressure) = (false, store.pressure());
    while pressure.admission() != Admission::Refused {
        slowed |= matches!(pressure.admission(), Admission::After(_));
        last += 1;
        commit(&store, epoch, last, bytes);
        assert!(last < 10_000, "it never falls behind");
    }
    assert!(slowed, "work was refused that had not been slowed down before");
    assert!(store.stats().behind);
    // What was accepted before goes on: there is room for it behind the place where new work is refused.
    for _ in 0..4 {
        last += 1;
        commit(&store, epoch, last, bytes);
    }
    assert_eq!(pressure.admission(), Admission::Refused);
    faults.release_carrier();
    // Nobody commits any more, because everything new is refused; it comes to an end all the same.
    until("new work is refused for ever", || pressure.admission() == Admission::Now);
    last += 1;
    commit(&store, epoch, last, bytes);
    let keys = |store: &EmbeddedStore| wait(store.scan(SHARD, under(b"k/"), usize::MAX)).unwrap().len() as u64;
    assert_eq!(keys(&store), last);
    drop(store);
    let store = EmbeddedStore::open(&place.data(), options).unwrap();
    assert_eq!(claim(&store, SHARD.0).1, last);
    assert_eq!(keys(&store), last);
}

#[test]
fn work_is_slowed_down_then_refused_while_the_table_is_full_and_taken_again_when_the_carrier_runs() {
    refused_and_taken_again("behind-table", Options { table_bytes: 256 * 1024, ..small() }, 1000);
}

#[test]
fn work_is_slowed_down_then_refused_while_the_log_is_full_and_taken_again_when_the_carrier_runs() {
    refused_and_taken_again("behind-log", Options { log_bytes: 1024 * 1024, segment_bytes: 32 * 1024, ..small() }, 1000);
}

#[test]
fn spans_that_are_kept_in_memory_are_carried_before_new_work_is_refused_for_them() {
    refused_and_taken_again("behind-kept", Options { table_bytes: 256 * 1024, spans_kept: 100, ..small() }, 1000);
}

#[test]
fn store_that_is_closed_while_its_carrier_stands_still_closes_and_loses_nothing() {
    let place = Place::new("behind-closed");
    let faults = Faults::none();
    let options = Options { table_bytes: 256 * 1024, faults: faults.clone(), ..small() };
    let store = EmbeddedStore::open(&place.data(), options.clone()).unwrap();
    let (epoch, _) = claim(&store, SHARD.0);
    faults.hold_carrier();
    for number in 1..=150 {
        commit(&store, epoch, number, 1000);
    }
    wait(store.close()).unwrap();
    drop(store);
    faults.release_carrier();
    let store = EmbeddedStore::open(&place.data(), options).unwrap();
    assert_eq!(claim(&store, SHARD.0).1, 150);
    assert_eq!(wait(store.scan(SHARD, under(b"k/"), usize::MAX)).unwrap().len(), 150);
}
