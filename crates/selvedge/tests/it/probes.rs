//! Who was let through by a breaker and does not start keeps nobody else from finding out; who has gone waits at no throttle.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use selvedge::{Activity, App, Attempt, Ctx, Failure, Handler, InvocationId, test};
use selvedge_kernel::lend::LenderRow;
use selvedge_kernel::machine::RunState;
use selvedge_kernel::record::kind::Kind;
use selvedge_kernel::{id::ShardId, wire};
use serde_json::{Value, json};

use crate::kit;
use crate::rig::Folder;

const CHARGE: Activity<Value, Value> = Activity::new("charge");
const PAY: Handler<Value, Value> = Handler::new("desk", "pay");

/// Inputs are shops; `held` is kept at work, `away` fails.
#[derive(Clone, Default)]
struct Shop {
    tries: Arc<AtomicU64>,
    open: Arc<AtomicBool>,
}

impl Shop {
    async fn engine(&self, policies: &str) -> test::Engine {
        let folder = Folder::new();
        folder.write("app.yaml", &format!("activities:\n  charge: {{ native: true, {policies} }}\npipelines: [p.yaml]\n"));
        folder.write(
            "p.yaml",
            "selvedge: 1\nname: p\ninput: { shop: { type: string } }\nstages:\n  - { name: a, call: charge, input: { shop: \"${input.shop}\" } }\n",
        );
        let shop = self.clone();
        let app = App::new()
            .activity(CHARGE, async move |_: Attempt, value: Value| {
                shop.tries.fetch_add(1, Ordering::SeqCst);
                while value["held"] == true && !shop.open.load(Ordering::SeqCst) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                if value["shop"] == "away" { Err(Failure::retryable("http_503", "away")) } else { Ok(value) }
            })
            .handler(PAY, async |ctx: Ctx, value: Value| ctx.activity(CHARGE, value).await)
            .manifest(folder.join("app.yaml"));
        test::Engine::new(app.unwrap_or_else(|error| panic!("{error}"))).await.unwrap()
    }

    async fn until_tries(&self, tries: u64) {
        for _ in 0..10_000 {
            if self.tries.load(Ordering::SeqCst) >= tries {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("never {tries} tries");
    }
}

async fn pay(engine: &test::Engine, actor: &str, value: Value) -> InvocationId {
    let id = engine.local().send(PAY.on(actor), value).await.unwrap();
    engine.settle().await;
    id
}

async fn pass(engine: &test::Engine, seconds: u64) {
    for _ in 0..seconds {
        engine.advance(Duration::from_secs(1)).await;
        engine.settle().await;
    }
}

/// The shop `x` is taken for long, and the breaker opens.
async fn taken(shop: &Shop, policies: &str) -> (test::Engine, InvocationId) {
    let engine = shop.engine(policies).await;
    let held = pay(&engine, "held", json!({ "shop": "x", "held": true })).await;
    shop.until_tries(1).await;
    for (n, actor) in ["one", "two"].into_iter().enumerate() {
        pay(&engine, actor, json!({ "shop": "away" })).await;
        shop.until_tries(n as u64 + 2).await;
        engine.settle().await;
    }
    (engine, held)
}

const POLICIES: &str = "retry: none, timeout: { attempt: 1h }, throttle: { concurrency: 1, key: input.shop }, breaker: { failures: 2, open_for: 30s }";

#[tokio::test]
async fn a_handler_that_finds_out_and_waits_for_its_throttle_lets_the_next_one_find_out() {
    let shop = Shop::default();
    let (engine, held) = taken(&shop, POLICIES).await;
    let first = pay(&engine, "first", json!({ "shop": "x" })).await;
    let second = pay(&engine, "second", json!({ "shop": "y" })).await;
    pass(&engine, 31).await;
    assert!(kit::sentence(&engine, first).await.contains("for the throttle of activity charge[x]"), "{}", kit::sentence(&engine, first).await);
    assert!(kit::sentence(&engine, second).await.contains("half open"), "{}", kit::sentence(&engine, second).await);
    pass(&engine, 31).await;
    assert_eq!(engine.local().result::<Value>(second).await.unwrap()["shop"], "y");
    pass(&engine, 1).await;
    assert!(kit::sentence(&engine, first).await.contains("for the throttle of activity charge[x]"), "{}", kit::sentence(&engine, first).await);
    shop.open.store(true, Ordering::SeqCst);
    for id in [held, first] {
        engine.local().result::<Value>(id).await.unwrap();
    }
    kit::sound(&engine).await;
}

#[tokio::test]
async fn a_task_that_finds_out_and_waits_for_its_throttle_lets_the_next_one_find_out() {
    let shop = Shop::default();
    let (engine, held) = taken(&shop, POLICIES).await;
    let first = engine.local().start("p", json!({ "shop": "x" })).await.unwrap();
    engine.settle().await;
    let second = engine.local().start("p", json!({ "shop": "y" })).await.unwrap();
    pass(&engine, 31).await;
    let waits = first.status().await.unwrap().waiting[0].sentence();
    assert!(waits.contains("for the throttle of activity charge[x]"), "{waits}");
    pass(&engine, 31).await;
    assert_eq!(second.status().await.unwrap().state, RunState::Completed);
    shop.open.store(true, Ordering::SeqCst);
    engine.local().result::<Value>(held).await.unwrap();
    first.result::<Value>().await.unwrap();
}

#[tokio::test]
async fn whoever_is_cancelled_while_it_waits_for_a_throttle_leaves_its_queue() {
    let shop = Shop::default();
    let engine = shop.engine("throttle: { concurrency: 1 }").await;
    let held = pay(&engine, "held", json!({ "shop": "x", "held": true })).await;
    shop.until_tries(1).await;
    let waiting = || -> u32 {
        let rows = (0..64).flat_map(|shard| engine.model().rows(ShardId(shard)));
        let rows = rows.filter(|(key, _)| Kind::of(key) == Some(Kind::Limit));
        rows.flat_map(|(_, row)| wire::decode::<LenderRow>("limit", &row).unwrap().queue).map(|(_, want)| want).sum()
    };
    let (mut calls, mut runs) = (Vec::new(), Vec::new());
    for n in 0..5 {
        calls.push(pay(&engine, &format!("a{n}"), json!({ "shop": "x" })).await);
        runs.push(engine.local().start("p", json!({ "shop": "x" })).await.unwrap());
        engine.settle().await;
    }
    assert_eq!(waiting(), 10);
    let taken = "of {concurrency: 1} is taken: 1 in shard ";
    let (call, run) = (kit::sentence(&engine, calls[3]).await, runs[3].status().await.unwrap().waiting[0].sentence());
    for sentence in [call, run] {
        assert!(sentence.contains(taken) && sentence.contains("; 10 wait in all"), "{sentence}");
    }
    for (call, run) in calls.into_iter().zip(&runs).skip(1) {
        kit::kill(&engine, call).await;
        run.cancel().await.unwrap();
        engine.settle().await;
    }
    assert_eq!(waiting(), 2, "one of each is left");
    shop.open.store(true, Ordering::SeqCst);
    engine.local().result::<Value>(held).await.unwrap();
    runs[0].result::<Value>().await.unwrap();
    engine.settle().await;
    assert_eq!((kit::rows(&engine, Kind::Limit), shop.tries.load(Ordering::SeqCst)), (0, 3));
}
