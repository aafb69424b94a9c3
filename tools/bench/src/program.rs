//! The handlers that are measured.

use selvedge::{Activity, App, Attempt, Ctx, Handler, Outcome, Signal};
use selvedge_kernel::pipeline::parse::parse_pipeline;

/// A durable call that does nothing.
pub const NOTHING: Handler<(), ()> = Handler::new("idle", "nothing");
/// Calls [`NOTHING`] of the actor with this key.
pub const RELAY: Handler<String, ()> = Handler::new("relay", "call");
/// Leaves one state entry behind.
pub const SET: Handler<u64, ()> = Handler::new("idle", "set");
/// So many steps, one after the other.
pub const STEPS: Handler<u32, u32> = Handler::new("worker", "steps");
/// So many steps, one after the other, then a wait.
pub const LONG: Handler<u32, u32> = Handler::new("long", "journal");
/// Waits.
pub const WAIT: Handler<(), u64> = Handler::new("sleeper", "wait");
/// Adds to its state, and says what it has become.
pub const ADD: Handler<u64, u64> = Handler::new("counter", "add");
/// Emits so many chunks.
pub const TELL: Handler<u32, u32> = Handler::new("teller", "tell");
/// Ends a wait.
pub const GO: Signal<u64> = Signal::new("go");

/// Gives its input back.
const SAME: Activity<u64, u64> = Activity::new("same");

/// One task for each item, and nothing else.
const SCATTER: &str = r#"
selvedge: 1
name: scatter
input:
  items: { type: array, items: { type: integer } }
stages:
  - name: all
    mode: scatter
    over: input.items
    call: same
    input: "${item}"
output: "${length(stages.all.output)}"
"#;

/// The program. An error is a pipeline that does not parse, in words.
pub fn app() -> Result<App, String> {
    let (scatter, _) = parse_pipeline("scatter", SCATTER).map_err(|wrong| format!("{wrong:?}"))?;
    let app = App::new().activity(SAME, async |_: Attempt, item: u64| Ok(item)).pipeline(scatter);
    Ok(app
        .handler(NOTHING, nothing)
        .handler(RELAY, relay)
        .handler(SET, set)
        .handler(STEPS, steps)
        .handler(LONG, long)
        .handler(WAIT, wait)
        .handler(ADD, add)
        .handler(TELL, tell))
}

async fn nothing(_: Ctx, (): ()) -> Outcome<()> {
    Ok(())
}

async fn relay(ctx: Ctx, to: String) -> Outcome<()> {
    ctx.call(NOTHING.on(to), ()).await
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

async fn add(ctx: Ctx, by: u64) -> Outcome<u64> {
    let count = ctx.state().get::<u64>("count").await?.unwrap_or(0) + by;
    ctx.state().set("count", &count)?;
    Ok(count)
}

async fn tell(ctx: Ctx, chunks: u32) -> Outcome<u32> {
    for chunk in 0..chunks {
        ctx.emit(&chunk)?;
        if chunk % 32 == 31 {
            // A transition holds no more than a few of them.
            ctx.step("on", async |_| Ok(())).await?;
        }
    }
    Ok(chunks)
}
