//! `stuck` and `invocations list`.

use std::time::Duration;

use selvedge_engine::wiring::Tasks;
use serde_json::Value;

use crate::app::App;
use crate::control::Request;

use super::access::{ask_once, ask_whoever};
use super::actors::text;
use super::args::{Common, Keep};
use super::exit::{Code, Stop};
use super::{hand, happened, print};

/// Everything that has waited for longer than a span, or than its type expects.
pub async fn stuck(common: &Common, app: App, longer_than: Option<Duration>, keep: Keep) -> Result<Code, Stop> {
    let longer_than_ms = longer_than.map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX));
    let than = longer_than.map_or_else(|| "its type expects (`expected_within`, or else 1 h)".to_owned(), happened::span);
    let (found, held) = ask_whoever(common, app, Tasks::Leave, Request::Stuck { longer_than_ms, filter: keep.filter.clone() }).await?;
    print::result(common.output, &found, || {
        let line = |one: &Value| format!("{}  {}", happened::age(&one["since_ms"]), text(&one["sentence"]));
        let lines: Vec<String> = found.as_array().into_iter().flatten().map(line).collect();
        if lines.is_empty() { nothing(&format!("nothing has waited for longer than {than}"), &keep) } else { lines.join("\n") }
    })?;
    hand::note_unheld(found.as_array().is_some_and(|found| !found.is_empty()), held);
    Ok(Code::Done)
}

/// `invocations list`
pub async fn invocations(common: &Common, app: App, all: bool, keep: Keep) -> Result<Code, Stop> {
    let found = ask_once(common, app, Tasks::Leave, Request::Invocations { all, filter: keep.filter.clone() }).await?;
    print::result(common.output, &found, || {
        let row = |one: &Value| {
            ["id", "actor", "handler", "status", "attempt"].iter().map(|name| text(&one[*name])).chain([happened::age(&one["accepted_at_ms"])]).collect()
        };
        let rows: Vec<Vec<String>> = found.as_array().into_iter().flatten().map(row).collect();
        match (rows.is_empty(), all) {
            (false, _) => print::table(&["INVOCATION", "ACTOR", "HANDLER", "STATUS", "ATTEMPT", "AGE"], &rows),
            (true, false) => nothing("no invocation is open; --all lists those that have ended", &keep),
            (true, true) => nothing("there is no invocation", &keep),
        }
    })?;
    Ok(Code::Done)
}

/// What an empty list says.
pub fn nothing(all: &str, keep: &Keep) -> String {
    if keep.filter.is_empty() { all.to_owned() } else { format!("{all}, with `--where '{}'`", keep.filter) }
}
