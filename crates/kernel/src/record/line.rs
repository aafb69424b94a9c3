//! Rows of the lines in which runs wait: under the hash of (tenant, pipeline, key), so that one shard decides.

use serde::{Deserialize, Serialize};

use super::kind::Kind;
use crate::id::{ActorId, Hash16, Key, PIPELINE_TYPE, RunId, push_part};
use crate::pipeline::definition::WhenFull;

/// A line.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LineId {
    /// The tenant.
    pub tenant: String,
    /// The pipeline.
    pub pipeline: String,
    /// The value of `concurrency.key`, as text.
    pub key: String,
}

impl LineId {
    /// What decides its shard.
    #[must_use]
    pub fn hash16(&self) -> Hash16 {
        ActorId { tenant: self.tenant.clone(), kind: PIPELINE_TYPE.to_owned(), key: format!("{}/{}", self.pipeline, self.key) }.hash16()
    }

    /// The key of the line of those that run below a run which holds a place for this value: that run waits for them, and its
    /// place is theirs meanwhile, one after the other.
    #[must_use]
    pub fn key_below(holder: RunId, key: &str) -> String {
        format!("\u{0}{holder}\u{0}{}", LineId::value(key))
    }

    /// The value of `concurrency.key`, of a line below a run too.
    #[must_use]
    pub fn value(key: &str) -> &str {
        LineId::parts(key).map_or(key, |(_, value)| value)
    }

    /// The run whose place those of a line share.
    #[must_use]
    pub fn above(key: &str) -> Option<RunId> {
        LineId::parts(key).map(|(holder, _)| holder)
    }

    fn parts(key: &str) -> Option<(RunId, &str)> {
        let (holder, value) = key.strip_prefix('\u{0}')?.split_once('\u{0}')?;
        Some((holder.parse().ok()?, value))
    }

    fn row(&self, kind: Kind) -> Vec<u8> {
        let mut key = Vec::with_capacity(64);
        key.extend_from_slice(&self.hash16().0.to_be_bytes());
        key.push(kind as u8);
        for part in [&self.tenant, &self.pipeline, &self.key] {
            push_part(&mut key, part.as_bytes());
        }
        key
    }

    /// The rows of a line, in the order in which runs came.
    #[must_use]
    pub fn entries(&self) -> Key {
        self.row(Kind::RunLine).into()
    }

    /// line, n → [`LineEntry`].
    #[must_use]
    pub fn entry(&self, n: u64) -> Key {
        let mut key = self.row(Kind::RunLine);
        key.extend_from_slice(&n.to_be_bytes());
        key.into()
    }

    /// line, run → the number of its entry.
    #[must_use]
    pub fn place(&self, run: RunId) -> Key {
        let mut key = self.row(Kind::RunPlace);
        key.extend_from_slice(&run.0.to_bytes());
        key.into()
    }
}

/// A run in a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LineEntry {
    /// Which.
    pub run: RunId,
    /// Whether it goes; else it waits.
    pub holds: bool,
}

/// A run asks for its place.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Entering {
    /// In which line.
    pub line: LineId,
    /// Which run.
    pub run: RunId,
    /// How many may go at once.
    pub limit: u32,
    /// What becomes of it when these are there.
    pub when_full: WhenFull,
}

/// What a run is told by its line.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum LineSays {
    /// It may go.
    Admitted,
    /// It waits.
    Waits {
        /// The first of those that go.
        holder: RunId,
    },
    /// It is not taken.
    Full {
        /// The first of those that go.
        holder: RunId,
    },
    /// A run above it holds a place here and waits for it: it asks the line below that run.
    Below {
        /// Which line says so, by its key: one that was left behind says nothing any more.
        asked: String,
        /// The nearest of them.
        holder: RunId,
    },
}
