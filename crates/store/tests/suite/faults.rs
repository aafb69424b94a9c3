//! Disk faults and crashes at every file operation of a small scenario.

use std::sync::Arc;

use crate::support::{Place, small, wait};
use bytes::Bytes;
use selvedge_kernel::id::{Key, ShardId};
use selvedge_kernel::ports::{Commit, CommitOutcome, Owner, Put, Store, StoreError, under};
use selvedge_store::{EmbeddedStore, Fault, Faults, OpenError, Options, Unsynced};

const SHARDS: u16 = 2;
const BATCHES: u64 = 14;
const ROWS: usize = 3;

fn options(faults: &Faults) -> Options {
    Options { faults: faults.clone(), segment_bytes: 16 * 1024, ..small() }
}

/// What a run was told: the number of the last acknowledged commit of each shard.
type Told = [u64; SHARDS as usize];

fn commit(shard: u16, epoch: selvedge_kernel::ports::Epoch, number: u64) -> Commit {
    let puts = (0..ROWS).map(|n| Put {
        key: Key::from(format!("{number:04}/{n}")),
        value: Bytes::from(vec![number as u8; if n == 0 { 5_000 } else { 30 }]),
        expires: None,
    });
    Commit { shard: ShardId(shard), epoch, number, puts: puts.collect(), deletes: Vec::new(), folds: Vec::new() }
}

/// Claims the shards and commits until the end or the first thing that is not done.
fn run(store: &EmbeddedStore, told: &mut Told) -> Result<(), StoreError> {
    let mut claims = Vec::new();
    for shard in 0..SHARDS {
        claims.push(wait(store.claim(ShardId(shard), Owner([1; 16])))?);
    }
    for _ in 0..BATCHES {
        let next = |shard: u16| told[usize::from(shard)] + 1;
        let batch: Vec<Commit> = (0..SHARDS).map(|shard| commit(shard, claims[usize::from(shard)].epoch, next(shard))).collect();
        let outcomes = wait(store.commit(batch));
        for (shard, outcome) in outcomes.iter().enumerate() {
            match outcome {
                CommitOutcome::Done => told[shard] += 1,
                CommitOutcome::Unknown => {}
                other => panic!("{other:?}"),
            }
        }
        if outcomes.contains(&CommitOutcome::Unknown) {
            let Err(error @ StoreError::Stopped { .. }) = wait(store.get(ShardId(0), Key::new())) else { panic!("it goes on after a fault") };
            return Err(error);
        }
    }
    Ok(())
}

/// Everything acknowledged is there, each commit is whole, and no number is missing.
fn check(store: &EmbeddedStore, told: &Told, what: &str) -> Told {
    check_if_running(store, told, what).unwrap()
}

fn check_if_running(store: &EmbeddedStore, told: &Told, what: &str) -> Option<Told> {
    let mut found = [0; SHARDS as usize];
    for shard in 0..SHARDS {
        let rows = wait(store.scan(ShardId(shard), under(b""), usize::MAX)).ok()?;
        assert_eq!(rows.len() % ROWS, 0, "{what}: a commit is not whole");
        for (n, (key, value)) in rows.iter().enumerate() {
            let number = (n / ROWS + 1) as u64;
            assert_eq!(*key, Key::from(format!("{number:04}/{}", n % ROWS)), "{what}: a hole");
            assert!(value.iter().all(|&byte| byte == number as u8), "{what}: wrong bytes");
        }
        let last = (rows.len() / ROWS) as u64;
        let told = told[usize::from(shard)];
        assert!(last >= told, "{what}: shard {shard} was told {told}, has {last}");
        assert!(last <= told + 1, "{what}: shard {shard} has {last}, only {told} were told and one was asked for");
        found[usize::from(shard)] = last;
    }
    Some(found)
}

fn recovers(place: &Place, told: &Told, what: &str) {
    let mut told = {
        let store = EmbeddedStore::open(&place.data(), options(&Faults::none())).unwrap();
        let mut found = check(&store, told, what);
        run(&store, &mut found).unwrap();
        found
    };
    let store = EmbeddedStore::open(&place.data(), options(&Faults::none())).unwrap();
    told = check(&store, &told, what);
    assert!(told.iter().all(|&last| last >= BATCHES));
}

/// Runs the scenario with a fault; gives back what was told and the error that a person would read.
fn faulty(place: &Place, faults: &Faults) -> (Told, Option<String>) {
    let mut told = [0; SHARDS as usize];
    let error = match EmbeddedStore::open(&place.data(), options(faults)) {
        Err(error @ OpenError::Io { .. }) => Some(error.to_string()),
        Err(error) => panic!("{error}"),
        Ok(store) => run(&store, &mut told).err().map(|error| error.to_string()),
    };
    (told, error)
}

fn crash_at_any_file_operation(unsynced: Unsynced) {
    let mut after = 0;
    loop {
        let place = Place::new("crash");
        let faults = Faults::none();
        faults.set(Fault::Crash { after, unsynced });
        let (told, _) = faulty(&place, &faults);
        if !faults.crashed() {
            assert!(after > 60, "the scenario has some operations");
            break;
        }
        faults.lose_unsynced().unwrap();
        recovers(&place, &told, &format!("{unsynced:?} after {after} operations"));
        after += 1;
    }
}

#[test]
fn crash_at_any_file_operation_loses_nothing_acknowledged_if_unsynced_bytes_are_kept() {
    crash_at_any_file_operation(Unsynced::Kept);
}

#[test]
fn crash_at_any_file_operation_loses_nothing_acknowledged_if_unsynced_bytes_are_torn() {
    crash_at_any_file_operation(Unsynced::Torn);
}

#[test]
fn crash_at_any_file_operation_loses_nothing_acknowledged_if_unsynced_bytes_are_lost() {
    crash_at_any_file_operation(Unsynced::Lost);
}

#[test]
fn crash_while_recovering_from_a_crash_loses_nothing() {
    for first in [9, 30, 47, 61] {
        for second in 0..25 {
            let place = Place::new("twice");
            let faults = Faults::none();
            faults.set(Fault::Crash { after: first, unsynced: Unsynced::Torn });
            let (mut told, _) = faulty(&place, &faults);
            faults.set(Fault::Crash { after: second, unsynced: Unsynced::Lost });
            if let Ok(store) = EmbeddedStore::open(&place.data(), options(&faults)) {
                // The carrier may crash while this reads.
                if let Some(found) = check_if_running(&store, &told, "after the first crash") {
                    told = found;
                    run(&store, &mut told).unwrap_or(());
                }
            }
            faults.lose_unsynced().unwrap();
            recovers(&place, &told, &format!("{first}, then {second} operations"));
        }
    }
}

fn fails(fault: impl Fn(u64) -> Fault, says: &str) {
    let mut nth = 0;
    loop {
        let place = Place::new("fault");
        let faults = Faults::none();
        faults.set(fault(nth));
        let (told, error) = faulty(&place, &faults);
        let Some(error) = error else {
            if told == [BATCHES; SHARDS as usize] && nth > 30 {
                break;
            }
            nth += 1;
            continue;
        };
        assert!(error.contains(says) || error.contains("check that the path"), "{error}");
        recovers(&place, &told, &format!("fault {nth}: {error}"));
        nth += 1;
    }
}

#[test]
fn full_disk_acknowledges_nothing_after_it_and_says_so() {
    fails(|nth| Fault::Write { nth, os_error: 28 }, "No space left on device");
}

#[test]
fn failing_write_acknowledges_nothing_after_it_and_says_so() {
    fails(|nth| Fault::Write { nth, os_error: 5 }, "Input/output error");
}

#[test]
fn failing_sync_is_final_and_says_so() {
    fails(|nth| Fault::Sync { nth, os_error: 5 }, "Input/output error");
}

#[test]
fn every_commit_behind_a_failed_operation_is_unknown() {
    let place = Place::new("behind");
    let faults = Faults::none();
    let store = Arc::new(EmbeddedStore::open(&place.data(), options(&faults)).unwrap());
    let claim = wait(store.claim(ShardId(0), Owner([1; 16]))).unwrap();
    faults.set(Fault::Crash { after: 3, unsynced: Unsynced::Kept });
    let mut outcomes = wait(store.commit(vec![commit(0, claim.epoch, 1)]));
    let answers: Vec<_> = (2..=50).map(|number| store.commit(vec![commit(0, claim.epoch, number)])).collect();
    outcomes.extend(answers.into_iter().map(|answer| wait(answer).remove(0)));
    let done = outcomes.iter().take_while(|outcome| **outcome == CommitOutcome::Done).count();
    assert!(outcomes[done..].iter().all(|outcome| *outcome == CommitOutcome::Unknown));
    assert!(done < 50);
    drop(store);
    let store = EmbeddedStore::open(&place.data(), options(&Faults::none())).unwrap();
    let last = wait(store.claim(ShardId(0), Owner([1; 16]))).unwrap().last;
    assert!(last >= done as u64);
}
