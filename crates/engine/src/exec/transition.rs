//! What an actor that is a program is given, and what it answers: see the last part of `docs/exec-protocol.md`.

use bytes::Bytes;
use selvedge_kernel::error::{AttemptError, WorkError};
use selvedge_kernel::limit::{Limits, TASK_INPUT_BYTES, TRANSITION_BYTES, TRANSITION_CHANGES};
use selvedge_kernel::policy::Span;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

use super::bound::{CODE_BYTES, MESSAGE_BYTES, shorten};
use crate::core::check_part;

/// What a transition handler made of a message. On an error, nothing else of it counts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transition {
    /// The answer to the message; an error is terminal.
    pub outcome: Result<Bytes, WorkError>,
    /// State entries to write, as JSON.
    pub set: BTreeMap<String, Bytes>,
    /// State entries to remove.
    pub delete: Vec<String>,
    /// Messages that leave with it, in order.
    pub sends: Vec<TransitionSend>,
}

/// A message of a transition handler.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TransitionSend {
    /// The type of the actor that gets it.
    pub actor: String,
    /// Its key.
    pub key: String,
    /// Its handler.
    pub handler: String,
    /// JSON.
    pub input: Bytes,
    /// How long it waits before it is due.
    pub delay: Option<Span>,
}

/// The activity that serves a handler of an actor type.
#[must_use]
pub fn handler_activity(actor: &str, handler: &str) -> String {
    format!("{actor}.{handler}")
}

/// The input of that activity. `message` and the values of `state` are JSON.
#[must_use]
pub fn transition_input(actor: &str, key: &str, handler: &str, message: &[u8], state: &BTreeMap<String, Bytes>) -> Bytes {
    let text = |value: &str| serde_json::Value::String(value.to_owned()).to_string();
    let json = |value: &[u8]| if value.is_empty() { "null".to_owned() } else { String::from_utf8_lossy(value).into_owned() };
    let entries: Vec<String> = state.iter().map(|(name, value)| format!("{}:{}", text(name), json(value))).collect();
    Bytes::from(format!(
        "{{\"actor\":{{\"type\":{},\"key\":{}}},\"handler\":{},\"message\":{},\"state\":{{{}}}}}",
        text(actor),
        text(key),
        text(handler),
        json(message),
        entries.join(",")
    ))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer<'a> {
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    error: Option<Failed>,
    #[serde(borrow, default)]
    state: Changes<'a>,
    #[serde(borrow, default)]
    send: Vec<Sent<'a>>,
}

#[derive(Deserialize)]
struct Failed {
    code: String,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Changes<'a> {
    #[serde(borrow, default)]
    set: BTreeMap<String, &'a RawValue>,
    #[serde(default)]
    delete: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sent<'a> {
    actor: String,
    key: String,
    handler: String,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
    delay: Option<Span>,
}

/// Reads what that activity gave.
///
/// # Errors
/// `bad_transition` where it is no such answer, `limit: transition` where it changes or sends too much; both are terminal.
pub fn read_transition(answer: &[u8]) -> Result<Transition, AttemptError> {
    let bad = |reason: String| {
        let text = format!("a transition handler answers {{result | error, state: {{set, delete}}, send: […]}}, this one did not: {reason}");
        AttemptError { error: WorkError::new("bad_transition", text), retryable: false, retry_after_ms: None }
    };
    if answer.trim_ascii_start().first() != Some(&b'{') {
        return Err(bad("it is no object".to_owned()));
    }
    let answer: Answer<'_> = serde_json::from_slice(answer).map_err(|error| bad(error.to_string()))?;
    if let Some(name) = answer.state.delete.iter().find(|name| answer.state.set.contains_key(*name)) {
        return Err(bad(format!("it sets and deletes `{}`", shorten(name, CODE_BYTES))));
    }
    let raw = |value: &RawValue| Bytes::copy_from_slice(value.get().as_bytes());
    let null = || Bytes::from_static(b"null");
    let outcome = match answer.error {
        Some(failed) => Err(WorkError::new(shorten(&failed.code, CODE_BYTES), shorten(&failed.message, MESSAGE_BYTES))),
        None => Ok(answer.result.map_or_else(null, raw)),
    };
    let transition = Transition {
        outcome,
        set: answer.state.set.into_iter().map(|(name, value)| (name, raw(value))).collect(),
        delete: answer.state.delete,
        sends: answer
            .send
            .into_iter()
            .map(|sent| TransitionSend { actor: sent.actor, key: sent.key, handler: sent.handler, input: sent.input.map_or_else(null, raw), delay: sent.delay })
            .collect(),
    };
    within_limits(&transition)?;
    Ok(transition)
}

/// Names and addresses must fit a key, delays the longest one.
fn addressed(transition: &Transition) -> Result<(), WorkError> {
    let result = transition.outcome.as_ref().map_or(0, Bytes::len);
    if result > TASK_INPUT_BYTES {
        return Err(WorkError::new(
            "limit: body",
            format!("its result has {result} bytes, {TASK_INPUT_BYTES} are allowed: keep it elsewhere and give a reference"),
        ));
    }
    for name in transition.set.keys().chain(&transition.delete) {
        check_part("the name of a state entry", name)?;
    }
    for send in &transition.sends {
        for (what, part) in [("the type of an actor", &send.actor), ("the key of an actor", &send.key), ("the name of a handler", &send.handler)] {
            check_part(what, part)?;
            if part.is_empty() {
                return Err(WorkError::new("bad_transition", format!("{what} that it sends to is empty: name it")));
            }
        }
        if send.delay.is_some_and(|delay| delay.0.as_millis() > u128::from(Limits::MAX.delay_ms)) {
            return Err(WorkError::new("limit: delay", format!("it delays a message by more than {} ms: wait in parts", Limits::MAX.delay_ms)));
        }
    }
    Ok(())
}

fn within_limits(transition: &Transition) -> Result<(), AttemptError> {
    let changes = transition.set.len() + transition.delete.len() + transition.sends.len();
    let bytes: usize = transition.set.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
        + transition.delete.iter().map(String::len).sum::<usize>()
        + transition.sends.iter().map(|send| send.input.len()).sum::<usize>();
    let terminal = |error| AttemptError { error, retryable: false, retry_after_ms: None };
    addressed(transition).map_err(terminal)?;
    if changes <= TRANSITION_CHANGES && bytes <= TRANSITION_BYTES {
        return Ok(());
    }
    let text = format!(
        "{changes} changes and messages of {bytes} bytes in one transition; {TRANSITION_CHANGES} and {TRANSITION_BYTES} bytes are allowed: send the rest to yourself"
    );
    Err(terminal(WorkError::new("limit: transition", text)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_input_is_the_object_of_the_page() {
        let state = BTreeMap::from([("a\"b".to_owned(), Bytes::from_static(b"{\"n\": 1}"))]);
        let input = transition_input("licence", "MIT \"x\"", "count", b"[1]", &state);
        let expected = serde_json::json!({"actor": {"type": "licence", "key": "MIT \"x\""}, "handler": "count", "message": [1], "state": {"a\"b": {"n": 1}}});
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&input).unwrap(), expected);
    }

    #[test]
    fn an_answer_gives_result_changes_and_messages() {
        let answer =
            br#"{"result":5,"state":{"set":{"count":5},"delete":["old"]},"send":[{"actor":"log","key":"all","handler":"note","input":{"a":1},"delay":"10s"}]}"#;
        let transition = read_transition(answer).unwrap();
        assert_eq!(transition.outcome, Ok(Bytes::from_static(b"5")));
        assert_eq!(transition.set["count"], Bytes::from_static(b"5"));
        assert_eq!(transition.delete, ["old"]);
        assert_eq!((transition.sends[0].input.as_ref(), transition.sends[0].delay), (&b"{\"a\":1}"[..], Some("10s".parse().unwrap())));
        let nothing = Transition { outcome: Ok(Bytes::from_static(b"null")), set: BTreeMap::new(), delete: Vec::new(), sends: Vec::new() };
        assert_eq!(read_transition(b"{}").unwrap(), nothing);
        assert_eq!(read_transition(br#"{"error":{"code":"no","message":"m"}}"#).unwrap().outcome, Err(WorkError::new("no", "m")));
    }

    #[test]
    fn what_is_no_answer_is_refused_with_the_reason() {
        for (answer, says) in [
            (&b"5"[..], "no object"),
            (b"[1]", "no object"),
            (br#"{"resullt":5}"#, "unknown field"),
            (br#"{"state":{"set":{"a":1},"delete":["a"]}}"#, "sets and deletes `a`"),
            (br#"{"send":[{"actor":"a"}]}"#, "missing field"),
            (br#"{"send":[{"actor":"a","key":"k","handler":"h","delay":"soon"}]}"#, "not a duration"),
        ] {
            let error = read_transition(answer).unwrap_err();
            assert_eq!((error.error.code.as_str(), error.retryable), ("bad_transition", false));
            assert!(error.error.message.contains(says), "{}", error.error.message);
        }
    }

    #[test]
    fn names_and_addresses_that_no_key_holds_are_refused_by_name() {
        let long = "k".repeat(257);
        for (answer, code) in [
            (serde_json::json!({"state": {"set": {(&long): 1}}}), "limit: key part"),
            (serde_json::json!({"state": {"delete": [&long]}}), "limit: key part"),
            (serde_json::json!({"send": [{"actor": &long, "key": "k", "handler": "h"}]}), "limit: key part"),
            (serde_json::json!({"send": [{"actor": "a", "key": &long, "handler": "h"}]}), "limit: key part"),
            (serde_json::json!({"send": [{"actor": "a", "key": "k", "handler": &long}]}), "limit: key part"),
            (serde_json::json!({"send": [{"actor": "a", "key": "", "handler": "h"}]}), "bad_transition"),
            (serde_json::json!({"result": "x".repeat(TASK_INPUT_BYTES)}), "limit: body"),
        ] {
            let error = read_transition(answer.to_string().as_bytes()).unwrap_err();
            assert_eq!((error.error.code.as_str(), error.retryable), (code, false), "{}", error.error.message);
        }
    }

    #[test]
    fn too_much_in_one_transition_is_refused_by_name() {
        let many: serde_json::Map<String, serde_json::Value> = (0..65).map(|n| (n.to_string(), n.into())).collect();
        let large = serde_json::json!({"a": "x".repeat(TRANSITION_BYTES)});
        for set in [serde_json::Value::Object(many), large] {
            let error = read_transition(serde_json::json!({"state": {"set": set}}).to_string().as_bytes()).unwrap_err();
            assert_eq!(error.error.code, "limit: transition");
        }
    }

    proptest! {
        #[test]
        fn no_answer_panics(answer in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_transition(&answer);
        }
    }
}
