//! Dead letters are sent again: whole, behind what waits, once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use selvedge::{ActorOptions, App, Ctx, Failure, Handler, InvocationId, Retry, Signal, test};
use selvedge_engine::engine::Ask;
use selvedge_engine::{Progress, Redriven, SignalTarget, VerbError};
use selvedge_kernel::auth::{Action, Permit, Resource, authorize, local};
use selvedge_kernel::error::Consequence;
use selvedge_kernel::record::kind::Kind;
use selvedge_kernel::record::message::Outcome;

use crate::kit;

const GO: Handler<String, u64> = Handler::new("subject", "go");
const HOLD: Handler<(), u64> = Handler::new("subject", "hold");
const TAKE: Handler<(), String> = Handler::new("subject", "take");
const POKE: Signal<String> = Signal::new("poke");

/// `go` fails until it is mended, and notes for whom it works.
fn app(mended: &Arc<AtomicBool>, notes: &kit::Notes) -> App {
    let (mended, notes) = (mended.clone(), notes.clone());
    App::new()
        .actor("subject", ActorOptions { retry: Retry::none(), ..ActorOptions::default() })
        .handler(GO, async move |ctx: Ctx, text: String| {
            if !mended.load(Ordering::SeqCst) {
                return Err(Failure::retryable("broken", "no"));
            }
            notes.add(format!("{} for {}", text.len(), ctx.caller().principal.id));
            Ok(text.len() as u64)
        })
        .handler(HOLD, async |ctx: Ctx, (): ()| {
            ctx.sleep(Duration::from_secs(60)).await?;
            Ok(0)
        })
        .handler(TAKE, async |ctx: Ctx, (): ()| ctx.signal(POKE).await)
}

fn permit(engine: &test::Engine, who: &str, action: Action, resource: Resource) -> Permit {
    let now = engine.engine().now();
    let mut context = local("default", now);
    context.principal.id = who.to_owned();
    authorize(context, action, resource, now).unwrap()
}

fn handler(name: &str) -> Resource {
    Resource::Handler { actor: kit::actor("subject", "x"), handler: name.to_owned() }
}

/// Sends to `go` as Ada, under a key.
async fn sent(engine: &test::Engine, text: &str, key: &str) -> InvocationId {
    let ask = Ask { idempotency_key: Some(key.to_owned()), ..Ask::default() };
    let input = Bytes::from(format!("\"{text}\""));
    engine.engine().invoke(permit(engine, "ada", Action::Invoke, handler("go")), input, ask).await.unwrap().id.unwrap()
}

async fn redrive(engine: &test::Engine, id: InvocationId, input: Option<&str>) -> Result<Redriven, VerbError> {
    let action = if input.is_some() { Action::Rewrite } else { Action::Control };
    let permit = permit(engine, "ops", action, Resource::Work { tenant: "default".to_owned(), id: id.to_string() });
    engine.engine().redrive(permit, id, input.map(|input| Bytes::from(input.to_owned()))).await
}

fn invocation(redriven: Redriven) -> InvocationId {
    match redriven {
        Redriven::Invocation(id) => id,
        other @ Redriven::Signal(_) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_redriven_letter_arrives_whole_for_its_sender_behind_what_waits_and_once_through_a_kill() {
    let (mended, notes) = (Arc::new(AtomicBool::new(false)), kit::Notes::default());
    let mut engine = test::Engine::new(app(&mended, &notes)).await.unwrap();
    let large = "x".repeat(3 << 20);
    let letter = sent(&engine, &large, "k").await;
    engine.settle().await;
    assert_eq!(kit::dead_letters(&engine).await.len(), 1);
    mended.store(true, Ordering::SeqCst);
    let hold = engine.local().send(HOLD.on("x"), ()).await.unwrap();
    let before = sent(&engine, "before", "b").await;
    let again = invocation(redrive(&engine, letter, None).await.unwrap());
    assert_ne!(again, letter);
    engine.kill_and_reopen().await.unwrap();
    engine.settle().await;
    assert!(kit::dead_letters(&engine).await.is_empty());
    assert_eq!(invocation(redrive(&engine, letter, None).await.unwrap()), again, "asked again, it is the same one");
    assert!(kit::sentence(&engine, again).await.contains(&hold.to_string()), "{}", kit::sentence(&engine, again).await);
    engine.advance(Duration::from_secs(61)).await;
    assert_eq!(engine.local().result::<u64>(before).await.unwrap(), 6);
    assert_eq!(engine.local().result::<u64>(again).await.unwrap(), 3 << 20);
    assert_eq!(notes.all(), ["6 for ada".to_owned(), format!("{} for ada", 3 << 20)]);
    assert_eq!(sent(&engine, &large, "k").await, again, "who comes again with the key finds what the letter became");
    kit::sound(&engine).await;
}

#[tokio::test]
async fn a_letter_is_taken_in_and_gone_in_one_commit_or_neither() {
    let (mended, notes) = (Arc::new(AtomicBool::new(false)), kit::Notes::default());
    let mut engine = test::Engine::new(app(&mended, &notes)).await.unwrap();
    let letter = sent(&engine, "abc", "k").await;
    engine.settle().await;
    mended.store(true, Ordering::SeqCst);
    engine.model().hold();
    let shared = engine.engine().clone();
    let allowed = permit(&engine, "ops", Action::Control, Resource::Work { tenant: "default".to_owned(), id: letter.to_string() });
    let asked = tokio::spawn(async move { shared.redrive(allowed, letter, None).await });
    while engine.model().held() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(!asked.is_finished(), "it is answered when it is durable");
    engine.model().set_stopped(Some("the power is gone"));
    engine.model().drop_held();
    assert!(asked.await.unwrap().is_err());
    engine.model().set_stopped(None);
    engine.kill_and_reopen().await.unwrap();
    assert_eq!(kit::dead_letters(&engine).await.len(), 1, "nothing of it is there");
    let again = invocation(redrive(&engine, letter, None).await.unwrap());
    assert_eq!(engine.local().result::<u64>(again).await.unwrap(), 3);
    assert!(kit::dead_letters(&engine).await.is_empty());
    kit::sound(&engine).await;
}

#[tokio::test]
async fn another_input_replaces_the_letters_own_and_leaves_the_clients_key_to_the_old_one() {
    let (mended, notes) = (Arc::new(AtomicBool::new(false)), kit::Notes::default());
    let engine = test::Engine::new(app(&mended, &notes)).await.unwrap();
    let letter = sent(&engine, "abc", "k").await;
    engine.settle().await;
    mended.store(true, Ordering::SeqCst);
    let work = Resource::Work { tenant: "default".to_owned(), id: letter.to_string() };
    let control = permit(&engine, "ops", Action::Control, work);
    let refused = engine.engine().redrive(control, letter, Some(Bytes::from_static(b"\"z\""))).await.unwrap_err();
    assert_eq!(refused.consequence, Consequence::NotPermitted, "another input is a rewrite");
    let again = invocation(redrive(&engine, letter, Some("\"12345\"")).await.unwrap());
    assert_eq!(engine.local().result::<u64>(again).await.unwrap(), 5);
    assert_eq!(sent(&engine, "abc", "k").await, letter);
    let unknown = redrive(&engine, again, None).await.unwrap_err();
    assert_eq!((unknown.consequence, unknown.code.as_str()), (Consequence::NotFound, "unknown_dead_letter"));
}

#[tokio::test]
async fn a_letter_that_was_a_signal_is_that_signal_again() {
    let (mended, notes) = (Arc::new(AtomicBool::new(false)), kit::Notes::default());
    let mut engine = test::Engine::new(app(&mended, &notes)).await.unwrap();
    let target = SignalTarget::Actor(kit::actor("subject", "x"));
    engine.engine().signal(permit(&engine, "ada", Action::Signal, handler("")), target, "poke", Bytes::from_static(b"\"late\""), None).await.unwrap();
    engine.advance(Duration::from_secs(8 * 86_400)).await;
    let letters = kit::dead_letters(&engine).await;
    assert_eq!(letters[0].message.handler, "signal poke");
    assert_eq!(redrive(&engine, letters[0].message.id, None).await.unwrap(), Redriven::Signal("poke".to_owned()));
    engine.kill_and_reopen().await.unwrap();
    assert_eq!((kit::dead_letters(&engine).await.len(), kit::rows(&engine, Kind::ActorSignal)), (0, 1));
    assert_eq!(engine.local().call(TAKE.on("x"), ()).await.unwrap(), "late");
}

#[tokio::test]
async fn a_letter_whose_handler_is_not_there_stays() {
    let (mended, notes) = (Arc::new(AtomicBool::new(false)), kit::Notes::default());
    let mut engine = test::Engine::new(app(&mended, &notes)).await.unwrap();
    let letter = sent(&engine, "abc", "k").await;
    engine.settle().await;
    engine.deploy(App::new()).await.unwrap();
    let refused = redrive(&engine, letter, None).await.unwrap_err();
    assert!(refused.consequence == Consequence::NotFound && refused.message.contains("stays where it is"), "{refused:?}");
    assert_eq!(kit::dead_letters(&engine).await.len(), 1);
    mended.store(true, Ordering::SeqCst);
    engine.deploy(app(&mended, &notes)).await.unwrap();
    let again = invocation(redrive(&engine, letter, None).await.unwrap());
    let result =
        engine.engine().result(permit(&engine, "ops", Action::Read, Resource::Work { tenant: "default".to_owned(), id: again.to_string() }), again, true);
    assert_eq!(result.await.unwrap().progress, Progress::Ended(Outcome::Value(Bytes::from_static(b"3"))));
}
