//! How a value lies on disk: one format version byte, then its fields (postcard).

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

/// The version that this binary writes in front of every value.
pub const VERSION: u8 = 1;

/// Bytes that do not decode.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
pub enum WireError {
    /// The value was written by a newer format.
    #[error("a {what} has format version {found}, this binary reads up to {VERSION}: start the newer binary that wrote it")]
    Newer {
        /// What was read.
        what: &'static str,
        /// The version byte found.
        found: u8,
    },
    /// The bytes are not a value of this kind.
    #[error("a {what} does not decode ({len} bytes): run `selvedge verify` and restore from a backup")]
    Malformed {
        /// What was read.
        what: &'static str,
        /// How many bytes there were.
        len: usize,
    },
}

/// Encodes a value behind the format version.
///
/// ```
/// let bytes = selvedge_kernel::wire::encode(&("ada", 7u32));
/// assert_eq!(selvedge_kernel::wire::decode::<(String, u32)>("pair", &bytes).unwrap(), ("ada".to_string(), 7));
/// ```
#[must_use]
pub fn encode<T: Serialize>(value: &T) -> Bytes {
    let buffer = vec![VERSION];
    // Invariant: our records are structs, enums, strings, numbers and byte strings of known length,
    // and the sink is a growing vector: postcard has no error for these.
    let done = postcard::to_extend(value, buffer);
    Bytes::from(done.unwrap_or_default())
}

/// Decodes a value written by [`encode`]; trailing bytes are an error.
pub fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, WireError> {
    let malformed = || WireError::Malformed { what, len: bytes.len() };
    let (&version, rest) = bytes.split_first().ok_or_else(malformed)?;
    if version > VERSION {
        return Err(WireError::Newer { what, found: version });
    }
    match postcard::take_from_bytes::<T>(rest) {
        Ok((value, [])) => Ok(value),
        _ => Err(malformed()),
    }
}
