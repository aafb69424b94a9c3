//! A simulation of Selvedge: the whole engine on the reference model, in virtual time, every choice drawn from one seed.
//!
//! The same seed gives the same history, byte for byte. After each history the invariants are checked; `I…` in a fault
//! names the one that does not hold.

pub mod audit;
pub mod life;
pub mod program;
pub mod seed;
pub mod store;
pub mod world;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use selvedge::{InvocationId, RunId, Settings};
use selvedge_kernel::id::ShardId;
use selvedge_kernel::model::Model;
use serde_json::json;

use crate::life::Life;
use crate::program::{AWAIT, FAN, FRAIL, GO, MOVE, NAP, RACE, Transfer, WaitFor};
use crate::seed::Seed;
use crate::store::Disk;
use crate::world::World;

/// What became of a seed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// Which.
    pub seed: u64,
    /// What does not hold.
    pub faults: Vec<String>,
    /// The hash of the history and of every row at its end.
    pub hash: String,
    /// The history, if it was asked for.
    pub lines: Vec<String>,
    /// Effects started, started more than once, and lines of history.
    pub counts: (usize, usize, u64),
    /// Crashes, takeovers, lost answers, jumps of the clock.
    pub struck: [u32; 4],
}

/// What the outside was told.
#[derive(Default)]
pub struct Told {
    /// Invocations that were acknowledged.
    pub accepted: BTreeMap<InvocationId, &'static str>,
    /// Runs that were acknowledged, with what they must give.
    pub runs: BTreeMap<RunId, (String, Option<serde_json::Value>)>,
    /// Runs that undo what they did when they fail: their number, their width, and whether they fail.
    pub sagas: BTreeMap<RunId, (u64, u64, bool)>,
    /// Signals that were acknowledged.
    pub signals: Vec<u64>,
}

/// Runs one seed to its end.
#[must_use]
pub fn simulate(seed: u64, tell: bool) -> Report {
    let stream = Seed::new(seed);
    let world = World::new(stream.clone(), tell);
    let failed = |what: String| Report { seed, faults: vec![what], hash: String::new(), lines: Vec::new(), counts: (0, 0, 0), struck: [0; 4] };
    let runtime = match tokio::runtime::Builder::new_current_thread().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(error.to_string()),
    };
    let model = Model::new();
    let local = tokio::task::LocalSet::new();
    let struck = match local.block_on(&runtime, history(&world, &model)) {
        Ok(struck) => struck,
        Err(reason) => {
            world.broken(reason);
            [0; 4]
        }
    };
    drop(local);
    let (trace, lines) = world.history();
    let mut rows = blake3::Hasher::new();
    for shard in 0..selvedge_engine::engine::SHARDS {
        for (key, value) in model.rows(ShardId(shard)) {
            rows.update(&key);
            rows.update(&value);
        }
    }
    let hash = format!("{trace}{}", &rows.finalize().to_hex()[..16]);
    Report { seed, faults: world.faults(), hash, lines, counts: world.counts(), struck }
}

/// How many things happen in one history.
const EVENTS: u64 = 120;

async fn history(world: &World, model: &Model) -> Result<[u32; 4], String> {
    let seed = world.seed.clone();
    let settings = Settings {
        workers: 1 + seed.below(4) as usize,
        replay_always: seed.chance(30),
        suspend_after: seed.chance(50).then(|| Duration::from_millis(seed.below(1_000))),
        ..Settings::default()
    };
    let disk = Disk::new(model.clone(), seed.clone(), seed.below(40));
    let told = Rc::new(RefCell::new(Told::default()));
    let mut struck = [0; 4];
    let mut life = Life::open(world, &disk, &settings)?;
    let mut number = 0;
    let storms = seed.chance(40);
    for _ in 0..EVENTS {
        match seed.below(100) {
            0..=39 => {
                number += 1;
                ask(world, &life, &told, number, storms);
            }
            40..=74 => {
                for _ in 0..seed.below(60) {
                    tokio::task::yield_now().await;
                }
            }
            75..=91 => {
                if !life.rest().await {
                    return Err("I4: the engine does not come to rest".to_owned());
                }
                let most = [10, 300, 3_000, 60_000][seed.below(4) as usize];
                world.advance(seed.below(most));
                life.engine.tick();
            }
            92..=95 => {
                struck[0] += 1;
                world.say("crash");
                life.crash();
                life = Life::open(world, &disk, &settings)?;
            }
            96 => {
                struck[1] += 1;
                world.say("another owner");
                let next = Life::open(world, &disk, &settings)?;
                for _ in 0..seed.below(400) {
                    tokio::task::yield_now().await;
                }
                std::mem::replace(&mut life, next).crash();
            }
            97..=98 => {
                struck[2] += 1;
                world.say("a lost answer");
                if seed.chance(50) { disk.lose_next_answer() } else { disk.lose_next_commits() }
            }
            _ => {
                struck[3] += 1;
                let by = seed.below(7_200_000) as i64 - 3_600_000;
                world.say(&format!("the wall clock moves by {by} ms"));
                let wall = world.wall.load(std::sync::atomic::Ordering::SeqCst);
                world.wall.store(wall.saturating_add_signed(by), std::sync::atomic::Ordering::SeqCst);
                life.engine.tick();
            }
        }
        if let Some(reason) = life.engine.stopped() {
            world.say(&format!("stopped: {reason}"));
            life.crash();
            life = Life::open(world, &disk, &settings)?;
        }
    }
    // No more faults: everything comes to its end. What was sent and nobody waits for comes later still.
    let mut ended = 0;
    for round in 0..400u64 {
        if !life.rest().await {
            return Err("I4: the engine does not come to rest".to_owned());
        }
        if let Some(reason) = life.engine.stopped() {
            world.say(&format!("stopped: {reason}"));
            life.crash();
            life = Life::open(world, &disk, &settings)?;
            continue;
        }
        if round % 20 == 19 && audit::all_ended(world, &life, &told).await {
            ended += 1;
            if ended > 3 {
                break;
            }
        }
        world.advance(if round < 100 && ended == 0 { 500 } else { 120_000 });
        life.engine.tick();
    }
    audit::check(world, &life, &told).await;
    life.crash();
    Ok(struck)
}

/// Somebody outside asks for something, and takes note of what he is told.
fn ask(world: &World, life: &Life, told: &Rc<RefCell<Told>>, number: u64, storms: bool) {
    let (client, seed, world, told) = (life.client.clone(), world.seed.clone(), world.clone(), told.clone());
    let kind = seed.below(if storms { 15 } else { 12 });
    let (a, b, c) = (seed.below(1_000), seed.below(1_000), seed.below(1_000));
    tokio::task::spawn_local(async move {
        let accepted = |id: InvocationId, what: &'static str| {
            world.say(&format!("accepted {id} {what}"));
            told.borrow_mut().accepted.insert(id, what);
        };
        let key = format!("k{}", number - number.min(a % 3));
        match kind {
            0..=2 => {
                let order = Transfer {
                    number,
                    from: a % program::ACCOUNTS,
                    to: b % program::ACCOUNTS,
                    cents: (c % 300) as i64 + 1,
                    rest_ms: [0, 0, c][(a % 3) as usize],
                };
                if b % 2 == 0 {
                    if let Ok(id) = client.send(MOVE.on(number.to_string()), order).await {
                        accepted(id, "transfer");
                    }
                } else if let Ok(moved) = client.call(MOVE.on(number.to_string()), order).idempotency_key("once").await {
                    world.same_of(&format!("transfer {number}"), "answer", &moved.to_string());
                }
            }
            3 => {
                if let Ok(id) = client.send(AWAIT.on(format!("w{}", a % 3)), WaitFor { ms: b * 3 }).await {
                    accepted(id, "waiter");
                }
            }
            4 => {
                if client.send_signal(AWAIT.on(format!("w{}", a % 3)), GO, number).await.is_ok() {
                    told.borrow_mut().signals.push(number);
                }
            }
            5 => {
                if let Ok(id) = client.send(NAP.on(format!("n{}", a % 4)), b * 20).await {
                    accepted(id, "napper");
                }
            }
            6 => {
                if let Ok(id) = client.send(RACE.on(format!("r{}", a % 4)), b % 4).await {
                    accepted(id, "racer");
                }
            }
            7 => {
                if let Ok(id) = client.send(FAN.on(format!("f{}", a % 4)), b % 6).await {
                    accepted(id, "fan");
                }
            }
            8 => {
                if let Ok(id) = client.send(FRAIL.on(format!("x{}", a % 4)), number).await {
                    accepted(id, "frail");
                }
            }
            9 => {
                let width = b % 12;
                if let Ok(run) = client.start("wide", program::wide(number, width)).idempotency_key(key).await {
                    let sum: u64 = (0..width).sum();
                    world.say(&format!("accepted {} wide", run.id()));
                    let expected = (a % 3 == 0).then(|| json!(sum));
                    told.borrow_mut().runs.insert(run.id(), ("wide".to_owned(), expected));
                }
            }
            10 => {
                if let Ok(run) = client.start("patient", json!({ "number": number, "customer": a % 5 })).await {
                    world.say(&format!("accepted {} patient", run.id()));
                    if b % 2 == 0 {
                        let _ = run.signal(GO, number).await;
                    }
                    told.borrow_mut().runs.insert(run.id(), ("patient".to_owned(), Some(json!({ "first": number }))));
                }
            }
            11 => {
                let input = json!({ "number": number, "items": (0..b % 5).collect::<Vec<u64>>(), "fails": a % 2 });
                if let Ok(run) = client.start("saga", input).await {
                    world.say(&format!("accepted {} saga", run.id()));
                    told.borrow_mut().runs.insert(run.id(), ("saga".to_owned(), None));
                    told.borrow_mut().sagas.insert(run.id(), (number, b % 5, a % 2 == 1));
                }
            }
            12 | 13 => {
                let chosen = {
                    let told = told.borrow();
                    let open: Vec<InvocationId> = told.accepted.iter().filter(|(_, what)| **what != "transfer").map(|(id, _)| *id).collect();
                    open.get(a as usize % open.len().max(1)).copied()
                };
                if let Some(id) = chosen {
                    let _ = client.cancel(id).await;
                }
            }
            _ => {
                let chosen = {
                    let told = told.borrow();
                    let open: Vec<RunId> = told.runs.keys().copied().collect();
                    open.get(a as usize % open.len().max(1)).copied()
                };
                if let Some(id) = chosen {
                    let run = client.run(id);
                    match b % 4 {
                        0 => {
                            told.borrow_mut().runs.entry(id).and_modify(|of| of.1 = None);
                            let _ = run.cancel().await;
                        }
                        1 => {
                            let _ = run.pause().await;
                            let _ = run.resume().await;
                        }
                        _ => {
                            let _ = run.resume().await;
                        }
                    }
                }
            }
        }
    });
}
