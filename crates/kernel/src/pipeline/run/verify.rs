//! Checks a run's rows against its chain.

use bytes::Bytes;
use std::collections::BTreeMap;

use super::close::{header_hash, next_head, row_hash, short_key};
use crate::id::RunId;
use crate::journal::{Hash32, SealKey, chain_start};
use crate::record::run::{ChainRow, RunRow};

/// Where rows and chain part.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ChainDamage {
    /// An entry is not there.
    #[error("{run}: chain entry {number} is missing")]
    Missing {
        /// Of which run.
        run: RunId,
        /// Which.
        number: u64,
    },
    /// An entry does not follow from the one before it.
    #[error("{run}: chain entry {number} was changed, or one before it was")]
    Entry {
        /// Of which run.
        run: RunId,
        /// Which.
        number: u64,
    },
    /// The header is not the one of the last commit.
    #[error("{run}: the header was changed after commit {number}")]
    Header {
        /// Of which run.
        run: RunId,
        /// The last commit.
        number: u64,
    },
    /// A row is not what its commit wrote.
    #[error("{run}: row {row} was changed after commit {number}")]
    Changed {
        /// Of which run.
        run: RunId,
        /// The row, in hexadecimal: its kind and what follows the run's id.
        row: String,
        /// The commit that wrote it.
        number: u64,
    },
    /// A row is not there.
    #[error("{run}: row {row}, written by commit {number}, is missing")]
    RowMissing {
        /// Of which run.
        run: RunId,
        /// The row, in hexadecimal.
        row: String,
        /// The commit that wrote it.
        number: u64,
    },
    /// A row that no commit wrote.
    #[error("{run}: row {row} was written by no commit of the run")]
    Stray {
        /// Of which run.
        run: RunId,
        /// The row, in hexadecimal.
        row: String,
    },
}

/// Walks the chain of a run, then its rows.
#[derive(Clone)]
pub struct ChainVerifier {
    run: RunId,
    key: Option<SealKey>,
    next: u64,
    last: Hash32,
    header: Hash32,
    written: BTreeMap<Bytes, (u64, [u8; 16])>,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl ChainVerifier {
    /// Starts at the run's id and the seal of its input. Without the key (the run was erased) rows are not compared.
    #[must_use]
    pub fn new(run: RunId, input_seal: Hash32, key: Option<SealKey>) -> ChainVerifier {
        let start = chain_start(run.0, input_seal);
        ChainVerifier { run, key, next: 0, last: start, header: start, written: BTreeMap::new() }
    }

    /// The next entry, in order of numbers.
    pub fn entry(&mut self, number: u64, row: ChainRow) -> Result<(), ChainDamage> {
        if number != self.next {
            return Err(ChainDamage::Missing { run: self.run, number: self.next });
        }
        self.next += 1;
        if next_head(self.last, number, &row.rows, row.header) != row.chain {
            return Err(ChainDamage::Entry { run: self.run, number });
        }
        (self.last, self.header) = (row.chain, row.header);
        for (short, hash) in &row.rows {
            match hash {
                Some(hash) => self.written.insert(short.clone(), (number, *hash)),
                None => self.written.remove(short),
            };
        }
        Ok(())
    }

    /// A row of the run that stands in the store: not `Run` and `RunChain` themselves.
    pub fn row(&mut self, key: &[u8], value: &[u8]) -> Result<(), ChainDamage> {
        let short = short_key(key);
        let Some((number, hash)) = self.written.remove(&short) else {
            return Err(ChainDamage::Stray { run: self.run, row: hex(&short) });
        };
        match &self.key {
            Some(key) if row_hash(key, &short, value) != hash => Err(ChainDamage::Changed { run: self.run, row: hex(&short), number }),
            _ => Ok(()),
        }
    }

    /// After the last entry and row: the header, and that nothing is missing. Gives the head and the number of commits.
    pub fn finish(self, row: &RunRow) -> Result<(Hash32, u64), ChainDamage> {
        if row.header.commits != self.next || self.next == 0 {
            return Err(ChainDamage::Missing { run: self.run, number: self.next });
        }
        let number = self.next - 1;
        if row.head != self.last || self.key.is_some_and(|key| header_hash(&key, &row.header) != self.header) {
            return Err(ChainDamage::Header { run: self.run, number });
        }
        match self.written.first_key_value() {
            Some((short, (number, _))) if self.key.is_some() => Err(ChainDamage::RowMissing { run: self.run, row: hex(short), number: *number }),
            _ => Ok((self.last, self.next)),
        }
    }
}
