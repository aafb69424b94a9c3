//! One issuer, with the keys that it has now.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use selvedge_kernel::auth::{AuthorizationContext, Issuer, RequestFacts, TokenError, from_jwt};
use tokio::time::Instant;

use super::compact::Token;
use super::fetch::Source;
use super::keys::Keys;

/// How often a set of keys is fetched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pace {
    /// Between two looks for a key that is not known, whoever asks: nobody can make us ask an issuer more often than that.
    pub again: Duration,
    /// How old what was fetched becomes before it is fetched again.
    pub age: Duration,
}

/// Of a set at a URL.
impl Default for Pace {
    fn default() -> Pace {
        Pace { again: Duration::from_secs(10), age: Duration::from_secs(300) }
    }
}

/// What is wrong with a set that has keys of other kinds alone.
pub(super) const NO_KEY: &str = "there is no key in it that can be used (RSA of 2048 bits, P-256, Ed25519)";
/// Of a file, which costs next to nothing.
const FILE: Pace = Pace { again: Duration::from_secs(1), age: Duration::from_secs(5) };

pub(super) struct Trusted {
    name: String,
    issuer: Issuer,
    source: Source,
    pace: Pace,
    held: RwLock<Held>,
    /// When the set was fetched last, or that was tried; whoever holds it fetches.
    looked: tokio::sync::Mutex<Option<Instant>>,
}

#[derive(Default)]
struct Held {
    keys: Option<Arc<Keys>>,
    /// Why the set is not what it should be.
    trouble: Option<String>,
}

impl Trusted {
    pub(super) fn new(name: String, issuer: Issuer, pace: Pace) -> Result<Trusted, String> {
        let source = Source::read(&issuer.jwks)?;
        let pace = if matches!(source, Source::File(_)) { FILE } else { pace };
        Ok(Trusted { name, issuer, source, pace, held: RwLock::default(), looked: tokio::sync::Mutex::default() })
    }

    pub(super) fn is_file(&self) -> bool {
        matches!(self.source, Source::File(_))
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn is(&self, issuer: &str) -> bool {
        self.issuer.issuer == issuer
    }

    /// Where its keys lie, for people, and what is wrong with them.
    pub(super) fn trouble(&self) -> Option<String> {
        let trouble = self.held.read().unwrap_or_else(PoisonError::into_inner).trouble.clone()?;
        Some(format!("the keys of the issuer `{}` at {}: {trouble}", self.name, self.source.shown()))
    }

    /// Who presents a token, by the keys at hand.
    pub(super) fn verify(&self, token: &Token<'_>, request: RequestFacts) -> Result<AuthorizationContext, TokenError> {
        let (keys, trouble) = {
            let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
            (held.keys.clone(), held.trouble.is_some())
        };
        let Some(key) = keys.as_deref().and_then(|keys| keys.find(token.algorithm, token.key.as_deref())) else {
            // Where the keys lie, and what is wrong there, is for who looks after this server: it is on its standard error.
            let trouble = trouble.then(|| "its keys could not be read".to_owned());
            return Err(TokenError::UnknownKey { issuer: self.name.clone(), trouble });
        };
        if !key.verifies(token.signed, &token.signature) {
            return Err(TokenError::Signature);
        }
        from_jwt(&token.claims, &self.name, &self.issuer, request)
    }

    /// Looks for keys that are not known, unless that was done just now. Whoever comes while somebody looks waits for that.
    pub(super) async fn look_again(&self) {
        self.look(self.pace.again).await;
    }

    /// Fetches the set again if it is old.
    pub(super) async fn keep_fresh(&self) {
        let trouble = self.held.read().unwrap_or_else(PoisonError::into_inner).trouble.is_some();
        self.look(if trouble { self.pace.again } else { self.pace.age }).await;
    }

    async fn look(&self, age: Duration) {
        let mut looked = self.looked.lock().await;
        if looked.is_some_and(|at| at.elapsed() < age) {
            return;
        }
        *looked = Some(Instant::now());
        let read = match self.source.fetch().await {
            Ok(bytes) => Keys::read(&bytes),
            Err(error) => Err(error),
        };
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        match read {
            Ok(keys) => {
                held.trouble = keys.is_empty().then(|| NO_KEY.to_owned());
                held.keys = Some(Arc::new(keys));
            }
            Err(error) => {
                let stands = if held.keys.is_some() { "what was read before stays in force" } else { "its tokens open nothing until they are read" };
                held.trouble = Some(format!("{error}; {stands}"));
            }
        }
    }
}
