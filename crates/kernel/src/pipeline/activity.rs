//! Activities and their executors as they stand in a file.

use std::collections::{BTreeMap, BTreeSet};

use super::policies::{breaker, retry, throttle, timeout};
use super::scope::InScope;
use crate::diagnostic::{Place, Report};
use crate::egress::Allowed;
use crate::fields::{Fields, boolean, shown, span, string, strings, whole};
use crate::limit;
use crate::pipeline::definition::{Activity, Exec, Executor, Variable, Worker};
use crate::pipeline::document::{Kind, Tree};
use crate::pipeline::expression::Expression;
use crate::pipeline::http;
use crate::policy::{Span, Throttle};

/// Executors of the design that this version has not.
pub(crate) const LATER: [&str; 5] = ["wasm", "queue", "llm", "redis", "logic_app"];
/// How long a task is its worker's without a sign of life, if nothing else is written.
pub(crate) const LEASE: Span = Span(std::time::Duration::from_secs(30));
/// Fields that belong to `exec`.
pub(crate) const OF_EXEC: [&str; 5] = ["processes", "persistent", "environment", "folder", "as_file"];

/// `activities`: a mapping of names to activities.
pub(crate) fn activities(report: &mut Report, tree: &Tree, egress: &Egress<'_>) -> BTreeMap<String, Activity> {
    let mut found = BTreeMap::new();
    let Kind::Map(entries) = &tree.kind else {
        report.error(
            tree.place,
            format!("`activities` must be a mapping of names, it is {}", tree.type_name()),
            "write activities: {head: {exec: [python3, head.py]}}",
        );
        return found;
    };
    for entry in entries {
        if !is_activity_name(&entry.key) {
            let message = format!("the activity `{}` needs another name: a letter, then letters, digits, `_`, `-` and `.`, 63 at most", shown(&entry.key));
            let fitting: String = entry.key.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).take(61).collect();
            report.error(entry.place, message, format!("write {}{fitting}", if fitting.starts_with(|c: char| c.is_ascii_alphabetic()) { "" } else { "x_" }));
        }
        if let Some(activity) = activity(report, &entry.key, entry.place, &entry.value, egress) {
            found.insert(entry.key.clone(), activity);
        }
    }
    found
}

fn is_activity_name(text: &str) -> bool {
    text.len() <= 63
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-' | b'.'))
}

fn activity(report: &mut Report, name: &str, place: Place, tree: &Tree, egress: &Egress<'_>) -> Option<Activity> {
    let mut fields = Fields::of(
        report,
        tree,
        format!("the activity `{}`", shown(name)),
        "write {exec: [program, argument]}, {http: {url: …}}, {worker: true} or {native: true}",
    )?;
    fields.later(report, &LATER);
    let executor = executor(report, &mut fields, name, place, egress);
    let retry = fields.get("retry").and_then(|entry| retry(report, &entry.value)).unwrap_or_default();
    let timeout = fields.get("timeout").and_then(|entry| timeout(report, &entry.value)).unwrap_or_default();
    let throttle = fields.get("throttle").and_then(|entry| shared_throttle(report, &entry.value));
    let breaker = fields.get("breaker").and_then(|entry| breaker(report, &entry.value));
    fields.end(report);
    Some(Activity { executor: executor?, retry, timeout, throttle, breaker })
}

/// `throttle` of an activity. Its key reads the task's input, whose fields are not known here, and nothing else.
fn shared_throttle(report: &mut Report, tree: &Tree) -> Option<Throttle> {
    let (stages, nullable, input) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
    let scope = InScope { input: &input, stages: &stages, upstream: None, own: None, nullable: &nullable, more: vec![("input".to_owned(), None)] };
    if let Kind::Map(entries) = &tree.kind
        && let Some(entry) = entries.iter().find(|entry| entry.key == "key")
        && let Kind::Text(text) = &entry.value.kind
        && let Ok(key) = Expression::compile(&text.value)
        && key.roots().contains("run")
    {
        let hint = "give it to the task: write it in the `input` of the stage that calls this, and read it from `input` here";
        report.error(entry.value.place, "`throttle.key` of an activity reads `run`, and the task's `input` is all that there is", hint);
    }
    throttle(report, tree, &scope)
}

/// What is known of what may be reached where a file is read.
#[derive(Clone, Copy)]
pub(crate) struct Egress<'a> {
    /// What this file names.
    pub(crate) here: &'a [Allowed],
    /// What its manifest names; none where there may be one that is not known.
    pub(crate) elsewhere: Option<&'a [Allowed]>,
}

/// What `exec`, `http` or `native` says, with the fields beside it.
fn executor(report: &mut Report, fields: &mut Fields<'_>, name: &str, place: Place, egress: &Egress<'_>) -> Option<Executor> {
    let later = LATER.iter().any(|name| fields.peek(name).is_some());
    let written: Vec<&str> = ["exec", "native", "http", "worker"].into_iter().filter(|executor| fields.peek(executor).is_some()).collect();
    if let (Some(entry), ["http"]) = (fields.get("http"), written.as_slice()) {
        for field in OF_EXEC {
            fields.elsewhere(report, field, "belongs to `exec`, and this is `http`", "take it out");
        }
        return http::http(report, name, &entry.value, egress).map(Executor::Http);
    }
    if let (Some(entry), ["worker"]) = (fields.get("worker"), written.as_slice()) {
        for field in OF_EXEC {
            fields.elsewhere(report, field, "belongs to `exec`, and this is `worker`", "take it out: whoever takes the task knows");
        }
        return worker(report, &entry.value).map(Executor::Worker);
    }
    if let [first, .., last] = written.as_slice() {
        let at = fields.peek(last).map_or(place, |entry| entry.place);
        report.error(
            at,
            format!(
                "`{}` has {} executors: `{first}` and `{last}`",
                shown(name),
                match written.len() {
                    2 => "two",
                    3 => "three",
                    _ => "four",
                }
            ),
            "take one out",
        );
        for field in written.iter().chain(&OF_EXEC) {
            fields.pass(field);
        }
        return None;
    }
    match (fields.get("exec"), fields.get("native")) {
        (Some(command), None) => exec(report, fields, &command.value).map(Executor::Exec),
        (None, Some(entry)) => {
            if boolean(report, "native", &entry.value) == Some(false) {
                report.error(
                    entry.value.place,
                    "`native: false` says nowhere where it runs",
                    "write native: true for a Rust function, exec: [program] for a program",
                );
            }
            for field in OF_EXEC {
                fields.elsewhere(report, field, "belongs to `exec`, and this is `native`", "take it out");
            }
            Some(Executor::Native)
        }
        // Two of them were refused above.
        (Some(_), Some(_)) | (None, None) => {
            if !later {
                report.error(
                    place,
                    format!("`{}` does not say where it runs", shown(name)),
                    "write exec: [program, argument] for a program, http: {url: …} for a request, worker: true for who asks for it, native: true for a Rust function",
                );
            }
            OF_EXEC.iter().for_each(|field| fields.pass(field));
            None
        }
    }
}

/// Workers, from `true` or their fields.
pub(crate) fn worker(report: &mut Report, tree: &Tree) -> Option<Worker> {
    let mut lease = LEASE;
    if let Kind::Map(_) = &tree.kind {
        let mut fields = Fields::of(report, tree, "the executor `worker`", "write worker: true or worker: {lease: 30s}")?;
        if let Some(entry) = fields.get("lease") {
            lease = span(report, "lease", &entry.value)?;
            if !limit::LEASE_MS.contains(&u64::try_from(lease.0.as_millis()).unwrap_or(u64::MAX)) {
                report.error(entry.value.place, "a lease is 1 s to 1 h long", "write lease: 30s, and let workers of longer tasks send heartbeats");
                return None;
            }
        }
        fields.end(report);
    } else if !boolean(report, "worker", tree)? {
        report.error(tree.place, "`worker: false` says nowhere where it runs", "write worker: true, exec: [program] or native: true");
        return None;
    }
    Some(Worker { lease })
}

/// A program from its command and the fields beside it. `folder` is where the program runs: relative to the file that declares it, the file's own folder if not written.
pub(crate) fn exec(report: &mut Report, fields: &mut Fields<'_>, command: &Tree) -> Option<Exec> {
    let command = match &command.kind {
        Kind::Text(text) => {
            let words: Vec<&str> = text.value.split_whitespace().collect();
            report.error(
                command.place,
                "`exec` must be a list of a program and its arguments: there is no shell",
                format!("write exec: [{}]", words.join(", ")),
            );
            None
        }
        Kind::List(items) if items.is_empty() => {
            report.error(command.place, "`exec` names no program", "write exec: [python3, worker.py]");
            None
        }
        _ => strings(report, "exec", command).map(|words| words.into_iter().map(|(word, _)| word).collect()),
    };
    let persistent = fields.get("persistent").and_then(|entry| boolean(report, "persistent", &entry.value)).unwrap_or(true);
    let processes = fields.get("processes").and_then(|entry| whole(report, "processes", &entry.value, 1..=1_000)).unwrap_or(1) as u32;
    let as_file = fields.get("as_file").and_then(|entry| boolean(report, "as_file", &entry.value)).unwrap_or(false);
    let environment = fields.get("environment").map(|entry| environment(report, &entry.value)).unwrap_or_default();
    let folder = fields.get("folder").and_then(|entry| string(report, "folder", &entry.value)).unwrap_or(".").to_owned();
    Some(Exec { command: command?, persistent, processes, environment, folder, as_file })
}

fn environment(report: &mut Report, tree: &Tree) -> BTreeMap<String, Variable> {
    let mut found = BTreeMap::new();
    let Kind::Map(entries) = &tree.kind else {
        report.error(tree.place, format!("`environment` must be a mapping, it is {}", tree.type_name()), "write environment: {LANG: C}");
        return found;
    };
    for entry in entries {
        let fits =
            !entry.key.is_empty() && !entry.key.starts_with(|c: char| c.is_ascii_digit()) && entry.key.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_');
        if !fits {
            report.error(entry.place, format!("`{}` is no name of an environment variable", shown(&entry.key)), "use letters, digits and `_`");
        }
        if entry.key.starts_with("SELVEDGE_") {
            report.error(entry.place, format!("`{}`: variables that begin with SELVEDGE_ are set by us", shown(&entry.key)), "choose another name");
        }
        let value = match &entry.value.kind {
            Kind::Map(parts) if parts.len() == 1 && parts[0].key == "secret" => secret(report, &parts[0].value),
            _ => string(report, &format!("environment.{}", shown(&entry.key)), &entry.value).map(|text| Variable::Text(text.to_owned())),
        };
        if let Some(value) = value {
            found.insert(entry.key.clone(), value);
        }
    }
    found
}

fn secret(report: &mut Report, tree: &Tree) -> Option<Variable> {
    reference(report, tree).map(|secret| Variable::Secret { secret })
}

/// A reference to a secret.
pub(crate) fn reference(report: &mut Report, tree: &Tree) -> Option<String> {
    let text = string(report, "secret", tree)?;
    if text.strip_prefix("env:").or_else(|| text.strip_prefix("file:")).is_none_or(str::is_empty) {
        report.error(tree.place, format!("`{}` is no reference to a secret", shown(text)), "write {secret: env:NAME} or {secret: file:PATH}");
        return None;
    }
    Some(text.to_owned())
}
