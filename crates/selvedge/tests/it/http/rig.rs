//! A server on an engine of the reference model, with actors and pipelines to ask.

use std::sync::Arc;

use selvedge::serve::Server;
use selvedge::{App, Ctx, Handler, Outcome, SharedHandler, Signal, test};
use selvedge_http::{Authenticate, Patience};
use selvedge_kernel::auth::{AuthorizationContext, Principal, PrincipalKind, RequestFacts, local};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::client::Ask;

/// May do everything in the tenant `default`.
pub const OWNER: &str = "owner-key";
/// May do everything in another tenant.
pub const OTHER: &str = "other-key";
/// Is known, and no policy allows it anything.
pub const NOBODY: &str = "nobody-key";

const ADD: Handler<u64, u64> = Handler::new("counter", "add");
const GREET: Handler<String, String> = Handler::new("counter", "greet");
const WAIT: Handler<Value, Value> = Handler::new("counter", "wait");
const TELL: Handler<u64, u64> = Handler::new("counter", "tell");
const FAIL: Handler<Value, Value> = Handler::new("counter", "fail");
const COUNT: SharedHandler<Value, u64> = SharedHandler::new("counter", "count");
const GO: Signal<Value> = Signal::new("go");

pub const PIPELINE: &str = "selvedge: 1\nname: asked\ninput:\n  n: { type: integer, default: 1 }\nstages:\n  - name: ask\n    approve: { assignees: [somebody], expires: 1d, on_expiry: reject }\noutput: ${input.n}\n";

fn app() -> App {
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
        .handler(FAIL, async |_: Ctx, _: Value| -> Outcome<Value> { Err(selvedge::Failure::terminal("card_declined", "the card was declined")) })
        .shared(COUNT, async |view: selvedge::View, _: Value| Ok(view.get::<u64>("count").await?.unwrap_or(0)))
}

pub struct Rig {
    pub engine: test::Engine,
    pub server: Server,
    /// Credentials that are revoked.
    pub revoked: Arc<std::sync::Mutex<Vec<String>>>,
}

fn nobody(at: RequestFacts) -> AuthorizationContext {
    let who = local("default", at.at);
    AuthorizationContext { principal: Principal { id: "nobody".to_owned(), kind: PrincipalKind::Actor, ..who.principal.clone() }, request: at, ..who }
}

impl Rig {
    pub async fn new() -> Rig {
        Rig::with(Patience::default()).await
    }

    pub async fn with(patience: Patience) -> Rig {
        let engine = test::Engine::new(app()).await.unwrap();
        let revoked = Arc::new(std::sync::Mutex::new(Vec::<String>::new()));
        let gone = revoked.clone();
        let authenticate: Authenticate = Arc::new(move |key, facts| {
            if gone.lock().unwrap().iter().any(|one| one == key) {
                return None;
            }
            match key {
                OWNER => Some(AuthorizationContext { request: facts.clone(), ..local("default", facts.at) }),
                OTHER => Some(AuthorizationContext { request: facts.clone(), ..local("other", facts.at) }),
                NOBODY => Some(nobody(facts)),
                _ => None,
            }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Server::start(engine.engine().clone(), listener, authenticate, patience).unwrap();
        Rig { engine, server, revoked }
    }

    pub fn ask(&self, key: &str) -> Ask {
        Ask::of(self.server.address(), key)
    }

    pub fn owner(&self) -> Ask {
        self.ask(OWNER)
    }

    /// Delivers the signal that handlers wait for.
    pub async fn go(&self, key: &str) {
        self.engine.local().send_signal(WAIT.on(key), GO, json!("on")).await.unwrap();
    }

    /// Revokes a credential.
    pub fn revoke(&self, key: &str) {
        self.revoked.lock().unwrap().push(key.to_owned());
    }
}
