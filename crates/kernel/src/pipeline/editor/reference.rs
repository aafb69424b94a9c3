//! The reference of `app.yaml` for people, from the schema for editors.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::app_schema;

/// The parts that are written in several places, in the order of the page.
const PARTS: [&str; 5] = ["retry", "timeout", "throttle", "breaker", "egress"];

/// `docs/reference/app.md`: every field of `app.yaml`, what it may be, what holds where it is not written, and what it does.
#[must_use]
pub fn app_reference() -> String {
    let schema = app_schema();
    let mut out = String::from(PREFACE);
    let top: Vec<Row> = fields(&schema).map(|(name, field)| Row::of(name, field)).collect();
    table(&mut out, "The file", &top);
    let mut activity = Vec::new();
    nested(&schema["$defs"]["activities"]["additionalProperties"], "", &mut activity);
    table(&mut out, "`activities`: one of them", &activity);
    let mut actor = Vec::new();
    nested(&schema["properties"]["actors"]["additionalProperties"], "", &mut actor);
    table(&mut out, "`actors`: one type", &actor);
    for part in PARTS {
        let mut rows = Vec::new();
        nested(&schema["$defs"][part], "", &mut rows);
        if rows.is_empty() {
            rows.push(Row::of(part, &schema["$defs"][part]));
        }
        table(&mut out, part, &rows);
    }
    out
}

/// A line of a table.
struct Row {
    name: String,
    kind: String,
    default: String,
    meaning: String,
}

impl Row {
    fn of(name: &str, field: &Value) -> Row {
        let default = match &field["default"] {
            Value::Null => String::new(),
            Value::String(text) => format!("`{text}`"),
            value => format!("`{value}`"),
        };
        Row { name: name.to_owned(), kind: kind(field), default, meaning: field["description"].as_str().unwrap_or_default().to_owned() }
    }
}

fn table(out: &mut String, title: &str, rows: &[Row]) {
    // Writing to a string cannot fail.
    let _ = write!(out, "\n## {title}\n\n| field | value | default | meaning |\n| --- | --- | --- | --- |\n");
    for Row { name, kind, default, meaning } in rows {
        let _ = writeln!(out, "| `{name}` | {kind} | {default} | {meaning} |");
    }
}

fn fields(object: &Value) -> impl Iterator<Item = (&str, &Value)> {
    object["properties"].as_object().into_iter().flat_map(Map::iter).map(|(name, field)| (name.as_str(), field))
}

/// Each field of a mapping, and each field of the mappings in it, by its path.
fn nested(object: &Value, path: &str, rows: &mut Vec<Row>) {
    for (name, field) in fields(object) {
        let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        rows.push(Row::of(&path, field));
        nested(field, &path, rows);
        let named = &field["additionalProperties"];
        nested(named, &format!("{path}.NAME"), rows);
        alternatives(named, &format!("{path}.NAME"), rows);
        alternatives(field, &path, rows);
    }
    if path.is_empty() {
        alternatives(object, path, rows);
    }
}

fn alternatives(field: &Value, path: &str, rows: &mut Vec<Row>) {
    field["oneOf"].as_array().into_iter().flatten().for_each(|one| nested(one, path, rows));
}

/// What a value may be, in words.
fn kind(field: &Value) -> String {
    if let Some(part) = field["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        return if PARTS.contains(&part) { format!("[{part}](#{part})") } else { format!("mapping of names: see {part}") };
    }
    if let Some(words) = field["enum"].as_array() {
        return either(words.iter().map(|word| format!("`{}`", word.as_str().unwrap_or_default())).collect());
    }
    if !field["const"].is_null() {
        return match &field["const"] {
            Value::String(text) => format!("`{text}`"),
            value => format!("`{value}`"),
        };
    }
    // An object with alternatives of which fields it needs is a mapping all the same.
    if let (Some(all), true) = (field["oneOf"].as_array(), field["type"].is_null()) {
        return either(all.iter().map(kind).collect());
    }
    let range = || match (&field["minimum"], &field["maximum"]) {
        (Value::Null, _) | (_, Value::Null) => String::new(),
        (least, most) => format!(", {least} to {most}"),
    };
    match field["type"].as_str() {
        Some("string") => "text".to_owned(),
        Some("boolean") => "`true` or `false`".to_owned(),
        Some("integer") => format!("whole number{}", range()),
        Some("number") => format!("number{}", range()),
        Some("array") => {
            let of = field["items"]["description"].as_str().map_or_else(|| kind(&field["items"]), str::to_owned);
            format!("list, each {of}")
        }
        Some("object") if field["additionalProperties"].is_object() => format!("mapping of names to {}", kind(&field["additionalProperties"])),
        Some("object") => "mapping".to_owned(),
        _ => "any value".to_owned(),
    }
}

fn either(mut words: Vec<String>) -> String {
    match words.pop() {
        Some(last) if words.is_empty() => last,
        Some(last) => format!("{} or {last}", words.join(", ")),
        None => String::new(),
    }
}

const PREFACE: &str = "# `app.yaml`

This page is generated from the schema for editors (`app.schema.json`), which is made of the types; a test compares both.
`SELVEDGE_WRITE_REFERENCE=1 cargo nextest run --workspace reference` writes it.

What one application consists of beside its Rust code. A field that is not on this page is an error, and so is a value of another type: all errors come at once, with
file, line, column and what to write instead. `selvedge config check` looks at the whole, the pipelines, programs and secrets that it names included.
Templates are text with `${…}` in it. Expressions are JMESPath.
";
