//! The work of an order.

use std::time::Duration;

use selvedge::{Ctx, Failure, Outcome, Retry};
use serde::{Deserialize, Serialize};

use crate::{CHARGE_CARD, Charge, DECIDED, Item, Parcel, REFUND, RELEASE, RESERVE, Reservation, SETTLED, SHIP};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Above this somebody is asked.
const REVIEW_ABOVE_CENTS: u64 = 50_000;

/// What somebody wants.
#[derive(Clone, Serialize, Deserialize)]
pub struct Order {
    /// The shop's number for it.
    pub id: String,
    /// Who.
    pub customer: String,
    /// For how much.
    pub cents: u64,
    /// What.
    pub items: Vec<Item>,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tracking {
    /// The carrier's number.
    pub tracking: String,
}

/// What somebody of the finance department says.
#[derive(Clone, Serialize, Deserialize)]
pub struct Decision {
    /// Yes or no.
    pub approve: bool,
    /// Who says so.
    pub by: String,
}

/// What was done and may have to be undone.
enum Done {
    Charged(String),
    Reserved(String),
}

/// The handler of `order.place`.
pub async fn place(ctx: Ctx, order: Order) -> Outcome<Tracking> {
    let mut done = Vec::new();
    let ended = fulfil(&ctx, &order, &mut done).await;
    if ended.is_err() {
        for what in done.into_iter().rev() {
            match what {
                Done::Reserved(sku) => drop(ctx.call(RELEASE.on(sku), order.id.clone()).await?),
                Done::Charged(charge) => ctx.activity(REFUND, charge).await?,
            }
        }
    }
    ended
}

/// Does what has to be done, and notes what would have to be undone.
async fn fulfil(ctx: &Ctx, order: &Order, done: &mut Vec<Done>) -> Outcome<Tracking> {
    let retry = Retry { max_attempts: 8, give_up_on: vec!["card_declined".to_owned()], ..Retry::default() };
    let charge = Charge { customer: order.customer.clone(), cents: order.cents };
    done.push(Done::Charged(ctx.activity(CHARGE_CARD, charge).retry(retry).await?));
    // Noted before it is asked: to release what was never reserved changes nothing.
    done.extend(order.items.iter().map(|item| Done::Reserved(item.sku.clone())));
    let reserve = |item: &Item| ctx.call(RESERVE.on(&item.sku), Reservation { order: order.id.clone(), count: item.count });
    let reservations = ctx.join_all(order.items.iter().map(reserve)).await?;
    if order.cents > REVIEW_ABOVE_CENTS {
        match ctx.signal(DECIDED).within(DAY).await? {
            Some(decision) if decision.approve => {}
            Some(decision) => return Err(Failure::terminal("rejected", format!("{} says no", decision.by))),
            None => return Err(Failure::terminal("rejected", "nobody decided within a day")),
        }
    }
    if ctx.signal(SETTLED).within(3 * DAY).await?.is_none() {
        return Err(Failure::terminal("unsettled", "the money did not come within three days"));
    }
    let tracking = ctx.activity(SHIP, Parcel { order: order.id.clone(), reservations }).await?;
    Ok(Tracking { tracking })
}
