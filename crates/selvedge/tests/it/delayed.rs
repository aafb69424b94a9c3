//! Delayed messages: known, joined and cancelled before they are due.

use std::time::Duration;

use selvedge::{App, Ctx, Handler, Signal, Waiting, test};
use selvedge_engine::engine::Ask;
use selvedge_kernel::auth::{Action, Permit, Resource, authorize, local};
use selvedge_kernel::id::{ActorId, InvocationId};

use crate::kit;

const LATER: Handler<u64, String> = Handler::new("diary", "later");
const POKE: Signal<u64> = Signal::new("poke");
const HOUR: Duration = Duration::from_secs(3_600);

fn app() -> App {
    App::new().handler(LATER, async |ctx: Ctx, n: u64| {
        let given = ctx.signal(POKE).within(Duration::from_secs(n)).await?;
        Ok(format!("{given:?}"))
    })
}

fn permit(engine: &test::Engine, action: Action, resource: Resource) -> Permit {
    let now = engine.engine().now();
    authorize(local("default", now), action, resource, now).unwrap()
}

async fn send_later(engine: &test::Engine, key: &str, input: &str, delay: Duration) -> Result<InvocationId, String> {
    let actor = ActorId { tenant: "default".to_owned(), kind: "diary".to_owned(), key: "ada".to_owned() };
    let permit = permit(engine, Action::Invoke, Resource::Handler { actor, handler: "later".to_owned() });
    let ask = Ask { idempotency_key: Some(key.to_owned()), delay: Some(delay), ..Ask::default() };
    let answer = engine.engine().invoke(permit, input.to_owned().into(), ask).await.map_err(|error| error.to_string())?;
    Ok(answer.id.unwrap())
}

#[tokio::test]
async fn a_delayed_message_is_known_by_its_key_and_its_id_before_it_is_due() {
    let mut engine = test::Engine::new(app()).await.unwrap();
    let first = send_later(&engine, "k", "1", HOUR).await.unwrap();
    assert_eq!(send_later(&engine, "k", "1", HOUR).await.unwrap(), first);
    let refused = send_later(&engine, "k", "2", HOUR).await.unwrap_err();
    assert!(refused.contains("was used for diary/ada.later with another body"), "{refused}");
    engine.kill_and_reopen().await.unwrap();
    assert_eq!(send_later(&engine, "k", "1", HOUR).await.unwrap(), first);
    let why = engine.local().why(first).await.unwrap();
    assert!(matches!(why.waiting[..], [Waiting::Timer { .. }]), "{why:?}");
    assert!(why.sentence().contains("waits for its timer at"), "{}", why.sentence());
    let client = engine.local();
    let waits = tokio::spawn(async move { client.result::<String>(first).await });
    engine.advance(HOUR).await;
    engine.advance(Duration::from_secs(2)).await;
    assert_eq!(waits.await.unwrap().unwrap(), "None");
    // Its key leads to its result for a day after its end.
    assert_eq!(send_later(&engine, "k", "1", HOUR).await.unwrap(), first);
    kit::sound(&engine).await;
}

#[tokio::test]
async fn a_delayed_message_can_be_cancelled_before_it_is_due() {
    let engine = test::Engine::new(app()).await.unwrap();
    let id = send_later(&engine, "k", "1", HOUR).await.unwrap();
    let client = engine.local();
    let waits = tokio::spawn(async move { client.result::<String>(id).await });
    engine.settle().await;
    engine.local().cancel(id).await.unwrap();
    let said = waits.await.unwrap().unwrap_err().to_string();
    assert!(said.contains("cancelled before it was due"), "{said}");
    engine.advance(2 * HOUR).await;
    assert!(engine.local().why(id).await.is_err());
    assert_ne!(send_later(&engine, "k", "1", HOUR).await.unwrap(), id);
    kit::sound(&engine).await;
}
