//! Invocations with children and runs with child runs, which are cancelled among other things.

use std::time::Duration;

use selvedge::{Activity, ActorOptions, App, Attempt, Client, Ctx, Definition, Handler, InvocationId, Outcome};
use selvedge_kernel::record::invocation::Status;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::life::Life;
use crate::program::{parse, task};
use crate::world::World;

/// Spawns children, joins some, and ends.
const PARENT: Handler<Family, u64> = Handler::new("parent", "raise");
/// A child: it sleeps.
const CHILD: Handler<u64, u64> = Handler::new("child", "sleep");
/// A task of a child run.
const CHORE: Activity<Value, Value> = Activity::new("chore");

/// How long a child sleeps that nobody joins: longer than any history.
const AN_AGE_MS: u64 = 30 * 24 * 3_600_000;

#[derive(Clone, Serialize, Deserialize)]
struct Family {
    joined: u64,
    left: u64,
    ms: u64,
}

/// The pipelines: an outer run whose tasks are runs, which call activities and actors.
pub fn pipelines() -> Result<Vec<Definition>, String> {
    Ok(vec![
        parse(
            r#"
selvedge: 1
name: inner
input: { outer: { type: integer }, n: { type: integer } }
stages:
  - { name: chore, call: chore, input: { outer: "${input.outer}", n: "${input.n}" }, retry: { max_attempts: 20, initial: 100ms, max: 1s } }
  - { name: rest, mode: sleep, for: 700ms }
  - { name: asleep, call: { actor: child, key: "in-${run.id}", handler: sleep }, input: "${input.n}" }
output: "${stages.chore.output}"
"#,
        )?,
        parse(
            r#"
selvedge: 1
name: outer
input: { number: { type: integer }, items: { type: array } }
stages:
  - { name: each, mode: scatter, over: input.items, call: { pipeline: inner }, input: { outer: "${input.number}", n: "${item}" }, throttle: { concurrency: 2 } }
  - { name: last, call: work, input: "${stages.each.output}", retry: { max_attempts: 20, initial: 100ms, max: 1s } }
output: "${stages.last.output}"
"#,
        )?,
    ])
}

/// The handlers and activities.
pub fn add(app: App, world: &World, owner: u64, options: &ActorOptions) -> App {
    let (parent, chore) = (world.clone(), world.clone());
    app.handler(PARENT, async move |ctx: Ctx, family: Family| raise(&parent, &ctx, &family).await)
        .handler(CHILD, async |ctx: Ctx, ms: u64| {
            ctx.sleep(Duration::from_millis(ms)).await?;
            Ok(ms)
        })
        .activity(CHORE, async move |attempt: Attempt, value: Value| {
            chore.not_after_cancel(owner, "outer", &value["outer"], true);
            task(&chore, owner, &attempt, "chore", 1_000).await?;
            Ok(value["n"].clone())
        })
        .actor("parent", options.clone())
        .actor("child", options.clone())
}

async fn raise(world: &World, ctx: &Ctx, family: &Family) -> Outcome<u64> {
    let key = ctx.invocation();
    let joined: Vec<_> = (0..family.joined).map(|n| ctx.spawn(CHILD.on(format!("{key}-{n}")), family.ms * n)).collect();
    let left: Vec<_> = (0..family.left).map(|n| ctx.spawn(CHILD.on(format!("{key}-left-{n}")), AN_AGE_MS)).collect();
    for (n, child) in joined.iter().filter_map(selvedge::Child::id).enumerate() {
        world.same(ctx, &format!("joined {n}"), &child.to_string());
    }
    for (n, child) in left.iter().filter_map(selvedge::Child::id).enumerate() {
        world.same(ctx, &format!("left {n}"), &child.to_string());
    }
    if let Some(first) = left.first().filter(|_| family.ms.is_multiple_of(3)) {
        first.cancel();
    }
    let mut slept = 0;
    for child in joined {
        slept += child.join().await?;
    }
    ctx.sleep(Duration::from_millis(family.ms)).await?;
    Ok(slept)
}

/// Starts a parent with up to three children that it joins and up to three that it leaves behind.
pub async fn ask_parent(client: &Client, (a, b, c): (u64, u64, u64)) -> Option<InvocationId> {
    client.send(PARENT.on(format!("f{}", a % 3)), Family { joined: b % 4, left: c % 4, ms: c }).await.ok()
}

/// The input of an outer run, and what it gives.
#[must_use]
pub fn outer(number: u64, width: u64) -> (Value, Value) {
    let items: Vec<u64> = (0..width).collect();
    (json!({ "number": number, "items": items }), json!(items))
}

/// The children that were spawned by parents whose spawns are durable, as far as one can tell from outside.
#[must_use]
pub fn children(world: &World) -> Vec<(InvocationId, bool)> {
    let of = |label: &str, left: bool| {
        let noted = world.noted_under(label);
        noted.into_iter().filter_map(move |value| Some((value.parse().ok()?, left))).collect::<Vec<_>>()
    };
    [of("joined ", false), of("left ", true)].concat()
}

/// No child outlives its parent, and no run outlives the one that it is a task of.
pub async fn check(world: &World, life: &Life) {
    for (child, left) in children(world) {
        // One whose spawn never became durable was never there.
        let Ok(why) = life.client.why(child).await else { continue };
        if !why.status.ended() {
            world.broken(format!("I4: the child {child} (left behind: {left}) has outlived its parent: {}", why.sentence()));
        }
        if left && why.status == Status::Completed {
            world.broken(format!("I4: the child {child} completed, and its parent left it behind"));
        }
    }
    for run in runs(world, life).await {
        if !run.state.ended() {
            world.broken(format!("I4: {} of `{}` has not ended: {:?}", run.id, run.pipeline, life.client.run(run.id).status().await));
        }
    }
}

/// Whether every child and every run has ended.
pub async fn all_ended(world: &World, life: &Life) -> bool {
    for (child, _) in children(world) {
        if life.client.why(child).await.is_ok_and(|why| !why.status.ended()) {
            return false;
        }
    }
    runs(world, life).await.iter().all(|run| run.state.ended())
}

async fn runs(world: &World, life: &Life) -> Vec<selvedge::run::RunSummary> {
    match life.client.runs().await {
        Ok(runs) => runs,
        Err(error) => {
            world.broken(format!("the runs cannot be listed: {error}"));
            Vec::new()
        }
    }
}
