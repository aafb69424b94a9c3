//! What lies outside the engine and survives its crashes: virtual time, the ledger of effects, and what was seen.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use selvedge::{Attempt, Ctx};

use crate::seed::Seed;

/// The outside world of one simulation; its clones are the same world.
#[derive(Clone)]
pub struct World {
    /// The wall clock, in milliseconds.
    pub wall: Arc<AtomicU64>,
    /// The clock that does not jump.
    pub monotonic: Arc<AtomicU64>,
    /// Where chance comes from.
    pub seed: Seed,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    /// Which opening of the store is the newest.
    owner: u64,
    sleepers: BTreeMap<(u64, u64), Waker>,
    tickets: u64,
    /// Keys of effects whose result was in hand, and what that was.
    finished: BTreeMap<String, String>,
    attempts: BTreeMap<String, u64>,
    notes: BTreeMap<(String, String), String>,
    live: BTreeMap<(u64, String), i64>,
    most: BTreeMap<String, i64>,
    broken: BTreeSet<String>,
    trace: blake3::Hasher,
    lines: u64,
    told: Option<Vec<String>>,
}

impl World {
    /// A world at the beginning of its time.
    #[must_use]
    pub fn new(seed: Seed, tell: bool) -> World {
        let inner = Inner { told: tell.then(Vec::new), ..Inner::default() };
        World { wall: Arc::new(AtomicU64::new(1_767_225_600_000)), monotonic: Arc::default(), seed, inner: Arc::new(Mutex::new(inner)) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another opening of the store: the newest owner.
    pub fn next_owner(&self) -> u64 {
        let mut inner = self.inner();
        inner.owner += 1;
        inner.owner
    }

    /// Moves both clocks and wakes who has slept long enough.
    pub fn advance(&self, ms: u64) {
        self.wall.fetch_add(ms, Ordering::SeqCst);
        let now = self.monotonic.fetch_add(ms, Ordering::SeqCst) + ms;
        let mut inner = self.inner();
        let rest = inner.sleepers.split_off(&(now + 1, 0));
        let due = std::mem::replace(&mut inner.sleepers, rest);
        drop(inner);
        due.into_values().for_each(Waker::wake);
    }

    /// Waits in virtual time.
    pub fn sleep(&self, ms: u64) -> Sleep {
        Sleep { world: self.clone(), until: self.monotonic.load(Ordering::SeqCst) + ms, ticket: None }
    }

    /// An attempt of an effect starts: its key was not finished before.
    pub fn attempt(&self, owner: u64, attempt: &Attempt, name: &str) {
        let key = attempt.key().to_owned();
        self.say(&format!("attempt {} of {name} {key} by owner {owner}", attempt.number()));
        let mut inner = self.inner();
        *inner.attempts.entry(key.clone()).or_default() += 1;
        if inner.owner == owner && inner.finished.contains_key(&key) {
            inner.broken.insert(format!("I2: {name} started again (attempt {}) after it had finished, key {key}", attempt.number()));
        }
    }

    /// Something gave a result that is durable: each later look must show the same.
    pub fn same(&self, ctx: &Ctx, label: &str, value: &str) {
        self.same_of(&ctx.invocation().to_string(), label, value);
    }

    /// Whether an invocation has noted that it passed its frail passage.
    pub fn passed(&self, ctx: &Ctx) -> bool {
        self.inner().notes.contains_key(&(ctx.invocation().to_string(), "passed".to_owned()))
    }

    /// The same for anything with a name.
    pub fn same_of(&self, id: &str, label: &str, value: &str) {
        self.say(&format!("{id} {label} = {value}"));
        let mut inner = self.inner();
        let known = inner.notes.entry((id.to_owned(), label.to_owned())).or_insert_with(|| value.to_owned()).clone();
        if known != value {
            inner.broken.insert(format!("I9: {id} saw {label} = {known} first and {value} later"));
        }
    }

    /// The result of the effect with this key is in hand.
    pub fn finished(&self, key: &str, value: &str) {
        let mut inner = self.inner();
        let known = inner.finished.entry(key.to_owned()).or_insert_with(|| value.to_owned()).clone();
        if known != value {
            inner.broken.insert(format!("I9: the effect {key} gave {known} first and {value} later"));
        }
    }

    /// Something under a limit begins in a life of the engine; it ends when the guard goes.
    pub fn enter(&self, owner: u64, limit: &str, most: i64) -> Inside {
        let mut inner = self.inner();
        let live = inner.live.entry((owner, limit.to_owned())).or_default();
        *live += 1;
        let live = *live;
        let seen = inner.most.entry(limit.to_owned()).or_default();
        *seen = (*seen).max(live);
        if live > most {
            inner.broken.insert(format!("I6: {live} at once under {limit}, which allows {most}"));
        }
        drop(inner);
        Inside { world: self.clone(), at: (owner, limit.to_owned()) }
    }

    /// What was noted under a label, by whom.
    #[must_use]
    pub fn noted(&self, label: &str) -> Vec<(String, String)> {
        self.inner().notes.iter().filter(|((_, of), _)| of == label).map(|((id, _), value)| (id.clone(), value.clone())).collect()
    }

    /// What somebody noted under labels that begin so.
    #[must_use]
    pub fn noted_by(&self, id: &str, label: &str) -> BTreeSet<String> {
        let inner = self.inner();
        let of = inner.notes.keys().filter(|(by, _)| by == id).filter_map(|(_, noted)| noted.strip_prefix(label));
        of.map(str::to_owned).collect()
    }

    /// Says that a promise does not hold.
    pub fn broken(&self, what: String) {
        self.say(&format!("BROKEN {what}"));
        self.inner().broken.insert(what);
    }

    /// What does not hold.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        self.inner().broken.iter().cloned().collect()
    }

    /// Adds a line to the history.
    pub fn say(&self, line: &str) {
        let mut inner = self.inner();
        inner.lines += 1;
        let at = self.wall.load(Ordering::SeqCst);
        inner.trace.update(&at.to_be_bytes());
        inner.trace.update(line.as_bytes());
        if let Some(told) = &mut inner.told {
            told.push(format!("{at} {line}"));
        }
    }

    /// How many effects were started, how many more than once, and how many lines the history has.
    #[must_use]
    pub fn counts(&self) -> (usize, usize, u64) {
        let inner = self.inner();
        (inner.attempts.len(), inner.attempts.values().filter(|ran| **ran > 1).count(), inner.lines)
    }

    /// The history so far as a hash, and its lines if they are kept.
    #[must_use]
    pub fn history(&self) -> (String, Vec<String>) {
        let inner = self.inner();
        (inner.trace.finalize().to_hex()[..16].to_owned(), inner.told.clone().unwrap_or_default())
    }
}

/// A place under a limit.
pub struct Inside {
    world: World,
    at: (u64, String),
}

impl Drop for Inside {
    fn drop(&mut self) {
        *self.world.inner().live.entry(self.at.clone()).or_default() -= 1;
    }
}

/// A wait in virtual time.
pub struct Sleep {
    world: World,
    until: u64,
    ticket: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.world.monotonic.load(Ordering::SeqCst) >= self.until {
            return Poll::Ready(());
        }
        let world = self.world.clone();
        let mut inner = world.inner();
        let ticket = *self.ticket.get_or_insert_with(|| {
            inner.tickets += 1;
            inner.tickets
        });
        inner.sleepers.insert((self.until, ticket), context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.world.inner().sleepers.remove(&(self.until, ticket));
        }
    }
}
