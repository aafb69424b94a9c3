//! The two files that stand outside Selvedge and say what really happened.
//!
//! Both are appended to with one `write(2)` per line on a file opened with `O_APPEND`: what that call has returned for is
//! in the kernel and survives SIGKILL. The order of lines is the order of events, over all lives of the process.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::bank::Book;

/// A file that lines are appended to.
#[derive(Clone, Debug)]
pub struct Record {
    file: Arc<File>,
}

impl Record {
    /// Opens the file, or makes it.
    pub fn open(path: &Path) -> std::io::Result<Record> {
        Ok(Record { file: Arc::new(OpenOptions::new().create(true).append(true).open(path)?) })
    }

    /// Appends one line.
    pub fn write(&self, line: &impl Serialize) -> std::io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        (&*self.file).write_all(&text)
    }
}

/// Reads all lines of a file; one that is not there has none. A line that does not fit is an error that names it.
pub fn read<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<Vec<T>, String> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = std::fs::read_to_string(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    parse(path, &text)
}

/// Reads the lines of a part of a file.
pub fn parse<T: for<'a> Deserialize<'a>>(path: &Path, text: &str) -> Result<Vec<T>, String> {
    let line = |(at, line): (usize, &str)| serde_json::from_str(line).map_err(|error| format!("{}:{}: {error}: {line}", path.display(), at + 1));
    text.lines().enumerate().map(line).collect()
}

/// A line of the ledger, written from inside steps and behind them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub enum Effect {
    /// A step ran: this is its effect on the outside.
    Attempt {
        /// The idempotency key that the step was given.
        key: String,
        /// The attempt's number, from 1.
        attempt: u32,
        /// The step's name.
        step: String,
        /// The number of the transfer.
        transfer: u64,
    },
    /// The handler has the step's result in hand, hence it is in the journal. A replay writes the line again.
    Finished {
        /// The step's idempotency key.
        key: String,
    },
}

/// A line of what the client knows.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub enum Answer {
    /// The client is about to start this transfer. It may never have arrived.
    Try {
        /// The number of the transfer.
        transfer: u64,
    },
    /// The engine said that it has it.
    Acknowledged {
        /// The number of the transfer.
        transfer: u64,
        /// The id of the invocation.
        invocation: String,
    },
    /// The engine gave a result.
    Result {
        /// The number of the transfer.
        transfer: u64,
        /// The result as it came.
        result: serde_json::Value,
    },
}

/// What the last, uninterrupted run found.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Final {
    /// What each account says.
    pub books: Vec<Book>,
    /// How often the tallies counted each transfer, by its key.
    pub counted: BTreeMap<String, u64>,
    /// How often the notaries heard of each transfer, by its key.
    pub noted: BTreeMap<String, u64>,
    /// The result of each acknowledged invocation, asked for by its id.
    pub results: Vec<(u64, serde_json::Value)>,
    /// The result of each transfer, started once more under its key.
    pub repeated: Vec<(u64, serde_json::Value)>,
    /// How many messages the transfers had sent, all of which have ended.
    pub messages: u64,
    /// How many invocations were blocked because ten kills in a row had met them, and were looked at again.
    pub looked_again: u64,
    /// Acknowledged invocations, and messages, that gave an error instead of a result.
    pub lost: Vec<(u64, String)>,
    /// What had not ended, each with the sentence of `why`.
    pub waiting: Vec<(u64, String)>,
    /// Journal entries that `verify` walked.
    pub verified: u64,
    /// What `verify` found wrong.
    pub faults: Vec<String>,
}
