//! What a process, an actor and an invocation take in at most, and how long they keep it.

use std::future::IntoFuture;
use std::time::Duration;

use bytes::Bytes;
use selvedge::{App, CallError, Ctx, Handler, Settings, Signal, test};
use selvedge_engine::engine::Ask;
use selvedge_engine::wiring::Tasks;
use selvedge_engine::{SignalTarget, VerbError};
use selvedge_kernel::auth::{Action, Permit, Resource, authorize, local};
use selvedge_kernel::error::Consequence;
use selvedge_kernel::limit::Limits;
use selvedge_kernel::record::kind::Kind;

use crate::kit;

const TELL: Handler<String, String> = Handler::new("box", "tell");
const TAKE: Handler<(), String> = Handler::new("box", "take");
const LONG: Handler<u32, u32> = Handler::new("box", "long");
const POKE: Signal<String> = Signal::new("poke");
const DAY: Duration = Duration::from_secs(86_400);

fn app() -> App {
    App::new()
        .handler(TELL, async |ctx: Ctx, text: String| {
            ctx.emit(&text)?;
            ctx.step("keep", async |_| Ok(text.clone())).await
        })
        .handler(TAKE, async |ctx: Ctx, (): ()| ctx.signal(POKE).await)
        .handler(LONG, async |ctx: Ctx, n: u32| {
            ctx.emit(&n)?;
            for i in 0..n {
                ctx.step("one", async move |_| Ok(i)).await?;
            }
            ctx.sleep(30 * DAY).await?;
            Ok(n)
        })
}

fn permit(engine: &test::Engine, action: Action, handler: &str) -> Permit {
    let resource = Resource::Handler { actor: kit::actor("box", "a"), handler: handler.to_owned() };
    let now = engine.engine().now();
    authorize(local("default", now), action, resource, now).unwrap()
}

async fn signal(engine: &test::Engine, name: &str, bytes: usize, key: Option<&str>) -> Result<(), VerbError> {
    let payload = Bytes::from(format!("\"{}\"", "x".repeat(bytes)));
    let target = SignalTarget::Actor(kit::actor("box", "a"));
    engine.engine().signal(permit(engine, Action::Signal, ""), target, name, payload, key.map(str::to_owned)).await
}

#[tokio::test]
async fn calls_and_signals_that_a_process_cannot_hold_are_refused_for_now_and_it_can_still_be_asked_why() {
    let limits = Limits { process_bytes: 100_000, ..Limits::default() };
    let engine = test::Engine::with(app(), Settings { limits, ..Settings::default() }).await.unwrap();
    let id = engine.local().send(TAKE.on("a"), ()).await.unwrap();
    engine.settle().await;
    // What is too large in itself is said first: trying again would not help.
    let error = signal(&engine, "poke", 2 << 20, None).await.unwrap_err();
    assert_eq!((error.consequence, error.code.as_str()), (Consequence::Limit, "limit: signal"));
    engine.model().hold();
    let client = engine.local();
    let held = tokio::spawn(async move { client.call(TELL.on("b"), "x".repeat(90_000)).await });
    while engine.model().held() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for error in [
        signal(&engine, "poke", 20_000, None).await.unwrap_err(),
        engine.engine().invoke(permit(&engine, Action::Invoke, "tell"), Bytes::from(vec![b'x'; 20_000]), Ask::default()).await.unwrap_err(),
    ] {
        assert_eq!((error.consequence, error.code.as_str()), (Consequence::Retry, "limit: bytes in flight"));
        assert!(error.message.contains("the limit is 100000"), "{error}");
    }
    engine.model().release();
    assert_eq!(held.await.unwrap().unwrap().len(), 90_000);
    signal(&engine, "poke", 20_000, None).await.unwrap();
    assert_eq!(engine.local().result::<String>(id).await.unwrap().len(), 20_000);
}

#[tokio::test]
async fn kept_signals_are_bounded_over_all_names_and_a_key_delivers_one_once() {
    let limits = Limits { signals: 5, ..Limits::default() };
    let engine = test::Engine::with(app(), Settings { limits, ..Settings::default() }).await.unwrap();
    for _ in 0..3 {
        signal(&engine, "n0", 1, Some("k")).await.unwrap();
    }
    for n in 1..5 {
        signal(&engine, &format!("n{n}"), 1, None).await.unwrap();
    }
    signal(&engine, "n0", 1, Some("k")).await.unwrap();
    let error = signal(&engine, "n5", 1, None).await.unwrap_err();
    assert_eq!(error.code, "limit: kept_signals");
    assert!(error.message.starts_with("5 signals to box/a are kept"), "{error}");
    let id = engine.local().send(LONG.on("b"), 0).await.unwrap();
    for n in 0..5 {
        engine.local().send_signal_to(id, Signal::<u32>::new(["a", "b", "c", "d", "e"][n]), 1).await.unwrap();
    }
    let error = engine.local().send_signal_to(id, POKE, String::new()).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("5 signals to {id} are kept")), "{error}");
}

#[tokio::test]
async fn a_signal_that_nobody_takes_becomes_a_dead_letter_and_one_that_is_taken_leaves_nothing() {
    let mut engine = test::Engine::new(app()).await.unwrap();
    let id = engine.local().send(TAKE.on("a"), ()).await.unwrap();
    signal(&engine, "poke", 3, None).await.unwrap();
    assert_eq!(engine.local().result::<String>(id).await.unwrap(), "xxx");
    engine.settle().await;
    assert_eq!((kit::rows(&engine, Kind::Timer), kit::rows(&engine, Kind::ActorSignal)), (0, 0));
    signal(&engine, "poke", 4, None).await.unwrap();
    signal(&engine, "other", 100 << 10, None).await.unwrap();
    engine.kill_and_reopen().await.unwrap();
    engine.advance(6 * DAY).await;
    assert_eq!((kit::rows(&engine, Kind::ActorSignal), kit::dead_letters(&engine).await.len()), (2, 0));
    engine.advance(2 * DAY).await;
    assert_eq!(kit::rows(&engine, Kind::ActorSignal), 0);
    let mut letters = kit::dead_letters(&engine).await;
    letters.sort_by(|a, b| a.message.handler.cmp(&b.message.handler));
    assert_eq!(letters.iter().map(|letter| letter.message.handler.as_str()).collect::<Vec<_>>(), ["signal other", "signal poke"]);
    assert_eq!(letters[1].message.input.as_ref(), b"\"xxxx\"");
    assert!(letters[0].error.message.contains("the signal `other` to box/a came at"), "{}", letters[0].error);
    kit::sound(&engine).await;
}

#[tokio::test]
async fn a_kill_before_the_replay_has_ended_leaves_a_whole_ledger_line_and_no_operation() {
    let mut engine = test::Engine::with(app(), Settings::default()).await.unwrap();
    let id = engine.local().send(LONG.on("a"), 1_500).await.unwrap();
    engine.settle().await;
    engine.kill_and_reopen_with(Settings { tasks: Tasks::Leave, ..Settings::default() }).await.unwrap();
    kit::kill(&engine, id).await;
    engine.settle().await;
    assert_eq!(kit::status(&engine, id).await, "Killed");
    assert_eq!((kit::rows(&engine, Kind::Begun), kit::rows(&engine, Kind::Ready)), (0, 0));
    kit::sound(&engine).await;
}

#[tokio::test]
async fn an_erasure_waits_for_the_end_that_it_erases_and_leaves_no_guessable_hash_and_no_second_run() {
    let engine = test::Engine::with(app(), Settings::default()).await.unwrap();
    let client = engine.local();
    let secret = "the-secret-of-ada";
    client.call(TELL.on("a"), secret.to_owned()).idempotency_key("k").await.unwrap();
    let Err(CallError::Open { id: open }) = client.call(LONG.on("b"), 3).wait(Duration::ZERO).await else { panic!("it sleeps") };
    engine.settle().await;
    let hash = blake3::hash(format!("\"{secret}\"").as_bytes());
    let holds = |needle: &[u8]| {
        let rows = (0..64).flat_map(|shard| engine.model().rows(selvedge_kernel::id::ShardId(shard)));
        rows.filter(|(_, value)| value.windows(needle.len()).any(|window| window == needle)).count()
    };
    assert!(holds(secret.as_bytes()) > 0 && holds(hash.as_bytes()) > 0);
    let ask = Ask { idempotency_key: Some("k".to_owned()), ..Ask::default() };
    let body = Bytes::from(format!("\"{secret}\""));
    let id = engine.engine().invoke(permit(&engine, Action::Invoke, "tell"), body, ask).await.unwrap().id.unwrap();
    client.erase(id).await.unwrap();
    assert_eq!((holds(secret.as_bytes()), holds(hash.as_bytes())), (0, 0));
    let runs = engine.effects().len();
    let again = client.call(TELL.on("a"), secret.to_owned()).idempotency_key("k").await.unwrap_err().to_string();
    assert!(again.contains("erased") && engine.effects().len() == runs, "{again}");

    engine.model().hold();
    let (killing, erasing) = tokio::join!(kit::kill(&engine, open), async {
        while engine.model().held() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let erasing = tokio::spawn(async move { client.erase(open).await });
        tokio::time::sleep(Duration::from_millis(20)).await;
        engine.model().release();
        erasing.await.unwrap()
    });
    let () = killing;
    erasing.unwrap();
    assert_eq!(kit::rows(&engine, Kind::Journal), 0, "the end has folded the journal, and the erasure did not bring it back");
    kit::sound(&engine).await;
}

#[tokio::test]
async fn a_delayed_call_keeps_its_key_and_its_id_from_the_start() {
    let mut engine = test::Engine::new(app()).await.unwrap();
    let ask = || Ask { idempotency_key: Some("k".to_owned()), delay: Some(DAY), ..Ask::default() };
    let body = Bytes::from_static(b"\"later\"");
    let first = engine.engine().invoke(permit(&engine, Action::Invoke, "tell"), body.clone(), ask()).await.unwrap();
    let id = first.id.unwrap();
    engine.kill_and_reopen().await.unwrap();
    let second = engine.engine().invoke(permit(&engine, Action::Invoke, "tell"), body.clone(), ask()).await.unwrap();
    assert_eq!(second.id, Some(id));
    let other = engine.engine().invoke(permit(&engine, Action::Invoke, "tell"), Bytes::from_static(b"1"), ask()).await.unwrap_err();
    assert_eq!(other.code, "idempotency_mismatch");
    let why = engine.local().why(id).await.unwrap().sentence();
    assert!(why.contains("2026-01-02"), "{why}");
    let client = engine.local();
    let waits = tokio::spawn(client.call(TELL.on("a"), "later".to_owned()).idempotency_key("k").into_future());
    engine.advance(Duration::from_secs(60)).await;
    assert!(!waits.is_finished());
    engine.advance(DAY).await;
    assert_eq!(waits.await.unwrap().unwrap(), "later");
    assert_eq!(engine.local().result::<String>(id).await.unwrap(), "later");
    assert_eq!(engine.effects().len(), 1);
    assert_eq!(kit::rows(&engine, Kind::Delayed), 0);
    kit::sound(&engine).await;
}

#[tokio::test]
async fn output_stays_while_its_invocation_is_open_and_for_its_retention_after_the_end() {
    let engine = test::Engine::with(app(), Settings::default()).await.unwrap();
    let id = engine.local().send(LONG.on("a"), 1).await.unwrap();
    for _ in 0..29 {
        engine.advance(DAY).await;
        engine.model().set_today(engine.engine().now().day());
    }
    assert_eq!(kit::rows(&engine, Kind::Output), 1);
    engine.advance(2 * DAY).await;
    engine.local().result::<u32>(id).await.unwrap();
    engine.advance(5 * DAY).await;
    engine.model().set_today(engine.engine().now().day());
    assert_eq!(kit::rows(&engine, Kind::Output), 1);
    engine.advance(4 * DAY).await;
    engine.model().set_today(engine.engine().now().day());
    assert_eq!(kit::rows(&engine, Kind::Output), 0);
}
