//! Sessions of browsers: a cookie stands for a credential that stays here.
//!
//! A cookie comes along with requests that no page of ours has made. So it is never sent from another site (`SameSite=Strict`), no
//! script reads it (`HttpOnly`), and what changes something wants a header as well, which no other origin can send without asking.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use selvedge_kernel::limit::{SESSION_MS, SESSIONS, SESSIONS_OF_ONE, SESSIONS_OF_TENANT};
use selvedge_kernel::time::Millis;

/// The name of the cookie.
pub(crate) const COOKIE: &str = "selvedge_session";
/// The header that a request of a session has to have if it changes something.
pub(crate) const PROOF: &str = "x-selvedge-session";

/// What a cookie says: nobody guesses it.
pub(crate) type Secret = [u8; 32];

/// The sessions of a process: a restart ends them.
#[derive(Default)]
pub struct Sessions(Mutex<HashMap<Secret, Session>>);

struct Session {
    credential: String,
    /// Tenant and principal.
    whose: (String, String),
    ends: Millis,
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Sessions")
    }
}

impl Sessions {
    /// Opens one; when it ends. None: there are as many as a process holds. Somebody's own oldest one makes room for the next.
    pub(crate) fn open(&self, secret: Secret, credential: String, whose: (String, String), now: Millis) -> Option<Millis> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ends = now.after(std::time::Duration::from_millis(SESSION_MS));
        if held.values().filter(|session| session.whose == whose).count() >= SESSIONS_OF_ONE {
            let own = held.iter().filter(|(_, session)| session.whose == whose);
            let oldest = own.min_by_key(|(_, session)| session.ends).map(|(secret, _)| *secret);
            if let Some(oldest) = oldest {
                held.remove(&oldest);
            }
        }
        if held.len() >= SESSIONS {
            held.retain(|_, session| now < session.ends);
        }
        let of_tenant = held.values().filter(|session| session.whose.0 == whose.0).count();
        if held.len() >= SESSIONS || of_tenant >= SESSIONS_OF_TENANT {
            return None;
        }
        held.insert(secret, Session { credential, whose, ends });
        Some(ends)
    }

    /// The credential that a session stands for.
    pub(crate) fn credential(&self, secret: &Secret, now: Millis) -> Option<String> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.get(secret).filter(|session| now < session.ends).map(|session| session.credential.clone())
    }

    pub(crate) fn end(&self, secret: &Secret) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(secret);
    }
}

/// What the cookie of a request says, if it has one.
pub(crate) fn presented(headers: &HeaderMap) -> Option<Secret> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut said = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('=')).filter(|(name, _)| *name == COOKIE);
    let (Some((_, text)), None) = (said.next(), said.next()) else { return None };
    let mut secret = Secret::default();
    if text.len() != secret.len() * 2 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (at, byte) in secret.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).ok()?;
    }
    Some(secret)
}

/// Whether a request with a cookie is one of our own pages: it changes nothing, or it has the header that proves it.
pub(crate) fn is_own(parts: &Parts) -> bool {
    parts.method.is_safe() || parts.headers.get(PROOF).is_some_and(|value| !value.is_empty())
}

/// The cookie as it is given, for so many seconds. It is kept from connections without TLS where this one has it.
pub(crate) fn cookie(secret: &Secret, seconds: u64, tls: bool) -> String {
    let text: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{COOKIE}={text}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{}", if tls { "; Secure" } else { "" })
}

/// Whether the client speaks TLS, to what stands in front of us. Whoever lies about it, lies about a cookie of his own.
pub(crate) fn is_tls(headers: &HeaderMap) -> bool {
    let said = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_ascii_lowercase();
    said("x-forwarded-proto").trim() == "https" || said("forwarded").split([';', ',']).any(|part| matches!(part.trim(), "proto=https" | "proto=\"https\""))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn secret(n: usize) -> Secret {
        let mut secret = Secret::default();
        secret[..8].copy_from_slice(&(n as u64).to_be_bytes());
        secret
    }

    fn whose(n: usize) -> (String, String) {
        (format!("tenant-{}", n / 500), format!("corp:{n}"))
    }

    #[test]
    fn one_tenant_does_not_take_the_sessions_of_all() {
        let sessions = Sessions::default();
        let of = |n: usize| ("acme".to_owned(), format!("corp:{n}"));
        for n in 0..SESSIONS_OF_TENANT {
            sessions.open(secret(n), String::new(), of(n), Millis(0)).unwrap();
        }
        assert_eq!(sessions.open(secret(SESSIONS), String::new(), of(SESSIONS), Millis(0)), None);
        assert!(sessions.open(secret(SESSIONS), String::new(), whose(0), Millis(0)).is_some());
    }

    #[test]
    fn sessions_are_bounded_for_each_and_for_all_and_end_by_themselves() {
        let sessions = Sessions::default();
        let ends = sessions.open(secret(0), "first".to_owned(), whose(0), Millis(0)).unwrap();
        assert_eq!(ends, Millis(SESSION_MS));
        for n in 1..=SESSIONS_OF_ONE {
            sessions.open(secret(n), "more".to_owned(), whose(0), Millis(n as u64)).unwrap();
        }
        assert_eq!(sessions.credential(&secret(0), Millis(9)), None, "the oldest of one's own makes room");
        assert_eq!(sessions.credential(&secret(1), Millis(SESSION_MS)).as_deref(), Some("more"));
        assert_eq!(sessions.credential(&secret(1), Millis(SESSION_MS + 1)), None);
        // Filled by hand: each opening looks at all that there are.
        let ends = Millis(SESSION_MS + 9);
        let others = (SESSIONS_OF_ONE + 1..SESSIONS).map(|n| (secret(n), Session { credential: String::new(), whose: whose(n), ends }));
        sessions.0.lock().unwrap().extend(others);
        sessions.open(secret(SESSIONS), String::new(), whose(SESSIONS), Millis(9)).unwrap();
        assert_eq!(sessions.open(secret(SESSIONS + 1), String::new(), whose(SESSIONS + 1), Millis(9)), None, "nobody else's does");
        assert!(sessions.open(secret(SESSIONS + 1), String::new(), whose(SESSIONS + 1), Millis(SESSION_MS + 9)).is_some());
        sessions.end(&secret(SESSIONS + 1));
        assert_eq!(sessions.credential(&secret(SESSIONS + 1), Millis(SESSION_MS + 9)), None);
    }

    #[test]
    fn a_cookie_is_read_as_it_was_given_and_two_of_them_are_none() {
        let given = cookie(&secret(7), 9, true);
        assert!(given.ends_with("; Path=/; Max-Age=9; HttpOnly; SameSite=Strict; Secure"), "{given}");
        let pair = given.split(';').next().unwrap();
        let read = |lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::COOKIE, line.parse().unwrap());
            }
            presented(&headers)
        };
        assert_eq!(read(&[&format!("a=b; {pair}; c=d")]), Some(secret(7)));
        let long = format!("{COOKIE}={}", "0".repeat(65));
        let wide = format!("{COOKIE}=+{}", "0".repeat(63));
        for wrong in [&[][..], &["a=b"], &[pair, pair], &[&long], &[&wide], &[&format!("x{pair}")]] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }
}
