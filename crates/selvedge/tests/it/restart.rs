//! `return Err(ctx.restart(input))`: an invocation that goes on as another one.

use std::time::Duration;

use selvedge::{ActorOptions, App, Ctx, Handler, Outcome, SharedHandler, View, test};
use selvedge_kernel::record::kind::Kind;

use crate::kit;

const DOWN: Handler<u64, String> = Handler::new("counter", "down");
const NEXT: Handler<(), String> = Handler::new("counter", "next");
const SEEN: SharedHandler<(), Vec<u64>> = SharedHandler::new("counter", "seen");
const ASK: Handler<u64, String> = Handler::new("asker", "ask");
const JOIN: Handler<u64, String> = Handler::new("asker", "join");

/// Counts down, a journal for each number.
async fn down(ctx: Ctx, from: u64) -> Outcome<String> {
    let mut seen = ctx.state().get::<Vec<u64>>("seen").await?.unwrap_or_default();
    seen.push(from);
    ctx.state().set("seen", &seen)?;
    let n = ctx.step("one", async |_| Ok(from)).await?;
    ctx.sleep(Duration::from_secs(10)).await?;
    if n > 0 { Err(ctx.restart(n - 1)) } else { Ok(format!("down after {}", seen.len())) }
}

fn app() -> App {
    App::new()
        .handler(DOWN, down)
        .handler(NEXT, async |ctx: Ctx, (): ()| Ok(format!("next saw {}", ctx.state().get::<Vec<u64>>("seen").await?.unwrap_or_default().len())))
        .shared(SEEN, async |view: View, ()| Ok(view.get("seen").await?.unwrap_or_default()))
        .handler(JOIN, async |ctx: Ctx, from: u64| ctx.call(DOWN.on("c"), from).idempotency_key("once").await)
        .handler(ASK, async |ctx: Ctx, from: u64| ctx.call(DOWN.on("c"), from).await)
}

#[tokio::test]
async fn a_restart_keeps_its_place_its_caller_and_its_key_through_kills_at_each_turn() {
    let mut engine = test::Engine::new(app()).await.unwrap();
    let client = engine.local();
    let caller = client.send(ASK.on("a"), 3).await.unwrap();
    engine.settle().await;
    let behind = client.send(NEXT.on("c"), ()).await.unwrap();
    for turn in 0..5 {
        engine.advance(Duration::from_secs(5)).await;
        if turn % 2 == 0 {
            engine.kill_and_reopen().await.unwrap();
        }
        engine.advance(Duration::from_secs(5)).await;
        engine.kill_and_reopen().await.unwrap();
        engine.settle().await;
    }
    assert_eq!(engine.local().result::<String>(caller).await.unwrap(), "down after 4");
    assert_eq!(engine.local().result::<String>(behind).await.unwrap(), "next saw 4");
    assert_eq!(engine.local().call(SEEN.on("c"), ()).await.unwrap(), [3, 2, 1, 0]);
    let keys: std::collections::BTreeSet<String> = engine.effects().into_iter().map(|effect| effect.key).collect();
    assert_eq!(keys.len(), 4, "each has a journal, and keys, of its own");
    assert_eq!(kit::rows(&engine, Kind::Inbox), 0);
    assert_eq!(kit::rows(&engine, Kind::Ready), 0);
    kit::sound(&engine).await;
}

#[tokio::test]
async fn whoever_asks_for_the_first_gets_the_result_of_the_last_and_why_links_them() {
    let mut engine = test::Engine::new(app()).await.unwrap();
    let first = engine.local().send(DOWN.on("c"), 1).await.unwrap();
    engine.advance(Duration::from_secs(10)).await;
    let ended = kit::sentence(&engine, first).await;
    let successor = engine.local().why(first).await.unwrap().restarts.after.unwrap();
    assert!(ended.contains(&format!("it started anew as {successor}")), "{ended}");
    let goes_on = kit::sentence(&engine, successor).await;
    assert!(goes_on.contains(&format!("which goes on from {first}")) && goes_on.contains("for its timer"), "{goes_on}");
    let waiting = tokio::spawn({
        let client = engine.local();
        async move { client.result::<String>(first).await }
    });
    engine.advance(Duration::from_secs(10)).await;
    assert_eq!(waiting.await.unwrap().unwrap(), "down after 2");
    engine.kill_and_reopen().await.unwrap();
    assert_eq!(engine.local().result::<String>(first).await.unwrap(), "down after 2");
    kit::sound(&engine).await;
}

#[tokio::test]
async fn the_idempotency_key_leads_to_the_last_one_for_the_first_body() {
    let engine = test::Engine::new(app()).await.unwrap();
    let ask = |from: u64| {
        let client = engine.local();
        tokio::spawn(async move { client.call(DOWN.on("c"), from).idempotency_key("once").await })
    };
    let one = ask(2);
    engine.settle().await;
    for _ in 0..2 {
        engine.advance(Duration::from_secs(10)).await;
    }
    let two = ask(2);
    engine.advance(Duration::from_secs(10)).await;
    assert_eq!(one.await.unwrap().unwrap(), "down after 3");
    assert_eq!(two.await.unwrap().unwrap(), "down after 3");
    assert_eq!(ask(2).await.unwrap().unwrap(), "down after 3");
    let other = ask(1).await.unwrap().unwrap_err().to_string();
    assert!(other.contains("with another body"), "{other}");
    kit::sound(&engine).await;
}

#[tokio::test]
async fn more_callers_of_one_key_than_a_transition_moves_get_the_result_of_the_last_one() {
    let mut engine = test::Engine::new(app()).await.unwrap();
    let mut callers = Vec::new();
    for n in 0..50 {
        callers.push(engine.local().send(JOIN.on(format!("j{n}")), 2).await.unwrap());
    }
    for turn in 0..4 {
        engine.settle().await;
        if turn % 2 == 0 {
            engine.kill_and_reopen().await.unwrap();
        }
        engine.advance(Duration::from_secs(10)).await;
    }
    engine.settle().await;
    for caller in callers {
        assert_eq!(engine.local().result::<String>(caller).await.unwrap(), "down after 3");
    }
    kit::sound(&engine).await;
}

#[tokio::test]
async fn a_cancelled_invocation_does_not_start_anew() {
    let engine = test::Engine::new(app()).await.unwrap();
    let id = engine.local().send(DOWN.on("c"), 5).await.unwrap();
    engine.settle().await;
    engine.local().cancel(id).await.unwrap();
    engine.settle().await;
    assert_eq!(kit::status(&engine, id).await, "Cancelled");
    assert_eq!(engine.local().call(SEEN.on("c"), ()).await.unwrap(), [5]);
}

#[tokio::test]
async fn successor_has_the_whole_time_of_its_type_again() {
    const LONG: Handler<u32, u32> = Handler::new("long", "go");
    let hour = Duration::from_secs(3_600);
    let app = App::new().actor("long", ActorOptions { timeout: Some(hour), ..ActorOptions::default() }).handler(LONG, async |ctx: Ctx, more: u32| {
        ctx.sleep(Duration::from_secs(2_400)).await?;
        if more > 0 { Err(ctx.restart(more - 1)) } else { Ok(7) }
    });
    let engine = test::Engine::new(app).await.unwrap();
    let id = engine.local().send(LONG.on("l"), 2).await.unwrap();
    for _ in 0..3 {
        engine.advance(Duration::from_secs(2_400)).await;
    }
    assert_eq!(engine.local().result::<u32>(id).await.unwrap(), 7);
    kit::sound(&engine).await;
}
