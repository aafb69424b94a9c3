//! Who asks: every handler takes one, and there is no way to the engine but through it.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::header;
use axum::http::request::Parts;
use selvedge_engine::desk::Asker;
use selvedge_kernel::auth::{AuthorizationContext, RequestFacts, from_session};
use selvedge_kernel::error::Consequence;
use selvedge_kernel::limit::FAILED_CREDENTIALS;
use selvedge_kernel::record::api_key::PREFIX;

use crate::door::Door;
use crate::refusal::{Refusal, UNAUTHENTICATED};
use crate::server::Encrypted;
use crate::session::{self, Secret};

/// So many times as often as a tenant may ask, its workers may say how their tasks are.
const REPORTS: u64 = 10;

/// Whoever presented a credential that we know. The tenant is that of the credential, whatever a request says.
pub struct Caller {
    pub(crate) door: Arc<Door>,
    pub(crate) context: AuthorizationContext,
    pub(crate) credential: String,
    /// The version of policies and keys before the credential was looked at.
    pub(crate) version: u64,
    /// The session that stands for the credential, if it is not presented itself.
    pub(crate) session: Option<Secret>,
    /// What says that it came over TLS of ours.
    pub(crate) encrypted: Option<Encrypted>,
}

impl Caller {
    /// Asks as this caller; each verb takes its own permit.
    pub(crate) fn asker(&self) -> Asker<'_> {
        Asker { engine: &self.door.engine, context: &self.context, binary: &self.door.binary }
    }

    /// Looks again at the credential: of one that was revoked meanwhile nothing is left.
    pub(crate) async fn again(&mut self) -> Result<(), Refusal> {
        self.context = self.still().await?;
        Ok(())
    }

    /// Waits for policies, keys or who is disabled to be others than of a version, which becomes that of now; false: the server stops.
    pub(crate) async fn changed_after(&self, version: &mut u64) -> bool {
        let changed = self.door.versions.clone().wait_for(|now| *now != *version).await.map(|now| *now);
        changed.map(|now| *version = now).is_ok()
    }

    /// Who the credential names now, if it is still one.
    pub(crate) async fn still(&self) -> Result<AuthorizationContext, Refusal> {
        let facts = RequestFacts { address: self.context.request.address.clone(), at: self.door.engine.now() };
        let Some(session) = &self.session else { return whoever(&self.door, &self.credential, facts).await };
        let credential = self.door.sessions.credential(session, facts.at).ok_or_else(over)?;
        let known = whoever(&self.door, &credential, facts.clone()).await?;
        Ok(from_session(&known, facts))
    }
}

/// Who presents a credential: a key of ours, or a token of somebody who is believed.
async fn whoever(door: &Door, credential: &str, facts: RequestFacts) -> Result<AuthorizationContext, Refusal> {
    let known = match &door.tokens {
        Some(tokens) if !credential.starts_with(PREFIX) => (tokens.verify)(credential.to_owned(), facts).await.map_err(|error| error.to_string()),
        _ => door.engine.authenticate(credential, facts).map_err(|error| error.to_string()),
    };
    known.map_err(|error| unauthenticated(&error))
}

fn unauthenticated(why: &str) -> Refusal {
    let text = format!(
        "the request has no valid credential: {why}; send `Authorization: Bearer KEY`, or a token of an issuer that is configured, in the place of KEY"
    );
    Refusal::new(Consequence::NotPermitted, UNAUTHENTICATED, text)
}

impl FromRequestParts<Arc<Door>> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, door: &Arc<Door>) -> Result<Caller, Refusal> {
        let address = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip().to_string());
        let facts = RequestFacts { address, at: door.engine.now() };
        let caller = known(parts, door, &facts).await.inspect_err(|_| door.engine.count_without_credential()).map_err(|refused| match &facts.address {
            // Whoever has a credential is let in from there all the same: many may share an address.
            Some(address) if door.rates.failed(address, facts.at) > FAILED_CREDENTIALS => {
                let text = format!("more than {FAILED_CREDENTIALS} requests without a valid credential came from {address} within a minute: wait a minute, and look at what sends them");
                Refusal::new(Consequence::Limit, "limit: failed credentials", text)
            }
            _ => refused,
        })?;
        // A worker that keeps or ends its task is not made to lose it because its tenant is busy.
        let path = parts.uri.path();
        let reports = path.starts_with("/v1/work/") && !path.ends_with("/lease");
        let tenant = &caller.context.principal.tenant;
        let (asked, limit) = match (reports, door.engine.limits().tenant_requests) {
            (false, limit) => (door.rates.asked(tenant, facts.at), limit),
            (true, limit) => (door.rates.reported(tenant, facts.at), limit.saturating_mul(REPORTS)),
        };
        if asked > limit {
            let text = format!("the tenant `{}` has asked more than {limit} times within a second: ask again in the next one", caller.context.principal.tenant);
            return Err(Refusal::new(Consequence::Limit, "limit: requests", text));
        }
        Ok(caller)
    }
}

/// Who presented a credential that we know.
async fn known(parts: &Parts, door: &Arc<Door>, facts: &RequestFacts) -> Result<Caller, Refusal> {
    let version = *door.versions.borrow();
    let mut said = parts.headers.get_all(header::AUTHORIZATION).iter();
    let value = match (said.next(), said.next()) {
        (Some(value), None) => value,
        (None, _) => return by_session(parts, door, facts, version).await,
        (Some(_), Some(_)) => return Err(unauthenticated("there is more than one")),
    };
    let text = value.to_str().map_err(|_| unauthenticated("it is no text"))?;
    let credential = match text.split_once(' ') {
        Some((scheme, credential)) if scheme.eq_ignore_ascii_case("bearer") => credential.trim(),
        _ => return Err(unauthenticated("it is of another kind")),
    };
    let context = whoever(door, credential, facts.clone()).await?;
    Ok(Caller { door: door.clone(), context, credential: credential.to_owned(), version, session: None, encrypted: encrypted(parts) })
}

/// Whose session the cookie names.
async fn by_session(parts: &Parts, door: &Arc<Door>, facts: &RequestFacts, version: u64) -> Result<Caller, Refusal> {
    let session = session::presented(&parts.headers).ok_or_else(|| unauthenticated("there is none"))?;
    let credential = door.sessions.credential(&session, facts.at).ok_or_else(over)?;
    if !session::is_own(parts) {
        return Err(unauthenticated("a session changes nothing without the header `X-Selvedge-Session: 1`, which pages of other origins cannot send"));
    }
    match whoever(door, &credential, facts.clone()).await {
        Ok(known) => Ok(Caller {
            door: door.clone(),
            context: from_session(&known, facts.clone()),
            credential,
            version,
            session: Some(session),
            encrypted: encrypted(parts),
        }),
        Err(refused) => {
            // It stood for nothing else.
            door.sessions.end(&session);
            Err(refused)
        }
    }
}

fn encrypted(parts: &Parts) -> Option<Encrypted> {
    parts.extensions.get().copied()
}

fn over() -> Refusal {
    unauthenticated("its session is over, or was closed: open another one")
}
