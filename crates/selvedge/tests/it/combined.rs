//! Options of stages in combination, from a file to the end, on the reference model and through kills.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use selvedge::run::RunError;
use selvedge::{Activity, App, Attempt, Ctx, Failure, Handler, RunId, SharedHandler, Signal, View, test};
use selvedge_kernel::machine::{RunState, StageState};
use selvedge_kernel::waiting::Waiting;
use serde_json::{Value, json};

use super::by_hand::killed_after;
use super::runs::{end, parse, sound, start, state, until};

const ECHO: Activity<Value, Value> = Activity::new("echo");
const FAIL: Activity<Value, Value> = Activity::new("fail");
const UNDO: Activity<Value, Value> = Activity::new("undo");
const ODD: Activity<u64, u64> = Activity::new("odd");
const SUM: Activity<Vec<u64>, u64> = Activity::new("sum");

type Seen = Arc<Mutex<Vec<Value>>>;

fn app(undone: &Seen) -> App {
    let undone = undone.clone();
    App::new()
        .activity(ECHO, async |_: Attempt, value: Value| Ok(value))
        .activity(FAIL, async |_: Attempt, _: Value| Err(Failure::terminal("broken", "it is broken")))
        .activity(ODD, async |_: Attempt, n: u64| if n % 2 == 1 { Ok(n) } else { Err(Failure::terminal("even", "it is even")) })
        .activity(SUM, async |_: Attempt, all: Vec<u64>| Ok(all.iter().sum()))
        .activity(UNDO, async move |_: Attempt, value: Value| {
            undone.lock().unwrap().push(value);
            Ok(Value::Null)
        })
}

async fn with(stages: &str) -> test::Engine {
    test::Engine::new(app(&Seen::default()).pipeline(parse(stages))).await.unwrap()
}

fn code(result: Result<Value, RunError>) -> (String, String) {
    match result {
        Err(RunError::Failed { code, message, .. }) => (code, message),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_scatter_that_is_skipped_leaves_a_grouped_gather_with_no_group_and_the_run_goes_on() {
    let text = r#"
selvedge: 1
name: p
input: { list: { type: array }, go: { type: boolean } }
stages:
  - { name: each, mode: scatter, when: input.go, over: input.list, call: echo, where: "item.n > `0`" }
  - { name: by, mode: gather, stages: [each], group_by: item.kind, where: "item.n < `9`", call: echo, input: { k: "${group.key}", n: "${length(group.items)}" } }
  - { name: object, mode: gather, stages: [each], group_by: item.kind, combine: object }
output: { by: "${stages.by.output}", object: "${stages.object.output}", each: "${stages.each.status}", failures: "${stages.by.failures}" }
"#;
    let engine = with(text).await;
    let list = json!([{ "n": 1, "kind": "b" }, { "n": 0, "kind": "a" }, { "n": 2, "kind": "a" }, { "n": 9, "kind": "c" }, { "n": 3, "kind": "b" }]);
    let id = start(&engine, "p", json!({ "list": list, "go": true })).await.id();
    let full = end(&engine, id).await.unwrap();
    assert_eq!(full["by"], json!([{ "k": "a", "n": 1 }, { "k": "b", "n": 2 }]));
    assert_eq!(full["object"]["c"], json!([{ "n": 9, "kind": "c" }]));
    let id = start(&engine, "p", json!({ "list": [], "go": false })).await.id();
    assert_eq!(end(&engine, id).await.unwrap(), json!({ "by": [], "object": {}, "each": "skipped", "failures": [] }));
    sound(&engine).await;
}

#[tokio::test]
async fn what_a_fallback_gave_is_undone_with_its_stage() {
    let text = r#"
selvedge: 1
name: p
stages:
  - name: charge
    call: fail
    retry: none
    on_failure: { call: echo, input: { id: other, why: "${error.code}" } }
    compensate: { call: undo, input: { id: "${output.id}", why: "${output.why}" } }
  - { name: nap, mode: sleep, for: 1s }
  - { name: ship, call: fail, retry: none }
"#;
    let undone = Seen::default();
    let mut engine = test::Engine::new(app(&undone).pipeline(parse(text))).await.unwrap();
    let id = start(&engine, "p", json!({})).await.id();
    until(&engine, id, "napping", |status| status.state == RunState::Waiting).await;
    engine.kill_and_reopen().await.unwrap();
    assert_eq!(code(end(&engine, id).await).0, "broken");
    assert_eq!(*undone.lock().unwrap(), [json!({ "id": "other", "why": "broken" })]);
    sound(&engine).await;
}

#[tokio::test]
async fn a_fallback_gives_the_output_of_a_map_reduce_also_through_a_kill_while_it_runs() {
    let text = r#"
selvedge: 1
name: p
stages:
  - { name: sums, mode: map_reduce, over: "[`1`, `2`, `3`]", map: { call: odd, input: "${item}" }, reduce: sum, retry: none, on_failure: { call: { actor: slow, key: k, handler: answer }, input: "${error}" } }
  - { name: all, mode: gather, stages: [sums] }
output: { sums: "${stages.sums.output}", all: "${stages.all.output}", failures: "${stages.sums.failures[].error.code}" }
"#;
    const ANSWER: Handler<Value, Value> = Handler::new("slow", "answer");
    let asked = Arc::new(AtomicU32::new(0));
    let count = asked.clone();
    let app = app(&Seen::default()).pipeline(parse(text)).handler(ANSWER, async move |ctx: Ctx, value: Value| {
        let count = count.clone();
        ctx.step("asked", async move |_| Ok(count.fetch_add(1, Ordering::SeqCst))).await?;
        ctx.sleep(Duration::from_secs(5)).await?;
        Ok(value)
    });
    let mut engine = test::Engine::new(app).await.unwrap();
    let id = start(&engine, "p", json!({})).await.id();
    while asked.load(Ordering::SeqCst) == 0 {
        engine.settle().await;
    }
    for _ in 0..2 {
        engine.settle().await;
        engine.kill_and_reopen().await.unwrap();
    }
    let output = end(&engine, id).await.unwrap();
    assert_eq!((output["sums"]["code"].as_str(), output["all"][0]["code"].as_str()), (Some("even"), Some("even")), "{output}");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    sound(&engine).await;
}

#[tokio::test]
async fn a_gather_of_which_too_few_gave_an_output_goes_on_with_null_where_it_continues() {
    let text = r#"
selvedge: 1
name: p
stages:
  - { name: one, call: fail, retry: none, depends_on: [], on_failure: continue }
  - { name: two, mode: scatter, over: "[`2`, `4`]", call: odd, retry: none, depends_on: [], on_failure: continue }
  - { name: three, call: echo, input: 3, depends_on: [] }
  - { name: both, mode: gather, stages: [one, two, three], wait: { count: 2 }, combine: object, on_failure: continue }
output: { both: "${stages.both.output}", failures: "${stages.both.failures[].error.code}", status: "${stages.both.status}" }
"#;
    let mut engine = with(text).await;
    let id = start(&engine, "p", json!({})).await.id();
    engine.kill_and_reopen().await.unwrap();
    assert_eq!(end(&engine, id).await.unwrap(), json!({ "both": null, "failures": ["too_few"], "status": "completed" }));
    sound(&engine).await;
}

#[tokio::test]
async fn a_stage_that_cannot_begin_goes_on_as_its_on_failure_says() {
    let text = r#"
selvedge: 1
name: p
input: { list: { default: null } }
stages:
  - { name: each, mode: scatter, over: input.list, call: echo, depends_on: [], on_failure: continue }
  - { name: other, mode: scatter, over: input.list, call: echo, depends_on: [], on_failure: { call: echo, input: ["${error.code}"] }, compensate: undo }
  - { name: one, call: fail, retry: none, depends_on: [], on_failure: continue }
  - { name: third, call: echo, input: 3, depends_on: [] }
  - { name: both, mode: gather, stages: [one, third], wait: { count: 2 }, on_failure: { call: echo, input: "${error.message}" } }
  - { name: keys, mode: gather, stages: [each, other], group_by: item.no_key, on_failure: { call: echo, input: [1] } }
  - { name: all, mode: gather, stages: [each, other], where: "item != `null`", depends_on: [] }
output:
  keys: "${stages.keys.output}"
  each: "${stages.each.output}"
  why: "${stages.each.failures[0].error.code}"
  other: "${stages.other.output}"
  both: "${stages.both.output}"
  all: "${length(stages.all.output)}"
"#;
    let mut engine = with(text).await;
    let id = start(&engine, "p", json!({})).await.id();
    engine.kill_and_reopen().await.unwrap();
    let output = end(&engine, id).await.unwrap();
    let both = "1 of its 2 stages gave an output, and it waits for 2";
    assert_eq!(output, json!({ "keys": [1], "each": [], "why": "expression", "other": ["expression"], "both": both, "all": 1 }));
    sound(&engine).await;
}

#[tokio::test]
async fn a_pause_in_the_middle_of_undoing_starts_nothing_new_and_going_on_undoes_the_rest_once() {
    let text = r#"
selvedge: 1
name: p
stages:
  - { name: each, mode: scatter, over: "[`1`, `2`, `3`]", call: echo, compensate: { call: { actor: stock, key: "${item}", handler: release } }, throttle: { concurrency: 1 } }
  - { name: ship, call: fail, retry: none }
"#;
    const RELEASE: Handler<Value, Value> = Handler::new("stock", "release");
    let released = Seen::default();
    let noted = released.clone();
    let app = app(&Seen::default()).pipeline(parse(text)).handler(RELEASE, async move |ctx: Ctx, value: Value| {
        ctx.sleep(Duration::from_secs(60)).await?;
        let noted = noted.clone();
        let item = value["item"].clone();
        ctx.step("note", async move |_| {
            noted.lock().unwrap().push(item.clone());
            Ok(())
        })
        .await?;
        Ok(Value::Null)
    });
    let mut engine = test::Engine::new(app).await.unwrap();
    let run = start(&engine, "p", json!({})).await;
    let id = run.id();
    until(&engine, id, "undoing", |status| status.stages.iter().any(|stage| stage.name == "each.compensate" && stage.running == 1)).await;
    run.pause().await.unwrap();
    engine.kill_and_reopen().await.unwrap();
    for _ in 0..5 {
        engine.advance(Duration::from_secs(61)).await;
        engine.settle().await;
    }
    assert_eq!(*released.lock().unwrap(), [json!(3)], "the one that ran ended, and no other began");
    assert_eq!(state(&engine, id).await, RunState::Paused);
    let why = engine.local().run(id).status().await.unwrap();
    assert!(matches!(why.waiting[0], Waiting::Paused { .. }), "{:?}", why.waiting);
    engine.local().run(id).resume().await.unwrap();
    for _ in 0..8 {
        engine.settle().await;
        engine.advance(Duration::from_secs(61)).await;
    }
    assert_eq!(code(end(&engine, id).await).0, "broken");
    assert_eq!(*released.lock().unwrap(), [json!(3), json!(2), json!(1)]);
    sound(&engine).await;
}

#[tokio::test]
async fn the_time_of_a_run_is_up_also_while_it_is_paused_and_while_it_stands_in_line() {
    let text = r#"
selvedge: 1
name: p
timeout: 1m
concurrency: { limit: 1 }
stages: [{ name: go, mode: wait_signal, signal: go }]
"#;
    let mut engine = with(text).await;
    let first = start(&engine, "p", json!({})).await;
    until(&engine, first.id(), "going", |status| status.state == RunState::Waiting).await;
    first.pause().await.unwrap();
    let second = start(&engine, "p", json!({})).await.id();
    let first = first.id();
    until(&engine, second, "in line", |status| status.waiting.iter().any(|waits| matches!(waits, Waiting::RunLimit { .. }))).await;
    engine.kill_and_move_on(Duration::from_secs(61)).await.unwrap();
    for id in [first, second] {
        assert_eq!(code(end(&engine, id).await).0, "deadline");
    }
    let third = start(&engine, "p", json!({})).await.id();
    until(&engine, third, "going", |status| status.state == RunState::Waiting).await;
    sound(&engine).await;
}

#[tokio::test]
async fn a_signal_to_a_run_that_stands_in_line_is_kept_until_its_stage_waits() {
    let text = r#"
selvedge: 1
name: p
concurrency: { limit: 1 }
stages: [{ name: go, mode: wait_signal, signal: go }]
output: "${stages.go.output}"
"#;
    let mut engine = with(text).await;
    let first = start(&engine, "p", json!({})).await;
    until(&engine, first.id(), "going", |status| status.state == RunState::Waiting).await;
    let second = start(&engine, "p", json!({})).await;
    second.signal(Signal::<u32>::new("go"), 2).await.unwrap();
    let (first, second) = (first.id(), second.id());
    engine.kill_and_reopen().await.unwrap();
    engine.local().run(first).signal(Signal::<u32>::new("go"), 1).await.unwrap();
    assert_eq!(end(&engine, first).await.unwrap(), json!(1));
    assert_eq!(end(&engine, second).await.unwrap(), json!(2));
    sound(&engine).await;
}

#[tokio::test]
async fn a_run_that_failed_and_is_retried_stands_in_line_again() {
    let text = r#"
selvedge: 1
name: p
input: { way: { type: string } }
concurrency: { limit: 1 }
stages:
  - { name: nap, mode: sleep, for: 1s }
  - { name: work, call: "fail", when: "input.way == 'fail'", retry: none }
"#;
    let mut engine = with(text).await;
    let first = start(&engine, "p", json!({ "way": "fail" })).await.id();
    assert_eq!(code(end(&engine, first).await).0, "broken");
    let second = start(&engine, "p", json!({ "way": "nap" })).await.id();
    until(&engine, second, "napping", |status| status.state == RunState::Waiting).await;
    engine.local().run(first).retry().await.unwrap();
    until(&engine, first, "in line", |status| status.waiting.iter().any(|waits| matches!(waits, Waiting::RunLimit { .. }))).await;
    engine.kill_and_reopen().await.unwrap();
    until(&engine, first, "in line", |status| status.waiting.iter().any(|waits| matches!(waits, Waiting::RunLimit { .. }))).await;
    assert_eq!(end(&engine, second).await.unwrap(), Value::Null);
    assert_eq!(code(end(&engine, first).await).0, "broken");
    sound(&engine).await;
}

const CHILD: &str = r#"
selvedge: 1
name: child
input: { n: { type: integer } }
stages:
  - { name: work, call: echo, input: "${input.n}", compensate: { call: undo, input: { in_child: "${output}" } } }
  - { name: nap, mode: sleep, for: 1h }
output: "${stages.work.output}"
"#;

async fn child_of(engine: &test::Engine, id: RunId) -> RunId {
    let child =
        |status: &selvedge::run::RunStatus| status.waiting.iter().find_map(|waits| if let Waiting::ChildRun { run, .. } = waits { Some(*run) } else { None });
    until(engine, id, "at its child", |status| child(status).is_some()).await;
    child(&engine.local().run(id).status().await.unwrap()).unwrap()
}

#[tokio::test]
async fn the_timeout_of_a_stage_holds_for_the_run_that_it_calls() {
    let again = |attempts: u32| format!("{{ max_attempts: {attempts}, backoff: fixed, initial: 1s }}");
    // The first start of a task is not written: a downtime counts for the time of an attempt, and not for that of all of them.
    for (timeout, retry, downtime, attempts) in
        [("{ attempt: 30s }", "none".to_owned(), 15, 1), ("{ total: 50s }", again(9), 0, 1), ("{ attempt: 20s }", again(2), 15, 2)]
    {
        let text = format!(
            "selvedge: 1\nname: parent\nstages:\n  - {{ name: call, call: {{ pipeline: child }}, input: {{ n: 1 }}, timeout: {timeout}, retry: {retry}, on_failure: continue }}\noutput: \"${{stages.call.failures[0].{{code: error.code, attempts: attempts}}}}\"\n"
        );
        let undone = Seen::default();
        let mut engine = test::Engine::new(app(&undone).pipeline(parse(&text)).pipeline(parse(CHILD))).await.unwrap();
        let id = start(&engine, "parent", json!({})).await.id();
        child_of(&engine, id).await;
        engine.settle().await;
        engine.kill_and_move_on(Duration::from_secs(downtime)).await.unwrap();
        for _ in 0..attempts {
            let child = child_of(&engine, id).await;
            until(&engine, child, "napping", |status| status.state == RunState::Waiting).await;
            engine.advance(Duration::from_secs(51)).await;
            until(&engine, child, "past its deadline", |status| status.state == RunState::Failed).await;
            assert_eq!(code(engine.local().run(child).result().await).0, "deadline");
            until(&engine, id, "answered", |status| status.state.ended() || status.stages[0].retrying == 1).await;
            engine.advance(Duration::from_secs(2)).await;
        }
        let output = end(&engine, id).await.unwrap();
        assert_eq!(output["attempts"], json!(attempts), "{output}");
        assert_eq!(undone.lock().unwrap().len(), attempts, "a child whose time is up undoes what it did");
        sound(&engine).await;
    }
}

#[tokio::test]
async fn a_stage_is_undone_by_a_run_of_another_pipeline_through_kills() {
    let text = r#"
selvedge: 1
name: parent
stages:
  - { name: work, mode: scatter, over: "[`1`, `2`]", call: echo, compensate: { call: { pipeline: back }, input: { n: "${output}" } } }
  - { name: ship, call: fail, retry: none }
"#;
    let back = "selvedge: 1\nname: back\ninput: { n: { type: integer } }\nstages:\n  - { name: nap, mode: sleep, for: 5s }\n  - { name: undo, call: undo, input: \"${input.n}\" }\n";
    let undone = Seen::default();
    let mut engine = test::Engine::new(app(&undone).pipeline(parse(text)).pipeline(parse(back))).await.unwrap();
    let id = start(&engine, "parent", json!({})).await.id();
    child_of(&engine, id).await;
    for _ in 0..3 {
        engine.kill_and_reopen().await.unwrap();
        engine.advance(Duration::from_secs(2)).await;
    }
    assert_eq!(code(end(&engine, id).await).0, "broken");
    let mut all = undone.lock().unwrap().clone();
    all.sort_by_key(|n| n.as_u64());
    all.dedup();
    assert_eq!(all, [json!(1), json!(2)]);
    assert_eq!(engine.local().runs().await.unwrap().len(), 3);
    sound(&engine).await;
}

#[tokio::test]
async fn a_finished_child_run_is_undone_by_what_its_stage_says_and_one_under_way_by_itself() {
    let text = r#"
selvedge: 1
name: parent
stages:
  - { name: done, call: { pipeline: quick }, compensate: { call: undo, input: { of_stage: "${output}" } } }
  - { name: open, call: { pipeline: child }, input: { n: 7 }, compensate: { call: undo, input: { never: "${output}" } } }
"#;
    let quick = "selvedge: 1\nname: quick\nstages: [{ name: one, call: echo, input: 1, compensate: undo }]\noutput: \"${stages.one.output}\"\n";
    let undone = Seen::default();
    let mut engine = test::Engine::new(app(&undone).pipeline(parse(text)).pipeline(parse(quick)).pipeline(parse(CHILD))).await.unwrap();
    let id = start(&engine, "parent", json!({})).await.id();
    until(&engine, id, "at the second", |status| status.stages[1].running == 1).await;
    let child = child_of(&engine, id).await;
    until(&engine, child, "napping", |status| status.state == RunState::Waiting).await;
    engine.kill_and_reopen().await.unwrap();
    engine.local().run(id).cancel().await.unwrap();
    until(&engine, child, "cancelled", |status| status.state == RunState::Cancelled).await;
    until(&engine, id, "cancelled", |status| status.state == RunState::Cancelled).await;
    let mut all = undone.lock().unwrap().clone();
    all.sort_by_key(ToString::to_string);
    assert_eq!(all, [json!({ "in_child": 7 }), json!({ "of_stage": 1 })]);
    sound(&engine).await;
}

#[tokio::test]
async fn the_time_of_a_call_of_an_actor_is_the_deadline_of_its_handler_and_a_queued_one_never_starts() {
    let text = r#"
selvedge: 1
name: p
stages:
  - { name: ask, mode: scatter, over: "[`1`, `2`]", call: { actor: slow, key: k, handler: answer }, timeout: { attempt: 30s }, retry: none, on_failure: continue }
output: "${stages.ask.failures[].error.code}"
"#;
    const ANSWER: Handler<Value, Value> = Handler::new("slow", "answer");
    let seen = Seen::default();
    let noted = seen.clone();
    let app = app(&Seen::default()).pipeline(parse(text)).handler(ANSWER, async move |ctx: Ctx, value: Value| {
        noted.lock().unwrap().push(value.clone());
        ctx.sleep(Duration::from_secs(3_600)).await?;
        Ok(value)
    });
    let mut engine = test::Engine::new(app).await.unwrap();
    let id = start(&engine, "p", json!({})).await.id();
    while seen.lock().unwrap().is_empty() {
        engine.settle().await;
    }
    engine.settle().await;
    engine.kill_and_move_on(Duration::from_secs(31)).await.unwrap();
    assert_eq!(end(&engine, id).await.unwrap(), json!(["deadline", "deadline"]));
    let mut all = seen.lock().unwrap().clone();
    all.dedup();
    assert_eq!(all.len(), 1, "{all:?}");
    sound(&engine).await;
}

#[tokio::test]
async fn a_stage_calls_a_shared_handler_too() {
    let text = r#"
selvedge: 1
name: p
stages:
  - { name: add, call: { actor: box, key: k, handler: add }, input: 4 }
  - { name: see, call: { actor: box, key: k, handler: see } }
output: "${stages.see.output}"
"#;
    let app = app(&Seen::default())
        .pipeline(parse(text))
        .handler(Handler::<u64, ()>::new("box", "add"), async |ctx: Ctx, n: u64| ctx.state().set("n", &n))
        .shared(SharedHandler::<(), u64>::new("box", "see"), async |view: View, ()| Ok(view.get("n").await?.unwrap_or(0)));
    let engine = test::Engine::new(app).await.unwrap();
    let id = start(&engine, "p", json!({})).await.id();
    assert_eq!(end(&engine, id).await.unwrap(), json!(4));
    sound(&engine).await;
}

#[tokio::test]
async fn an_answer_to_an_approval_counts_while_its_run_is_paused_and_the_next_stage_starts_when_it_goes_on() {
    let text = r#"
selvedge: 1
name: p
stages:
  - { name: ask, mode: approval, assignees: ["user:ada"], expires: 1h }
  - { name: work, call: echo, input: "${stages.ask.output.decision}" }
output: "${stages.work.output}"
"#;
    let mut engine = with(text).await;
    let run = start(&engine, "p", json!({})).await;
    let id = run.id();
    until(&engine, id, "asking", |status| status.stages[0].approval.is_some()).await;
    run.pause().await.unwrap();
    run.decide("ask", true, "ada", None).await.unwrap();
    engine.kill_and_reopen().await.unwrap();
    engine.settle().await;
    assert_eq!(state(&engine, id).await, RunState::Paused);
    assert_eq!(engine.local().run(id).status().await.unwrap().stages[1].state, StageState::Pending);
    engine.local().run(id).resume().await.unwrap();
    assert_eq!(end(&engine, id).await.unwrap(), json!("approved"));
    sound(&engine).await;
}

#[tokio::test]
async fn what_a_signal_that_never_came_leaves_is_null_with_its_failure_where_the_stage_continues() {
    let text = r#"
selvedge: 1
name: p
stages:
  - { name: paid, mode: wait_signal, signal: paid, timeout: { total: 1h }, on_failure: continue }
  - { name: other, mode: wait_signal, signal: other, timeout: { total: 1h }, on_failure: { call: echo, input: { instead: "${error.code}" } } }
output: { paid: "${stages.paid.output}", failures: "${stages.paid.failures}", other: "${stages.other.output}" }
"#;
    let mut engine = with(text).await;
    let id = start(&engine, "p", json!({})).await.id();
    engine.settle().await;
    for _ in 0..3 {
        engine.kill_and_move_on(Duration::from_secs(3_601)).await.unwrap();
        engine.settle().await;
    }
    let output = end(&engine, id).await.unwrap();
    assert_eq!((&output["paid"], &output["other"]), (&Value::Null, &json!({ "instead": "deadline" })));
    assert_eq!(output["failures"].as_array().unwrap().len(), 1, "{output}");
    assert_eq!(output["failures"][0]["error"]["code"], json!("deadline"));
    sound(&engine).await;
}

#[tokio::test]
async fn large_integers_and_the_order_of_keys_pass_a_run_unchanged() {
    let text = r#"
selvedge: 1
name: p
input: { v: { type: object } }
stages:
  - { name: each, mode: scatter, over: "[input.v]", call: echo, input: "${item}" }
  - { name: all, mode: gather, stages: [each] }
output: "${stages.all.output[0]}"
"#;
    let engine = with(text).await;
    let value: Value = serde_json::from_str(r#"{ "z": 9007199254740993, "a": 18446744073709551615, "m": { "y": 1, "b": [1.5, "x"] } }"#).unwrap();
    let run = start(&engine, "p", json!({ "v": value })).await;
    assert_eq!(end(&engine, run.id()).await.unwrap(), value);
    sound(&engine).await;
}

#[tokio::test]
async fn a_run_is_held_against_the_limits_that_are_configured_and_not_only_against_those_of_the_format() {
    let text = r#"
selvedge: 1
name: parent
stages:
  - { name: one, call: { pipeline: child }, on_failure: continue }
output: "${stages.one.failures[0].error.code}"
"#;
    let nap = |name: &str| format!("  - {{ name: {name}, mode: sleep, for: 1s }}\n");
    let long = format!("selvedge: 1\nname: child\nstages:\n{}", ["a", "b", "c"].map(nap).concat());
    let often = "selvedge: 1\nname: often\nstages: [{ name: one, call: echo, compensate: { call: undo, retry: { max_attempts: 21 } } }]\n";
    let app = app(&Seen::default()).pipeline(parse(text)).pipeline(parse(&long)).pipeline(parse(often));
    let limits = selvedge_kernel::limit::Limits { stages: 2, attempts: 1_000, ..selvedge_kernel::limit::Limits::default() };
    let mut engine = test::Engine::with(app, selvedge::Settings { limits, ..selvedge::Settings::default() }).await.unwrap();
    let error = engine.local().start("child", json!({})).await.err().unwrap().to_string();
    assert!(error.contains("`child` has 3 stages, the limit is 2"), "{error}");
    let id = start(&engine, "parent", json!({})).await.id();
    assert_eq!(end(&engine, id).await.unwrap(), json!("limit: stages"));
    let limits = selvedge_kernel::limit::Limits { attempts: 20, ..limits };
    start(&engine, "often", json!({})).await;
    let before = engine.local().runs().await.unwrap().len();
    let other = selvedge::Settings { limits, ..selvedge::Settings::default() };
    // No handler may be tried more often either: this program has none.
    engine.kill_and_reopen_with(other).await.unwrap();
    let error = engine.local().start("often", json!({})).await.err().unwrap().to_string();
    assert!(error.contains("stage `one`: its retry policy allows 21 attempts, the limit is 20"), "{error}");
    assert_eq!(engine.local().runs().await.unwrap().len(), before);
    sound(&engine).await;
}

/// Runs to undo whose end is decided by a time or by their own output, killed while it is written.
#[tokio::test]
async fn a_run_that_ends_by_its_time_or_by_its_output_undoes_what_it_did_through_kills() {
    let by_time = r#"
selvedge: 1
name: p
timeout: 1m
stages:
  - { name: work, call: echo, input: 1, compensate: { call: undo, input: "${output}" } }
  - { name: nap, mode: sleep, for: 1h }
"#;
    let by_output = r#"
selvedge: 1
name: p
stages:
  - { name: work, call: echo, input: 1, compensate: { call: undo, input: "${output}" } }
  - { name: nap, mode: sleep, for: 30s }
output: "no ${stages.work.output.nothing}"
"#;
    for (text, expected) in [(by_time, "deadline"), (by_output, "expression")] {
        for batches in 0..5 {
            let undone = Seen::default();
            let mut engine = test::Engine::new(app(&undone).pipeline(parse(text))).await.unwrap();
            let id = start(&engine, "p", json!({})).await.id();
            until(&engine, id, "napping", |status| status.state == RunState::Waiting).await;
            engine.settle().await;
            let running = engine.engine().clone();
            killed_after(&mut engine, batches, async move { running.advance(Duration::from_secs(61)).await }).await;
            until(&engine, id, "at its end", |status| status.state == RunState::Failed).await;
            assert_eq!(code(engine.local().run(id).result().await).0, expected);
            let mut all = undone.lock().unwrap().clone();
            all.dedup();
            assert_eq!(all, [json!(1)]);
            sound(&engine).await;
        }
    }
}
