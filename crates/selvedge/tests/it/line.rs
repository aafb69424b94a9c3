//! `concurrency` of a pipeline: how many of its runs go at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use selvedge::run::{Run, RunError};
use selvedge::{Activity, App, Attempt, RunId, test};
use selvedge_kernel::machine::RunState;
use selvedge_kernel::waiting::Waiting;
use serde_json::{Value, json};

use super::runs::{end, parse, sound, start, state, until};

const WORK: Activity<Value, Value> = Activity::new("work");

fn app(concurrency: &str) -> App {
    let text = format!(
        r#"
selvedge: 1
name: order
input: {{ customer: {{ type: string }}, n: {{ type: integer, default: 0 }} }}
concurrency: {concurrency}
stages:
  - {{ name: nap, mode: sleep, for: 10s }}
  - {{ name: work, call: work }}
"#
    );
    App::new().activity(WORK, async |_: Attempt, value: Value| Ok(value)).pipeline(parse(&text))
}

async fn order(engine: &test::Engine, customer: &str) -> Run {
    start(engine, "order", json!({ "customer": customer })).await
}

async fn goes(engine: &test::Engine, id: RunId) {
    until(engine, id, "going", |status| status.state == RunState::Waiting).await;
}

/// Waits until a run stands in line, and gives whom it waits for.
async fn in_line(engine: &test::Engine, id: RunId) -> RunId {
    let holder = |waiting: &[Waiting]| waiting.iter().find_map(|waits| if let Waiting::RunLimit { holder, .. } = waits { Some(*holder) } else { None });
    until(engine, id, "in line", |status| holder(&status.waiting).is_some()).await;
    let status = engine.local().run(id).status().await.unwrap();
    assert_eq!(status.state, RunState::Pending);
    holder(&status.waiting).unwrap()
}

#[tokio::test]
async fn runs_of_one_key_wait_in_the_order_they_came_also_through_kills() {
    let mut engine = test::Engine::new(app("{ limit: 1, key: input.customer }")).await.unwrap();
    let first = order(&engine, "ada").await.id();
    goes(&engine, first).await;
    let second = order(&engine, "ada").await.id();
    assert_eq!(in_line(&engine, second).await, first);
    let third = order(&engine, "ada").await.id();
    assert_eq!(in_line(&engine, third).await, first);
    let other = order(&engine, "bob").await.id();
    goes(&engine, other).await;
    for kill in 0..3 {
        engine.kill_and_reopen().await.unwrap();
        assert_eq!(in_line(&engine, second).await, first, "kill {kill}");
    }
    engine.advance(Duration::from_secs(11)).await;
    until(&engine, first, "ended", |status| status.state == RunState::Completed).await;
    goes(&engine, second).await;
    assert_eq!(in_line(&engine, third).await, second);
    engine.kill_and_reopen().await.unwrap();
    for id in [second, third, other] {
        end(&engine, id).await.unwrap();
    }
    assert!(engine.local().run(second).status().await.unwrap().ended_at < engine.local().run(third).status().await.unwrap().ended_at);
    sound(&engine).await;
}

#[tokio::test]
async fn a_run_in_line_names_the_run_that_goes_now_and_not_the_one_that_went_when_it_came() {
    let engine = test::Engine::new(app("{ limit: 1, key: input.customer }")).await.unwrap();
    let first = order(&engine, "ada").await;
    goes(&engine, first.id()).await;
    let second = order(&engine, "ada").await.id();
    assert_eq!(in_line(&engine, second).await, first.id());
    let third = order(&engine, "ada").await.id();
    assert_eq!(in_line(&engine, third).await, first.id());
    first.cancel().await.unwrap();
    goes(&engine, second).await;
    assert_eq!(in_line(&engine, third).await, second);
    sound(&engine).await;
}

#[tokio::test]
async fn as_many_go_at_once_as_the_limit_says_and_no_more() {
    let text = r#"
selvedge: 1
name: many
concurrency: { limit: 3 }
stages: [{ name: work, call: hold }]
"#;
    const HOLD: Activity<Value, Value> = Activity::new("hold");
    let (now, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (here, peak) = (now.clone(), most.clone());
    let app = App::new().pipeline(parse(text)).activity(HOLD, async move |_: Attempt, value: Value| {
        peak.fetch_max(here.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(3)).await;
        here.fetch_sub(1, Ordering::SeqCst);
        Ok(value)
    });
    let engine = test::Engine::new(app).await.unwrap();
    let mut runs = Vec::new();
    for _ in 0..40 {
        runs.push(start(&engine, "many", json!({})).await);
    }
    for run in &runs {
        run.result::<Value>().await.unwrap();
    }
    assert_eq!(most.load(Ordering::SeqCst), 3);
    sound(&engine).await;
}

#[tokio::test]
async fn one_more_is_rejected_by_name_where_the_file_says_so_and_can_be_retried_later() {
    let engine = test::Engine::new(app("{ limit: 1, key: input.customer, when_full: reject }")).await.unwrap();
    let first = order(&engine, "ada").await;
    goes(&engine, first.id()).await;
    let second = order(&engine, "ada").await;
    match second.result::<Value>().await {
        Err(RunError::Failed { code, message, .. }) => {
            assert!(code == "run_limit" && message.contains(&first.id().to_string()) && message.contains("when_full: reject"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    engine.advance(Duration::from_secs(11)).await;
    until(&engine, first.id(), "ended", |status| status.state == RunState::Completed).await;
    second.retry().await.unwrap();
    end(&engine, second.id()).await.unwrap();
    sound(&engine).await;
}

#[tokio::test]
async fn one_more_replaces_the_oldest_where_the_file_says_so() {
    let engine = test::Engine::new(app("{ limit: 1, when_full: replace }")).await.unwrap();
    let first = order(&engine, "ada").await;
    goes(&engine, first.id()).await;
    let second = order(&engine, "bob").await;
    goes(&engine, second.id()).await;
    assert_eq!(state(&engine, first.id()).await, RunState::Cancelled);
    end(&engine, second.id()).await.unwrap();
    sound(&engine).await;
}

#[tokio::test]
async fn one_that_is_cancelled_in_line_leaves_it() {
    let engine = test::Engine::new(app("{ limit: 1 }")).await.unwrap();
    // Each is in line before the next one comes: runs of different shards may overtake one another on the way there.
    let first = order(&engine, "a").await;
    goes(&engine, first.id()).await;
    let second = order(&engine, "b").await;
    in_line(&engine, second.id()).await;
    let third = order(&engine, "c").await;
    in_line(&engine, third.id()).await;
    let runs = [first, second, third];
    runs[1].cancel().await.unwrap();
    assert!(matches!(runs[1].result::<Value>().await, Err(RunError::Cancelled { .. })));
    runs[0].cancel().await.unwrap();
    goes(&engine, runs[2].id()).await;
    end(&engine, runs[2].id()).await.unwrap();
    sound(&engine).await;
}

#[tokio::test]
async fn a_key_that_is_null_fails_the_run_and_says_which_expression() {
    let text =
        "selvedge: 1\nname: p\ninput: { c: { default: null } }\nconcurrency: { limit: 1, key: input.c }\nstages: [{ name: nap, mode: sleep, for: 1s }]\n";
    let engine = test::Engine::new(App::new().pipeline(parse(text))).await.unwrap();
    let run = start(&engine, "p", json!({})).await;
    match run.result::<Value>().await {
        Err(RunError::Failed { message, .. }) => assert!(message.contains("`concurrency.key` (input.c) gives null"), "{message}"),
        other => panic!("{other:?}"),
    }
}
