//! The bank: accounts and transfers as actors, each transfer with three steps that leave a trace outside. Accounts keep what
//! each transfer did to them, tallies count transfers by messages, notaries are scripts.

use std::collections::BTreeMap;
use std::time::Duration;

use selvedge::{App, Attempt, Ctx, Failure, Handler, Outcome, Sent, SharedHandler, View};
use serde::{Deserialize, Serialize};

use crate::life::{Failed, Place};
use crate::record::{Effect, Record};
use crate::transfer::{self, OPENING_CENTS, Transfer, Way, Witness};

/// Moves money between two accounts.
pub const TRANSFER: Handler<Transfer, Receipt> = Handler::new("transfer", "move");
/// Takes money from an account, if it has that much: says whether.
pub const WITHDRAW: Handler<Entry, bool> = Handler::new("account", "withdraw");
/// The same, and gives it to another account.
pub const PAY: Handler<Payment, bool> = Handler::new("account", "pay");
/// Gives money to an account; the new balance.
pub const DEPOSIT: Handler<Entry, i64> = Handler::new("account", "deposit");
/// What an account holds, and what each transfer did to it.
pub const BOOK: SharedHandler<(), Book> = SharedHandler::new("account", "book");
/// Counts one transfer that moved money; how often it was counted.
pub const COUNT: Handler<u64, u64> = Handler::new("tally", "count");
/// How often each transfer was counted.
pub const COUNTED: SharedHandler<(), BTreeMap<String, u64>> = SharedHandler::new("tally", "counted");
/// Tells a notary of a transfer, and has it counted; how many the notary knows. It is a script.
pub const NOTE: Handler<Note, u64> = Handler::new("notary", "note");
/// How often a notary heard of each transfer.
pub const NOTES: Handler<(), BTreeMap<String, u64>> = Handler::new("notary", "notes");

/// What a transfer gives.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Receipt {
    /// Whether the giving account had enough.
    pub moved: bool,
    /// For each step that ran: its key and the attempt that counts.
    pub marks: Vec<Mark>,
    /// What the notary said, if it was asked.
    pub noted: Option<u64>,
    /// The messages that it sent, by their ids.
    pub sent: Vec<String>,
}

/// What a step gives: under which key and in which attempt it ran.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Mark {
    /// The idempotency key.
    pub key: String,
    /// The attempt, from 1.
    pub attempt: u32,
}

/// What a transfer does to one account.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// The transfer.
    pub number: u64,
    /// How much.
    pub cents: i64,
}

/// What one account pays to another.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Payment {
    /// For which transfer, and how much.
    pub entry: Entry,
    /// The key of the account that takes.
    pub to: String,
}

/// What an account holds.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Book {
    /// The balance.
    pub cents: i64,
    /// What each transfer took, by `out-N`, and gave, by `in-N`.
    pub entries: BTreeMap<String, i64>,
}

/// What a notary is told.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Note {
    /// The transfer.
    pub number: u64,
    /// The key of the tally that is to count it.
    pub tally: String,
    /// By how much the message to the tally is delayed, in milliseconds; 0 is not at all.
    pub delay_ms: u64,
}

/// The bank's handlers; what happens outside goes to the ledger of the place, which has the notary's files.
pub fn app(place: &Place) -> Result<App, Failed> {
    place.furnish()?;
    let ledger = Record::open(&place.ledger())?;
    let app = App::new()
        .handler(TRANSFER, async move |ctx: Ctx, order: Transfer| transfer(&ledger, &ctx, &order).await)
        .handler(WITHDRAW, async |ctx: Ctx, entry: Entry| withdraw(&ctx, entry).await)
        .handler(PAY, pay)
        .handler(DEPOSIT, deposit)
        .shared(BOOK, book)
        .handler(COUNT, count)
        .shared(COUNTED, async |view: View, ()| view.entries("t-").await);
    Ok(app.manifest(place.manifest())?)
}

async fn transfer(ledger: &Record, ctx: &Ctx, order: &Transfer) -> Outcome<Receipt> {
    let (from, to) = (transfer::account(order.from), transfer::account(order.to));
    let entry = Entry { number: order.number, cents: order.cents };
    let mut receipt = Receipt { moved: false, marks: vec![effect(ledger, ctx, order.number, "debit").await?], noted: None, sent: Vec::new() };
    receipt.moved = match order.way {
        Way::Paid => ctx.call(PAY.on(from), Payment { entry, to: to.clone() }).await?,
        Way::Led | Way::Sent => ctx.call(WITHDRAW.on(from), entry).await?,
    };
    if receipt.moved {
        if order.rest_ms > 0 {
            ctx.sleep(Duration::from_millis(order.rest_ms)).await?;
        }
        receipt.marks.push(effect(ledger, ctx, order.number, "credit").await?);
        match order.way {
            Way::Paid => {}
            Way::Led => {
                ctx.call(DEPOSIT.on(to), entry).await?;
            }
            Way::Sent => sent(&mut receipt, ctx.send(DEPOSIT.on(to), entry), order),
        }
        let tally = transfer::tally(order.number);
        let note = Note { number: order.number, tally: tally.clone(), delay_ms: order.delay_ms };
        match order.witness {
            Witness::Nobody => sent(&mut receipt, ctx.send(COUNT.on(tally), order.number), order),
            Witness::Asked => receipt.noted = Some(ctx.call(NOTE.on(transfer::notary(order.number)), note).await?),
            Witness::Told => sent(&mut receipt, ctx.send(NOTE.on(transfer::notary(order.number)), note), order),
        }
    }
    receipt.marks.push(effect(ledger, ctx, order.number, "receipt").await?);
    Ok(receipt)
}

/// Notes a message, and delays it as the transfer says.
fn sent(receipt: &mut Receipt, message: Sent, order: &Transfer) {
    let message = if order.delay_ms > 0 { message.delay(Duration::from_millis(order.delay_ms)) } else { message };
    receipt.sent.extend(message.id().map(|id| id.to_string()));
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

async fn withdraw(ctx: &Ctx, entry: Entry) -> Outcome<bool> {
    if entry.cents <= 0 {
        return Err(Failure::terminal("not_positive", format!("{} cents cannot be withdrawn", entry.cents)));
    }
    let balance = balance(ctx).await?;
    if balance < entry.cents {
        return Ok(false);
    }
    ctx.state().set("cents", &(balance - entry.cents))?;
    add(ctx, &format!("out-{}", entry.number), entry.cents).await?;
    Ok(true)
}

async fn pay(ctx: Ctx, payment: Payment) -> Outcome<bool> {
    let paid = withdraw(&ctx, payment.entry).await?;
    if paid {
        ctx.call(DEPOSIT.on(payment.to), payment.entry).await?;
    }
    Ok(paid)
}

async fn deposit(ctx: Ctx, entry: Entry) -> Outcome<i64> {
    let balance = balance(&ctx).await? + entry.cents;
    ctx.state().set("cents", &balance)?;
    add(&ctx, &format!("in-{}", entry.number), entry.cents).await?;
    Ok(balance)
}

async fn balance(ctx: &Ctx) -> Outcome<i64> {
    Ok(ctx.state().get::<i64>("cents").await?.unwrap_or(OPENING_CENTS))
}

/// Adds to an entry: one that is made twice has twice its value.
async fn add(ctx: &Ctx, name: &str, value: i64) -> Outcome<i64> {
    let sum = ctx.state().get::<i64>(name).await?.unwrap_or(0) + value;
    ctx.state().set(name, &sum)?;
    Ok(sum)
}

async fn book(view: View, (): ()) -> Outcome<Book> {
    let mut entries = view.entries("out-").await?;
    entries.extend(view.entries("in-").await?);
    Ok(Book { cents: view.get("cents").await?.unwrap_or(OPENING_CENTS), entries })
}

async fn count(ctx: Ctx, transfer: u64) -> Outcome<u64> {
    Ok(add(&ctx, &format!("t-{transfer}"), 1).await?.unsigned_abs())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;

    use super::*;
    use crate::transfer::ACCOUNTS;

    #[tokio::test]
    async fn every_account_lives_in_a_shard_of_its_own() {
        let engine = selvedge::test::Engine::new(App::new().handler(DEPOSIT, deposit)).await.unwrap();
        let mut shards = BTreeSet::new();
        for account in 0..ACCOUNTS {
            let id = engine.local().send(DEPOSIT.on(transfer::account(account)), Entry { number: 1, cents: 1 }).await.unwrap();
            assert!(shards.insert(id.0.hash.shard(64)), "{} shares a shard", transfer::account(account));
        }
    }

    #[test]
    fn about_a_third_of_the_transfers_go_each_way_and_a_third_of_their_messages_are_delayed() {
        let orders: Vec<Transfer> = (1..3_000).map(|number| transfer::transfer(1, number)).collect();
        let parts = [
            orders.iter().filter(|order| order.way == Way::Led).count(),
            orders.iter().filter(|order| order.way == Way::Paid).count(),
            orders.iter().filter(|order| order.way == Way::Sent).count(),
            orders.iter().filter(|order| order.delay_ms > 0).count(),
        ];
        assert!(parts.iter().all(|part| (900..1_100).contains(part)), "{parts:?}");
        assert!(orders.iter().all(|order| order.from != order.to && (order.way != Way::Paid || order.from < order.to)));
        assert!(orders.iter().any(|order| order.witness == Witness::Asked) && orders.iter().any(|order| order.witness == Witness::Told));
    }
}
