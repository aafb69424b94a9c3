//! Tasks that workers of other processes take under a lease.

use std::time::Duration;

use bytes::Bytes;
use selvedge::{Activity, App, Ctx, Handler, test};
use selvedge_engine::VerbError;
use selvedge_engine::work::{Lease, Leased, activity_of};
use selvedge_kernel::auth::{Action, Permit, Resource, authorize, local};
use selvedge_kernel::error::{AttemptError, WorkError};
use serde_json::json;

use super::runs::{end, parse, sound, start};

const RESIZE: Activity<u64, u64> = Activity::new("resize");
const SHRINK: Handler<u64, u64> = Handler::new("picture", "shrink");

fn pictures(lease: &str, policies: &str) -> App {
    let text = format!(
        r#"
selvedge: 1
name: pictures
input: {{ n: {{ type: integer }} }}
activities:
  resize: {{ worker: {{ lease: {lease} }}, retry: {{ max_attempts: 3, initial: 1ms }} }}
stages:
  - {{ name: small, call: resize, input: "${{input.n}}"{policies} }}
output: "${{stages.small.output}}"
"#
    );
    App::new().pipeline(parse(&text))
}

fn permit(engine: &test::Engine, tenant: &str, activity: &str) -> Permit {
    let (now, resource) = (engine.engine().now(), Resource::Activity { tenant: tenant.to_owned(), name: activity.to_owned() });
    authorize(local(tenant, now), Action::Work, resource, now).unwrap()
}

async fn ask(engine: &test::Engine, tenant: &str, most: usize, wait: Duration) -> Vec<Leased> {
    engine.engine().lease(permit(engine, tenant, "resize"), Lease { most, wait }).await.unwrap()
}

/// The next task, whatever the engine has to do before it is offered.
async fn task(engine: &test::Engine) -> Leased {
    for _ in 0..1_000 {
        if let Some(task) = ask(engine, "default", 1, Duration::from_millis(20)).await.pop() {
            return task;
        }
        engine.advance(Duration::from_millis(5)).await;
    }
    panic!("nothing is offered");
}

async fn report(engine: &test::Engine, name: &str, result: Result<&'static str, AttemptError>) -> Result<(), VerbError> {
    let permit = permit(engine, "default", activity_of(name).unwrap());
    engine.engine().report(permit, name, result.map(|text| Bytes::from_static(text.as_bytes()))).await
}

async fn lives(engine: &test::Engine, name: &str) -> Result<(), VerbError> {
    engine.engine().lives(permit(engine, "default", "resize"), name, None).await
}

#[tokio::test]
async fn what_a_worker_was_told_is_written_survives_a_kill_and_the_same_report_is_answered_the_same() {
    let mut engine = test::Engine::new(pictures("30s", "")).await.unwrap();
    let run = start(&engine, "pictures", json!({ "n": 7 })).await;
    let leased = task(&engine).await;
    assert_eq!((leased.activity.as_str(), leased.attempt, &leased.input[..], leased.lease), ("resize", 1, &b"7"[..], Duration::from_secs(30)));
    assert_eq!(leased.time, Some(Duration::from_secs(300)), "what an attempt has by default");
    assert!(ask(&engine, "default", 1, Duration::ZERO).await.is_empty(), "one task is one worker's");
    report(&engine, &leased.name, Ok("49")).await.unwrap();
    report(&engine, &leased.name, Ok("49")).await.unwrap();
    let other = report(&engine, &leased.name, Ok("50")).await.unwrap_err();
    assert_eq!(other.code, "reported", "{other}");
    let retryable = Err(AttemptError { error: WorkError::new("busy", ""), retryable: true, retry_after_ms: None });
    assert_eq!(report(&engine, &leased.name, retryable).await.unwrap_err().code, "reported");
    engine.kill_and_reopen().await.unwrap();
    assert_eq!(end(&engine, run.id()).await.unwrap(), json!(49));
    assert!(ask(&engine, "default", 1, Duration::ZERO).await.is_empty(), "a finished task is offered to nobody");
    sound(&engine).await;
}

#[tokio::test]
async fn case_30_a_worker_that_stalls_past_its_lease_cannot_complete_its_task() {
    let engine = test::Engine::new(pictures("1s", "")).await.unwrap();
    let run = start(&engine, "pictures", json!({ "n": 7 })).await;
    let stalled = task(&engine).await;
    let second = task(&engine).await;
    assert_eq!((second.attempt, &second.key), (2, &stalled.key), "another attempt at the same effect");
    for late in [report(&engine, &stalled.name, Ok("1")).await, lives(&engine, &stalled.name).await] {
        let lost = late.unwrap_err();
        assert_eq!(lost.code, "lease_lost");
        assert!(lost.message.contains("is not your task any more") && lost.message.contains("Drop what you did"), "{lost}");
    }
    report(&engine, &second.name, Ok("49")).await.unwrap();
    assert_eq!(end(&engine, run.id()).await.unwrap(), json!(49));
    sound(&engine).await;
}

#[tokio::test]
async fn a_sign_of_life_keeps_a_task_and_its_time_ends_it_all_the_same() {
    let engine = test::Engine::new(pictures("1s", ", timeout: { attempt: 3s }")).await.unwrap();
    let run = start(&engine, "pictures", json!({ "n": 7 })).await;
    let first = task(&engine).await;
    let mut beats = 0;
    while lives(&engine, &first.name).await.is_ok() {
        beats += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(beats > 10, "{beats} signs of life within 3 s: longer than a lease");
    let second = task(&engine).await;
    assert_eq!(second.attempt, 2);
    report(&engine, &second.name, Ok("1")).await.unwrap();
    assert_eq!(end(&engine, run.id()).await.unwrap(), json!(1));
}

#[tokio::test]
async fn what_nobody_takes_waits_without_using_up_its_attempts_and_why_says_for_whom() {
    let mut engine = test::Engine::new(pictures("30s", "")).await.unwrap();
    let run = start(&engine, "pictures", json!({ "n": 7 })).await;
    engine.settle().await;
    for _ in 0..3 {
        engine.advance(Duration::from_secs(3_600)).await;
    }
    engine.kill_and_reopen().await.unwrap();
    engine.settle().await;
    let mut sentences = Vec::new();
    for _ in 0..500 {
        let status = engine.local().run(run.id()).status().await.unwrap();
        sentences = status.waiting.iter().map(|waiting| waiting.sentence()).collect::<Vec<_>>();
        if sentences.iter().any(|sentence| sentence == "for something that can run the activity `resize`") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(sentences.iter().any(|sentence| sentence == "for something that can run the activity `resize`"), "{sentences:?}");
    let leased = task(&engine).await;
    assert_eq!(leased.attempt, 1);
    report(&engine, &leased.name, Ok("1")).await.unwrap();
    assert_eq!(end(&engine, run.id()).await.unwrap(), json!(1));
}

#[tokio::test]
async fn a_failed_report_is_retried_by_the_policy_of_the_task_and_an_error_that_is_final_is_final() {
    let engine = test::Engine::new(pictures("30s", "")).await.unwrap();
    let run = start(&engine, "pictures", json!({ "n": 7 })).await;
    let failed = |code: &str, retryable| Err(AttemptError { error: WorkError::new(code, "it said so"), retryable, retry_after_ms: None });
    let first = task(&engine).await;
    report(&engine, &first.name, failed("busy", true)).await.unwrap();
    let second = task(&engine).await;
    assert_eq!(second.attempt, 2);
    report(&engine, &second.name, failed("no_picture", false)).await.unwrap();
    let error = end(&engine, run.id()).await.unwrap_err().to_string();
    assert!(error.contains("no_picture: stage `small`: it said so"), "{error}");
    sound(&engine).await;
}

#[tokio::test]
async fn no_worker_gets_the_tasks_of_another_tenant_or_reports_for_it_and_a_cancelled_task_is_nobodys() {
    let engine = test::Engine::new(pictures("30s", "")).await.unwrap();
    let run = start(&engine, "pictures", json!({ "n": 7 })).await;
    engine.settle().await;
    assert!(ask(&engine, "other", 10, Duration::from_millis(50)).await.is_empty());
    let leased = task(&engine).await;
    let foreign = engine.engine().report(permit(&engine, "other", "resize"), &leased.name, Ok(Bytes::from_static(b"1"))).await.unwrap_err();
    assert_eq!(foreign.code, "lease_lost");
    engine.local().run(run.id()).cancel().await.unwrap();
    end(&engine, run.id()).await.unwrap_err();
    assert_eq!(report(&engine, &leased.name, Ok("49")).await.unwrap_err().code, "lease_lost");
    let unbounded = engine.engine().lease(permit(&engine, "default", "resize"), Lease { most: 1_000, wait: Duration::ZERO }).await.unwrap_err();
    assert!(unbounded.message.contains("1 to 100"), "{unbounded}");
    let long = Lease { most: 1, wait: Duration::from_secs(600) };
    let long = engine.engine().lease(permit(&engine, "default", "resize"), long).await.unwrap_err();
    assert!(long.message.contains("60 s at most for a task, not 600 s"), "{long}");
    let wordy = engine.engine().lives(permit(&engine, "default", "resize"), &leased.name, Some(vec![b'1'; 70_000].into())).await.unwrap_err();
    assert!(wordy.message.contains("65536 bytes"), "{wordy}");
    sound(&engine).await;
}

#[tokio::test]
async fn an_activity_that_a_handler_calls_is_a_workers_too_and_who_waits_is_woken_by_the_offer() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("app.yaml"), "activities:\n  resize: { worker: true, throttle: { concurrency: 1 } }\n").unwrap();
    let app = App::new().manifest(folder.path().join("app.yaml")).unwrap().handler(SHRINK, async |ctx: Ctx, n: u64| Ok(ctx.activity(RESIZE, n).await? + 1));
    let mut engine = test::Engine::new(app).await.unwrap();
    let client = engine.local();
    let (sent, leased) = tokio::join!(client.send(SHRINK.on("a"), 6), ask(&engine, "default", 10, Duration::from_secs(10)));
    sent.unwrap();
    drop(client);
    let [leased] = leased.try_into().unwrap();
    report(&engine, &leased.name, Ok("36")).await.unwrap();
    engine.kill_and_reopen().await.unwrap();
    let answer = engine.local().call(SHRINK.on("b"), 1);
    let second = async {
        let leased = task(&engine).await;
        assert_eq!(&leased.input[..], b"1", "the first one is not offered again");
        report(&engine, &leased.name, Ok("1")).await.unwrap();
    };
    let (answer, ()) = tokio::join!(answer, second);
    assert_eq!(answer.unwrap(), 2);
    sound(&engine).await;
}

#[tokio::test]
async fn a_report_that_nobody_waits_for_any_more_is_written_and_answered_the_same_when_it_comes_again() {
    let engine = test::Engine::new(pictures("30s", "")).await.unwrap();
    let run = start(&engine, "pictures", json!({ "n": 7 })).await;
    let leased = task(&engine).await;
    // Whoever sent it hangs up while it is written.
    let mut first = Box::pin(report(&engine, &leased.name, Ok("49")));
    std::future::poll_fn(|context| {
        let _ = first.as_mut().poll(context);
        std::task::Poll::Ready(())
    })
    .await;
    drop(first);
    let (second, third) = tokio::join!(report(&engine, &leased.name, Ok("49")), report(&engine, &leased.name, Ok("49")));
    second.unwrap();
    third.unwrap();
    assert_eq!(end(&engine, run.id()).await.unwrap(), json!(49));
}

#[tokio::test]
async fn of_hundreds_of_reports_to_one_handler_none_is_answered_before_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("app.yaml"), "activities:\n  resize: { worker: true }\n").unwrap();
    let app = App::new().manifest(folder.path().join("app.yaml")).unwrap().handler(SHRINK, async |ctx: Ctx, n: u64| {
        let all: Vec<u64> = ctx.join_all((0..n).map(|item| ctx.activity(RESIZE, item))).await?;
        Ok(all.iter().sum())
    });
    let mut engine = test::Engine::new(app).await.unwrap();
    let sent = engine.local().send(SHRINK.on("a"), 400).await.unwrap();
    let mut tasks = Vec::new();
    while tasks.len() < 400 {
        tasks.extend(ask(&engine, "default", 100, Duration::from_secs(10)).await);
    }
    let done = tokio::task::JoinSet::from_iter(tasks.into_iter().map(|task| {
        let (engine, permit) = (engine.engine().clone(), permit(&engine, "default", "resize"));
        async move { engine.report(permit, &task.name, Ok(Bytes::from_static(b"1"))).await.is_ok() }
    }));
    assert!(done.join_all().await.into_iter().all(|written| written));
    engine.kill_and_reopen().await.unwrap();
    engine.settle().await;
    assert!(ask(&engine, "default", 100, Duration::from_millis(300)).await.is_empty(), "what was answered is written");
    assert_eq!(engine.local().result::<u64>(sent).await.unwrap(), 400);
}
