//! What is answered when a request was done.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use crate::refusal::Refusal;

/// A JSON value with a status; null is 204 without a body.
#[derive(Debug)]
pub(crate) struct Answer {
    status: StatusCode,
    value: Value,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// What each handler gives.
pub(crate) type Done = Result<Answer, Refusal>;

impl Answer {
    pub(crate) fn of(value: Value) -> Answer {
        Answer { status: if value.is_null() { StatusCode::NO_CONTENT } else { StatusCode::OK }, value, headers: Vec::new() }
    }

    /// A value, null too.
    pub(crate) fn json(value: Value) -> Answer {
        Answer { status: StatusCode::OK, value, headers: Vec::new() }
    }

    /// It was taken, and goes on.
    pub(crate) fn accepted(value: Value) -> Answer {
        Answer { status: StatusCode::ACCEPTED, ..Answer::of(value) }
    }

    /// It is there from now on.
    pub(crate) fn created(value: Value) -> Answer {
        Answer { status: StatusCode::CREATED, ..Answer::of(value) }
    }

    /// Where it is.
    pub(crate) fn at(self, place: &str) -> Answer {
        self.with(header::LOCATION, place)
    }

    /// What it must be for a change with `If-Match`.
    pub(crate) fn etag(self, tag: &str) -> Answer {
        self.with(header::ETAG, &format!("\"{tag}\""))
    }

    /// What leads to the next page, as RFC 8288 writes it: the same list with another query.
    pub(crate) fn next(self, query: Option<&str>) -> Answer {
        match query {
            Some(query) => self.with(header::LINK, &format!("<?{query}>; rel=\"next\"")),
            None => self,
        }
    }

    /// With a cookie.
    pub(crate) fn cookie(self, cookie: &str) -> Answer {
        self.with(header::SET_COOKIE, cookie)
    }

    fn with(mut self, name: HeaderName, value: &str) -> Answer {
        // Ids, names that came in a path, and hashes: one that is no header value is left out.
        self.headers.extend(HeaderValue::from_str(value).ok().map(|value| (name, value)));
        self
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = match &self.value {
            Value::Null if self.status == StatusCode::NO_CONTENT => self.status.into_response(),
            // A value is always JSON.
            value => (self.status, [(header::CONTENT_TYPE, "application/json")], serde_json::to_vec(value).unwrap_or_default()).into_response(),
        };
        response.headers_mut().extend(self.headers);
        response
    }
}
