//! One stage as it stands in a file.

use serde_json::Value;
use std::collections::BTreeSet;

use super::definition::{Call, Compensate, Fallback, MaxFailed, Mode, OnFailure, SleepTime, Stage, Task};
use super::document::{Entry, Kind, Tree};
use super::modes::{broadcast, fork_join, gather, map_reduce, scatter};
use super::parse::Known;
use super::policies::{breaker, retry, throttle, timeout, waiting_timeout};
use super::scope::{InScope, ROOTS, expression, has_expression, template};
use super::validate::Knot;
use crate::diagnostic::{Place, Report};
use crate::fields::{Fields, is_empty_list, name, shown, span, string, strings, whole, word};
use crate::nearest::suggestion;
use crate::policy::APPROVAL_EXPIRES;

/// The modes of this version.
pub(super) const MODES: [&str; 9] = ["single", "scatter", "gather", "broadcast", "fork_join", "map_reduce", "approval", "sleep", "wait_signal"];
/// The modes that always run something.
const WORKS: [&str; 5] = ["single", "scatter", "broadcast", "fork_join", "map_reduce"];
/// Which field belongs to which modes.
pub(super) const OF_MODE: [(&str, &[&str]); 26] = [
    ("over", &["scatter", "map_reduce"]),
    ("as", &["scatter", "map_reduce"]),
    ("where", &["scatter", "gather"]),
    ("stages", &["gather"]),
    ("wait", &["gather", "broadcast"]),
    ("rest", &["gather", "broadcast"]),
    ("group_by", &["gather"]),
    ("combine", &["gather"]),
    ("targets", &["broadcast"]),
    ("branches", &["fork_join"]),
    ("map", &["map_reduce"]),
    ("reduce", &["map_reduce"]),
    ("assignees", &["approval"]),
    ("show", &["approval"]),
    ("expires", &["approval"]),
    ("fallback", &["approval"]),
    ("escalate_to", &["approval"]),
    ("notify", &["approval"]),
    ("for", &["sleep"]),
    ("until", &["sleep"]),
    ("signal", &["wait_signal"]),
    ("call", &["single", "scatter", "gather"]),
    ("throttle", &["single", "scatter", "gather", "broadcast", "fork_join", "map_reduce"]),
    ("breaker", &["single", "scatter", "gather", "broadcast", "fork_join", "map_reduce"]),
    ("retry", &["single", "scatter", "gather", "broadcast", "fork_join", "map_reduce"]),
    ("compensate", &["single", "scatter", "gather", "broadcast", "fork_join", "map_reduce"]),
];

/// A stage of which name, mode and dependencies are read.
pub(crate) struct Draft<'a> {
    pub(crate) name: String,
    place: Place,
    /// None: not known to this version; its own fields are not looked at.
    mode: Option<&'static str>,
    fields: Fields<'a>,
    depends_on: Option<Vec<(String, Place)>>,
    gathers: Vec<(String, Place)>,
    /// Its fields and where they stand.
    written: Vec<(String, Place)>,
}

/// What calls are checked against.
pub(crate) struct Calls<'a> {
    /// Activities of the same file.
    pub(crate) declared: &'a BTreeSet<String>,
    pub(crate) known: Option<&'a Known>,
}

impl Draft<'_> {
    pub(crate) fn knot(&self) -> Knot {
        let written = match (&self.depends_on, self.mode) {
            (None, Some("gather")) => Some(self.gathers.clone()),
            (None, _) => None,
            (Some(written), _) => Some(self.gathers.iter().chain(written).cloned().collect()),
        };
        Knot { name: self.name.clone(), place: self.place, written, some_of: self.some_of() }
    }

    /// Stages of which only some have ended when this one starts.
    fn some_of(&self) -> Vec<String> {
        let some = self.mode == Some("gather")
            && self.fields.peek("wait").is_some_and(|entry| match &entry.value.kind {
                Kind::Text(text) => text.value == "any",
                Kind::Map(_) => true,
                _ => false,
            });
        if some && self.gathers.len() > 1 { self.gathers.iter().map(|(name, _)| name.clone()).collect() } else { Vec::new() }
    }

    /// The place of a field, or else of the stage.
    pub(crate) fn place_of(&self, field: &str) -> Place {
        self.written.iter().find(|(name, _)| name == field).map_or(self.place, |(_, place)| *place)
    }

    /// Why its output can be null, if it can.
    pub(crate) fn nullable(&self) -> Option<&'static str> {
        let continues = self.fields.peek("on_failure").is_some_and(|entry| match &entry.value.kind {
            Kind::Text(text) => text.value == "continue",
            Kind::Map(entries) => entries.iter().any(|entry| entry.key == "continue"),
            _ => false,
        });
        if continues {
            Some("on_failure: continue")
        } else if self.fields.peek("when").is_some() {
            Some("when")
        } else {
            None
        }
    }
}

/// Reads name, mode and dependencies.
pub(crate) fn draft<'a>(report: &mut Report, tree: &'a Tree) -> Option<Draft<'a>> {
    let mut fields = Fields::of(report, tree, "a stage", "write {name: first, call: an_activity}")?;
    let named = fields.required(report, "name", "write name: first").and_then(|entry| Some((string(report, "name", &entry.value)?, entry.value.place)));
    let (stage_name, place) = match named {
        Some((text, place)) => {
            name(report, "the stage", text, place);
            (text.to_owned(), place)
        }
        None => (String::new(), fields.place),
    };
    if !stage_name.is_empty() {
        fields.rename(format!("the stage `{}`", shown(&stage_name)));
    }
    let mode = mode(report, &mut fields);
    let depends_on = fields.get("depends_on").map(|entry| strings(report, "depends_on", &entry.value).unwrap_or_default());
    let gathers = if mode == Some("gather") {
        let hint = "write stages: [the_stage_before]";
        let stages = fields.required(report, "stages", hint).and_then(|entry| {
            let names = strings(report, "stages", &entry.value)?;
            if is_empty_list(&entry.value) {
                report.error(entry.value.place, "`stages` names no stage to gather", hint);
            }
            Some(names)
        });
        stages.unwrap_or_default()
    } else {
        Vec::new()
    };
    let written = fields.places();
    Some(Draft { name: stage_name, place, mode, fields, depends_on, gathers, written })
}

fn mode(report: &mut Report, fields: &mut Fields<'_>) -> Option<&'static str> {
    let Some(entry) = fields.get("mode") else { return Some("single") };
    let written = string(report, "mode", &entry.value)?;
    if let Some(found) = MODES.into_iter().find(|mode| *mode == written) {
        return Some(found);
    }
    report.error(entry.value.place, format!("there is no mode `{}`", shown(written)), suggestion(written, MODES));
    None
}

/// Reads the rest. None where an error says why.
pub(crate) fn finish(report: &mut Report, draft: &mut Draft<'_>, depends_on: Vec<String>, scope: &InScope<'_>, calls: &Calls<'_>) -> Option<Stage> {
    let fields = &mut draft.fields;
    let when = fields.get("when").and_then(|entry| expression(report, "when", &entry.value, scope));
    let Some(mode) = draft.mode else {
        OF_MODE
            .iter()
            .map(|(field, _)| *field)
            .chain(["call", "input", "output", "retry", "timeout", "throttle", "breaker", "on_failure"])
            .for_each(|field| fields.pass(field));
        std::mem::replace(fields, Fields::empty()).end(report);
        return None;
    };
    for (field, modes) in OF_MODE {
        if !modes.contains(&mode) {
            let hint = format!("it belongs to {}: write the mode you mean, or take it out", modes.join(" and "));
            fields.elsewhere(report, field, &format!("does not belong to the mode {mode}"), &hint);
        }
    }
    let each = task_scope(report, fields, mode, scope);
    let calls_something = fields.peek("call").is_some();
    let (kind, call) = match mode {
        "single" => (Some(Mode::Single), call(report, fields, &each, calls)),
        "scatter" => (scatter(report, fields, scope, &each), call(report, fields, &each, calls)),
        "gather" => {
            let kind = gather(report, fields, scope, &draft.gathers);
            let call = if calls_something { Some(call(report, fields, &each, calls)) } else { None };
            (kind, call.unwrap_or(None))
        }
        "broadcast" => (broadcast(report, fields, &each, calls), None),
        "fork_join" => (fork_join(report, fields, &each, calls), None),
        "map_reduce" => (map_reduce(report, fields, scope, &each, calls), None),
        "approval" => (approval(report, fields, scope), None),
        "sleep" => (sleep(report, fields, scope), None),
        _ => (wait_signal(report, fields), None),
    };
    let missing_call = matches!(mode, "single" | "scatter") && call.is_none();
    let works = WORKS.contains(&mode) || calls_something;
    unfit(report, fields, mode, works);
    if matches!(mode, "fork_join" | "map_reduce") {
        let hint =
            if mode == "fork_join" { "write it in each branch: {call: …, input: …}" } else { "write it in `map` and `reduce`: {call: …, input: …}" };
        fields.elsewhere(report, "input", &format!("does not belong to the mode {mode}: each of its calls has its own"), hint);
    }
    let input = optional(fields, "input");
    if let Some(entry) = input {
        template(report, "input", &entry.value, &each);
    }
    let output = optional(fields, "output");
    if let Some(entry) = output {
        template(report, "output", &entry.value, &each.with("result", None));
    }
    let retry = fields.get("retry").and_then(|entry| retry(report, &entry.value));
    let timeout =
        fields.get("timeout").and_then(|entry| if mode == "wait_signal" { waiting_timeout(report, &entry.value) } else { timeout(report, &entry.value) });
    let throttle = fields.get("throttle").and_then(|entry| throttle(report, &entry.value, &each));
    let breaker = fields.get("breaker").and_then(|entry| breaker(report, &entry.value));
    let undo = fields.get("compensate").map(|entry| compensate(report, &entry.value, scope, calls));
    let on_failure = fields.get("on_failure").map_or(Some(OnFailure::Fail), |entry| on_failure(report, &entry.value, &each, calls));
    std::mem::replace(fields, Fields::empty()).end(report);
    if missing_call {
        return None;
    }
    Some(Stage {
        name: draft.name.clone(),
        mode: kind?,
        call,
        depends_on,
        when,
        input: input.map_or(Value::Null, |entry| entry.value.to_value()),
        output: output.map_or(Value::Null, |entry| entry.value.to_value()),
        retry,
        timeout,
        throttle,
        breaker,
        compensate: match undo {
            None => None,
            Some(undo) => Some(undo?),
        },
        on_failure: on_failure?,
    })
}

fn optional<'a>(fields: &mut Fields<'a>, name: &str) -> Option<&'a Entry> {
    fields.get(name)
}

/// Fields that every mode knows and that make no sense in this one.
fn unfit(report: &mut Report, fields: &mut Fields<'_>, mode: &str, works: bool) {
    if works {
        return;
    }
    if mode == "gather" {
        for field in ["input", "retry", "timeout", "throttle", "breaker", "compensate"] {
            fields.elsewhere(report, field, "needs a `call`: without one the gather runs nothing", "write call: an_activity, or take it out");
        }
        return;
    }
    let instead = match mode {
        "approval" => ("use `show` for what the person sees", "use `expires` for how long it waits"),
        _ => ("take it out", "use `for` or `until`"),
    };
    fields.elsewhere(report, "input", &format!("does not belong to the mode {mode}: it runs nothing"), instead.0);
    if mode != "wait_signal" {
        fields.elsewhere(report, "timeout", &format!("does not belong to the mode {mode}"), instead.1);
    }
    if mode == "sleep" {
        fields.elsewhere(report, "on_failure", "does not belong to the mode sleep: it cannot fail", "take it out");
    }
}

/// What a task's own fields may read.
fn task_scope<'s>(report: &mut Report, fields: &mut Fields<'_>, mode: &str, scope: &InScope<'s>) -> InScope<'s> {
    match mode {
        "scatter" | "map_reduce" => {
            let mut each = scope.with("item", None).with("index", None);
            if let Some(entry) = fields.get("as")
                && let Some(text) = string(report, "as", &entry.value)
            {
                if ROOTS.iter().any(|(root, _)| *root == text) {
                    report.error(entry.value.place, format!("`as` cannot be `{text}`: that name has a meaning of its own"), "choose another name");
                } else if name(report, "the variable", text, entry.value.place).is_some() {
                    each = each.with(text, None);
                }
            }
            each
        }
        "gather" if fields.peek("group_by").is_some() => scope.with("group", Some(&["key", "items"])),
        _ => scope.clone(),
    }
}

/// What one call of several calls: a name, or `{call, input}`.
pub(crate) fn task(report: &mut Report, what: &str, tree: &Tree, scope: &InScope<'_>, calls: &Calls<'_>) -> Option<Task> {
    if let Kind::Text(_) = &tree.kind {
        return target(report, tree, scope, calls).map(|call| Task { call, input: Value::Null });
    }
    let mut fields = Fields::of(report, tree, what, "write {call: an_activity}")?;
    let call = call(report, &mut fields, scope, calls);
    let input = fields.get("input");
    if let Some(entry) = input {
        template(report, "input", &entry.value, scope);
    }
    fields.end(report);
    Some(Task { call: call?, input: input.map_or(Value::Null, |entry| entry.value.to_value()) })
}

/// What undoes a task: a name, or `{call, input, retry, timeout}`.
fn compensate(report: &mut Report, tree: &Tree, scope: &InScope<'_>, calls: &Calls<'_>) -> Option<Compensate> {
    let scope = scope.with("output", None).with("item", None);
    if let Kind::Text(_) = &tree.kind {
        return target(report, tree, &scope, calls).map(|call| Compensate { call, input: Value::Null, retry: None, timeout: None });
    }
    let mut fields = Fields::of(report, tree, "`compensate`", "write compensate: {call: an_activity, input: {id: \"${output.id}\"}}")?;
    let call = call(report, &mut fields, &scope, calls);
    let input = fields.get("input");
    if let Some(entry) = input {
        template(report, "compensate.input", &entry.value, &scope);
    }
    let retry = fields.get("retry").map(|entry| retry(report, &entry.value));
    let timeout = fields.get("timeout").map(|entry| timeout(report, &entry.value));
    fields.end(report);
    Some(Compensate {
        call: call?,
        input: input.map_or(Value::Null, |entry| entry.value.to_value()),
        retry: match retry {
            None => None,
            Some(retry) => Some(retry?),
        },
        timeout: match timeout {
            None => None,
            Some(timeout) => Some(timeout?),
        },
    })
}

fn approval(report: &mut Report, fields: &mut Fields<'_>, scope: &InScope<'_>) -> Option<Mode> {
    let hint = "write assignees: [\"role:finance\", \"user:ada@example.org\"]";
    let assignees = fields.required(report, "assignees", hint).and_then(|entry| people(report, entry));
    let show = fields.get("show");
    if let Some(entry) = show {
        template(report, "show", &entry.value, scope);
    }
    let expires = fields.get("expires").map_or(Some(APPROVAL_EXPIRES), |entry| span(report, "expires", &entry.value));
    let fallback = fields.get("fallback").map_or(Some("reject"), |entry| word(report, "fallback", &entry.value, &["approve", "reject", "escalate"]));
    let escalate = fields.get("escalate_to");
    match (fallback, escalate) {
        (Some("escalate"), None) => {
            report.error(fields.place, "`fallback: escalate` needs `escalate_to`: who is asked next", "write escalate_to: [\"role:records\"]")
        }
        (Some("approve" | "reject"), Some(entry)) => {
            report.error(entry.place, "`escalate_to` is never asked: `fallback` does not escalate", "write fallback: escalate, or take it out")
        }
        _ => {}
    }
    let escalate_to = escalate.map_or(Some(Vec::new()), |entry| people(report, entry));
    fields.later(report, &["notify"]);
    let fallback = match fallback? {
        "approve" => Fallback::Approve,
        "escalate" => Fallback::Escalate,
        _ => Fallback::Reject,
    };
    let show = show.map_or(Value::Null, |entry| entry.value.to_value());
    Some(Mode::Approval { assignees: assignees?, show, expires: expires?, fallback, escalate_to: escalate_to? })
}

fn people(report: &mut Report, entry: &Entry) -> Option<Vec<String>> {
    let people = strings(report, &entry.key, &entry.value)?;
    if is_empty_list(&entry.value) {
        report.error(entry.value.place, format!("`{}` names nobody", entry.key), "write \"role:finance\" or \"user:ada@example.org\"");
    }
    for (who, place) in &people {
        let named = who.strip_prefix("user:").or_else(|| who.strip_prefix("role:")).is_some_and(|name| !name.is_empty());
        if !named {
            let bare = who.trim_start_matches("user:").trim_start_matches("role:");
            let bare = if bare.is_empty() { "name" } else { bare };
            report.error(*place, format!("`{}` is neither a user nor a role", shown(who)), format!("write \"user:{0}\" or \"role:{0}\"", shown(bare)));
        }
    }
    Some(people.into_iter().map(|(who, _)| who).collect())
}

fn sleep(report: &mut Report, fields: &mut Fields<'_>, scope: &InScope<'_>) -> Option<Mode> {
    match (fields.get("for"), fields.get("until")) {
        (Some(entry), None) => span(report, "for", &entry.value).map(|span| Mode::Sleep(SleepTime::For(span))),
        (None, Some(entry)) => {
            let text = string(report, "until", &entry.value)?;
            template(report, "until", &entry.value, scope);
            if !has_expression(text) && text.parse::<jiff::Timestamp>().is_err() {
                report.error(
                    entry.value.place,
                    format!("`until` is not a time: `{}`", shown(text)),
                    "write RFC 3339 such as 2026-12-24T18:00:00Z, or an expression: \"${input.at}\"",
                );
                return None;
            }
            Some(Mode::Sleep(SleepTime::Until(text.to_owned())))
        }
        (Some(_), Some(entry)) => {
            report.error(entry.place, "`for` and `until` stand together", "take one out");
            None
        }
        (None, None) => {
            report.error(fields.place, "a `sleep` needs `for` or `until`", "write for: 30s");
            None
        }
    }
}

fn wait_signal(report: &mut Report, fields: &mut Fields<'_>) -> Option<Mode> {
    let entry = fields.required(report, "signal", "write signal: settled")?;
    let signal = string(report, "signal", &entry.value)?;
    if has_expression(signal) {
        report.error(entry.value.place, "`signal` is a fixed name, no expression", "write signal: settled");
        return None;
    }
    if signal.is_empty() || signal.len() > crate::limit::KEY_PART_BYTES {
        report.error(entry.value.place, format!("`signal` must have 1 to {} bytes", crate::limit::KEY_PART_BYTES), "write signal: settled");
        return None;
    }
    Some(Mode::WaitSignal { signal: signal.to_owned() })
}

fn call(report: &mut Report, fields: &mut Fields<'_>, scope: &InScope<'_>, calls: &Calls<'_>) -> Option<Call> {
    let entry = fields.required(report, "call", "write call: an_activity, or call: {actor: stock, key: \"${input.sku}\", handler: reserve}")?;
    target(report, &entry.value, scope, calls)
}

pub(crate) fn target(report: &mut Report, tree: &Tree, scope: &InScope<'_>, calls: &Calls<'_>) -> Option<Call> {
    if let Kind::Text(text) = &tree.kind {
        if let Some(known) = calls.known
            && !calls.declared.contains(&text.value)
            && !known.activities.contains(&text.value)
        {
            let all: BTreeSet<&str> = calls.declared.iter().chain(&known.activities).map(String::as_str).collect();
            let hint = match suggestion(&text.value, all.iter().copied()) {
                hint if hint.is_empty() => "declare it under `activities`, here or in app.yaml".to_owned(),
                hint => hint,
            };
            report.error(tree.place, format!("nothing declares the activity `{}`", shown(&text.value)), hint);
        }
        return Some(Call::Activity(text.value.clone()));
    }
    if !matches!(tree.kind, Kind::Map(_)) {
        report.error(tree.place, format!("`call` must name an activity, an actor or a pipeline, it is {}", tree.type_name()), "write call: an_activity");
        return None;
    }
    let mut fields = Fields::of(report, tree, "`call`", "write call: an_activity")?;
    if let Some(entry) = fields.get("pipeline") {
        for field in ["actor", "key", "handler"] {
            fields.elsewhere(report, field, "belongs to the call of an actor, and this one calls a pipeline", "take one of them out");
        }
        fields.end(report);
        let text = string(report, "pipeline", &entry.value)?;
        name(report, "the pipeline", text, entry.value.place)?;
        if let Some(known) = calls.known.and_then(|known| known.pipelines.as_ref())
            && !known.contains(text)
        {
            let hint = match suggestion(text, known.iter().map(String::as_str)) {
                hint if hint.is_empty() => "name its file under `pipelines` in app.yaml".to_owned(),
                hint => hint,
            };
            report.error(entry.value.place, format!("there is no pipeline `{}`", shown(text)), hint);
        }
        return Some(Call::Pipeline(text.to_owned()));
    }
    let hint = "write call: {actor: stock, key: \"${input.sku}\", handler: reserve}";
    let mut part = |report: &mut Report, name: &str| {
        let entry = fields.required(report, name, hint)?;
        let text = string(report, name, &entry.value)?;
        if text.is_empty() || (text.len() > crate::limit::KEY_PART_BYTES && name != "key") {
            report.error(entry.value.place, format!("`{name}` must have 1 to {} bytes", crate::limit::KEY_PART_BYTES), hint);
            return None;
        }
        Some((text.to_owned(), &entry.value))
    };
    let (actor, key, handler) = (part(report, "actor"), part(report, "key"), part(report, "handler"));
    fields.end(report);
    if let Some((_, tree)) = &key {
        template(report, "key", tree, scope);
    }
    if let (Some(known), Some((actor, tree))) = (calls.known, &actor) {
        match (known.actors.get(actor), &handler) {
            (None, _) => report.error(
                tree.place,
                format!("nothing declares the actor type `{}`", shown(actor)),
                suggestion(actor, known.actors.keys().map(String::as_str)),
            ),
            (Some(handlers), Some((handler, tree))) if !handlers.contains(handler) => {
                let hint = suggestion(handler, handlers.iter().map(String::as_str));
                report.error(tree.place, format!("the actor type `{}` has no handler `{}`", shown(actor), shown(handler)), hint);
            }
            _ => {}
        }
    }
    Some(Call::Actor { actor: actor?.0, key: key?.0, handler: handler?.0 })
}

fn on_failure(report: &mut Report, tree: &Tree, scope: &InScope<'_>, calls: &Calls<'_>) -> Option<OnFailure> {
    let Kind::Map(_) = &tree.kind else {
        return match word(report, "on_failure", tree, &["fail", "continue"])? {
            "continue" => Some(OnFailure::Continue { max_failed: None }),
            _ => Some(OnFailure::Fail),
        };
    };
    let mut fields = Fields::of(report, tree, "`on_failure`", "write on_failure: continue")?;
    match (fields.get("continue"), fields.get("call")) {
        (Some(entry), None) => {
            fields.elsewhere(report, "input", "belongs to `on_failure: {call: …}`", "take it out");
            fields.end(report);
            let mut inner = Fields::of(report, &entry.value, "`continue`", "write {continue: {max_failed: 5}}")?;
            let max_failed = inner.get("max_failed").map(|entry| max_failed(report, &entry.value));
            inner.end(report);
            match max_failed {
                None => Some(OnFailure::Continue { max_failed: None }),
                Some(max_failed) => Some(OnFailure::Continue { max_failed: Some(max_failed?) }),
            }
        }
        (None, Some(entry)) => {
            let scope = scope.with("error", Some(&["code", "message"]));
            let call = target(report, &entry.value, &scope, calls);
            let input = fields.get("input");
            if let Some(entry) = input {
                template(report, "on_failure.input", &entry.value, &scope);
            }
            fields.end(report);
            Some(OnFailure::Call { call: call?, input: input.map_or(Value::Null, |entry| entry.value.to_value()) })
        }
        (Some(_), Some(entry)) => {
            report.error(entry.place, "`continue` and `call` stand together in `on_failure`", "take one out");
            None
        }
        (None, None) => {
            fields.get("input");
            report.error(fields.place, "`on_failure` says nothing", "write fail, continue, {continue: {max_failed: 2%}} or {call: an_activity}");
            fields.end(report);
            None
        }
    }
}

fn max_failed(report: &mut Report, tree: &Tree) -> Option<MaxFailed> {
    if let Kind::Text(text) = &tree.kind {
        let percent = text.value.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok()).filter(|value| (0.0..=100.0).contains(value));
        if percent.is_none() {
            report.error(
                tree.place,
                format!("`max_failed` is neither a count nor a percentage: `{}`", shown(&text.value)),
                "write max_failed: 5 or max_failed: 2%",
            );
        }
        return percent.map(MaxFailed::Percent);
    }
    whole(report, "max_failed", tree, 0..=crate::limit::Limits::MAX.scatter_items).map(MaxFailed::Count)
}
