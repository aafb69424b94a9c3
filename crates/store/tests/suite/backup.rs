//! Backups are taken while commits run, and what is restored is what was acknowledged up to their position.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::support::{Place, claim, small, wait};
use bytes::Bytes;
use selvedge_kernel::id::{Key, ShardId};
use selvedge_kernel::ports::{Commit, CommitOutcome, Epoch, Fold, Put, Store, under};
use selvedge_kernel::time::Day;
use selvedge_store::backup::{self, FILE};
use selvedge_store::{BackupError, EmbeddedStore, OpenError, Options, PlaceError};

const SHARDS: u16 = 3;

fn options() -> Options {
    Options { shards: 4, segment_bytes: 32 * 1024, ..small() }
}

/// Far enough ahead that rows are seen on the day of the wall clock too.
const EXPIRES: Day = Day(4_000_000);

/// Commit `n` of a shard: a row that stays, one that expires, one that every commit changes, and now and then a large
/// one, a delete and a fold.
fn commit(shard: u16, epoch: Epoch, number: u64) -> Commit {
    let put = |key: String, bytes: usize, expires| Put { key: Key::from(key), value: Bytes::from(vec![number as u8; bytes]), expires };
    let mut puts = vec![put(format!("a/{number:06}"), 50, None), put(format!("e/{number:06}"), 50, Some(EXPIRES)), put("head".to_owned(), 8, None)];
    let mut deletes = Vec::new();
    let mut folds = Vec::new();
    if number.is_multiple_of(7) {
        puts.push(put(format!("large/{number:06}"), 6000, None));
        deletes.push(Key::from(format!("a/{:06}", number - 3)));
    }
    puts.push(put(format!("j/{:06}/{number:06}", number / 10), 30, None));
    if number % 10 == 9 {
        folds.push(Fold { prefix: Key::from(format!("j/{:06}/", number / 10)), into: Key::from(format!("f/{:06}/", number / 10)), expires: None });
    }
    Commit { shard: ShardId(shard), epoch, number, puts, deletes, folds }
}

fn write(store: &EmbeddedStore, epochs: &[Epoch], from: u64, to: u64) {
    for number in from..=to {
        let batch = epochs.iter().enumerate().map(|(shard, epoch)| commit(shard as u16, *epoch, number)).collect();
        assert_eq!(wait(store.commit(batch)), vec![CommitOutcome::Done; epochs.len()]);
    }
}

fn epochs(store: &EmbeddedStore) -> Vec<Epoch> {
    (0..SHARDS).map(|shard| claim(store, shard).0).collect()
}

fn rows(store: &EmbeddedStore, shard: u16) -> BTreeMap<Key, Bytes> {
    wait(store.scan(ShardId(shard), under(b""), usize::MAX)).unwrap().into_iter().collect()
}

/// What a shard holds after so many commits, by another store.
fn expected(last: u64) -> BTreeMap<Key, Bytes> {
    let place = Place::new(&format!("expected-{last}"));
    let store = EmbeddedStore::open(&place.data(), options()).unwrap();
    let (epoch, _) = claim(&store, 0);
    for number in 1..=last {
        assert_eq!(wait(store.commit(vec![commit(0, epoch, number)])), [CommitOutcome::Done]);
    }
    rows(&store, 0)
}

#[test]
fn backup_taken_while_commits_run_holds_every_acknowledged_commit_up_to_its_position_and_none_after() {
    let place = Place::new("backup");
    let store = EmbeddedStore::open(&place.data(), options()).unwrap();
    let epochs = epochs(&store);
    let acknowledged = Arc::new(AtomicU64::new(0));
    for round in 0..3 {
        let (to, restored) = (place.data().with_file_name(format!("to-{round}")), place.data().with_file_name(format!("restored-{round}")));
        let stop = Arc::new(AtomicBool::new(false));
        let writer = {
            let (store, epochs, stop, acknowledged) = (store.clone(), epochs.clone(), Arc::clone(&stop), Arc::clone(&acknowledged));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Acquire) {
                    let number = acknowledged.load(Ordering::Acquire) + 1;
                    write(&store, &epochs, number, number);
                    acknowledged.store(number, Ordering::Release);
                }
            })
        };
        while acknowledged.load(Ordering::Acquire) < 60 * (round + 1) {
            std::thread::yield_now();
        }
        let before = acknowledged.load(Ordering::Acquire);
        let taken = backup::backup(&store, &to, |_| {}).unwrap();
        stop.store(true, Ordering::Release);
        writer.join().unwrap();
        assert_eq!(taken.store, store.meta().store);
        let (found, report) = backup::restore(&to, &restored, "test", |_| {}).unwrap();
        assert_eq!(found, taken);
        assert_eq!(report.rows + report.expiring_rows, taken.size.rows);
        let again = EmbeddedStore::open(&restored, options()).unwrap();
        assert_ne!(again.meta().store, store.meta().store);
        for (shard, old) in epochs.iter().enumerate() {
            let (epoch, last) = claim(&again, shard as u16);
            assert_eq!(taken.shards[shard], (ShardId(shard as u16), last));
            assert!(last >= before, "commit {before} was acknowledged before the backup, and it holds {last}");
            assert!(epoch.0 > old.0 + 1000, "{epoch:?} is not above {old:?}");
            assert_eq!(rows(&again, shard as u16), expected(last), "shard {shard} round {round}");
            // It goes on, with the next number.
            assert_eq!(wait(again.commit(vec![commit(shard as u16, epoch, last + 1)])), [CommitOutcome::Done]);
        }
        assert_eq!(claim(&again, SHARDS).1, 0, "a shard that nobody had has nothing");
        drop(again);
        let again = EmbeddedStore::open(&restored, options()).unwrap();
        assert_eq!(rows(&again, 0), expected(taken.shards[0].1 + 1));
    }
    assert_eq!(rows(&store, 0), expected(acknowledged.load(Ordering::Acquire)), "the store goes on as if nothing had been");
}

#[test]
fn backup_that_was_not_written_to_its_end_or_was_changed_is_not_restored() {
    let place = Place::new("backup-cut");
    let store = EmbeddedStore::open(&place.data(), options()).unwrap();
    let epochs = epochs(&store);
    write(&store, &epochs, 1, 12);
    let (to, target) = (place.data().with_file_name("to"), place.data().with_file_name("target"));
    backup::backup(&store, &to, |_| {}).unwrap();
    let whole = std::fs::read(to.join(FILE)).unwrap();
    let refused = |bytes: &[u8], what: &str| {
        std::fs::write(to.join(FILE), bytes).unwrap();
        match backup::restore(&to, &target, "test", |_| {}) {
            Err(BackupError::Damaged { .. }) => {}
            Err(error) => panic!("{what}: {error}"),
            Ok(_) => panic!("{what}: it was restored"),
        }
        assert_eq!(std::fs::read_dir(&target).unwrap().count(), 0, "{what}: something was written");
    };
    for cut in (0..whole.len()).step_by(37).chain(whole.len() - 50..whole.len()) {
        refused(&whole[..cut], &format!("cut to {cut} bytes"));
    }
    for at in (0..whole.len()).step_by(41).chain(whole.len() - 50..whole.len()) {
        let mut changed = whole.clone();
        changed[at] ^= 1 << (at % 8);
        refused(&changed, &format!("byte {at} changed"));
    }
    refused(&[&whole[..], b"x"].concat(), "something behind the end");
    // As a process leaves it that died before the end: the file has its other name.
    std::fs::remove_file(to.join(FILE)).unwrap();
    std::fs::write(to.join("rows.part"), &whole).unwrap();
    assert!(matches!(backup::restore(&to, &target, "test", |_| {}), Err(BackupError::Place(PlaceError::Io { .. }))));
    std::fs::rename(to.join("rows.part"), to.join(FILE)).unwrap();
    backup::restore(&to, &target, "test", |_| {}).unwrap();
}

#[test]
fn neither_backup_nor_restore_writes_where_something_is() {
    let place = Place::new("backup-taken");
    let store = EmbeddedStore::open(&place.data(), options()).unwrap();
    write(&store, &epochs(&store), 1, 3);
    let to = place.data().with_file_name("to");
    let not_empty = |result: Option<BackupError>, path: &Path| {
        let Some(error @ BackupError::Place(PlaceError::NotEmpty { .. })) = result else { panic!("{result:?}") };
        assert!(error.to_string().contains(&path.display().to_string()) && error.to_string().contains("name an empty"), "{error}");
    };
    not_empty(backup::backup(&store, &place.data(), |_| {}).err(), &place.data());
    backup::backup(&store, &to, |_| {}).unwrap();
    not_empty(backup::backup(&store, &to, |_| {}).err(), &to);
    not_empty(backup::restore(&to, &place.data(), "test", |_| {}).err(), &place.data());
}

#[test]
fn restore_that_was_interrupted_leaves_no_store() {
    let place = Place::new("restore-half");
    let store = EmbeddedStore::open(&place.data(), options()).unwrap();
    write(&store, &epochs(&store), 1, 3);
    let (to, target) = (place.data().with_file_name("to"), place.data().with_file_name("target"));
    backup::backup(&store, &to, |_| {}).unwrap();
    backup::restore(&to, &target, "test", |_| {}).unwrap();
    // The last thing that a restore writes.
    std::fs::remove_file(target.join("meta")).unwrap();
    assert!(matches!(EmbeddedStore::open(&target, options()), Err(OpenError::Foreign { .. })));
    assert!(matches!(backup::restore(&to, &target, "test", |_| {}), Err(BackupError::Place(PlaceError::NotEmpty { .. }))));
}

#[test]
fn store_that_has_stopped_gives_no_backup() {
    let place = Place::new("backup-stopped");
    let store = EmbeddedStore::open(&place.data(), options()).unwrap();
    wait(store.close()).unwrap();
    let error = backup::backup(&store, &place.data().with_file_name("to"), |_| {}).unwrap_err();
    assert!(matches!(&error, BackupError::Store(_)), "{error}");
}
