//! Calls that wait for one another: chains, cycles, rings.

use std::time::Duration;

use selvedge::{App, Ctx, Failure, Handler, InvocationId, Outcome, Settings, SharedHandler, View, test};
use selvedge_kernel::record::kind::Kind;
use serde::{Deserialize, Serialize};

use crate::kit;

/// Calls the first of some actors with the others, if there are any.
const PASS: Handler<Vec<String>, u64> = Handler::new("node", "pass");
const LOOK: SharedHandler<(), u64> = SharedHandler::new("node", "look");
const LOOK_BACK: Handler<String, u64> = Handler::new("node", "look_back");
const HOLD: Handler<Plan, String> = Handler::new("node", "hold");
const TAKE: Handler<u64, u64> = Handler::new("node", "take");

/// Holds its actor for a time, then calls others.
#[derive(Clone, Serialize, Deserialize, Default)]
struct Plan {
    rest_ms: u64,
    calls: Vec<String>,
    timeout_ms: Option<u64>,
    spawns: bool,
}

fn code(failure: &Failure) -> String {
    failure.code().to_owned()
}

async fn pass(ctx: Ctx, path: Vec<String>) -> Outcome<u64> {
    match path.split_first() {
        None => Ok(0),
        Some((next, rest)) => Ok(1 + ctx.call(PASS.on(next.clone()), rest.to_vec()).await?),
    }
}

async fn hold(ctx: Ctx, plan: Plan) -> Outcome<String> {
    if plan.rest_ms > 0 {
        ctx.sleep(Duration::from_millis(plan.rest_ms)).await?;
    }
    let mut said = Vec::new();
    for key in &plan.calls {
        let given = if plan.spawns {
            ctx.spawn(TAKE.on(key.clone()), 1).join().await
        } else {
            let call = ctx.call(TAKE.on(key.clone()), 1);
            match plan.timeout_ms {
                Some(ms) => call.timeout(Duration::from_millis(ms)).await,
                None => call.await,
            }
        };
        said.push(match given {
            Ok(value) => value.to_string(),
            Err(failure) => format!("{}: {}", code(&failure), failure.message()),
        });
    }
    Ok(said.join("; "))
}

async fn take(ctx: Ctx, by: u64) -> Outcome<u64> {
    let taken = ctx.state().get::<u64>("taken").await?.unwrap_or(0) + by;
    ctx.state().set("taken", &taken)?;
    Ok(taken)
}

/// Calls somebody under a key, and waits for so many milliseconds.
const JOIN: Handler<u64, String> = Handler::new("node", "join");
const SLOW: Handler<u64, u64> = Handler::new("node", "slow");

async fn join(ctx: Ctx, ms: u64) -> Outcome<String> {
    let called = ctx.call(SLOW.on("slow"), 5).idempotency_key("once").timeout(Duration::from_millis(ms)).await;
    Ok(called.map_or_else(|failure| format!("{}: {}", code(&failure), failure.message()), |value| value.to_string()))
}

async fn slow(ctx: Ctx, value: u64) -> Outcome<u64> {
    ctx.sleep(Duration::from_secs(3_600)).await?;
    Ok(value)
}

fn app() -> App {
    App::new()
        .handler(PASS, pass)
        .handler(HOLD, hold)
        .handler(TAKE, take)
        .handler(JOIN, join)
        .handler(SLOW, slow)
        .shared(LOOK, async |view: View, ()| Ok(view.get("taken").await?.unwrap_or(0)))
        .handler(
            LOOK_BACK,
            async |ctx: Ctx, back: String| {
                if back.is_empty() { ctx.call(LOOK_BACK.on("other"), ctx.key().to_owned()).await } else { ctx.call(LOOK.on(back), ()).await }
            },
        )
}

fn path(keys: &[&str]) -> Vec<String> {
    keys.iter().map(|key| (*key).to_owned()).collect()
}

#[tokio::test]
async fn a_call_into_its_own_chain_fails_at_once_and_names_the_chain() {
    let mut engine = test::Engine::new(app()).await.unwrap();
    assert_eq!(engine.local().call(PASS.on("a"), path(&["b", "c", "d"])).await.unwrap(), 3);
    for round in 0..3 {
        let id = engine.local().send(PASS.on("a"), path(&["b", "c", "a", "z"])).await.unwrap();
        if round > 0 {
            engine.kill_and_reopen().await.unwrap();
        }
        engine.settle().await;
        let error = engine.local().result::<u64>(id).await.unwrap_err().to_string();
        assert!(error.contains("call_cycle"), "{error}");
        for part in ["node/a.pass", "→ node/b.pass", "→ node/c.pass", "→ node/a.pass:"] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
    let alone = engine.local().call(PASS.on("self"), path(&["self"])).await.unwrap_err().to_string();
    assert!(alone.contains("call_cycle"), "{alone}");
    kit::sound(&engine).await;
}

#[tokio::test]
async fn a_shared_handler_of_an_actor_in_the_chain_can_be_called() {
    let engine = test::Engine::new(app()).await.unwrap();
    assert_eq!(engine.local().call(LOOK_BACK.on("first"), String::new()).await.unwrap(), 0);
}

#[tokio::test]
async fn sixty_four_calls_may_wait_for_one_another_and_one_more_names_the_limit() {
    let engine = test::Engine::new(app()).await.unwrap();
    let keys = |n: usize| (0..n).map(|n| format!("n{n}")).collect::<Vec<String>>();
    assert_eq!(engine.local().call(PASS.on("first"), keys(64)).await.unwrap(), 64);
    let error = engine.local().call(PASS.on("first"), keys(65)).await.unwrap_err().to_string();
    assert!(error.contains("limit: call depth") && error.contains("64"), "{error}");
}

async fn holders(engine: &test::Engine, ring: &[&str], spawns: bool) -> Vec<InvocationId> {
    let mut ids = Vec::new();
    for (n, key) in ring.iter().enumerate() {
        let plan = Plan { rest_ms: 100 + n as u64, calls: vec![ring[(n + 1) % ring.len()].to_owned()], spawns, ..Plan::default() };
        ids.push(engine.local().send(HOLD.on(*key), plan).await.unwrap());
    }
    ids
}

/// Exactly one of a ring fails with `deadlock`, all in it are named, and the others get their values.
async fn one_is_given_up(engine: &test::Engine, ids: &[InvocationId], ring: &[&str]) {
    let mut said = Vec::new();
    for id in ids {
        assert!(kit::status(engine, *id).await == "Completed", "{}", kit::sentence(engine, *id).await);
        said.push(engine.local().result::<String>(*id).await.unwrap());
    }
    let given_up: Vec<&String> = said.iter().filter(|said| said.starts_with("deadlock")).collect();
    assert_eq!(given_up.len(), 1, "{said:?}");
    for key in ring {
        assert!(given_up[0].contains(&format!("node/{key}.hold")), "{said:?}");
    }
    assert_eq!(said.iter().filter(|said| *said == "1").count(), ring.len() - 1, "{said:?}");
    // What was given up was never started.
    let mut taken = 0;
    for key in ring {
        taken += engine.local().call(LOOK.on(*key), ()).await.unwrap();
    }
    assert_eq!(taken, ring.len() as u64 - 1);
    engine.settle().await;
    assert_eq!(kit::rows(engine, Kind::Begun), 0);
    assert_eq!(kit::rows(engine, Kind::Inbox), 0);
    assert_eq!(kit::rows(engine, Kind::Ready), 0);
    kit::sound(engine).await;
}

#[tokio::test]
async fn of_two_chains_that_wait_for_each_other_the_younger_call_fails_within_seconds() {
    let engine = test::Engine::new(app()).await.unwrap();
    let ids = holders(&engine, &["a", "b"], false).await;
    engine.advance(Duration::from_millis(100)).await;
    engine.advance(Duration::from_millis(10)).await;
    let behind = kit::sentence(&engine, ids[0]).await;
    assert!(behind.contains("for the answer of node/b.take"), "{behind}");
    for _ in 0..3 {
        engine.advance(Duration::from_secs(1)).await;
    }
    one_is_given_up(&engine, &ids, &["a", "b"]).await;
    // The call of the one that rested longer was the last one made.
    assert!(engine.local().result::<String>(ids[1]).await.unwrap().starts_with("deadlock"));
}

#[tokio::test]
async fn a_ring_of_three_is_found_over_kills_and_suspension() {
    for kill_after_ms in [0u64, 110, 900, 1_050, 1_500, 2_500] {
        let mut engine = test::Engine::new(app()).await.unwrap();
        let ring = ["k", "l", "m"];
        let ids = holders(&engine, &ring, false).await;
        for step in 0..60u64 {
            if step * 100 / 100 == kill_after_ms / 100 {
                engine.advance(Duration::from_millis(kill_after_ms % 100)).await;
                engine.kill_and_reopen().await.unwrap();
            }
            engine.advance(Duration::from_millis(100)).await;
        }
        one_is_given_up(&engine, &ids, &ring).await;
    }
}

#[tokio::test]
async fn a_ring_of_children_that_are_joined_is_found_too() {
    let mut engine = test::Engine::new(app()).await.unwrap();
    let ids = holders(&engine, &["p", "q"], true).await;
    engine.advance(Duration::from_millis(200)).await;
    engine.kill_and_reopen().await.unwrap();
    for _ in 0..8 {
        engine.advance(Duration::from_secs(1)).await;
    }
    one_is_given_up(&engine, &ids, &["p", "q"]).await;
}

#[tokio::test]
async fn a_ring_that_a_timeout_breaks_is_no_deadlock_or_is_one_and_never_both() {
    for timeout_ms in [500u64, 999, 1_000, 1_001, 1_500] {
        let engine = test::Engine::new(app()).await.unwrap();
        let short = Plan { rest_ms: 100, calls: path(&["b"]), timeout_ms: Some(timeout_ms), spawns: false };
        let long = Plan { rest_ms: 101, calls: path(&["a"]), ..Plan::default() };
        let ids = [engine.local().send(HOLD.on("a"), short).await.unwrap(), engine.local().send(HOLD.on("b"), long).await.unwrap()];
        for _ in 0..60 {
            engine.advance(Duration::from_millis(50)).await;
        }
        let said = [engine.local().result::<String>(ids[0]).await.unwrap(), engine.local().result::<String>(ids[1]).await.unwrap()];
        let failed = said.iter().filter(|said| said.contains("deadlock:") || said.contains("deadline:")).count();
        assert_eq!(failed, 1, "{timeout_ms}: {said:?}");
        if timeout_ms < 1_000 {
            assert!(said[0].starts_with("deadline"), "{timeout_ms}: {said:?}");
        }
    }
}

#[tokio::test]
async fn whoever_waits_for_long_but_not_for_itself_is_left_alone() {
    let mut engine = test::Engine::new(app()).await.unwrap();
    let client = engine.local();
    // c sleeps for an hour; b waits for c, a for b and c, others behind all of them.
    let c = client.send(HOLD.on("c"), Plan { rest_ms: 3_600_000, ..Plan::default() }).await.unwrap();
    let b = client.send(HOLD.on("b"), Plan { calls: path(&["c"]), ..Plan::default() }).await.unwrap();
    let a = client.send(HOLD.on("a"), Plan { calls: path(&["b", "c"]), ..Plan::default() }).await.unwrap();
    let mut others = Vec::new();
    for n in 0..20 {
        others.push(client.send(HOLD.on(format!("o{n}")), Plan { calls: path(&["a", "b", "c"]), ..Plan::default() }).await.unwrap());
    }
    for step in 0..40 {
        engine.advance(Duration::from_secs(100)).await;
        if step == 7 {
            engine.kill_and_reopen().await.unwrap();
        }
    }
    for id in [a, b, c].into_iter().chain(others) {
        let said = engine.local().result::<String>(id).await.unwrap();
        assert!(!said.contains("deadlock"), "{said}");
    }
    kit::sound(&engine).await;
}

#[tokio::test]
async fn a_call_that_joins_another_by_its_key_ends_at_its_own_time_and_the_joined_one_goes_on() {
    for (replay_always, kills) in [(false, false), (true, false), (false, true)] {
        let mut engine = test::Engine::with(app(), Settings { replay_always, ..Settings::default() }).await.unwrap();
        let long = engine.local().send(JOIN.on("long"), 7_200_000).await.unwrap();
        engine.settle().await;
        let short = engine.local().send(JOIN.on("short"), 60_000).await.unwrap();
        engine.advance(Duration::from_secs(59)).await;
        if kills {
            engine.kill_and_reopen().await.unwrap();
            engine.settle().await;
        }
        assert_ne!(kit::status(&engine, short).await, "Completed");
        engine.advance(Duration::from_secs(2)).await;
        let said = engine.local().result::<String>(short).await.unwrap();
        assert!(said.starts_with("deadline: ") && said.contains("node/slow.slow had not ended when the time of this call was up"), "{said}");
        if kills {
            engine.kill_and_reopen().await.unwrap();
        }
        engine.advance(Duration::from_secs(3_600)).await;
        assert_eq!(engine.local().result::<String>(long).await.unwrap(), "5");
        assert_eq!((kit::rows(&engine, Kind::Begun), kit::rows(&engine, Kind::Outbox)), (0, 0));
        if !kills {
            assert_eq!(kit::rows(&engine, Kind::Timer), 0);
        }
        kit::sound(&engine).await;
    }
}
