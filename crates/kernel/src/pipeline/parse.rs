//! Text to a validated [`Definition`], or every error at once.

use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

use super::activity::{Egress, activities};
use super::attributes::attributes;
use super::compiled::{CompileError, Compiled};
use super::definition::{Concurrency, Definition, WhenFull};
use super::document::{Kind, Tree, one_document};
use super::expression::Expression;
use super::scheduled::{check_input, schedule};
use super::schema;
use super::scope::{InScope, expression, template};
use super::stage::{self, Draft};
use super::validate::{Shape, shape};
use crate::diagnostic::{Diagnostic, Report};
use crate::egress::Allowed;
use crate::fields::{Fields, list, name, span, string, whole, word};
use crate::limit::{Limits, RUNS_AT_ONCE};

/// The format that this version reads.
pub const FORMAT: u64 = 1;

/// What exists outside the file, where it is known: an activity or actor that is neither here nor in the file is an error.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Names of activities.
    pub activities: BTreeSet<String>,
    /// Types of actors, each with its handlers.
    pub actors: BTreeMap<String, BTreeSet<String>>,
    /// Names of pipelines, if all of them are known.
    pub pipelines: Option<BTreeSet<String>>,
    /// What the manifest allows requests to reach.
    pub egress: Vec<Allowed>,
}

/// Parses and validates one file. Gives the definition with warnings, or all errors, sorted by place.
pub fn parse_pipeline(file: &str, text: &str) -> Result<(Definition, Vec<Diagnostic>), Vec<Diagnostic>> {
    parse_pipeline_among(file, text, None)
}

/// The same, with the calls checked against what exists.
pub fn parse_pipeline_among(file: &str, text: &str, known: Option<&Known>) -> Result<(Definition, Vec<Diagnostic>), Vec<Diagnostic>> {
    let mut report = Report::new(file);
    let tree = one_document(&mut report, text);
    let definition = tree.and_then(|tree| definition(&mut report, &tree, known));
    report.end(definition)
}

/// The name that a file gives its pipeline, whatever else is wrong with it.
#[must_use]
pub fn name_of(text: &str) -> Option<String> {
    let tree = one_document(&mut Report::new(""), text)?;
    let Kind::Map(entries) = &tree.kind else { return None };
    match &entries.iter().find(|entry| entry.key == "name")?.value.kind {
        Kind::Text(text) => Some(text.value.clone()),
        _ => None,
    }
}

/// The same from a parsed document.
pub fn parse_pipeline_tree(file: &str, tree: &Tree, known: Option<&Known>) -> Result<(Definition, Vec<Diagnostic>), Vec<Diagnostic>> {
    let mut report = Report::new(file);
    let definition = definition(&mut report, tree, known);
    report.end(definition)
}

fn definition(report: &mut Report, tree: &Tree, known: Option<&Known>) -> Option<Definition> {
    let mut fields = Fields::of(report, tree, "a pipeline", "its first line is selvedge: 1")?;
    format(report, &mut fields);
    let name = fields.required(report, "name", "write name: my_pipeline").and_then(|entry| {
        let text = string(report, "name", &entry.value)?;
        name(report, "the pipeline", text, entry.value.place)
    });
    let description = fields.get("description").and_then(|entry| string(report, "description", &entry.value)).unwrap_or_default().to_owned();
    let input_tree = fields.get("input").map(|entry| &entry.value);
    let input = input_tree.map(|tree| schema::input(report, tree)).unwrap_or_default();
    let input_names = schema::names(input_tree);
    let egress = fields.get("egress").map(|entry| super::http::egress(report, &entry.value)).unwrap_or_default();
    let reach = Egress { here: &egress, elsewhere: known.map(|known| known.egress.as_slice()) };
    let attributes = fields.get("attributes").map(|entry| attributes(report, &entry.value, &input_names)).unwrap_or_default();
    let activities = fields.get("activities").map(|entry| activities(report, &entry.value, &reach)).unwrap_or_default();
    // An activity with an error in it is still declared.
    let declared: BTreeSet<String> = schema::names(fields.peek("activities").map(|entry| &entry.value));
    let timeout = fields.get("timeout").and_then(|entry| span(report, "timeout", &entry.value));
    let retention = fields.get("retention").and_then(|entry| span(report, "retention", &entry.value));
    let written = fields.get("schedule").map(|entry| schedule(report, entry));
    let of_the_input = InScope { input: &input_names, stages: &BTreeMap::new(), upstream: None, own: None, nullable: &BTreeMap::new(), more: Vec::new() };
    let concurrency = fields.get("concurrency").map(|entry| concurrency(report, &entry.value, &of_the_input));
    let output = fields.get("output");
    let stages = fields.required(report, "stages", "write stages: [{name: first, call: an_activity}]").and_then(|entry| list(report, "stages", &entry.value));
    if let Some(stages) = stages {
        if stages.is_empty() {
            report.error(
                fields.peek("stages").map_or(fields.place, |entry| entry.place),
                "`stages` has no stage",
                "write stages: [{name: first, call: an_activity}]",
            );
        }
        if stages.len() as u64 > Limits::MAX.stages {
            let place = stages[Limits::MAX.stages as usize].place;
            report.error(place, format!("the pipeline has {} stages; limit: stages = {}", stages.len(), Limits::MAX.stages), "split it over several pipelines");
            return None;
        }
    }
    let mut drafts: Vec<Draft<'_>> = stages.unwrap_or_default().iter().filter_map(|tree| stage::draft(report, tree)).collect();
    let Shape { depends_on, upstream } = shape(report, &drafts.iter().map(Draft::knot).collect::<Vec<_>>());
    // Of two stages with one name the first counts; the second is an error.
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    drafts.iter().enumerate().for_each(|(index, draft)| {
        names.entry(draft.name.clone()).or_insert(index);
    });
    let nullable: BTreeMap<String, &'static str> = drafts.iter().filter_map(|draft| Some((draft.name.clone(), draft.nullable()?))).collect();
    let mut done = Vec::with_capacity(drafts.len());
    for (index, draft) in drafts.iter_mut().enumerate() {
        let scope = InScope { input: &input_names, stages: &names, upstream: upstream.as_ref(), own: Some(index), nullable: &nullable, more: Vec::new() };
        let calls = stage::Calls { declared: &declared, known };
        done.push(stage::finish(report, draft, depends_on[index].clone(), &scope, &calls));
    }
    if let Some(entry) = output {
        // Every stage has ended when the run's output is made.
        let scope = InScope { input: &input_names, stages: &names, upstream: None, own: None, nullable: &nullable, more: Vec::new() };
        template(report, "output", &entry.value, &scope);
    }
    fields.end(report);
    let stages = done.into_iter().collect::<Option<Vec<_>>>()?;
    let definition = Definition {
        version: None,
        name: name?,
        description,
        input,
        output: output.map_or(Value::Null, |entry| entry.value.to_value()),
        activities,
        timeout,
        concurrency: match concurrency {
            None => None,
            Some(concurrency) => Some(concurrency?),
        },
        retention,
        attributes,
        schedule: written.as_ref().and_then(|written| Some(written.as_ref()?.spec.clone())),
        stages,
        egress,
    };
    if let Some(written) = written.flatten() {
        check_input(report, &written, &definition);
    }
    // What a start would refuse is refused here.
    if !report.failed()
        && let Err(error) = Compiled::new(definition.clone(), String::new())
    {
        let (place, message) = match error {
            CompileError::Meaning { stage, field, message, .. } => {
                let draft = drafts.iter().find(|draft| draft.name == stage);
                (draft.map_or(tree.place, |draft| draft.place_of(&field)), format!("`{field}`: {message}"))
            }
            other => (tree.place, other.to_string()),
        };
        report.error(place, message, "");
    }
    Some(definition)
}

/// How many runs go at once.
fn concurrency(report: &mut Report, tree: &Tree, scope: &InScope<'_>) -> Option<Concurrency> {
    let hint = "write concurrency: {limit: 1, key: input.customer}";
    let mut fields = Fields::of(report, tree, "`concurrency`", hint)?;
    let limit = fields.required(report, "limit", hint).and_then(|entry| whole(report, "limit", &entry.value, 1..=RUNS_AT_ONCE as u64));
    let key = fields.get("key").map(|entry| match &entry.value.kind {
        Kind::Text(text) if Expression::compile(&text.value).is_ok_and(|key| key.roots().contains("stages")) => {
            report.error(entry.value.place, "`key` is evaluated before any stage: it reads `input` and `run` only", hint);
            None
        }
        _ => expression(report, "key", &entry.value, scope),
    });
    let when_full = fields.get("when_full").map_or(Some("wait"), |entry| word(report, "when_full", &entry.value, &["wait", "reject", "replace"]));
    fields.end(report);
    let when_full = match when_full? {
        "reject" => WhenFull::Reject,
        "replace" => WhenFull::Replace,
        _ => WhenFull::Wait,
    };
    let key = match key {
        None => None,
        Some(key) => Some(key?),
    };
    Some(Concurrency { limit: limit? as u32, key, when_full })
}

fn format(report: &mut Report, fields: &mut Fields<'_>) {
    let Some(entry) = fields.required(report, "selvedge", "write selvedge: 1 in its first line: the version of the format") else { return };
    match &entry.value.kind {
        Kind::Number(number, _) if number.as_u64() == Some(FORMAT) => {}
        Kind::Number(number, written) if number.as_u64().is_some_and(|found| found > FORMAT) => {
            report.error(
                entry.value.place,
                format!("the file has format {written}, this program reads format {FORMAT}"),
                "start the newer program that it was written for",
            );
        }
        _ => report.error(entry.value.place, format!("`selvedge` must be {FORMAT}, the version of the format"), "write selvedge: 1"),
    }
}

/// The version of a definition: BLAKE3 over its JSON with sorted keys, 32 hexadecimal characters.
///
/// One that notes the version of its file has that one: the folders of its executors were made absolute since, and the
/// version is the same on every machine.
#[must_use]
pub fn version(definition: &Definition) -> String {
    if let Some(version) = &definition.version {
        return version.clone();
    }
    // Invariant: a definition is made of strings, numbers, maps and lists: it has a JSON form.
    let value = serde_json::to_value(definition).unwrap_or_default();
    let bytes = serde_json::to_vec(&sorted(value)).unwrap_or_default();
    blake3::hash(&bytes).to_hex()[..32].to_owned()
}

fn sorted(value: Value) -> Value {
    match value {
        Value::Object(entries) => {
            let ordered: BTreeMap<String, Value> = entries.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            Value::Object(ordered.into_iter().collect::<Map<_, _>>())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}
