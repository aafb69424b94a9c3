//! The fields of the modes that run tasks.

use serde_json::Value;

use super::definition::{Branch, Combine, Mode, Quorum, Rest};
use super::document::{Kind, Tree};
use super::scope::{InScope, expression};
use super::stage::{Calls, target, task};
use crate::diagnostic::{Place, Report};
use crate::fields::{Fields, list, name, shown, whole, word};

pub(crate) fn scatter(report: &mut Report, fields: &mut Fields<'_>, scope: &InScope<'_>, each: &InScope<'_>) -> Option<Mode> {
    let over = fields.required(report, "over", "write over: input.files").and_then(|entry| expression(report, "over", &entry.value, scope));
    let item_as = fields.get("as").and_then(|entry| match &entry.value.kind {
        Kind::Text(text) => Some(text.value.clone()),
        _ => None,
    });
    let keep = fields.get("where").and_then(|entry| expression(report, "where", &entry.value, each));
    Some(Mode::Scatter { over: over?, item_as, keep })
}

pub(crate) fn gather(report: &mut Report, fields: &mut Fields<'_>, scope: &InScope<'_>, stages: &[(String, Place)]) -> Option<Mode> {
    let item = scope.with("item", None);
    let keep = fields.get("where").and_then(|entry| expression(report, "where", &entry.value, &item));
    let group_by = fields.get("group_by").and_then(|entry| expression(report, "group_by", &entry.value, &item));
    let wait = match fields.get("wait") {
        None => Some(Quorum::All),
        Some(entry) => quorum(report, &entry.value, stages.len()),
    };
    let rest = rest(report, fields, wait == Some(Quorum::All), "wait: any or wait: {count: 2}");
    let combine = fields.get("combine").and_then(|entry| word(report, "combine", &entry.value, &["concat", "object"]));
    let combine = if combine == Some("object") { Combine::Object } else { Combine::Concat };
    Some(Mode::Gather { stages: stages.iter().map(|(name, _)| name.clone()).collect(), keep, group_by, combine, wait: wait?, rest: rest? })
}

fn quorum(report: &mut Report, tree: &Tree, stages: usize) -> Option<Quorum> {
    let hint = "write wait: all, wait: any or wait: {count: 2}";
    match &tree.kind {
        Kind::Text(text) if text.value == "all" => Some(Quorum::All),
        Kind::Text(text) if text.value == "any" => Some(Quorum::Count(1)),
        Kind::Map(_) => {
            let mut fields = Fields::of(report, tree, "`wait`", hint)?;
            let count = fields.required(report, "count", hint).and_then(|entry| whole(report, "count", &entry.value, 1..=stages.max(1) as u64));
            fields.end(report);
            Some(Quorum::Count(count? as u32))
        }
        _ => {
            report.error(tree.place, "`wait` must be all, any or {count: …}", hint);
            None
        }
    }
}

/// What becomes of those that come too late; `all` says that nobody does.
fn rest(report: &mut Report, fields: &mut Fields<'_>, all: bool, needs: &str) -> Option<Rest> {
    let Some(entry) = fields.get("rest") else { return Some(Rest::Cancel) };
    if all {
        report.error(entry.place, "`rest` says nothing here: all are waited for", format!("write {needs}, or take it out"));
        return None;
    }
    match word(report, "rest", &entry.value, &["cancel", "run"])? {
        "run" => Some(Rest::Run),
        _ => Some(Rest::Cancel),
    }
}

pub(crate) fn broadcast(report: &mut Report, fields: &mut Fields<'_>, scope: &InScope<'_>, calls: &Calls<'_>) -> Option<Mode> {
    let hint = "write targets: [an_activity, another]";
    let targets = fields.required(report, "targets", hint).and_then(|entry| list(report, "targets", &entry.value).map(|targets| (entry, targets)));
    let first = fields.get("wait").map_or(Some("all"), |entry| word(report, "wait", &entry.value, &["all", "first"])).map(|word| word == "first");
    let rest = rest(report, fields, first == Some(false), "wait: first");
    let input = fields.peek("input").map_or(Value::Null, |entry| entry.value.to_value());
    let (entry, targets) = targets?;
    if targets.is_empty() {
        report.error(entry.place, "`targets` names nothing to call", hint);
    }
    let mut branches = Vec::with_capacity(targets.len());
    for tree in targets {
        let call = target(report, tree, scope, calls);
        branches.push(call.map(|call| Branch { item: tree.to_value(), call, input: input.clone() }));
    }
    Some(Mode::Fork { branches: branches.into_iter().collect::<Option<_>>()?, by_name: false, first: first?, rest: rest? })
}

pub(crate) fn fork_join(report: &mut Report, fields: &mut Fields<'_>, scope: &InScope<'_>, calls: &Calls<'_>) -> Option<Mode> {
    let hint = "write branches: {one: {call: an_activity}, other: {call: another}}";
    let entry = fields.required(report, "branches", hint)?;
    let Kind::Map(entries) = &entry.value.kind else {
        report.error(entry.value.place, format!("`branches` must be a mapping of names, it is {}", entry.value.type_name()), hint);
        return None;
    };
    if entries.is_empty() {
        report.error(entry.value.place, "`branches` has no branch", hint);
    }
    let mut branches = Vec::with_capacity(entries.len());
    for entry in entries {
        name(report, "the branch", &entry.key, entry.place);
        let task = task(report, &format!("the branch `{}`", shown(&entry.key)), &entry.value, scope, calls);
        branches.push(task.map(|task| Branch { item: Value::String(entry.key.clone()), call: task.call, input: task.input }));
    }
    Some(Mode::Fork { branches: branches.into_iter().collect::<Option<_>>()?, by_name: true, first: false, rest: Rest::Cancel })
}

pub(crate) fn map_reduce(report: &mut Report, fields: &mut Fields<'_>, scope: &InScope<'_>, each: &InScope<'_>, calls: &Calls<'_>) -> Option<Mode> {
    let over = fields.required(report, "over", "write over: input.files").and_then(|entry| expression(report, "over", &entry.value, scope));
    let item_as = fields.get("as").and_then(|entry| match &entry.value.kind {
        Kind::Text(text) => Some(text.value.clone()),
        _ => None,
    });
    let map = fields.required(report, "map", "write map: {call: an_activity}").and_then(|entry| task(report, "`map`", &entry.value, each, calls));
    let items = scope.with("items", None);
    let reduce = fields.required(report, "reduce", "write reduce: {call: an_activity}").and_then(|entry| task(report, "`reduce`", &entry.value, &items, calls));
    Some(Mode::MapReduce { over: over?, item_as, map: map?, reduce: reduce? })
}
