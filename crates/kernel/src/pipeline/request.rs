//! A request made from its declaration and a task's input, and what its answer means. Pure: nothing is sent here.

use serde_json::Value;

use super::definition::{Header, Http};
use super::doc::Doc;
use super::expression::Scope;
use super::template::Template;
use crate::egress::Target;
use crate::error::{AttemptError, WorkError};
use crate::time::Millis;

/// One request, filled in. Secrets are references still.
#[derive(Clone, PartialEq, Debug)]
pub struct Request {
    /// `GET` and the like.
    pub method: String,
    /// Where it goes.
    pub target: Target,
    /// Without control characters.
    pub headers: Vec<(String, Header)>,
    /// JSON, if it has a body.
    pub body: Option<Vec<u8>>,
}

/// An error that no further attempt mends.
#[must_use]
pub fn terminal(code: &str, message: String) -> AttemptError {
    AttemptError { error: WorkError::new(code, message), retryable: false, retry_after_ms: None }
}

/// Fills a request in.
///
/// # Errors
/// `http_request`, where the input does not fit: an expression fails, what stands for the URL is none, a header has a line
/// break.
pub fn request(http: &Http, input: &[u8]) -> Result<Request, AttemptError> {
    let wrong = |what: &str, reason: String| terminal("http_request", format!("`{what}` of the request cannot be made from this input: {reason}"));
    let input = if input.is_empty() { Doc::null() } else { Doc::parse(input).map_err(|error| wrong("input", error.to_string()))? };
    let mut scope = Scope::new();
    scope.set("input", input.clone());
    let text = |what: &str, template: &str| -> Result<String, AttemptError> {
        let value = fill(&Value::String(template.to_owned()), &scope).map_err(|reason| wrong(what, reason))?;
        match value.type_name() {
            "string" | "number" | "boolean" => Ok(value.text()),
            other => Err(wrong(what, format!("`{template}` gives {other}, and it must be a text"))),
        }
    };
    let target = Target::parse(&text("url", &http.url)?).map_err(|error| wrong("url", error.to_string()))?;
    let mut headers = Vec::with_capacity(http.headers.len());
    for (name, header) in &http.headers {
        let header = match header {
            Header::Secret { .. } => header.clone(),
            Header::Text(template) => {
                let value = text(&format!("headers.{name}"), template)?;
                if value.chars().any(|c| c.is_control() && c != '\t') {
                    return Err(wrong(&format!("headers.{name}"), "its value has a line break or another control character in it".to_owned()));
                }
                Header::Text(value)
            }
        };
        headers.push((name.clone(), header));
    }
    let body = match &http.body {
        Some(template) => Some(fill(template, &scope).map_err(|reason| wrong("body", reason))?.to_bytes().to_vec()),
        None if matches!(http.method.as_str(), "POST" | "PUT" | "PATCH") => Some(input.to_bytes().to_vec()),
        None => None,
    };
    Ok(Request { method: http.method.clone(), target, headers, body })
}

fn fill(template: &Value, scope: &Scope) -> Result<Doc, String> {
    Template::compile(template).and_then(|template| template.eval_doc(scope)).map_err(|error| error.to_string())
}

/// Whether a status is worth another attempt.
#[must_use]
pub fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500..=599)
}

/// What `Retry-After` asks for, in milliseconds: seconds, or a date.
#[must_use]
pub fn retry_after(value: &str, now: Millis) -> Option<u64> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(seconds.saturating_mul(1_000).min(LONGEST_MS));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(value).ok()?;
    let ms = u64::try_from(date.as_millisecond()).ok()?;
    Some(ms.saturating_sub(now.0).min(LONGEST_MS))
}

/// The longest wait that a server is granted: a day.
const LONGEST_MS: u64 = 86_400_000;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;
    use std::collections::BTreeMap;

    fn http(url: &str, headers: &[(&str, &str)], body: Option<Value>) -> Http {
        let headers: BTreeMap<String, Header> = headers.iter().map(|(name, text)| ((*name).to_owned(), Header::Text((*text).to_owned()))).collect();
        Http { method: "POST".to_owned(), url: url.to_owned(), headers, body, redirects: 0, folder: String::new() }
    }

    #[test]
    fn url_headers_and_body_are_filled_from_the_input() {
        let declared = http("https://example.org/${input.id}?n=${input.n}", &[("x-id", "${input.n}")], Some(json!({"only": "${input.n}"})));
        let made = request(&declared, br#"{"id":"a b","n":7}"#).unwrap();
        assert_eq!((made.target.path.as_str(), made.body.as_deref()), ("/a%20b?n=7", Some(&br#"{"only":7}"#[..])));
        assert_eq!(made.headers, [("x-id".to_owned(), Header::Text("7".to_owned()))]);
        assert_eq!(request(&http("https://example.org", &[], None), b"[1]").unwrap().body.unwrap(), b"[1]");
        let get = Http { method: "GET".to_owned(), ..http("https://example.org", &[], None) };
        assert_eq!(request(&get, b"[1]").unwrap().body, None);
    }

    #[test]
    fn a_line_break_from_the_input_makes_no_second_header_and_no_second_request() {
        for (declared, input) in [
            (http("https://example.org", &[("x", "a ${input}")], None), "\"b\\r\\nEvil: 1\""),
            (http("https://example.org", &[("x", "${input}")], None), "\"b\\nEvil: 1\""),
            (http("https://example.org/${input}", &[], None), "\" HTTP/1.1\\r\\nHost: evil\""),
            (http("https://example.org${input}", &[], None), "\"@evil.org\""),
            (http("${input}", &[], None), "{\"a\":1}"),
            (http("${input.missing}", &[], None), "{}"),
        ] {
            let error = request(&declared, input.as_bytes()).unwrap_err();
            assert_eq!((error.error.code.as_str(), error.retryable), ("http_request", false), "{}", error.error.message);
        }
    }

    #[test]
    fn retry_after_is_read_in_seconds_and_as_a_date() {
        let now = Millis(784_111_777_000);
        assert_eq!(retry_after("120", now), Some(120_000));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:50:37 GMT", now), Some(60_000));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:48:37 GMT", now), Some(0));
        assert_eq!(retry_after("99999999999999999999", now), None);
        assert_eq!(retry_after("soon", now), None);
        assert_eq!(retry_after("9999999", now), Some(LONGEST_MS));
    }
}
