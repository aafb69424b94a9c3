//! `app.yaml`: what one application consists of besides its Rust code.
//!
//! ```yaml
//! activities:
//!   head: { exec: [python3, head.py] }
//! actors:
//!   licence:
//!     expected_within: 10m
//!     handlers:
//!       count: { exec: [python3, licence.py], retry: { max_attempts: 5 } }
//! pipelines: [pipelines/audit.yaml]
//! egress: [api.example.org]
//! ```

use std::collections::{BTreeMap, BTreeSet};

use crate::diagnostic::{Diagnostic, Report};
use crate::egress::Allowed;
use crate::fields::{Fields, shown, span, strings};
use crate::pipeline::activity::{Egress, LATER as LATER_EXECUTORS, OF_EXEC, activities, exec, worker};
use crate::pipeline::definition::{Activity, Exec, Worker};
use crate::pipeline::document::{Entry, Kind, Tree, one_document};
use crate::pipeline::parse::Known;
use crate::pipeline::policies::{retry, timeout};
use crate::policy::{Retry, Span, Timeout};

/// Sections of the design that this version has not.
const LATER: [&str; 4] = ["queues", "schedules", "triggers", "policies"];

/// A validated application manifest.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Manifest {
    /// Activities for all pipelines and handlers.
    pub activities: BTreeMap<String, Activity>,
    /// Actor types whose handlers are programs, or a worker's work.
    pub actors: BTreeMap<String, ActorType>,
    /// Files of pipelines, relative to the manifest, in file order.
    pub pipelines: Vec<String>,
    /// What `http` activities may reach, here and in the pipelines.
    pub egress: Vec<Allowed>,
}

/// An actor type whose handlers are programs, or a worker's work.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ActorType {
    /// By name.
    pub handlers: BTreeMap<String, Handler>,
    /// How long its work waits before `stuck` lists it, if not as long as by default.
    pub expected_within: Option<Span>,
}

/// A transition handler: it gets `{actor, handler, message, state}` and answers with what changes.
#[derive(Clone, PartialEq, Debug)]
pub struct Handler {
    /// Who does that.
    pub run: Performer,
    /// When to try again; if not written, as for messages.
    pub retry: Retry,
    /// How long it may take.
    pub timeout: Timeout,
}

/// Who performs a transition handler.
#[derive(Clone, PartialEq, Debug)]
pub enum Performer {
    /// A program. `folder` is relative to the manifest.
    Exec(Exec),
    /// Whoever asks for its tasks, in a process of its own.
    Worker(Worker),
}

impl Manifest {
    /// What pipelines may call.
    #[must_use]
    pub fn known(&self) -> Known {
        Known {
            activities: self.activities.keys().cloned().collect(),
            actors: self.actors.iter().map(|(kind, actor)| (kind.clone(), actor.handlers.keys().cloned().collect())).collect(),
            pipelines: None,
            egress: self.egress.clone(),
        }
    }
}

/// Parses and validates `app.yaml`. Gives the manifest with warnings, or all errors, sorted by place.
pub fn parse_manifest(file: &str, text: &str) -> Result<(Manifest, Vec<Diagnostic>), Vec<Diagnostic>> {
    let mut report = Report::new(file);
    let tree = one_document(&mut report, text);
    let manifest = tree.and_then(|tree| manifest(&mut report, &tree));
    report.end(manifest)
}

fn manifest(report: &mut Report, tree: &Tree) -> Option<Manifest> {
    let mut fields = Fields::of(report, tree, "a manifest", "write activities: {…}, actors: {…}, pipelines: […]")?;
    fields.later(report, &LATER);
    let egress = fields.get("egress").map(|entry| crate::pipeline::http::egress(report, &entry.value)).unwrap_or_default();
    let reach = Egress { here: &egress, elsewhere: Some(&[]) };
    let activities = fields.get("activities").map(|entry| activities(report, &entry.value, &reach)).unwrap_or_default();
    let actors = fields.get("actors").map(|entry| actors(report, &entry.value)).unwrap_or_default();
    let pipelines = fields.get("pipelines").map(|entry| pipelines(report, &entry.value)).unwrap_or_default();
    for field in ["stages", "selvedge"] {
        fields.elsewhere(
            report,
            field,
            "belongs to a pipeline, and this file is a manifest",
            "write the pipeline in a file of its own and name it under `pipelines`",
        );
    }
    fields.end(report);
    Some(Manifest { activities, actors, pipelines, egress })
}

fn pipelines(report: &mut Report, tree: &Tree) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let files = strings(report, "pipelines", tree).unwrap_or_default();
    for (file, place) in &files {
        if file.is_empty() {
            report.error(*place, "`pipelines` names no file here", "write the path of a file, relative to this one");
        } else if !seen.insert(file) {
            report.error(*place, format!("`pipelines` names `{}` a second time", shown(file)), "take one out");
        }
    }
    files.into_iter().map(|(file, _)| file).collect()
}

fn actors(report: &mut Report, tree: &Tree) -> BTreeMap<String, ActorType> {
    let mut found = BTreeMap::new();
    for entry in entries(report, "actors", tree, "write actors: {licence: {handlers: {count: {exec: [python3, licence.py]}}}}") {
        name(report, "actor type", entry);
        if entry.key == crate::id::PIPELINE_TYPE || entry.key == "limit" {
            report.error(entry.place, format!("the actor type `{}` is built in", entry.key), "choose another name");
        }
        let Some(mut fields) =
            Fields::of(report, &entry.value, format!("the actor type `{}`", shown(&entry.key)), "write {handlers: {count: {exec: [python3, licence.py]}}}")
        else {
            continue;
        };
        let hint = "write handlers: {count: {exec: [python3, licence.py]}}";
        let handlers = fields.required(report, "handlers", hint).map(|entry| handlers(report, &entry.value)).unwrap_or_default();
        let expected_within = fields.get("expected_within").and_then(|entry| span(report, "expected_within", &entry.value));
        fields.end(report);
        found.insert(entry.key.clone(), ActorType { handlers, expected_within });
    }
    found
}

fn handlers(report: &mut Report, tree: &Tree) -> BTreeMap<String, Handler> {
    let mut found = BTreeMap::new();
    let hint = "write handlers: {count: {exec: [python3, licence.py]}}";
    let all = entries(report, "handlers", tree, hint);
    if all.is_empty() && matches!(tree.kind, Kind::Map(_)) {
        report.error(tree.place, "`handlers` has no handler", hint);
    }
    for entry in all {
        name(report, "handler", entry);
        if let Some(handler) = handler(report, entry) {
            found.insert(entry.key.clone(), handler);
        }
    }
    found
}

fn handler(report: &mut Report, entry: &Entry) -> Option<Handler> {
    let mut fields = Fields::of(report, &entry.value, format!("the handler `{}`", shown(&entry.key)), "write {exec: [program, argument]}")?;
    fields.later(report, &LATER_EXECUTORS);
    fields.elsewhere(
        report,
        "native",
        "has no place here: native handlers are registered by the Rust program",
        "take it out, or write exec: [program, argument]",
    );
    fields.elsewhere(report, "as_file", "belongs to activities: a handler gets its message and state", "take it out");
    fields.elsewhere(
        report,
        "http",
        "has no place here: it cannot answer with state and messages",
        "call an activity from a pipeline, or write exec: [program, argument]",
    );
    let elsewhere = LATER_EXECUTORS.iter().chain(&["native", "http"]).any(|name| fields.peek(name).is_some());
    let run = match (fields.get("exec"), fields.get("worker")) {
        (Some(command), None) => exec(report, &mut fields, &command.value).map(Performer::Exec),
        (None, Some(entry)) => {
            for field in OF_EXEC {
                fields.elsewhere(report, field, "belongs to `exec`, and this is `worker`", "take it out: whoever takes the task knows");
            }
            worker(report, &entry.value).map(Performer::Worker)
        }
        (both, _) => {
            if both.is_some() {
                report.error(entry.place, format!("the handler `{}` has two executors: `exec` and `worker`", shown(&entry.key)), "take one out");
            } else if !elsewhere {
                let message = format!("the handler `{}` does not say where it runs", shown(&entry.key));
                report.error(entry.place, message, "write exec: [program, argument], or worker: true for whoever asks for it");
            }
            OF_EXEC.iter().for_each(|field| fields.pass(field));
            None
        }
    };
    let retry = fields.get("retry").map_or(Some(Retry::message()), |entry| retry(report, &entry.value));
    let timeout = fields.get("timeout").map_or(Some(Timeout::default()), |entry| timeout(report, &entry.value));
    fields.end(report);
    Some(Handler { run: run?, retry: retry?, timeout: timeout? })
}

fn entries<'a>(report: &mut Report, what: &str, tree: &'a Tree, hint: &str) -> &'a [Entry] {
    match &tree.kind {
        Kind::Map(entries) => entries,
        _ => {
            report.error(tree.place, format!("`{what}` must be a mapping of names, it is {}", tree.type_name()), hint);
            &[]
        }
    }
}

fn name(report: &mut Report, what: &str, entry: &Entry) {
    if entry.key.is_empty() || entry.key.len() > crate::limit::KEY_PART_BYTES || entry.key.contains(['/', '.', ' ']) {
        let message = format!("the {what} `{}` needs another name: 1 to {} bytes without `/`, `.` and spaces", shown(&entry.key), crate::limit::KEY_PART_BYTES);
        report.error(entry.place, message, "use letters, digits, `_` and `-`");
    }
}
