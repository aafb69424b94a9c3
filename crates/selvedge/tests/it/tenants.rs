//! What one tenant may have open: over all shards, exact to the last commit, and no other tenant's concern.

use std::time::Duration;

use bytes::Bytes;
use selvedge::{App, Ctx, Handler, Settings, Signal, test};
use selvedge_engine::VerbError;
use selvedge_engine::engine::Ask;
use selvedge_kernel::auth::{Action, Resource, authorize, local};
use selvedge_kernel::id::{ActorId, InvocationId};
use selvedge_kernel::limit::Limits;
use selvedge_kernel::record::kind::Kind;

use crate::kit;

const WAIT: Handler<u64, ()> = Handler::new("desk", "wait");
const ASK: Handler<u64, String> = Handler::new("asker", "ask");
const GO: Signal<()> = Signal::new("go");
const HOUR: Duration = Duration::from_secs(3_600);

fn app() -> App {
    App::new()
        .handler(WAIT, async |ctx: Ctx, _: u64| {
            ctx.signal(GO).await?;
            Ok(())
        })
        .handler(ASK, async |ctx: Ctx, n: u64| {
            ctx.send(WAIT.on("sent"), n);
            if let Err(refused) = ctx.call(WAIT.on("called"), n).await {
                return Ok(format!("{refused:?}"));
            }
            Ok("called".to_owned())
        })
}

async fn with(limits: Limits) -> test::Engine {
    test::Engine::with(app(), Settings { limits, ..Settings::default() }).await.unwrap()
}

async fn send(engine: &test::Engine, tenant: &str, key: usize, delay: Option<Duration>) -> Result<InvocationId, VerbError> {
    let actor = ActorId { tenant: tenant.to_owned(), kind: "desk".to_owned(), key: format!("k{key}") };
    let now = engine.engine().now();
    let permit = authorize(local(tenant, now), Action::Invoke, Resource::Handler { actor, handler: "wait".to_owned() }, now).unwrap();
    Ok(engine.engine().invoke(permit, Bytes::from_static(b"1"), Ask { delay, ..Ask::default() }).await?.id.unwrap())
}

#[tokio::test]
async fn a_tenant_has_so_many_invocations_open_over_all_shards_and_restarts_and_the_next_names_the_limit() {
    let mut engine = with(Limits { tenant_invocations: 8, ..Limits::default() }).await;
    let mut ids = Vec::new();
    for key in 0..8 {
        ids.push(send(&engine, "a", key, None).await.unwrap());
    }
    engine.settle().await;
    for _ in 0..3 {
        let refused = send(&engine, "a", 99, None).await.unwrap_err();
        assert_eq!(refused.code, "limit: open invocations");
        assert!(refused.message.contains("`a` has 8 open invocations, the limit is 8") && refused.message.contains("selvedge stuck"), "{refused}");
        kit::sound(&engine).await;
        engine.kill_and_reopen().await.unwrap();
        engine.settle().await;
    }
    send(&engine, "b", 0, None).await.unwrap();
    // One that ends makes room for one.
    let now = engine.engine().now();
    let permit = authorize(local("a", now), Action::Rewrite, Resource::Work { tenant: "a".to_owned(), id: ids[3].to_string() }, now).unwrap();
    engine.engine().kill(permit, ids[3], "to make room").await.unwrap();
    engine.settle().await;
    send(&engine, "a", 99, None).await.unwrap();
    assert_eq!(send(&engine, "a", 100, None).await.unwrap_err().code, "limit: open invocations");
    kit::sound(&engine).await;
}

#[tokio::test]
async fn a_handler_that_calls_or_sends_above_the_limit_is_told_or_leaves_a_dead_letter_and_ends() {
    let engine = with(Limits { tenant_invocations: 2, ..Limits::default() }).await;
    let held = engine.local().send(WAIT.on("held"), 1).await.unwrap();
    engine.settle().await;
    let said: String = engine.local().call(ASK.on("x"), 1).await.unwrap();
    assert!(said.contains("refused") && said.contains("has 2 open invocations, the limit is 2"), "{said}");
    assert_eq!(kit::rows(&engine, Kind::DeadLetter), 1);
    engine.local().send_signal(WAIT.on("held"), GO, ()).await.unwrap();
    engine.local().result::<()>(held).await.unwrap();
    engine.settle().await;
    assert_eq!(kit::rows(&engine, Kind::Tally), 0, "a tenant without anything open has no row");
    kit::sound(&engine).await;
}

#[tokio::test]
async fn a_tenant_has_so_many_delayed_messages_and_one_that_is_due_or_taken_back_makes_room() {
    let mut engine = with(Limits { tenant_timers: 3, ..Limits::default() }).await;
    let mut ids = Vec::new();
    for key in 0..3 {
        ids.push(send(&engine, "default", key, Some(HOUR * (key as u32 + 1))).await.unwrap());
    }
    for _ in 0..2 {
        let refused = send(&engine, "default", 9, Some(HOUR)).await.unwrap_err();
        assert_eq!(refused.code, "limit: timers");
        assert!(refused.message.contains("`default` has 3 delayed messages, the limit of its timers is 3"), "{refused}");
        kit::sound(&engine).await;
        engine.kill_and_reopen().await.unwrap();
        engine.settle().await;
    }
    send(&engine, "default", 9, None).await.unwrap();
    send(&engine, "b", 0, Some(HOUR)).await.unwrap();
    engine.local().cancel(ids[2]).await.unwrap();
    send(&engine, "default", 10, Some(5 * HOUR)).await.unwrap();
    assert_eq!(send(&engine, "default", 11, Some(HOUR)).await.unwrap_err().code, "limit: timers");
    engine.advance(HOUR).await;
    engine.settle().await;
    send(&engine, "default", 11, Some(HOUR)).await.unwrap();
    assert_eq!(send(&engine, "default", 12, Some(HOUR)).await.unwrap_err().code, "limit: timers");
    kit::sound(&engine).await;
}

#[tokio::test]
async fn a_tenant_sees_its_own_dead_letters_and_nobody_elses() {
    let engine = with(Limits { tenant_invocations: 1, ..Limits::default() }).await;
    let held = engine.local().send(WAIT.on("held"), 1).await.unwrap();
    engine.settle().await;
    // Sent by a handler when its tenant has no room: it is kept as a letter.
    engine.local().send(WAIT.on("held"), 1).await.unwrap_err();
    engine.local().send_signal(WAIT.on("held"), GO, ()).await.unwrap();
    engine.local().result::<()>(held).await.unwrap();
    engine.local().call(ASK.on("x"), 1).await.unwrap();
    let letters = async |tenant: &str| {
        let now = engine.engine().now();
        engine.engine().dead_letters(authorize(local(tenant, now), Action::Read, Resource::Store, now).unwrap()).await.unwrap()
    };
    let own = letters("default").await;
    assert_eq!(own.len(), 1);
    assert!(own[0].error.message.contains("has 1 open invocations, the limit is 1"), "{:?}", own[0].error);
    assert_eq!(letters("b").await.len(), 0);
    kit::sound(&engine).await;
}

#[tokio::test]
async fn a_delayed_message_was_accepted_when_it_came_and_is_not_refused_when_it_is_due() {
    let engine = with(Limits { tenant_invocations: 1, ..Limits::default() }).await;
    let late = send(&engine, "default", 5, Some(HOUR)).await.unwrap();
    engine.local().send(WAIT.on("held"), 1).await.unwrap();
    engine.settle().await;
    engine.advance(HOUR).await;
    engine.settle().await;
    assert!(kit::sentence(&engine, late).await.contains("for the signal `go`"), "it has started");
    assert_eq!(kit::rows(&engine, Kind::DeadLetter), 0);
    let refused = send(&engine, "default", 6, None).await.unwrap_err();
    assert!(refused.message.contains("has 2 open invocations, the limit is 1"), "{refused}");
    kit::sound(&engine).await;
}
