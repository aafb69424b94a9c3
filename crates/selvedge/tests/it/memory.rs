//! What is in memory: what runs, and not what waits or rests.

use std::time::Duration;

use selvedge::{ActorOptions, App, Ctx, Handler, Settings, test};
use selvedge_kernel::limit::Limits;

use crate::kit;

const ADD: Handler<u64, u64> = Handler::new("counter", "add");
const WAIT: Handler<u64, u64> = Handler::new("counter", "wait");
const N: u32 = 20_000;
const LONG: Handler<u32, u64> = Handler::new("counter", "long");

fn app() -> App {
    App::new()
        .handler(ADD, async |ctx: Ctx, by: u64| {
            let sum = ctx.state().get::<u64>("sum").await?.unwrap_or(0) + by;
            ctx.state().set("sum", &sum)?;
            Ok(sum)
        })
        .handler(WAIT, async |ctx: Ctx, value: u64| {
            ctx.sleep(Duration::from_secs(3600)).await?;
            Ok(value)
        })
        .handler(LONG, async |ctx: Ctx, n: u32| {
            let mut sum = 0;
            for i in 0..n {
                sum += ctx.step("one", async move |_| Ok(u64::from(i))).await?;
            }
            ctx.sleep(Duration::from_secs(3600)).await?;
            Ok(sum)
        })
}

#[tokio::test]
async fn thousands_of_actors_are_not_kept_in_memory_and_lose_nothing() {
    let settings = Settings { limits: Limits { resident_actors: 640, ..Limits::default() }, ..Settings::default() };
    let mut engine = test::Engine::with(app(), settings).await.unwrap();
    for round in 1..=2u64 {
        for n in 0..2_000 {
            engine.local().send(ADD.on(format!("a{n}")), 1).await.unwrap();
        }
        engine.settle().await;
        let census = kit::census(&engine).await;
        assert!(census.actors <= 1_000, "round {round}: {census:?}");
        assert_eq!(census.active, 0);
        engine.kill_and_reopen().await.unwrap();
    }
    for n in (0..2_000).step_by(97) {
        assert_eq!(engine.local().call(ADD.on(format!("a{n}")), 0).await.unwrap(), 2);
    }
}

#[tokio::test]
async fn a_waiting_invocation_leaves_memory_after_its_time_and_comes_back() {
    let app = app().actor("counter", ActorOptions { suspend_after: Duration::from_secs(5), ..ActorOptions::default() });
    let mut engine = test::Engine::with(app, Settings::default()).await.unwrap();
    let mut ids = Vec::new();
    for n in 0..500 {
        ids.push(engine.local().send(WAIT.on(format!("w{n}")), n).await.unwrap());
    }
    engine.advance(Duration::from_secs(4)).await;
    assert_eq!(kit::census(&engine).await.active, 500);
    engine.advance(Duration::from_secs(2)).await;
    assert_eq!(kit::census(&engine).await.active, 0);
    engine.kill_and_reopen().await.unwrap();
    engine.settle().await;
    assert_eq!(kit::census(&engine).await.active, 0, "a restart brings none of them into memory");
    engine.advance(Duration::from_secs(3600)).await;
    for (n, id) in ids.into_iter().enumerate() {
        assert_eq!(engine.local().result::<u64>(id).await.unwrap(), n as u64);
    }
}

#[tokio::test]
async fn a_call_without_outside_effect_is_one_commit_and_one_with_a_step_is_three() {
    let engine = test::Engine::with(app(), Settings { workers: 1, ..Settings::default() }).await.unwrap();
    engine.local().call(ADD.on("x"), 1).await.unwrap();
    let before = engine.model().commits();
    engine.local().call(ADD.on("x"), 1).await.unwrap();
    assert_eq!(engine.model().commits() - before, 1);
}

#[tokio::test]
async fn a_long_journal_is_replayed_in_windows_and_gives_the_same() {
    let mut engine = test::Engine::with(app(), Settings::default()).await.unwrap();
    let id = engine.local().send(LONG.on("x"), N).await.unwrap();
    engine.settle().await;
    assert_eq!(engine.effects().len(), N as usize);
    for _ in 0..4 {
        engine.kill_and_reopen().await.unwrap();
        if kit::census(&engine).await.active == 0 {
            break;
        }
    }
    engine.advance(Duration::from_secs(3601)).await;
    assert_eq!(engine.local().result::<u64>(id).await.unwrap(), (0..u64::from(N)).sum::<u64>());
    assert_eq!(engine.effects().len(), N as usize);
}
