//! What the engine says of itself: as lines of a log where there is one, else in sentences on standard error.

use std::sync::Arc;

use selvedge_engine::env::{Observation, Observer};
use selvedge_engine::happened::{Became, Follow, Happened};
use selvedge_kernel::config::Level;
use serde_json::{Value, json};

use crate::log::{Line, Log};

/// How much the engine is to tell a log.
pub(crate) fn follow(log: Option<&Log>) -> Follow {
    match log {
        Some(log) if log.takes(Level::Debug) => Follow::Everything,
        Some(_) => Follow::Notable,
        None => Follow::Nothing,
    }
}

/// Takes what the engine says.
pub(crate) fn observer(log: Option<Log>) -> Observer {
    match log {
        Some(log) => Arc::new(move |observation| {
            if let Some(line) = line(observation) {
                log.write(&line);
            }
        }),
        None => Arc::new(aloud),
    }
}

/// An observation as a line; none: nobody needs to read of it.
fn line(observation: &Observation<'_>) -> Option<Line<'static>> {
    Some(match observation {
        Observation::AttemptStarted { .. } | Observation::Exec { .. } => return None,
        Observation::DropPanicked { invocation } => Line {
            level: Level::Warn,
            event: "drop_panicked",
            message: "a value that a handler owned panicked when it was dropped: look at its Drop",
            fields: vec![("invocation", json!(invocation.to_string()))],
        },
        Observation::SlowPoll { invocation, actor, handler, took } => Line {
            level: Level::Warn,
            event: "slow_poll",
            message: "a handler held its thread: move that work into `blocking`",
            fields: vec![
                ("invocation", json!(invocation.to_string())),
                ("actor", json!(actor.to_string())),
                ("handler", json!(handler)),
                ("took_ms", ms(*took)),
            ],
        },
        Observation::JournalFills { invocation, actor, handler, operations, limit } => Line {
            level: Level::Warn,
            event: "journal_fills",
            message: "a journal is nearly full: let the handler go on as another one with `ctx.restart(input)`",
            fields: vec![
                ("invocation", json!(invocation.to_string())),
                ("actor", json!(actor.to_string())),
                ("handler", json!(handler)),
                ("operations", json!(operations)),
                ("limit", json!(limit)),
            ],
        },
        // What the error says is of the work: `why` shows it to who may read that.
        Observation::AttemptsFail { invocation, actor, handler, failed, limit, error } => Line {
            level: Level::Warn,
            event: "attempts_fail",
            message: "a message goes on failing: `selvedge why` has its error; mend that, it goes on by itself",
            fields: vec![
                ("invocation", json!(invocation.to_string())),
                ("actor", json!(actor.to_string())),
                ("handler", json!(handler)),
                ("failed", json!(failed)),
                ("limit", json!(limit)),
                ("code", json!(error.code)),
            ],
        },
        Observation::ClockJumped { by_ms } => Line {
            level: Level::Warn,
            event: "clock_jumped",
            message: "the wall clock moved against the machine's even clock; timers that this made due fire spread over a minute",
            fields: vec![("by_ms", json!(by_ms))],
        },
        Observation::Work(happened) => work(happened),
    })
}

fn work(happened: &Happened) -> Line<'static> {
    let (run, mut fields, became) = match happened {
        Happened::Run { run, tenant, pipeline, became } => {
            (true, vec![("run", json!(run.to_string())), ("tenant", json!(tenant)), ("pipeline", json!(pipeline))], became)
        }
        Happened::Invocation { invocation, actor, handler, trace, became } => {
            let of = vec![
                ("invocation", json!(invocation.to_string())),
                ("tenant", json!(actor.tenant)),
                ("actor", json!(format!("{}/{}", actor.kind, actor.key))),
                ("handler", json!(handler)),
                ("traceparent", json!(trace)),
            ];
            (false, of, became)
        }
    };
    let level = if run { Level::Info } else { Level::Debug };
    let (level, event, message) = match (became, run) {
        (Became::Started, true) => (level, "run_started", "a run was started"),
        (Became::Completed, true) => (level, "run_completed", "a run has ended well"),
        (Became::Failed { .. }, true) => (Level::Warn, "run_failed", "a run has failed: `selvedge why` has its error"),
        (Became::Cancelled, true) => (level, "run_cancelled", "a run was cancelled"),
        (Became::Blocked { .. }, true) => (Level::Warn, "run_blocked", "a run waits for somebody: `selvedge why` says for what"),
        (Became::Started, false) => (level, "invocation_accepted", "an invocation was accepted"),
        (Became::Completed, false) => (level, "invocation_completed", "an invocation has ended well"),
        (Became::Failed { .. }, false) => (Level::Warn, "invocation_failed", "an invocation has failed: `selvedge why` has its error"),
        (Became::Cancelled, false) => (level, "invocation_cancelled", "an invocation was ended by somebody"),
        (Became::Blocked { .. }, false) => (Level::Warn, "invocation_blocked", "an invocation waits for somebody: `selvedge why` says for what"),
    };
    match became {
        Became::Failed { code, dead_letter } => fields.extend([("code", json!(code)), ("dead_letter", if *dead_letter { json!(true) } else { Value::Null })]),
        Became::Blocked { reason } => fields.push(("reason", json!(reason))),
        Became::Started | Became::Completed | Became::Cancelled => {}
    }
    Line { level, event, message, fields }
}

fn ms(span: std::time::Duration) -> Value {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX).into()
}

/// For whoever embeds the engine, or sits in front of the command line.
fn aloud(observation: &Observation<'_>) {
    match observation {
        Observation::AttemptStarted { .. } | Observation::Exec { .. } | Observation::Work(_) => {}
        Observation::DropPanicked { invocation } => {
            eprintln!("selvedge: a value that the handler of {invocation} owned panicked when it was dropped: look at its Drop");
        }
        Observation::SlowPoll { invocation, actor, handler, took } => {
            eprintln!("selvedge: {invocation} ({actor}.{handler}) held its thread for {} ms: move that work into `blocking`", took.as_millis());
        }
        Observation::JournalFills { invocation, actor, handler, operations, limit } => eprintln!(
            "selvedge: {invocation} ({actor}.{handler}) has made {operations} operations, one journal holds {limit}: let it go on as another one with `ctx.restart(input)`"
        ),
        Observation::AttemptsFail { invocation, actor, handler, failed, limit, error } => eprintln!(
            "selvedge: {invocation} ({actor}.{handler}) has failed {failed} times, after {limit} it is a dead letter; it said {error}: mend that, it goes on by itself"
        ),
        Observation::ClockJumped { by_ms } => {
            eprintln!("selvedge: the wall clock moved by {by_ms} ms against the machine's even clock; timers that this made due fire spread over a minute");
        }
    }
}
