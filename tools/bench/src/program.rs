//! The handlers that are measured.

use selvedge::{App, Ctx, Handler, Outcome, Signal};

/// A durable call that does nothing.
pub const NOTHING: Handler<(), ()> = Handler::new("idle", "nothing");
/// Leaves one state entry behind.
pub const SET: Handler<u64, ()> = Handler::new("idle", "set");
/// So many steps, one after the other.
pub const STEPS: Handler<u32, u32> = Handler::new("worker", "steps");
/// So many steps, one after the other, then a wait.
pub const LONG: Handler<u32, u32> = Handler::new("long", "journal");
/// Waits.
pub const WAIT: Handler<(), u64> = Handler::new("sleeper", "wait");
/// Ends a wait.
pub const GO: Signal<u64> = Signal::new("go");

/// The program.
pub fn app() -> App {
    App::new().handler(NOTHING, nothing).handler(SET, set).handler(STEPS, steps).handler(LONG, long).handler(WAIT, wait)
}

async fn nothing(_: Ctx, (): ()) -> Outcome<()> {
    Ok(())
}

async fn set(ctx: Ctx, value: u64) -> Outcome<()> {
    ctx.state().set("value", &value)
}

async fn steps(ctx: Ctx, count: u32) -> Outcome<u32> {
    for _ in 0..count {
        ctx.step("one", async |_| Ok(())).await?;
    }
    Ok(count)
}

async fn long(ctx: Ctx, count: u32) -> Outcome<u32> {
    for _ in 0..count {
        ctx.step("one", async |_| Ok(())).await?;
    }
    ctx.signal(GO).await?;
    Ok(count)
}

async fn wait(ctx: Ctx, (): ()) -> Outcome<u64> {
    ctx.signal(GO).await
}
