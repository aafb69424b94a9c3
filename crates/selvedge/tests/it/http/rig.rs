//! A server on an engine of the reference model, with actors and pipelines to ask.

use std::sync::Arc;

use selvedge::serve::{Offer, Server};
use selvedge::{App, Ctx, Handler, Outcome, Settings, SharedHandler, Signal, test};
use selvedge_engine::keys::{MadeKey, NewKey};
use selvedge_http::{Patience, Tokens};
use selvedge_kernel::auth::{Action, OWNER, Resource, authorize, local};
use selvedge_kernel::limit::Limits;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::client::Ask;
use super::shapes::Document;

const ADD: Handler<u64, u64> = Handler::new("counter", "add");
const GREET: Handler<String, String> = Handler::new("counter", "greet");
const WAIT: Handler<Value, Value> = Handler::new("counter", "wait");
const TELL: Handler<u64, u64> = Handler::new("counter", "tell");
const TELL_MUCH: Handler<u64, u64> = Handler::new("counter", "tell_much");
const RELAY: Handler<String, Value> = Handler::new("counter", "relay");
const FAIL: Handler<Value, Value> = Handler::new("counter", "fail");
const COUNT: SharedHandler<Value, u64> = SharedHandler::new("counter", "count");
const GO: Signal<Value> = Signal::new("go");

/// A pipeline that asks somebody.
pub const PIPELINE: &str = "selvedge: 1
name: asked
input:
  n: { type: integer, default: 1 }
stages:
  - name: ask
    mode: approval
    assignees: [role:somebody]
    expires: 1d
    fallback: reject
output: ${input.n}
";

pub fn app() -> App {
    App::new()
        .handler(ADD, async |ctx: Ctx, by: u64| {
            let count = ctx.state().get::<u64>("count").await?.unwrap_or(0) + by;
            ctx.state().set("count", &count)?;
            Ok(count)
        })
        .handler(GREET, async |_: Ctx, name: String| Ok(format!("hello {name}")))
        .handler(WAIT, async |ctx: Ctx, _: Value| {
            let given = ctx.signal(GO).await?;
            Ok(json!({ "given": given }))
        })
        .handler(TELL, async |ctx: Ctx, chunks: u64| {
            for chunk in 0..chunks {
                ctx.emit(&json!({ "chunk": chunk }))?;
            }
            ctx.signal(GO).await?;
            ctx.emit(&"last")?;
            Ok(chunks)
        })
        .handler(TELL_MUCH, async |ctx: Ctx, chunks: u64| {
            for chunk in 0..chunks {
                ctx.emit(&json!({ "chunk": chunk, "much": "x".repeat(60_000) }))?;
                // A transition holds no more than a few of them.
                ctx.step("on", async |_| Ok(())).await?;
            }
            Ok(chunks)
        })
        .handler(RELAY, async |ctx: Ctx, to: String| ctx.call(WAIT.on(to), json!(null)).await)
        .handler(FAIL, async |_: Ctx, _: Value| -> Outcome<Value> { Err(selvedge::Failure::terminal("card_declined", "the card was declined")) })
        .shared(COUNT, async |view: selvedge::View, _: Value| Ok(view.get::<u64>("count").await?.unwrap_or(0)))
}

pub struct Rig {
    pub engine: test::Engine,
    pub server: Server,
    owner: MadeKey,
    other: MadeKey,
    nobody: MadeKey,
    document: Arc<Document>,
}

async fn key(engine: &test::Engine, tenant: &str, roles: &[&str]) -> MadeKey {
    let now = engine.engine().now();
    let permit = authorize(local(tenant, now), Action::Administer, Resource::Tenant { tenant: tenant.to_owned() }, now).unwrap();
    let new = NewKey { name: "test".to_owned(), roles: roles.iter().map(|role| (*role).to_owned()).collect(), lasts: None };
    engine.engine().create_key(permit, new).await.unwrap()
}

async fn serve(engine: &test::Engine, offer: Offer) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    Server::with(engine.engine().clone(), listener, offer).unwrap()
}

impl Rig {
    pub async fn new() -> Rig {
        Rig::with(Patience::default()).await
    }

    pub async fn with(patience: Patience) -> Rig {
        Rig::within(patience, Limits::default()).await
    }

    pub async fn within(patience: Patience, limits: Limits) -> Rig {
        Rig::of(app(), patience, limits).await
    }

    pub async fn of(app: App, patience: Patience, limits: Limits) -> Rig {
        Rig::made(app, Settings { limits, ..Settings::default() }, Offer { patience, ..Offer::default() }).await
    }

    pub async fn set(patience: Patience, settings: Settings) -> Rig {
        Rig::made(app(), settings, Offer { patience, ..Offer::default() }).await
    }

    /// One that believes tokens.
    pub async fn believing(tokens: Tokens) -> Rig {
        Rig::made(app(), Settings::default(), Offer { tokens: Some(tokens), ..Offer::default() }).await
    }

    async fn made(app: App, settings: Settings, offer: Offer) -> Rig {
        let engine = test::Engine::with(app, settings).await.unwrap();
        let (owner, other, nobody) =
            (key(&engine, "default", &[OWNER]).await, key(&engine, "other", &[OWNER]).await, key(&engine, "default", &["reader"]).await);
        let server = serve(&engine, offer).await;
        Rig { engine, server, owner, other, nobody, document: Arc::new(Document::new()) }
    }

    /// Ends the engine as a kill would, and opens it and a server again.
    pub async fn reopen(&mut self) {
        self.engine.kill_and_reopen().await.unwrap();
        self.server = serve(&self.engine, Offer::default()).await;
    }

    /// Asks with some words as the credential; none: with no credential.
    pub fn ask(&self, key: &str) -> Ask {
        Ask::of(self.server.address(), key).holding(self.document.clone())
    }

    /// May do everything in the tenant `default`.
    pub fn owner(&self) -> Ask {
        self.ask(&self.owner.presented.text())
    }

    /// As policies know the owner.
    pub fn owner_id(&self) -> String {
        self.owner.key.id.clone()
    }

    /// What the owner presents.
    pub fn owner_key(&self) -> String {
        self.owner.presented.text()
    }

    /// The header with the owner's credential.
    pub fn authorization(&self) -> String {
        format!("Authorization: Bearer {}\r\n", self.owner.presented.text())
    }

    /// May do everything in another tenant.
    pub fn other(&self) -> Ask {
        self.ask(&self.other.presented.text())
    }

    /// Is known in the tenant `default`, and no policy allows it anything.
    pub fn nobody(&self) -> Ask {
        self.ask(&self.nobody.presented.text())
    }

    /// Delivers the signal that handlers wait for.
    pub async fn go(&self, key: &str) {
        self.engine.local().send_signal(WAIT.on(key), GO, json!("on")).await.unwrap();
    }

    /// How many tasks wait for a worker.
    pub fn offered(&self) -> usize {
        let now = self.engine.engine().now();
        let permit = authorize(local("default", now), Action::Operate, Resource::Store, now).unwrap();
        self.engine.engine().load(&permit).unwrap().offered
    }

    /// Revokes the key of the owner.
    pub async fn revoke(&self) {
        let now = self.engine.engine().now();
        let permit = authorize(local("default", now), Action::Administer, Resource::Tenant { tenant: "default".to_owned() }, now).unwrap();
        self.engine.engine().revoke_key(permit, &self.owner.key.id, "lost").await.unwrap();
    }
}
