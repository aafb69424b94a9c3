//! The same on the embedded store, with the machine's clock.

use std::path::PathBuf;
use std::time::Duration;

use selvedge::{App, Config, Ctx, Engine, Failure, Handler, Retry, Settings, SharedHandler, Signal, View};

const GO: Handler<u64, u64> = Handler::new("subject", "go");
const ADD: Handler<u64, u64> = Handler::new("counter", "add");
const SEE: SharedHandler<(), u64> = SharedHandler::new("counter", "see");
const POKE: Signal<u64> = Signal::new("poke");

fn app() -> App {
    App::new()
        .handler(ADD, async |ctx: Ctx, by: u64| {
            let sum = ctx.state().get::<u64>("sum").await?.unwrap_or(0) + by;
            ctx.state().set("sum", &sum)?;
            Ok(sum)
        })
        .shared(SEE, async |view: View, ()| Ok(view.get("sum").await?.unwrap_or(0)))
        .handler(GO, async |ctx: Ctx, n: u64| {
            let steps = ctx.join_all((0..4).map(|i| ctx.step("part", async move |_| Ok(i)))).await?;
            ctx.send(ADD.on("sum"), n);
            let called = ctx.call(ADD.on(format!("own-{n}")), 1).await?;
            let child = ctx.spawn(ADD.on(format!("child-{n}")), 2).join().await?;
            ctx.emit(&"half way")?;
            let large: String = ctx.step("large", async |_| Ok("x".repeat(700_000))).await?;
            let shaky: u64 = ctx
                .step("shaky", async |attempt| if attempt.number() == 1 { Err(Failure::retryable("once", "more")) } else { Ok(1) })
                .retry(Retry::fixed(3, Duration::from_millis(10)))
                .await?;
            ctx.sleep(Duration::from_millis(20)).await?;
            let poked = ctx.signal(POKE).within(Duration::from_secs(20)).await?.unwrap_or(0);
            Ok(steps.into_iter().sum::<u64>() + called + child + large.len() as u64 + shaky + poked)
        })
}

fn config(data: &PathBuf) -> Config {
    let mut config = Config::on(data);
    config.settings = Settings { replay_always: true, ..Settings::default() };
    config
}

#[tokio::test]
async fn every_theme_runs_on_the_embedded_store_and_through_reopening_it() {
    let data = std::env::temp_dir().join(format!("selvedge-actors-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&data);
    let mut ids = Vec::new();
    {
        let engine = Engine::open(config(&data), app()).await.unwrap();
        for n in 0..8 {
            ids.push(engine.local().send(GO.on(format!("g{n}")), n).await.unwrap());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        engine.close().await.unwrap();
    }
    let engine = Engine::open(config(&data), app()).await.unwrap();
    for n in 0..8 {
        engine.local().send_signal(GO.on(format!("g{n}")), POKE, 100).await.unwrap();
    }
    for id in &ids {
        assert_eq!(engine.local().result::<u64>(*id).await.unwrap(), 6 + 1 + 2 + 700_002 - 2 + 1 + 100);
    }
    let first = engine.local().call(ADD.on("keyed"), 1).idempotency_key("k").await.unwrap();
    engine.close().await.unwrap();
    let engine = Engine::open(config(&data), app()).await.unwrap();
    assert_eq!(engine.local().call(ADD.on("keyed"), 1).idempotency_key("k").await.unwrap(), first);
    while engine.local().call(SEE.on("sum"), ()).await.unwrap() < (0..8).sum() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let slow = engine.local().send(GO.on("late"), 1).await.unwrap();
    engine.local().cancel(slow).await.unwrap();
    assert!(engine.local().result::<u64>(slow).await.is_err());
    assert!(engine.local().verify().await.unwrap().iter().all(|shard| shard.faults.is_empty()));
    engine.close().await.unwrap();
    std::fs::remove_dir_all(&data).unwrap();
}
