//! What every store must do, as plain async functions that panic with the guarantee that was broken.
//!
//! A store without this suite does not exist: it is run on the embedded store and on the reference model, and is what
//! another store (Redis, Cosmos DB) runs first. The names of the functions are the guarantees.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use selvedge_kernel::id::{Key, ShardId};
use selvedge_kernel::limit;
use selvedge_kernel::ports::{Commit, CommitOutcome, Epoch, Fold, Owner, Put, Store, StoreError, under};
use selvedge_kernel::time::Day;

/// Turns a store that is killed into the one that opens after it.
pub type Reopen = Box<dyn FnMut(Arc<dyn Store>) -> Arc<dyn Store> + Send>;
/// The same, with the shard that loses a commit.
pub type GoBack = Box<dyn FnMut(Arc<dyn Store>, ShardId) -> Arc<dyn Store> + Send>;

/// A fresh, empty store, and what can be done to it from outside.
pub struct Subject {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Kills the store without warning and opens what was durable.
    pub reopen: Reopen,
    /// The next commit is answered with `Unknown`; whether it was applied is up to the store.
    pub lose_answer: Box<dyn FnMut() + Send>,
    /// Kills the store, takes the last commit away, and opens what is left.
    pub go_back: GoBack,
    /// Sets the day on which readers stand; it is day 100 in the beginning.
    pub set_today: Box<dyn FnMut(Day) + Send>,
}

const SHARD: ShardId = ShardId(3);
const OTHER: ShardId = ShardId(4);
const ME: Owner = Owner([1; 16]);
const ANOTHER: Owner = Owner([2; 16]);

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn put(key: &str, value: &str) -> Put {
    Put { key: bytes(key), value: bytes(value), expires: None }
}

fn commit(epoch: Epoch, number: u64, puts: Vec<Put>) -> Commit {
    Commit { shard: SHARD, epoch, number, puts, deletes: Vec::new(), folds: Vec::new() }
}

async fn claim(store: &Arc<dyn Store>, shard: ShardId) -> (Epoch, u64) {
    let claim = store.claim(shard, ME).await.unwrap();
    (claim.epoch, claim.last)
}

async fn one(store: &Arc<dyn Store>, commit: Commit) -> CommitOutcome {
    let outcomes = store.commit(vec![commit]).await;
    assert_eq!(outcomes.len(), 1, "one outcome for each commit");
    outcomes.into_iter().next().unwrap()
}

async fn get(store: &Arc<dyn Store>, key: &str) -> Option<String> {
    let value = store.get(SHARD, bytes(key)).await.unwrap();
    value.map(|value| String::from_utf8(value.to_vec()).unwrap())
}

async fn scan(store: &Arc<dyn Store>, range: Range<Key>, limit: usize) -> Vec<(String, String)> {
    let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    let rows = store.scan(SHARD, range, limit).await.unwrap();
    rows.into_iter().map(|(key, value)| (text(key), text(value))).collect()
}

fn pairs(rows: &[(&str, &str)]) -> Vec<(String, String)> {
    rows.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// An acknowledged commit is read by every reader at once, and is there after a kill.
pub async fn acknowledged_commit_is_there_after_reopening(mut subject: Subject) {
    let mut store = subject.store;
    let (epoch, last) = claim(&store, SHARD).await;
    assert_eq!(last, 0, "a new shard has no commit");
    let mut first = commit(epoch, 1, vec![put("a", "1"), put("b", "2")]);
    first.puts.push(Put { key: bytes("large"), value: Bytes::from(vec![b'x'; 100_000]), expires: None });
    assert_eq!(one(&store, first).await, CommitOutcome::Done);
    let mut second = commit(epoch, 2, vec![put("c", "3")]);
    second.deletes.push(bytes("a"));
    second.deletes.push(bytes("never there"));
    assert_eq!(one(&store, second).await, CommitOutcome::Done);
    for round in 0..3 {
        if round > 0 {
            store = (subject.reopen)(store);
        }
        assert_eq!(get(&store, "a").await, None);
        assert_eq!(get(&store, "b").await.as_deref(), Some("2"));
        assert_eq!(get(&store, "c").await.as_deref(), Some("3"));
        assert_eq!(get(&store, "large").await.map(|value| value.len()), Some(100_000));
        assert_eq!(claim(&store, SHARD).await.1, 2, "the last number is there after a kill");
    }
}

/// All rows of a commit appear, or none.
pub async fn commit_is_whole_or_not_at_all(subject: Subject) {
    let store = subject.store;
    let (epoch, _) = claim(&store, SHARD).await;
    let puts = (0..50).map(|n| put(&format!("k{n:02}"), "v")).collect();
    assert_eq!(one(&store, commit(epoch, 2, puts)).await, CommitOutcome::Gap { last: 0 });
    assert_eq!(scan(&store, under(b"k"), 100).await.len(), 0, "a refused commit writes nothing");
    let puts = (0..50).map(|n| put(&format!("k{n:02}"), "v")).collect();
    assert_eq!(one(&store, commit(epoch, 1, puts)).await, CommitOutcome::Done);
    assert_eq!(scan(&store, under(b"k"), 100).await.len(), 50);
    let mut mixed = commit(epoch, 2, vec![put("k00", "new"), put("m", "v")]);
    mixed.deletes = (1..50).map(|n| bytes(&format!("k{n:02}"))).collect();
    assert_eq!(one(&store, mixed).await, CommitOutcome::Done);
    assert_eq!(scan(&store, under(b""), 100).await, pairs(&[("k00", "new"), ("m", "v")]));
}

/// A number that is not last + 1 is refused, and names the last one.
pub async fn numbers_follow_without_a_hole(subject: Subject) {
    let store = subject.store;
    let (epoch, _) = claim(&store, SHARD).await;
    assert_eq!(one(&store, commit(epoch, 1, vec![put("a", "1")])).await, CommitOutcome::Done);
    assert_eq!(one(&store, commit(epoch, 1, vec![put("a", "again")])).await, CommitOutcome::Gap { last: 1 });
    assert_eq!(one(&store, commit(epoch, 3, vec![put("a", "ahead")])).await, CommitOutcome::Gap { last: 1 });
    assert_eq!(one(&store, commit(epoch, 0, vec![put("a", "zero")])).await, CommitOutcome::Gap { last: 1 });
    assert_eq!(get(&store, "a").await.as_deref(), Some("1"));
    assert_eq!(one(&store, commit(epoch, 2, Vec::new())).await, CommitOutcome::Done, "an empty commit counts too");
    assert_eq!(one(&store, commit(epoch, 3, vec![put("a", "3")])).await, CommitOutcome::Done);
    let (other, _) = claim(&store, OTHER).await;
    let elsewhere = Commit { shard: OTHER, ..commit(other, 1, vec![put("a", "other")]) };
    assert_eq!(one(&store, elsewhere).await, CommitOutcome::Done, "each shard counts for itself");
    assert_eq!(get(&store, "a").await.as_deref(), Some("3"), "shards do not see each other's rows");
}

/// Those of one shard take effect in order; a refused one refuses all after it of the same shard, and no other.
pub async fn refused_commit_refuses_those_behind_it(subject: Subject) {
    let store = subject.store;
    let (epoch, _) = claim(&store, SHARD).await;
    let (other, _) = claim(&store, OTHER).await;
    let batch = vec![
        commit(epoch, 1, vec![put("a", "1")]),
        Commit { shard: OTHER, ..commit(other, 1, vec![put("a", "1")]) },
        commit(epoch, 2, vec![put("a", "2"), put("b", "2")]),
        commit(epoch, 4, vec![put("a", "4")]),
        commit(epoch, 3, vec![put("a", "3")]),
        Commit { shard: OTHER, ..commit(other, 2, vec![put("a", "2")]) },
    ];
    let gap = CommitOutcome::Gap { last: 2 };
    let outcomes = store.commit(batch).await;
    let done = CommitOutcome::Done;
    assert_eq!(outcomes, [done.clone(), done.clone(), done.clone(), gap.clone(), gap, done.clone()]);
    assert_eq!(get(&store, "a").await.as_deref(), Some("2"));
    assert_eq!(one(&store, commit(epoch, 3, vec![put("a", "3")])).await, done);
    assert_eq!(store.commit(Vec::new()).await, [], "an empty batch is answered");
}

/// Several batches of a shard may be in flight, in order.
pub async fn batches_in_flight_keep_their_order(subject: Subject) {
    let store = subject.store;
    let (epoch, _) = claim(&store, SHARD).await;
    let answers: Vec<_> = (1..=200).map(|n| store.commit(vec![commit(epoch, n, vec![put("a", &n.to_string())])])).collect();
    for answer in answers {
        assert_eq!(answer.await, [CommitOutcome::Done]);
    }
    assert_eq!(get(&store, "a").await.as_deref(), Some("200"));
}

/// After a claim no earlier owner commits, and epochs rise, also over a kill.
pub async fn older_owner_commits_nothing(mut subject: Subject) {
    let mut store = subject.store;
    let (old, _) = claim(&store, SHARD).await;
    assert_eq!(one(&store, commit(Epoch(old.0 + 1), 1, vec![put("a", "0")])).await, CommitOutcome::Fenced, "an epoch that nobody claimed");
    assert_eq!(one(&store, commit(old, 1, vec![put("a", "1")])).await, CommitOutcome::Done);
    let taken = store.claim(SHARD, ANOTHER).await.unwrap();
    assert!(taken.epoch > old, "each claim raises the epoch");
    assert_eq!(taken.last, 1);
    assert_eq!(one(&store, commit(old, 2, vec![put("a", "old")])).await, CommitOutcome::Fenced);
    let behind = store.commit(vec![commit(old, 2, Vec::new()), commit(taken.epoch, 2, vec![put("a", "behind")])]).await;
    assert_eq!(behind, [CommitOutcome::Fenced, CommitOutcome::Fenced], "a refused one refuses all after it");
    assert_eq!(one(&store, commit(taken.epoch, 2, vec![put("a", "new")])).await, CommitOutcome::Done);
    assert_eq!(get(&store, "a").await.as_deref(), Some("new"));
    for _ in 0..2 {
        store = (subject.reopen)(store);
        assert_eq!(one(&store, commit(old, 3, vec![put("a", "old")])).await, CommitOutcome::Fenced);
        let again = store.claim(SHARD, ME).await.unwrap();
        assert!(again.epoch > taken.epoch, "epochs rise over a kill");
        assert_eq!(again.last, 2);
    }
}

/// A shard that nobody claimed takes no commit.
pub async fn unclaimed_shard_takes_no_commit(subject: Subject) {
    let store = subject.store;
    assert_eq!(one(&store, commit(Epoch(0), 1, vec![put("a", "1")])).await, CommitOutcome::Fenced);
    assert_eq!(one(&store, commit(Epoch(1), 1, vec![put("a", "1")])).await, CommitOutcome::Fenced);
    assert_eq!(get(&store, "a").await, None);
}

/// A takeover reads everything that the earlier owner was told is done.
pub async fn takeover_sees_everything_acknowledged(mut subject: Subject) {
    let mut store = subject.store;
    let mut number = 0;
    for owner in 0..5u8 {
        let claim = store.claim(SHARD, Owner([owner; 16])).await.unwrap();
        assert_eq!(claim.last, number);
        assert_eq!(scan(&store, under(b"n"), 100).await.len() as u64, number);
        for _ in 0..4 {
            number += 1;
            let next = commit(claim.epoch, number, vec![put(&format!("n{number:03}"), "v")]);
            assert_eq!(one(&store, next).await, CommitOutcome::Done);
        }
        if owner % 2 == 1 {
            store = (subject.reopen)(store);
        }
    }
}

/// A commit whose outcome is unknown is applied once or not at all: what the shard's last number says holds.
pub async fn unknown_outcome_is_told_apart_by_the_number(mut subject: Subject) {
    let mut store = subject.store;
    let (mut epoch, _) = claim(&store, SHARD).await;
    assert_eq!(one(&store, commit(epoch, 1, vec![put("a", "1")])).await, CommitOutcome::Done);
    (subject.lose_answer)();
    assert_eq!(one(&store, commit(epoch, 2, vec![put("a", "2"), put("b", "2")])).await, CommitOutcome::Unknown);
    if let Err(StoreError::Stopped { reason }) = store.get(SHARD, bytes("a")).await {
        assert!(!reason.is_empty(), "a store that stopped says why");
        assert_eq!(one(&store, commit(epoch, 2, Vec::new())).await, CommitOutcome::Unknown, "a stopped store accepts nothing");
        assert!(matches!(store.claim(SHARD, ME).await, Err(StoreError::Stopped { .. })));
        assert!(matches!(store.scan(SHARD, under(b""), 1).await, Err(StoreError::Stopped { .. })));
        assert!(matches!(store.heartbeat(ME, Duration::from_secs(1)).await, Err(StoreError::Stopped { .. })));
        store = (subject.reopen)(store);
        epoch = claim(&store, SHARD).await.0;
    }
    let again = one(&store, commit(epoch, 2, vec![put("a", "2"), put("b", "2")])).await;
    assert!(matches!(again, CommitOutcome::Done | CommitOutcome::Gap { last: 2 }), "sent again unchanged: {again:?}");
    assert_eq!(get(&store, "a").await.as_deref(), Some("2"));
    assert_eq!(get(&store, "b").await.as_deref(), Some("2"));
    assert_eq!(claim(&store, SHARD).await.1, 2);
}

/// A store that went back in time is noticed: the number that comes next is a gap.
pub async fn store_that_goes_back_is_noticed(mut subject: Subject) {
    let store = subject.store;
    let (epoch, _) = claim(&store, SHARD).await;
    for n in 1..=3 {
        assert_eq!(one(&store, commit(epoch, n, vec![put("a", &n.to_string())])).await, CommitOutcome::Done);
    }
    let store = (subject.go_back)(store, SHARD);
    assert_eq!(one(&store, commit(epoch, 4, vec![put("a", "4")])).await, CommitOutcome::Gap { last: 2 });
    assert_eq!(get(&store, "a").await.as_deref(), Some("2"));
}

/// A scan gives the first rows of a range in the order of their bytes; paging by the last key misses none.
pub async fn scan_is_in_key_order_and_pages(mut subject: Subject) {
    let mut store = subject.store;
    let (epoch, _) = claim(&store, SHARD).await;
    let keys: Vec<Key> = (0..=255u8).flat_map(|a| [vec![a], vec![a, 0], vec![a, 0xff]]).map(Key::from).collect();
    for (n, chunk) in keys.rchunks(90).enumerate() {
        let puts = chunk.iter().map(|key| Put { key: key.clone(), value: key.clone(), expires: None }).collect();
        assert_eq!(one(&store, commit(epoch, n as u64 + 1, puts)).await, CommitOutcome::Done);
    }
    for round in 0..2 {
        let mut seen = Vec::new();
        let mut from = Key::new();
        loop {
            let page = store.scan(SHARD, from..Key::from(vec![0xff; 4]), 7).await.unwrap();
            assert!(page.len() <= 7, "a page has at most `limit` rows");
            let Some((last, _)) = page.last() else { break };
            from = Key::from([&last[..], &[0]].concat());
            seen.extend(page.into_iter().map(|(key, _)| key));
        }
        let mut sorted = keys.clone();
        sorted.sort();
        assert_eq!(seen, sorted, "round {round}");
        let one = store.scan(SHARD, under(&[7]), 100).await.unwrap();
        assert_eq!(one.len(), 3, "a prefix is a range");
        assert_eq!(store.scan(SHARD, under(&[7]), 0).await.unwrap(), []);
        assert_eq!(store.scan(SHARD, Key::from_static(b"b")..Key::from_static(b"a"), 9).await.unwrap(), [], "a range that ends before it starts");
        assert_eq!(store.scan(OTHER, under(b""), 9).await.unwrap(), [], "another shard");
        store = (subject.reopen)(store);
    }
}

/// A commit at the limits is taken; one above them is refused whole, with the number of the one before.
pub async fn commit_above_the_limits_is_refused(subject: Subject) {
    let store = subject.store;
    let (epoch, _) = claim(&store, SHARD).await;
    let puts = (0..=limit::COMMIT_OPS).map(|n| put(&format!("{n}"), "")).collect();
    assert_eq!(one(&store, commit(epoch, 1, puts)).await, CommitOutcome::Gap { last: 0 });
    let large = |len: usize| vec![Put { key: bytes("l"), value: Bytes::from(vec![7; len]), expires: None }];
    assert_eq!(one(&store, commit(epoch, 1, large(limit::COMMIT_BYTES))).await, CommitOutcome::Gap { last: 0 });
    assert_eq!(scan(&store, under(b""), 1).await, []);
    let puts = (0..limit::COMMIT_OPS).map(|n| put(&format!("{n}"), "")).collect();
    assert_eq!(one(&store, commit(epoch, 1, puts)).await, CommitOutcome::Done);
    assert_eq!(one(&store, commit(epoch, 2, large(limit::COMMIT_BYTES - 1))).await, CommitOutcome::Done);
    assert_eq!(store.get(SHARD, bytes("l")).await.unwrap(), Some(Bytes::from(vec![7; limit::COMMIT_BYTES - 1])));
}

/// A row that expires is not seen from that day on, and is as if never there for a later put.
pub async fn expired_row_is_not_seen(mut subject: Subject) {
    let mut store = subject.store;
    let (epoch, _) = claim(&store, SHARD).await;
    let expiring = |key: &str, day: u32| Put { expires: Some(Day(day)), ..put(key, "v") };
    let first = commit(epoch, 1, vec![expiring("a", 101), expiring("b", 102), put("c", "v"), expiring("d", 100)]);
    assert_eq!(one(&store, first).await, CommitOutcome::Done);
    let keys = |rows: Vec<(String, String)>| rows.into_iter().map(|(key, _)| key).collect::<String>();
    assert_eq!(keys(scan(&store, under(b""), 9).await), "abc", "what expires today is gone");
    (subject.set_today)(Day(101));
    assert_eq!(keys(scan(&store, under(b""), 9).await), "bc");
    assert_eq!(scan(&store, under(b""), 1).await, pairs(&[("b", "v")]), "an expired row does not count against the limit");
    assert_eq!(get(&store, "a").await, None);
    store = (subject.reopen)(store);
    assert_eq!(keys(scan(&store, under(b""), 9).await), "bc");
    let (epoch, _) = claim(&store, SHARD).await;
    assert_eq!(one(&store, commit(epoch, 2, vec![put("b", "kept"), put("a", "back")])).await, CommitOutcome::Done);
    (subject.set_today)(Day(1000));
    assert_eq!(scan(&store, under(b""), 9).await, pairs(&[("a", "back"), ("b", "kept"), ("c", "v")]));
}

/// A fold turns the rows under a prefix into rows of at most 1 MiB, which are read instead of them.
pub async fn fold_replaces_the_rows_under_its_prefix(mut subject: Subject) {
    let mut store = subject.store;
    let (epoch, _) = claim(&store, SHARD).await;
    let value = |n: u64| Bytes::from(vec![n as u8; 1000 + 7 * n as usize]);
    let mut expected = Vec::new();
    for n in 1..=600u64 {
        let key = Key::from([b"j/".as_slice(), &n.to_be_bytes()].concat());
        expected.push((key.clone(), value(n)));
        let row = Put { key, value: value(n), expires: None };
        assert_eq!(one(&store, commit(epoch, n, vec![row])).await, CommitOutcome::Done);
    }
    let mut end = commit(epoch, 601, vec![put("j0", "beside"), put("j/zzzzzzzzz", "last")]);
    end.deletes.push(expected.remove(0).0);
    expected.push((bytes("j/zzzzzzzzz"), bytes("last")));
    end.folds.push(Fold { prefix: bytes("j/"), into: bytes("f/"), expires: Some(Day(105)) });
    assert_eq!(one(&store, end).await, CommitOutcome::Done);
    for _ in 0..2 {
        assert_eq!(store.scan(SHARD, under(b"j/"), 10).await.unwrap(), [], "the originals are gone");
        assert_eq!(store.get(SHARD, expected[5].0.clone()).await.unwrap(), None);
        assert_eq!(get(&store, "j0").await.as_deref(), Some("beside"));
        let pieces = store.scan(SHARD, under(b"f/"), 100).await.unwrap();
        assert_eq!(unfold(&pieces), expected);
        assert!(pieces.len() >= 2, "two megabytes do not fit one piece");
        for (n, (key, piece)) in pieces.iter().enumerate() {
            assert_eq!(key[2..], (n as u32).to_be_bytes());
            assert!(piece.len() <= 1024 * 1024);
            assert_eq!(store.get(SHARD, key.clone()).await.unwrap().as_ref(), Some(piece));
        }
        store = (subject.reopen)(store);
    }
    (subject.set_today)(Day(105));
    assert_eq!(store.scan(SHARD, under(b"f/"), 100).await.unwrap(), [], "folded rows vanish on their day");
    let (epoch, _) = claim(&store, SHARD).await;
    assert_eq!(one(&store, commit(epoch, 602, vec![put("j/again", "new")])).await, CommitOutcome::Done);
    assert_eq!(scan(&store, under(b"j/"), 10).await, pairs(&[("j/again", "new")]), "a later row under the prefix is seen");
}

/// The rows in folded rows.
#[must_use]
pub fn unfold(pieces: &[(Key, Bytes)]) -> Vec<(Key, Bytes)> {
    let mut rows = Vec::new();
    for (_, piece) in pieces {
        let mut rest = piece.clone();
        let part = |rest: &mut Bytes| {
            let len = u32::from_be_bytes(rest.split_to(4)[..].try_into().unwrap()) as usize;
            rest.split_to(len)
        };
        while !rest.is_empty() {
            let key = part(&mut rest);
            rows.push((key, part(&mut rest)));
        }
    }
    rows
}

/// A heartbeat of a living store is answered, and close writes what is in flight.
pub async fn close_keeps_what_is_in_flight(mut subject: Subject) {
    let mut store = subject.store;
    let (epoch, _) = claim(&store, SHARD).await;
    store.heartbeat(ME, Duration::from_secs(30)).await.unwrap();
    let answers: Vec<_> = (1..=20).map(|n| store.commit(vec![commit(epoch, n, vec![put("a", &n.to_string())])])).collect();
    store.close().await.unwrap();
    for answer in answers {
        assert_eq!(answer.await, [CommitOutcome::Done]);
    }
    store = (subject.reopen)(store);
    assert_eq!(get(&store, "a").await.as_deref(), Some("20"));
}
