//! The one table from error to status, and the problem documents of RFC 9457.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use selvedge_engine::desk::Problem;
use selvedge_kernel::error::Consequence;
use selvedge_kernel::pressure;
use serde::Serialize;
use utoipa::ToSchema;

/// The media type of a problem document.
pub const PROBLEM: &str = "application/problem+json";
/// The code of a request without a credential that we know.
pub(crate) const UNAUTHENTICATED: &str = "unauthenticated";
/// The code of a body that does not come.
pub(crate) const SLOW_BODY: &str = "slow_body";
/// The code of a path that is none of ours.
pub(crate) const NO_ROUTE: &str = "no_route";
/// The code of a method that a path does not have.
pub(crate) const NO_METHOD: &str = "no_method";
/// The code of a key that is in use by work that goes on.
pub(crate) const STILL_RUNNING: &str = "still_running";

/// The status of an error: by its code where the code says more, else by what the caller can do. The codes of work are its own.
#[must_use]
pub fn status(problem: &Problem) -> StatusCode {
    let by_code = match problem.code.as_str() {
        _ if problem.consequence == Consequence::WorkFailed => None,
        UNAUTHENTICATED => Some(StatusCode::UNAUTHORIZED),
        NO_METHOD => Some(StatusCode::METHOD_NOT_ALLOWED),
        SLOW_BODY => Some(StatusCode::REQUEST_TIMEOUT),
        "idempotency_mismatch" | "definition" | "where" | "input" => Some(StatusCode::UNPROCESSABLE_ENTITY),
        "changed_since" => Some(StatusCode::PRECONDITION_FAILED),
        "limit: body" | "limit: signal" => Some(StatusCode::PAYLOAD_TOO_LARGE),
        "stopped" | "closed" | "store_stopped" => Some(StatusCode::SERVICE_UNAVAILABLE),
        _ => None,
    };
    by_code.unwrap_or(match problem.consequence {
        Consequence::Retry => StatusCode::SERVICE_UNAVAILABLE,
        Consequence::FixInput => StatusCode::BAD_REQUEST,
        Consequence::NotPermitted => StatusCode::FORBIDDEN,
        Consequence::NotFound => StatusCode::NOT_FOUND,
        Consequence::Conflict => StatusCode::CONFLICT,
        // Another time it may fit: what can never fit has a status by its code, or is mended by another input.
        Consequence::Limit if passes(&problem.code) => StatusCode::TOO_MANY_REQUESTS,
        Consequence::Limit => StatusCode::BAD_REQUEST,
        // The request was done; the work that it asked for failed.
        Consequence::WorkFailed => StatusCode::UNPROCESSABLE_ENTITY,
        Consequence::Stop => StatusCode::INTERNAL_SERVER_ERROR,
    })
}

/// Whether the same request can be within the limit later.
fn passes(code: &str) -> bool {
    !matches!(
        code,
        "limit: key part"
            | "limit: delay"
            | "limit: reason"
            | "limit: resolution"
            | "limit: comment"
            | "limit: fork"
            | "limit: attempts"
            | "limit: stages"
            | "limit: json depth"
    )
}

/// What stands in a problem document.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub struct Document {
    /// `urn:selvedge:error:` and the code.
    #[serde(rename = "type")]
    pub kind: String,
    /// What the caller can do, in a few words.
    pub title: &'static str,
    /// The status of the answer.
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// What happened, to what, and what to do next.
    pub detail: String,
    /// Stable: `selvedge explain CODE` has its page. The codes of failed work are its own.
    pub code: String,
    /// What the caller can do, as one word of a closed list.
    #[schema(value_type = String, example = "FixInput")]
    pub consequence: Consequence,
    /// The decision that denied it, where one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision_id: Option<String>,
}

impl Document {
    fn of(problem: Problem) -> Document {
        let status = status(&problem).as_u16();
        let title = match problem.consequence {
            Consequence::Retry => "try again later",
            Consequence::FixInput => "the request is wrong",
            Consequence::NotPermitted => "not permitted",
            Consequence::NotFound => "there is no such thing",
            Consequence::Conflict => "something is in the way",
            Consequence::Limit => "a limit was met",
            Consequence::WorkFailed => "the work failed",
            Consequence::Stop => "the server needs to be looked at",
        };
        Document {
            kind: format!("urn:selvedge:error:{}", problem.code.replace([' ', ':'], "_")),
            title,
            status,
            detail: problem.message,
            code: problem.code,
            consequence: problem.consequence,
            decision_id: problem.decision,
        }
    }
}

/// What goes with a response, for whoever follows the server.
#[derive(Clone, Debug)]
pub(crate) struct Refused {
    pub code: String,
    pub decision: Option<String>,
}

/// A request that was not done, and why.
#[derive(Debug)]
pub struct Refusal(pub Problem);

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Refusal {
        Refusal(problem)
    }
}

impl Refusal {
    pub(crate) fn new(consequence: Consequence, code: &str, message: impl Into<String>) -> Refusal {
        Refusal(Problem::new(consequence, code, message))
    }

    pub(crate) fn bad(message: impl Into<String>) -> Refusal {
        Refusal(Problem::new(Consequence::FixInput, "bad_request", message))
    }
}

impl Refusal {
    /// The status and the document, for where there is no response to make.
    pub(crate) fn plain(self) -> (StatusCode, Vec<u8>) {
        let status = status(&self.0);
        // A struct of texts and a number is always JSON.
        (status, serde_json::to_vec(&Document::of(self.0)).unwrap_or_default())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let refused = Refused { code: self.0.code.clone(), decision: self.0.decision.clone() };
        let (status, document) = self.plain();
        let mut response = (status, document).into_response();
        response.extensions_mut().insert(refused);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(pressure::RETRY_AFTER.as_secs().max(1)));
        }
        response
    }
}
