//! A disk that fails under a running engine.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use selvedge_engine::ctx::untag;
use selvedge_engine::engine::{Ask, Engine, ExecSettings};
use selvedge_engine::env::{Clock, Environment};
use selvedge_engine::registry::{ActorType, Handler, Registry, RunHandler};
use selvedge_engine::wiring::Settings;
use selvedge_kernel::auth::{Action, Resource, authorize, local};
use selvedge_kernel::id::ActorId;
use selvedge_kernel::time::Millis;
use selvedge_store::{EmbeddedStore, Fault, Faults, Options};

/// A handler that counts: a step, then a write of state.
fn registry() -> Registry {
    let add: RunHandler = Arc::new(|ctx, _| {
        Box::pin(async move {
            let tagged = ctx.state_get("count").await.unwrap();
            let count: u64 = untag(&tagged).map_or(0, |count| serde_json::from_slice(&count).unwrap()) + 1;
            ctx.step("note", Box::new(|_| Box::pin(async { Ok(Bytes::from_static(b"null")) }))).await;
            let count = Bytes::from(count.to_string());
            ctx.state_set("count", count.clone()).unwrap();
            Ok(count)
        })
    });
    let handlers = std::collections::BTreeMap::from([("add".to_owned(), Handler::Exclusive(add))]);
    let mut registry = Registry::default();
    registry.actors.insert("counter".to_owned(), ActorType { handlers, ..ActorType::default() });
    registry
}

fn environment() -> Environment {
    let wall = || Millis(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64);
    Environment { clock: Clock::Wall(Arc::new(wall)), random: Arc::new(|buffer| getrandom::fill(buffer).unwrap()), observer: None }
}

async fn open(folder: &Path, faults: &Faults) -> Engine {
    let options = Options { command: "test".to_owned(), faults: faults.clone(), ..Options::default() };
    let store = Arc::new(EmbeddedStore::open(folder, options).unwrap());
    Engine::open(store, environment(), registry(), Settings::default(), ExecSettings::default()).await.unwrap()
}

async fn call(engine: &Engine, key: &str) -> Result<u64, String> {
    let actor = ActorId { tenant: "default".to_owned(), kind: "counter".to_owned(), key: key.to_owned() };
    let permit = authorize(local("default", engine.now()), Action::Invoke, Resource::Handler { actor, handler: "add".to_owned() }, engine.now()).unwrap();
    let answer = engine.invoke(permit, Bytes::from_static(b"1"), Ask { wait: true, ..Ask::default() }).await.map_err(|error| error.to_string())?;
    match answer.progress {
        selvedge_engine::Progress::Ended(selvedge_kernel::record::message::Outcome::Value(value)) => Ok(serde_json::from_slice(&value).unwrap()),
        other => Err(format!("{other:?}")),
    }
}

async fn after_the_fault_nothing_is_acknowledged_and_everything_before_is_there(fault: Fault, says: &str) {
    let folder = tempfile::tempdir().unwrap();
    let faults = Faults::none();
    let engine = open(folder.path(), &faults).await;
    let mut acknowledged = 0;
    for _ in 0..20 {
        acknowledged = call(&engine, "a").await.unwrap();
    }
    faults.set(fault);
    let mut refused = String::new();
    for n in 0..50 {
        match call(&engine, "a").await {
            Ok(count) => acknowledged = count,
            Err(error) => {
                refused = error;
                break;
            }
        }
        assert!(n < 49, "the fault was never met");
    }
    assert!(call(&engine, "b").await.is_err(), "something was acknowledged after the fault");
    let reason = engine.stopped().unwrap();
    assert!(reason.contains(says), "{reason}");
    assert!(reason.contains("start again"), "{reason}");
    assert!(refused.contains(says), "{refused}");
    assert!(engine.close().await.is_err(), "it closes, and says that it had stopped");
    drop(engine);
    faults.clear();
    let engine = open(folder.path(), &faults).await;
    let now = call(&engine, "a").await.unwrap();
    // The one that was refused may have been written: it was not acknowledged, and it is whole or not there.
    assert!(now == acknowledged + 1 || now == acknowledged + 2, "{now} after {acknowledged}");
    engine.close().await.unwrap();
}

#[tokio::test]
async fn a_failing_sync_stops_the_engine_and_loses_nothing_acknowledged() {
    after_the_fault_nothing_is_acknowledged_and_everything_before_is_there(Fault::Sync { nth: 3, os_error: 5 }, "os error 5").await;
}

#[tokio::test]
async fn a_failing_write_stops_the_engine_and_loses_nothing_acknowledged() {
    after_the_fault_nothing_is_acknowledged_and_everything_before_is_there(Fault::Write { nth: 3, os_error: 5 }, "os error 5").await;
}

#[tokio::test]
async fn a_full_disk_stops_the_engine_and_loses_nothing_acknowledged() {
    after_the_fault_nothing_is_acknowledged_and_everything_before_is_there(Fault::Write { nth: 3, os_error: 28 }, "os error 28").await;
}
