//! What the bank does, drawn from the seed: the same number gives the same transfer in every life of the process.

use serde::{Deserialize, Serialize};

use crate::seed::Seed;

/// How many accounts there are.
pub const ACCOUNTS: u64 = 24;

/// What makes the key of each account: so that each lives in a shard of its own.
const NAMES: [u64; ACCOUNTS as usize] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 15, 16, 18, 19, 21, 22, 24, 28, 29, 30];

/// How many tallies share the transfers.
pub const TALLIES: u64 = 16;

/// How many notaries do.
pub const NOTARIES: u64 = 8;

/// What each account holds before its first transfer, in cents.
pub const OPENING_CENTS: i64 = 1_000;

/// The longest delay of a message, in milliseconds.
const LONGEST_DELAY_MS: u64 = 80;

/// The steps of a transfer. One that finds too little money skips `credit`.
pub const STEPS: [&str; 3] = ["debit", "credit", "receipt"];

/// How the money goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// The transfer calls the one account, then the other.
    Led,
    /// The account that gives calls the one that takes. It always has the lower number: nobody waits in a ring.
    Paid,
    /// The account that takes gets a message.
    Sent,
}

/// How a notary, who is a script, hears of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Witness {
    /// Not at all.
    Nobody,
    /// By a call.
    Asked,
    /// By a message.
    Told,
}

/// One transfer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Transfer {
    /// Its number, from 1.
    pub number: u64,
    /// The account that gives, by its number.
    pub from: u64,
    /// The account that takes, by its number.
    pub to: u64,
    /// How much.
    pub cents: i64,
    /// How long it rests between debit and credit, in milliseconds; 0 is no rest.
    pub rest_ms: u64,
    /// How the money goes.
    pub way: Way,
    /// Who is told.
    pub witness: Witness,
    /// By how much its messages are delayed, in milliseconds; 0 is not at all.
    pub delay_ms: u64,
}

/// The transfer of that number.
#[must_use]
pub fn transfer(seed: u64, number: u64) -> Transfer {
    let mut draw = Seed::new(seed, number);
    let from = draw.below(ACCOUNTS);
    let to = (from + 1 + draw.below(ACCOUNTS - 1)) % ACCOUNTS;
    let rest_ms = if draw.below(4) == 0 { 1 + draw.below(60) } else { 0 };
    let cents = 1 + draw.below(300) as i64;
    let way = [Way::Led, Way::Paid, Way::Sent][draw.below(3) as usize];
    let witness = match draw.below(8) {
        0 => Witness::Asked,
        1 => Witness::Told,
        _ => Witness::Nobody,
    };
    let delay_ms = if draw.below(3) == 0 { 1 + draw.below(LONGEST_DELAY_MS) } else { 0 };
    let (from, to) = if way == Way::Paid { (from.min(to), from.max(to)) } else { (from, to) };
    Transfer { number, from, to, cents, rest_ms, way, witness, delay_ms }
}

/// The key of an account's actor.
#[must_use]
pub fn account(number: u64) -> String {
    format!("a-{}", NAMES[(number % ACCOUNTS) as usize])
}

/// The key of a transfer's actor, and its idempotency key.
#[must_use]
pub fn key(number: u64) -> String {
    format!("t-{number}")
}

/// The key of the tally that counts a transfer.
#[must_use]
pub fn tally(number: u64) -> String {
    format!("c-{}", number % TALLIES)
}

/// The key of the notary of a transfer.
#[must_use]
pub fn notary(number: u64) -> String {
    format!("n-{}", number % NOTARIES)
}
