//! Runs of pipelines, through the facade, on the reference model and on the embedded store.

use std::collections::BTreeSet;
use std::future::IntoFuture;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use selvedge::run::{Run, RunError};
use selvedge::{Activity, App, Attempt, Ctx, Definition, Failure, Handler, Outcome, RunId, test};
use selvedge_kernel::id::ShardId;
use selvedge_kernel::machine::RunState;
use selvedge_kernel::record::kind::Kind;
use selvedge_kernel::record::run::{TaskEnd, TaskRow, item_of_task_key, prefix};
use selvedge_kernel::wire;
use serde_json::{Value, json};

const DOUBLE: Activity<Value, Value> = Activity::new("double");
const COUNT: Handler<u64, u64> = Handler::new("counter", "add");
const LAUNCH: Handler<Value, RunId> = Handler::new("launcher", "go");

/// Items that were started, in order.
pub type Started = Arc<Mutex<Vec<u64>>>;

pub fn parse(text: &str) -> Definition {
    match selvedge::pipeline("test.yaml", text) {
        Ok((definition, _)) => definition,
        Err(wrong) => panic!("{}", selvedge_kernel::diagnostic::listed(&wrong)),
    }
}

fn doubles(throttle: &str) -> Definition {
    parse(&format!(
        r#"
selvedge: 1
name: doubles
input: {{ numbers: {{ type: array }} }}
stages:
  - {{ name: each, mode: scatter, over: input.numbers, call: double{throttle} }}
  - {{ name: gathered, mode: gather, stages: [each] }}
  - {{ name: sum, call: double, input: "${{sum(stages.gathered.output)}}" }}
output: {{ each: "${{stages.gathered.output}}", sum: "${{stages.sum.output}}" }}
"#
    ))
}

fn numbers(count: u64) -> Value {
    json!({ "numbers": (0..count).collect::<Vec<u64>>() })
}

fn check_doubles(output: &Value, count: u64) {
    assert_eq!(output["each"], json!((0..count).map(|n| 2 * n).collect::<Vec<u64>>()));
    assert_eq!(output["sum"], json!(4 * (0..count).sum::<u64>()));
}

async fn double(value: &Value) -> Outcome<Value> {
    Ok(json!(2 * value.as_u64().ok_or_else(|| Failure::terminal("no_number", "it is no number"))?))
}

/// Doubles after a while that differs from item to item.
pub fn doubler(started: &Started, throttle: &str) -> App {
    let started = started.clone();
    App::new()
        .activity(DOUBLE, async move |_: Attempt, value: Value| {
            let n = value.as_u64().unwrap_or(0);
            started.lock().unwrap().push(n);
            tokio::time::sleep(Duration::from_micros(n.wrapping_mul(2_654_435_761) % 3_000)).await;
            double(&value).await
        })
        .pipeline(doubles(throttle))
}

pub async fn start(engine: &test::Engine, pipeline: &str, input: Value) -> Run {
    engine.local().start(pipeline, input).await.unwrap()
}

pub async fn state(engine: &test::Engine, id: RunId) -> RunState {
    engine.local().run(id).status().await.unwrap().state
}

/// Waits for the end, moving the clock as long as the run waits.
pub async fn end(engine: &test::Engine, id: RunId) -> Result<Value, RunError> {
    for _ in 0..20_000 {
        if state(engine, id).await.ended() {
            return engine.local().run(id).result().await;
        }
        engine.advance(Duration::from_millis(50)).await;
    }
    panic!("{:#?}", engine.local().run(id).status().await.unwrap());
}

/// Waits until the status fits, with the clock standing still.
pub async fn until(engine: &test::Engine, id: RunId, what: &str, fits: impl Fn(&selvedge::run::RunStatus) -> bool) {
    for _ in 0..5_000 {
        if fits(&engine.local().run(id).status().await.unwrap()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("never {what}: {:#?}", engine.local().run(id).status().await.unwrap());
}

pub async fn sound(engine: &test::Engine) {
    engine.settle().await;
    crate::kit::tallied(engine);
    let faults = engine.verify().await;
    assert!(faults.is_empty(), "{faults:#?}");
}

/// Items of a stage that have ended, as the store says.
fn ended_items(engine: &test::Engine, id: RunId, stage: u16) -> BTreeSet<u64> {
    let mut rows = prefix(Kind::RunTask, id).to_vec();
    rows.extend_from_slice(&stage.to_be_bytes());
    let stored = engine.model().rows(id.0.hash.shard(64));
    let ended = stored.iter().filter(|(key, _)| key.starts_with(&rows)).filter(|(_, value)| {
        let row: TaskRow = wire::decode("task", value).unwrap();
        !matches!(row.end, TaskEnd::Again { .. })
    });
    ended.filter_map(|(key, _)| item_of_task_key(key)).map(u64::from).collect()
}

#[tokio::test]
async fn gather_sees_two_hundred_outputs_in_item_order_however_fast_they_come() {
    let started = Started::default();
    let engine = test::Engine::new(doubler(&started, "")).await.unwrap();
    let run = start(&engine, "doubles", numbers(200)).await;
    check_doubles(&run.result().await.unwrap(), 200);
    sound(&engine).await;
}

#[tokio::test]
async fn an_empty_scatter_goes_on_with_an_empty_output() {
    let engine = test::Engine::new(doubler(&Started::default(), "")).await.unwrap();
    let run = start(&engine, "doubles", numbers(0)).await;
    assert_eq!(run.result::<Value>().await.unwrap(), json!({ "each": [], "sum": 0 }));
    sound(&engine).await;
}

#[tokio::test]
async fn killed_in_the_middle_of_a_throttled_scatter_every_item_finishes_and_no_ended_one_runs_again() {
    for (seed, throttle) in [(1u64, ", throttle: { concurrency: 4 }"), (2, ", throttle: { concurrency: 8, rate: { count: 30, per: 1s } }"), (3, "")] {
        let started = Started::default();
        let mut engine = test::Engine::new(doubler(&started, throttle)).await.unwrap();
        let id = start(&engine, "doubles", numbers(150)).await.id();
        let mut dice = seed;
        let mut kills = 0;
        while !state(&engine, id).await.ended() {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            tokio::time::sleep(Duration::from_micros((dice >> 40) % 4_000)).await;
            engine.advance(Duration::from_millis(100)).await;
            if kills < 40 {
                let ended = ended_items(&engine, id, 0);
                let before = started.lock().unwrap().len();
                engine.kill_and_reopen().await.unwrap();
                kills += 1;
                tokio::time::sleep(Duration::from_micros(500)).await;
                let again: Vec<u64> = {
                    let all = started.lock().unwrap();
                    all[before..].iter().copied().filter(|item| ended.contains(item)).collect()
                };
                // What was started between the look at the store and the kill had not ended either.
                assert!(again.is_empty(), "ended before kill {kills}, and started again: {again:?}");
            }
        }
        check_doubles(&engine.local().run(id).result().await.unwrap(), 150);
        sound(&engine).await;
    }
}

#[tokio::test]
async fn a_key_starts_one_run_and_another_input_under_it_is_refused() {
    let started = Started::default();
    let mut engine = test::Engine::new(doubler(&started, "")).await.unwrap();
    let first = engine.local().start("doubles", numbers(3)).idempotency_key("k").await.unwrap();
    let second = engine.local().start("doubles", numbers(3)).idempotency_key("k").await.unwrap();
    assert_eq!(first.id(), second.id());
    check_doubles(&second.result().await.unwrap(), 3);
    engine.kill_and_reopen().await.unwrap();
    let third = engine.local().start("doubles", numbers(3)).idempotency_key("k").await.unwrap();
    assert_eq!(first.id(), third.id());
    check_doubles(&third.result().await.unwrap(), 3);
    let refused = engine.local().start("doubles", numbers(4)).idempotency_key("k").await.map(|run| run.id()).unwrap_err();
    assert!(refused.to_string().contains("another input"), "{refused}");
    let other = engine.local().start("doubles", numbers(4)).await.unwrap();
    assert_ne!(other.id(), first.id());
    check_doubles(&other.result().await.unwrap(), 4);
    assert_eq!(started.lock().unwrap().iter().filter(|item| **item == 1).count(), 2);
}

#[tokio::test]
async fn a_wrong_input_is_refused_whole_and_an_unknown_pipeline_names_those_there_are() {
    let engine = test::Engine::new(doubler(&Started::default(), "")).await.unwrap();
    let wrong = engine.local().start("doubles", json!({ "number": [] })).await.map(|run| run.id()).unwrap_err().to_string();
    assert!(wrong.contains("`number`") && wrong.contains("input.numbers"), "{wrong}");
    let unknown = engine.local().start("double", json!({})).await.map(|run| run.id()).unwrap_err().to_string();
    assert!(unknown.contains("doubles"), "{unknown}");
}

#[tokio::test]
async fn a_late_result_of_an_attempt_that_was_given_up_does_not_count_twice() {
    let text = r#"
selvedge: 1
name: late
stages: [{ name: slow, call: double, input: "${`4`}", timeout: { attempt: 10s }, retry: { max_attempts: 3, initial: 1s, jitter: 0 } }]
output: "${stages.slow.output}"
"#;
    let first = Arc::new(tokio::sync::Notify::new());
    let gate = first.clone();
    let app = App::new()
        .activity(DOUBLE, async move |attempt: Attempt, value: Value| {
            if attempt.number() == 1 {
                gate.notified().await;
            }
            double(&value).await
        })
        .pipeline(parse(text));
    let engine = test::Engine::new(app).await.unwrap();
    let run = start(&engine, "late", json!({})).await;
    until(&engine, run.id(), "running", |status| status.stages[0].running == 1).await;
    engine.advance(Duration::from_secs(11)).await;
    first.notify_waiters();
    assert_eq!(end(&engine, run.id()).await.unwrap(), 8);
    let status = run.status().await.unwrap();
    assert_eq!((status.stages[0].done, status.stages[0].failed), (1, 0));
    assert_eq!(engine.effects().iter().filter(|effect| effect.name == "double").map(|effect| effect.attempt).collect::<Vec<_>>(), [1, 2]);
    sound(&engine).await;
}

#[tokio::test]
async fn a_cancelled_run_ends_as_cancelled_and_starts_nothing_more() {
    let started = Started::default();
    let mut engine = test::Engine::new(doubler(&started, ", throttle: { rate: { count: 2, per: 1s } }")).await.unwrap();
    let run = start(&engine, "doubles", numbers(50)).await;
    until(&engine, run.id(), "two done", |status| status.stages[0].done == 2).await;
    run.cancel().await.unwrap();
    assert!(matches!(run.result::<Value>().await, Err(RunError::Cancelled { .. })));
    let count = started.lock().unwrap().len();
    engine.advance(Duration::from_secs(60)).await;
    engine.kill_and_reopen().await.unwrap();
    engine.advance(Duration::from_secs(60)).await;
    assert_eq!(state(&engine, run.id()).await, RunState::Cancelled);
    assert_eq!(started.lock().unwrap().len(), count);
    let again = engine.local().run(run.id()).cancel().await.unwrap_err().to_string();
    assert!(again.contains("cancelled") && again.contains("`cancel`"), "{again}");
    sound(&engine).await;
    engine.local().run(run.id()).retry().await.unwrap();
    check_doubles(&end(&engine, run.id()).await.unwrap(), 50);
    assert_eq!(started.lock().unwrap().iter().filter(|item| **item < 2).count(), 2, "what ended before the cancel stays");
    sound(&engine).await;
}

#[tokio::test]
async fn runs_of_99_100_101_and_1000_items_end_whole_and_their_rows_are_linear() {
    let mut rows = Vec::new();
    for count in [99u64, 100, 101, 1_000] {
        let engine = test::Engine::new(doubler(&Started::default(), "")).await.unwrap();
        let run = start(&engine, "doubles", numbers(count)).await;
        check_doubles(&run.result().await.unwrap(), count);
        engine.settle().await;
        let stored: usize = (0..64).map(|shard| engine.model().rows(ShardId(shard)).iter().map(|(key, value)| key.len() + value.len()).sum::<usize>()).sum();
        rows.push(stored as f64 / count as f64);
        assert_eq!(ended_items(&engine, run.id(), 0).len() as u64, count);
    }
    assert!(rows[3] < 1.3 * rows[0], "bytes per item: {rows:?}");
}

#[tokio::test]
async fn killed_exactly_between_one_item_and_the_next_with_concurrency_one_nothing_is_stranded() {
    let started = Started::default();
    let mut engine = test::Engine::new(doubler(&started, ", throttle: { concurrency: 1 }")).await.unwrap();
    let id = start(&engine, "doubles", numbers(25)).await.id();
    for done in 1..=25u32 {
        loop {
            let at = engine.local().run(id).status().await.unwrap().stages[0].done;
            if at >= done {
                break;
            }
            tokio::task::yield_now().await;
        }
        engine.kill_and_reopen().await.unwrap();
    }
    check_doubles(&end(&engine, id).await.unwrap(), 25);
    sound(&engine).await;
}

#[tokio::test]
async fn fifty_large_outputs_cost_their_size_once() {
    let text = r#"
selvedge: 1
name: large
input: { sizes: { type: array } }
stages:
  - { name: each, mode: scatter, over: input.sizes, call: blob, throttle: { concurrency: 2 } }
  - { name: last, call: double, input: "${length(stages.each.failures)}" }
output: "${stages.last.output}"
"#;
    const BLOB: Activity<u64, String> = Activity::new("blob");
    let app = doubler(&Started::default(), "").activity(BLOB, async |_: Attempt, size: u64| Ok("x".repeat(size as usize))).pipeline(parse(text));
    let engine = test::Engine::new(app).await.unwrap();
    let sizes: Vec<u64> = (0..50).map(|n| 500_000 + n % 10 * 30_000 + if n % 25 == 0 { 7_000_000 } else { 0 }).collect();
    let run = start(&engine, "large", json!({ "sizes": sizes })).await;
    assert!(run.status().await.is_ok());
    let output = run.result::<Value>().await;
    engine.settle().await;
    let stored: usize = (0..64).map(|shard| engine.model().rows(ShardId(shard)).iter().map(|(key, value)| key.len() + value.len()).sum::<usize>()).sum();
    let whole: u64 = sizes.iter().sum();
    assert!((stored as u64) < whole + whole / 20, "{stored} bytes for outputs of {whole}");
    assert!(output.is_ok(), "{output:?}");
}

async fn add(ctx: Ctx, by: u64) -> Outcome<u64> {
    let sum = ctx.state().get::<u64>("sum").await?.unwrap_or(0) + by;
    ctx.state().set("sum", &sum)?;
    ctx.sleep(Duration::from_millis(20)).await?;
    Ok(by + 1)
}

fn counting() -> Definition {
    parse(
        r#"
selvedge: 1
name: counting
input: { numbers: { type: array } }
stages:
  - name: count
    mode: scatter
    over: input.numbers
    as: n
    call: { actor: counter, key: "c${mod(n, `3`)}", handler: add }
    input: "${n}"
    throttle: { concurrency: 16 }
output: "${stages.count.output}"
"#,
    )
}

#[tokio::test]
async fn calls_of_a_run_to_actors_happen_exactly_once_through_any_number_of_kills() {
    let app = App::new().handler(COUNT, add).pipeline(counting());
    let mut engine = test::Engine::new(app).await.unwrap();
    let id = start(&engine, "counting", numbers(60)).await.id();
    let mut kills = 0u64;
    while !state(&engine, id).await.ended() {
        tokio::time::sleep(Duration::from_micros(kills * 131 % 2_000)).await;
        engine.advance(Duration::from_millis(20)).await;
        if kills < 60 {
            engine.kill_and_reopen().await.unwrap();
            kills += 1;
        }
    }
    let output: Value = engine.local().run(id).result().await.unwrap();
    assert_eq!(output, json!((1..=60).collect::<Vec<u64>>()));
    let mut sum = 0;
    for key in 0..3 {
        let pending = engine.local().call_json("counter", &format!("c{key}"), "add", &json!(0));
        let read = tokio::join!(pending.into_future(), engine.advance(Duration::from_millis(50))).0.unwrap();
        assert_eq!(read, 1);
        let shard = selvedge_kernel::id::ActorId { tenant: "default".into(), kind: "counter".into(), key: format!("c{key}") };
        let row = selvedge_kernel::record::key::state(&shard, "sum");
        let stored = engine.model().rows(shard.hash16().shard(64)).into_iter().find(|(key, _)| *key == row).unwrap().1;
        sum += serde_json::from_slice::<u64>(&stored).unwrap();
    }
    assert_eq!(sum, (0..60).sum::<u64>());
    sound(&engine).await;
}

#[tokio::test]
async fn a_paused_run_that_calls_actors_takes_their_answers_and_goes_on_when_resumed() {
    let app = App::new().handler(COUNT, add).pipeline(counting());
    let mut engine = test::Engine::new(app).await.unwrap();
    let id = start(&engine, "counting", numbers(40)).await.id();
    until(&engine, id, "sixteen running", |status| status.stages[0].running == 16).await;
    engine.local().run(id).pause().await.unwrap();
    engine.kill_and_reopen().await.unwrap();
    for _ in 0..20 {
        engine.advance(Duration::from_secs(2)).await;
    }
    let status = engine.local().run(id).status().await.unwrap();
    assert_eq!((status.state, status.stages[0].done), (RunState::Paused, 16));
    engine.local().run(id).resume().await.unwrap();
    assert_eq!(end(&engine, id).await.unwrap(), json!((1..=40).collect::<Vec<u64>>()));
    sound(&engine).await;
}

#[tokio::test]
async fn a_handler_starts_a_run_exactly_once() {
    async fn launch(ctx: Ctx, input: Value) -> Outcome<RunId> {
        let run = ctx.start("doubles", input).await?;
        ctx.sleep(Duration::from_secs(5)).await?;
        Ok(run)
    }
    let mut engine = test::Engine::new(doubler(&Started::default(), "").handler(LAUNCH, launch)).await.unwrap();
    let invocation = engine.local().send(LAUNCH.on("a"), numbers(5)).await.unwrap();
    for _ in 0..10 {
        engine.kill_and_reopen().await.unwrap();
        engine.advance(Duration::from_secs(1)).await;
    }
    let id: RunId = engine.local().result(invocation).await.unwrap();
    check_doubles(&end(&engine, id).await.unwrap(), 5);
    let listed = engine.local().runs().await.unwrap();
    assert_eq!(listed.iter().map(|line| (line.id, line.state)).collect::<Vec<_>>(), [(id, RunState::Completed)]);
    sound(&engine).await;
}

#[tokio::test]
async fn a_run_that_only_waits_leaves_memory_and_its_timer_brings_it_back() {
    let text = r#"
selvedge: 1
name: nap
stages: [{ name: nap, mode: sleep, for: 2d }]
"#;
    let engine = test::Engine::new(App::new().pipeline(parse(text))).await.unwrap();
    let mut runs = Vec::new();
    for _ in 0..20 {
        runs.push(start(&engine, "nap", json!({})).await.id());
    }
    engine.advance(Duration::from_secs(5)).await;
    assert_eq!(engine.census().await.runs, 0);
    engine.advance(Duration::from_secs(2 * 86_400)).await;
    for run in runs {
        assert_eq!(engine.local().run(run).result::<Value>().await.unwrap(), Value::Null);
    }
    sound(&engine).await;
}

#[tokio::test]
async fn runs_are_listed_newest_first_and_leave_after_their_retention() {
    let engine = test::Engine::new(doubler(&Started::default(), "")).await.unwrap();
    let mut ids = Vec::new();
    for n in 0..5 {
        let run = start(&engine, "doubles", numbers(n)).await;
        run.result::<Value>().await.unwrap();
        ids.push(run.id());
        engine.advance(Duration::from_secs(1)).await;
    }
    ids.reverse();
    assert_eq!(engine.local().runs().await.unwrap().iter().map(|line| line.id).collect::<Vec<_>>(), ids);
    engine.advance(Duration::from_secs(8 * 86_400)).await;
    let gone = engine.local().run(ids[0]).status().await.unwrap_err().to_string();
    assert!(gone.contains("retention"), "{gone}");
    for id in &ids {
        let left = engine.model().rows(id.0.hash.shard(64)).into_iter().filter(|(key, _)| key.get(3..21) == Some(&id.0.to_bytes()[..])).count();
        assert_eq!(left, 0);
    }
    sound(&engine).await;
}

#[tokio::test]
async fn whoever_follows_a_run_sees_every_commit_once_and_in_order() {
    let engine = test::Engine::new(doubler(&Started::default(), ", throttle: { concurrency: 1 }")).await.unwrap();
    let run = start(&engine, "doubles", numbers(20)).await;
    let mut events = run.follow();
    let (mut expected, mut done, mut last) = (0, 0, RunState::Pending);
    while let Some((number, event)) = events.next().await.unwrap() {
        assert_eq!(number, expected);
        expected += 1;
        done = event.progress.iter().filter(|progress| progress.stage == "each").map(|progress| progress.done).fold(done, u32::max);
        last = event.state;
    }
    assert_eq!((done, last), (20, RunState::Completed));
}

#[tokio::test]
async fn a_run_whose_activity_is_gone_is_blocked_and_goes_on_once_a_binary_has_it() {
    let mut engine = test::Engine::new(App::new().pipeline(doubles(""))).await.unwrap();
    let id = start(&engine, "doubles", numbers(4)).await.id();
    until(&engine, id, "blocked", |status| status.state == RunState::Blocked).await;
    let waiting = engine.local().run(id).status().await.unwrap().waiting;
    assert!(waiting.iter().any(|waiting| waiting.sentence().contains("`double`")), "{waiting:?}");
    engine.deploy(doubler(&Started::default(), "")).await.unwrap();
    check_doubles(&end(&engine, id).await.unwrap(), 4);
    sound(&engine).await;
}

#[tokio::test]
async fn failed_tasks_are_retried_by_hand_and_finished_ones_stay() {
    let broken = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let (flag, started) = (broken.clone(), Started::default());
    let seen = started.clone();
    let app = App::new()
        .activity(DOUBLE, async move |_: Attempt, value: Value| {
            seen.lock().unwrap().push(value.as_u64().unwrap_or(0));
            if flag.load(std::sync::atomic::Ordering::SeqCst) && value == json!(7) {
                return Err(Failure::terminal("broken", "seven is broken"));
            }
            double(&value).await
        })
        .pipeline(doubles(", throttle: { concurrency: 1 }"));
    let mut engine = test::Engine::new(app).await.unwrap();
    let id = start(&engine, "doubles", numbers(12)).await.id();
    let failed = engine.local().run(id).result::<Value>().await.unwrap_err().to_string();
    assert!(failed.contains("broken") && failed.contains("stage `each`"), "{failed}");
    broken.store(false, std::sync::atomic::Ordering::SeqCst);
    engine.kill_and_reopen().await.unwrap();
    engine.local().run(id).retry().await.unwrap();
    check_doubles(&end(&engine, id).await.unwrap(), 12);
    assert_eq!(started.lock().unwrap().iter().filter(|item| **item < 7).count(), 7);
    sound(&engine).await;
}

#[tokio::test]
async fn a_row_of_a_run_that_was_changed_is_found_and_named() {
    let engine = test::Engine::new(doubler(&Started::default(), "")).await.unwrap();
    let run = start(&engine, "doubles", numbers(3)).await;
    run.result::<Value>().await.unwrap();
    sound(&engine).await;
    let shard = run.id().0.hash.shard(64);
    let (row, value) = engine.model().rows(shard).into_iter().find(|(key, _)| key.starts_with(&prefix(Kind::RunTask, run.id()))).unwrap();
    let mut changed = value.to_vec();
    *changed.last_mut().unwrap() ^= 1;
    engine.model().overwrite(shard, row, changed.into());
    let faults = engine.verify().await;
    assert!(faults.iter().any(|fault| fault.contains("was changed after commit")), "{faults:?}");
}

#[tokio::test]
async fn a_scatter_on_the_embedded_store_goes_on_after_the_engine_was_closed_in_its_middle() {
    let folder = std::env::temp_dir().join(format!("selvedge-runs-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    let started = Started::default();
    let app = doubler(&started, ", throttle: { concurrency: 4 }");
    let engine = selvedge::Engine::open(folder.as_path(), app.clone()).await.unwrap();
    let id = engine.local().start("doubles", numbers(300)).await.unwrap().id();
    engine.close().await.unwrap();
    for _ in 0..5 {
        let engine = selvedge::Engine::open(folder.as_path(), app.clone()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        engine.close().await.unwrap();
    }
    let engine = selvedge::Engine::open(folder.as_path(), app).await.unwrap();
    check_doubles(&engine.local().run(id).result().await.unwrap(), 300);
    let faults: Vec<String> = engine.local().verify().await.unwrap().into_iter().flat_map(|report| report.faults).collect();
    assert!(faults.is_empty(), "{faults:?}");
    engine.close().await.unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test]
async fn recovery_goes_on_when_the_store_is_back_and_a_fenced_owner_finishes_nothing() {
    let started = Started::default();
    let mut engine = test::Engine::new(doubler(&started, ", throttle: { concurrency: 3 }")).await.unwrap();
    let id = start(&engine, "doubles", numbers(60)).await.id();
    until(&engine, id, "ten done", |status| status.stages[0].done >= 10).await;
    engine.model().set_stopped(Some("somebody pulled the plug"));
    assert!(engine.kill_and_reopen().await.is_err());
    engine.model().set_stopped(None);
    let ended = ended_items(&engine, id, 0);
    let before = started.lock().unwrap().len();
    engine.kill_and_reopen().await.unwrap();
    until(&engine, id, "thirty done", |status| status.stages[0].done >= 30).await;
    // Another owner claims the shard: this one commits nothing more.
    engine.model().fence(id.0.hash.shard(64));
    let fenced = ended_items(&engine, id, 0);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(ended_items(&engine, id, 0), fenced);
    let after = started.lock().unwrap().len();
    engine.kill_and_reopen().await.unwrap();
    check_doubles(&end(&engine, id).await.unwrap(), 60);
    let all = started.lock().unwrap().clone();
    assert!(!all[before..].iter().any(|item| ended.contains(item)), "what had ended before the store went away ran again");
    assert!(!all[after + 3..].iter().any(|item| fenced.contains(item)), "what had ended before the shard was taken over ran again");
    sound(&engine).await;
}

#[tokio::test]
async fn a_cancel_that_races_with_completion_and_a_kill_has_one_outcome() {
    for round in 0..30u64 {
        let mut engine = test::Engine::new(doubler(&Started::default(), "")).await.unwrap();
        let run = start(&engine, "doubles", numbers(3)).await;
        tokio::time::sleep(Duration::from_micros(round * 200)).await;
        let taken = run.cancel().await;
        let seen = run.result::<Value>().await;
        match (&taken, &seen) {
            (Ok(()), Err(RunError::Cancelled { .. })) => {}
            (Err(refused), Ok(output)) => {
                assert!(refused.to_string().contains("completed"), "{refused}");
                check_doubles(output, 3);
            }
            other => panic!("{other:?}"),
        }
        engine.kill_and_reopen().await.unwrap();
        assert_eq!(state(&engine, run.id()).await, if taken.is_ok() { RunState::Cancelled } else { RunState::Completed });
        sound(&engine).await;
    }
}

#[tokio::test]
async fn a_wide_run_leaves_piece_by_piece_after_its_retention() {
    let engine = test::Engine::new(doubler(&Started::default(), "")).await.unwrap();
    let run = start(&engine, "doubles", numbers(3_000)).await;
    run.result::<Value>().await.unwrap();
    for _ in 0..5 {
        engine.advance(Duration::from_secs(2 * 86_400)).await;
    }
    let left = engine.model().rows(run.id().0.hash.shard(64)).into_iter().filter(|(key, _)| key.get(3..21) == Some(&run.id().0.to_bytes()[..])).count();
    assert_eq!(left, 0);
}
