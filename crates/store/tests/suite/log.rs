//! The log: its tail cut, corrupted, reordered and recycled at every byte; damage before a valid group.

use std::path::{Path, PathBuf};

use crate::support::{Place, claim, groups, small, wait};
use bytes::Bytes;
use selvedge_kernel::id::{Key, ShardId};
use selvedge_kernel::ports::{Commit, CommitOutcome, Epoch, Put, Store, under};
use selvedge_store::{EmbeddedStore, OpenError, Options};

const SHARD: ShardId = ShardId(1);

/// A store that keeps everything in its log.
fn uncarried() -> Options {
    Options { spans_kept: usize::MAX, ..small() }
}

fn commit(epoch: Epoch, number: u64, value_bytes: usize) -> Commit {
    let puts = (0..2).map(|n| Put { key: Key::from(format!("{number:04}/{n}")), value: Bytes::from(vec![number as u8; value_bytes]), expires: None });
    Commit { shard: SHARD, epoch, number, puts: puts.collect(), deletes: Vec::new(), folds: Vec::new() }
}

/// A store whose log has a claim (group 1) and `count` commits, each a group.
fn written(place: &Place, count: u64, value_bytes: usize) -> [u8; 16] {
    let store = EmbeddedStore::open(&place.data(), uncarried()).unwrap();
    let (epoch, _) = claim(&store, SHARD.0);
    for number in 1..=count {
        assert_eq!(wait(store.commit(vec![commit(epoch, number, value_bytes)])), [CommitOutcome::Done]);
    }
    store.meta().store
}

/// How many commits a store has; each is whole, and none is missing before the last.
fn commits(store: &EmbeddedStore) -> u64 {
    let rows = wait(store.scan(SHARD, under(b""), usize::MAX)).unwrap();
    assert_eq!(rows.len() % 2, 0, "a commit is whole or not there");
    for (n, (key, value)) in rows.iter().enumerate() {
        let number = n as u64 / 2 + 1;
        assert_eq!(*key, Key::from(format!("{number:04}/{}", n % 2)), "no hole before the last commit");
        assert!(value.iter().all(|&byte| byte == number as u8));
    }
    rows.len() as u64 / 2
}

/// Opens, counts, commits one more, and sees that it is there after another opening.
fn goes_on(dir: &Path) -> u64 {
    let found = {
        let store = EmbeddedStore::open(dir, uncarried()).unwrap();
        let found = commits(&store);
        let (epoch, last) = claim(&store, SHARD.0);
        assert_eq!(last, found);
        assert_eq!(wait(store.commit(vec![commit(epoch, found + 1, 20)])), [CommitOutcome::Done]);
        found
    };
    let store = EmbeddedStore::open(dir, uncarried()).unwrap();
    assert_eq!(commits(&store), found + 1, "what was committed after the cut is there");
    found
}

fn with_file(path: &Path, content: &[u8], change: impl FnOnce(&mut Vec<u8>)) {
    let mut changed = content.to_vec();
    change(&mut changed);
    std::fs::write(path, changed).unwrap();
}

/// A directory is put back as it was before each trial.
struct Saved {
    dir: PathBuf,
    files: Vec<(PathBuf, Vec<u8>)>,
}

impl Saved {
    fn new(dir: &Path) -> Saved {
        let files = std::fs::read_dir(dir.join("log")).unwrap().map(|entry| entry.unwrap().path());
        let files = files.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect();
        Saved { dir: dir.to_owned(), files }
    }

    fn restore(&self) {
        std::fs::remove_dir_all(self.dir.join("log")).unwrap();
        std::fs::create_dir(self.dir.join("log")).unwrap();
        for (path, content) in &self.files {
            std::fs::write(path, content).unwrap();
        }
    }

    fn content(&self, path: &Path) -> &[u8] {
        &self.files.iter().find(|(name, _)| name == path).unwrap().1
    }
}

#[test]
fn torn_tail_is_cut_at_every_byte() {
    let place = Place::new("torn");
    let store = written(&place, 5, 20);
    let all = groups(&place.data(), &store);
    let (path, at, _) = all.last().unwrap();
    let saved = Saved::new(&place.data());
    let body_end = saved.content(path)[*at..].iter().rposition(|&byte| byte != 0).unwrap() + 1;
    for kept in 0..=body_end {
        saved.restore();
        with_file(path, saved.content(path), |bytes| bytes[at + kept..].fill(0));
        let expected = if kept == body_end { 5 } else { 4 };
        assert_eq!(goes_on(&place.data()), expected, "{kept} bytes of the last group");
    }
}

#[test]
fn file_that_was_cut_at_any_byte_is_refused_and_can_be_gone_on_with_deliberately() {
    let place = Place::new("cut");
    let store = written(&place, 5, 20);
    let all = groups(&place.data(), &store);
    let (path, ..) = all.last().unwrap();
    let saved = Saved::new(&place.data());
    let made = saved.content(path).len();
    let ends: Vec<usize> = all.iter().map(|(_, at, bytes)| at + bytes).collect();
    let used = *ends.last().unwrap();
    for kept in (0..=used).chain([used + 1, made - 1]) {
        saved.restore();
        with_file(path, saved.content(path), |bytes| bytes.truncate(kept));
        for error in [EmbeddedStore::open(&place.data(), uncarried()).err(), selvedge_store::check(&place.data()).err()] {
            let Some(error @ OpenError::Damaged { .. }) = error else { panic!("cut to {kept} bytes: {error:?}") };
            let text = error.to_string();
            let OpenError::Damaged { file, offset, .. } = error else { continue };
            if text.contains("files were removed or emptied") {
                assert!(kept < ends[0], "{kept}: {text}");
            } else {
                assert_eq!((&file, offset), (path, kept as u64));
                assert!(text.contains(&format!("it has {kept} bytes and was made with {made}")), "{text}");
                assert!(text.contains(&format!("`truncate -s {made} {}`", path.display())), "{text}");
            }
        }
        assert_eq!(std::fs::metadata(path).unwrap().len(), kept as u64, "nothing is changed");
        if ends.contains(&kept) || kept > used {
            // What the text says to go on with works, and loses what was cut away, no more.
            std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(made as u64).unwrap();
            let whole = ends.iter().filter(|end| **end <= kept).count() as u64 - 1;
            assert_eq!(goes_on(&place.data()), whole, "{kept}");
        }
    }
}

#[test]
fn last_file_that_was_removed_or_emptied_is_refused() {
    let place = Place::new("last-gone");
    let store = written(&place, 40, 2000);
    let all = groups(&place.data(), &store);
    let (path, ..) = all.last().unwrap();
    assert_ne!(*path, all[0].0, "there are files before it");
    let saved = Saved::new(&place.data());
    let refused = |text: &str| match EmbeddedStore::open(&place.data(), uncarried()) {
        Err(OpenError::Damaged { file, reason, .. }) if file == *path && reason.contains(text) => {}
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it opened as if nothing had been lost"),
    };
    std::fs::remove_file(path).unwrap();
    refused("it was removed");
    saved.restore();
    with_file(path, saved.content(path), Vec::clear);
    refused("it has 0 bytes");
    saved.restore();
    assert_eq!(goes_on(&place.data()), 40);
}

#[test]
fn list_of_files_is_made_for_a_log_without_one_and_a_damaged_one_is_refused() {
    let place = Place::new("list");
    written(&place, 5, 20);
    let list = place.data().join("log").join("files");
    let content = std::fs::read(&list).unwrap();
    std::fs::remove_file(&list).unwrap();
    drop(EmbeddedStore::open(&place.data(), uncarried()).unwrap());
    assert!(list.exists());
    with_file(&list, &content, |bytes| bytes[20] ^= 1);
    let Err(OpenError::Damaged { file, reason, .. }) = EmbeddedStore::open(&place.data(), uncarried()) else { panic!("it opened") };
    assert_eq!(file, list);
    assert!(reason.contains("remove it"), "{reason}");
    std::fs::remove_file(&list).unwrap();
    assert_eq!(goes_on(&place.data()), 5);
}

#[test]
fn groups_that_the_tree_has_and_the_log_has_not_any_more_are_noticed() {
    let place = Place::new("overwritten");
    let dir = place.data();
    // A small table makes spans end inside of a segment.
    let options = Options { table_bytes: 64 * 1024, segment_bytes: 4 << 20, ..small() };
    let store = {
        let store = EmbeddedStore::open(&dir, options.clone()).unwrap();
        let (epoch, _) = claim(&store, SHARD.0);
        for number in 1..=60 {
            assert_eq!(wait(store.commit(vec![commit(epoch, number, 1000)])), [CommitOutcome::Done]);
        }
        while store.stats().waiting > 0 {
            std::thread::yield_now();
        }
        assert!(store.stats().carried > 3);
        store.meta().store
    };
    let carried = selvedge_store::check(&dir).unwrap().carried as usize;
    let all = groups(&dir, &store);
    let saved = Saved::new(&dir);
    for kept in [1, carried - 1] {
        saved.restore();
        let (path, at, _) = &all[kept];
        with_file(path, saved.content(path), |bytes| bytes[*at..].fill(0));
        for error in [EmbeddedStore::open(&dir, options.clone()).err(), selvedge_store::check(&dir).err()] {
            let Some(OpenError::Damaged { file, offset, reason }) = error else { panic!("{error:?}") };
            assert_eq!((&file, offset), (path, *at as u64));
            assert!(reason.contains(&format!("the tree has everything up to group {carried}")), "{reason}");
        }
    }
    saved.restore();
    let (path, at, _) = &all[carried];
    with_file(path, saved.content(path), |bytes| bytes[*at..].fill(0));
    EmbeddedStore::open(&dir, options).unwrap();
}

#[test]
fn changed_byte_in_the_last_group_cuts_it() {
    let place = Place::new("changed");
    let store = written(&place, 4, 20);
    let all = groups(&place.data(), &store);
    let (path, at, _) = all.last().unwrap();
    let saved = Saved::new(&place.data());
    let body_end = saved.content(path)[*at..].iter().rposition(|&byte| byte != 0).unwrap() + 1;
    for byte in 0..body_end {
        saved.restore();
        with_file(path, saved.content(path), |bytes| bytes[at + byte] ^= 1 << (byte % 8));
        assert_eq!(goes_on(&place.data()), 3, "byte {byte} of the last group");
    }
}

#[test]
fn changed_byte_before_a_valid_group_refuses_to_start_and_names_file_and_offset() {
    let place = Place::new("damage");
    let store = written(&place, 9, 12_000);
    let all = groups(&place.data(), &store);
    let segments = all.iter().map(|(path, ..)| path).collect::<std::collections::BTreeSet<_>>();
    assert!(segments.len() >= 3, "several segments");
    let saved = Saved::new(&place.data());
    for (n, (path, at, bytes)) in all[..all.len() - 1].iter().enumerate() {
        for byte in (0..64).chain([64, 70, bytes / 2]) {
            saved.restore();
            with_file(path, saved.content(path), |content| content[at + byte] ^= 1 << (byte % 8));
            let error = EmbeddedStore::open(&place.data(), uncarried()).err();
            let Some(OpenError::Damaged { file, offset, .. }) = &error else { panic!("group {n} byte {byte}: {:?}", error.map(|e| e.to_string())) };
            // Where the header no longer says whose it is and no group follows in the file, the place before it is named.
            let nameless = (8..48).contains(&byte);
            assert!(file == path && *offset == *at as u64 || nameless, "group {n} at {at} of {}, byte {byte}: {} {offset}", path.display(), file.display());
            assert!(error.unwrap().to_string().contains("restore a backup"));
        }
    }
    saved.restore();
    assert_eq!(goes_on(&place.data()), 9, "a refused start changes nothing");
}

#[test]
fn exchanged_groups_refuse_to_start() {
    let place = Place::new("exchanged");
    let store = written(&place, 6, 20);
    let all = groups(&place.data(), &store);
    let saved = Saved::new(&place.data());
    for a in 1..all.len() {
        for b in a + 1..all.len() {
            let ((path, at_a, len), (_, at_b, _)) = (&all[a], &all[b]);
            saved.restore();
            with_file(path, saved.content(path), |bytes| {
                for n in 0..*len {
                    bytes.swap(at_a + n, at_b + n);
                }
            });
            let error = EmbeddedStore::open(&place.data(), uncarried()).err();
            assert!(matches!(error, Some(OpenError::Damaged { .. })), "groups {a} and {b}");
        }
    }
}

#[test]
fn repeated_group_is_not_applied_twice() {
    let place = Place::new("repeated");
    let store = written(&place, 5, 20);
    let all = groups(&place.data(), &store);
    let (path, at, len) = all.last().unwrap();
    let saved = Saved::new(&place.data());
    with_file(path, saved.content(path), |bytes| bytes.copy_within(*at..at + len, at + len));
    assert_eq!(goes_on(&place.data()), 5);
}

#[test]
fn old_groups_in_a_recycled_segment_never_come_back() {
    let place = Place::new("recycled");
    let store = written(&place, 9, 9_000);
    let all = groups(&place.data(), &store);
    let (last_path, last_at, last_len) = all.last().unwrap();
    let (old_path, ..) = &all[0];
    assert_ne!(old_path, last_path, "at least two segments");
    let saved = Saved::new(&place.data());
    let old = saved.content(old_path).to_vec();
    // The file is as if it had been used before: behind and under the new groups stand old ones, whole and torn.
    for shift in (0..4096).step_by(64) {
        for kept in [0, 1, 63, 64, 65, 200, last_len / 2, last_len - 64, *last_len] {
            saved.restore();
            with_file(last_path, saved.content(last_path), |bytes| {
                let from = last_at + kept;
                let count = (bytes.len() - from).min(old.len() - shift);
                bytes[from..from + count].copy_from_slice(&old[shift..shift + count]);
            });
            let store = EmbeddedStore::open(&place.data(), uncarried()).unwrap();
            let found = commits(&store);
            let whole = saved.content(last_path)[*last_at..last_at + last_len] == std::fs::read(last_path).unwrap()[*last_at..last_at + last_len];
            assert_eq!(found, if whole { 9 } else { 8 }, "shift {shift}, kept {kept}");
        }
    }
    // A first group that is torn, in a file that was used before.
    saved.restore();
    with_file(last_path, &old, |bytes| bytes[..64].fill(9));
    let error = EmbeddedStore::open(&place.data(), uncarried()).map(|store| commits(&store));
    let first_of_last = all.iter().position(|(path, ..)| path == last_path).unwrap() as u64;
    assert_eq!(error.unwrap(), first_of_last - 1, "only what stands in the segments before");
}

#[test]
fn missing_file_of_the_log_refuses_to_start() {
    let place = Place::new("missing");
    let store = written(&place, 9, 9_000);
    let all = groups(&place.data(), &store);
    let saved = Saved::new(&place.data());
    std::fs::remove_file(&all[0].0).unwrap();
    let error = || EmbeddedStore::open(&place.data(), uncarried()).err().unwrap().to_string();
    assert!(error().contains("it was removed"), "{}", error());
    // Without the list of files, as an older version left it, the hole in the numbers shows it.
    std::fs::remove_file(place.data().join("log").join("files")).unwrap();
    assert!(error().contains("group 1 is missing"), "{}", error());
    saved.restore();
    assert_eq!(goes_on(&place.data()), 9);
}

#[test]
fn log_of_another_store_is_refused_and_not_read() {
    let (place, other) = (Place::new("this"), Place::new("that"));
    written(&place, 3, 20);
    written(&other, 5, 20);
    for entry in std::fs::read_dir(place.data().join("log")).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    for entry in std::fs::read_dir(other.data().join("log")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, place.data().join("log").join(path.file_name().unwrap())).unwrap();
    }
    let error = EmbeddedStore::open(&place.data(), uncarried()).err().unwrap().to_string();
    assert!(error.contains("no segment of the log holds anything") && error.contains("nothing was changed"), "{error}");
}
