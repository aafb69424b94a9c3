//! Handlers of actors that workers of other processes perform.

use std::time::Duration;

use bytes::Bytes;
use selvedge::{App, Handler, test};
use selvedge_engine::VerbError;
use selvedge_engine::work::{Lease, Leased};
use selvedge_kernel::auth::{Action, Permit, Resource, authorize, local};
use selvedge_kernel::error::{AttemptError, WorkError};
use serde_json::{Value, json};

use super::kit;

const COUNT: Handler<Value, Value> = Handler::new("licence", "count");
const MANIFEST: &str = "actors:
  licence:
    handlers:
      count: { worker: { lease: 1s }, retry: { max_attempts: 3, initial: 1ms } }
      seen: { worker: true }
";

/// The folder of the manifest goes with the app: what it says is read.
fn app() -> App {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("app.yaml"), MANIFEST).unwrap();
    App::new().manifest(folder.path().join("app.yaml")).unwrap()
}

fn permit(engine: &test::Engine, handler: &str) -> Permit {
    let now = engine.engine().now();
    let resource = Resource::Activity { tenant: "default".to_owned(), name: format!("licence.{handler}") };
    authorize(local("default", now), Action::Work, resource, now).unwrap()
}

/// The next task of a handler, whatever the engine has to do before it is offered.
async fn task(engine: &test::Engine, handler: &str) -> (Leased, Value) {
    for _ in 0..1_000 {
        let lease = Lease { most: 1, wait: Duration::from_millis(20) };
        if let Some(task) = engine.engine().lease(permit(engine, handler), lease).await.unwrap().pop() {
            let input = serde_json::from_slice(&task.input).unwrap();
            return (task, input);
        }
        engine.advance(Duration::from_millis(5)).await;
    }
    panic!("nothing is offered");
}

async fn report(engine: &test::Engine, task: &Leased, result: Result<Value, AttemptError>) -> Result<(), VerbError> {
    let handler = task.activity.trim_start_matches("licence.");
    engine.engine().report(permit(engine, handler), &task.name, result.map(|value| Bytes::from(value.to_string()))).await
}

#[tokio::test]
async fn a_worker_is_given_the_actor_and_what_it_reports_is_state_and_messages_of_one_commit_through_a_kill() {
    let mut engine = test::Engine::new(app()).await.unwrap();
    let first = engine.local().send(COUNT.on("MIT"), json!("serde")).await.unwrap();
    let second = engine.local().send(COUNT.on("MIT"), json!("tokio")).await.unwrap();
    let (leased, input) = task(&engine, "count").await;
    assert_eq!(input, json!({ "actor": { "type": "licence", "key": "MIT" }, "handler": "count", "message": "serde", "state": {} }));
    let answer = json!({
        "result": 1,
        "state": { "set": { "count": 1 }, "delete": [] },
        "send": [{ "actor": "licence", "key": "all", "handler": "seen", "input": "MIT" }],
    });
    report(&engine, &leased, Ok(answer.clone())).await.unwrap();
    report(&engine, &leased, Ok(answer)).await.unwrap();
    assert_eq!(report(&engine, &leased, Ok(json!({ "result": 2 }))).await.unwrap_err().code, "reported");
    // What was answered is written.
    engine.kill_and_reopen().await.unwrap();
    assert_eq!(engine.local().result::<Value>(first).await.unwrap(), json!(1));
    let (leased, input) = task(&engine, "count").await;
    assert_eq!((&input["message"], &input["state"]), (&json!("tokio"), &json!({ "count": 1 })), "one message after the other");
    report(&engine, &leased, Ok(json!({ "result": 2, "state": { "set": { "count": 2 } } }))).await.unwrap();
    assert_eq!(engine.local().result::<Value>(second).await.unwrap(), json!(2));
    let (seen, input) = task(&engine, "seen").await;
    assert_eq!((&input["actor"]["key"], &input["message"]), (&json!("all"), &json!("MIT")));
    report(&engine, &seen, Ok(json!({}))).await.unwrap();
    engine.settle().await;
    kit::sound(&engine).await;
}

#[tokio::test]
async fn case_30_a_worker_that_is_killed_or_stalls_within_a_handler_loses_it_to_the_next_one_and_changes_nothing() {
    let engine = test::Engine::new(app()).await.unwrap();
    let sent = engine.local().send(COUNT.on("MIT"), json!("serde")).await.unwrap();
    let (stalled, _) = task(&engine, "count").await;
    let (second, input) = task(&engine, "count").await;
    assert_eq!((second.attempt, &second.key, &input["state"]), (2, &stalled.key, &json!({})), "another attempt at the same message");
    let late = report(&engine, &stalled, Ok(json!({ "result": "late", "state": { "set": { "count": 99 } } }))).await.unwrap_err();
    assert_eq!(late.code, "lease_lost", "{late}");
    report(&engine, &second, Ok(json!({ "result": "in time", "state": { "set": { "count": 1 } } }))).await.unwrap();
    assert_eq!(engine.local().result::<Value>(sent).await.unwrap(), json!("in time"));
    assert_eq!(report(&engine, &stalled, Ok(json!({ "result": "later still" }))).await.unwrap_err().code, "lease_lost");
    let next = engine.local().send(COUNT.on("MIT"), json!("tokio")).await.unwrap();
    let (leased, input) = task(&engine, "count").await;
    assert_eq!(input["state"], json!({ "count": 1 }));
    report(&engine, &leased, Ok(json!({ "result": 2 }))).await.unwrap();
    assert_eq!(engine.local().result::<Value>(next).await.unwrap(), json!(2));
    kit::sound(&engine).await;
}

#[tokio::test]
async fn a_report_that_is_no_transition_or_an_error_ends_the_message_as_its_retry_says_and_is_written_when_it_is_answered() {
    let mut engine = test::Engine::new(app()).await.unwrap();
    let wrong = engine.local().send(COUNT.on("MIT"), json!("serde")).await.unwrap();
    let (leased, _) = task(&engine, "count").await;
    report(&engine, &leased, Ok(json!(5))).await.unwrap();
    engine.kill_and_reopen().await.unwrap();
    let error = engine.local().result::<Value>(wrong).await.unwrap_err().to_string();
    assert!(error.contains("bad_transition") && error.contains("it is no object"), "{error}");
    let busy = engine.local().send(COUNT.on("MIT"), json!("tokio")).await.unwrap();
    let failed = |code: &str, retryable| Err(AttemptError { error: WorkError::new(code, "it said so"), retryable, retry_after_ms: None });
    let (first, _) = task(&engine, "count").await;
    report(&engine, &first, failed("busy", true)).await.unwrap();
    let (second, _) = task(&engine, "count").await;
    assert_eq!(second.attempt, 2);
    report(&engine, &second, failed("refused", false)).await.unwrap();
    let error = engine.local().result::<Value>(busy).await.unwrap_err().to_string();
    assert!(error.contains("refused") && error.contains("it said so"), "{error}");
    kit::sound(&engine).await;
}

#[tokio::test]
async fn a_message_that_no_worker_has_taken_waits_without_an_attempt_and_one_that_is_cancelled_is_nobodys() {
    let mut engine = test::Engine::new(app()).await.unwrap();
    let sent = engine.local().send(COUNT.on("MIT"), json!("serde")).await.unwrap();
    engine.settle().await;
    engine.advance(Duration::from_secs(7_200)).await;
    engine.kill_and_reopen().await.unwrap();
    let (leased, _) = task(&engine, "count").await;
    assert_eq!(leased.attempt, 1, "two hours and a kill have used up nothing");
    engine.local().cancel(sent).await.unwrap();
    let error = engine.local().result::<Value>(sent).await.unwrap_err().to_string();
    assert!(error.contains("cancelled"), "{error}");
    assert_eq!(report(&engine, &leased, Ok(json!({ "result": 1 }))).await.unwrap_err().code, "lease_lost");
    kit::sound(&engine).await;
}
