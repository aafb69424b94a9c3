//! What comes back: read within its limits, and made into the output of a task.

use std::io::{self, Write};
use std::pin::Pin;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::http::{HeaderMap, StatusCode, header};
use selvedge_kernel::error::{AttemptError, WorkError};
use selvedge_kernel::pipeline::request::terminal;
use serde_json::value::RawValue;

use crate::exec::bound::shorten;

/// The body of an answer, unpacked, in bytes.
pub const ANSWER_BYTES: usize = 8 << 20;
/// How much of the body of a failure is shown.
const SHOWN_BYTES: usize = 500;

/// Why a body was not read to its end.
pub enum Cut {
    /// It is larger than it may be; what there is of it.
    TooLarge(Vec<u8>),
    /// The connection, or the packing, is broken.
    Broken(String),
    /// It is packed in a way that we did not ask for.
    Packed(String),
}

/// Takes what fits.
struct Capped {
    bytes: Vec<u8>,
    limit: usize,
    full: bool,
}

impl Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.limit - self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..taken]);
        if taken < bytes.len() {
            self.full = true;
            return Err(io::Error::other("it is too large"));
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Unpacking {
    Plain(Capped),
    Gzip(flate2::write::GzDecoder<Capped>),
}

impl Unpacking {
    fn into_capped(self) -> Capped {
        match self {
            Unpacking::Plain(capped) => capped,
            Unpacking::Gzip(mut decoder) => std::mem::replace(decoder.get_mut(), Capped { bytes: Vec::new(), limit: 0, full: false }),
        }
    }
}

/// Reads a body, unpacked, of at most `limit` bytes. What is too large is not read on.
pub async fn read(headers: &HeaderMap, mut body: Incoming, limit: usize) -> Result<Vec<u8>, Cut> {
    let packed = headers.get(header::CONTENT_ENCODING).map(|value| String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase());
    let capped = Capped { bytes: Vec::new(), limit, full: false };
    let mut unpacking = match packed.as_deref().map(str::trim) {
        None | Some("" | "identity") => Unpacking::Plain(capped),
        Some("gzip" | "x-gzip") => Unpacking::Gzip(flate2::write::GzDecoder::new(capped)),
        Some(other) => return Err(Cut::Packed(shorten(other, 60))),
    };
    let mut any = false;
    while let Some(frame) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let frame = frame.map_err(|error| Cut::Broken(with_cause(&error)))?;
        let Ok(data) = frame.into_data() else { continue };
        any |= !data.is_empty();
        let written = match &mut unpacking {
            Unpacking::Plain(capped) => capped.write_all(&data),
            Unpacking::Gzip(decoder) => decoder.write_all(&data),
        };
        if let Err(error) = written {
            let capped = unpacking.into_capped();
            return Err(if capped.full { Cut::TooLarge(capped.bytes) } else { Cut::Broken(error.to_string()) });
        }
    }
    if let Unpacking::Gzip(decoder) = &mut unpacking
        && any
        && let Err(error) = decoder.try_finish()
    {
        let capped = unpacking.into_capped();
        return Err(if capped.full { Cut::TooLarge(capped.bytes) } else { Cut::Broken(format!("its gzip is broken: {error}")) });
    }
    Ok(unpacking.into_capped().bytes)
}

/// An error with what lies below it.
pub fn with_cause(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

/// The output of a task: `{status, headers, body}`.
pub fn output(who: &str, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Result<Bytes, AttemptError> {
    let kind = headers.get(header::CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let bad = |reason: String, retryable: bool| AttemptError {
        error: WorkError::new("http_body", format!("{who} answered {status}, and {reason}")),
        retryable,
        retry_after_ms: None,
    };
    let body = if body.is_empty() {
        "null".to_owned()
    } else if essence == "application/json" || essence.ends_with("+json") {
        let value: &RawValue =
            serde_json::from_slice(body).map_err(|error| bad(format!("its body is not the JSON that its content type `{essence}` says: {error}"), true))?;
        value.get().to_owned()
    } else {
        let text = std::str::from_utf8(body).map_err(|_| bad(format!("its body (`{}`) is neither JSON nor UTF-8 text", shorten(&kind, 80)), false))?;
        serde_json::Value::String(text.to_owned()).to_string()
    };
    let mut shown = serde_json::Map::new();
    for name in headers.keys() {
        // A cookie is a credential, and what is kept is no place for one.
        if *name != header::SET_COOKIE {
            let values: Vec<_> = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
            shown.insert(name.as_str().to_owned(), values.join(", ").into());
        }
    }
    Ok(Bytes::from(format!("{{\"status\":{},\"headers\":{},\"body\":{body}}}", status.as_u16(), serde_json::Value::Object(shown))))
}

/// The error of a body that was not read to its end.
pub fn cut(who: &str, cut: Cut) -> AttemptError {
    match cut {
        Cut::TooLarge(_) => {
            terminal("limit: http_answer", format!("the answer of {who} has more than {ANSWER_BYTES} bytes when it is unpacked: ask for less, page by page"))
        }
        Cut::Broken(reason) => {
            AttemptError { error: WorkError::new("http_transport", format!("the answer of {who} broke off: {reason}")), retryable: true, retry_after_ms: None }
        }
        Cut::Packed(how) => terminal("http_body", format!("{who} packed its answer as `{how}`, and it was asked for gzip or nothing")),
    }
}

/// The beginning of the body of a failure, as people read it.
pub async fn said(headers: &HeaderMap, body: Incoming) -> String {
    let bytes = match read(headers, body, SHOWN_BYTES * 4).await {
        Ok(bytes) | Err(Cut::TooLarge(bytes)) => bytes,
        Err(Cut::Broken(_) | Cut::Packed(_)) => Vec::new(),
    };
    let text = String::from_utf8_lossy(&bytes);
    let text: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.is_empty() { String::new() } else { format!("; it said: {}", shorten(&text, SHOWN_BYTES)) }
}
