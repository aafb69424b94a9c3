//! A run that is cancelled, and a process that is killed while it is.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use selvedge::{Activity, App, Attempt, Failure, test};
use selvedge_kernel::machine::RunState;
use serde_json::{Value, json};

use super::runs::{parse, sound, state};

const WORK: Activity<u64, u64> = Activity::new("work");
const AFTER: Activity<Value, Value> = Activity::new("after");

const PIPELINE: &str = r#"
selvedge: 1
name: items
input: { list: { type: array } }
stages:
  - { name: each, mode: scatter, over: input.list, call: work, throttle: { concurrency: 2 }, retry: { max_attempts: 5, backoff: fixed, initial: 60s } }
  - { name: after, call: after, depends_on: [each] }
"#;

/// The third item waits for its next attempt, the fifth never ends, the sixth is not reached while these two are.
fn app(started: &Arc<Mutex<Vec<u64>>>) -> App {
    let (started, after) = (started.clone(), started.clone());
    App::new()
        .activity(WORK, async move |_: Attempt, n: u64| {
            started.lock().unwrap().push(n);
            match n {
                3 => Err(Failure::retryable("busy", "later")),
                5 | 6 => std::future::pending().await,
                _ => Ok(n),
            }
        })
        .activity(AFTER, async move |_: Attempt, value: Value| {
            after.lock().unwrap().push(100);
            Ok(value)
        })
        .pipeline(parse(PIPELINE))
}

#[tokio::test]
async fn case_22_cut_after_every_commit_a_cancelled_run_ends_as_cancelled_and_starts_no_further_task() {
    let mut cut = 0;
    for commits in 0.. {
        let started = Arc::default();
        let mut engine = test::Engine::new(app(&started)).await.unwrap();
        let input = json!({ "list": [1, 2, 3, 4, 5, 6, 7] });
        let told = async |engine: &test::Engine| {
            let id = engine.local().start("items", input.clone()).idempotency_key("once").await.unwrap().id();
            engine.settle().await;
            // A run that has ended takes no cancel: then this was said before.
            if engine.local().run(id).cancel().await.is_err() {
                assert_eq!(state(engine, id).await, RunState::Cancelled);
            }
            engine.settle().await;
            id
        };
        let done = engine.kill_after(commits, told).await.unwrap();
        let id = told(&engine).await;
        let before: Vec<u64> = started.lock().unwrap().clone();
        engine.advance(Duration::from_secs(600)).await;
        engine.kill_and_reopen().await.unwrap();
        engine.advance(Duration::from_secs(600)).await;
        assert_eq!(state(&engine, id).await, RunState::Cancelled, "cut after {commits} commits");
        assert_eq!(*started.lock().unwrap(), before, "cut after {commits} commits: nothing starts behind its cancel");
        assert!(!before.iter().any(|n| *n >= 7), "cut after {commits} commits: {before:?}");
        sound(&engine).await;
        if done.is_some() {
            break;
        }
        cut += 1;
    }
    assert!(cut > 2, "it has more commits than {cut}");
}
