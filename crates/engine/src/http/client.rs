//! One attempt of a request, with its redirects.

use std::collections::BTreeMap;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming};
use hyper::http::{HeaderValue, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use selvedge_kernel::egress::{Allowed, Target};
use selvedge_kernel::error::{AttemptError, WorkError};
use selvedge_kernel::pipeline::definition::{Header, Http};
use selvedge_kernel::pipeline::request::{is_passing, request, retry_after, terminal};
use selvedge_kernel::time::Millis;

use super::HttpSettings;
use super::answer::{self, ANSWER_BYTES, with_cause};
use super::connect::connect;
use super::tls::Tls;
use crate::exec::secret::{self, Secret};
use crate::trace::within;

/// Lines and headers of an answer, in bytes.
const HEAD_BYTES: usize = 64 << 10;
/// How long the body of a failure is listened to.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// Headers that are credentials whoever wrote them: they go to the host that they were written for.
const CREDENTIALS: [&str; 4] = ["authorization", "cookie", "proxy-authorization", "x-api-key"];

/// The header with the trace that a request is a part of.
const TRACEPARENT: &str = "traceparent";

/// What makes the requests of an engine.
#[derive(Default)]
pub struct Client {
    settings: HttpSettings,
    /// Where `env:` secrets are.
    environment: BTreeMap<String, String>,
    tls: Tls,
}

/// One request on its way.
struct Hop {
    method: String,
    target: Target,
    headers: Vec<(String, HeaderValue)>,
    body: Option<Bytes>,
}

impl Client {
    /// A client that finds `env:` secrets in `environment`.
    #[must_use]
    pub fn new(settings: HttpSettings, environment: BTreeMap<String, String>) -> Client {
        Client { settings, environment, tls: Tls::default() }
    }

    /// Makes the request for one attempt of a task, under its key, and gives `{status, headers, body}` as JSON. Dropped, it
    /// closes the connection. `now` is for dates in `Retry-After`.
    ///
    /// # Errors
    /// `http_STATUS`, `http_transport`, `egress_denied`, `http_request`, `http_body`, `limit: http_answer`, `secret_missing`.
    pub async fn run(
        &self,
        http: &Http,
        egress: &[Allowed],
        key: &str,
        trace: Option<&str>,
        input: &[u8],
        now: impl Fn() -> Millis,
    ) -> Result<Bytes, AttemptError> {
        let mut secrets = Vec::new();
        let result = self.perform(http, egress, (key, trace), input, now, &mut secrets).await;
        secret::blot_result(&secrets, result)
    }

    async fn perform(
        &self,
        http: &Http,
        egress: &[Allowed],
        (key, trace): (&str, Option<&str>),
        input: &[u8],
        now: impl Fn() -> Millis,
        secrets: &mut Vec<Secret>,
    ) -> Result<Bytes, AttemptError> {
        let made = request(http, input)?;
        let mut hop = Hop { method: made.method, target: made.target, headers: Vec::new(), body: made.body.map(Bytes::from) };
        // What goes to the first host only.
        let mut credentials = Vec::new();
        for (name, header) in made.headers {
            let (text, is_secret) = match header {
                Header::Text(text) => (text, false),
                Header::Secret { secret, prefix } => {
                    let value = secret::resolve(&secret, &self.environment, Path::new(&http.folder)).map_err(|reason| AttemptError {
                        error: WorkError::new("secret_missing", reason),
                        retryable: true,
                        retry_after_ms: None,
                    })?;
                    let text = format!("{prefix}{value}");
                    secrets.push(Secret { reference: secret, value });
                    (text, true)
                }
            };
            let mut value = HeaderValue::from_str(&text)
                .or_else(|_| HeaderValue::from_bytes(text.as_bytes()))
                .map_err(|_| terminal("http_request", format!("the header `{name}` has a value that no header can have (a line break?)")))?;
            value.set_sensitive(is_secret);
            if is_secret || CREDENTIALS.contains(&name.as_str()) {
                credentials.push(name.clone());
            }
            hop.headers.push((name, value));
        }
        let trace = trace.and_then(|trace| within(trace, key)).and_then(|trace| HeaderValue::from_str(&trace).ok());
        let key = HeaderValue::from_str(key).map_err(|_| terminal("http_request", "the idempotency key is no header".to_owned()))?;
        hop.headers.push(("idempotency-key".to_owned(), key));
        // A header that is declared goes before ours.
        if let Some(value) = trace
            && !hop.headers.iter().any(|(name, _)| name == TRACEPARENT)
        {
            hop.headers.push((TRACEPARENT.to_owned(), value));
        }
        for followed in 0..=http.redirects {
            let answer = self.send(&hop, egress).await?;
            let who = hop.target.shown();
            let status = answer.status;
            if status.is_success() {
                let body = answer.body.map_err(|reason| answer::cut(&who, reason))?;
                return answer::output(&who, status, &answer.headers, &body);
            }
            let location = answer.headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
            if let (301 | 302 | 303 | 307 | 308, Some(location)) = (status.as_u16(), location) {
                if followed == http.redirects {
                    let text = if http.redirects == 0 {
                        format!("{who} answered {status} and leads elsewhere, and redirects are off: write the URL that it leads to, or redirects: 3")
                    } else {
                        format!("{who} answered {status}: more than {} redirects", http.redirects)
                    };
                    return Err(terminal(&format!("http_{}", status.as_u16()), text));
                }
                let next = hop
                    .target
                    .join(location)
                    .map_err(|error| terminal("http_request", format!("{who} answered {status} with a location that cannot be called: {error}")))?;
                hop = redirected(hop, next, status, &credentials)?;
                continue;
            }
            let said = answer.said;
            let asked = answer.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()).and_then(|value| retry_after(value, now()));
            let passing = is_passing(status.as_u16());
            return Err(AttemptError {
                error: WorkError::new(format!("http_{}", status.as_u16()), format!("{who} answered {} {status}{said}", hop.method)),
                retryable: passing,
                retry_after_ms: asked.filter(|_| passing),
            });
        }
        Err(terminal("http_request", "it was redirected too often".to_owned()))
    }

    /// Sends one request on a connection of its own and reads the whole answer.
    async fn send(&self, hop: &Hop, egress: &[Allowed]) -> Result<Answer, AttemptError> {
        let stream = connect(&hop.target, egress, &self.settings, &self.tls).await?;
        let broken = |error: hyper::Error| transport(&hop.target, &with_cause(&error));
        let (mut sender, connection) =
            hyper::client::conn::http1::Builder::new().max_buf_size(HEAD_BYTES).handshake::<_, Once>(TokioIo::new(stream)).await.map_err(broken)?;
        let mut outgoing = hyper::Request::builder().method(hop.method.as_str()).uri(&hop.target.path).header(header::HOST, hop.target.authority());
        outgoing = outgoing.header(header::ACCEPT_ENCODING, "gzip").header(header::CONNECTION, "close");
        let written = |name: &str| hop.headers.iter().any(|(written, _)| written == name);
        if hop.body.is_some() && !written("content-type") {
            outgoing = outgoing.header(header::CONTENT_TYPE, "application/json");
        }
        if !written("user-agent") {
            outgoing = outgoing.header(header::USER_AGENT, concat!("selvedge/", env!("CARGO_PKG_VERSION")));
        }
        for (name, value) in &hop.headers {
            outgoing = outgoing.header(name, value);
        }
        let outgoing = outgoing.body(Once(hop.body.clone())).map_err(|error| terminal("http_request", format!("it cannot be sent: {error}")))?;
        let exchange = async {
            let answer = sender.send_request(outgoing).await.map_err(broken)?;
            Ok(taken(answer).await)
        };
        let (mut exchange, mut connection) = (std::pin::pin!(exchange), std::pin::pin!(connection));
        let mut open = true;
        loop {
            tokio::select! {
                answer = &mut exchange => return answer,
                _ = &mut connection, if open => open = false,
            }
        }
    }
}

/// An answer that was read.
struct Answer {
    status: StatusCode,
    headers: hyper::http::HeaderMap,
    body: Result<Vec<u8>, answer::Cut>,
    /// What the body of a failure says.
    said: String,
}

async fn taken(answer: Response<Incoming>) -> Answer {
    let (head, body) = answer.into_parts();
    let (status, headers) = (head.status, head.headers);
    if status.is_success() {
        let body = answer::read(&headers, body, ANSWER_BYTES).await;
        return Answer { status, headers, body, said: String::new() };
    }
    let said = tokio::time::timeout(LAST_WORDS, answer::said(&headers, body)).await.unwrap_or_default();
    Answer { status, headers, body: Ok(Vec::new()), said }
}

/// The request that follows a redirect: without credentials where it leads to another host, and never from TLS to none.
fn redirected(mut hop: Hop, next: Target, status: StatusCode, credentials: &[String]) -> Result<Hop, AttemptError> {
    if hop.target.tls && !next.tls {
        return Err(terminal("egress_denied", format!("{} leads from https to {}, which is not followed", hop.target.shown(), next.shown())));
    }
    if !hop.target.same_origin(&next) {
        hop.headers.retain(|(name, _)| !credentials.contains(name));
    }
    if matches!(status.as_u16(), 301..=303) && hop.method != "HEAD" && hop.method != "GET" {
        hop.method = "GET".to_owned();
        hop.body = None;
        hop.headers.retain(|(name, _)| name != "content-type");
    }
    hop.target = next;
    Ok(hop)
}

/// An error of the way there: another attempt can help.
pub(super) fn transport(target: &Target, reason: &str) -> AttemptError {
    AttemptError { error: WorkError::new("http_transport", format!("{} cannot be reached: {reason}", target.shown())), retryable: true, retry_after_ms: None }
}

/// A body that is at hand.
struct Once(Option<Bytes>);

impl Body for Once {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        hyper::body::SizeHint::with_exact(self.0.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}
