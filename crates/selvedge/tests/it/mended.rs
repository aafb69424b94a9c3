//! What a review found broken.

use std::time::Duration;

use selvedge::{Activity, App, Attempt, Ctx, Failure, Handler, Outcome, Settings, SharedHandler, Timeout, View, test};

const FILL: Handler<u32, ()> = Handler::new("box", "fill");
const EMPTY: Handler<(), ()> = Handler::new("box", "empty");
const COUNT: SharedHandler<(), u32> = SharedHandler::new("box", "count");

async fn fill(ctx: Ctx, n: u32) -> Outcome<()> {
    for i in 0..n {
        ctx.state().set(&format!("n{i}"), &i)?;
    }
    Ok(())
}

#[tokio::test]
async fn a_clear_just_before_the_end_of_the_handler_clears() {
    let app = App::new()
        .handler(FILL, fill)
        .handler(EMPTY, async |ctx: Ctx, ()| ctx.state().clear())
        .shared(COUNT, async |view: View, ()| Ok(view.keys("").await?.len() as u32));
    let mut engine = test::Engine::new(app).await.unwrap();
    engine.local().call(FILL.on("b"), 40).await.unwrap();
    assert_eq!(engine.local().call(COUNT.on("b"), ()).await.unwrap(), 40);
    engine.local().call(EMPTY.on("b"), ()).await.unwrap();
    assert_eq!(engine.local().call(COUNT.on("b"), ()).await.unwrap(), 0);
    engine.kill_and_reopen().await.unwrap();
    assert_eq!(engine.local().call(COUNT.on("b"), ()).await.unwrap(), 0);
}

const PEEK: Handler<(), u32> = Handler::new("peek", "go");

#[tokio::test]
async fn a_read_that_was_called_before_a_failed_attempt_keeps_its_value() {
    let tries = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let app = App::new().handler(PEEK, move |ctx: Ctx, ()| {
        let tries = tries.clone();
        async move {
            let state = ctx.state();
            if tries.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0 {
                state.set("n", &7u32)?;
                ctx.step("commit", async |_| Ok(())).await?;
                // Called, polled once beside something that is ready, and given up by the error.
                drop(state.get::<u32>("other"));
                return Err(Failure::retryable("again", "once more"));
            }
            state.set("n", &7u32)?;
            ctx.step("commit", async |_| Ok(())).await?;
            Ok(state.get::<u32>("n").await?.unwrap_or(0))
        }
    });
    let engine = test::Engine::new(app).await.unwrap();
    let id = engine.local().send(PEEK.on("p"), ()).await.unwrap();
    for _ in 0..5 {
        engine.advance(Duration::from_secs(60)).await;
    }
    assert_eq!(engine.local().result::<u32>(id).await.unwrap(), 7);
}

const HANG: Activity<(), u32> = Activity::new("hang");
const ASK: Handler<(), u32> = Handler::new("asker", "ask");

#[tokio::test]
async fn an_activity_that_hangs_times_out_although_its_handler_has_left_memory() {
    let app = App::new()
        .activity(HANG, async |attempt: Attempt, ()| {
            if attempt.number() == 1 {
                std::future::pending::<()>().await;
            }
            Ok(attempt.number())
        })
        .handler(ASK, async |ctx: Ctx, ()| ctx.activity(HANG, ()).await);
    let settings = Settings { replay_always: false, suspend_after: Some(Duration::from_secs(1)), ..Settings::default() };
    let engine = test::Engine::with(app, settings).await.unwrap();
    let id = engine.local().send(ASK.on("a"), ()).await.unwrap();
    engine.advance(Duration::from_secs(2)).await;
    assert_eq!(engine.census().await.active, 0, "it waits elsewhere and has left memory");
    for _ in 0..8 {
        engine.advance(Timeout::default().attempt.unwrap().0 / 4).await;
    }
    assert_eq!(engine.local().result::<u32>(id).await.unwrap(), 2);
}

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("dropped");
        }
    }
}

#[tokio::test]
async fn a_value_that_panics_when_it_is_dropped_stops_nobody() {
    const BOMB: Handler<(), ()> = Handler::new("bomb", "hold");
    let app = App::new().handler(FILL, fill).handler(BOMB, async |ctx: Ctx, ()| {
        let _bomb = Bomb;
        ctx.sleep(Duration::from_secs(60)).await
    });
    let settings = Settings { replay_always: false, suspend_after: Some(Duration::from_secs(1)), ..Settings::default() };
    let engine = test::Engine::with(app, settings).await.unwrap();
    engine.local().send(BOMB.on("b"), ()).await.unwrap();
    engine.advance(Duration::from_secs(5)).await;
    for n in 0..64 {
        engine.local().call(FILL.on(format!("b{n}")), 1).await.unwrap();
    }
    assert!(engine.engine().stopped().is_none());
}

#[tokio::test]
async fn a_permit_is_for_one_thing_of_one_tenant_and_for_nothing_else() {
    use selvedge_engine::SignalTarget;
    use selvedge_kernel::auth::{Action, Permit, Resource, authorize, local};
    let engine = test::Engine::new(App::new().handler(FILL, fill)).await.unwrap();
    let id = engine.local().send(FILL.on("a"), 1).await.unwrap();
    let other = engine.local().send(FILL.on("b"), 1).await.unwrap();
    engine.settle().await;
    let inner = engine.engine();
    let permit = |tenant: &str, action: Action, of: &str| -> Permit {
        let resource = Resource::Work { tenant: tenant.to_owned(), id: of.to_owned() };
        authorize(local(tenant, inner.now()), action, resource, inner.now()).unwrap()
    };
    // Another tenant's client names the id as its own: it does not exist for it, and nothing happens.
    let stranger = |action| permit("strangers", action, &id.to_string());
    assert_eq!(inner.why(stranger(Action::Read), id).await.unwrap_err().code, "unknown_invocation");
    assert_eq!(inner.result(stranger(Action::Read), id, false).await.unwrap_err().code, "unknown_invocation");
    assert_eq!(inner.output(stranger(Action::Read), id, 0).await.unwrap_err().code, "unknown_invocation");
    assert_eq!(inner.cancel(stranger(Action::Control), id, "x").await.unwrap_err().code, "unknown_invocation");
    assert_eq!(inner.kill(stranger(Action::Rewrite), id, "x").await.unwrap_err().code, "unknown_invocation");
    assert_eq!(inner.erase(stranger(Action::Rewrite), id).await.unwrap_err().code, "unknown_invocation");
    // A permit for one invocation is none for another, and one for an action is none for another.
    assert_eq!(inner.why(permit("default", Action::Read, &other.to_string()), id).await.unwrap_err().code, "wrong_permit");
    assert_eq!(inner.kill(permit("default", Action::Read, &id.to_string()), id, "x").await.unwrap_err().code, "wrong_permit");
    let target = SignalTarget::Invocation(id);
    assert_eq!(inner.signal(permit("default", Action::Signal, &other.to_string()), target, "s", "1".into(), None).await.unwrap_err().code, "wrong_permit");
    assert_eq!(inner.why(permit("default", Action::Read, &id.to_string()), id).await.unwrap().status, selvedge_kernel::record::invocation::Status::Completed);
}
