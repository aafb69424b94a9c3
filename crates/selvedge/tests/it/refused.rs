//! Refusals: what cannot be taken is answered, and never stops a pair of shards.

use std::time::Duration;

use selvedge::{App, Ctx, Handler, Outcome, Settings, test};
use selvedge_kernel::limit::Limits;
use selvedge_kernel::record::kind::Kind;

use crate::kit;

const GO: Handler<u32, Vec<String>> = Handler::new("sender", "go");
const REST: Handler<u32, u32> = Handler::new("busy", "rest");
const LOG: Handler<u32, u64> = Handler::new("log", "add");
const NOBODY: Handler<u32, u32> = Handler::new("nobody", "there");

async fn log(ctx: Ctx, value: u32) -> Outcome<u64> {
    let mut seen = ctx.state().get::<Vec<u32>>("seen").await?.unwrap_or_default();
    seen.push(value);
    ctx.state().set("seen", &seen)?;
    Ok(seen.len() as u64)
}

/// Sends and calls where nothing can be taken, and to others between.
async fn go(ctx: Ctx, value: u32) -> Outcome<Vec<String>> {
    let mut said = Vec::new();
    ctx.send(REST.on("full"), value);
    ctx.send(NOBODY.on("x"), value);
    ctx.send(LOG.on("full"), value);
    for key in ["full", "other"] {
        said.push(match ctx.call(REST.on(key), value).await {
            Ok(value) => value.to_string(),
            Err(failure) => format!("{}: {}", failure.code(), failure.message()),
        });
        ctx.send(LOG.on("full"), value + 1);
    }
    said.push(ctx.call(NOBODY.on("x"), value).await.map_or_else(|failure| format!("{}: {}", failure.code(), failure.message()), |value| value.to_string()));
    Ok(said)
}

fn app() -> App {
    App::new().handler(GO, go).handler(LOG, log).handler(REST, async |ctx: Ctx, value: u32| {
        if ctx.key() == "full" {
            ctx.sleep(Duration::from_secs(86_400)).await?;
        }
        Ok(value)
    })
}

async fn engine() -> test::Engine {
    let limits = Limits { inbox: 2, ..Limits::default() };
    let engine = test::Engine::with(app(), Settings { limits, replay_always: true, ..Settings::default() }).await.unwrap();
    for n in 0..2 {
        engine.local().send(REST.on("full"), n).await.unwrap();
    }
    engine.settle().await;
    engine
}

/// What was refused is an error or a dead letter, once; what was not has come, once and in order.
async fn as_it_must_be(engine: &test::Engine, said: &[String]) {
    assert!(said[0].starts_with("refused:") && said[0].contains("the limit of one inbox is 2"), "{said:?}");
    assert_eq!(said[1], "7", "{said:?}");
    assert!(said[2].starts_with("refused:") && said[2].contains("nobody.there"), "{said:?}");
    let mut letters: Vec<String> = kit::dead_letters(engine).await.iter().map(|letter| format!("{} {}", letter.message.target, letter.error.code)).collect();
    letters.sort();
    assert_eq!(letters, ["busy/full refused", "nobody/x refused"]);
    assert_eq!(kit::state(engine, "log", "full").await["seen"], "[7,8,8]");
    assert_eq!(kit::rows(engine, Kind::Outbox), 0);
    assert_eq!(kit::rows(engine, Kind::Begun), 1, "the sleep of the busy one alone");
    kit::sound(engine).await;
}

#[tokio::test]
async fn a_refused_call_is_its_callers_error_a_refused_send_a_dead_letter_and_others_pass() {
    let engine = engine().await;
    let said = engine.local().call(GO.on("s"), 7).await.unwrap();
    engine.settle().await;
    as_it_must_be(&engine, &said).await;
}

#[tokio::test]
async fn killed_between_any_two_writes_of_a_refusals_way_it_is_answered_once_and_holds_nobody() {
    for commits in 0..16 {
        let mut engine = engine().await;
        let id = engine.local().send(GO.on("s"), 7).await.unwrap();
        for _ in 0..commits {
            engine.model().hold();
            for _ in 0..200 {
                if engine.model().held() > 0 {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            engine.model().release();
        }
        engine.model().hold();
        tokio::time::sleep(Duration::from_millis(2)).await;
        engine.model().drop_held();
        engine.kill_and_reopen().await.unwrap();
        engine.settle().await;
        let said = engine.local().result::<Vec<String>>(id).await.unwrap();
        as_it_must_be(&engine, &said).await;
    }
}
