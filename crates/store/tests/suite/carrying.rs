//! Carrying: what the log holds goes into the tree, and its files are used again.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::support::{Place, claim, small, wait};
use bytes::Bytes;
use selvedge_kernel::id::{Key, ShardId};
use selvedge_kernel::ports::{Commit, CommitOutcome, Epoch, Fold, Put, Store, under};
use selvedge_kernel::time::Day;
use selvedge_store::conformance::unfold;
use selvedge_store::{EmbeddedStore, Faults, Options};

const SHARD: ShardId = ShardId(2);

/// A store and its one writer.
struct Writer {
    store: EmbeddedStore,
    epoch: Epoch,
    last: u64,
}

impl Writer {
    fn open(path: &Path, options: Options) -> Writer {
        let store = EmbeddedStore::open(path, options).unwrap();
        let (epoch, last) = claim(&store, SHARD.0);
        Writer { store, epoch, last }
    }

    fn next(&mut self) -> Commit {
        self.last += 1;
        Commit { shard: SHARD, epoch: self.epoch, number: self.last, puts: Vec::new(), deletes: Vec::new(), folds: Vec::new() }
    }

    fn commit(&mut self, change: impl FnOnce(&mut Commit)) {
        let mut commit = self.next();
        change(&mut commit);
        assert_eq!(wait(self.store.commit(vec![commit])), [CommitOutcome::Done]);
    }

    fn put(&mut self, key: &str, value: Bytes, expires: Option<Day>) {
        self.commit(|commit| commit.puts.push(Put { key: Key::copy_from_slice(key.as_bytes()), value, expires }));
    }

    /// Writes until everything before this is in the tree.
    fn carry(&mut self) {
        let filler = Bytes::from(vec![0; 4000]);
        for _ in 0..2 * self.segment_commits() {
            self.put("zz/filler", filler.clone(), None);
        }
        self.settle();
    }

    fn segment_commits(&self) -> u64 {
        16
    }

    fn settle(&self) {
        let start = Instant::now();
        while self.store.stats().waiting > 0 {
            assert!(start.elapsed() < Duration::from_secs(60), "the carrier does not come to an end");
            std::thread::yield_now();
        }
    }

    fn get(&self, key: &str) -> Option<Bytes> {
        wait(self.store.get(SHARD, Key::copy_from_slice(key.as_bytes()))).unwrap()
    }

    fn keys(&self, prefix: &str) -> Vec<String> {
        let rows = wait(self.store.scan(SHARD, under(prefix.as_bytes()), usize::MAX)).unwrap();
        rows.into_iter().map(|(key, _)| String::from_utf8(key.to_vec()).unwrap()).collect()
    }
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

#[test]
fn log_files_are_used_again_and_everything_is_read_from_the_tree() {
    let place = Place::new("reused");
    let mut expected = BTreeMap::new();
    for round in 0..4 {
        let mut writer = Writer::open(&place.data(), small());
        for n in 0..400 {
            let key = format!("k/{:04}", (n * 7 + round * 131) % 1000);
            let value = Bytes::from(vec![n as u8; 500 + n as usize * 3 % 5000]);
            if n % 5 == 4 {
                writer.commit(|commit| commit.deletes.push(Key::copy_from_slice(key.as_bytes())));
                expected.remove(&key);
            } else {
                writer.put(&key, value.clone(), None);
                expected.insert(key, value);
            }
        }
        writer.settle();
        let stats = writer.store.stats();
        assert!(stats.carried > 0, "the log was carried");
        let found = wait(writer.store.scan(SHARD, under(b"k/"), usize::MAX)).unwrap();
        let found: BTreeMap<_, _> = found.into_iter().map(|(key, value)| (String::from_utf8(key.to_vec()).unwrap(), value)).collect();
        assert!(found == expected, "round {round}");
        for (key, value) in &expected {
            assert_eq!(writer.get(key).as_ref(), Some(value), "round {round}");
        }
        let start = Instant::now();
        while writer.store.stats().log_files > 5 {
            assert!(start.elapsed() < Duration::from_secs(30), "{} files of the log", writer.store.stats().log_files);
            std::thread::yield_now();
        }
    }
    let bytes: u64 = std::fs::read_dir(place.data().join("log")).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert!(bytes <= 6 * 64 * 1024, "{bytes} bytes of log");
}

#[test]
fn deleted_row_stays_deleted_through_every_layer() {
    let place = Place::new("tombstones");
    let mut writer = Writer::open(&place.data(), small());
    writer.put("a", bytes("old"), None);
    writer.put("b", bytes("old"), None);
    writer.carry();
    writer.commit(|commit| commit.deletes.push(bytes("a")));
    assert_eq!((writer.get("a"), writer.keys("a")), (None, vec![]));
    writer.carry();
    assert_eq!((writer.get("a"), writer.keys("a")), (None, vec![]));
    drop(writer);
    let mut writer = Writer::open(&place.data(), small());
    assert_eq!((writer.get("a"), writer.get("b")), (None, Some(bytes("old"))));
    writer.put("a", bytes("new"), None);
    writer.carry();
    assert_eq!(writer.get("a"), Some(bytes("new")));
}

#[test]
fn rows_that_expire_leave_with_the_keyspace_of_their_day() {
    let place = Place::new("days");
    let today = Arc::new(AtomicU32::new(100));
    let read = Arc::clone(&today);
    let options = Options { today: Arc::new(move || Day(read.load(Ordering::Relaxed))), ..small() };
    let mut writer = Writer::open(&place.data(), options.clone());
    for day in [101, 102, 103, 400] {
        writer.put(&format!("x/{day}"), bytes("v"), Some(Day(day)));
    }
    // These change how long they are kept; each stands in one keyspace at the end.
    writer.put("y/kept", bytes("1"), Some(Day(102)));
    writer.put("y/shorter", bytes("1"), Some(Day(400)));
    writer.put("y/gone", bytes("1"), Some(Day(400)));
    writer.put("y/begins", bytes("1"), None);
    writer.carry();
    assert_eq!(writer.store.stats().days, 4, "one keyspace a day");
    writer.put("y/kept", bytes("2"), None);
    writer.put("y/shorter", bytes("2"), Some(Day(103)));
    writer.commit(|commit| commit.deletes.push(bytes("y/gone")));
    writer.put("y/begins", bytes("2"), Some(Day(103)));
    writer.carry();
    for _ in 0..2 {
        assert_eq!(writer.keys("x/"), ["x/101", "x/102", "x/103", "x/400"]);
        assert_eq!(writer.keys("y/"), ["y/begins", "y/kept", "y/shorter"]);
        assert!(["y/begins", "y/kept", "y/shorter"].iter().all(|key| writer.get(key) == Some(bytes("2"))));
        drop(writer);
        writer = Writer::open(&place.data(), options.clone());
    }
    today.store(103, Ordering::Relaxed);
    assert_eq!(writer.keys("x/"), ["x/400"], "what has expired is not seen, dropped or not");
    assert_eq!(writer.keys("y/"), ["y/kept"]);
    today.store(104, Ordering::Relaxed);
    writer.carry();
    assert_eq!(writer.store.stats().days, 1, "the keyspaces of days that are past are dropped");
    assert_eq!((writer.keys("x/"), writer.keys("y/")), (vec!["x/400".to_owned()], vec!["y/kept".to_owned()]));
    let far = (1000..1400).map(|day| format!("z/{day}"));
    for (n, key) in far.enumerate() {
        writer.put(&key, bytes("v"), Some(Day(1000 + n as u32)));
    }
    writer.carry();
    assert!(writer.store.stats().days <= 6, "far days share keyspaces: {}", writer.store.stats().days);
    today.store(1200, Ordering::Relaxed);
    assert_eq!(writer.keys("z/").len(), 199, "each row goes on its own day all the same");
}

#[test]
fn journal_larger_than_the_table_is_folded_and_read() {
    let place = Place::new("large-journal");
    let options = Options { table_bytes: 1 << 20, segment_bytes: 512 * 1024, ..small() };
    let mut writer = Writer::open(&place.data(), options.clone());
    let mut expected = Vec::new();
    let value = |n: u64| Bytes::from(vec![n as u8; 200 + (n % 13) as usize * 700]);
    for chunk in 0..120u64 {
        let keys = (chunk * 10..chunk * 10 + 10).map(|n| (Key::from([b"journal/".as_slice(), &n.to_be_bytes()].concat()), value(n)));
        let rows: Vec<_> = keys.collect();
        expected.extend(rows.iter().cloned());
        writer.commit(|commit| commit.puts.extend(rows.into_iter().map(|(key, value)| Put { key, value, expires: None })));
    }
    let bytes: usize = expected.iter().map(|(_, value)| value.len()).sum();
    assert!(bytes > 5 << 20, "{bytes} bytes do not fit the table");
    assert!(writer.store.stats().table_bytes < 2 << 20, "the table is bounded: {}", writer.store.stats().table_bytes);
    writer.commit(|commit| {
        commit.folds.push(Fold { prefix: b"journal/".as_slice().into(), into: b"folded/".as_slice().into(), expires: Some(Day(110)) });
    });
    for round in 0..3 {
        assert_eq!(wait(writer.store.scan(SHARD, under(b"journal/"), 5)).unwrap(), [], "round {round}");
        let pieces = wait(writer.store.scan(SHARD, under(b"folded/"), usize::MAX)).unwrap();
        assert!(pieces.len() >= 5 && pieces.iter().all(|(_, piece)| piece.len() <= 1 << 20));
        assert!(unfold(&pieces) == expected, "round {round}");
        assert_eq!(wait(writer.store.get(SHARD, pieces[3].0.clone())).unwrap().as_ref(), Some(&pieces[3].1), "round {round}");
        match round {
            0 => {
                for _ in 0..300 {
                    writer.put("filler", Bytes::from(vec![1; 4000]), None);
                }
                writer.settle();
            }
            _ => {
                drop(writer);
                writer = Writer::open(&place.data(), options.clone());
            }
        }
    }
}

#[test]
fn commits_are_slowed_down_and_none_is_lost_when_the_tree_falls_behind() {
    let place = Place::new("behind");
    let options = Options { table_bytes: 256 * 1024, log_bytes: 256 * 1024, segment_bytes: 64 * 1024, ..small() };
    let writer = Writer::open(&place.data(), options);
    let mut numbers = 0..600u64;
    let mut most = 0;
    loop {
        let batch: Vec<_> = numbers.by_ref().take(20).collect();
        if batch.is_empty() {
            break;
        }
        let commits = batch.iter().map(|n| Commit {
            shard: SHARD,
            epoch: writer.epoch,
            number: n + 1,
            puts: vec![Put { key: Key::from(format!("k/{n:05}")), value: Bytes::from(vec![7; 3000]), expires: None }],
            deletes: Vec::new(),
            folds: Vec::new(),
        });
        assert!(wait(writer.store.commit(commits.collect())).iter().all(|outcome| *outcome == CommitOutcome::Done));
        most = most.max(writer.store.stats().table_bytes);
    }
    assert!(most < 600 * 1024, "the table held {most} bytes at most");
    assert_eq!(writer.keys("k/").len(), 600);
    writer.settle();
    assert!(!writer.store.stats().behind);
    assert_eq!(writer.keys("k/").len(), 600);
}

#[test]
fn what_was_carried_half_when_the_store_closed_is_carried_again() {
    let place = Place::new("half");
    let options = Options { segment_bytes: 512 << 10, ..small() };
    let (mut expected, mut closed_early, mut longest) = (BTreeMap::new(), 0, Duration::ZERO);
    for round in 0..5u32 {
        let mut writer = Writer::open(&place.data(), options.clone());
        for n in 0..20 {
            writer.commit(|commit| {
                for m in 0..60 {
                    let key = format!("k/{:05}", (n * 60 + m) * 7 % 1300);
                    let (value, expires) = (Bytes::from(vec![round as u8; 1000 + n]), (m % 3 == 0).then_some(Day(110 + m as u32 % 4)));
                    expected.insert(key.clone(), value.clone());
                    commit.puts.push(Put { key: Key::from(key), value, expires });
                }
            });
        }
        closed_early += usize::from(writer.store.stats().waiting > 0);
        let start = Instant::now();
        wait(writer.store.close()).unwrap();
        longest = longest.max(start.elapsed());
    }
    println!("closed {closed_early} times of 5 before all was carried, in {longest:?} at most");
    let writer = Writer::open(&place.data(), options);
    for settled in [false, true] {
        let rows = wait(writer.store.scan(SHARD, under(b"k/"), usize::MAX)).unwrap();
        let rows: BTreeMap<String, Bytes> = rows.into_iter().map(|(key, value)| (String::from_utf8(key.to_vec()).unwrap(), value)).collect();
        assert!(rows == expected, "settled {settled}");
        writer.settle();
    }
}

#[test]
fn store_with_many_rows_opens_at_once() {
    let rows: u64 = std::env::var("ROWS").ok().and_then(|rows| rows.parse().ok()).unwrap_or(60_000);
    let place = Place::new("many");
    let options = Options { segment_bytes: 4 << 20, ..small() };
    {
        let mut writer = Writer::open(&place.data(), options.clone());
        let start = Instant::now();
        for chunk in 0..rows / 100 {
            writer.commit(|commit| {
                for n in chunk * 100..chunk * 100 + 100 {
                    commit.puts.push(Put { key: Key::from(format!("k/{n:09}")), value: Bytes::from(vec![n as u8; 150]), expires: None });
                }
            });
        }
        writer.settle();
        println!("{rows} rows written in {:?}", start.elapsed());
    }
    let start = Instant::now();
    let mut writer = Writer::open(&place.data(), options);
    writer.put("first", bytes("v"), None);
    let opened = start.elapsed();
    println!("opened and committed in {opened:?}");
    assert!(opened < Duration::from_secs(2), "{opened:?}");
    assert_eq!(writer.get(&format!("k/{:09}", rows - 1)).map(|value| value.len()), Some(150));
}

#[test]
fn readers_beside_the_carrier_see_each_commit_whole() {
    let place = Place::new("beside");
    let mut writer = Writer::open(&place.data(), Options { segment_bytes: 32 * 1024, faults: Faults::none(), ..small() });
    writer.commit(|commit| commit.puts.extend((0..40).map(|n| Put { key: Key::from(format!("r/{n:02}")), value: bytes("0"), expires: None })));
    let store = writer.store.clone();
    let done = Arc::new(AtomicU32::new(0));
    let told = Arc::clone(&done);
    let reader = std::thread::spawn(move || {
        let (mut reads, mut last) = (0, 0);
        while told.load(Ordering::Acquire) == 0 || reads < 10 {
            let rows = wait(store.scan(SHARD, under(b"r/"), 100)).unwrap();
            assert_eq!(rows.len(), 40);
            assert!(rows.iter().all(|(_, value)| *value == rows[0].1), "half of a commit");
            let round: u64 = std::str::from_utf8(&rows[0].1).unwrap().parse().unwrap();
            assert!(round >= last, "from {last} back to {round}");
            last = round;
            reads += 1;
        }
        last
    });
    for round in 1..=400 {
        let value = bytes(&format!("{round:030}"));
        writer.commit(|commit| commit.puts.extend((0..40).map(|n| Put { key: Key::from(format!("r/{n:02}")), value: value.clone(), expires: None })));
    }
    done.store(1, Ordering::Release);
    reader.join().unwrap();
    assert!(writer.store.stats().carried > 0);
}

/// The median time of finding the first row behind a mark.
fn next_due(writer: &Writer, mark: u64) -> Duration {
    let from = |n: u64| Key::from([b"due/".as_slice(), &n.to_be_bytes()].concat());
    let mut times: Vec<_> = (0..101)
        .map(|_| {
            let start = Instant::now();
            let found = wait(writer.store.scan(SHARD, from(mark)..from(u64::MAX), 1)).unwrap();
            assert_eq!(found[0].0, from(mark));
            start.elapsed()
        })
        .collect();
    times.sort();
    times[50]
}

#[test]
fn next_row_behind_a_mark_is_found_as_fast_after_many_handled_rows_as_after_ten() {
    let rows: u64 = std::env::var("ROWS").ok().and_then(|rows| rows.parse().ok()).unwrap_or(40_000);
    let place = Place::new("marks");
    let mut writer = Writer::open(&place.data(), Options { segment_bytes: 512 * 1024, ..small() });
    let key = |n: u64| Key::from([b"due/".as_slice(), &n.to_be_bytes()].concat());
    let mut handled = 0;
    let mut handle = |writer: &mut Writer, until: u64| {
        while handled < until {
            // Rows are written well ahead of being handled, so that many reach the tree and leave it by tombstones.
            writer.commit(|commit| {
                for n in handled..(handled + 45).min(until) {
                    commit.puts.push(Put { key: key(n + 5_000), value: Bytes::from(vec![1; 60]), expires: None });
                    commit.deletes.push(key(n));
                }
            });
            handled = (handled + 45).min(until);
        }
    };
    for chunk in 0..50u64 {
        writer.commit(|commit| commit.puts.extend((chunk * 100..chunk * 100 + 100).map(|n| Put { key: key(n), value: bytes("v"), expires: None })));
    }
    handle(&mut writer, 10);
    let after_ten = next_due(&writer, 10);
    handle(&mut writer, rows);
    let after_many = next_due(&writer, rows);
    writer.settle();
    let after_carrying = next_due(&writer, rows);
    println!("next due after 10: {after_ten:?}, after {rows}: {after_many:?}, carried: {after_carrying:?}");
    let bound = after_ten * 10 + Duration::from_millis(2);
    assert!(after_many < bound && after_carrying < bound, "{after_ten:?}, then {after_many:?} and {after_carrying:?}");
}
