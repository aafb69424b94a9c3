//! What differs between two versions of a pipeline, in words.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::definition::Definition;

/// A value that is longer than this, as JSON, is not shown.
const SHOWN: usize = 60;
/// What people know already, or see in lines of its own.
const APART: [&str; 4] = ["version", "name", "stages", "activities"];

/// What is added, removed and changed from one version to another, a line each; nothing where both do the same.
#[must_use]
pub fn changes(before: &Definition, after: &Definition) -> Vec<String> {
    let (before, after) = (object(before), object(after));
    let mut lines = fields("", &before, &after);
    let activities = |of: &Map<String, Value>| of.get("activities").and_then(Value::as_object).cloned().unwrap_or_default().into_iter().collect();
    named("activity", &activities(&before), &activities(&after), &mut lines);
    let (old, new) = (stages(&before), stages(&after));
    let names = |of: &[(String, Value)]| of.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    named("stage", &old.iter().cloned().collect(), &new.iter().cloned().collect(), &mut lines);
    let kept = |of: &[(String, Value)], others: &[(String, Value)]| names(of).into_iter().filter(|name| names(others).contains(name)).collect::<Vec<_>>();
    if kept(&old, &new) != kept(&new, &old) {
        lines.push(format!("the stages stand in another order: {}", names(&new).join(", ")));
    }
    lines
}

fn object(of: &Definition) -> Map<String, Value> {
    // Invariant: a definition is made of strings, numbers, maps and lists: it has a JSON form, an object.
    match without_folders(serde_json::to_value(of).unwrap_or_default()) {
        Value::Object(entries) => entries,
        _ => Map::new(),
    }
}

/// Where its files lie is no part of what a pipeline does.
fn without_folders(value: Value) -> Value {
    match value {
        Value::Object(entries) => {
            Value::Object(entries.into_iter().filter(|(name, _)| name != "folder").map(|(name, value)| (name, without_folders(value))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(without_folders).collect()),
        leaf => leaf,
    }
}

fn stages(of: &Map<String, Value>) -> Vec<(String, Value)> {
    let stages = of.get("stages").and_then(Value::as_array).into_iter().flatten();
    stages.map(|stage| (stage["name"].as_str().unwrap_or_default().to_owned(), flat(stage, "mode"))).collect()
}

/// `{mode: {scatter: {over: …}}}` as the file says it: `{mode: scatter, over: …}`.
fn flat(of: &Value, field: &str) -> Value {
    let mut flat = of.clone();
    if let Some((word, Value::Object(inner))) = of[field].as_object().and_then(|kind| kind.iter().next()) {
        flat[field] = word.clone().into();
        inner.iter().for_each(|(name, value)| flat[name.as_str()] = value.clone());
    }
    flat
}

fn named(what: &str, before: &BTreeMap<String, Value>, after: &BTreeMap<String, Value>, lines: &mut Vec<String>) {
    lines.extend(before.keys().filter(|name| !after.contains_key(*name)).map(|name| format!("{what} `{name}` is removed")));
    for (name, new) in after {
        match before.get(name) {
            None => lines.push(format!("{what} `{name}` is added")),
            Some(old) => {
                let parts = |of: &Value| of.as_object().cloned().unwrap_or_default();
                let changed = fields("", &parts(old), &parts(new));
                if !changed.is_empty() {
                    lines.push(format!("{what} `{name}` is changed: {}", changed.join("; ")));
                }
            }
        }
    }
}

/// Fields that differ, those inside of objects by their whole path.
fn fields(prefix: &str, before: &Map<String, Value>, after: &Map<String, Value>) -> Vec<String> {
    let apart = |name: &str| prefix.is_empty() && APART.contains(&name);
    let mut names: Vec<&String> = before.keys().chain(after.keys()).filter(|name| !apart(name)).collect();
    names.sort();
    names.dedup();
    let mut lines = Vec::new();
    for name in names {
        match (before.get(name).unwrap_or(&Value::Null), after.get(name).unwrap_or(&Value::Null)) {
            (old, new) if old == new => {}
            (Value::Object(old), Value::Object(new)) => lines.extend(fields(&format!("{prefix}{name}."), old, new)),
            (old, new) => lines.push(match (shown(old), shown(new)) {
                (Some(old), Some(new)) => format!("`{prefix}{name}` {old} → {new}"),
                _ => format!("`{prefix}{name}`"),
            }),
        }
    }
    lines
}

fn shown(value: &Value) -> Option<String> {
    match value {
        Value::Null => Some("none".to_owned()),
        value => Some(value.to_string()).filter(|text| text.chars().count() <= SHOWN),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::pipeline::parse::parse_pipeline;

    fn of(rest: &str) -> Definition {
        parse_pipeline("p.yaml", &format!("selvedge: 1\nname: p\nactivities: {{ a: {{ exec: [a] }}, b: {{ exec: [b] }} }}\n{rest}")).unwrap().0
    }

    #[test]
    fn stages_activities_and_fields_that_differ_are_named_in_words() {
        let before = of("timeout: 1h\nstages: [{ name: one, call: a, when: 'run.id == input' }, { name: two, call: b }, { name: gone, call: a }]\n");
        let after = of("timeout: 2h\nstages: [{ name: two, call: b, depends_on: [] }, { name: one, call: b }, { name: new, call: a }]\n");
        assert_eq!(
            changes(&before, &after),
            [
                "`timeout` \"1h\" → \"2h\"",
                "stage `gone` is removed",
                "stage `new` is added",
                "stage `one` is changed: `call.activity` \"a\" → \"b\"; `depends_on` [] → [\"two\"]; `when` \"run.id == input\" → none",
                "stage `two` is changed: `depends_on` [\"one\"] → []",
                "the stages stand in another order: two, one, new",
            ]
        );
        assert_eq!(changes(&before, &before), Vec::<String>::new());
    }
}
