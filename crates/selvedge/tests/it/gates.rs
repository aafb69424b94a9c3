//! Activities that handlers call stand aside for their breaker and their throttle, as tasks of runs do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use selvedge::{Activity, App, Attempt, CallError, Ctx, Failure, Handler, InvocationId, test};
use selvedge_kernel::record::kind::Kind;
use serde_json::{Value, json};

use crate::kit;
use crate::rig::Folder;

const CHARGE: Activity<Value, Value> = Activity::new("charge");
const PAY: Handler<Value, Value> = Handler::new("desk", "pay");
const SECOND: Duration = Duration::from_secs(1);

#[derive(Clone, Default)]
struct Shop {
    tries: Arc<AtomicU64>,
    running: Arc<AtomicU64>,
    away: Arc<AtomicBool>,
    held: Arc<AtomicBool>,
}

/// One attempt, until it ends or is dropped.
struct Running(Shop);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Shop {
    /// Handlers and a pipeline that call one activity with these policies.
    async fn engine(&self, policies: &str) -> test::Engine {
        let folder = Folder::new();
        folder.write("app.yaml", &format!("activities:\n  charge: {{ native: true, {policies} }}\npipelines: [p.yaml]\n"));
        folder.write("p.yaml", "selvedge: 1\nname: p\nstages:\n  - { name: a, call: charge }\n");
        let shop = self.clone();
        let app = App::new()
            .activity(CHARGE, async move |_: Attempt, value: Value| {
                shop.tries.fetch_add(1, Ordering::SeqCst);
                shop.running.fetch_add(1, Ordering::SeqCst);
                let _running = Running(shop.clone());
                while shop.held.load(Ordering::SeqCst) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                if shop.away.load(Ordering::SeqCst) { Err(Failure::retryable("http_503", "away")) } else { Ok(value) }
            })
            .handler(PAY, async |ctx: Ctx, value: Value| ctx.activity(CHARGE, value).await)
            .manifest(folder.join("app.yaml"));
        test::Engine::new(app.unwrap_or_else(|error| panic!("{error}"))).await.unwrap()
    }

    fn tries(&self) -> u64 {
        self.tries.load(Ordering::SeqCst)
    }

    fn running(&self) -> u64 {
        self.running.load(Ordering::SeqCst)
    }
}

async fn pay(engine: &test::Engine, actor: &str, value: Value) -> InvocationId {
    engine.local().send(PAY.on(actor), value).await.unwrap()
}

async fn pass(engine: &test::Engine, seconds: u64) {
    for _ in 0..seconds {
        engine.advance(SECOND).await;
        engine.settle().await;
    }
}

async fn until(what: &str, fits: impl Fn() -> bool) {
    for _ in 0..10_000 {
        if fits() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("never {what}");
}

#[tokio::test]
async fn handlers_share_the_breaker_of_an_activity_with_runs_and_wait_while_it_is_open_also_over_restarts() {
    let shop = Shop::default();
    shop.away.store(true, Ordering::SeqCst);
    let patient = "retry: { max_attempts: 6, backoff: fixed, initial: 1s, max: 1s, jitter: 0 }, timeout: { attempt: 5s }";
    let mut engine = shop.engine(&format!("{patient}, breaker: {{ failures: 4, open_for: 30s }}")).await;
    let calls = [pay(&engine, "a", json!(1)).await, pay(&engine, "b", json!(2)).await];
    pass(&engine, 4).await;
    let tries = shop.tries();
    assert_eq!(tries, 4, "two attempts of two handlers");
    let run = engine.local().start("p", json!({})).await.unwrap();
    pass(&engine, 20).await;
    let open = "for the breaker of activity charge, open since ";
    for call in calls {
        let sentence = kit::sentence(&engine, call).await;
        assert!(sentence.contains(open), "{sentence}");
    }
    assert!(run.status().await.unwrap().waiting[0].sentence().starts_with(open));
    let before = kit::sentence(&engine, calls[0]).await;
    engine.kill_and_reopen().await.unwrap();
    pass(&engine, 3).await;
    assert_eq!(kit::sentence(&engine, calls[0]).await, before);
    assert_eq!(shop.tries(), tries, "no attempt is spent on waiting, however long an attempt may take");
    pass(&engine, 6).await;
    assert_eq!(shop.tries(), tries + 1, "one finds out");
    shop.away.store(false, Ordering::SeqCst);
    pass(&engine, 32).await;
    for (call, value) in calls.into_iter().zip([1, 2]) {
        assert_eq!(engine.local().result::<Value>(call).await.unwrap(), json!(value));
    }
    engine.local().run(run.id()).result::<Value>().await.unwrap();
    pass(&engine, 61).await;
    assert_eq!(kit::rows(&engine, Kind::Breaker), 0);
    kit::sound(&engine).await;
}

#[tokio::test]
async fn handlers_hold_to_the_throttle_of_an_activity_and_who_is_killed_keeps_no_place() {
    let shop = Shop::default();
    shop.held.store(true, Ordering::SeqCst);
    let engine = shop.engine("throttle: { concurrency: 2, key: input.shop }").await;
    let mut calls = Vec::new();
    for n in 0..6 {
        calls.push(pay(&engine, &format!("a{n}"), json!({ "shop": "x", "n": n })).await);
        until("two at work", || shop.running() >= 2.min(n + 1)).await;
    }
    engine.settle().await;
    assert_eq!(shop.running(), 2);
    let sentence = kit::sentence(&engine, calls[5]).await;
    assert!(sentence.contains("for the throttle of activity charge[x]"), "{sentence}");
    let other = pay(&engine, "b", json!({ "shop": "y" })).await;
    until("another key has its own", || shop.running() == 3).await;
    // One that waits, first: who waits in which order depends on their shards, and it must not be the one whose turn comes.
    kit::kill(&engine, calls[3]).await;
    engine.settle().await;
    kit::kill(&engine, calls[0]).await;
    until("the next one is at work", || shop.tries() == 4).await;
    engine.settle().await;
    assert_eq!((shop.running(), shop.tries()), (3, 4));
    shop.held.store(false, Ordering::SeqCst);
    for n in [1, 2, 4, 5] {
        assert_eq!(engine.local().result::<Value>(calls[n]).await.unwrap()["n"], n);
    }
    engine.local().result::<Value>(other).await.unwrap();
    engine.settle().await;
    assert_eq!((shop.tries(), kit::rows(&engine, Kind::Limit)), (6, 0));
}

#[tokio::test]
async fn time_for_all_attempts_runs_while_one_waits_and_a_key_that_names_no_limit_fails_at_once() {
    let shop = Shop::default();
    shop.away.store(true, Ordering::SeqCst);
    let engine = shop.engine("timeout: { total: 20s }, breaker: { failures: 1, open_for: 1h }").await;
    let call = pay(&engine, "a", json!(1)).await;
    pass(&engine, 15).await;
    assert!(kit::sentence(&engine, call).await.contains("for the breaker of activity charge"));
    pass(&engine, 10).await;
    let sentence = kit::sentence(&engine, call).await;
    assert!(!sentence.contains("breaker") && shop.tries() == 1, "{sentence}");
    let shop = Shop::default();
    let engine = shop.engine("throttle: { concurrency: 2, key: input.shop }").await;
    let call = pay(&engine, "a", json!({ "n": 1 })).await;
    let Err(CallError::Failed { code, message, .. }) = engine.local().result::<Value>(call).await else { panic!("it has no key") };
    assert!(code == "expression" && message.contains("`throttle.key` of activity charge is null"), "{code}: {message}");
    assert_eq!(shop.tries(), 0);
}

#[tokio::test]
async fn a_handler_that_was_let_through_and_waits_for_its_throttle_asks_again_when_the_breaker_opens() {
    let shop = Shop::default();
    shop.away.store(true, Ordering::SeqCst);
    let engine = shop.engine("throttle: { concurrency: 1 }, breaker: { failures: 2, open_for: 30s }, retry: { initial: 10s }").await;
    let mut calls = Vec::new();
    for n in 0..8 {
        calls.push(pay(&engine, &format!("a{n}"), json!(n)).await);
    }
    pass(&engine, 20).await;
    let tries = shop.tries();
    assert!((2..=3).contains(&tries), "one may be on its way when it opens: {tries}");
    let sentence = kit::sentence(&engine, calls[7]).await;
    assert!(sentence.contains("for the breaker of activity charge, open since"), "{sentence}");
    shop.away.store(false, Ordering::SeqCst);
    pass(&engine, 12).await;
    for call in calls {
        engine.local().result::<Value>(call).await.unwrap();
    }
    assert_eq!(shop.tries(), 8 + tries);
}
