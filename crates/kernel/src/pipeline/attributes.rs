//! `attributes`: what a list can find a run by. Named expressions over its input, evaluated when it starts.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde_json::Value;

use super::definition::Definition;
use super::doc::Doc;
use super::document::{Kind, Tree};
use super::expression::{Expression, Scope};
use super::scope::{InScope, expression};
use crate::diagnostic::Report;
use crate::fields::{is_name, shown};
use crate::limit::{ATTRIBUTE_BYTES, ATTRIBUTES};

const HINT: &str = "write attributes: {customer: input.customer}";

/// Reads the field `attributes`.
pub(crate) fn attributes(report: &mut Report, tree: &Tree, input: &BTreeSet<String>) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    let Kind::Map(entries) = &tree.kind else {
        report.error(tree.place, format!("`attributes` must be an object, it is {}", tree.type_name()), HINT);
        return found;
    };
    if entries.len() > ATTRIBUTES {
        report.error(entries[ATTRIBUTES].place, format!("the pipeline has {} attributes; limit: attributes = {ATTRIBUTES}", entries.len()), "leave some out");
    }
    let scope = InScope { input, stages: &BTreeMap::new(), upstream: None, own: None, nullable: &BTreeMap::new(), more: Vec::new() };
    for entry in entries {
        if !is_name(&entry.key) {
            let message = format!("`{}` cannot be the name of an attribute", shown(&entry.key));
            report.error(entry.place, message, "a name begins with a letter and has small letters, digits and _, 63 at most");
        }
        let foreign = match &entry.value.kind {
            Kind::Text(text) => Expression::compile(&text.value).ok().and_then(|read| read.roots().into_iter().find(|root| root != "input")),
            _ => None,
        };
        match foreign {
            Some(root) => {
                let message = format!("the attribute `{}` reads `{}`: it is evaluated when a run starts, over `input` alone", shown(&entry.key), shown(&root));
                report.error(entry.value.place, message, HINT);
            }
            None => {
                if let Some(text) = expression(report, &format!("attributes.{}", shown(&entry.key)), &entry.value, &scope) {
                    found.insert(entry.key.clone(), Value::String(text));
                }
            }
        }
    }
    found
}

/// The attributes of a run that starts with this input; one whose expression gives null is left out.
///
/// # Errors
/// A value that is a list, an object, or longer than [`ATTRIBUTE_BYTES`] as text, and an expression that fails.
pub fn evaluate(definition: &Definition, input: &Bytes) -> Result<BTreeMap<String, Value>, String> {
    let mut found = BTreeMap::new();
    if definition.attributes.is_empty() {
        return Ok(found);
    }
    let mut scope = Scope::new();
    scope.set("input", Doc::parse(input).map_err(|error| error.to_string())?);
    for (name, text) in &definition.attributes {
        let wrong = |reason: String| format!("the attribute `{name}` of `{}`: {reason}", definition.name);
        let value = Expression::compile(text.as_str().unwrap_or_default()).and_then(|read| read.eval(&scope)).map_err(|error| wrong(error.to_string()))?;
        match value.type_name() {
            "null" => {}
            "string" | "number" | "boolean" => {
                let bytes = value.text().len();
                if bytes > ATTRIBUTE_BYTES {
                    return Err(wrong(format!("its value has {bytes} bytes (limit: attribute = {ATTRIBUTE_BYTES}): take something shorter, or a hash of it")));
                }
                found.insert(name.clone(), value.to_value());
            }
            other => return Err(wrong(format!("`{}` gives {other}, and a text, a number or a boolean is needed", text.as_str().unwrap_or_default()))),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::pipeline::parse::parse_pipeline;
    use serde_json::json;

    fn of(attributes: &str, input: &Value) -> Result<BTreeMap<String, Value>, String> {
        let file = format!(
            "selvedge: 1\nname: p\ninput: {{ c: {{}}, n: {{ default: 0 }} }}\nattributes: {attributes}\nactivities: {{ a: {{ exec: [a] }} }}\nstages: [{{ name: a, call: a }}]\n"
        );
        let (definition, _) = parse_pipeline("p.yaml", &file).unwrap();
        evaluate(&definition, &Bytes::from(input.to_string()))
    }

    #[test]
    fn attributes_are_texts_numbers_and_booleans_of_the_input_and_null_is_left_out() {
        let found = of("{ who: input.c.name, cents: input.n, vip: input.c.vip, gone: input.c.gone }", &json!({ "c": { "name": "ada", "vip": true }, "n": 5 }));
        let wanted = [("who", json!("ada")), ("cents", json!(5)), ("vip", json!(true))].map(|(name, value)| (name.to_owned(), value));
        assert_eq!(found.unwrap(), BTreeMap::from(wanted));
    }

    #[test]
    fn a_value_that_is_a_list_or_too_long_is_an_error_that_names_attribute_and_limit() {
        assert!(of("{ who: input.c }", &json!({ "c": [1] })).unwrap_err().contains("the attribute `who` of `p`: `input.c` gives"));
        let long = of("{ who: input.c }", &json!({ "c": "x".repeat(257) })).unwrap_err();
        assert!(long.contains("257 bytes (limit: attribute = 256)"), "{long}");
        assert!(of("{ who: input.c }", &json!({ "c": "x".repeat(256) })).is_ok());
    }
}
