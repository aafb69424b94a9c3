//! The replay matcher: what a handler asks for against what its journal says.
//!
//! Results are delivered in the order of their entries. Operations that are recorded where they are called are matched
//! in the order of calling, on a cursor of their own: a result may have been decided, and written, before the handler
//! had been given the one before it.

use std::collections::{HashMap, VecDeque};

use crate::journal::{Entry, OpKind, Payload, Signature};
use crate::record::invocation::{Begun, Blocked};

/// How many results may be decided ahead of their delivery, so that a window of entries is enough to match.
pub const DECIDED_AHEAD: usize = 256;
/// How many operations that are recorded where they are called one transition may make.
pub const CALLED_PER_TRANSITION: usize = 256;
/// How many entries must be loaded before a handler is polled, unless there are no more.
pub const WINDOW: usize = DECIDED_AHEAD + 2 * CALLED_PER_TRANSITION;

/// A journal on its way through its handler.
#[derive(Debug, Default)]
pub struct Replay {
    results: VecDeque<Entry>,
    called: VecDeque<Entry>,
    begun: HashMap<u32, Begun>,
    versions: HashMap<String, Entry>,
    /// Whether entries beyond those loaded exist.
    pub more: bool,
    /// Whether the invocation has ended: nothing in it is new.
    pub ended: bool,
}

/// What became of an operation that is recorded where it is called.
#[derive(Debug)]
pub enum AtCall {
    /// It is in the journal.
    Recorded(Entry),
    /// It is new.
    New,
}

impl Replay {
    /// A replay with the operations that were begun and have no entry.
    #[must_use]
    pub fn new(begun: Vec<Begun>) -> Replay {
        Replay { begun: begun.into_iter().map(|row| (row.signature.number, row)).collect(), ..Replay::default() }
    }

    /// Adds entries, in their order.
    pub fn load(&mut self, entries: impl IntoIterator<Item = Entry>) {
        for entry in entries {
            if entry.header.signature.kind == OpKind::Forked {
                // It says where the journal came from, and is nothing that the handler asks for.
            } else if entry.header.signature.kind == OpKind::Version {
                // It has no place in the order: it is found by the name of its change.
                self.versions.insert(entry.header.signature.name.clone(), entry);
            } else if entry.header.signature.kind.at_call() {
                self.called.push_back(entry)
            } else {
                self.results.push_back(entry)
            }
        }
    }

    /// Whether more entries should be loaded before the handler is polled.
    #[must_use]
    pub fn starved(&self) -> bool {
        self.more && self.results.len() + self.called.len() < WINDOW
    }

    /// Whether every entry has been used.
    #[must_use]
    pub fn done(&self) -> bool {
        !self.more && self.results.is_empty() && self.called.is_empty()
    }

    /// Matches an operation that is recorded where it is called.
    pub fn call(&mut self, signature: &Signature) -> Result<AtCall, Blocked> {
        match self.called.front() {
            None => Ok(AtCall::New),
            Some(entry) if entry.header.signature == *signature => Ok(self.called.pop_front().map_or(AtCall::New, AtCall::Recorded)),
            Some(entry) => Err(mismatch(Some(&entry.header.signature), Some(signature))),
        }
    }

    /// Which form of a changed passage an invocation takes: the recorded one; without one the first while something that
    /// it did before is still unmatched, for it may have passed here before there was a second; else none: it is new here.
    #[must_use]
    pub fn version(&self, change: &str) -> Option<u32> {
        match self.versions.get(change) {
            Some(Entry { payload: Payload::Inline(bytes), .. }) => std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok()).or(Some(1)),
            Some(_) => Some(1),
            None if self.ended || !self.done() || !self.begun.is_empty() => Some(1),
            None => None,
        }
    }

    /// Whether an operation of that number was begun, taking note that it was asked for.
    pub fn begun(&mut self, signature: &Signature) -> Result<Option<Begun>, Blocked> {
        match self.begun.remove(&signature.number) {
            None => Ok(None),
            Some(row) if row.signature == *signature => Ok(Some(row)),
            Some(row) => Err(mismatch(Some(&row.signature), Some(signature))),
        }
    }

    /// The next result to deliver.
    pub fn next_result(&mut self) -> Option<Entry> {
        self.results.pop_front()
    }

    /// Whether results remain to be delivered.
    #[must_use]
    pub fn has_results(&self) -> bool {
        !self.results.is_empty()
    }

    /// Called when every result was delivered and the handler rests or has ended: what it never asked for is a mismatch.
    pub fn finish(&mut self) -> Result<(), Blocked> {
        if let Some(entry) = self.called.front().or(self.results.front()) {
            return Err(mismatch(Some(&entry.header.signature), None));
        }
        match self.begun.values().min_by_key(|row| row.signature.number) {
            Some(row) => Err(mismatch(Some(&row.signature), None)),
            None => Ok(()),
        }
    }
}

/// Compares an entry with the operation of its number, if the handler called one.
pub fn check_result(entry: &Entry, called: Option<&Signature>) -> Result<(), Blocked> {
    match called {
        Some(signature) if *signature == entry.header.signature => Ok(()),
        other => Err(mismatch(Some(&entry.header.signature), other)),
    }
}

fn mismatch(recorded: Option<&Signature>, attempted: Option<&Signature>) -> Blocked {
    Blocked::Mismatch { recorded: recorded.cloned(), attempted: attempted.cloned() }
}
