//! Actors of a small shop: an order reserves, waits for its payment, counts it on its customer, sleeps, and writes a mail.
//!
//! Kill it anywhere: what was reserved stays reserved under the same key, and nobody gets two mails for one finished step.

use std::time::Duration;

use selvedge::{Activity, App, Attempt, Ctx, Failure, Handler, Outcome, Retry, SharedHandler, Signal, View};
use serde::{Deserialize, Serialize};

/// What somebody wants.
#[derive(Clone, Serialize, Deserialize)]
pub struct Order {
    /// What.
    pub item: String,
    /// For how much.
    pub cents: u64,
}

/// Places an order; gives the slot of the shelf that it has.
pub const PLACE: Handler<Order, String> = Handler::new("order", "place");
/// What a customer has spent.
pub const TOTAL: SharedHandler<(), u64> = SharedHandler::new("customer", "total");
/// Counts what a customer spends; gives the sum.
pub const SPEND: Handler<u64, u64> = Handler::new("customer", "spend");
/// Writes to the customer.
pub const MAIL: Activity<String, ()> = Activity::new("mail");
/// Says that somebody paid so many cents.
pub const PAID: Signal<u64> = Signal::new("paid");

async fn place(ctx: Ctx, order: Order) -> Outcome<String> {
    let slot: String = ctx.step("reserve", async |attempt| reserve(&order.item, attempt.key()).await).retry(Retry::exponential(5)).await?;
    let Some(cents) = ctx.signal(PAID).within(Duration::from_secs(3600)).await? else {
        ctx.step("release", async |_| release(&slot).await).await?;
        return Err(Failure::terminal("unpaid", "no payment within an hour"));
    };
    let total = ctx.call(SPEND.on("ada"), cents).await?;
    ctx.sleep(Duration::from_secs(2)).await?;
    ctx.activity(MAIL, format!("{} is yours, {total} cents so far", order.item)).await?;
    Ok(slot)
}

async fn spend(ctx: Ctx, cents: u64) -> Outcome<u64> {
    let total = ctx.state().get::<u64>("total").await?.unwrap_or(0) + cents;
    ctx.state().set("total", &total)?;
    Ok(total)
}

/// The warehouse, which is somebody else's system: the same key, the same slot.
async fn reserve(item: &str, key: &str) -> Outcome<String> {
    let number = key.bytes().fold(0u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte))) % 100;
    Ok(format!("{item} in slot {number}"))
}

async fn release(slot: &str) -> Outcome<()> {
    println!("released: {slot}");
    Ok(())
}

/// Everything that this program can run.
#[must_use]
pub fn app() -> App {
    App::new().handler(PLACE, place).handler(SPEND, spend).shared(TOTAL, async |view: View, ()| Ok(view.get("total").await?.unwrap_or(0))).activity(
        MAIL,
        async |_: Attempt, text: String| {
            println!("mail: {text}");
            Ok(())
        },
    )
}
