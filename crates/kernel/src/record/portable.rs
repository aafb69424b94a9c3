//! The portable form of all that a store holds: JSON Lines, independent of shards, of the store and of its files.
//!
//! ```text
//! {"head":{"selvedge_export":1,…}}         what it was taken of, and the ledgers' heads
//! {"timer":{…}} {"ready":{…}} {"envelope":{…}} {"ledger":{…}}    rows that a shard numbers, over all shards in their order
//! {"row":{"kind":"State","key":"…","value":"…"}}                 rows that go with an identity
//! {"end":{"lines":17,"blake3":"…"}}        how many lines stand before it, and their hash
//! ```
//! Keys and values are those of the store, as base64: each value says its own format version. Envelopes are whole, with what
//! the sender kept in chunks.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::journal::Hash32;
use crate::record::kind::Kind;
use crate::record::shard::{LedgerLine, ledger_chain};
use crate::time::{Day, Millis};

/// The version of this form.
pub const FORMAT: u32 = 1;

/// What cannot be read or dealt out, and what to do about it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unportable(pub String);

impl Unportable {
    pub(crate) fn new(text: impl Into<String>) -> Unportable {
        Unportable(text.into())
    }
}

impl From<crate::wire::WireError> for Unportable {
    fn from(error: crate::wire::WireError) -> Unportable {
        Unportable(error.to_string())
    }
}

/// One line.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// The first.
    Head(Head),
    /// A timer.
    Timer(Timer),
    /// What a shard brings back when it is opened.
    Ready(Ready),
    /// A message between shards that was not taken yet.
    Envelope(Envelope),
    /// A line of a ledger.
    Ledger(Ledger),
    /// A row that goes with an identity.
    Row(Row),
    /// The last.
    End(End),
}

/// What it was taken of.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Head {
    /// [`FORMAT`].
    pub selvedge_export: u32,
    /// The id of the store, as hexadecimal text.
    pub store: String,
    /// The last group of its log that is in it.
    pub group: u64,
    /// The latest time of all shards.
    pub time: Millis,
    /// Above all numbers that shards have given.
    pub next: u64,
    /// Whether all shards were closed in good order.
    pub clean: bool,
    /// The highest epoch of all shards.
    pub epoch: u64,
    /// The ledger of each shard.
    pub ledgers: Vec<LedgerHead>,
    /// What `run` has noted: which run goes with which command.
    pub notes: Option<String>,
}

/// Where a ledger ends.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LedgerHead {
    /// How many lines it has.
    pub lines: u64,
    /// Its last chain value, as hexadecimal text.
    pub head: String,
}

/// A timer, by due time and number.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Timer {
    /// When it is due.
    pub due: Millis,
    /// Its number in its shard.
    pub number: u64,
    /// The row's value.
    #[serde(with = "text")]
    pub value: Bytes,
}

/// See [`crate::record::shard::Ready`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ready {
    /// The row's value.
    #[serde(with = "text")]
    pub value: Bytes,
}

/// A message between shards: in the order of its sender.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Envelope {
    /// Whose chunks hold it where it is too large for a row: the 18 bytes of an id.
    #[serde(with = "text")]
    pub owner: Bytes,
    /// The encoded envelope, whole.
    #[serde(with = "text")]
    pub value: Bytes,
}

/// A line of a ledger, in the order of all ledgers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ledger {
    /// Of which shard.
    pub shard: u16,
    /// Its number there.
    pub n: u64,
    /// The day on which it may vanish.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Day>,
    /// The row's value.
    #[serde(with = "text")]
    pub value: Bytes,
}

/// A row.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Row {
    /// Its kind, for whoever reads the file; the key says it too.
    pub kind: Kind,
    /// The day on which it may vanish.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Day>,
    /// Its key.
    #[serde(with = "text")]
    pub key: Bytes,
    /// Its value.
    #[serde(with = "text")]
    pub value: Bytes,
}

/// What must stand before it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct End {
    /// How many lines.
    pub lines: u64,
    /// BLAKE3 of all of them with their line breaks, as hexadecimal text.
    pub blake3: String,
}

/// Bytes as base64.
mod text {
    use bytes::Bytes;
    use data_encoding::BASE64;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(bytes: &Bytes, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&BASE64.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
        BASE64.decode(text.as_bytes()).map(Bytes::from).map_err(D::Error::custom)
    }
}

/// A line as text, without its line break.
#[must_use]
pub fn print(line: &Line) -> String {
    // Invariant: these types have string keys and no numbers that JSON cannot say.
    serde_json::to_string(line).unwrap_or_default()
}

/// Reads a line.
///
/// # Errors
/// It is none, or the export is of a newer form.
pub fn read(line: &str) -> Result<Line, Unportable> {
    serde_json::from_str(line).map_err(|error| {
        let version = serde_json::from_str::<serde_json::Value>(line).ok().and_then(|value| value["head"]["selvedge_export"].as_u64());
        match version {
            Some(found) if found > u64::from(FORMAT) => newer(found),
            _ => Unportable(format!("it is no line of an export ({error})")),
        }
    })
}

/// Shards count below this: numbers above it are those of runs' timers.
const NUMBERS_END: u64 = 1 << 62;

/// Refuses a head of a newer form, and one that no store writes.
///
/// # Errors
/// What is wrong with it.
pub fn known(head: &Head) -> Result<(), Unportable> {
    if head.selvedge_export > FORMAT {
        return Err(newer(head.selvedge_export.into()));
    }
    if head.next >= NUMBERS_END || head.ledgers.len() > usize::from(u16::MAX) {
        return Err(Unportable(format!(
            "its head is that of no store ({} shards, which have counted to {}): something was changed",
            head.ledgers.len(),
            head.next
        )));
    }
    Ok(())
}

fn newer(found: u64) -> Unportable {
    Unportable(format!("it has format {found}, this binary knows formats up to {FORMAT}: import it with the version that wrote it, or a newer one"))
}

/// Walks the ledger of one shard: a changed or missing line is found before its successors get new chain values.
#[derive(Clone, Default, Debug)]
pub struct LedgerWalk {
    next: Option<u64>,
    chain: Hash32,
}

impl LedgerWalk {
    /// Takes the next line.
    ///
    /// # Errors
    /// It does not continue the ones before.
    pub fn line(&mut self, n: u64, line: &LedgerLine) -> Result<(), Unportable> {
        let fits = match self.next {
            // Older ones may have left by retention.
            None if n > 0 => true,
            next => next.unwrap_or(0) == n && ledger_chain(self.chain, line) == line.chain,
        };
        if !fits {
            return Err(Unportable(format!("line {n} of a ledger ({:?}) was changed, or a line before it is missing: `selvedge verify` says more", line.id)));
        }
        (self.next, self.chain) = (Some(n.saturating_add(1)), line.chain);
        Ok(())
    }

    /// Compares with where the ledger ends.
    ///
    /// # Errors
    /// Lines at its end are missing.
    pub fn ended(&self, head: &LedgerHead) -> Result<(), Unportable> {
        // All of it may have left by retention.
        if self.next.is_none_or(|next| next == head.lines && format!("{:?}", self.chain) == head.head) {
            return Ok(());
        }
        Err(Unportable(format!(
            "a ledger has {} lines, and line {} is the last that is there: `selvedge verify` says more",
            head.lines,
            self.next.unwrap_or(0)
        )))
    }
}
