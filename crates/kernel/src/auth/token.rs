//! Tokens of other issuers (JWT): what their claims must say, and who presents them.
//!
//! What comes here is a token whose signature was verified with a key of its issuer. RFC 7519 says what the claims mean.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{AuthorizationContext, Principal, PrincipalKind, RequestFacts};
use crate::limit::{CLAIM_BYTES, KEY_PART_BYTES, ROLES};
use crate::policy::Span;
use crate::time::Millis;

mod claims;

pub use claims::{Claims, members};

/// Somebody whose tokens are believed, and what they mean here.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// What its tokens say in `iss`, letter for letter.
    pub issuer: String,
    /// What its tokens say in `aud`: one of these.
    pub audience: OneOrMany,
    /// Where its keys are: a URL, or a file.
    pub jwks: String,
    /// How far its clock may be from ours.
    #[serde(default = "skew")]
    pub skew: Span,
    /// Whose tenant its tokens open.
    pub tenant: Tenant,
    /// What whoever presents one may act as.
    pub roles: Roles,
    /// Claims that policies can look at, beside `iss`.
    #[serde(default)]
    pub claims: Vec<String>,
}

fn skew() -> Span {
    Span(std::time::Duration::from_secs(60))
}

/// A text, or several.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    /// This one.
    One(String),
    /// Any of these.
    Many(Vec<String>),
}

impl OneOrMany {
    fn has(&self, text: &str) -> bool {
        match self {
            OneOrMany::One(one) => one == text,
            OneOrMany::Many(many) => many.iter().any(|one| one == text),
        }
    }
}

/// Whose tenant the tokens of an issuer open.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Tenant {
    /// This one.
    Fixed(String),
    /// The one that a claim says.
    Claim {
        /// Which claim: its name, or a JSON Pointer into the claims.
        claim: String,
        /// What its values mean here; without an entry the value is the tenant itself.
        #[serde(default)]
        map: BTreeMap<String, String>,
    },
}

/// What whoever presents a token may act as.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Roles {
    /// These.
    Fixed(Vec<String>),
    /// Those that a claim says.
    Claim {
        /// Which claim: its name, or a JSON Pointer into the claims.
        claim: String,
        /// What its values mean here; without an entry each value is a role itself.
        #[serde(default)]
        map: BTreeMap<String, String>,
    },
}

/// Why a token opens nothing. None of them repeats what the token says, but for times.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TokenError {
    /// It is no JWT.
    #[error("it is neither a key of ours nor a token (JWT): {0}")]
    Malformed(&'static str),
    /// Signed in a way that is not accepted, whatever the keys of its issuer say.
    #[error("the token is signed with an algorithm that is not accepted: RS256, ES256 and EdDSA are")]
    Algorithm,
    /// Nobody whose tokens are believed.
    #[error("the token is of an issuer (`iss`) that is not configured here")]
    Issuer,
    /// The set of its issuer has no such key.
    #[error("the token is signed with a key that `{issuer}` does not have{}", .trouble.as_deref().map(|why| format!(" ({why})")).unwrap_or_default())]
    UnknownKey {
        /// Whose key.
        issuer: String,
        /// What is wrong with the set of keys, if something is.
        trouble: Option<String>,
    },
    /// Forged, or broken on its way.
    #[error("the signature of the token is wrong")]
    Signature,
    /// A claim that has to be there.
    #[error("the token has no `{0}`, or one that is none")]
    Claim(&'static str),
    /// For somebody else.
    #[error("the token is for somebody else: its `aud` is not the configured one")]
    Audience,
    /// Its time is over.
    #[error("the token ended at {0}: ask its issuer for another one")]
    Expired(Millis),
    /// Its time has not come.
    #[error("the token opens nothing before {0}: if that is past, compare the clocks of its issuer and of this server")]
    NotYet(Millis),
    /// No tenant of ours.
    #[error("the claim `{0}` of the token names no tenant of this configuration")]
    Tenant(String),
    /// More than a principal can have.
    #[error("the claim `{claim}` of the token names {count} roles, the limit is {ROLES}: `roles.map` in the configuration picks those that count")]
    Roles {
        /// Which claim.
        claim: String,
        /// How many.
        count: usize,
    },
    /// What policies are to look at is none that they could.
    #[error("the claim `{0}` of the token is no text, number or boolean of at most {CLAIM_BYTES} bytes, and policies are to look at it")]
    Shown(String),
}

/// The context of whoever presented a token of this issuer, which is called `name` here; its signature has been verified. The
/// principal is `name:sub`: who is known to two issuers is two. The end of the token stands at the door alone, as that of a key.
///
/// # Errors
/// Claims that are not there, that say something else than they have to, or whose time is not now.
pub fn from_jwt(claims: &Claims, name: &str, issuer: &Issuer, request: RequestFacts) -> Result<AuthorizationContext, TokenError> {
    if claims.text("iss") != Some(&issuer.issuer) {
        return Err(TokenError::Issuer);
    }
    audience(claims, issuer)?;
    in_time(claims, issuer, request.at)?;
    let id = claims.text("sub").map(|subject| format!("{name}:{subject}")).filter(|id| id.len() > name.len() + 1);
    let id = id.filter(|id| is_part(id)).ok_or(TokenError::Claim("sub"))?;
    Ok(AuthorizationContext {
        principal: Principal { id, kind: PrincipalKind::User, tenant: tenant(claims, issuer)?, roles: roles(claims, issuer)? },
        chain: Vec::new(),
        claims: shown(claims, issuer)?,
        request,
        until: None,
    })
}

fn audience(claims: &Claims, issuer: &Issuer) -> Result<(), TokenError> {
    let meant = match claims.get("aud") {
        Some(Value::String(one)) => issuer.audience.has(one),
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).any(|one| issuer.audience.has(one)),
        _ => return Err(TokenError::Claim("aud")),
    };
    if meant { Ok(()) } else { Err(TokenError::Audience) }
}

/// `exp` has to be there: a token without an end could never be taken back.
fn in_time(claims: &Claims, issuer: &Issuer, now: Millis) -> Result<(), TokenError> {
    let expires = claims.time("exp").ok().flatten().ok_or(TokenError::Claim("exp"))?;
    let begins = claims.time("nbf").map_err(|()| TokenError::Claim("nbf"))?;
    if now >= expires.after(issuer.skew.0) {
        return Err(TokenError::Expired(expires));
    }
    match begins {
        Some(begins) if now.after(issuer.skew.0) < begins => Err(TokenError::NotYet(begins)),
        _ => Ok(()),
    }
}

/// Whether a text can be part of a key.
fn is_part(text: &str) -> bool {
    !text.is_empty() && text.len() <= KEY_PART_BYTES && !text.chars().any(char::is_control)
}

fn tenant(claims: &Claims, issuer: &Issuer) -> Result<String, TokenError> {
    let (claim, map) = match &issuer.tenant {
        Tenant::Fixed(tenant) => return Ok(tenant.clone()),
        Tenant::Claim { claim, map } => (claim, map),
    };
    let said = claims.at(claim).and_then(Value::as_str);
    let tenant = match said {
        Some(said) if map.is_empty() => Some(said).filter(|said| is_part(said)),
        Some(said) => map.get(said).map(String::as_str),
        None => None,
    };
    tenant.map(str::to_owned).ok_or_else(|| TokenError::Tenant(claim.clone()))
}

/// Values that have no meaning here give no role; who has no role is somebody whom no policy need allow anything.
fn roles(claims: &Claims, issuer: &Issuer) -> Result<Vec<String>, TokenError> {
    let (claim, map) = match &issuer.roles {
        Roles::Fixed(roles) => return Ok(roles.clone()),
        Roles::Claim { claim, map } => (claim, map),
    };
    let said: Vec<&str> = match claims.at(claim) {
        Some(Value::String(text)) => text.split_whitespace().collect(),
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let meant = |said: &str| if map.is_empty() { Some(said.to_owned()).filter(|role| is_role(role)) } else { map.get(said).cloned() };
    let roles: BTreeSet<String> = said.into_iter().filter_map(meant).collect();
    if roles.len() > ROLES {
        return Err(TokenError::Roles { claim: claim.clone(), count: roles.len() });
    }
    Ok(roles.into_iter().collect())
}

/// Whether a text is the name of a role.
#[must_use]
pub fn is_role(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-.:".contains(c))
}

/// What policies see. What they are to see and could not is no token to let in: a `forbid` might rest on it.
fn shown(claims: &Claims, issuer: &Issuer) -> Result<BTreeMap<String, String>, TokenError> {
    let mut shown = BTreeMap::from([("iss".to_owned(), issuer.issuer.clone())]);
    for name in &issuer.claims {
        let text = match claims.at(name) {
            None | Some(Value::Null) => continue,
            Some(Value::String(text)) => text.clone(),
            Some(Value::Array(many)) if many.iter().all(Value::is_string) => many.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
            Some(value @ (Value::Number(_) | Value::Bool(_))) => value.to_string(),
            Some(_) => return Err(TokenError::Shown(name.clone())),
        };
        if text.len() > CLAIM_BYTES {
            return Err(TokenError::Shown(name.clone()));
        }
        shown.insert(name.clone(), text);
    }
    Ok(shown)
}

#[cfg(test)]
mod tests;
