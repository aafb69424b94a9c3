//! The output of an invocation, as somebody reads it.

use std::collections::VecDeque;

use bytes::Bytes;
use selvedge_engine::Progress;
use selvedge_kernel::auth::Action;
use selvedge_kernel::id::InvocationId;
use selvedge_kernel::record::message::Outcome;
use selvedge_kernel::waiting::Waiting;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::client::{Client, StreamError, VerbFailed, value};
use crate::json;

/// What a reader of an invocation's output meets: its start, the chunks that its handler emits, its end.
///
/// ```
/// let met = selvedge::Emitted::Data { position: 7, chunk: "so far" };
/// assert_eq!(serde_json::to_string(&met).unwrap(), r#"{"type":"data","position":7,"chunk":"so far"}"#);
/// ```
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Emitted<T> {
    /// It is its turn. A reader that resumes behind a position has met this before.
    Start,
    /// A chunk.
    Data {
        /// Where it stands: a reader resumes behind it.
        position: u64,
        /// What was emitted.
        chunk: T,
    },
    /// It has ended with a value. Nothing comes any more.
    Complete,
    /// It has ended without one. Nothing comes any more.
    Error {
        /// The code of its error.
        code: String,
        /// What the error says.
        message: String,
    },
}

/// How far a reader is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Met {
    Nothing,
    Start,
    End,
}

/// The output of an invocation, chunk by chunk; a reader resumes by position.
pub struct Chunks {
    client: Client,
    id: InvocationId,
    next: u64,
    ready: VecDeque<(u64, Bytes)>,
    met: Met,
}

impl Chunks {
    pub(crate) fn of(client: Client, id: InvocationId) -> Chunks {
        Chunks { client, id, next: 0, ready: VecDeque::new(), met: Met::Nothing }
    }

    /// The next chunk that is there now, with its position; none when there is none yet.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<(u64, T)>, StreamError> {
        if self.ready.is_empty() {
            let permit = self.client.permit(Action::Read, self.client.work(&self.id))?;
            self.ready = self.client.engine.output(permit, self.id, self.next).await.map_err(VerbFailed::from)?.into();
        }
        let Some((position, chunk)) = self.ready.pop_front() else { return Ok(None) };
        self.next = position + 1;
        Ok(Some((position, json::read("a chunk of output", &chunk).map_err(value)?)))
    }

    /// What comes next, if it is there now: the start, each chunk, the end. None when there is nothing yet, and behind the end.
    ///
    /// ```
    /// # async fn example(client: selvedge::Client, id: selvedge::InvocationId) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut output = client.stream(id);
    /// while let Some(met) = output.event::<String>().await? {
    ///     println!("{met:?}");
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn event<T: DeserializeOwned>(&mut self) -> Result<Option<Emitted<T>>, StreamError> {
        match self.met {
            Met::End => return Ok(None),
            Met::Nothing if !self.has_started().await? => return Ok(None),
            Met::Nothing => {
                self.met = Met::Start;
                return Ok(Some(Emitted::Start));
            }
            Met::Start => {}
        }
        // Asked before the chunks are read: what it emitted last is there once it has ended.
        let end = if self.ready.is_empty() { self.end().await? } else { None };
        if let Some((position, chunk)) = self.next().await? {
            return Ok(Some(Emitted::Data { position, chunk }));
        }
        let Some(outcome) = end else { return Ok(None) };
        self.met = Met::End;
        Ok(Some(match outcome {
            Outcome::Value(_) => Emitted::Complete,
            Outcome::Error(error) => Emitted::Error { code: error.code, message: error.message },
        }))
    }

    async fn has_started(&self) -> Result<bool, StreamError> {
        let permit = self.client.permit(Action::Read, self.client.work(&self.id))?;
        let why = self.client.engine.why(permit, self.id).await.map_err(VerbFailed::from)?;
        Ok(why.attempt > 0 && !matches!(why.waiting[..], [Waiting::Behind { .. }]))
    }

    async fn end(&self) -> Result<Option<Outcome>, StreamError> {
        let permit = self.client.permit(Action::Read, self.client.work(&self.id))?;
        let answer = self.client.engine.result(permit, self.id, false).await.map_err(VerbFailed::from)?;
        Ok(match answer.progress {
            Progress::Ended(outcome) => Some(outcome),
            Progress::Open => None,
        })
    }

    /// Goes on behind a position, where the start was met before.
    #[must_use]
    pub fn after(mut self, position: u64) -> Chunks {
        self.next = position + 1;
        self.met = Met::Start;
        self.ready.clear();
        self
    }
}
