//! Batches on their way to the disk. One whose outcome is unknown is sent again, unchanged: a store that has applied it
//! says so by its number, and one that has not applies it now.

use std::collections::BTreeSet;

use selvedge_kernel::id::ShardId;
use selvedge_kernel::ports::{Boxed, Commit, CommitOutcome, Store};

use crate::draft::Submitted;

/// How often a batch is sent.
const SENT: u32 = 5;

/// A batch on its way.
pub(crate) struct Flight<E> {
    pub outcomes: Boxed<'static, Vec<CommitOutcome>>,
    batch: Vec<Commit>,
    of: Vec<(ShardId, Submitted<E>)>,
    sent: u32,
}

/// What became of a batch.
pub(crate) struct Landed<E> {
    /// Durable, in their order.
    pub durable: Vec<(ShardId, Submitted<E>)>,
    /// What has to be sent again before anything behind it counts.
    pub again: Option<Flight<E>>,
}

impl<E> Flight<E> {
    /// Sends a batch; `of` says what follows from each of its commits.
    pub(crate) fn start(store: &dyn Store, batch: Vec<Commit>, of: Vec<(ShardId, Submitted<E>)>) -> Flight<E> {
        Flight { outcomes: store.commit(batch.clone()), batch, of, sent: 1 }
    }

    /// Takes what the store said. `doubted` are shards of which a commit was sent again and what was behind it may have
    /// been refused for that. Errors: another owner, a store that went back, one that gives no answer at all.
    pub(crate) fn land(self, store: &dyn Store, outcomes: Vec<CommitOutcome>, doubted: &mut BTreeSet<ShardId>) -> Result<Landed<E>, String> {
        let (mut durable, mut batch, mut of) = (Vec::new(), Vec::new(), Vec::new());
        // Shards of this batch that have an open commit: what is behind it waits for it.
        let mut open = BTreeSet::new();
        for ((commit, (shard, submitted)), outcome) in self.batch.into_iter().zip(self.of).zip(outcomes) {
            let behind = open.contains(&shard);
            let applied = match outcome {
                CommitOutcome::Done => !behind,
                CommitOutcome::Gap { last } if self.sent > 1 && last >= commit.number => !behind,
                CommitOutcome::Gap { last } if behind || doubted.contains(&shard) && last < commit.number && (self.sent == 1 || last + 1 == commit.number) => {
                    false
                }
                CommitOutcome::Unknown => false,
                CommitOutcome::Fenced => return Err(format!("shard {} has a newer owner: this process may not write to it any more", shard.0)),
                CommitOutcome::Gap { last } => {
                    return Err(format!(
                        "shard {} is at commit {last}, commit {} does not follow it: the store went back in time; nothing was written over the hole",
                        shard.0, commit.number
                    ));
                }
            };
            if applied {
                durable.push((shard, submitted));
            } else {
                if self.sent >= SENT {
                    return Err(format!("the store gave no answer for commit {} of shard {}, {SENT} times", commit.number, shard.0));
                }
                open.insert(shard);
                batch.push(commit);
                of.push((shard, submitted));
            }
        }
        doubted.extend(&open);
        let again = (!batch.is_empty()).then(|| Flight { outcomes: store.commit(batch.clone()), batch, of, sent: self.sent + 1 });
        Ok(Landed { durable, again })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;
    use selvedge_kernel::id::Key;
    use selvedge_kernel::model::Model;
    use selvedge_kernel::ports::{Epoch, Owner, Put};
    use std::collections::VecDeque;
    use std::task::{Context, Poll, Waker};

    fn now<T>(mut future: Boxed<'_, T>) -> T {
        match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => value,
            Poll::Pending => panic!("the model waits"),
        }
    }

    fn commit(shard: u16, number: u64) -> Commit {
        let put = Put { key: Key::from(number.to_be_bytes().to_vec()), value: Bytes::from_static(b"x"), expires: None };
        Commit { shard: ShardId(shard), epoch: Epoch(1), number, puts: vec![put], deletes: Vec::new(), folds: Vec::new() }
    }

    fn flight(model: &Model, numbers: &[(u16, u64)]) -> Flight<u64> {
        let batch: Vec<Commit> = numbers.iter().map(|(shard, number)| commit(*shard, *number)).collect();
        let of = numbers.iter().map(|(shard, number)| (ShardId(*shard), Submitted { number: *number, keys: Vec::new(), effects: vec![*number] })).collect();
        Flight::start(model, batch, of)
    }

    fn claimed(shards: u16) -> Model {
        let model = Model::new();
        for shard in 0..shards {
            now(model.claim(ShardId(shard), Owner([0; 16]))).unwrap();
        }
        model
    }

    /// Lands everything, sending again what must be; gives the numbers let out per shard, or why it stopped.
    fn land_all(model: &Model, mut flights: VecDeque<Flight<u64>>) -> Result<Vec<(u16, u64)>, String> {
        let (mut doubted, mut out) = (BTreeSet::new(), Vec::new());
        while let Some(mut flight) = flights.pop_front() {
            let outcomes = now(std::mem::replace(&mut flight.outcomes, Box::pin(std::future::ready(Vec::new()))));
            let landed = flight.land(model, outcomes, &mut doubted)?;
            out.extend(landed.durable.into_iter().map(|(shard, submitted)| (shard.0, submitted.number)));
            if let Some(again) = landed.again {
                flights.push_front(again);
            }
        }
        Ok(out)
    }

    proptest! {
        #[test]
        fn commit_whose_answer_or_self_was_lost_is_applied_once_and_let_out_in_order(
            shape in prop::collection::vec(prop::collection::vec(0u16..3, 1..5), 1..6), lost in 0usize..4, answers: bool, before in 0usize..5
        ) {
            let model = claimed(3);
            let mut next = [1u64; 3];
            let mut flights = VecDeque::new();
            for (n, shards) in shape.iter().enumerate() {
                if n == before {
                    if answers { model.lose_answers(lost) } else { model.lose_commits(lost) }
                }
                let numbers: Vec<(u16, u64)> = shards.iter().map(|shard| { next[usize::from(*shard)] += 1; (*shard, next[usize::from(*shard)] - 1) }).collect();
                flights.push_back(flight(&model, &numbers));
            }
            let out = land_all(&model, flights).unwrap();
            for shard in 0..3u16 {
                let let_out: Vec<u64> = out.iter().filter(|(of, _)| *of == shard).map(|(_, number)| *number).collect();
                let expected: Vec<u64> = (1..next[usize::from(shard)]).collect();
                prop_assert_eq!(let_out, expected);
            }
            prop_assert_eq!(model.commits(), next.iter().map(|next| next - 1).sum::<u64>());
        }
    }

    #[test]
    fn store_that_went_back_is_noticed_and_nothing_is_written_over_the_hole() {
        let model = claimed(1);
        land_all(&model, VecDeque::from([flight(&model, &[(0, 1), (0, 2), (0, 3)])])).unwrap();
        model.go_back(ShardId(0), 2);
        let said = land_all(&model, VecDeque::from([flight(&model, &[(0, 4)])])).unwrap_err();
        assert!(said.contains("shard 0 is at commit 1, commit 4 does not follow it"), "{said}");
        assert_eq!(model.rows(ShardId(0)).len(), 1);
    }

    #[test]
    fn store_that_gives_no_answer_and_an_owner_that_was_replaced_stop_the_shard() {
        let model = claimed(1);
        model.lose_commits(1_000);
        let said = land_all(&model, VecDeque::from([flight(&model, &[(0, 1)])])).unwrap_err();
        assert!(said.contains("no answer for commit 1 of shard 0, 5 times"), "{said}");
        let model = claimed(1);
        model.fence(ShardId(0));
        let said = land_all(&model, VecDeque::from([flight(&model, &[(0, 1)])])).unwrap_err();
        assert!(said.contains("a newer owner"), "{said}");
    }
}
