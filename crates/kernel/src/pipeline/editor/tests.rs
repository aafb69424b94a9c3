// The files that we show are read here: what is tested reads nothing.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::*;
use crate::diagnostic::Report;
use crate::pipeline::document::one_document;
use crate::pipeline::parse::parse_pipeline;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The fields that the parser knows where `zzz` stands, as its hint says them.
fn known(file: &str) -> BTreeSet<String> {
    let errors = parse_pipeline("p.yaml", file).unwrap_err();
    let hint = errors.iter().filter(|error| error.message.contains("`zzz`")).find_map(|error| error.hint.as_deref()).unwrap();
    hint.trim_start_matches("known here: ").split(", ").map(str::to_owned).collect()
}

fn properties(of: &Value) -> BTreeSet<String> {
    of["properties"].as_object().unwrap().keys().cloned().collect()
}

#[test]
fn the_schema_has_the_fields_that_the_parser_knows() {
    let file = |rest: &str| format!("selvedge: 1\nname: p\n{rest}\nactivities: {{ a: {{ exec: [a] }} }}\nstages: [{{ name: a, call: a }}]\n");
    let schema = pipeline_schema();
    let parts = &schema["$defs"];
    assert_eq!(known(&file("zzz: 1")), properties(&schema));
    assert_eq!(known(&file("schedule: { every: 1h, zzz: 1 }")), properties(&schema["properties"]["schedule"]));
    assert_eq!(known(&file("concurrency: { limit: 1, zzz: 1 }")), properties(&schema["properties"]["concurrency"]));
    let of_stage = |rest: &str| format!("selvedge: 1\nname: p\nactivities: {{ a: {{ exec: [a] }} }}\nstages: [{{ name: a, call: a, {rest} }}]\n");
    assert_eq!(known(&of_stage("retry: { zzz: 1 }")), properties(&parts["retry"]["oneOf"][1]));
    assert_eq!(known(&of_stage("timeout: { zzz: 1 }")), properties(&parts["timeout"]));
    assert_eq!(known(&of_stage("throttle: { concurrency: 1, zzz: 1 }")), properties(&parts["throttle"]));
    assert_eq!(known(&of_stage("breaker: { failures: 1, zzz: 1 }")), properties(&parts["breaker"]));
    assert_eq!(known(&of_stage("compensate: { call: a, zzz: 1 }")), properties(&parts["stage"]["properties"]["compensate"]["oneOf"][1]));
    let activity = "selvedge: 1\nname: p\nactivities: { a: { http: { url: 'https://a.example/', zzz: 1 } } }\nstages: [{ name: a, call: a }]\n";
    assert_eq!(known(activity), properties(&parts["activities"]["additionalProperties"]["properties"]["http"]));
}

#[test]
fn every_field_of_a_mode_is_a_field_of_a_stage_and_only_its_modes_take_it() {
    let stage = stage();
    for (field, modes) in OF_MODE.iter().filter(|(field, _)| !LATER.contains(field)) {
        assert!(stage["properties"].get(field).is_some(), "{field}");
        for mode in MODES {
            assert_eq!(of_mode(mode)["properties"].get(field).is_none(), modes.contains(&mode), "{field} of {mode}");
        }
    }
}

/// What of a schema this file needs: the words that ours use, and no others.
fn fits(schema: &Value, whole: &Value, value: &Value) -> Result<(), String> {
    let Some(words) = schema.as_object() else {
        return if schema == &Value::Bool(false) { Err(format!("nothing may stand here: {value}")) } else { Ok(()) };
    };
    let ok = |schema: &Value, value: &Value| fits(schema, whole, value);
    let length = value.as_array().map(Vec::len).or(value.as_object().map(serde_json::Map::len)).unwrap_or_default() as u64;
    for (word, says) in words {
        let right = match word.as_str() {
            "$schema" | "title" | "description" | "$defs" | "then" => true,
            "default" => {
                let mut bare = words.clone();
                bare.remove("default");
                ok(&Value::Object(bare), says)?;
                true
            }
            "$ref" => {
                ok(&whole["$defs"][says.as_str().unwrap().trim_start_matches("#/$defs/")], value)?;
                true
            }
            "type" => {
                let kinds: Vec<&str> =
                    says.as_str().map_or_else(|| says.as_array().unwrap().iter().map(|kind| kind.as_str().unwrap()).collect(), |kind| vec![kind]);
                kinds.iter().any(|kind| match *kind {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "integer" => value.is_u64() || value.is_i64(),
                    "number" => value.is_number(),
                    "boolean" => value.is_boolean(),
                    "null" => value.is_null(),
                    other => panic!("the type {other}"),
                })
            }
            "const" => value == says,
            "enum" => says.as_array().unwrap().contains(value),
            "minimum" => value.as_f64().is_none_or(|found| found >= says.as_f64().unwrap()),
            "maximum" => value.as_f64().is_none_or(|found| found <= says.as_f64().unwrap()),
            "minItems" | "minProperties" => length >= says.as_u64().unwrap(),
            "maxItems" | "maxProperties" => length <= says.as_u64().unwrap(),
            // Names are checked by the parser; here it is enough that they are one word.
            "pattern" => value.as_str().is_none_or(|text| !text.is_empty() && !text.contains(' ')),
            "uniqueItems" | "propertyNames" => true,
            "required" => value.as_object().is_none_or(|fields| says.as_array().unwrap().iter().all(|name| fields.contains_key(name.as_str().unwrap()))),
            "items" => {
                value.as_array().into_iter().flatten().try_for_each(|item| ok(says, item))?;
                true
            }
            "properties" => {
                for (name, field) in value.as_object().into_iter().flatten() {
                    says.get(name).map_or(Ok(()), |says| ok(says, field)).map_err(|error| format!("{name}: {error}"))?;
                }
                true
            }
            "additionalProperties" => {
                for (name, field) in value.as_object().into_iter().flatten().filter(|(name, _)| schema["properties"].get(name.as_str()).is_none()) {
                    ok(says, field).map_err(|error| format!("{name}: {error}"))?;
                }
                true
            }
            "oneOf" => says.as_array().unwrap().iter().filter(|one| ok(one, value).is_ok()).count() == 1,
            "allOf" => {
                says.as_array().unwrap().iter().try_for_each(|one| ok(one, value))?;
                true
            }
            "not" => ok(says, value).is_err(),
            "if" => {
                if ok(says, value).is_ok() {
                    ok(&schema["then"], value)?;
                }
                true
            }
            other => panic!("the word {other}"),
        };
        if !right {
            return Err(format!("`{word}` {says} does not hold for {value}"));
        }
    }
    Ok(())
}

fn read(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap();
    one_document(&mut Report::new("file"), &text).unwrap().to_value()
}

fn files(folder: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(root().join(folder)).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") && !path.ends_with("node_modules") {
            files(path.strip_prefix(root()).unwrap().to_str().unwrap(), found);
        } else if path.extension().is_some_and(|ext| ext == "yaml") {
            found.push(path);
        }
    }
}

#[test]
fn every_example_fits_the_schema_that_its_first_line_names() {
    let mut found = Vec::new();
    for folder in ["examples", "crates/kernel/tests/data/whole", "crates/kernel/tests/data/right", "crates/selvedge/src/cli/init"] {
        files(folder, &mut found);
    }
    let (mut fitting, all) = (0, found.len());
    // A configuration has a page of its own.
    for file in found.into_iter().filter(|file| file.file_name().is_none_or(|name| name != "selvedge.yaml")) {
        let value = read(&file);
        let of_pipeline = value.get("selvedge").is_some();
        // What the parser refuses is no example of what may stand.
        if of_pipeline && parse_pipeline("p.yaml", &std::fs::read_to_string(&file).unwrap()).is_err() {
            continue;
        }
        let schema = if of_pipeline { pipeline_schema() } else { app_schema() };
        fits(&schema, &schema, &value).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        fitting += 1;
        if file.starts_with(root().join("examples")) {
            let name = if of_pipeline { "pipeline" } else { "app" };
            let hint = format!("# yaml-language-server: $schema=../../docs/reference/{name}.schema.json");
            assert_eq!(std::fs::read_to_string(&file).unwrap().lines().next(), Some(hint.as_str()), "{}", file.display());
        }
    }
    assert!(fitting > 8, "{fitting} of {all}");
}

#[test]
fn the_schema_refuses_what_the_parser_refuses() {
    let schema = pipeline_schema();
    for broken in ["fields_of_another_mode", "unknown_fields", "wrong_types", "version", "attributes_too_many", "schedules_with_two", "stages_of_nothing"] {
        let value = read(&root().join(format!("crates/kernel/tests/data/broken/pipeline/{broken}.yaml")));
        assert!(fits(&schema, &schema, &value).is_err(), "{broken}");
    }
}
