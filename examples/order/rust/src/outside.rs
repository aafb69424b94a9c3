//! The bank and the carrier: they write what they did into a file, and do nothing twice under one key.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use selvedge::{Failure, Outcome};
use serde::{Deserialize, Serialize};

use crate::{Item, Line};

/// What is to be charged.
#[derive(Clone, Serialize, Deserialize)]
pub struct Charge {
    /// Whose card.
    pub customer: String,
    /// How much.
    pub cents: u64,
}

/// What is to be shipped.
#[derive(Clone, Serialize, Deserialize)]
pub struct Parcel {
    /// For which order.
    pub order: String,
    /// What is in it.
    pub reservations: Vec<Item>,
}

/// Somebody else's systems. Selvedge knows nothing of their file.
#[derive(Clone)]
pub struct Outside {
    file: Arc<Mutex<PathBuf>>,
}

impl Outside {
    /// Keeps its ledger in this file.
    #[must_use]
    pub fn at(file: impl Into<PathBuf>) -> Outside {
        Outside { file: Arc::new(Mutex::new(file.into())) }
    }

    /// What was done so far.
    pub fn lines(&self) -> Outcome<Vec<Line>> {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if !file.exists() {
            return Ok(Vec::new());
        }
        std::fs::read_to_string(&*file)?.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }

    fn once(&self, key: &str, what: &str, id: String) -> Outcome<String> {
        if let Some(line) = self.lines()?.into_iter().find(|line| line.key == key) {
            return Ok(line.id);
        }
        let line = serde_json::to_string(&Line { key: key.to_owned(), what: what.to_owned(), id: id.clone() })? + "\n";
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        OpenOptions::new().append(true).create(true).open(&*file)?.write_all(line.as_bytes())?;
        Ok(id)
    }

    /// Charges a card. The bank of `edsger` declines everything above an euro.
    pub fn charge(&self, key: &str, charge: &Charge) -> Outcome<String> {
        if charge.customer == "edsger" && charge.cents > 100 {
            return Err(Failure::retryable("card_declined", format!("the bank of {} declines {} cents", charge.customer, charge.cents)));
        }
        self.once(key, "charge", format!("ch_{key:.12}"))
    }

    /// Gives the money of a charge back.
    pub fn refund(&self, key: &str, charge: &str) -> Outcome<()> {
        self.once(key, "refund", charge.to_owned()).map(drop)
    }

    /// Takes a parcel, unless an anvil is in it.
    pub fn ship(&self, key: &str, parcel: &Parcel) -> Outcome<String> {
        if parcel.reservations.iter().any(|item| item.sku == "anvil") {
            return Err(Failure::terminal("no_carrier", "no carrier takes: anvil"));
        }
        self.once(key, "ship", format!("tr_{key:.12}"))
    }
}
