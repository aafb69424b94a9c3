//! Calls that wait for one another: rings started at once, and paths that may lead back to where they came from.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use selvedge::{ActorOptions, App, CallError, Client, Ctx, Handler, InvocationId, Outcome, SharedHandler, View};
use serde::{Deserialize, Serialize};

use crate::life::Life;
use crate::outside::Told;
use crate::world::World;

/// Holds its actor for a while, then calls the next one.
const HOLD: Handler<Hold, String> = Handler::new("node", "hold");
/// What a holder calls.
const TAKE: Handler<(), u64> = Handler::new("node", "take");
/// How often that was done.
const TAKEN: SharedHandler<(), u64> = SharedHandler::new("node", "taken");
/// Calls along a path.
const PASS: Handler<Path, u64> = Handler::new("path", "pass");

/// Actors that paths lead over.
const PLACES: u64 = 5;

#[derive(Clone, Serialize, Deserialize)]
struct Hold {
    ring: u64,
    rest_ms: u64,
    next: Option<String>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Path {
    rest_ms: u64,
    over: Vec<u64>,
}

/// Actors each of which calls the next one while it holds itself.
#[derive(Clone)]
pub struct Ring {
    actors: Vec<String>,
    /// Whether the last one calls the first.
    closed: bool,
    holders: Vec<InvocationId>,
}

/// What the outside knows of calls.
#[derive(Default)]
pub struct Asked {
    rings: BTreeMap<u64, Ring>,
    paths: BTreeMap<InvocationId, Vec<u64>>,
}

/// The handlers.
pub fn add(app: App, world: &World, options: &ActorOptions) -> App {
    let holder = world.clone();
    app.handler(HOLD, async move |ctx: Ctx, plan: Hold| hold(&holder, &ctx, plan).await)
        .handler(TAKE, async |ctx: Ctx, (): ()| {
            let taken = ctx.state().get::<u64>("taken").await?.unwrap_or(0) + 1;
            ctx.state().set("taken", &taken)?;
            Ok(taken)
        })
        .shared(TAKEN, async |view: View, ()| Ok(view.get("taken").await?.unwrap_or(0)))
        .handler(PASS, pass)
        .actor("node", options.clone())
        .actor("path", options.clone())
}

async fn hold(world: &World, ctx: &Ctx, plan: Hold) -> Outcome<String> {
    if plan.rest_ms > 0 && ctx.sleep(Duration::from_millis(plan.rest_ms)).await.is_err() {
        return Ok("cancelled".to_owned());
    }
    let said = match plan.next {
        None => "alone".to_owned(),
        Some(next) => match ctx.call(TAKE.on(next), ()).await {
            Ok(_) => "taken".to_owned(),
            Err(failure) => format!("{}: {}", failure.code(), failure.message()),
        },
    };
    world.same(ctx, &format!("ring {}", plan.ring), &said);
    Ok(said)
}

async fn pass(ctx: Ctx, path: Path) -> Outcome<u64> {
    if path.rest_ms > 0 {
        ctx.sleep(Duration::from_millis(path.rest_ms)).await?;
    }
    match path.over.split_first() {
        None => Ok(0),
        Some((next, rest)) => Ok(1 + ctx.call(PASS.on(next.to_string()), Path { over: rest.to_vec(), ..path }).await?),
    }
}

/// Starts the holders of a ring at once: of two to four, or of one with a call to itself; now and then it stays open.
pub async fn ask_ring(client: &Client, told: &Rc<RefCell<Told>>, number: u64, (a, b, c): (u64, u64, u64)) -> Vec<InvocationId> {
    let actors: Vec<String> = (0..2 + a % 3).map(|n| format!("{number}-{n}")).collect();
    let closed = b % 4 > 0;
    let ring = Ring { actors: actors.clone(), closed, holders: Vec::new() };
    told.borrow_mut().calls.rings.insert(number, ring);
    let mut accepted = Vec::new();
    for (n, actor) in actors.iter().enumerate() {
        let next = actors.get(n + 1).or_else(|| actors.first().filter(|_| closed)).cloned();
        let plan = Hold { ring: number, rest_ms: [0, 50 + c % 100, c][(b % 3) as usize], next };
        if let Ok(id) = client.send(HOLD.on(actor.clone()), plan).await {
            told.borrow_mut().calls.rings.entry(number).and_modify(|ring| ring.holders.push(id));
            accepted.push(id);
        }
    }
    accepted
}

/// Starts a path over up to five actors, which others go over too.
pub async fn ask_path(client: &Client, told: &Rc<RefCell<Told>>, (a, b, c): (u64, u64, u64)) -> Option<InvocationId> {
    let over: Vec<u64> = (0..1 + a % 4).map(|n| (b >> n) % PLACES).collect();
    let first = c % PLACES;
    let id = client.send(PASS.on(first.to_string()), Path { rest_ms: [0, c][(a % 2) as usize], over: over.clone() }).await.ok()?;
    told.borrow_mut().calls.paths.insert(id, [vec![first], over].concat());
    Some(id)
}

/// A ring gives up one call and no other, one that is open none, and what was given up was never started; a path that
/// leads back says so, and no other does.
pub async fn check(world: &World, life: &Life, told: &Rc<RefCell<Told>>) {
    let (rings, paths, cancelled) = {
        let told = told.borrow();
        (told.calls.rings.clone(), told.calls.paths.clone(), told.cancelled.clone())
    };
    for (number, ring) in rings {
        check_ring(world, life, number, &ring, ring.holders.iter().any(|holder| cancelled.contains(holder))).await;
    }
    for (id, path) in paths {
        let leads_back = path.iter().collect::<BTreeSet<_>>().len() < path.len();
        let code = match life.client.result::<u64>(id).await {
            Ok(_) => "none".to_owned(),
            Err(CallError::Failed { code, .. }) => code,
            // Whoever has not ended is reported elsewhere.
            Err(_) => continue,
        };
        let fits = match code.as_str() {
            "none" => !leads_back,
            "call_cycle" => leads_back,
            "deadlock" => true,
            "cancelled" => cancelled.contains(&id),
            _ => false,
        };
        if !fits {
            world.broken(format!("I4: {id} went over {path:?} and ended with {code}"));
        }
    }
}

async fn check_ring(world: &World, life: &Life, number: u64, ring: &Ring, cancelled: bool) {
    let said: Vec<String> = world.noted(&format!("ring {number}")).into_iter().map(|(_, said)| said).collect();
    let deadlocks: Vec<&String> = said.iter().filter(|said| said.starts_with("deadlock")).collect();
    if deadlocks.len() > 1 || (!ring.closed && !deadlocks.is_empty()) {
        world.broken(format!("I4: ring {number} of {} (closed: {}) gave up {} calls", ring.actors.len(), ring.closed, deadlocks.len()));
    }
    for deadlock in deadlocks {
        if let Some(missing) = ring.actors.iter().find(|actor| !deadlock.contains(&format!("node/{actor}.hold"))) {
            world.broken(format!("I4: the ring {number} was found, and {missing} is not named: {deadlock}"));
        }
    }
    let mut taken = 0;
    for actor in &ring.actors {
        match life.client.call(TAKEN.on(actor.clone()), ()).await {
            Ok(count) => taken += count,
            Err(error) => world.broken(format!("the node {actor} does not answer: {error}")),
        }
    }
    let answered = said.iter().filter(|said| *said == "taken").count() as u64;
    let other = said.iter().find(|said| !["taken", "alone", "deadlock", "cancelled"].iter().any(|word| said.starts_with(word)));
    if let Some(other) = other {
        world.broken(format!("I4: a call of ring {number} ended with {other}"));
    }
    // A call that was cancelled with its caller may have been answered before.
    if answered != taken && !(cancelled && answered < taken) {
        world.broken(format!("I2: of ring {number} {answered} calls were answered and {taken} were handled"));
    }
}
