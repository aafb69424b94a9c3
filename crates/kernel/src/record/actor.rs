//! A dead letter: a message that could not be handled, whole.

use serde::{Deserialize, Serialize};

use crate::error::WorkError;
use crate::journal::{Hash32, Payload};
use crate::record::message::Message;
use crate::time::Millis;

/// A message that could not be handled.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeadLetter {
    /// What was asked. Its input is empty here if it is kept in chunks.
    pub message: Message,
    /// Where the input is.
    pub input: Payload,
    /// Under which seal its chunks stand.
    pub input_seal: Hash32,
    /// The last error.
    pub error: WorkError,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was given up.
    pub at: Millis,
}
