//! A data directory that an earlier version wrote opens in this one, and everything is read.

use std::path::{Path, PathBuf};

use crate::support::{Place, small, wait};
use bytes::Bytes;
use selvedge_kernel::id::{Key, ShardId};
use selvedge_kernel::ports::{Commit, CommitOutcome, Epoch, Fold, Owner, Put, Store, under};
use selvedge_kernel::time::Day;
use selvedge_store::conformance::unfold;
use selvedge_store::{EmbeddedStore, Options, check};

const SHARD: ShardId = ShardId(1);

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/format-1")
}

fn options() -> Options {
    Options { shards: 2, segment_bytes: 4096, ..small() }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

/// What stands in the fixture: rows in the tree and in the log, small and large, some that expire, a fold in each.
fn write(dir: &Path) {
    let store = EmbeddedStore::open(dir, options()).unwrap();
    let claim = wait(store.claim(SHARD, Owner([3; 16]))).unwrap();
    for number in 1..=24u64 {
        let put = |key: String, len: usize, expires| Put { key: Key::from(key), value: Bytes::from(vec![number as u8; len]), expires };
        let mut commit = Commit { shard: SHARD, epoch: claim.epoch, number, puts: Vec::new(), deletes: Vec::new(), folds: Vec::new() };
        commit.puts.push(put(format!("stays/{number:02}"), 300, None));
        commit.puts.push(put(format!("leaves/{number:02}"), 20, Some(Day(40_000))));
        commit.puts.push(put(format!("journal-{}/{number:02}", number / 12), 40, None));
        if number % 8 == 0 {
            commit.puts.push(put(format!("large/{number:02}"), 5_000, None));
            commit.deletes.push(Key::from(format!("stays/{:02}", number - 1)));
        }
        if number % 12 == 11 {
            let (prefix, into) = (format!("journal-{}/", number / 12), format!("folded-{}/", number / 12));
            commit.folds.push(Fold { prefix: Key::from(prefix), into: Key::from(into), expires: Some(Day(40_000)) });
        }
        assert_eq!(wait(store.commit(vec![commit])), [CommitOutcome::Done]);
    }
    while store.stats().waiting > 0 {
        std::thread::yield_now();
    }
}

fn read(dir: &Path) {
    let store = EmbeddedStore::open(dir, options()).unwrap();
    let scan = |prefix: &str| wait(store.scan(SHARD, under(prefix.as_bytes()), usize::MAX)).unwrap();
    assert_eq!(scan("stays/").len(), 21);
    assert_eq!(scan("leaves/").len(), 24);
    assert_eq!(scan("large/").iter().map(|(_, value)| value.len()).collect::<Vec<_>>(), [5_000; 3]);
    assert_eq!(scan("journal-").len(), 1, "two were folded, the last begins a third");
    assert_eq!(unfold(&scan("folded-0/")).len(), 11);
    assert_eq!(unfold(&scan("folded-1/")).len(), 12);
    for (key, value) in scan("stays/") {
        let number: u8 = std::str::from_utf8(&key[6..]).unwrap().parse().unwrap();
        assert!(value.iter().all(|&byte| byte == number));
    }
    let claim = wait(store.claim(SHARD, Owner([4; 16]))).unwrap();
    assert_eq!((claim.epoch, claim.last), (Epoch(2), 24));
}

#[test]
fn directory_of_format_1_opens_and_everything_is_read() {
    let place = Place::new("fixture");
    copy(&fixture(), &place.data());
    let report = check(&place.data()).unwrap();
    assert_eq!((report.meta.format, report.last), (1, 25));
    assert!(report.carried > 0 && report.commits > 0, "some of it is in the tree, some in the log");
    read(&place.data());
}

#[test]
fn this_version_writes_what_the_fixture_of_its_format_holds() {
    let place = Place::new("fixture-new");
    write(&place.data());
    if let Ok(target) = std::env::var("SELVEDGE_WRITE_FIXTURE") {
        copy(&place.data(), Path::new(&target));
    }
    read(&place.data());
}
