//! What the bank does, drawn from the seed: the same number gives the same transfer in every life of the process.

use serde::{Deserialize, Serialize};

use crate::seed::Seed;

/// How many accounts there are.
pub const ACCOUNTS: u64 = 24;

/// What each account holds before its first transfer, in cents.
pub const OPENING_CENTS: i64 = 1_000;

/// The steps of a transfer. One that finds too little money skips `credit`.
pub const STEPS: [&str; 3] = ["debit", "credit", "receipt"];

/// One transfer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Transfer {
    /// Its number, from 1.
    pub number: u64,
    /// The account that gives.
    pub from: String,
    /// The account that takes.
    pub to: String,
    /// How much.
    pub cents: i64,
    /// How long it rests between debit and credit, in milliseconds; 0 is no rest.
    pub rest_ms: u64,
}

/// The transfer of that number.
#[must_use]
pub fn transfer(seed: u64, number: u64) -> Transfer {
    let mut draw = Seed::new(seed, number);
    let from = draw.below(ACCOUNTS);
    let to = (from + 1 + draw.below(ACCOUNTS - 1)) % ACCOUNTS;
    let rest_ms = if draw.below(4) == 0 { 1 + draw.below(60) } else { 0 };
    Transfer { number, from: account(from), to: account(to), cents: 1 + draw.below(300) as i64, rest_ms }
}

/// The key of an account's actor.
#[must_use]
pub fn account(number: u64) -> String {
    format!("a-{number}")
}

/// The key of a transfer's actor, and its idempotency key.
#[must_use]
pub fn key(number: u64) -> String {
    format!("t-{number}")
}
