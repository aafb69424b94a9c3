//! The carrier: a thread that brings what the log and the layers hold into the tree, a span of the log at a time.
//!
//! A process that dies in between reads the log from the old position: each key that was touched is in the layers again,
//! above the tree, so each step is harmless to repeat. `pass.rs` says what is done about folds.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use selvedge_kernel::id::ShardId;
use selvedge_kernel::pressure::{self, Pressure};
use selvedge_kernel::time::Day;

use crate::disk::Faults;
use crate::embedded::Shared;
use crate::log::{Bounds, ShardState};
use crate::pass::Pass;
use crate::position::Position;
use crate::segment::Segment;
use crate::table::Tables;
use crate::tree::{Tree, fold_of_key};

/// The carrier waits for fjall's own compaction while a keyspace has more new tables than this.
const NEW_TABLES: usize = 24;
/// How often a carrier that a test holds still looks whether it may go on.
const HELD_WAIT: Duration = Duration::from_millis(5);

/// A span of the log whose layers wait to be carried.
pub struct Span {
    /// Which layers.
    pub span: u64,
    /// Its last group.
    pub group: u64,
    /// The segment of the last group.
    pub incarnation: u64,
    /// What expires on this day or before may be dropped: no later fold is made on an earlier day.
    pub gone: Day,
    /// The shards after it.
    pub shards: Vec<ShardState>,
    /// Passes over it that an earlier process has done.
    pub passes: u32,
    /// Segments that end in it.
    pub segments: Vec<Arc<Segment>>,
    /// Bytes of these segments.
    pub log_bytes: u64,
}

/// What waits for the carrier.
pub struct Carrier {
    spans_kept: usize,
    bounds: Bounds,
    pressure: Pressure,
    state: Mutex<State>,
    changed: Condvar,
    stop: AtomicBool,
}

#[derive(Default)]
struct State {
    spans: VecDeque<Span>,
    /// The one that is being carried counts here until it is done.
    log_bytes: u64,
    waiting: usize,
    carried: u64,
    days: usize,
    pressed: bool,
    closed: bool,
}

/// How far the carrier is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// Spans that wait or are being carried.
    pub waiting: usize,
    /// Bytes of the log that they hold.
    pub log_bytes: u64,
    /// The last group that is in the tree.
    pub carried: u64,
    /// Keyspaces of days.
    pub days: usize,
}

impl Carrier {
    /// Nothing waits. The newest `spans_kept` spans are carried only when the carrier is pressed.
    #[must_use]
    pub fn new(spans_kept: usize, bounds: Bounds) -> Carrier {
        Carrier { spans_kept, bounds, pressure: Pressure::default(), state: Mutex::default(), changed: Condvar::new(), stop: AtomicBool::new(false) }
    }

    /// How near its bounds what waits for the tree is.
    #[must_use]
    pub fn pressure(&self) -> &Pressure {
        &self.pressure
    }

    /// Says how near its bounds what waits for the tree is, and presses the carrier if it is near: this may be the last
    /// group for a while, because new work is refused.
    pub fn measure(&self, tables: &Tables) {
        // Both threads measure, so it is done under the lock: the last one to come must not leave an old figure.
        let mut state = self.lock();
        let used = if state.waiting == 0 { 0 } else { self.bounds.used(tables.bytes(), state.log_bytes) };
        self.pressure.set(used);
        if used >= pressure::SLOW && !state.pressed {
            state.pressed = true;
            self.changed.notify_all();
        }
    }

    /// Gives the carrier a span.
    pub fn push(&self, span: Span) {
        let mut state = self.lock();
        state.waiting += 1;
        state.log_bytes += span.log_bytes;
        state.spans.push_back(span);
        self.changed.notify_all();
    }

    /// How far it is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let state = self.lock();
        Progress { waiting: state.waiting, log_bytes: state.log_bytes, carried: state.carried, days: state.days }
    }

    /// Presses the carrier to carry everything, and waits until it has done something, at most for `longest`.
    pub fn press(&self, longest: Duration) {
        let mut state = self.lock();
        state.pressed = true;
        self.changed.notify_all();
        let carried = state.carried;
        let still = |state: &mut State| state.carried == carried && !state.closed;
        drop(self.changed.wait_timeout_while(state, longest, still));
    }

    /// Ends the thread, also in the middle of a span.
    pub fn close(&self) {
        self.stop.store(true, Ordering::Release);
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn is_closed(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn next(&self) -> Option<Span> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            let kept = if state.pressed { 0 } else { self.spans_kept };
            match (state.spans.len() > kept).then(|| state.spans.pop_front()).flatten() {
                Some(span) => return Some(span),
                None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Waits while a test holds the carrier still; `false` if the store is closed.
    fn may_go_on(&self, faults: &Faults) -> bool {
        let mut state = self.lock();
        while faults.carrier_is_held() && !state.closed {
            state = self.changed.wait_timeout(state, HELD_WAIT).unwrap_or_else(PoisonError::into_inner).0;
        }
        !state.closed
    }

    fn done(&self, span: &Span, days: usize) {
        let mut state = self.lock();
        state.waiting -= 1;
        state.pressed &= state.waiting > 0;
        state.log_bytes -= span.log_bytes;
        state.carried = span.group;
        state.days = days;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Carries until the store is closed or something fails.
pub fn run(shared: &Shared, mut tree: Tree, faults: &Faults) {
    while let Some(span) = shared.carrier.next() {
        if !shared.carrier.may_go_on(faults) {
            return;
        }
        if let Err(error) = carry(shared, &mut tree, faults, &span) {
            if shared.carrier.is_closed() {
                // What was carried half is carried again when the store opens.
                return;
            }
            shared.stop(format!("the tree could not take a part of the log ({error}); nothing is lost: give the disk space or repair it, then start again"));
            shared.carrier.close();
            return;
        }
        shared.carrier.done(&span, tree.day_count());
        shared.carrier.measure(&shared.tables);
        for segment in span.segments {
            segment.set_carried();
        }
    }
}

fn carry(shared: &Shared, tree: &mut Tree, faults: &Faults, span: &Span) -> io::Result<()> {
    let shards = &tree.position.shards;
    let is_stale = |(shard, number): (ShardId, u64)| shards.get(usize::from(shard.0)).is_none_or(|shard| number <= shard.last);
    let mut stale: Vec<_> = tree.fold_marks()?.into_iter().filter(|mark| fold_of_key(mark).is_none_or(is_stale)).collect();
    let mut passes = span.passes;
    let mut layers = shared.tables.oldest(span.span);
    while !layers.is_empty() {
        while tree.rows.l0_table_count() > NEW_TABLES && !shared.carrier.lock().closed {
            std::thread::sleep(Duration::from_millis(10));
        }
        let view = tree.view();
        let pass = Pass { view: &view, today: (shared.today)(), gone: span.gone, layers: &layers, stop: &shared.carrier.stop };
        faults.step()?;
        for (day, kinds) in pass.kinds() {
            tree.add_kinds(day, &kinds)?;
        }
        tree.set_intent(span.group, passes)?;
        pass.run(tree, faults, &mut stale)?;
        shared.tables.carried(&Arc::new(tree.view()), &layers);
        passes += 1;
        layers = shared.tables.oldest(span.span);
    }
    faults.step()?;
    let watermark = span.gone.max(tree.position.watermark);
    let Span { group, incarnation, shards, .. } = span;
    tree.set_position(Position { group: *group, incarnation: *incarnation, watermark, shards: shards.clone(), days: Vec::new() })?;
    faults.step()?;
    tree.drop_past()?;
    shared.tables.carried(&Arc::new(tree.view()), &[]);
    Ok(())
}
