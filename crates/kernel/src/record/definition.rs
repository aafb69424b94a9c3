//! The rows of stored pipelines: one for each version that is kept.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::key::{all, last_u64};
use super::kind::Kind;
use crate::id::{Key, push_part};
use crate::time::Millis;

/// A version of a pipeline.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StoredVersion {
    /// The pipeline's name.
    pub name: String,
    /// The hash of its content.
    pub version: String,
    /// When it was stored.
    pub at: Millis,
    /// Who stored it.
    pub by: String,
    /// [`crate::pipeline::definition::Definition`] as JSON.
    pub definition: Bytes,
}

/// All stored pipelines of a tenant in a shard.
#[must_use]
pub fn definitions_of(tenant: &str) -> Key {
    let mut key = all(Kind::Definition).to_vec();
    push_part(&mut key, tenant.as_bytes());
    key.into()
}

/// All versions of a pipeline, the newest first.
#[must_use]
pub fn versions_of(tenant: &str, name: &str) -> Key {
    let mut key = definitions_of(tenant).to_vec();
    push_part(&mut key, name.as_bytes());
    key.into()
}

/// Shard-wide, tenant, pipeline, n counted down → [`StoredVersion`].
#[must_use]
pub fn version_key(tenant: &str, name: &str, n: u64) -> Key {
    let mut key = versions_of(tenant, name).to_vec();
    key.extend_from_slice(&(u64::MAX - n).to_be_bytes());
    key.into()
}

/// The n in a key of [`version_key`].
#[must_use]
pub fn number_of(key: &[u8]) -> Option<u64> {
    Some(u64::MAX - last_u64(key)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::wire;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn later_versions_come_first_and_versions_round_trip(n in any::<u64>(), other in any::<u64>(), bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let (one, two) = (version_key("t", "p", n), version_key("t", "p", other));
            prop_assert_eq!(one.cmp(&two), other.cmp(&n));
            prop_assert_eq!(number_of(&one), Some(n));
            prop_assert!(!one.starts_with(&versions_of("t", "pp")));
            let stored = StoredVersion { name: "p".to_owned(), version: "v".to_owned(), at: Millis(n), by: "ada".to_owned(), definition: bytes.clone().into() };
            prop_assert_eq!(wire::decode::<StoredVersion>("stored pipeline", &wire::encode(&stored)).unwrap(), stored);
            let _ = wire::decode::<StoredVersion>("stored pipeline", &bytes);
        }
    }
}
