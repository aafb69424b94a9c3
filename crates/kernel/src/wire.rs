//! How a value lies on disk: one format version byte, then its fields (postcard).

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

/// The version that this binary writes in front of every value that has not grown since the first one.
pub const VERSION: u8 = 1;

/// Bytes that do not decode.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
pub enum WireError {
    /// The value was written by a newer format.
    #[error("a {what} has format version {found}, this binary reads up to {known}: start the newer binary that wrote it")]
    Newer {
        /// What was read.
        what: &'static str,
        /// The version byte found.
        found: u8,
        /// The newest version of it that this binary reads.
        known: u8,
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
    encode_as(VERSION, value)
}

/// Encodes a value behind a version of its own: that of a kind of row which has grown.
#[must_use]
pub fn encode_as<T: Serialize>(version: u8, value: &T) -> Bytes {
    let mut room = [0; ROOM_BYTES];
    match in_room(version, value, &mut room) {
        Some(bytes) => Bytes::copy_from_slice(bytes),
        None => Bytes::from(grown(version, value)),
    }
}

/// Hands what [`encode`] gives to a function that needs it only for a moment.
pub fn encoded<T: Serialize, R>(value: &T, take: impl FnOnce(&[u8]) -> R) -> R {
    let mut room = [0; ROOM_BYTES];
    match in_room(VERSION, value, &mut room) {
        Some(bytes) => take(bytes),
        None => take(&grown(VERSION, value)),
    }
}

/// Most values fit here: they are encoded without growing a buffer.
const ROOM_BYTES: usize = 512;

fn in_room<'r, T: Serialize>(version: u8, value: &T, room: &'r mut [u8; ROOM_BYTES]) -> Option<&'r [u8]> {
    room[0] = version;
    let used = postcard::to_slice(value, &mut room[1..]).ok()?.len();
    room.get(..=used)
}

fn grown<T: Serialize>(version: u8, value: &T) -> Vec<u8> {
    let mut buffer = Vec::with_capacity(4 * ROOM_BYTES);
    buffer.push(version);
    // Invariant: our records are structs, enums, strings, numbers and byte strings of known length,
    // and the sink is a growing vector: postcard has no error for these.
    postcard::to_extend(value, buffer).unwrap_or_default()
}

/// Decodes a value written by [`encode`]; trailing bytes are an error.
pub fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, WireError> {
    decode_as(what, VERSION, bytes)
}

/// Decodes a value written by [`encode_as`] of this version, the newest one that is known of its kind: a caller that knows older
/// ones looks at the first byte before.
pub fn decode_as<T: DeserializeOwned>(what: &'static str, known: u8, bytes: &[u8]) -> Result<T, WireError> {
    let malformed = || WireError::Malformed { what, len: bytes.len() };
    let (&version, rest) = bytes.split_first().ok_or_else(malformed)?;
    if version > known {
        return Err(WireError::Newer { what, found: version, known });
    }
    match postcard::take_from_bytes::<T>(rest) {
        Ok((value, [])) => Ok(value),
        _ => Err(malformed()),
    }
}
