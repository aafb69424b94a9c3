//! A simulation of Selvedge: the whole engine on the reference model, in virtual time, every choice drawn from one seed.
//!
//! The same seed gives the same history, byte for byte. After each history the invariants are checked; `I…` in a fault
//! names the one that does not hold.

pub mod audit;
pub mod calls;
pub mod families;
pub mod lent;
pub mod life;
pub mod outside;
pub mod program;
pub mod seed;
pub mod shops;
pub mod store;
pub mod ticking;
pub mod world;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use selvedge::Settings;
use selvedge_kernel::id::ShardId;
use selvedge_kernel::model::Model;

use crate::life::Life;
use crate::outside::{Told, ask};
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
const EVENTS: u64 = 100;

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
    let scheduled = seed.chance(20);
    let mut life = Life::open(world, &disk, &settings, scheduled)?;
    let mut number = 0;
    let storms = seed.chance(40);
    let longest = [10, 300, 3_000, 60_000, 400_000];
    let steps = longest.len() as u64 - u64::from(!scheduled);
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
                if life.engine.stopped().is_none() {
                    world.rested();
                }
                world.advance(seed.below(longest[seed.below(steps) as usize]));
                life.engine.tick();
                // What has come due is cut off in its middle now and then, and nobody is there for a while.
                if scheduled && seed.chance(15) {
                    for _ in 0..seed.below(60) {
                        tokio::task::yield_now().await;
                    }
                    struck[0] += 1;
                    world.say("crash");
                    life.crash();
                    world.advance(seed.below(longest[seed.below(steps) as usize]));
                    life = Life::open(world, &disk, &settings, scheduled)?;
                }
            }
            92..=95 => {
                struck[0] += 1;
                world.say("crash");
                life.crash();
                // Sometimes nobody is there for a while.
                if seed.chance(30) {
                    world.advance(seed.below(longest[seed.below(steps) as usize]));
                }
                life = Life::open(world, &disk, &settings, scheduled)?;
            }
            96 => {
                struck[1] += 1;
                world.say("another owner");
                let next = Life::open(world, &disk, &settings, scheduled)?;
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
                world.jump(by);
                life.engine.tick();
            }
        }
        if let Some(reason) = life.engine.stopped() {
            world.say(&format!("stopped: {reason}"));
            life.crash();
            life = Life::open(world, &disk, &settings, scheduled)?;
        }
    }
    if scheduled && life.engine.stopped().is_none() {
        if !life.rest().await {
            return Err("I4: the engine does not come to rest".to_owned());
        }
        ticking::check(world, &life).await;
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
            life = Life::open(world, &disk, &settings, scheduled)?;
            continue;
        }
        world.rested();
        if round % 20 == 19 && audit::all_ended(world, &life, &told).await {
            ended += 1;
            if ended > 3 {
                break;
            }
        }
        world.advance(if round < 100 && ended == 0 { 500 } else { 120_000 });
        life.engine.tick();
    }
    audit::check(world, &life, model, &told).await;
    life.crash();
    Ok(struck)
}
