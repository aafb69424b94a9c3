//! What lies outside the engine and survives its crashes: virtual time, the ledger of effects, and what was seen.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use selvedge::{Attempt, Ctx};
use serde_json::Value;

use crate::seed::Seed;

/// How long timers of a shard may be held back after a jump of the wall clock: what it made due is spread over a minute.
const HELD_BACK_MS: u64 = 61_000;

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
    /// Starts under a rate since the wall clock last jumped.
    starts: BTreeMap<String, Vec<u64>>,
    /// Runs whose cancel was acknowledged, and whether every message has arrived since.
    cancelled: BTreeMap<String, bool>,
    /// When the wall clock last jumped, by the other one.
    jumped: u64,
    /// Runs under way of pipelines that have one at a time.
    alone: BTreeMap<String, BTreeSet<String>>,
    /// The latest that the wall clock has shown.
    latest: u64,
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
        let wall = self.wall.fetch_add(ms, Ordering::SeqCst) + ms;
        let now = self.monotonic.fetch_add(ms, Ordering::SeqCst) + ms;
        let mut inner = self.inner();
        inner.latest = inner.latest.max(wall);
        let rest = inner.sleepers.split_off(&(now + 1, 0));
        let due = std::mem::replace(&mut inner.sleepers, rest);
        drop(inner);
        due.into_values().for_each(Waker::wake);
    }

    /// Moves the wall clock alone.
    pub fn jump(&self, by_ms: i64) {
        let wall = self.wall.load(Ordering::SeqCst).saturating_add_signed(by_ms);
        self.wall.store(wall, Ordering::SeqCst);
        let mut inner = self.inner();
        inner.latest = inner.latest.max(wall);
        inner.jumped = self.monotonic.load(Ordering::SeqCst).max(1);
        inner.starts.clear();
    }

    /// The latest that the wall clock has shown.
    #[must_use]
    pub fn latest(&self) -> u64 {
        self.inner().latest
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

    /// Something under a rate starts: at most so many within so many milliseconds, over all lives.
    pub fn start_within(&self, owner: u64, limit: &str, most: usize, within_ms: u64) {
        let now = self.wall.load(Ordering::SeqCst);
        let mut inner = self.inner();
        if inner.owner != owner {
            return;
        }
        let starts = inner.starts.entry(limit.to_owned()).or_default();
        starts.push(now);
        let recent = starts.iter().filter(|at| **at + within_ms > now).count();
        if recent > most {
            inner.broken.insert(format!("I6: {recent} starts within {within_ms} ms under {limit}, which allows {most}"));
        }
    }

    /// Somebody was told that this run is cancelled.
    pub fn cancelled(&self, run: String) {
        self.inner().cancelled.insert(run, false);
    }

    /// The engine has come to rest: every message has arrived, unless a jump of the clock holds timers back.
    pub fn rested(&self) {
        let mut inner = self.inner();
        if inner.jumped == 0 || inner.jumped + HELD_BACK_MS < self.monotonic.load(Ordering::SeqCst) {
            inner.cancelled.values_mut().for_each(|arrived| *arrived = true);
        }
    }

    /// A task of a run starts, or with `below` a task of a run below it: the run must not have been cancelled before, and
    /// one below it must have learned that once every message has arrived.
    pub fn not_after_cancel(&self, owner: u64, pipeline: &str, number: &Value, below: bool) {
        let run = format!("{pipeline} {number}");
        let mut inner = self.inner();
        if inner.owner == owner && inner.cancelled.get(&run).is_some_and(|arrived| !below || *arrived) {
            inner.broken.insert(format!("I2: a task of {run} (below it: {below}) started after its cancel was acknowledged"));
        }
    }

    /// A run of a pipeline begins that has one under way at a time.
    pub fn begin_alone(&self, pipeline: &str, run: &str) {
        let mut inner = self.inner();
        let under_way = inner.alone.entry(pipeline.to_owned()).or_default();
        under_way.insert(run.to_owned());
        // The first task of a run may start again, also after its last one: by an owner that is no more.
        if under_way.len() > 1 {
            let under_way = under_way.clone();
            inner.broken.insert(format!("I10: runs of `{pipeline}` are under way at once: {under_way:?}"));
        }
    }

    /// Such a run is about to end.
    pub fn end_alone(&self, pipeline: &str, run: &str) {
        if let Some(under_way) = self.inner().alone.get_mut(pipeline) {
            under_way.remove(run);
        }
    }

    /// What was noted under labels that begin so, by anybody.
    #[must_use]
    pub fn noted_under(&self, label: &str) -> Vec<String> {
        self.inner().notes.iter().filter(|((_, of), _)| of.starts_with(label)).map(|(_, value)| value.clone()).collect()
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
