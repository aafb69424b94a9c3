//! Handlers, replayed.

use std::time::Duration;

use selvedge::{App, Ctx, Failure, Handler, Outcome, Retry, SharedHandler, Signal, View, test};

const ADD: Handler<u64, u64> = Handler::new("counter", "add");
const COUNT: SharedHandler<(), u64> = SharedHandler::new("counter", "count");
const STEPS: Handler<u32, u64> = Handler::new("worker", "steps");
const PAID: Signal<u64> = Signal::new("paid");
const WAIT: Handler<(), Option<u64>> = Handler::new("order", "wait");
const RELAY: Handler<u64, u64> = Handler::new("relay", "pass");

async fn add(ctx: Ctx, by: u64) -> Outcome<u64> {
    let count = ctx.state().get::<u64>("count").await?.unwrap_or(0) + by;
    ctx.state().set("count", &count)?;
    Ok(count)
}

async fn add_with_step(ctx: Ctx, by: u64) -> Outcome<u64> {
    let count = ctx.state().get::<u64>("count").await?.unwrap_or(0);
    ctx.state().set("count", &(count + by))?;
    let seen: u64 = ctx.step("effect", async |_| Ok(count)).await?;
    ctx.sleep(Duration::from_secs(60)).await?;
    assert_eq!(seen, count);
    Ok(ctx.state().get::<u64>("count").await?.unwrap_or(0))
}

async fn steps(ctx: Ctx, n: u32) -> Outcome<u64> {
    let mut sum = 0;
    for i in 0..n {
        sum += ctx.step("one", async |_| Ok(u64::from(i))).await?;
        ctx.sleep(Duration::from_secs(1)).await?;
    }
    Ok(sum)
}

async fn wait(ctx: Ctx, (): ()) -> Outcome<Option<u64>> {
    ctx.signal(PAID).within(Duration::from_secs(3600)).await
}

async fn relay(ctx: Ctx, by: u64) -> Outcome<u64> {
    let first = ctx.call(ADD.on("far"), by).await?;
    let second = ctx.call(ADD.on(format!("near-{}", ctx.key())), first).await?;
    Ok(first + second)
}

fn app() -> App {
    App::new()
        .handler(ADD, add)
        .handler(STEPS, steps)
        .handler(WAIT, wait)
        .handler(RELAY, relay)
        .shared(COUNT, async |view: View, ()| Ok(view.get("count").await?.unwrap_or(0)))
}

#[tokio::test]
async fn a_call_gives_its_value_and_writes_state() {
    let engine = test::Engine::new(app()).await.unwrap();
    let client = engine.local();
    assert_eq!(client.call(ADD.on("a"), 2).await.unwrap(), 2);
    assert_eq!(client.call(ADD.on("a"), 3).await.unwrap(), 5);
    assert_eq!(client.call(COUNT.on("a"), ()).await.unwrap(), 5);
    assert_eq!(client.call(COUNT.on("b"), ()).await.unwrap(), 0);
}

#[tokio::test]
async fn a_handler_with_fifty_suspension_points_resumes_at_each_of_them() {
    let mut engine = test::Engine::new(app()).await.unwrap();
    let id = engine.local().send(STEPS.on("w"), 50).await.unwrap();
    for turn in 0..50 {
        engine.advance(Duration::from_secs(1)).await;
        if turn % 7 == 0 {
            engine.kill_and_reopen().await.unwrap();
            engine.settle().await;
        }
    }
    engine.advance(Duration::from_secs(1)).await;
    assert_eq!(engine.local().result::<u64>(id).await.unwrap(), (0..50).sum::<u64>());
    let effects = engine.effects();
    let mut keys: Vec<&String> = effects.iter().map(|effect| &effect.key).collect();
    let runs = keys.len();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 50);
    assert_eq!(runs, 50, "a finished step was executed again");
}

#[tokio::test]
async fn replays_read_gives_the_first_value_after_write_commit_and_kill() {
    let mut engine = test::Engine::new(App::new().handler(ADD, add_with_step)).await.unwrap();
    let id = engine.local().send(ADD.on("a"), 1).await.unwrap();
    engine.settle().await;
    engine.kill_and_reopen().await.unwrap();
    engine.settle().await;
    engine.advance(Duration::from_secs(60)).await;
    assert_eq!(engine.local().result::<u64>(id).await.unwrap(), 1);
}

#[tokio::test]
async fn a_signal_is_kept_until_somebody_waits_and_times_out_within() {
    let engine = test::Engine::new(app()).await.unwrap();
    let client = engine.local();
    client.send_signal(WAIT.on("o-1"), PAID, 7).await.unwrap();
    assert_eq!(client.call(WAIT.on("o-1"), ()).await.unwrap(), Some(7));
    let late = client.send(WAIT.on("o-2"), ()).await.unwrap();
    engine.advance(Duration::from_secs(3599)).await;
    assert!(client.why(late).await.unwrap().sentence().contains("for the signal `paid` until"));
    engine.advance(Duration::from_secs(2)).await;
    assert_eq!(client.result::<Option<u64>>(late).await.unwrap(), None);
    let third = client.send(WAIT.on("o-3"), ()).await.unwrap();
    engine.settle().await;
    client.send_signal(WAIT.on("o-3"), PAID, 9).await.unwrap();
    assert_eq!(client.result::<Option<u64>>(third).await.unwrap(), Some(9));
}

#[tokio::test]
async fn calls_cross_shards_and_survive_a_kill() {
    let mut engine = test::Engine::new(app()).await.unwrap();
    let mut ids = Vec::new();
    for i in 0..20u64 {
        ids.push(engine.local().send(RELAY.on(format!("r{i}")), 1).await.unwrap());
        if i % 5 == 0 {
            engine.kill_and_reopen().await.unwrap();
        }
    }
    engine.settle().await;
    for id in ids {
        engine.local().result::<u64>(id).await.unwrap();
    }
    assert_eq!(engine.local().call(COUNT.on("far"), ()).await.unwrap(), 20);
}

const SHAKY: Handler<u32, u32> = Handler::new("shaky", "go");

async fn shaky(ctx: Ctx, until: u32) -> Outcome<u32> {
    ctx.step("try", async |attempt| if attempt.number() < until { Err(Failure::retryable("not_yet", "not yet")) } else { Ok(attempt.number()) })
        .retry(Retry::exponential(5))
        .await
}

#[tokio::test]
async fn a_step_is_retried_by_its_policy_under_the_same_key_then_fails_with_its_last_error() {
    let mut engine = test::Engine::new(App::new().handler(SHAKY, shaky)).await.unwrap();
    let id = engine.local().send(SHAKY.on("s"), 3).await.unwrap();
    engine.settle().await;
    engine.kill_and_reopen().await.unwrap();
    for _ in 0..10 {
        engine.advance(Duration::from_secs(10)).await;
    }
    assert_eq!(engine.local().result::<u32>(id).await.unwrap(), 3);
    let keys: std::collections::BTreeSet<String> = engine.effects().into_iter().map(|effect| effect.key).collect();
    assert_eq!(keys.len(), 1);
    let hopeless = engine.local().send(SHAKY.on("t"), 99).await.unwrap();
    for _ in 0..10 {
        engine.advance(Duration::from_secs(60)).await;
    }
    let error = engine.local().result::<u32>(hopeless).await.unwrap_err();
    assert!(error.to_string().contains("attempts_exhausted"), "{error}");
    assert!(error.to_string().contains("not yet"), "{error}");
}
