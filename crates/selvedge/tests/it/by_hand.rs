//! What the tests of verbs by hand share: the verbs with their permits, and kills in the middle of them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use selvedge::{InvocationId, test};
use selvedge_engine::engine::Engine;
use selvedge_engine::hand::{Fork, Forked, JournalLine, JournalPage, Resolve, Resolved, StateEdit};
use selvedge_engine::{Answer, VerbError};
use selvedge_kernel::auth::{Action, Permit, Resource, authorize, local};
use selvedge_kernel::error::WorkError;

use crate::kit;

pub fn permit(engine: &Engine, action: Action, id: InvocationId) -> Permit {
    let resource = Resource::Work { tenant: "default".to_owned(), id: id.to_string() };
    authorize(local("default", engine.now()), action, resource, engine.now()).unwrap()
}

pub fn on_actor(engine: &Engine, action: Action, kind: &str, key: &str) -> Permit {
    let resource = Resource::Handler { actor: kit::actor(kind, key), handler: String::new() };
    authorize(local("default", engine.now()), action, resource, engine.now()).unwrap()
}

pub async fn page(engine: &Engine, id: InvocationId, from: u32) -> JournalPage {
    engine.journal(permit(engine, Action::Read, id), id, from).await.unwrap()
}

/// The journal as short lines: the operation, what it is, what came of it.
pub async fn lines(engine: &Engine, id: InvocationId) -> Vec<String> {
    let short = |line: &JournalLine| {
        let number = line.operation.map_or("-".to_owned(), |number| format!("#{number}"));
        let name = if line.name.is_empty() { String::new() } else { format!(" {}", line.name) };
        format!("{number} {}{name}: {}", line.kind, line.outcome)
    };
    page(engine, id, 0).await.entries.iter().map(short).collect()
}

pub fn gives(value: &str) -> Result<Bytes, WorkError> {
    Ok(Bytes::from(value.to_owned()))
}

pub async fn resolve(engine: Arc<Engine>, id: InvocationId, operation: u32, gives: Result<Bytes, WorkError>) -> Result<Resolved, VerbError> {
    let resolve = Resolve { id, operation, gives, reason: "the bank says so".to_owned() };
    engine.resolve(permit(&engine, Action::Rewrite, id), resolve).await
}

pub fn fork(id: InvocationId) -> Fork {
    Fork { id, from: None, kill_original: false, reason: "to go on".to_owned(), key: "k".to_owned() }
}

pub async fn forked(engine: Arc<Engine>, fork: Fork) -> Result<Forked, VerbError> {
    engine.fork(permit(&engine, Action::Rewrite, fork.id), fork).await
}

pub fn set(name: &str, value: &str) -> StateEdit {
    StateEdit {
        name: name.to_owned(),
        set: Some(Bytes::from(value.to_owned())),
        reason: "a typo".to_owned(),
        idempotency_key: Some(format!("{name}={value}")),
        ..StateEdit::default()
    }
}

pub async fn edit(engine: Arc<Engine>, kind: &'static str, key: &'static str, edit: StateEdit) -> Result<Answer, VerbError> {
    engine.edit_state(on_actor(&engine, Action::Rewrite, kind, key), edit).await
}

/// Does something, and ends the engine as a kill does when so many batches of commits were applied since.
pub async fn killed_after<T: Send + 'static>(engine: &mut test::Engine, batches: usize, verb: impl Future<Output = T> + Send + 'static) {
    engine.model().hold();
    let doing = tokio::spawn(verb);
    for _ in 0..batches {
        until_held(engine).await;
        engine.model().release_one();
    }
    until_held(engine).await;
    engine.model().drop_held();
    engine.kill_and_reopen().await.unwrap();
    doing.abort();
    engine.settle().await;
}

async fn until_held(engine: &test::Engine) {
    for _ in 0..20 {
        if engine.model().held() > 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
