//! Runs that are tasks of other runs.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use selvedge::run::RunError;
use selvedge::{Activity, App, Attempt, Failure, RunId, test};
use selvedge_kernel::machine::RunState;
use selvedge_kernel::waiting::Waiting;
use serde_json::{Value, json};

use super::runs::{end, parse, sound, start, state, until};

const WORK: Activity<Value, Value> = Activity::new("work");

const PARENT: &str = r#"
selvedge: 1
name: parent
input: { list: { type: array } }
stages:
  - { name: each, mode: scatter, over: input.list, call: { pipeline: child }, input: { n: "${item}" } }
output: "${stages.each.output}"
"#;

const CHILD: &str = r#"
selvedge: 1
name: child
input: { n: { type: integer }, by: { type: integer, default: 10 } }
stages:
  - { name: nap, mode: sleep, for: 1s }
  - { name: work, call: work, input: "${mul(input.n, input.by)}", retry: none }
output: "${stages.work.output}"
"#;

fn app() -> App {
    let work = async |_: Attempt, value: Value| match value.as_u64() {
        Some(70) => Err(Failure::terminal("seven", "it is seven")),
        _ => Ok(value),
    };
    App::new().activity(WORK, work).pipeline(parse(PARENT)).pipeline(parse(CHILD))
}

const HOLD: selvedge::Handler<Value, Value> = selvedge::Handler::new("holder", "hold");

/// Actors that hold whoever calls them for an hour, and tell who was cancelled.
#[derive(Clone, Default)]
struct Holders {
    started: Arc<AtomicU32>,
    cancelled: Arc<Mutex<Vec<String>>>,
}

impl Holders {
    fn join(&self, app: App) -> App {
        let all = self.clone();
        app.handler(HOLD, async move |ctx: selvedge::Ctx, _: Value| {
            all.started.fetch_add(1, Ordering::SeqCst);
            let slept = ctx.sleep(Duration::from_secs(3_600)).await;
            if slept.is_err() {
                all.cancelled.lock().unwrap().push(ctx.key().to_owned());
            }
            slept?;
            Ok(json!(1))
        })
    }

    async fn have_started(&self, engine: &test::Engine, count: u32) {
        while self.started.load(Ordering::SeqCst) < count {
            engine.settle().await;
        }
    }

    async fn are_cancelled(&self, engine: &test::Engine, expected: &[&str]) {
        for _ in 0..500 {
            engine.settle().await;
            if self.cancelled.lock().unwrap().len() == expected.len() {
                break;
            }
        }
        let mut keys = self.cancelled.lock().unwrap().clone();
        keys.sort();
        assert_eq!(keys, expected);
    }
}

async fn children(engine: &test::Engine, id: RunId) -> Vec<RunId> {
    let status = engine.local().run(id).status().await.unwrap();
    let runs = status.waiting.iter().filter_map(|waits| if let Waiting::ChildRun { run, .. } = waits { Some(*run) } else { None });
    runs.collect()
}

#[tokio::test]
async fn outputs_of_child_runs_are_the_outputs_of_the_tasks_through_kills() {
    let mut engine = test::Engine::new(app()).await.unwrap();
    let id = start(&engine, "parent", json!({ "list": [1, 2, 3, 4, 5] })).await.id();
    until(&engine, id, "children", |status| status.stages[0].running == 5).await;
    let before = children(&engine, id).await;
    for _ in 0..3 {
        engine.kill_and_reopen().await.unwrap();
        engine.advance(Duration::from_millis(200)).await;
    }
    until(&engine, id, "children", |status| status.stages[0].running == 5).await;
    assert_eq!(children(&engine, id).await, before, "the same runs, whoever asks for them again");
    assert_eq!(end(&engine, id).await.unwrap(), json!([10, 20, 30, 40, 50]));
    assert_eq!(engine.local().runs().await.unwrap().len(), 6);
    assert_eq!(engine.effects().iter().filter(|effect| effect.name == "work").count(), 5);
    sound(&engine).await;
}

#[tokio::test]
async fn the_failure_of_a_child_is_the_error_of_its_task() {
    let engine = test::Engine::new(app()).await.unwrap();
    let id = start(&engine, "parent", json!({ "list": [7] })).await.id();
    match end(&engine, id).await {
        Err(RunError::Failed { code, message, .. }) => {
            assert!(code == "seven" && message.contains("of `child`") && message.contains("stage `work`"), "{message}")
        }
        other => panic!("{other:?}"),
    }
    // An input that the child does not take is the error of the task too, at once.
    let id = start(&engine, "parent", json!({ "list": ["x"] })).await.id();
    match end(&engine, id).await {
        Err(RunError::Failed { code, message, .. }) => assert!(code == "input" && message.contains("input.n"), "{code}: {message}"),
        other => panic!("{other:?}"),
    }
    sound(&engine).await;
}

#[tokio::test]
async fn a_cancel_goes_down_to_the_children_also_of_a_paused_run_that_was_reopened() {
    for pauses in [false, true] {
        let mut engine = test::Engine::new(app()).await.unwrap();
        let run = start(&engine, "parent", json!({ "list": [1, 2] })).await;
        let id = run.id();
        until(&engine, id, "children", |status| status.stages[0].running == 2).await;
        let below = children(&engine, id).await;
        engine.settle().await;
        if pauses {
            run.pause().await.unwrap();
            engine.kill_and_reopen().await.unwrap();
            assert_eq!(state(&engine, id).await, RunState::Paused);
        }
        engine.local().run(id).cancel().await.unwrap();
        for child in below {
            until(&engine, child, "cancelled", |status| status.state == RunState::Cancelled).await;
        }
        assert_eq!(state(&engine, id).await, RunState::Cancelled);
        sound(&engine).await;
    }
}

#[tokio::test]
async fn a_pipeline_that_calls_itself_ends_at_the_limit_by_its_name() {
    let text = "selvedge: 1\nname: again\nstages: [{ name: down, call: { pipeline: again } }]\n";
    let engine = test::Engine::new(App::new().pipeline(parse(text))).await.unwrap();
    let id = start(&engine, "again", json!({})).await.id();
    match end(&engine, id).await {
        Err(RunError::Failed { code, message, .. }) => assert!(code == "limit: call depth" && message.contains("call_depth = 64"), "{message}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(engine.local().runs().await.unwrap().len(), 65);
}

#[tokio::test]
async fn a_call_of_a_pipeline_that_is_not_here_blocks_the_run_until_it_is() {
    let mut engine = test::Engine::new(App::new().pipeline(parse(PARENT))).await.unwrap();
    let id = start(&engine, "parent", json!({ "list": [1] })).await.id();
    until(&engine, id, "blocked", |status| status.state == RunState::Blocked).await;
    let status = engine.local().run(id).status().await.unwrap();
    assert!(matches!(&status.waiting[0], Waiting::Blocked { reason } if reason.contains("there is no pipeline `child` here")));
    engine.deploy(app()).await.unwrap();
    assert_eq!(end(&engine, id).await.unwrap(), json!([10]));
}

#[tokio::test]
async fn a_paused_run_that_was_reopened_cancels_the_calls_of_actors_that_it_made_before() {
    let text = r#"
selvedge: 1
name: calls
stages:
  - { name: call, mode: scatter, over: "[`1`, `2`]", call: { actor: holder, key: "k${item}", handler: hold } }
"#;
    let holders = Holders::default();
    let app = holders.join(App::new().pipeline(parse(text)));
    let mut engine = test::Engine::new(app).await.unwrap();
    let run = start(&engine, "calls", json!({})).await;
    let id = run.id();
    holders.have_started(&engine, 2).await;
    run.pause().await.unwrap();
    engine.kill_and_reopen().await.unwrap();
    engine.local().run(id).cancel().await.unwrap();
    holders.are_cancelled(&engine, &["k1", "k2"]).await;
    sound(&engine).await;
}

#[tokio::test]
async fn whom_a_cancelled_run_had_called_is_cancelled_also_if_the_process_ends_right_behind_the_cancel() {
    let text = r#"
selvedge: 1
name: both
stages:
  - { name: call, mode: scatter, over: "[`1`, `2`]", call: { actor: holder, key: "k${item}", handler: hold } }
  - { name: each, mode: scatter, depends_on: [], over: "[`1`, `2`]", call: { pipeline: child }, input: { n: "${item}" } }
"#;
    let holders = Holders::default();
    let app = holders.join(app().pipeline(parse(text)));
    let mut engine = test::Engine::new(app).await.unwrap();
    let id = start(&engine, "both", json!({})).await.id();
    holders.have_started(&engine, 2).await;
    until(&engine, id, "children", |status| status.stages[1].running == 2).await;
    let below = children(&engine, id).await;
    engine.settle().await;
    let client = engine.local();
    engine.model().hold();
    let ended = async {
        while engine.model().held() == 0 {
            tokio::task::yield_now().await;
        }
        // The end is durable and said; whatever follows from it is not.
        engine.model().release_one();
    };
    let run = client.run(id);
    let (asked, ()) = tokio::join!(run.cancel(), ended);
    asked.unwrap();
    engine.model().set_stopped(Some("the power is gone"));
    engine.model().drop_held();
    engine.settle().await;
    engine.model().set_stopped(None);
    engine.kill_and_reopen().await.unwrap();
    assert_eq!(state(&engine, id).await, RunState::Cancelled);
    for child in below {
        until(&engine, child, "cancelled", |status| status.state == RunState::Cancelled).await;
    }
    holders.are_cancelled(&engine, &["k1", "k2"]).await;
    sound(&engine).await;
}

#[tokio::test]
async fn a_child_that_is_refused_before_it_starts_gives_its_place_in_a_shared_throttle_back() {
    let parent = PARENT.replace("input: { n:", "throttle: { concurrency: 1, key: \"'all'\" }, on_failure: continue, input: { n:");
    let app = App::new().activity(WORK, async |_: Attempt, value: Value| Ok(value)).pipeline(parse(&parent)).pipeline(parse(CHILD));
    let engine = test::Engine::new(app).await.unwrap();
    let id = start(&engine, "parent", json!({ "list": ["no number", 2] })).await.id();
    until(&engine, id, "at its second child", |status| status.stages[0].done == 1 && status.stages[0].running == 1).await;
    assert_eq!(end(&engine, id).await.unwrap(), json!([null, 20]));
    sound(&engine).await;
}

#[tokio::test]
async fn whom_a_stage_had_called_that_lost_is_cancelled_while_its_run_goes_on() {
    let text = r#"
selvedge: 1
name: race
stages:
  - { name: slow, mode: scatter, over: "[`1`, `2`]", call: { actor: holder, key: "k${item}", handler: hold } }
  - { name: quick, mode: sleep, depends_on: [], for: 1s }
  - { name: first, mode: gather, stages: [slow, quick], wait: any }
  - { name: go, mode: wait_signal, signal: go }
"#;
    let holders = Holders::default();
    let mut engine = test::Engine::new(holders.join(App::new().pipeline(parse(text)))).await.unwrap();
    let run = start(&engine, "race", json!({})).await;
    let id = run.id();
    holders.have_started(&engine, 2).await;
    engine.advance(Duration::from_secs(2)).await;
    until(&engine, id, "at the signal", |status| status.waiting.iter().any(|waits| matches!(waits, Waiting::Signal { .. }))).await;
    holders.are_cancelled(&engine, &["k1", "k2"]).await;
    engine.kill_and_reopen().await.unwrap();
    engine.local().run(id).signal(selvedge::Signal::<u32>::new("go"), 1).await.unwrap();
    end(&engine, id).await.unwrap();
    sound(&engine).await;
}

#[tokio::test]
async fn an_answer_to_a_call_of_an_earlier_round_of_a_run_is_not_taken_for_the_one_of_now() {
    const SLOW: selvedge::Handler<Value, Value> = selvedge::Handler::new("slow", "answer");
    const FLAKY: Activity<Value, Value> = Activity::new("flaky");
    let text = r#"
selvedge: 1
name: rounds
stages:
  - { name: asks, call: { actor: slow, key: k, handler: answer } }
  - { name: fails, depends_on: [], call: flaky, retry: none }
output: ${stages.asks.output}
"#;
    let (asked, tried) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let count = tried.clone();
    let number = asked.clone();
    let app = App::new()
        .pipeline(parse(text))
        .activity(FLAKY, async move |_: Attempt, _: Value| match count.fetch_add(1, Ordering::SeqCst) {
            0 => Err(Failure::terminal("first", "the first one fails")),
            _ => Ok(json!(null)),
        })
        .handler(SLOW, async move |ctx: selvedge::Ctx, _: Value| {
            // It goes on over its cancel, and answers in the end.
            let _ = ctx.sleep(Duration::from_secs(10)).await;
            let n = ctx
                .step("number", {
                    let number = number.clone();
                    async move |_| Ok(number.fetch_add(1, Ordering::SeqCst))
                })
                .await?;
            ctx.sleep(Duration::from_secs(10)).await?;
            Ok(json!(n))
        });
    let engine = test::Engine::new(app).await.unwrap();
    let id = start(&engine, "rounds", json!({})).await.id();
    until(&engine, id, "failed", |status| status.state == RunState::Failed).await;
    engine.local().run(id).retry().await.unwrap();
    assert_eq!(end(&engine, id).await.unwrap(), json!(1), "the one that was asked first answers 0");
    sound(&engine).await;
}
