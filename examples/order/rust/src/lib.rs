//! Charge, reserve, ask above 500 EUR, ship; undo in reverse on failure: the pipeline of this folder as handlers.
//!
//! Three kinds of actors: `customer` lets one order of a customer through at a time, `order` does the work, `stock` is an
//! article. Kill it anywhere: what was done stays done, and what is not needed any more is undone once.

mod order;
mod outside;
mod stock;

use selvedge::{Activity, App, Attempt, Ctx, Handler, Outcome, Signal};
use serde::{Deserialize, Serialize};

pub use order::{Decision, Order, Tracking};
pub use outside::{Charge, Outside, Parcel};
pub use stock::{Item, Reservation};

/// Takes an order of a customer, one at a time: the others wait, in the order in which they came.
pub const CHECKOUT: Handler<Order, Tracking> = Handler::new("customer", "checkout");
/// Does the work of an order.
pub const PLACE: Handler<Order, Tracking> = Handler::new("order", "place");
/// Puts so many of an article on the shelf; gives how many are there.
pub const RECEIVE: Handler<u64, u64> = Handler::new("stock", "receive");
/// Keeps some of an article for an order; asked twice, the second time changes nothing.
pub const RESERVE: Handler<Reservation, Item> = Handler::new("stock", "reserve");
/// Gives back what an order has of an article, if it has anything.
pub const RELEASE: Handler<String, u64> = Handler::new("stock", "release");
/// Charges a card; gives the charge.
pub const CHARGE_CARD: Activity<Charge, String> = Activity::new("charge_card");
/// Gives the money of a charge back.
pub const REFUND: Activity<String, ()> = Activity::new("refund");
/// Hands a parcel to a carrier; gives the tracking number.
pub const SHIP: Activity<Parcel, String> = Activity::new("ship");
/// Somebody decides on an order above 500 EUR.
pub const DECIDED: Signal<Decision> = Signal::new("decided");
/// The money has arrived.
pub const SETTLED: Signal<()> = Signal::new("settled");

async fn checkout(ctx: Ctx, order: Order) -> Outcome<Tracking> {
    let id = order.id.clone();
    ctx.call(PLACE.on(&id), order).idempotency_key(&id).await
}

/// Everything that this program can run, with the bank and the carrier that it works with.
#[must_use]
pub fn app(outside: Outside) -> App {
    let (bank, carrier) = (outside.clone(), outside.clone());
    App::new()
        .handler(CHECKOUT, checkout)
        .handler(PLACE, order::place)
        .handler(RECEIVE, stock::receive)
        .handler(RESERVE, stock::reserve)
        .handler(RELEASE, stock::release)
        .activity(CHARGE_CARD, async move |attempt: Attempt, charge: Charge| bank.charge(attempt.key(), &charge))
        .activity(REFUND, async move |attempt: Attempt, charge: String| outside.refund(attempt.key(), &charge))
        .activity(SHIP, async move |attempt: Attempt, parcel: Parcel| carrier.ship(attempt.key(), &parcel))
}

/// A line of what the outside did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The idempotency key under which it was asked.
    pub key: String,
    /// What was done.
    pub what: String,
    /// What it led to.
    pub id: String,
}
