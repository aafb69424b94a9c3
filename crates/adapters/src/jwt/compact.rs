//! A token as it is presented: header, claims and signature in one text (RFC 7515, the compact form).

use data_encoding::BASE64URL_NOPAD;
use selvedge_kernel::auth::{Claims, TokenError, members};
use selvedge_kernel::limit::TOKEN_BYTES;
use serde_json::Value;

/// How a token may be signed. What is not here is not accepted, whatever a set of keys says: above all not `none`, and not
/// `HS256`, for which whoever can verify can sign.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Algorithm {
    Rs256,
    Es256,
    EdDsa,
}

impl Algorithm {
    pub(super) fn read(name: &str) -> Option<Algorithm> {
        match name {
            "RS256" => Some(Algorithm::Rs256),
            "ES256" => Some(Algorithm::Es256),
            "EdDSA" | "Ed25519" => Some(Algorithm::EdDsa),
            _ => None,
        }
    }
}

/// A token that was taken apart. Nothing in it is to be believed yet.
#[derive(Debug)]
pub(super) struct Token<'a> {
    pub algorithm: Algorithm,
    /// Which of its issuer's keys signed it. Other ways to name a key (`jku`, `x5u`, `jwk`, `x5c`) are not read: a token does not
    /// say itself who vouches for it.
    pub key: Option<String>,
    pub claims: Claims,
    pub signed: &'a [u8],
    pub signature: Vec<u8>,
}

/// Takes a token apart.
pub(super) fn read(text: &str) -> Result<Token<'_>, TokenError> {
    let malformed = TokenError::Malformed;
    if text.len() > TOKEN_BYTES {
        return Err(malformed("it is longer than 16 KiB"));
    }
    let mut parts = text.split('.');
    let (Some(header), Some(claims), Some(signature), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(malformed("it does not have three parts with a dot between them"));
    };
    let decoded = |part: &str| BASE64URL_NOPAD.decode(part.as_bytes()).map_err(|_| malformed("one of its parts is not base64url"));
    let signed = &text.as_bytes()[..header.len() + 1 + claims.len()];
    let header = members(&decoded(header)?).ok_or(malformed("its header is no JSON object, or has a name twice"))?;
    let algorithm = header.get("alg").and_then(Value::as_str).and_then(Algorithm::read).ok_or(TokenError::Algorithm)?;
    if header.contains_key("crit") {
        return Err(malformed("its header has extensions (`crit`) that are not known here"));
    }
    let kind = header.get("typ").map(|kind| kind.as_str().unwrap_or_default().to_ascii_lowercase());
    if kind.is_some_and(|kind| !matches!(kind.strip_prefix("application/").unwrap_or(&kind), "jwt" | "at+jwt")) {
        return Err(malformed("its header says (`typ`) that it is something else than `JWT` or `at+jwt`"));
    }
    let key = match header.get("kid") {
        None => None,
        Some(Value::String(key)) => Some(key.clone()),
        Some(_) => return Err(malformed("its header has a `kid` that is no text")),
    };
    let claims = Claims::read(&decoded(claims)?).ok_or(malformed("its claims are no JSON object, or have a name twice"))?;
    Ok(Token { algorithm, key, claims, signed, signature: decoded(signature)? })
}
