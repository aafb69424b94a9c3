//! Tokens (JWT) of issuers whom the configuration names, verified with the keys that each of them has now.

mod compact;
mod fetch;
mod keys;
mod trusted;

use std::collections::BTreeMap;
use std::sync::Arc;

use keys::Keys;
use selvedge_kernel::auth::{AuthorizationContext, Issuer, RequestFacts, TokenError};
use selvedge_kernel::config::{KeySet, place_of_keys};

pub use trusted::Pace;
use trusted::Trusted;

/// Everybody whose tokens are believed.
pub struct Issuers(Vec<Arc<Trusted>>);

/// Issuers that cannot be used: nothing was opened.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unusable(pub String);

/// Why the keys of an issuer cannot be used, where they lie in a file; none: they can, or they are at a URL, which may be down.
#[must_use]
pub fn unusable_file(jwks: &str) -> Option<String> {
    let Ok(KeySet::File(file)) = place_of_keys(jwks) else { return None };
    let read = std::fs::read(file).map_err(|error| error.to_string()).and_then(|bytes| Keys::read(&bytes));
    match read {
        Ok(keys) if keys.is_empty() => Some(trusted::NO_KEY.to_owned()),
        Ok(_) => None,
        Err(error) => Some(error),
    }
}

impl Issuers {
    /// Reads the keys that lie in files; those at URLs are fetched by [`Issuers::keep_fresh`] and by who needs them: a server that
    /// is away for a while keeps nobody from starting.
    ///
    /// # Errors
    /// A file that cannot be read, is no set of keys, or has none that can be used.
    pub async fn open(issuers: BTreeMap<String, Issuer>, pace: Pace) -> Result<Issuers, Unusable> {
        let mut all = Vec::with_capacity(issuers.len());
        for (name, issuer) in issuers {
            let trusted = Trusted::new(name, issuer, pace).map_err(Unusable)?;
            if trusted.is_file() {
                trusted.look_again().await;
                if let Some(trouble) = trusted.trouble() {
                    return Err(Unusable(trouble));
                }
            }
            all.push(Arc::new(trusted));
        }
        Ok(Issuers(all))
    }

    /// Who presents a token. It waits for its issuer only if the token is signed with a key that is not known, and no more often
    /// than its pace says.
    ///
    /// # Errors
    /// Why it opens nothing.
    pub async fn verify(&self, text: &str, request: RequestFacts) -> Result<AuthorizationContext, TokenError> {
        let token = compact::read(text)?;
        let named = token.claims.text("iss").ok_or(TokenError::Claim("iss"))?;
        let trusted = self.0.iter().find(|trusted| trusted.is(named)).ok_or(TokenError::Issuer)?;
        match trusted.verify(&token, request.clone()) {
            Err(TokenError::UnknownKey { .. }) => {
                // On its own: who goes away meanwhile does not break it off for others.
                let looks = trusted.clone();
                let _ = tokio::spawn(async move { looks.look_again().await }).await;
                trusted.verify(&token, request)
            }
            verified => verified,
        }
    }

    /// Fetches again what is old, from all issuers at once.
    pub async fn keep_fresh(&self) {
        let mut looks = tokio::task::JoinSet::new();
        for trusted in &self.0 {
            let trusted = trusted.clone();
            looks.spawn(async move { trusted.keep_fresh().await });
        }
        while looks.join_next().await.is_some() {}
    }

    /// The issuers, by name, each with whether its keys could be read when that was tried last.
    #[must_use]
    pub fn states(&self) -> Vec<(String, bool)> {
        self.0.iter().map(|trusted| (trusted.name().to_owned(), trusted.trouble().is_none())).collect()
    }

    /// What is wrong with the keys of each issuer that has something wrong.
    #[must_use]
    pub fn troubles(&self) -> Vec<String> {
        self.0.iter().filter_map(|trusted| trusted.trouble()).collect()
    }
}

#[cfg(test)]
mod tests;
