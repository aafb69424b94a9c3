//! What a caller was told is on disk.

use std::future::IntoFuture;
use std::time::Duration;

use selvedge::{App, CallError, Ctx, Handler, Outcome, test};
use selvedge_engine::Progress;
use selvedge_engine::engine::Ask;
use selvedge_kernel::auth::{Action, Permit, Resource, authorize, local};
use selvedge_kernel::id::ActorId;
use selvedge_kernel::record::message::Outcome as Ended;

const ADD: Handler<u64, u64> = Handler::new("counter", "add");

async fn add(ctx: Ctx, by: u64) -> Outcome<u64> {
    let count = ctx.state().get::<u64>("count").await?.unwrap_or(0) + by;
    ctx.state().set("count", &count)?;
    ctx.sleep(Duration::from_secs(1)).await?;
    Ok(count)
}

#[tokio::test]
async fn concurrent_starts_under_one_key_are_one_invocation() {
    let engine = test::Engine::new(App::new().handler(ADD, add)).await.unwrap();
    for round in 0..20 {
        let client = engine.local();
        let key = format!("c-{round}");
        let start = || client.call(ADD.on(&key), 1).idempotency_key("once").wait(Duration::ZERO).into_future();
        let (a, b, c) = tokio::join!(start(), start(), start());
        let ids: Vec<_> = [a, b, c].into_iter().map(|answer| if let Err(CallError::Open { id }) = answer { Some(id) } else { None }).collect();
        assert!(ids[0].is_some() && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        engine.advance(Duration::from_secs(2)).await;
        assert_eq!(client.call(ADD.on(&key), 1).idempotency_key("once").await.unwrap(), 1);
    }
}

#[tokio::test]
async fn an_idempotency_key_gives_the_first_result_while_it_is_kept_and_refuses_other_bytes() {
    let mut engine = test::Engine::new(App::new().handler(ADD, add)).await.unwrap();
    let id = engine.local().send(ADD.on("other"), 1).await.unwrap();
    let first = engine.local().call(ADD.on("x"), 1).idempotency_key("k").wait(Duration::ZERO).await.unwrap_err();
    assert!(matches!(first, CallError::Open { .. }));
    engine.kill_and_reopen().await.unwrap();
    engine.advance(Duration::from_secs(2)).await;
    for _ in 0..3 {
        assert_eq!(engine.local().call(ADD.on("x"), 1).idempotency_key("k").await.unwrap(), 1);
        engine.kill_and_reopen().await.unwrap();
    }
    let other = engine.local().call(ADD.on("x"), 2).idempotency_key("k").await.unwrap_err().to_string();
    assert!(other.contains("another body"), "{other}");
    // Its scope is the actor.
    let client = engine.local();
    let call = tokio::spawn(async move { client.call(ADD.on("y"), 2).idempotency_key("k").await });
    while !call.is_finished() {
        engine.advance(Duration::from_secs(1)).await;
    }
    assert_eq!(call.await.unwrap().unwrap(), 2);
    engine.local().result::<u64>(id).await.unwrap();
    // After a day and the day it ends in, the key is free.
    engine.model().set_today((engine.engine().now().after(Duration::from_secs(2 * 86_400))).day());
    let client = engine.local();
    let call = tokio::spawn(async move { client.call(ADD.on("x"), 5).idempotency_key("k").await });
    while !call.is_finished() {
        engine.advance(Duration::from_secs(1)).await;
    }
    assert_eq!(call.await.unwrap().unwrap(), 6);
}

#[tokio::test]
async fn a_call_with_a_key_joins_what_runs_and_gets_its_result() {
    const TWICE: Handler<u64, (u64, u64)> = Handler::new("caller", "twice");
    let app = App::new().handler(ADD, add).handler(TWICE, async |ctx: Ctx, n: u64| {
        let calls = (0..2).map(|_| ctx.call(ADD.on("shared"), n).idempotency_key("once"));
        let both = ctx.join_all(calls).await?;
        Ok((both[0], both[1]))
    });
    let mut engine = test::Engine::new(app).await.unwrap();
    let mut ids = Vec::new();
    for n in 0..30 {
        ids.push(engine.local().send(TWICE.on(format!("c{n}")), 1).await.unwrap());
    }
    engine.settle().await;
    engine.kill_and_reopen().await.unwrap();
    engine.advance(Duration::from_secs(2)).await;
    for id in ids {
        assert_eq!(engine.local().result::<(u64, u64)>(id).await.unwrap(), (1, 1));
    }
    engine.settle().await;
    assert_eq!(crate::kit::rows(&engine, selvedge_kernel::record::kind::Kind::Joined), 0);
    assert_eq!(crate::kit::rows(&engine, selvedge_kernel::record::kind::Kind::Begun), 0);
}

#[tokio::test]
async fn no_step_starts_and_no_id_goes_out_before_the_acceptance_is_durable() {
    const STEP: Handler<u64, u64> = Handler::new("subject", "step");
    let app = App::new().handler(STEP, async |ctx: Ctx, n: u64| ctx.step("effect", async move |_| Ok(n)).await);
    let mut engine = test::Engine::new(app).await.unwrap();
    engine.model().hold();
    let client = engine.local();
    let sent = tokio::spawn(async move { client.send(STEP.on("x"), 1).await });
    while engine.model().held() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert!(engine.effects().is_empty() && !sent.is_finished());
    engine.model().set_stopped(Some("the power is gone"));
    engine.model().drop_held();
    assert!(sent.await.unwrap().is_err(), "what was not acknowledged may be lost, and is not acknowledged");
    engine.model().set_stopped(None);
    engine.kill_and_reopen().await.unwrap();
    engine.settle().await;
    assert!(engine.effects().is_empty());
    // The same start again: once its acceptance is durable, a kill keeps its id and its keys.
    engine.model().hold();
    let client = engine.local();
    let call = tokio::spawn(async move { client.call(STEP.on("x"), 1).idempotency_key("k").await });
    while engine.model().held() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    engine.model().release();
    engine.settle().await;
    assert_eq!(call.await.unwrap().unwrap(), 1);
    engine.kill_and_reopen().await.unwrap();
    assert_eq!(engine.local().call(STEP.on("x"), 1).idempotency_key("k").await.unwrap(), 1);
    assert_eq!(engine.effects().len(), 1);
}

#[tokio::test]
async fn who_comes_to_its_turn_before_its_acceptance_is_durable_starts_no_step() {
    const WAIT: Handler<u64, u64> = Handler::new("subject", "wait");
    let app = App::new().handler(WAIT, async |ctx: Ctx, n: u64| {
        if n == 1 {
            ctx.sleep(Duration::from_secs(3_600)).await?;
        }
        ctx.step("effect", async move |_| Ok(n)).await
    });
    let engine = test::Engine::new(app).await.unwrap();
    let first = engine.local().send(WAIT.on("x"), 1).await.unwrap();
    engine.settle().await;
    engine.model().hold();
    let (client, shared) = (engine.local(), engine.engine().clone());
    let second = tokio::spawn(async move { client.send(WAIT.on("x"), 2).await });
    while engine.model().held() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // The one that holds the actor ends, and neither its end nor the acceptance of the next one is on disk.
    let permit = crate::kit::permit(&engine, selvedge_kernel::auth::Action::Rewrite, crate::kit::work(first));
    let killed = tokio::spawn(async move { shared.kill(permit, first, "enough").await });
    while engine.model().held() == 1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(engine.effects().is_empty() && !second.is_finished() && !killed.is_finished(), "{:?}", engine.effects());
    engine.model().release();
    killed.await.unwrap().unwrap();
    let second = second.await.unwrap().unwrap();
    assert_eq!(engine.local().result::<u64>(second).await.unwrap(), 2);
    assert_eq!(engine.effects().len(), 1);
}

const NOTHING: Handler<u64, u64> = Handler::new("counter", "nothing");

fn asked(engine: &test::Engine, handler: &str, key: &str) -> Permit {
    let (actor, now) = (ActorId { tenant: "default".to_owned(), kind: "counter".to_owned(), key: key.to_owned() }, engine.engine().now());
    authorize(local("default", now), Action::Invoke, Resource::Handler { actor, handler: handler.to_owned() }, now).unwrap()
}

#[tokio::test]
async fn a_call_that_nobody_waits_for_any_more_is_on_disk_before_that_is_said() {
    let app = App::new().handler(ADD, add).handler(NOTHING, async |_: Ctx, n: u64| Ok(n));
    let mut engine = test::Engine::new(app).await.unwrap();
    let ask = |key: Option<&str>| Ask { idempotency_key: key.map(str::to_owned), ..Ask::default() };
    for (n, (handler, key)) in [("add", None), ("nothing", None), ("add", Some("k")), ("nothing", Some("k"))].into_iter().enumerate() {
        let call = async |engine: &test::Engine| {
            let permit = asked(engine, handler, &format!("a-{n}"));
            engine.engine().call(permit, "1".into(), ask(key)).await.unwrap().given_up().await
        };
        assert!(engine.kill_after(0, call).await.unwrap().is_none(), "{handler} {key:?}: nothing is said before it is written");
        let id = call(&engine).await.unwrap().id.unwrap();
        engine.kill_and_reopen().await.unwrap();
        let client = engine.local();
        let ended = tokio::spawn(async move { client.result::<u64>(id).await });
        while !ended.is_finished() {
            engine.advance(Duration::from_secs(1)).await;
        }
        assert_eq!(ended.await.unwrap().unwrap(), 1, "{handler} {key:?}");
    }
}

#[tokio::test]
async fn a_call_that_ends_without_a_rest_is_one_commit() {
    let app = App::new().handler(NOTHING, async |_: Ctx, n: u64| Ok(n));
    let mut engine = test::Engine::new(app).await.unwrap();
    let call = async |engine: &test::Engine| engine.engine().call(asked(engine, "nothing", "a"), "7".into(), Ask::default()).await.unwrap().ended().await;
    assert!(engine.kill_after(0, call).await.unwrap().is_none(), "nothing is said before it is written");
    let given = engine.kill_after(1, call).await.unwrap().expect("one commit is enough").unwrap();
    assert_eq!(given.progress, Progress::Ended(Ended::Value("7".into())));
}
