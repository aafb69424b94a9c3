//! A caller who is alone writes itself; with others there, the log's thread does, and every order holds.

use std::task::{Context, Poll, Waker};

use crate::support::{Place, small, wait};
use bytes::Bytes;
use selvedge_kernel::id::{Key, ShardId};
use selvedge_kernel::ports::{Boxed, Commit, CommitOutcome, Epoch, Owner, Put, Store, under};
use selvedge_store::{EmbeddedStore, Options};

fn commit(shard: u16, epoch: Epoch, number: u64, bytes: usize) -> Commit {
    let put = Put { key: Key::from(format!("{number:06}")), value: Bytes::from(vec![number as u8; bytes]), expires: None };
    Commit { shard: ShardId(shard), epoch, number, puts: vec![put], deletes: Vec::new(), folds: Vec::new() }
}

/// Whether it was written before the call came back.
fn is_done(outcomes: &mut Boxed<'static, Vec<CommitOutcome>>) -> bool {
    match outcomes.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcomes) => {
            assert_eq!(outcomes, [CommitOutcome::Done]);
            true
        }
        Poll::Pending => false,
    }
}

#[test]
fn caller_who_is_alone_waits_for_no_thread() {
    let place = Place::new("alone");
    let store = EmbeddedStore::open(&place.data(), small()).unwrap();
    let epoch = wait(store.claim(ShardId(0), Owner([1; 16]))).unwrap().epoch;
    for number in 1..=10 {
        assert_eq!(wait(store.commit(vec![commit(0, epoch, number, 30)])), [CommitOutcome::Done]);
    }
    let mut next = store.commit(vec![commit(0, epoch, 11, 30)]);
    assert!(is_done(&mut next), "the eleventh in a row is still left to the log's thread");
    // A large one is left to it, and so is a batch of several.
    let mut large = store.commit(vec![commit(0, epoch, 12, 256 * 1024)]);
    let behind = store.commit(vec![commit(0, epoch, 13, 30)]);
    if !is_done(&mut large) {
        assert_eq!(wait(large), [CommitOutcome::Done]);
    }
    assert_eq!(wait(behind), [CommitOutcome::Done]);
    let several = wait(store.commit((14..=16).map(|number| commit(0, epoch, number, 30)).collect()));
    assert_eq!(several, [CommitOutcome::Done, CommitOutcome::Done, CommitOutcome::Done]);
    drop(store);
    let store = EmbeddedStore::open(&place.data(), small()).unwrap();
    assert_eq!(wait(store.scan(ShardId(0), under(b""), usize::MAX)).unwrap().len(), 16);
}

#[test]
fn order_of_a_shard_holds_while_callers_come_and_go() {
    const SHARDS: u16 = 4;
    const COMMITS: u64 = 400;
    let place = Place::new("come-and-go");
    let options = Options { segment_bytes: 16 * 1024, ..small() };
    let store = EmbeddedStore::open(&place.data(), options.clone()).unwrap();
    std::thread::scope(|scope| {
        for shard in 0..SHARDS {
            let store = store.clone();
            scope.spawn(move || {
                let epoch = wait(store.claim(ShardId(shard), Owner([shard as u8; 16]))).unwrap().epoch;
                let mut waiting = Vec::new();
                for number in 1..=COMMITS {
                    waiting.push(store.commit(vec![commit(shard, epoch, number, 100)]));
                    // Now alone and one at a time, now with up to seven on their way.
                    if waiting.len() as u64 > (number / 50) * u64::from(shard) % 8 {
                        for outcomes in waiting.drain(..) {
                            assert_eq!(wait(outcomes), [CommitOutcome::Done], "shard {shard}, commit {number}");
                        }
                    }
                }
                for outcomes in waiting {
                    assert_eq!(wait(outcomes), [CommitOutcome::Done]);
                }
            });
        }
    });
    drop(store);
    let store = EmbeddedStore::open(&place.data(), options).unwrap();
    for shard in 0..SHARDS {
        assert_eq!(wait(store.scan(ShardId(shard), under(b""), usize::MAX)).unwrap().len() as u64, COMMITS);
    }
}

#[test]
fn store_that_is_closed_by_one_handle_answers_every_commit_of_another() {
    let place = Place::new("closed-beside");
    let store = EmbeddedStore::open(&place.data(), small()).unwrap();
    let epoch = wait(store.claim(ShardId(0), Owner([1; 16]))).unwrap().epoch;
    let mut done = 0;
    std::thread::scope(|scope| {
        let writes = scope.spawn(|| {
            for number in 1.. {
                match wait(store.commit(vec![commit(0, epoch, number, 30)])).as_slice() {
                    [CommitOutcome::Done] => {}
                    [CommitOutcome::Unknown] => return number - 1,
                    other => panic!("{other:?}"),
                }
            }
            0
        });
        std::thread::sleep(std::time::Duration::from_millis(30));
        wait(store.close()).unwrap();
        done = writes.join().unwrap();
    });
    drop(store);
    let store = EmbeddedStore::open(&place.data(), small()).unwrap();
    assert_eq!(wait(store.scan(ShardId(0), under(b""), usize::MAX)).unwrap().len() as u64, done, "what was acknowledged is there, and nothing else");
}
