//! The bank: accounts and transfers as actors, each transfer with three steps that leave a trace outside.

use std::path::Path;
use std::time::Duration;

use selvedge::{App, Attempt, Ctx, Failure, Handler, Outcome, SharedHandler, View};
use serde::{Deserialize, Serialize};

use crate::record::{Effect, Record};
use crate::transfer::{OPENING_CENTS, Transfer};

/// Moves money between two accounts.
pub const TRANSFER: Handler<Transfer, Receipt> = Handler::new("transfer", "move");
/// Takes money from an account, if it has that much: says whether.
pub const WITHDRAW: Handler<i64, bool> = Handler::new("account", "withdraw");
/// Gives money to an account; the new balance.
pub const DEPOSIT: Handler<i64, i64> = Handler::new("account", "deposit");
/// What an account holds.
pub const BALANCE: SharedHandler<(), i64> = SharedHandler::new("account", "balance");
/// Counts one transfer that moved money.
pub const COUNT: Handler<u64, u64> = Handler::new("tally", "count");
/// How many were counted.
pub const COUNTED: SharedHandler<(), u64> = SharedHandler::new("tally", "counted");
/// The one tally there is.
pub const TALLY: &str = "all";

/// What a transfer gives.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Receipt {
    /// Whether the giving account had enough.
    pub moved: bool,
    /// For each step that ran: its key and the attempt that counts.
    pub marks: Vec<Mark>,
}

/// What a step gives: under which key and in which attempt it ran.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Mark {
    /// The idempotency key.
    pub key: String,
    /// The attempt, from 1.
    pub attempt: u32,
}

/// The bank's handlers; what happens outside goes to the ledger at `path`.
pub fn app(path: &Path) -> std::io::Result<App> {
    let ledger = Record::open(path)?;
    Ok(App::new()
        .handler(TRANSFER, async move |ctx: Ctx, order: Transfer| transfer(&ledger, &ctx, &order).await)
        .handler(WITHDRAW, withdraw)
        .handler(DEPOSIT, deposit)
        .shared(BALANCE, async |view: View, ()| Ok(view.get("cents").await?.unwrap_or(OPENING_CENTS)))
        .handler(COUNT, count)
        .shared(COUNTED, async |view: View, ()| Ok(view.get("transfers").await?.unwrap_or(0))))
}

async fn transfer(ledger: &Record, ctx: &Ctx, order: &Transfer) -> Outcome<Receipt> {
    let mut marks = vec![effect(ledger, ctx, order.number, "debit").await?];
    let moved = ctx.call(WITHDRAW.on(&order.from), order.cents).await?;
    if moved {
        if order.rest_ms > 0 {
            ctx.sleep(Duration::from_millis(order.rest_ms)).await?;
        }
        marks.push(effect(ledger, ctx, order.number, "credit").await?);
        ctx.call(DEPOSIT.on(&order.to), order.cents).await?;
        ctx.send(COUNT.on(TALLY), order.number);
    }
    marks.push(effect(ledger, ctx, order.number, "receipt").await?);
    Ok(Receipt { moved, marks })
}

/// One step: its effect is a line in the ledger. The second line is written when its result is in hand, by the handler itself
/// and hence again on each replay: it marks the moment from which the first must not be written any more.
async fn effect(ledger: &Record, ctx: &Ctx, transfer: u64, step: &'static str) -> Outcome<Mark> {
    let mark = ctx
        .step(step, async |attempt: Attempt| {
            let (key, number) = (attempt.key().to_owned(), attempt.number());
            ledger.write(&Effect::Attempt { key: key.clone(), attempt: number, step: step.to_owned(), transfer })?;
            Ok(Mark { key, attempt: number })
        })
        .await?;
    ledger.write(&Effect::Finished { key: mark.key.clone() })?;
    Ok(mark)
}

async fn withdraw(ctx: Ctx, cents: i64) -> Outcome<bool> {
    if cents <= 0 {
        return Err(Failure::terminal("not_positive", format!("{cents} cents cannot be withdrawn")));
    }
    let balance = ctx.state().get::<i64>("cents").await?.unwrap_or(OPENING_CENTS);
    if balance < cents {
        return Ok(false);
    }
    ctx.state().set("cents", &(balance - cents))?;
    Ok(true)
}

async fn deposit(ctx: Ctx, cents: i64) -> Outcome<i64> {
    let balance = ctx.state().get::<i64>("cents").await?.unwrap_or(OPENING_CENTS) + cents;
    ctx.state().set("cents", &balance)?;
    Ok(balance)
}

async fn count(ctx: Ctx, _transfer: u64) -> Outcome<u64> {
    let transfers = ctx.state().get::<u64>("transfers").await?.unwrap_or(0) + 1;
    ctx.state().set("transfers", &transfers)?;
    Ok(transfers)
}
