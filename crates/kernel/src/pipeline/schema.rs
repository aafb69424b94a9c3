//! The input of a pipeline: a small part of JSON Schema, checked when stored and applied when a run starts.

use serde_json::{Map, Value};
use std::collections::BTreeSet;

use super::definition::Definition;
use super::document::{Kind, Tree};
use crate::diagnostic::{Diagnostic, Place, Report};
use crate::fields::{Fields, list, shown, string, strings, whole};
use crate::nearest::suggestion;

const TYPES: [&str; 7] = ["string", "integer", "number", "boolean", "array", "object", "null"];
/// Which keyword says something about which type.
const OF_TYPE: [(&str, &[&str]); 8] = [
    ("minLength", &["string"]),
    ("maxLength", &["string"]),
    ("minimum", &["integer", "number"]),
    ("maximum", &["integer", "number"]),
    ("items", &["array"]),
    ("minItems", &["array"]),
    ("maxItems", &["array"]),
    ("properties", &["object"]),
];

/// `input`: a mapping of names to schemas. Gives the schemas as they are stored.
pub(crate) fn input(report: &mut Report, tree: &Tree) -> Map<String, Value> {
    let Kind::Map(entries) = &tree.kind else {
        report.error(tree.place, format!("`input` must be a mapping of names to schemas, it is {}", tree.type_name()), "write input: {files: {type: array}}");
        return Map::new();
    };
    for entry in entries {
        let fits = entry.key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && entry.key.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_')
            && entry.key.len() <= 63;
        if !fits {
            let message = format!("the input `{}` needs another name: letters, digits and `_`, no digit first, 63 at most", shown(&entry.key));
            let fitting: String = entry.key.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).take(61).collect();
            report.error(entry.place, message, format!("write {}{fitting}", if fitting.starts_with(|c: char| c.is_ascii_digit()) { "x_" } else { "" }));
        }
        schema(report, &format!("input.{}", shown(&entry.key)), &entry.value);
    }
    entries.iter().map(|entry| (entry.key.clone(), entry.value.to_value())).collect()
}

/// The names that an input declares.
pub(crate) fn names(tree: Option<&Tree>) -> BTreeSet<String> {
    match tree.map(|tree| &tree.kind) {
        Some(Kind::Map(entries)) => entries.iter().map(|entry| entry.key.clone()).collect(),
        _ => BTreeSet::new(),
    }
}

fn schema(report: &mut Report, name: &str, tree: &Tree) {
    if let Kind::Text(text) = &tree.kind
        && TYPES.contains(&text.value.as_str())
    {
        return report.error(tree.place, format!("`{name}` must be a schema, it is a string"), format!("write {{type: {}}}", text.value));
    }
    let Some(mut fields) = Fields::of(report, tree, format!("the schema `{name}`"), "write {type: string}") else { return };
    let types = fields.get("type").and_then(|entry| types(report, &entry.value));
    for keyword in ["title", "description"] {
        fields.get(keyword).and_then(|entry| string(report, keyword, &entry.value));
    }
    for keyword in ["minLength", "maxLength", "minItems", "maxItems"] {
        fields.get(keyword).and_then(|entry| whole(report, keyword, &entry.value, 0..=1_000_000_000));
    }
    for keyword in ["minimum", "maximum"] {
        if let Some(entry) = fields.get(keyword)
            && !matches!(entry.value.kind, Kind::Number(..))
        {
            report.error(entry.value.place, format!("`{keyword}` must be a number, it is {}", entry.value.type_name()), "write a number without quotes");
        }
    }
    for (low, high) in [("minLength", "maxLength"), ("minItems", "maxItems"), ("minimum", "maximum")] {
        if let (Some(low_entry), Some(high_entry)) = (fields.peek(low), fields.peek(high))
            && let (Kind::Number(least, _), Kind::Number(most, _)) = (&low_entry.value.kind, &high_entry.value.kind)
            && least.as_f64() > most.as_f64()
        {
            report.error(high_entry.value.place, format!("`{high}` ({most}) is less than `{low}` ({least})"), "exchange them");
        }
    }
    if let Some(entry) = fields.get("enum")
        && list(report, "enum", &entry.value).is_some_and(<[Tree]>::is_empty)
    {
        report.error(entry.value.place, "`enum` allows nothing", "list the values");
    }
    if let Some(entry) = fields.get("items") {
        schema(report, &format!("{name}.items"), &entry.value);
    }
    if let Some(entry) = fields.get("properties") {
        match &entry.value.kind {
            Kind::Map(inner) => inner.iter().for_each(|part| schema(report, &format!("{name}.{}", shown(&part.key)), &part.value)),
            _ => report.error(
                entry.value.place,
                format!("`properties` must be a mapping, it is {}", entry.value.type_name()),
                "write properties: {name: {type: string}}",
            ),
        }
    }
    if let Some(entry) = fields.get("required") {
        let declared = fields.get("properties").map(|entry| names(Some(&entry.value))).unwrap_or_default();
        for (required, place) in strings(report, "required", &entry.value).unwrap_or_default() {
            if !declared.contains(&required) {
                report.error(
                    place,
                    format!("`required` names `{}`, which is not among the properties", shown(&required)),
                    suggestion(&required, declared.iter().map(String::as_str)),
                );
            }
        }
    }
    if let Some(types) = types {
        for (keyword, of) in OF_TYPE {
            if let Some(entry) = fields.peek(keyword)
                && !types.iter().any(|kind| of.contains(&kind.as_str()))
            {
                report.error(
                    entry.place,
                    format!("`{keyword}` says nothing about type {}", types.join(", ")),
                    format!("it belongs to type {}", of.join(" and ")),
                );
            }
        }
    }
    let default = fields.get("default");
    fields.end(report);
    if let Some(entry) = default {
        let mut wrong = Vec::new();
        apply(&tree.to_value(), &entry.value.to_value(), "default", &mut wrong);
        for (path, message) in wrong {
            report.error(entry.value.place, format!("`{path}` does not fit its own schema: {message}"), "write a default that fits, or leave it out");
        }
    }
}

fn types(report: &mut Report, tree: &Tree) -> Option<Vec<String>> {
    let words = match &tree.kind {
        Kind::List(_) => strings(report, "type", tree)?,
        _ => vec![(string(report, "type", tree)?.to_owned(), tree.place)],
    };
    let mut all = true;
    for (word, place) in &words {
        if !TYPES.contains(&word.as_str()) {
            all = false;
            let hint = match word.as_str() {
                "int" => "did you mean `integer`?".to_owned(),
                "list" => "did you mean `array`?".to_owned(),
                "map" | "dict" => "did you mean `object`?".to_owned(),
                "str" | "text" => "did you mean `string`?".to_owned(),
                other => suggestion(other, TYPES),
            };
            report.error(*place, format!("there is no type `{}`", shown(word)), hint);
        }
    }
    if all { Some(words.into_iter().map(|(word, _)| word).collect()) } else { None }
}

/// Checks a run's input against the definition and fills in the defaults, also inside objects. Null stands for `{}`.
/// Errors: all at once, each naming its path; the file is called `input` and has no lines.
pub fn validate_input(definition: &Definition, input: Value) -> Result<Value, Vec<Diagnostic>> {
    let mut report = Report::new("input");
    let nowhere = Place::default();
    let input = if input.is_null() { Value::Object(Map::new()) } else { input };
    let Value::Object(given) = input else {
        report.error(nowhere, format!("the input must be an object, it is {}", type_name(&input)), "pass an object such as {\"files\": []}");
        return report.end::<Value>(None).map(|(value, _)| value);
    };
    for name in given.keys() {
        if !definition.input.contains_key(name) {
            let hint = suggestion(name, definition.input.keys().map(String::as_str));
            report.error(nowhere, format!("the pipeline `{}` has no input `{}`", definition.name, shown(name)), hint);
        }
    }
    let mut whole = given;
    for (name, schema) in &definition.input {
        match whole.get(name) {
            Some(value) => {
                let mut wrong = Vec::new();
                let value = apply(schema, value, &format!("input.{name}"), &mut wrong);
                for (path, message) in wrong {
                    report.error(nowhere, format!("`{path}` {message}"), "");
                }
                whole.insert(name.clone(), value);
            }
            None => match schema.get("default") {
                Some(default) => {
                    whole.insert(name.clone(), default.clone());
                }
                None => {
                    let wanted = schema.get("type").map(|kind| format!(" ({})", spoken(kind))).unwrap_or_default();
                    report.error(nowhere, format!("`input.{name}`{wanted} is missing and has no default"), format!("pass it: {{\"{name}\": …}}"));
                }
            },
        }
    }
    report.end(Some(Value::Object(whole))).map(|(value, _)| value)
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn spoken(kind: &Value) -> String {
    match kind {
        Value::String(word) => word.clone(),
        Value::Array(words) => words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" or "),
        other => other.to_string(),
    }
}

fn is_of_type(value: &Value, kind: &str) -> bool {
    match kind {
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|value| value.fract() == 0.0),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => value.is_null(),
    }
}

/// Equal as JSON Schema means it: 1 and 1.0 are one number.
fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left == right || (left.is_f64() || right.is_f64()) && left.as_f64() == right.as_f64(),
        _ => left == right,
    }
}

/// The value with defaults; what is wrong with it goes to `wrong`, with its path.
fn apply(schema: &Value, value: &Value, path: &str, wrong: &mut Vec<(String, String)>) -> Value {
    let mut value = value.clone();
    let mut say = |message: String| wrong.push((path.to_owned(), message));
    if let Some(kind) = schema.get("type") {
        let fits = match kind {
            Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).any(|kind| is_of_type(&value, kind)),
            kind => kind.as_str().is_none_or(|kind| is_of_type(&value, kind)),
        };
        if !fits {
            say(format!("must be {}, it is {}", spoken(kind), type_name(&value)));
            return value;
        }
    }
    if let Some(Value::Array(allowed)) = schema.get("enum")
        && !allowed.iter().any(|one| equal(one, &value))
    {
        let all: Vec<String> = allowed.iter().take(16).map(Value::to_string).collect();
        say(format!("must be one of {}", all.join(", ")));
    }
    let bound = |keyword: &str| schema.get(keyword).and_then(Value::as_f64);
    let mut between = |size: f64, low: &str, high: &str, before: &str, after: &str| {
        if let Some(least) = bound(low)
            && size < least
        {
            say(format!("{before} {size}{after}, the least is {least}"));
        }
        if let Some(most) = bound(high)
            && size > most
        {
            say(format!("{before} {size}{after}, the most is {most}"));
        }
    };
    match &mut value {
        Value::String(text) => between(text.chars().count() as f64, "minLength", "maxLength", "has", " characters"),
        Value::Number(number) => between(number.as_f64().unwrap_or(0.0), "minimum", "maximum", "is", ""),
        Value::Array(items) => {
            between(items.len() as f64, "minItems", "maxItems", "has", " items");
            if let Some(schema) = schema.get("items") {
                for (index, item) in items.iter_mut().enumerate() {
                    *item = apply(schema, item, &format!("{path}[{index}]"), wrong);
                }
            }
        }
        Value::Object(entries) => {
            if let Some(Value::Array(required)) = schema.get("required") {
                for name in required.iter().filter_map(Value::as_str).filter(|name| !entries.contains_key(*name)) {
                    let default = schema.get("properties").and_then(|properties| properties.get(name)).and_then(|schema| schema.get("default"));
                    if default.is_none() {
                        wrong.push((format!("{path}.{name}"), "is missing".to_owned()));
                    }
                }
            }
            if let Some(Value::Object(properties)) = schema.get("properties") {
                for (name, schema) in properties {
                    match (entries.get(name), schema.get("default")) {
                        (Some(value), _) => {
                            let value = apply(schema, value, &format!("{path}.{}", shown(name)), wrong);
                            entries.insert(name.clone(), value);
                        }
                        (None, Some(default)) => {
                            entries.insert(name.clone(), default.clone());
                        }
                        (None, None) => {}
                    }
                }
            }
        }
        _ => {}
    }
    value
}
