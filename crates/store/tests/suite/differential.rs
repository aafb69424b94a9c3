//! A seeded run of random commits, on the embedded store and on the reference model: the same answers, the same rows.

use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::support::{Place, small, wait};
use selvedge_kernel::id::{Key, ShardId};
use selvedge_kernel::model::Model;
use selvedge_kernel::ports::{Commit, CommitOutcome, Epoch, Fold, Owner, Put, Store, StoreError, under};
use selvedge_kernel::time::Day;
use selvedge_store::{EmbeddedStore, Fault, Faults, Options, Unsynced};

/// A small generator of its own (SplitMix64), so that a seed means the same run everywhere.
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

const SHARDS: u64 = 3;

fn key(random: &mut Random) -> Key {
    Key::from(format!("{}/{:02}", ["a", "b", "ab", "c"][random.below(4) as usize], random.below(30)))
}

fn commit(random: &mut Random, epochs: &[u64], lasts: &[u64], day: u32) -> Commit {
    let shard = random.below(SHARDS);
    let at = shard as usize;
    let epoch = if random.below(40) == 0 { epochs[at].saturating_sub(1) } else { epochs[at] };
    let number = if random.below(40) == 0 { lasts[at] + random.below(4) } else { lasts[at] + 1 };
    let mut commit = Commit { shard: ShardId(shard as u16), epoch: Epoch(epoch), number, puts: Vec::new(), deletes: Vec::new(), folds: Vec::new() };
    let mut used = std::collections::BTreeSet::new();
    for _ in 0..random.below(8) {
        let key = key(random);
        if !used.insert(key.clone()) {
            continue;
        }
        if random.below(3) == 0 {
            commit.deletes.push(key);
            continue;
        }
        let len = if random.below(10) == 0 { 4000 + random.below(3000) } else { random.below(60) };
        let value = Bytes::from(vec![random.below(256) as u8; len as usize]);
        let expires = (random.below(4) == 0).then(|| Day(day + random.below(5) as u32));
        commit.puts.push(Put { key, value, expires });
    }
    if random.below(12) == 0 {
        let prefix = Key::from_static([b"a/".as_slice(), b"b/", b"ab/", b"a"][random.below(4) as usize]);
        let into = Key::from_static([b"f/".as_slice(), b"g/"][random.below(2) as usize]);
        let expires = (random.below(2) == 0).then(|| Day(day + random.below(5) as u32));
        commit.folds.push(Fold { prefix, into, expires });
    }
    commit
}

/// Rows short enough to be printed.
fn short(rows: Vec<(Key, Bytes)>) -> Vec<(Key, usize, u64)> {
    let sum = |value: &Bytes| value.iter().fold(7u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
    rows.into_iter().map(|(key, value)| (key, value.len(), sum(&value))).collect()
}

fn compare(model: &Model, store: &EmbeddedStore, random: &mut Random, seed: u64, step: u64) {
    for shard in 0..SHARDS as u16 {
        let expected = wait(model.scan(ShardId(shard), under(b""), usize::MAX)).unwrap();
        let found = wait(store.scan(ShardId(shard), under(b""), usize::MAX)).unwrap();
        let (found, expected) = (short(found), short(expected));
        let missing: Vec<_> = expected.iter().filter(|row| !found.contains(row)).collect();
        let extra: Vec<_> = found.iter().filter(|row| !expected.contains(row)).collect();
        assert!(missing.is_empty() && extra.is_empty(), "seed {seed} step {step} shard {shard}: missing {missing:?}, extra {extra:?}");
        assert_eq!(found, expected, "seed {seed} step {step} shard {shard}");
        let from = key(random);
        let limit = random.below(9) as usize;
        let range = from..Key::from_static(b"h");
        let expected = wait(model.scan(ShardId(shard), range.clone(), limit)).unwrap();
        let found = wait(store.scan(ShardId(shard), range, limit)).unwrap();
        assert_eq!(short(found), short(expected), "seed {seed} step {step} shard {shard}, a page");
        for _ in 0..20 {
            let key = key(random);
            let expected = wait(model.get(ShardId(shard), key.clone())).unwrap();
            let found = wait(store.get(ShardId(shard), key.clone())).unwrap();
            assert!(found == expected, "seed {seed} step {step} shard {shard} key {key:?}");
        }
    }
}

fn run(seed: u64, steps: u64, options: Options) {
    let place = Place::new(&format!("differential-{seed}"));
    let day = Arc::new(AtomicU32::new(100));
    let read = Arc::clone(&day);
    let options = Options { today: Arc::new(move || Day(read.load(Ordering::Relaxed))), ..options };
    let open = || EmbeddedStore::open(&place.data(), options.clone()).unwrap();
    let mut random = Random(seed);
    let model = Model::new();
    model.set_today(Day(100));
    let mut store = open();
    let (mut epochs, mut lasts) = (vec![0; SHARDS as usize], vec![0; SHARDS as usize]);
    for step in 0..steps {
        match random.below(60) {
            0 => {
                let shard = random.below(SHARDS);
                let expected = wait(model.claim(ShardId(shard as u16), Owner([1; 16]))).unwrap();
                let found = wait(store.claim(ShardId(shard as u16), Owner([1; 16]))).unwrap();
                assert_eq!(found, expected, "seed {seed} step {step}");
                epochs[shard as usize] = found.epoch.0;
                lasts[shard as usize] = found.last;
            }
            1 if random.below(3) == 0 => {
                drop(store);
                store = open();
            }
            2 => {
                let today = day.load(Ordering::Relaxed) + random.below(2) as u32;
                day.store(today, Ordering::Relaxed);
                model.set_today(Day(today));
            }
            3 => compare(&model, &store, &mut random, seed, step),
            _ => {
                let today = day.load(Ordering::Relaxed);
                let batch: Vec<Commit> = (0..=random.below(3)).map(|_| commit(&mut random, &epochs, &lasts, today)).collect();
                let expected = wait(model.commit(batch.clone()));
                let found = wait(store.commit(batch.clone()));
                assert_eq!(found, expected, "seed {seed} step {step}");
                for (commit, outcome) in batch.iter().zip(&found) {
                    if *outcome == selvedge_kernel::ports::CommitOutcome::Done {
                        lasts[usize::from(commit.shard.0)] = commit.number;
                    }
                }
            }
        }
    }
    compare(&model, &store, &mut random, seed, steps);
    drop(store);
    compare(&model, &open(), &mut random, seed, steps);
}

#[test]
fn embedded_store_answers_as_the_reference_model_does() {
    let seeds = std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(4);
    let first = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    for seed in first..first + seeds {
        let segment_bytes = [64 * 1024, 16 * 1024, 4 * 1024][seed as usize % 3];
        run(seed, 600, Options { segment_bytes, ..small() });
    }
}

/// A store that is crashed again and again, beside the reference model.
struct Crashing {
    seed: u64,
    random: Random,
    model: Model,
    options: Options,
    faults: Faults,
    day: Arc<AtomicU32>,
    epochs: Vec<u64>,
    lasts: Vec<u64>,
}

impl Crashing {
    fn claim(&mut self, store: &EmbeddedStore) -> Result<(), StoreError> {
        for shard in 0..SHARDS as usize {
            let found = wait(store.claim(ShardId(shard as u16), Owner([1; 16])))?;
            // The model follows: a claim that was lost with a crash raised the epoch of one of them only.
            let mut epoch = wait(self.model.claim(ShardId(shard as u16), Owner([1; 16]))).unwrap().epoch;
            while epoch < found.epoch {
                epoch = wait(self.model.claim(ShardId(shard as u16), Owner([1; 16]))).unwrap().epoch;
            }
            self.epochs[shard] = found.epoch.0;
            assert_eq!(found.last, self.lasts[shard], "seed {}", self.seed);
        }
        Ok(())
    }

    /// Applies to the model what the store says it has.
    fn apply(&mut self, commit: &Commit) {
        let shard = usize::from(commit.shard.0);
        let claim = wait(self.model.claim(commit.shard, Owner([1; 16]))).unwrap();
        let commit = Commit { epoch: claim.epoch, ..commit.clone() };
        assert_eq!(wait(self.model.commit(vec![commit])), [CommitOutcome::Done], "seed {}", self.seed);
        self.lasts[shard] += 1;
    }

    /// Commits until the store stops; gives back what was left without an answer.
    fn run(&mut self, store: &EmbeddedStore) -> Vec<Commit> {
        if self.claim(store).is_err() {
            return Vec::new();
        }
        loop {
            if self.random.below(30) == 0 {
                let today = self.day.load(Ordering::Relaxed) + 1;
                self.day.store(today, Ordering::Relaxed);
                self.model.set_today(Day(today));
            }
            let today = self.day.load(Ordering::Relaxed);
            let mut batch: Vec<Commit> = Vec::new();
            let mut next = self.lasts.clone();
            for _ in 0..=self.random.below(4) {
                let mut commit = commit(&mut self.random, &self.epochs, &next, today);
                let shard = usize::from(commit.shard.0);
                (commit.epoch, commit.number) = (Epoch(self.epochs[shard]), next[shard] + 1);
                next[shard] += 1;
                batch.push(commit);
            }
            let outcomes = wait(store.commit(batch.clone()));
            let mut unknown = Vec::new();
            for (commit, outcome) in batch.iter().zip(outcomes) {
                match outcome {
                    CommitOutcome::Done => self.apply(commit),
                    CommitOutcome::Unknown => unknown.push(commit.clone()),
                    other => panic!("seed {}: {other:?}", self.seed),
                }
            }
            if !unknown.is_empty() {
                return unknown;
            }
        }
    }

    fn crash_again_and_again(&mut self, place: &Place, crashes: u64) {
        let mut unknown: Vec<Commit> = Vec::new();
        for crash in 0..crashes {
            let unsynced = [Unsynced::Kept, Unsynced::Torn, Unsynced::Lost][self.random.below(3) as usize];
            self.faults.clear();
            {
                // Reads what is there without a fault, so that the model can follow.
                let store = EmbeddedStore::open(&place.data(), self.options.clone()).unwrap();
                for shard in 0..SHARDS as u16 {
                    let last = wait(store.claim(ShardId(shard), Owner([1; 16]))).unwrap().last;
                    let had: Vec<_> = unknown.iter().filter(|commit| commit.shard.0 == shard && commit.number <= last).cloned().collect();
                    had.iter().for_each(|commit| self.apply(commit));
                    assert_eq!(last, self.lasts[usize::from(shard)], "seed {} crash {crash}", self.seed);
                }
                compare(&self.model, &store, &mut self.random, self.seed, crash);
            }
            self.faults.set(Fault::Crash { after: self.random.below(250), unsynced });
            unknown = match EmbeddedStore::open(&place.data(), self.options.clone()) {
                Ok(store) => self.run(&store),
                Err(_) => Vec::new(),
            };
            self.faults.lose_unsynced().unwrap();
        }
    }
}

#[test]
fn crashed_store_has_what_the_reference_model_has() {
    let seeds = std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(2);
    let first = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    for seed in first..first + seeds {
        let place = Place::new(&format!("crashing-{seed}"));
        let day = Arc::new(AtomicU32::new(100));
        let (read, faults) = (Arc::clone(&day), Faults::none());
        let segment_bytes = [16 * 1024, 4 * 1024, 64 * 1024][seed as usize % 3];
        let today = Arc::new(move || Day(read.load(Ordering::Relaxed)));
        let options = Options { segment_bytes, today, faults: faults.clone(), ..small() };
        let model = Model::new();
        model.set_today(Day(100));
        let (epochs, lasts) = (vec![0; SHARDS as usize], vec![0; SHARDS as usize]);
        let mut crashing = Crashing { seed, random: Random(seed ^ 0xdead), model, options, faults, day, epochs, lasts };
        crashing.crash_again_and_again(&place, 12);
    }
}
