//! API keys, one row each. What is presented is never stored: the row holds BLAKE3 of it, keyed with 32 random bytes of its own.

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use super::key::all;
use super::kind::Kind;
use crate::id::{ActorId, Key, push_part};
use crate::journal::Hash32;
use crate::time::Millis;

/// The letters in front of every key, by which people and scanners recognise one.
pub const PREFIX: &str = "slv_";

/// An API key: who presents it is this principal.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ApiKey {
    /// The part of it that may be shown: [`PREFIX`] and 16 hexadecimal digits.
    pub id: String,
    /// The tenant that it opens.
    pub tenant: String,
    /// What it is for, for people.
    pub name: String,
    /// What it may act as.
    pub roles: Vec<String>,
    /// When it was made.
    pub created: Millis,
    /// Who made it.
    pub by: String,
    /// From when on it opens nothing, if it is meant to end.
    pub expires: Option<Millis>,
    /// Set once it opens nothing any more.
    pub revoked: Option<Revoked>,
    /// Keys the hash.
    pub salt: [u8; 32],
    /// BLAKE3 of the secret part, keyed with `salt`.
    pub hash: Hash32,
}

/// Who took a key back.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Revoked {
    /// When.
    pub at: Millis,
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// What is presented: the part that names a key, and the part that proves that one has it.
#[derive(Clone, PartialEq, Eq)]
pub struct Presented {
    /// [`ApiKey::id`].
    pub id: String,
    /// The secret.
    pub secret: [u8; 32],
}

impl Presented {
    /// Reads a key as it was shown when it was made; none if it is no key of ours.
    #[must_use]
    pub fn read(text: &str) -> Option<Presented> {
        let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
        if id.len() != 16 {
            return None;
        }
        let secret = HEXLOWER.decode(secret.as_bytes()).ok()?.try_into().ok()?;
        Some(Presented { id: format!("{PREFIX}{id}"), secret })
    }

    /// A new one of random bytes: 8 for the name, 32 for the secret.
    #[must_use]
    pub fn fresh(name: [u8; 8], secret: [u8; 32]) -> Presented {
        Presented { id: format!("{PREFIX}{}", HEXLOWER.encode(&name)), secret }
    }

    /// As it is shown, once.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}_{}", self.id, HEXLOWER.encode(&self.secret))
    }
}

/// The secret is not printed.
impl std::fmt::Debug for Presented {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}_…", self.id)
    }
}

/// What is stored of a secret.
#[must_use]
pub fn hash(salt: &[u8; 32], secret: &[u8; 32]) -> Hash32 {
    Hash32(*blake3::keyed_hash(salt, secret).as_bytes())
}

impl ApiKey {
    /// Whether this secret is its own. Two hashes are compared, in constant time.
    #[must_use]
    pub fn is(&self, secret: &[u8; 32]) -> bool {
        blake3::keyed_hash(&self.salt, secret) == blake3::Hash::from_bytes(self.hash.0)
    }

    /// Whether it opens something at this time.
    #[must_use]
    pub fn opens(&self, now: Millis) -> bool {
        self.revoked.is_none() && self.expires.is_none_or(|expires| now < expires)
    }
}

/// Whose shard holds the keys of a tenant.
#[must_use]
pub fn home(tenant: &str) -> ActorId {
    ActorId { tenant: tenant.to_owned(), kind: "api_key".to_owned(), key: String::new() }
}

/// All keys of a tenant.
#[must_use]
pub fn keys_of(tenant: &str) -> Key {
    let mut key = all(Kind::ApiKey).to_vec();
    push_part(&mut key, tenant.as_bytes());
    key.into()
}

/// Shard-wide, tenant, id → [`ApiKey`].
#[must_use]
pub fn row(tenant: &str, id: &str) -> Key {
    let mut key = keys_of(tenant).to_vec();
    push_part(&mut key, id.as_bytes());
    key.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::wire;
    use proptest::prelude::*;

    fn held(name: [u8; 8], secret: [u8; 32], salt: [u8; 32]) -> ApiKey {
        ApiKey {
            id: Presented::fresh(name, secret).id,
            tenant: "acme".to_owned(),
            name: "ci".to_owned(),
            roles: vec!["clerk".to_owned()],
            created: Millis(1),
            by: "local".to_owned(),
            expires: Some(Millis(9)),
            revoked: None,
            salt,
            hash: hash(&salt, &secret),
        }
    }

    proptest! {
        #[test]
        fn a_key_is_recognised_by_its_own_secret_alone_and_its_row_does_not_hold_it(
            name in any::<[u8; 8]>(), secret in any::<[u8; 32]>(), other in any::<[u8; 32]>(), salt in any::<[u8; 32]>()
        ) {
            let presented = Presented::fresh(name, secret);
            prop_assert_eq!(Presented::read(&presented.text()), Some(presented.clone()));
            let key = held(name, secret, salt);
            prop_assert!(key.is(&secret));
            prop_assert_eq!(key.is(&other), other == secret);
            let row = wire::encode(&key);
            prop_assert!(!row.windows(32).any(|part| part == secret), "only a keyed hash is stored");
            prop_assert_eq!(wire::decode::<ApiKey>("API key", &row).unwrap(), key);
            let text = HEXLOWER.encode(&secret);
            let printed = format!("{:?}", presented);
            prop_assert!(!printed.contains(&text));
        }

        #[test]
        fn any_text_is_a_key_or_none(text in ".{0,120}", bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(read) = Presented::read(&text) {
                prop_assert_eq!(read.text(), text);
            }
            let _ = wire::decode::<ApiKey>("API key", &bytes);
        }
    }

    #[test]
    fn a_key_opens_nothing_from_its_end_on_and_nothing_once_it_is_revoked() {
        let key = held([1; 8], [2; 32], [3; 32]);
        assert_eq!([8, 9, 10].map(|at| key.opens(Millis(at))), [true, false, false]);
        let revoked = Revoked { at: Millis(2), by: "local".to_owned(), reason: "lost".to_owned() };
        assert!(!ApiKey { revoked: Some(revoked), ..key }.opens(Millis(3)));
    }
}
