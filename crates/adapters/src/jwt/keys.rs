//! The set of an issuer's keys (RFC 7517), and signatures that are verified with it.

use data_encoding::BASE64URL_NOPAD;
use ring::signature::{ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey};
use selvedge_kernel::limit::{KEY_SET, KEY_SET_BYTES};
use serde_json::{Map, Value};

use super::compact::Algorithm;

/// The keys of a set that can be used.
#[derive(Debug, Default)]
pub(super) struct Keys(Vec<Key>);

#[derive(Debug)]
struct Key {
    id: Option<String>,
    public: Public,
}

#[derive(Debug)]
pub(super) enum Public {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// A point that is not compressed.
    P256(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl Keys {
    /// Reads a set. Keys of other kinds, for other purposes, or too short are left out: a set may hold what others need.
    ///
    /// # Errors
    /// What is no set at all.
    pub(super) fn read(json: &[u8]) -> Result<Keys, String> {
        if json.len() > KEY_SET_BYTES {
            return Err(format!("it has more than {KEY_SET_BYTES} bytes"));
        }
        let set: Value = serde_json::from_slice(json).map_err(|error| format!("it is no JSON: {error}"))?;
        let keys = set.get("keys").and_then(Value::as_array).ok_or("it is no set of keys: {\"keys\": […]} is one")?;
        if keys.len() > KEY_SET {
            return Err(format!("it has {} keys, the limit is {KEY_SET}", keys.len()));
        }
        Ok(Keys(keys.iter().filter_map(Value::as_object).filter_map(Key::read).collect()))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The key that a token names, or, where it names none, the only one that it can be.
    pub(super) fn find(&self, algorithm: Algorithm, id: Option<&str>) -> Option<&Public> {
        let mut fitting = self.0.iter().filter(|key| key.public.algorithm() == algorithm && (id.is_none() || key.id.as_deref() == id));
        match (fitting.next(), fitting.next()) {
            (Some(found), None) => Some(&found.public),
            (Some(found), Some(_)) if id.is_some() => Some(&found.public),
            _ => None,
        }
    }
}

impl Key {
    fn read(key: &Map<String, Value>) -> Option<Key> {
        let text = |name: &str| key.get(name).and_then(Value::as_str);
        let bytes = |name: &str| BASE64URL_NOPAD.decode(text(name)?.trim_end_matches('=').as_bytes()).ok();
        if text("use").is_some_and(|purpose| purpose != "sig") {
            return None;
        }
        if key.get("key_ops").is_some_and(|may| !may.as_array().is_some_and(|may| may.iter().any(|one| one == "verify"))) {
            return None;
        }
        let public = match (text("kty")?, text("crv")) {
            ("RSA", _) => {
                let (n, e) = (plain(&bytes("n")?), plain(&bytes("e")?));
                (n.len() >= 256 && n.len() <= 1024).then_some(Public::Rsa { n, e })?
            }
            ("EC", Some("P-256")) => {
                let (x, y) = (bytes("x")?, bytes("y")?);
                (x.len() == 32 && y.len() == 32).then(|| Public::P256([&[4][..], &x, &y].concat()))?
            }
            ("OKP", Some("Ed25519")) => Public::Ed25519(bytes("x").filter(|x| x.len() == 32)?),
            _ => return None,
        };
        let meant = key.get("alg").is_none_or(|name| name.as_str().and_then(Algorithm::read) == Some(public.algorithm()));
        meant.then(|| Key { id: text("kid").map(str::to_owned), public })
    }
}

/// A number without zeros in front.
fn plain(number: &[u8]) -> Vec<u8> {
    number.iter().copied().skip_while(|byte| *byte == 0).collect()
}

impl Public {
    /// A key is for one algorithm: it is never asked to verify what another one made.
    fn algorithm(&self) -> Algorithm {
        match self {
            Public::Rsa { .. } => Algorithm::Rs256,
            Public::P256(_) => Algorithm::Es256,
            Public::Ed25519(_) => Algorithm::EdDsa,
        }
    }

    pub(super) fn verifies(&self, signed: &[u8], signature: &[u8]) -> bool {
        let verified = match self {
            Public::Rsa { n, e } => RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, signed, signature),
            Public::P256(point) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(signed, signature),
            Public::Ed25519(key) => UnparsedPublicKey::new(&ED25519, key).verify(signed, signature),
        };
        verified.is_ok()
    }
}
