//! What needs no credential: whether we live, whether we are ready, and what we can be asked.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::door::Door;
use crate::shapes::health::{Health, Readiness};

/// Whether the process lives.
#[utoipa::path(get, path = "/healthz", tag = "health", security(()), responses((status = 200, description = "it does", body = Health)))]
pub(crate) async fn alive() -> Response {
    axum::Json(json!({ "status": "alive" })).into_response()
}

/// Whether it can work: each part that it depends on, by name.
#[utoipa::path(get, path = "/readyz", tag = "health", security(()),
    responses((status = 200, description = "it can", body = Readiness), (status = 503, description = "it cannot, with the reason", body = Readiness)))]
pub(crate) async fn ready(State(door): State<Arc<Door>>) -> Response {
    let parts = (door.ready)();
    let well = parts.iter().all(|(_, reason)| reason.is_none()) && !*door.closing.borrow();
    let mut parts: serde_json::Map<String, Value> = parts
        .into_iter()
        .map(|(name, reason)| (name.to_owned(), reason.map_or_else(|| json!({ "ready": true }), |why| json!({ "ready": false, "reason": why }))))
        .collect();
    // A set of policies that was refused is a reason to look, and none to send work elsewhere. What is wrong with it is not for everybody.
    for (which, _) in door.engine.faults() {
        parts.insert(
            which.replace(' ', "_"),
            json!({ "ready": true, "warning": "a newer set is refused, and the one before it is in force: `selvedge doctor` says why" }),
        );
    }
    // Keys open all that they did, and tokens by what was read before: no reason to send work elsewhere either.
    for (name, read) in door.tokens.iter().flat_map(|tokens| (tokens.issuers)()) {
        let warning = (!read).then_some("its keys could not be read when that was tried last: the log says why");
        parts.insert(format!("issuer_{name}"), warning.map_or_else(|| json!({ "ready": true }), |warning| json!({ "ready": true, "warning": warning })));
    }
    let status = if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, axum::Json(json!({ "ready": well, "parts": parts }))).into_response()
}
