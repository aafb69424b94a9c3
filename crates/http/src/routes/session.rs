//! `/v1/session`: a browser asks with a cookie instead of a key.

use axum::http::HeaderMap;
use selvedge_kernel::auth::{Action, Resource};
use selvedge_kernel::error::Consequence;
use selvedge_kernel::limit::{SESSION_MS, SESSIONS};
use serde_json::{Value, json};

use crate::answer::{Answer, Done};
use crate::caller::Caller;
use crate::refusal::Refusal;
use crate::session::{Secret, cookie, is_tls};
use crate::shapes::principals::Session;

/// Opens a session for whoever presents a key or a token, and may read in its tenant. It ends after twelve hours, with what was
/// presented, and with this process. What it asks for and changes something has the header `X-Selvedge-Session`.
#[utoipa::path(post, path = "/v1/session", tag = "session",
    responses((status = 201, description = "the cookie is `selvedge_session`: HttpOnly, SameSite=Strict", body = Session)))]
pub(crate) async fn open(caller: Caller, headers: HeaderMap) -> Done {
    may(&caller)?;
    let Caller { door, context, credential, session: None, .. } = &caller else {
        let text = "a session is opened with a key or a token in `Authorization`, and not with another session";
        return Err(Refusal::new(Consequence::FixInput, "bad_request", text));
    };
    let principal = &context.principal;
    let mut secret = Secret::default();
    door.engine.draw_secret(&mut secret);
    let whose = (principal.tenant.clone(), principal.id.clone());
    let Some(ends) = door.sessions.open(secret, credential.clone(), whose, door.engine.now()) else {
        let text = format!("there are {SESSIONS} sessions, which is as many as this process holds: close some, or ask with the key itself");
        return Err(Refusal::new(Consequence::Limit, "limit: sessions", text));
    };
    let shown = json!({ "principal": principal.id, "tenant": principal.tenant, "roles": principal.roles, "ends": ends.to_string() });
    Ok(Answer::created(shown).cookie(&cookie(&secret, SESSION_MS / 1_000, over_tls(&caller, &headers))))
}

/// Ends the session that asks, and its streams.
#[utoipa::path(delete, path = "/v1/session", tag = "session", responses((status = 204, description = "it is over")))]
pub(crate) async fn end(caller: Caller, headers: HeaderMap) -> Done {
    may(&caller)?;
    if let Some(secret) = &caller.session {
        caller.door.sessions.end(secret);
    }
    Ok(Answer::of(Value::Null).cookie(&cookie(&Secret::default(), 0, over_tls(&caller, &headers))))
}

/// Whether the client speaks TLS, to us or to what stands in front of us.
fn over_tls(caller: &Caller, headers: &HeaderMap) -> bool {
    caller.encrypted.is_some() || is_tls(headers)
}

/// A session is for whoever may look at something.
fn may(caller: &Caller) -> Result<(), Refusal> {
    caller.asker().permit(Action::Read, Resource::Tenant { tenant: caller.asker().tenant() })?;
    Ok(())
}
