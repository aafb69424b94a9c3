//! What must hold at the end of a history.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use selvedge::Waiting;
use selvedge::run::RunError;
use selvedge_kernel::auth::{Action, Resource, authorize, local};
use selvedge_kernel::id::ShardId;
use selvedge_kernel::machine::RunState;
use selvedge_kernel::model::Model;
use selvedge_kernel::record::kind::Kind;

use crate::life::Life;
use crate::outside::Told;
use crate::program::{ACCOUNTS, AWAIT, BALANCE, COUNTED, OPENING, WaitFor};
use crate::world::World;
use crate::{calls, families, shops};

/// Actors that take signals.
pub const WAITERS: u64 = 3;

/// Whether everything that was acknowledged has ended.
pub async fn all_ended(world: &World, life: &Life, told: &Rc<RefCell<Told>>) -> bool {
    let (ids, runs) = {
        let told = told.borrow();
        (told.accepted.keys().copied().collect::<Vec<_>>(), told.runs.keys().copied().collect::<Vec<_>>())
    };
    // Also those whose acknowledgement was lost.
    let begun = world.noted("debit").into_iter().filter_map(|(id, _)| id.parse().ok());
    let mut all = true;
    let mut asked = BTreeSet::new();
    let mut open: Vec<selvedge::InvocationId> = ids.into_iter().chain(begun).collect();
    while let Some(id) = open.pop() {
        if !asked.insert(id) {
            continue;
        }
        match life.client.why(id).await {
            Ok(why) if why.status.ended() => {}
            // Ten ends of the process in a row while it was in memory: somebody has to look, and somebody does.
            Ok(why) if why.sentence().contains("blocked (the process ended ten times") => {
                world.say(&format!("retry of {id}: {:?}", retry(life, id).await));
                all = false;
            }
            Ok(why) => {
                all = false;
                open.extend(why.waiting.iter().filter_map(|waiting| match waiting {
                    Waiting::Call { invocation, .. } | Waiting::Behind { invocation } | Waiting::Child { invocation } => Some(*invocation),
                    _ => None,
                }));
            }
            Err(_) => all = false,
        }
    }
    for id in runs {
        let run = life.client.run(id);
        if !run.status().await.is_ok_and(|status| status.state.ended()) {
            let _ = run.resume().await;
            all = false;
        }
    }
    all && families::all_ended(world, life).await
}

async fn retry(life: &Life, id: selvedge::InvocationId) -> Result<(), String> {
    let work = Resource::Work { tenant: "default".to_owned(), id: id.to_string() };
    let permit = authorize(local("default", life.engine.now()), Action::Control, work, life.engine.now()).map_err(|denied| denied.to_string())?;
    life.engine.retry(permit, id).await.map_err(|error| error.to_string())
}

/// Checks the invariants.
pub async fn check(world: &World, life: &Life, model: &Model, told: &Rc<RefCell<Told>>) {
    let (ids, runs) = {
        let told = told.borrow();
        (told.accepted.clone(), told.runs.clone())
    };
    for (id, what) in ids {
        match life.client.why(id).await {
            Ok(why) if why.status.ended() => {}
            Ok(why) if why.waiting.is_empty() => world.broken(format!("I4: {id} ({what}) has not ended, and nobody can say why")),
            Ok(why) => world.broken(format!("I4: {id} ({what}) has not ended: {}", why.sentence())),
            Err(error) => world.broken(format!("I1: {id} ({what}) was acknowledged and is gone: {error}")),
        }
    }
    for (id, (what, expected)) in runs {
        let run = life.client.run(id);
        match run.status().await {
            Err(error) => world.broken(format!("I1: {id} ({what}) was acknowledged and is gone: {error}")),
            Ok(status) if !status.state.ended() => world.broken(format!("I4: {id} ({what}) has not ended: {status:?}")),
            Ok(_) => match (run.result::<serde_json::Value>().await, expected) {
                (Ok(value), Some(expected)) if value != expected => world.broken(format!("I2: {id} ({what}) gave {value}, not {expected}")),
                (Ok(_), _) | (Err(RunError::Cancelled { .. }), None) => {}
                (Err(_), None) => {}
                (Err(error), Some(_)) => world.broken(format!("I4: {id} ({what}) did not complete: {error}")),
            },
        }
    }
    cancelled(world, life, told).await;
    sagas(world, life, told).await;
    let orders = told.borrow().orders.clone();
    shops::check(world, life, &orders).await;
    calls::check(world, life, told).await;
    families::check(world, life).await;
    money(world, life).await;
    signals(world, life, told).await;
    nothing_left(world, model);
    chains(world, life).await;
}

/// What completed was not undone, what failed was undone whole, and nothing was undone that was not done.
async fn sagas(world: &World, life: &Life, told: &Rc<RefCell<Told>>) {
    let sagas = told.borrow().sagas.clone();
    for (id, (number, width, fails)) in sagas {
        let Ok(status) = life.client.run(id).status().await else { continue };
        let of = |what: &str| world.noted_by(&format!("saga {number}"), what);
        let (reserved, released) = (of("reserved "), of("released "));
        if !released.is_subset(&reserved) {
            world.broken(format!("{id} undid what it had not done: did {reserved:?}, undid {released:?}"));
        }
        match format!("{:?}", status.state).to_lowercase().as_str() {
            "completed" if fails => world.broken(format!("{id} was told to fail and completed")),
            "completed" if !released.is_empty() => world.broken(format!("{id} completed and undid {released:?}")),
            "cancelled" if released != reserved => world.broken(format!("{id} was cancelled, did {reserved:?} and undid {released:?}")),
            "failed" if !fails => world.broken(format!("{id} failed: {status:?}")),
            // It fails in its last stage: everything before it had finished.
            "failed" if released.len() as u64 != width + 1 => world.broken(format!("{id} failed, did {reserved:?} and undid {released:?}")),
            _ => {}
        }
    }
}

async fn money(world: &World, life: &Life) {
    let mut sum = 0;
    for account in 0..ACCOUNTS {
        match life.client.call(BALANCE.on(account.to_string()), ()).await {
            Ok(cents) => {
                if cents < 0 {
                    world.broken(format!("account {account} is overdrawn: {cents}"));
                }
                sum += cents;
            }
            Err(error) => world.broken(format!("account {account} does not answer: {error}")),
        }
    }
    let expected = ACCOUNTS as i64 * OPENING;
    if sum != expected {
        world.broken(format!("I2: the accounts hold {sum}, they started with {expected}"));
    }
    let moved = world.noted("moved").iter().filter(|(_, value)| value == "true").count() as u64;
    match life.client.call(COUNTED.on("transfers"), ()).await {
        Ok(counted) if counted != moved => world.broken(format!("I2: {moved} transfers moved money, {counted} were counted")),
        Ok(_) => {}
        Err(error) => world.broken(format!("the tally does not answer: {error}")),
    }
}

/// A cancel that was acknowledged is how the run ends.
async fn cancelled(world: &World, life: &Life, told: &Rc<RefCell<Told>>) {
    let cancelled = told.borrow().cancelled_runs.clone();
    for id in cancelled {
        match life.client.run(id).status().await {
            Ok(status) if status.state.ended() && status.state != RunState::Cancelled => {
                world.broken(format!("{id} of `{}` was told to end, and is {:?}", status.pipeline, status.state));
            }
            _ => {}
        }
    }
}

/// A signal that was acknowledged is taken once, or is still there.
async fn signals(world: &World, life: &Life, told: &Rc<RefCell<Told>>) {
    for waiter in 0..WAITERS {
        // What is left is taken by those who ask for it now, until one waits in vain.
        loop {
            let Ok(id) = life.client.send(AWAIT.on(format!("w{waiter}")), WaitFor { ms: 1_000 }).await else { return };
            let _ = life.rest().await;
            world.advance(60_000);
            life.engine.tick();
            let _ = life.rest().await;
            match life.client.result::<Option<u64>>(id).await {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => return world.broken(format!("I4: a waiter gives nothing: {error}")),
            }
        }
    }
    let mut taken = BTreeSet::new();
    for (id, value) in world.noted("signal") {
        if value != "None" && !taken.insert(value.clone()) {
            world.broken(format!("a signal was taken twice, the second time by {id}: {value}"));
        }
    }
    for number in &told.borrow().signals {
        if !taken.contains(&format!("{:?}", Some(*number))) {
            world.broken(format!("I1: the signal {number} was acknowledged, nobody has taken it, and it is gone"));
        }
    }
}

/// Rows that stand for work under way: there is none when everything has ended.
const UNDER_WAY: [Kind; 8] = [Kind::Inbox, Kind::Ready, Kind::Begun, Kind::Outbox, Kind::Joined, Kind::Delayed, Kind::RunLine, Kind::RunPlace];

fn nothing_left(world: &World, model: &Model) {
    for shard in (0..selvedge_engine::engine::SHARDS).map(ShardId) {
        for (key, _) in model.rows(shard) {
            // A key is 16 bits of hash, a kind, and parts.
            if let Some(kind) = UNDER_WAY.iter().find(|kind| key.get(2) == Some(&(**kind as u8))) {
                world.broken(format!("I4: everything has ended, and shard {} still has a row of {kind:?}: {key:?}", shard.0));
            }
        }
    }
}

async fn chains(world: &World, life: &Life) {
    let now = life.now(world);
    let Ok(permit) = authorize(local("default", now), Action::Operate, Resource::Store, now) else {
        world.broken("no permit to verify".to_owned());
        return;
    };
    match life.engine.verify(permit).await {
        Ok(reports) => {
            for fault in reports.into_iter().flat_map(|report| report.faults) {
                world.broken(format!("I7: {fault}"));
            }
        }
        Err(error) => world.broken(format!("I7: verify failed: {error}")),
    }
}
