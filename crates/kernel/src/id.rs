//! Names and ids. Every id leads to its shard by the 16 bits in front.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

use crate::time::Millis;

/// A shard: a range of identity hashes, the unit of ownership, order and atomic commit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Debug)]
pub struct ShardId(pub u16);

/// Sixteen bits of an identity. `0xffff` is kept for rows that belong to a shard as a whole.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Debug)]
pub struct Hash16(pub u16);

impl Hash16 {
    /// The prefix of rows that belong to a shard as a whole.
    pub const SHARD_WIDE: Hash16 = Hash16(0xffff);

    /// The shard out of `count` that owns this value.
    #[must_use]
    pub fn shard(self, count: u16) -> ShardId {
        ShardId((u32::from(self.0) * u32::from(count) / 0x1_0000) as u16)
    }
}

/// Who is addressed: the identity of an actor.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Debug)]
pub struct ActorId {
    /// The outermost scope.
    pub tenant: String,
    /// The actor's type, as registered.
    pub kind: String,
    /// The actor's key inside its type.
    pub key: String,
}

impl ActorId {
    /// The 16 bits that decide the shard: BLAKE3 over the length-prefixed parts.
    #[must_use]
    pub fn hash16(&self) -> Hash16 {
        let mut hasher = blake3::Hasher::new();
        for part in [&self.tenant, &self.kind, &self.key] {
            hasher.update(&(part.len() as u32).to_be_bytes());
            hasher.update(part.as_bytes());
        }
        let hash = hasher.finalize();
        let value = u16::from_be_bytes([hash.as_bytes()[0], hash.as_bytes()[1]]);
        Hash16(value.min(0xfffe))
    }
}

impl fmt::Display for ActorId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.kind, self.key)
    }
}

/// The body of an id: 16 bits of the identity and a UUID (version 7 where time-ordered, 8 where it is a hash).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RawId {
    /// Which shard.
    pub hash: Hash16,
    /// 16 bytes of a UUID.
    pub uuid: [u8; 16],
}

/// Text that is not an id.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
#[error("`{text}` is not an id: expected {expected} and 29 characters of base32, as printed by the lists")]
pub struct IdError {
    /// What was read.
    pub text: String,
    /// The prefix that was expected.
    pub expected: &'static str,
}

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

impl RawId {
    /// A time-ordered id. `random` supplies 74 bits: `random[0]` breaks ties inside a millisecond when it counts up.
    #[must_use]
    pub fn at(hash: Hash16, now: Millis, random: [u8; 10]) -> RawId {
        let mut uuid = [0u8; 16];
        uuid[..6].copy_from_slice(&now.0.to_be_bytes()[2..]);
        uuid[6..].copy_from_slice(&random);
        uuid[6] = 0x70 | (uuid[6] & 0x0f);
        uuid[8] = 0x80 | (uuid[8] & 0x3f);
        RawId { hash, uuid }
    }

    /// The 18 bytes as they stand in keys: hash, then UUID.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 18] {
        let mut bytes = [0u8; 18];
        bytes[..2].copy_from_slice(&self.hash.0.to_be_bytes());
        bytes[2..].copy_from_slice(&self.uuid);
        bytes
    }

    /// Reads what [`RawId::to_bytes`] wrote.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<RawId> {
        let bytes: &[u8; 18] = bytes.try_into().ok()?;
        let mut uuid = [0u8; 16];
        uuid.copy_from_slice(&bytes[2..]);
        Some(RawId { hash: Hash16(u16::from_be_bytes([bytes[0], bytes[1]])), uuid })
    }

    /// The time in a time-ordered id.
    #[must_use]
    pub fn time(self) -> Millis {
        let mut ms = [0u8; 8];
        ms[2..].copy_from_slice(&self.uuid[..6]);
        Millis(u64::from_be_bytes(ms))
    }

    fn write(self, out: &mut fmt::Formatter<'_>, prefix: &str) -> fmt::Result {
        let bytes = self.to_bytes();
        let mut text = String::with_capacity(prefix.len() + 29);
        text.push_str(prefix);
        let (mut acc, mut bits) = (0u32, 0u32);
        for byte in bytes {
            acc = (acc << 8) | u32::from(byte);
            bits += 8;
            while bits >= 5 {
                bits -= 5;
                text.push(char::from(ALPHABET[((acc >> bits) & 31) as usize]));
            }
        }
        if bits > 0 {
            text.push(char::from(ALPHABET[((acc << (5 - bits)) & 31) as usize]));
        }
        out.write_str(&text)
    }

    fn read(text: &str, prefix: &'static str) -> Result<RawId, IdError> {
        let wrong = || IdError { text: text.chars().take(80).collect(), expected: prefix };
        let word = text.strip_prefix(prefix).ok_or_else(wrong)?;
        if word.len() != 29 {
            return Err(wrong());
        }
        let mut bytes = Vec::with_capacity(18);
        let (mut acc, mut bits) = (0u32, 0u32);
        for letter in word.bytes() {
            let value = ALPHABET.iter().position(|&known| known == letter).ok_or_else(wrong)?;
            acc = (acc << 5) | value as u32;
            bits += 5;
            if bits >= 8 {
                bits -= 8;
                bytes.push(((acc >> bits) & 0xff) as u8);
            }
        }
        if acc & ((1 << bits) - 1) != 0 {
            return Err(wrong());
        }
        RawId::from_bytes(&bytes).ok_or_else(wrong)
    }
}

impl fmt::Debug for RawId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(out, "")
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub RawId);

        /// As printed where people read it, as 18 bytes elsewhere.
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                if to.is_human_readable() { to.collect_str(self) } else { self.0.serialize(to) }
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                if from.is_human_readable() {
                    String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
                } else {
                    RawId::deserialize(from).map($name)
                }
            }
        }

        impl $name {
            /// The letters in front of this kind of id.
            pub const PREFIX: &'static str = $prefix;
        }
        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.write(out, $prefix)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.write(out, $prefix)
            }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                RawId::read(text, $prefix).map($name)
            }
        }
    };
}

id!(
    /// One message being handled.
    InvocationId,
    "inv_"
);
id!(
    /// One execution of a pipeline.
    RunId,
    "run_"
);
id!(
    /// One approval.
    ApprovalId,
    "apr_"
);
id!(
    /// One policy decision.
    DecisionId,
    "dec_"
);

/// The built-in actor type whose actors are runs.
pub const PIPELINE_TYPE: &str = "pipeline";

impl RunId {
    /// The id of a run: its UUID is the key of its actor, whose identity gives the hash.
    #[must_use]
    pub fn of(tenant: &str, uuid: [u8; 16]) -> RunId {
        let mut id = RunId(RawId { hash: Hash16(0), uuid });
        id.0.hash = id.actor(tenant).hash16();
        id
    }

    /// The run that an actor is, if it is one.
    #[must_use]
    pub fn of_actor(actor: &ActorId) -> Option<RunId> {
        let digits: Vec<u8> = if actor.kind == PIPELINE_TYPE { actor.key.bytes().collect() } else { return None };
        let mut uuid = [0u8; 16];
        if digits.len() != 2 * uuid.len() {
            return None;
        }
        for (byte, pair) in uuid.iter_mut().zip(digits.chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(RunId::of(&actor.tenant, uuid))
    }

    /// The id of a run started under an idempotency key, so that two starts meet.
    #[must_use]
    pub fn keyed(tenant: &str, pipeline: &str, key: &str) -> RunId {
        let mut hasher = blake3::Hasher::new();
        for part in [tenant, pipeline, key] {
            hasher.update(&(part.len() as u32).to_be_bytes());
            hasher.update(part.as_bytes());
        }
        let mut uuid = [0u8; 16];
        uuid.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        uuid[6] = 0x80 | (uuid[6] & 0x0f);
        uuid[8] = 0x80 | (uuid[8] & 0x3f);
        RunId::of(tenant, uuid)
    }

    /// The actor that this run is.
    #[must_use]
    pub fn actor(self, tenant: &str) -> ActorId {
        let key = self.0.uuid.iter().map(|byte| format!("{byte:02x}")).collect();
        ActorId { tenant: tenant.to_owned(), kind: PIPELINE_TYPE.to_owned(), key }
    }
}

/// The idempotency key of an outside effect: the same for each attempt.
///
/// Source: BLAKE3 over (owner, number, name), 32 hexadecimal characters.
#[must_use]
pub fn effect_key(owner: RawId, parts: &[&[u8]]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&owner.to_bytes());
    for part in parts {
        hasher.update(&(part.len() as u32).to_be_bytes());
        hasher.update(part);
    }
    hasher.finalize().to_hex()[..32].to_owned()
}

/// Appends a length-prefixed part to a key, so that no separator can be forged.
pub fn push_part(key: &mut Vec<u8>, part: &[u8]) {
    key.extend_from_slice(&(part.len() as u16).to_be_bytes());
    key.extend_from_slice(part);
}

/// A key of the store.
pub type Key = Bytes;
