//! The lines of the exec protocol, version 1: what we send, and what a worker's line means. See `docs/exec-protocol.md`.

use bytes::Bytes;
use selvedge_kernel::error::{AttemptError, WorkError};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::bound::{CODE_BYTES, LINE_BYTES, MESSAGE_BYTES, shorten};

/// The version that a worker's `hello` must name.
pub const VERSION: u64 = 1;

/// One attempt of a task, as it is given to a program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExecTask {
    /// Which activity.
    pub activity: String,
    /// The number of this attempt, from 1.
    pub attempt: u32,
    /// The idempotency key of the effect: the same for each attempt.
    pub key: String,
    /// How much time this attempt has, in milliseconds.
    pub deadline_ms: Option<u64>,
    /// The trace that it is a part of, as W3C writes it.
    pub trace: Option<String>,
    /// JSON.
    pub input: Bytes,
}

/// What a worker says first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// What it can do.
    pub activities: Vec<String>,
    /// How many tasks it takes at the same time, at least 1.
    pub concurrency: u32,
}

/// What one line of a worker means.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Line {
    /// Nothing stands on it.
    Blank,
    /// The first word.
    Hello(Hello),
    /// A first word in a version that we do not speak, as it was written.
    OtherHello(String),
    /// A task ended.
    Answer {
        /// Which.
        id: u64,
        /// How.
        outcome: Result<Bytes, AttemptError>,
    },
    /// A task lives.
    Heartbeat {
        /// Which.
        id: u64,
        /// JSON, as the worker wrote it.
        progress: Bytes,
    },
    /// Anything else: a line for the log of the task.
    Log(String),
}

#[derive(Deserialize)]
struct Fields<'a> {
    id: Option<u64>,
    #[serde(borrow, default, deserialize_with = "present")]
    hello: Option<&'a RawValue>,
    #[serde(default)]
    activities: Vec<String>,
    concurrency: Option<u32>,
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    error: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    heartbeat: Option<&'a RawValue>,
}

/// A field that is there counts as there, also when it is `null`.
fn present<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

#[derive(Deserialize)]
struct ErrorFields {
    code: Option<String>,
    message: Option<String>,
    retryable: Option<bool>,
    retry_after_ms: Option<u64>,
}

/// What a line means. Total: whatever is no word of the protocol is a log line.
#[must_use]
pub fn read(line: &[u8]) -> Line {
    // What stands before a line of a log, as in a traceback, says something.
    let whole = line.trim_ascii_end();
    let line = whole.trim_ascii_start();
    if line.is_empty() {
        return Line::Blank;
    }
    let log = || Line::Log(shorten(&String::from_utf8_lossy(whole), MESSAGE_BYTES));
    let Some(fields) = fields(line) else { return log() };
    match fields {
        Fields { hello: Some(version), activities, concurrency, .. } => {
            if version.get().parse() == Ok(VERSION) {
                Line::Hello(Hello { activities, concurrency: concurrency.unwrap_or(1).max(1) })
            } else {
                Line::OtherHello(shorten(version.get(), CODE_BYTES))
            }
        }
        Fields { id: Some(id), error: Some(error), .. } => Line::Answer { id, outcome: Err(failure(error)) },
        Fields { id: Some(id), result: Some(result), .. } => Line::Answer { id, outcome: Ok(Bytes::copy_from_slice(result.get().as_bytes())) },
        Fields { id: Some(id), heartbeat: Some(progress), .. } => Line::Heartbeat { id, progress: Bytes::copy_from_slice(progress.get().as_bytes()) },
        _ => log(),
    }
}

fn fields(line: &[u8]) -> Option<Fields<'_>> {
    if line.first() != Some(&b'{') { None } else { serde_json::from_slice(line).ok() }
}

/// An error in any shape is an error: what says nothing else may be tried again.
fn failure(raw: &RawValue) -> AttemptError {
    let fields: ErrorFields = serde_json::from_str(raw.get()).unwrap_or_else(|_| ErrorFields {
        code: None,
        message: Some(raw.get().to_owned()),
        retryable: None,
        retry_after_ms: None,
    });
    let code = fields.code.filter(|code| !code.is_empty()).unwrap_or_else(|| "worker_error".to_owned());
    AttemptError {
        error: WorkError::new(shorten(&code, CODE_BYTES), shorten(&fields.message.unwrap_or_default(), MESSAGE_BYTES)),
        retryable: fields.retryable.unwrap_or(true),
        retry_after_ms: fields.retry_after_ms,
    }
}

/// The id of the task that an over-long line would have answered, seen by its first bytes.
#[must_use]
pub fn answered_by_prefix(start: &[u8]) -> Option<u64> {
    let text: String = String::from_utf8_lossy(&start[..start.len().min(80)]).chars().filter(|c| !c.is_whitespace()).collect();
    let rest = text.strip_prefix("{\"id\":")?;
    let digits = rest.find(|c: char| !c.is_ascii_digit())?;
    let (id, rest) = rest.split_at(digits);
    if rest.starts_with(",\"result\":") || rest.starts_with(",\"error\":") { id.parse().ok() } else { None }
}

/// The line that gives a task to a worker.
///
/// # Errors
/// `limit: exec_line` if it would be longer than a line may be.
pub fn request(id: u64, task: &ExecTask) -> Result<Bytes, AttemptError> {
    let text = |value: &str| serde_json::Value::String(value.to_owned()).to_string();
    let mut line = format!("{{\"id\":{id},\"activity\":{},\"attempt\":{},\"key\":{}", text(&task.activity), task.attempt, text(&task.key)).into_bytes();
    if let Some(ms) = task.deadline_ms {
        line.extend_from_slice(format!(",\"deadline_ms\":{ms}").as_bytes());
    }
    if let Some(trace) = &task.trace {
        line.extend_from_slice(format!(",\"traceparent\":{}", text(trace)).as_bytes());
    }
    line.extend_from_slice(b",\"input\":");
    let start = line.len();
    line.extend_from_slice(if task.input.is_empty() { b"null" } else { &task.input });
    // A JSON string holds no raw line break, so those of the input are white space between its values.
    line[start..].iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
    line.extend_from_slice(b"}\n");
    if line.len() > LINE_BYTES {
        return Err(too_long(&format!("the request for activity `{}`", task.activity)));
    }
    Ok(Bytes::from(line))
}

/// The line that takes a task back.
#[must_use]
pub fn cancel(id: u64) -> Bytes {
    Bytes::from(format!("{{\"cancel\":{id}}}\n"))
}

/// The error of a line above the limit.
#[must_use]
pub fn too_long(what: &str) -> AttemptError {
    let advice = "pass less, split it with scatter or group_by, or use as_file for the input";
    AttemptError {
        error: WorkError::new("limit: exec_line", format!("{what} is longer than the {} MiB that a line may have: {advice}", LINE_BYTES >> 20)),
        retryable: false,
        retry_after_ms: None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn task(input: &'static str) -> ExecTask {
        ExecTask { activity: "he\"ad".into(), attempt: 2, key: "k".into(), deadline_ms: Some(10), trace: None, input: Bytes::from_static(input.as_bytes()) }
    }

    #[test]
    fn words_of_the_protocol_are_understood() {
        assert_eq!(read(br#"{"hello":1,"activities":["head"]}"#), Line::Hello(Hello { activities: vec!["head".into()], concurrency: 1 }));
        assert_eq!(read(br#"{"hello":2}"#), Line::OtherHello("2".into()));
        assert_eq!(read(br#" {"id":7,"result":null} "#), Line::Answer { id: 7, outcome: Ok(Bytes::from_static(b"null")) });
        assert_eq!(read(br#"{"result":{"a": [1]},"id":7}"#), Line::Answer { id: 7, outcome: Ok(Bytes::from_static(b"{\"a\": [1]}")) });
        assert_eq!(read(br#"{"id":7,"heartbeat":{"progress":0.4}}"#), Line::Heartbeat { id: 7, progress: Bytes::from_static(b"{\"progress\":0.4}") });
        let Line::Answer { id: 7, outcome: Err(error) } = read(br#"{"id":7,"error":{"code":"gone","message":"m","retryable":false,"retry_after_ms":5}}"#)
        else {
            panic!("no answer")
        };
        assert_eq!((error.error, error.retryable, error.retry_after_ms), (WorkError::new("gone", "m"), false, Some(5)));
    }

    #[test]
    fn an_error_of_any_shape_is_a_failed_attempt() {
        for (line, code, message) in [
            (&br#"{"id":1,"error":"boom"}"#[..], "worker_error", "\"boom\""),
            (br#"{"id":1,"error":{}}"#, "worker_error", ""),
            (br#"{"id":1,"error":null,"result":3}"#, "worker_error", "null"),
            (br#"{"id":1,"error":{"code":7}}"#, "worker_error", "{\"code\":7}"),
        ] {
            let Line::Answer { id: 1, outcome: Err(error) } = read(line) else { panic!("no answer") };
            assert_eq!((error.error.code.as_str(), error.error.message.as_str(), error.retryable), (code, message, true));
        }
    }

    #[test]
    fn a_log_line_keeps_what_stands_before_it() {
        assert_eq!(read(b"    result = 1 / 0 \r"), Line::Log("    result = 1 / 0".to_owned()));
        assert!(matches!(read(b"  {\"id\":7,\"result\":1} "), Line::Answer { id: 7, .. }));
    }

    #[test]
    fn everything_else_is_a_log_line() {
        for line in [
            &b"hello"[..],
            b"{\"id\":7",
            b"{\"id\":7}",
            b"{\"id\":\"7\",\"result\":1}",
            b"[1]",
            b"7",
            b"{\"cancel\":7}",
            b"\xff\xfe",
            b"{\"id\":-1,\"result\":1}",
        ] {
            assert!(matches!(read(line), Line::Log(_)), "{}", String::from_utf8_lossy(line));
        }
        assert_eq!(read(b" \r"), Line::Blank);
    }

    #[test]
    fn a_request_is_one_line_whatever_the_input_looks_like() {
        let line = request(7, &task("{\n  \"a\": \"x\\ny\",\r\n \"b\": 1}")).unwrap();
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(value, serde_json::json!({"id": 7, "activity": "he\"ad", "attempt": 2, "key": "k", "deadline_ms": 10, "input": {"a": "x\ny", "b": 1}}));
    }

    #[test]
    fn a_request_says_its_trace_where_it_belongs_to_one() {
        let traced = ExecTask { trace: Some("00-\"".to_owned()), ..task("1") };
        let value: serde_json::Value = serde_json::from_slice(&request(7, &traced).unwrap()).unwrap();
        assert_eq!(value["traceparent"], "00-\"");
    }

    #[test]
    fn a_request_above_the_line_limit_is_refused_by_name() {
        let mut big = task("");
        big.input = Bytes::from(format!("\"{}\"", "x".repeat(LINE_BYTES)));
        let error = request(1, &big).unwrap_err();
        assert_eq!((error.error.code.as_str(), error.retryable), ("limit: exec_line", false));
    }

    #[test]
    fn the_owner_of_an_over_long_answer_is_seen_by_its_first_bytes() {
        assert_eq!(answered_by_prefix(br#"{"id": 12, "result": "xxxxx"#), Some(12));
        assert_eq!(answered_by_prefix(br#"{"id":12,"heartbeat":"#), None);
        assert_eq!(answered_by_prefix(b"xxxxxxx"), None);
    }

    proptest! {
        #[test]
        fn no_line_panics(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&line);
            let _ = answered_by_prefix(&line);
        }

        #[test]
        fn an_answer_survives_the_way_through_a_line(id: u64, text in ".{0,40}") {
            let value = serde_json::json!({ "t": text });
            let line = serde_json::json!({ "id": id, "result": value }).to_string();
            let Line::Answer { id: read_id, outcome: Ok(bytes) } = read(line.as_bytes()) else { panic!("no answer") };
            prop_assert_eq!(read_id, id);
            prop_assert_eq!(serde_json::from_slice::<serde_json::Value>(&bytes).unwrap(), value);
        }
    }
}
