//! A worker thread: it owns a fixed set of shards, takes events in turns, and gives the log one batch a turn.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use selvedge_kernel::error::AttemptError;
use selvedge_kernel::id::{InvocationId, ShardId};
use selvedge_kernel::ports::CommitOutcome;
use selvedge_kernel::record::message::Envelope;
use selvedge_kernel::time::Millis;
use tokio::sync::{mpsc, oneshot};

use crate::core::HandlerWaker;
use crate::env::Clock;
use crate::flight::Flight;
use crate::idmap::IdMap;
use crate::shard::{Command, Effect, Probe, Shard};
use crate::wiring::Wiring;

/// Somebody woke a handler.
pub(crate) enum Wakeup {
    /// One of its steps.
    Step(InvocationId),
    /// Something that it should not wait for; late if the handler whose waker this is has left memory since.
    Foreign(Arc<HandlerWaker>),
}

/// What an attempt has said last, until it is taken.
#[derive(Default)]
pub(crate) struct Said(Mutex<Option<Bytes>>);

impl Said {
    /// Takes it.
    pub(crate) fn take(&self) -> Option<Bytes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What reaches a worker.
pub(crate) enum Event {
    /// What a client asks, and the bytes that it counts for while it lies here.
    Command(ShardId, Command, Arc<crate::in_flight::InFlight>),
    Wake(Wakeup),
    /// An attempt has said how far it is: the newest lies there.
    Progress(InvocationId, u32, Arc<Said>),
    /// A program has a place for a task that runs again after an unclean end: it gets it when that is written.
    HandOver {
        invocation: InvocationId,
        number: u32,
        attempt: u32,
        go: oneshot::Sender<()>,
    },
    /// A task that ran elsewhere has ended.
    TaskDone {
        invocation: InvocationId,
        number: u32,
        attempt: u32,
        result: Result<Bytes, AttemptError>,
        told: Option<crate::work::Told>,
    },
    /// A task of a run has ended.
    RunTaskDone {
        run: selvedge_kernel::id::RunId,
        stage: u16,
        item: u32,
        attempt: u32,
        result: Result<Bytes, AttemptError>,
        told: Option<crate::work::Told>,
    },
    Envelope {
        from: ShardId,
        to: ShardId,
        n: u64,
        envelope: Box<Envelope>,
    },
    /// The receiver has everything up to n.
    Taken {
        by: ShardId,
        from: ShardId,
        n: u64,
    },
    /// The receiver misses something after n.
    Missing {
        by: ShardId,
        from: ShardId,
        n: u64,
    },
    /// What goes along waiting calls.
    Probe {
        to: ShardId,
        probe: Box<Probe>,
    },
    /// Decisions of a tenant were noted, to be written.
    Decided {
        shard: ShardId,
        tenant: String,
    },
    /// Time has moved by hand.
    Tick,
    Close(oneshot::Sender<()>),
    /// End here and now, as a kill would.
    Die,
}

/// How to reach a worker.
#[derive(Clone)]
pub(crate) struct Mailbox {
    sender: mpsc::UnboundedSender<Event>,
    /// Events sent and not yet worked off, over all workers.
    pub pending: Arc<AtomicU64>,
}

impl Mailbox {
    pub(crate) fn new(pending: Arc<AtomicU64>) -> (Mailbox, mpsc::UnboundedReceiver<Event>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Mailbox { sender, pending }, receiver)
    }

    /// Sends an event; false if the worker has ended.
    pub(crate) fn send(&self, event: Event) -> bool {
        self.pending.fetch_add(1, Ordering::SeqCst);
        let sent = self.sender.send(event).is_ok();
        if !sent {
            self.pending.fetch_sub(1, Ordering::SeqCst);
        }
        sent
    }

    pub(crate) fn wake(&self, wakeup: Wakeup) {
        self.send(Event::Wake(wakeup));
    }

    /// Where an attempt says how far it is. However often it does, one event of it is on its way, and gets the newest.
    pub(crate) fn heartbeat(&self, id: InvocationId, number: u32) -> Arc<dyn Fn(Bytes) + Send + Sync> {
        let (mailbox, said) = (self.clone(), Arc::new(Said::default()));
        Arc::new(move |progress| {
            if said.0.lock().unwrap_or_else(PoisonError::into_inner).replace(progress).is_none() {
                mailbox.send(Event::Progress(id, number, said.clone()));
            }
        })
    }
}

/// How many batches may be on their way to the disk.
const FLIGHTS: usize = 64;

enum Woken {
    Event(Option<Event>),
    Committed(Vec<CommitOutcome>),
    Time,
}

/// Runs a worker until it is closed or its store has stopped.
pub(crate) async fn run(wiring: Arc<Wiring>, index: usize, mut events: mpsc::UnboundedReceiver<Event>, opened: oneshot::Sender<Result<(), String>>) {
    let mut shards: IdMap<ShardId, Shard> = IdMap::default();
    let learnt = match crate::keys::learn_keys(&wiring).await {
        Ok(()) => crate::disabled::learn_disabled(&wiring).await,
        error => error,
    };
    if let Err(error) = learnt {
        let _ = opened.send(Err(error.to_string()));
        return;
    }
    for id in (0..wiring.shards).filter(|id| usize::from(*id) % wiring.workers.len() == index).map(ShardId) {
        match Shard::open(wiring.clone(), id).await {
            Ok(shard) => {
                shards.insert(id, shard);
            }
            Err(error) => {
                let _ = opened.send(Err(error.to_string()));
                return;
            }
        }
    }
    if opened.send(Ok(())).is_err() {
        return;
    }
    for shard in shards.values_mut() {
        shard.recover().await;
    }
    let mut flights: VecDeque<Flight<Effect>> = VecDeque::new();
    // Shards of which a commit was sent again, while anything behind it is on its way.
    let mut doubted = BTreeSet::new();
    let mut closing: Option<oneshot::Sender<()>> = None;
    submit(&wiring, &mut shards, &mut flights);
    loop {
        if (closing.is_some() && flights.is_empty()) || wiring.stop_reason().is_some() {
            break;
        }
        let now = wiring.env.clock.now();
        // A shard that wants another turn, after its opening or because its last one was full, waits for nothing.
        let due = if closing.is_some() {
            None
        } else if shards.values().any(|shard| !shard.calm()) {
            Some(now)
        } else {
            shards.values().filter_map(Shard::next_due).min()
        };
        let mut worked = 0u64;
        if due.is_some_and(|due| due <= now) {
            // What is due does not keep tasks of this thread from running.
            tokio::task::yield_now().await;
        }
        let woken = wait(&wiring, &mut events, &mut flights, due, now).await;
        let tick = wiring.env.clock.tick();
        shards.values_mut().for_each(|shard| shard.set_tick(tick));
        match woken {
            Woken::Event(None | Some(Event::Die)) => break,
            Woken::Event(Some(event)) => {
                worked += 1;
                handle(&wiring, &mut shards, event, &mut closing).await;
                // As much as is at hand, up to a bound, so that one batch carries it.
                while worked < 1024
                    && let Ok(event) = events.try_recv()
                {
                    worked += 1;
                    if matches!(event, Event::Die) {
                        return;
                    }
                    handle(&wiring, &mut shards, event, &mut closing).await;
                }
            }
            Woken::Committed(outcomes) => {
                if let Some(flight) = flights.pop_front() {
                    match flight.land(wiring.store.as_ref(), outcomes, &mut doubted) {
                        Ok(landed) => {
                            for (id, commit) in landed.durable {
                                if let Some(shard) = shards.get_mut(&id) {
                                    shard.durable(commit);
                                }
                            }
                            if let Some(again) = landed.again {
                                flights.push_front(again);
                            } else if flights.is_empty() {
                                doubted.clear();
                            }
                        }
                        Err(reason) => {
                            wiring.stop(format!("{reason}{}", store_reason(&wiring).await));
                            break;
                        }
                    }
                }
            }
            Woken::Time => {}
        }
        if closing.is_none() {
            for shard in shards.values_mut().filter(|shard| !shard.calm()) {
                shard.turn().await;
            }
        } else {
            for shard in shards.values_mut() {
                shard.let_out_answers().await;
                shard.write_all_decided().await;
                shard.write_clean();
            }
        }
        submit(&wiring, &mut shards, &mut flights);
        let busy = !flights.is_empty() || shards.values().any(|shard| shard.runs.has_work() || shard.has_work());
        wiring.busy[index].store(busy, Ordering::SeqCst);
        wiring.pending.fetch_sub(worked, Ordering::SeqCst);
    }
    events.close();
    drop(shards);
    if let Some(closed) = closing {
        let _ = closed.send(());
    }
}

async fn wait(wiring: &Wiring, events: &mut mpsc::UnboundedReceiver<Event>, flights: &mut VecDeque<Flight<Effect>>, due: Option<Millis>, now: Millis) -> Woken {
    if flights.len() >= FLIGHTS
        && let Some(flight) = flights.front_mut()
    {
        // Far enough ahead of the disk: nothing new until the oldest batch is durable.
        return Woken::Committed(flight.outcomes.as_mut().await);
    }
    let sleep = async {
        match (&wiring.env.clock, due) {
            (_, Some(due)) if due <= now => {}
            (Clock::Wall(_) | Clock::Machine { .. }, Some(due)) => tokio::time::sleep(due.since(now).min(Duration::from_secs(3600))).await,
            _ => std::future::pending::<()>().await,
        }
    };
    let committed = async {
        match flights.front_mut() {
            Some(flight) => flight.outcomes.as_mut().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        outcomes = committed => Woken::Committed(outcomes),
        event = events.recv() => Woken::Event(event),
        () = sleep => Woken::Time,
    }
}

async fn handle(wiring: &Arc<Wiring>, shards: &mut IdMap<ShardId, Shard>, event: Event, closing: &mut Option<oneshot::Sender<()>>) {
    let of = |id: &InvocationId| id.0.hash.shard(wiring.shards);
    match event {
        Event::Close(done) => *closing = Some(done),
        Event::Tick | Event::Die => {}
        _ if closing.is_some() => {}
        Event::Command(shard, command, _held) => {
            if let Some(shard) = shards.get_mut(&shard) {
                shard.command(command).await;
            }
        }
        Event::Decided { shard, tenant } => {
            if let Some(shard) = shards.get_mut(&shard) {
                shard.decided(tenant).await;
            }
        }
        Event::Wake(wakeup) => {
            let (id, foreign) = match &wakeup {
                Wakeup::Step(id) => (*id, false),
                Wakeup::Foreign(waker) if waker.gone.load(Ordering::SeqCst) => return,
                Wakeup::Foreign(waker) => (waker.id, true),
            };
            if let Some(shard) = shards.get_mut(&of(&id)) {
                shard.woken(id, foreign);
            }
        }
        Event::Progress(id, number, said) => {
            if let (Some(shard), Some(progress)) = (shards.get_mut(&of(&id)), said.take()) {
                shard.progress(id, number, progress);
            }
        }
        Event::HandOver { invocation, number, attempt, go } => {
            if let Some(shard) = shards.get_mut(&of(&invocation)) {
                shard.hand_over(invocation, number, attempt, go);
            }
        }
        Event::TaskDone { invocation, number, attempt, result, told } => {
            if let Some(shard) = shards.get_mut(&of(&invocation)) {
                shard.task_done(invocation, number, attempt, result, told).await;
            }
        }
        Event::RunTaskDone { run, stage, item, attempt, result, told } => {
            if let Some(shard) = shards.get_mut(&run.0.hash.shard(wiring.shards)) {
                shard.run_task_done(run, (stage, item, attempt), result, told);
            }
        }
        Event::Envelope { from, to, n, envelope } => {
            if let Some(shard) = shards.get_mut(&to) {
                shard.take(from, n, *envelope).await;
            }
        }
        Event::Taken { by, from, n } => {
            if let Some(shard) = shards.get_mut(&from) {
                shard.acknowledged(by, n).await;
            }
        }
        Event::Probe { to, probe } => {
            if let Some(shard) = shards.get_mut(&to) {
                shard.probe(*probe).await;
            }
        }
        Event::Missing { by, from, n } => {
            if let Some(shard) = shards.get_mut(&from) {
                shard.send_again(by, n).await;
            }
        }
    }
}

fn submit(wiring: &Wiring, shards: &mut IdMap<ShardId, Shard>, flights: &mut VecDeque<Flight<Effect>>) {
    let mut batch = Vec::new();
    let mut of = Vec::new();
    for shard in shards.values_mut() {
        let (commits, submitted) = shard.seal();
        batch.extend(commits);
        of.extend(submitted.into_iter().map(|commit| (shard.id, commit)));
    }
    if !batch.is_empty() {
        flights.push_back(Flight::start(wiring.store.as_ref(), batch, of));
    }
}

/// What the store says of itself once it has refused something.
async fn store_reason(wiring: &Wiring) -> String {
    match wiring.store.get(ShardId(0), selvedge_kernel::record::key::shard_head()).await {
        Err(error) => format!(": {error}. What was acknowledged is safe. Make room or replace the disk, then start again"),
        Ok(_) => ". What was acknowledged is safe. Start again".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use selvedge_kernel::id::{Hash16, RawId};

    #[test]
    fn however_often_an_attempt_says_how_far_it_is_one_event_is_on_its_way_and_gets_the_newest() {
        let (mailbox, mut events) = Mailbox::new(Arc::default());
        let id = InvocationId(RawId { hash: Hash16(1), uuid: [0; 16] });
        let heartbeat = mailbox.heartbeat(id, 1);
        for round in [1_000u32, 2_000] {
            (0..=round).for_each(|n| heartbeat(Bytes::from(n.to_string())));
            assert_eq!(mailbox.pending.load(Ordering::SeqCst), u64::from(round / 1_000));
            let Ok(Event::Progress(_, 1, said)) = events.try_recv() else { panic!("nothing was said") };
            assert_eq!(said.take().unwrap(), round.to_string());
            assert!(events.try_recv().is_err());
        }
    }
}
