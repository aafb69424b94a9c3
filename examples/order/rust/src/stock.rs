//! The actor `stock`: one article each. Its state is how many are there, and which order has how many.

use selvedge::{Ctx, Failure, Outcome};
use serde::{Deserialize, Serialize};

const ON_HAND: &str = "on_hand";

/// So many of an article.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Which.
    pub sku: String,
    /// How many.
    pub count: u64,
}

/// What an order wants of an article.
#[derive(Clone, Serialize, Deserialize)]
pub struct Reservation {
    /// Which order.
    pub order: String,
    /// How many.
    pub count: u64,
}

fn place(order: &str) -> String {
    format!("order:{order}")
}

/// The handler of `stock.receive`.
pub async fn receive(ctx: Ctx, count: u64) -> Outcome<u64> {
    let on_hand = ctx.state().get::<u64>(ON_HAND).await?.unwrap_or(0) + count;
    ctx.state().set(ON_HAND, &on_hand)?;
    Ok(on_hand)
}

/// The handler of `stock.reserve`.
pub async fn reserve(ctx: Ctx, wanted: Reservation) -> Outcome<Item> {
    let state = ctx.state();
    let place = place(&wanted.order);
    let count = match state.get::<u64>(&place).await? {
        Some(count) => count,
        None => {
            let on_hand = state.get::<u64>(ON_HAND).await?.unwrap_or(0);
            let left = on_hand.checked_sub(wanted.count).ok_or_else(|| {
                let text = format!("{} of {} were ordered, {on_hand} are there", wanted.count, ctx.key());
                Failure::terminal("out_of_stock", text)
            })?;
            state.set(ON_HAND, &left)?;
            state.set(&place, &wanted.count)?;
            wanted.count
        }
    };
    Ok(Item { sku: ctx.key().to_owned(), count })
}

/// The handler of `stock.release`.
pub async fn release(ctx: Ctx, order: String) -> Outcome<u64> {
    let state = ctx.state();
    let Some(count) = state.get::<u64>(&place(&order)).await? else { return Ok(0) };
    let on_hand = state.get::<u64>(ON_HAND).await?.unwrap_or(0);
    state.delete(&place(&order))?;
    state.set(ON_HAND, &(on_hand + count))?;
    Ok(count)
}
