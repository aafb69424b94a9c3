//! The physical check of a closed store.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::support::{Place, claim, groups, small, wait};
use bytes::Bytes;
use selvedge_kernel::id::{Key, ShardId};
use selvedge_kernel::ports::{Commit, CommitOutcome, Put, Store};
use selvedge_kernel::time::Day;
use selvedge_store::{EmbeddedStore, OpenError, ReadOnlyCopy, check};

fn written(place: &Place) -> [u8; 16] {
    let store = EmbeddedStore::open(&place.data(), small()).unwrap();
    let (epoch, last) = claim(&store, 5);
    for number in last + 1..=last + 60 {
        let row = |key: String, expires| Put { key: Key::from(key), value: Bytes::from(vec![7; 3000]), expires };
        let puts = vec![row(format!("a/{number}"), None), row(format!("b/{number}"), Some(Day(120)))];
        let commit = Commit { shard: ShardId(5), epoch, number, puts, deletes: Vec::new(), folds: Vec::new() };
        assert_eq!(wait(store.commit(vec![commit])), [CommitOutcome::Done]);
    }
    while store.stats().waiting > 0 {
        std::thread::yield_now();
    }
    store.meta().store
}

#[test]
fn sound_store_is_reported_with_its_groups_and_rows() {
    let place = Place::new("sound");
    written(&place);
    let report = check(&place.data()).unwrap();
    assert_eq!(report.last, 61);
    assert!(report.carried > 0 && report.carried < 61);
    assert_eq!(report.rows, report.expiring_rows);
    assert_eq!(report.rows + report.commits, 60);
    assert_eq!(report.shards, [(ShardId(5), 60)]);
    assert_eq!(report.torn, None);
    assert!(report.segments.iter().any(|segment| !segment.carried && segment.last == 61));
    assert_eq!(check(&place.data()).unwrap(), report, "checking changes nothing");
    assert_eq!(claim(&EmbeddedStore::open(&place.data(), small()).unwrap(), 5).1, 60);
}

/// Every file and folder with its time of change and its content.
fn everything(folder: &Path, found: &mut Vec<(PathBuf, SystemTime, Vec<u8>)>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let (path, meta) = (entry.path(), entry.metadata().unwrap());
        // Who has it locked is noted where that is possible.
        if entry.file_name() == "lock" {
            continue;
        }
        let content = if meta.is_dir() { Vec::new() } else { std::fs::read(&path).unwrap() };
        found.push((path.clone(), meta.modified().unwrap(), content));
        if meta.is_dir() {
            everything(&path, found);
        }
    }
    found.sort();
}

#[test]
fn checking_writes_nothing_and_needs_no_file_that_can_be_written() {
    let place = Place::new("looked-at");
    written(&place);
    let (mut before, mut after) = (Vec::new(), Vec::new());
    everything(&place.data(), &mut before);
    for (path, ..) in &before {
        let mut permissions = std::fs::metadata(path).unwrap().permissions();
        permissions.set_readonly(true);
        std::fs::set_permissions(path, permissions).unwrap();
    }
    let report = check(&place.data()).unwrap();
    assert!(report.rows > 0);
    everything(&place.data(), &mut after);
    assert!(before == after, "something was written");
    std::fs::remove_file(place.data().join("lock")).unwrap();
    assert_eq!(check(&place.data()).unwrap(), report);
    assert!(!place.data().join("lock").exists());
    for (path, ..) in &before {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    assert_eq!(claim(&EmbeddedStore::open(&place.data(), small()).unwrap(), 5).1, 60);
}

#[test]
fn damage_is_named_with_file_and_offset() {
    let place = Place::new("unsound");
    let store = written(&place);
    let all = groups(&place.data(), &store);
    let (path, at, bytes) = &all[all.len() - 2];
    let mut content = std::fs::read(path).unwrap();
    content[at + bytes / 2] ^= 1;
    std::fs::write(path, content).unwrap();
    let error = check(&place.data()).unwrap_err();
    let OpenError::Damaged { file, offset, .. } = &error else { panic!("{error}") };
    assert_eq!((file, *offset), (path, *at as u64));
}

#[test]
fn torn_tail_is_reported_and_left_to_the_next_start() {
    let place = Place::new("torn-check");
    let store = written(&place);
    let (path, at, bytes) = groups(&place.data(), &store).pop().unwrap();
    let mut content = std::fs::read(&path).unwrap();
    content[at + bytes / 2] ^= 1;
    std::fs::write(&path, content).unwrap();
    let report = check(&place.data()).unwrap();
    assert_eq!((report.last, report.torn), (60, Some((path.clone(), at as u64))));
    let store = EmbeddedStore::open(&place.data(), small()).unwrap();
    assert_eq!(store.stats().cut, Some(format!("{} at byte {at}", path.display())));
}

#[test]
fn store_that_is_open_or_absent_is_not_checked() {
    let place = Place::new("open-check");
    assert!(matches!(check(&place.data()), Err(OpenError::Io { .. })));
    let _store = EmbeddedStore::open(&place.data(), small()).unwrap();
    assert!(matches!(check(&place.data()), Err(OpenError::Held { .. })));
}

#[test]
fn copy_of_what_may_only_be_read_has_every_row_takes_commits_and_leaves_the_original_as_it_is() {
    let place = Place::new("copy");
    written(&place);
    let mut before = Vec::new();
    everything(&place.data(), &mut before);
    let copy = ReadOnlyCopy::of(&place.data(), "a test").unwrap();
    let mode = std::fs::metadata(copy.data()).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "what is copied is for nobody else");
    assert!(matches!(EmbeddedStore::open(&place.data(), small()), Err(OpenError::Held { .. })), "nobody writes into it meanwhile");
    let store = EmbeddedStore::open(&copy.data(), small()).unwrap();
    let (epoch, last) = claim(&store, 5);
    assert_eq!(last, 60);
    assert_eq!(wait(store.scan(ShardId(5), Key::from("a/")..Key::from("a0"), 100)).unwrap().len(), 60);
    let put = Put { key: Key::from("c"), value: Bytes::from_static(b"1"), expires: None };
    let commit = Commit { shard: ShardId(5), epoch, number: 61, puts: vec![put], deletes: Vec::new(), folds: Vec::new() };
    assert_eq!(wait(store.commit(vec![commit])), [CommitOutcome::Done]);
    wait(store.close()).unwrap();
    let data = copy.data();
    drop((store, copy));
    assert!(!data.exists(), "the copy goes");
    let mut after = Vec::new();
    everything(&place.data(), &mut after);
    assert_eq!(after, before);
    assert_eq!(claim(&EmbeddedStore::open(&place.data(), small()).unwrap(), 5).1, 60);
}
