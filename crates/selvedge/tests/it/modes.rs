//! Modes of stages and compensation, from a file to the end, on the reference model.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use selvedge::run::RunError;
use selvedge::{Activity, App, Attempt, Failure, test};
use selvedge_kernel::machine::RunState;
use serde_json::{Value, json};

use super::runs::{end, parse, sound, start, state, until};

const COUNT: Activity<Value, Value> = Activity::new("count");
const SUM: Activity<Vec<u64>, u64> = Activity::new("sum");
const SLOW: Activity<Value, Value> = Activity::new("slow");
const UNDO: Activity<Value, Value> = Activity::new("undo");
const FAIL: Activity<Value, Value> = Activity::new("fail");

type Seen = Arc<Mutex<Vec<Value>>>;

fn app(undone: &Seen) -> App {
    let undone = undone.clone();
    App::new()
        .activity(COUNT, async |_: Attempt, value: Value| Ok(value))
        .activity(SUM, async |_: Attempt, all: Vec<u64>| Ok(all.iter().sum()))
        .activity(SLOW, async |_: Attempt, value: Value| {
            tokio::time::sleep(Duration::from_secs(600)).await;
            Ok(value)
        })
        .activity(UNDO, async move |_: Attempt, value: Value| {
            undone.lock().unwrap().push(value);
            Ok(Value::Null)
        })
        .activity(FAIL, async |_: Attempt, _: Value| Err(Failure::terminal("broken", "it is broken")))
}

#[tokio::test]
async fn a_map_reduce_of_ten_thousand_items_gives_one_sum_through_a_kill() {
    let text = r#"
selvedge: 1
name: sums
input: { list: { type: array } }
stages:
  - { name: sums, mode: map_reduce, over: input.list, as: n, map: { call: count, input: "${n}" }, reduce: sum, output: { sum: "${result}" } }
output: "${stages.sums.output}"
"#;
    let mut engine = test::Engine::new(app(&Seen::default()).pipeline(parse(text))).await.unwrap();
    let id = start(&engine, "sums", json!({ "list": (0..10_001u64).collect::<Vec<_>>() })).await.id();
    until(&engine, id, "half", |status| status.stages[0].done > 2_000).await;
    engine.kill_and_reopen().await.unwrap();
    assert_eq!(engine.local().run(id).result::<Value>().await.unwrap(), json!({ "sum": 10_000 * 10_001 / 2 }));
    sound(&engine).await;
}

#[tokio::test]
async fn branches_and_targets_run_side_by_side_and_the_first_target_is_enough() {
    let text = r#"
selvedge: 1
name: forks
input: { n: { type: integer } }
stages:
  - name: checks
    mode: fork_join
    branches:
      risk: { call: count, input: { n: "${input.n}" } }
      total: { call: sum, input: ["${input.n}", 1] }
  - { name: tell, mode: broadcast, targets: [count, undo], input: "${stages.checks.output.total}" }
  - { name: race, mode: broadcast, targets: [slow, count], wait: first, input: 7 }
output: { checks: "${stages.checks.output}", tell: "${stages.tell.output}", race: "${stages.race.output}" }
"#;
    let engine = test::Engine::new(app(&Seen::default()).pipeline(parse(text))).await.unwrap();
    let run = start(&engine, "forks", json!({ "n": 4 })).await;
    assert_eq!(run.result::<Value>().await.unwrap(), json!({ "checks": { "risk": { "n": 4 }, "total": 5 }, "tell": [5, null], "race": 7 }));
    engine.settle().await;
    assert_eq!(engine.census().await.tasks, 0, "the slow target was aborted");
    sound(&engine).await;
}

#[tokio::test]
async fn a_gather_that_waits_for_any_goes_on_with_the_first_and_aborts_the_others() {
    let text = r#"
selvedge: 1
name: race
stages:
  - { name: one, call: slow, depends_on: [] }
  - { name: two, call: count, input: 3, depends_on: [] }
  - { name: any, mode: gather, stages: [one, two], wait: any, combine: object }
output: "${stages.any.output}"
"#;
    let engine = test::Engine::new(app(&Seen::default()).pipeline(parse(text))).await.unwrap();
    let run = start(&engine, "race", json!({})).await;
    assert_eq!(run.result::<Value>().await.unwrap(), json!({ "two": 3 }));
    engine.settle().await;
    assert_eq!(engine.census().await.tasks, 0);
}

const ORDER: &str = r#"
selvedge: 1
name: order
input: { items: { type: array } }
stages:
  - { name: charge, call: count, input: { id: c1 }, compensate: { call: undo, input: { charge: "${output.id}" } } }
  - { name: reserve, mode: scatter, over: input.items, call: count, compensate: { call: undo, input: { item: "${item}" } }, throttle: { concurrency: 1 } }
  - { name: wait, mode: sleep, for: 10s }
  - { name: ship, call: fail }
"#;

#[tokio::test]
async fn a_failed_run_undoes_what_it_did_in_reverse_order_through_kills() {
    let undone = Seen::default();
    let mut engine = test::Engine::new(app(&undone).pipeline(parse(ORDER))).await.unwrap();
    let id = start(&engine, "order", json!({ "items": ["a", "b", "c"] })).await.id();
    until(&engine, id, "waiting", |status| status.state == RunState::Waiting).await;
    engine.advance(Duration::from_secs(11)).await;
    for _ in 0..5 {
        engine.kill_and_reopen().await.unwrap();
    }
    match end(&engine, id).await {
        Err(RunError::Failed { code, .. }) => assert_eq!(code, "broken"),
        other => panic!("{other:?}"),
    }
    let mut all = undone.lock().unwrap().clone();
    // A kill may have lost the end of one that ran: it ran again, next to itself.
    all.dedup();
    assert_eq!(all, [json!({ "item": "c" }), json!({ "item": "b" }), json!({ "item": "a" }), json!({ "charge": "c1" })]);
    // What was undone is done again when the run is taken up, and undone again when it fails again.
    undone.lock().unwrap().clear();
    engine.local().run(id).retry().await.unwrap();
    until(&engine, id, "waiting again", |status| status.state == RunState::Waiting).await;
    assert!(undone.lock().unwrap().is_empty());
    engine.advance(Duration::from_secs(11)).await;
    assert!(matches!(end(&engine, id).await, Err(RunError::Failed { .. })));
    let mut again = undone.lock().unwrap().clone();
    again.dedup();
    assert_eq!(again, all);
    sound(&engine).await;
}

#[tokio::test]
async fn a_cancelled_run_undoes_what_it_did_and_ends_as_cancelled() {
    let undone = Seen::default();
    let engine = test::Engine::new(app(&undone).pipeline(parse(ORDER))).await.unwrap();
    let run = start(&engine, "order", json!({ "items": ["a"] })).await;
    until(&engine, run.id(), "waiting", |status| status.state == RunState::Waiting).await;
    run.cancel().await.unwrap();
    assert!(matches!(run.result::<Value>().await, Err(RunError::Cancelled { .. })));
    assert_eq!(*undone.lock().unwrap(), [json!({ "item": "a" }), json!({ "charge": "c1" })]);
    assert_eq!(state(&engine, run.id()).await, RunState::Cancelled);
    let status = run.status().await.unwrap();
    let names: Vec<&str> = status.stages.iter().map(|stage| stage.name.as_str()).collect();
    assert_eq!(names, ["charge", "reserve", "wait", "ship", "charge.compensate", "reserve.compensate"]);
    sound(&engine).await;
}

#[tokio::test]
async fn a_failed_run_is_taken_up_from_a_stage_by_the_client_and_the_new_run_of_the_stage_counts() {
    use selvedge::run::{Again, Retry};
    let text = r#"
selvedge: 1
name: again
stages:
  - { name: one, call: odd }
  - { name: two, call: odd, input: "${stages.one.output}" }
output: "${stages.two.output}"
"#;
    const ODD: Activity<Value, u32> = Activity::new("odd");
    let calls = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let count = calls.clone();
    // The second call fails, the others give their number.
    let app = App::new().pipeline(parse(text)).activity(ODD, async move |_: Attempt, _: Value| match count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
        1 => Err(Failure::terminal("broken", "it is broken")),
        n => Ok(n),
    });
    let mut engine = test::Engine::new(app).await.unwrap();
    let run = start(&engine, "again", json!({})).await;
    assert!(run.result::<Value>().await.is_err());
    let unknown = run.retry_with(Retry { from: Some("three".to_owned()), tasks: Again::All }).await.unwrap_err().to_string();
    assert!(unknown.contains("no stage `three`") && unknown.contains("one, two"), "{unknown}");
    engine.kill_and_reopen().await.unwrap();
    let run = engine.local().run(run.id());
    run.retry_with(Retry { from: Some("one".to_owned()), tasks: Again::All }).await.unwrap();
    assert_eq!(run.result::<Value>().await.unwrap(), json!(3));
    sound(&engine).await;
}
