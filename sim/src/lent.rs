//! Limits with a key, which runs in many shards borrow from.

use selvedge::{Activity, App, Attempt, Client, Definition, RunId};
use serde_json::{Value, json};

use crate::program::{parse, task};
use crate::world::World;

/// A task under a limit of so many at once for each key.
const BORROW: Activity<Value, Value> = Activity::new("borrow");
/// A task under a limit of so many starts a second for each key.
const RATED: Activity<Value, Value> = Activity::new("rated");
/// A task under the limit that its activity has everywhere.
const POOLED: Activity<Value, Value> = Activity::new("pooled");

const AT_ONCE: i64 = 4;
const A_SECOND: usize = 5;
const POOL: i64 = 3;

/// The pipeline.
pub fn pipelines() -> Result<Vec<Definition>, String> {
    Ok(vec![parse(
        r#"
selvedge: 1
name: lent
input: { items: { type: array } }
activities: { pooled: { native: true, throttle: { concurrency: 3 } } }
stages:
  - { name: each, mode: scatter, over: input.items, call: borrow, throttle: { concurrency: 4, key: item.key }, retry: { max_attempts: 20, initial: 100ms, max: 1s } }
  - { name: often, mode: scatter, over: input.items, call: rated, depends_on: [], throttle: { rate: { count: 5, per: 1s }, key: item.key }, retry: { max_attempts: 20, initial: 100ms, max: 1s } }
  - { name: all, mode: scatter, over: input.items, call: pooled, depends_on: [each], retry: { max_attempts: 20, initial: 100ms, max: 1s } }
  - { name: slept, mode: scatter, over: input.items, call: { actor: child, key: "lent-${run.id}-${index}", handler: sleep }, input: "${item.n}", throttle: { concurrency: 2, key: item.key } }
  - { name: nested, mode: scatter, over: input.items, call: { pipeline: inner }, input: { outer: -1, n: "${item.n}" }, when: "length(input.items) < `4`", throttle: { concurrency: 2, key: item.key } }
output: "${stages.all.output[].n}"
"#,
    )?])
}

/// The activities.
pub fn add(app: App, world: &World, owner: u64) -> App {
    let (borrow, rated, pooled) = (world.clone(), world.clone(), world.clone());
    app.activity(BORROW, async move |attempt: Attempt, value: Value| {
        let _inside = borrow.enter(owner, &format!("the limit of {}", value["key"]), AT_ONCE);
        task(&borrow, owner, &attempt, "borrow", 1_500).await?;
        Ok(value)
    })
    .activity(RATED, async move |attempt: Attempt, value: Value| {
        rated.start_within(owner, &format!("the rate of {}", value["key"]), A_SECOND, 1_000);
        task(&rated, owner, &attempt, "rated", 200).await?;
        Ok(value)
    })
    .activity(POOLED, async move |attempt: Attempt, value: Value| {
        let _inside = pooled.enter(owner, "the limit of `pooled`", POOL);
        task(&pooled, owner, &attempt, "pooled", 800).await?;
        Ok(value)
    })
}

/// Starts some runs that share their limits, each in a shard of its own; gives them with what they must give.
pub async fn ask(client: &Client, (a, b, c): (u64, u64, u64)) -> Vec<(RunId, Value)> {
    let mut started = Vec::new();
    for run in 0..2 + a % 2 {
        let width = (b + run) % 6;
        let key = |n: u64| if (c >> n).is_multiple_of(4) { "b" } else { "a" };
        let items: Vec<Value> = (0..width).map(|n| json!({ "key": key(n), "n": n })).collect();
        if let Ok(run) = client.start("lent", json!({ "items": items })).await {
            started.push((run.id(), json!((0..width).collect::<Vec<u64>>())));
        }
    }
    started
}
