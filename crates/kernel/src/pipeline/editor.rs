//! JSON Schemas of a pipeline and of `app.yaml`, for editors: what may stand where. What only a whole file shows (names of
//! stages, expressions) is for `check`.

mod reference;

use serde_json::{Map, Value, json};

use super::activity::LEASE;
use super::definition::METHODS;
use super::policies::BREAKER_COUNT;
use super::stage::{MODES, OF_MODE};
use crate::limit::{ATTRIBUTES, Limits, RUNS_AT_ONCE};
use crate::policy::{Breaker, Retry, Timeout};
use crate::schedule::{Dst, Misfire, Overlap};

pub use reference::app_reference;

/// Fields of a stage that this version refuses by name.
const LATER: [&str; 1] = ["notify"];

/// The schema of a pipeline's file.
#[must_use]
pub fn pipeline_schema() -> Value {
    let fields = [
        ("selvedge", json!({ "const": 1, "description": "the version of the format" })),
        ("name", named("the pipeline's name")),
        ("description", text("for people")),
        (
            "input",
            json!({ "type": "object", "additionalProperties": { "type": "object" }, "description": "JSON Schema properties of the input; a `default` makes one optional" }),
        ),
        ("output", json!({ "description": "a template over `input`, `run` and `stages`" })),
        (
            "attributes",
            json!({ "type": "object", "maxProperties": ATTRIBUTES, "propertyNames": { "pattern": NAME }, "additionalProperties": { "type": "string" }, "description": "what lists find a run by: expressions over `input`" }),
        ),
        ("activities", json!({ "$ref": "#/$defs/activities" })),
        ("timeout", span("the whole run's time")),
        (
            "concurrency",
            object(
                &["limit"],
                [
                    ("limit", whole(1, RUNS_AT_ONCE as u64)),
                    ("key", expression("so many for each of its values")),
                    ("when_full", words(&["wait", "reject", "replace"])),
                ],
            ),
        ),
        ("retention", span("how long the finished run is kept")),
        ("schedule", schedule()),
        ("egress", json!({ "$ref": "#/$defs/egress" })),
        ("stages", json!({ "type": "array", "minItems": 1, "maxItems": Limits::MAX.stages, "items": { "$ref": "#/$defs/stage" } })),
    ];
    whole_file("A pipeline of Selvedge", object(&["selvedge", "name", "stages"], fields), true)
}

/// The schema of `app.yaml`.
#[must_use]
pub fn app_schema() -> Value {
    let mut handler = executor_fields(false);
    let retry = about("when it is tried again; not written: 1000 times within about a week", json!({ "$ref": "#/$defs/retry" }));
    handler.extend([("retry".to_owned(), retry), ("timeout".to_owned(), about("how long it may take", json!({ "$ref": "#/$defs/timeout" })))]);
    let one = ["exec", "worker"].map(|executor| json!({ "required": [executor] }));
    let handler = json!({ "type": "object", "properties": handler, "additionalProperties": false, "oneOf": one });
    let handlers = about(
        "transition handlers by name: programs and workers that get message and state",
        json!({ "type": "object", "minProperties": 1, "additionalProperties": handler }),
    );
    let of_type = [("handlers", handlers), ("expected_within", or("1h", span("how long its work waits before `stuck` lists it")))];
    let fields = [
        ("activities", about("what pipelines and handlers may call, by name", json!({ "$ref": "#/$defs/activities" }))),
        ("actors", about("actor types by name", json!({ "type": "object", "additionalProperties": object(&["handlers"], of_type) }))),
        ("pipelines", about("files of pipelines", json!({ "type": "array", "uniqueItems": true, "items": text("a file, relative to this one") }))),
        ("egress", about("what requests of `http` activities may reach, here and in the pipelines", json!({ "$ref": "#/$defs/egress" }))),
    ];
    whole_file("An application of Selvedge", object(&[], fields), false)
}

/// The pattern of names that no path has to quote.
const NAME: &str = "^[a-z][a-z0-9_]{0,62}$";

fn whole_file(title: &str, file: Value, of_stages: bool) -> Value {
    let mut schema = json!({ "$schema": "https://json-schema.org/draft/2020-12/schema", "title": title });
    let mut parts = definitions();
    if !of_stages {
        ["stage", "task", "call"].iter().for_each(|name| drop(parts.remove(*name)));
    }
    schema["$defs"] = Value::Object(parts);
    for (name, value) in file.as_object().into_iter().flatten() {
        schema[name.as_str()] = value.clone();
    }
    schema
}

fn definitions() -> Map<String, Value> {
    let activity = {
        let mut fields = executor_fields(true);
        for (policy, what) in [
            ("retry", "when a failed attempt is followed by another"),
            ("timeout", "how long it may take"),
            ("throttle", "how many go at once and how often, of all its tasks"),
            ("breaker", "when its attempts stop for a while"),
        ] {
            fields.insert(policy.to_owned(), about(what, json!({ "$ref": format!("#/$defs/{policy}") })));
        }
        let one = ["exec", "http", "worker", "native"].map(|executor| json!({ "required": [executor] }));
        json!({ "type": "object", "properties": fields, "additionalProperties": false, "oneOf": one })
    };
    let call = json!({ "oneOf": [
        text("an activity"),
        object(&["actor", "key", "handler"], [("actor", text("the actor's type")), ("key", text("a template")), ("handler", text("the handler"))]),
        object(&["pipeline"], [("pipeline", text("another pipeline"))]),
    ] });
    let task = object(&["call"], [("call", json!({ "$ref": "#/$defs/call" })), ("input", json!({ "description": "a template" }))]);
    let rate = object(&["count", "per"], [("count", about("so many starts", whole(1, 1_000_000))), ("per", span("within this time"))]);
    // The defaults are those of the types.
    let of = |policy: Value, name: &str, field: Value| or(policy[name].clone(), field);
    let retry = |name: &str, field: Value| of(json!(Retry::default()), name, field);
    let breaker = |name: &str, field: Value| of(json!(Breaker::default()), name, field);
    let timeout = |name: &str, field: Value| of(json!(Timeout::default()), name, field);
    let parts = [
        ("activities", json!({ "type": "object", "additionalProperties": activity })),
        ("egress", json!({ "type": "array", "items": text("a host, host:port, an address or a network") })),
        (
            "retry",
            json!({ "oneOf": [{ "const": "none" }, object(&[], [
            ("max_attempts", retry("max_attempts", about("attempts in all", whole(1, Limits::MAX.attempts)))),
            ("backoff", retry("backoff", about("how waits grow", words(&["fixed", "linear", "exponential"])))),
            ("initial", retry("initial", span("the first wait"))),
            ("max", retry("max", span("the longest wait"))),
            ("multiplier", retry("multiplier", json!({ "type": "number", "minimum": 1, "maximum": 100, "description": "of each wait to the one before, if exponential" }))),
            ("jitter", retry("jitter", json!({ "type": "number", "minimum": 0, "maximum": 1, "description": "the part of a wait that is drawn by lot" }))),
            ("retry_on", texts("codes that are tried again, no others")),
            ("give_up_on", texts("codes that are final")),
        ])] }),
        ),
        ("timeout", object(&[], [("attempt", timeout("attempt", span("each attempt's time"))), ("total", timeout("total", span("the time of all of them")))])),
        (
            "throttle",
            object(
                &[],
                [
                    ("concurrency", about("at once", whole(1, Limits::MAX.run_tasks))),
                    ("rate", about("how often one starts", rate)),
                    ("key", expression("a limit for each of its values")),
                ],
            ),
        ),
        (
            "breaker",
            object(
                &[],
                [
                    ("failures", breaker("failures", about("so many open it", whole(1, BREAKER_COUNT)))),
                    ("window", breaker("window", span("the failures are counted in"))),
                    ("open_for", breaker("open_for", span("how long nobody tries"))),
                    ("probes", breaker("probes", about("attempts that must go well before it closes", whole(1, BREAKER_COUNT)))),
                ],
            ),
        ),
        ("call", call),
        ("task", json!({ "oneOf": [text("an activity"), task] })),
        ("stage", stage()),
    ];
    parts.into_iter().map(|(name, part)| (name.to_owned(), part)).collect()
}

fn executor_fields(of_activity: bool) -> Map<String, Value> {
    let secret = |more: &[(&str, Value)]| object(&["secret"], [("secret", text("env:NAME or file:PATH"))].into_iter().chain(more.iter().cloned()));
    let command = json!({ "type": "array", "minItems": 1, "items": { "type": "string" }, "description": "program and arguments; no shell" });
    let mut fields = vec![
        ("exec", command),
        ("processes", or(1, about("at most so many", whole(1, 1_000)))),
        ("persistent", or(true, boolean("a JSON Lines worker; false: once per task"))),
        (
            "environment",
            about(
                "variables that it is given beside a small environment",
                json!({ "type": "object", "additionalProperties": { "oneOf": [{ "type": "string" }, secret(&[])] } }),
            ),
        ),
        ("folder", or(".", text("where it runs, relative to this file"))),
    ];
    let lease = object(&[], [("lease", or(json!(LEASE), span("how long a task is its worker's without a sign of life")))]);
    fields.push(("worker", json!({ "oneOf": [{ "const": true }, lease], "description": "whoever asks for it" })));
    if of_activity {
        let header = json!({ "oneOf": [{ "type": "string" }, secret(&[("prefix", text("what stands before it"))])] });
        fields.push(("as_file", or(false, boolean("the task gets a path to JSON Lines"))));
        fields.push(("native", json!({ "const": true, "description": "a Rust function" })));
        fields.push((
            "http",
            object(
                &["url"],
                [
                    ("method", or("GET", about("of the request", words(&METHODS)))),
                    ("url", text("a template over `input`")),
                    ("headers", about("by name", json!({ "type": "object", "additionalProperties": header }))),
                    ("body", json!({ "description": "a template over `input`; not written: the input itself, where the method takes a body" })),
                    ("redirects", or(0, about("so many are followed, each within `egress`", whole(0, 10)))),
                ],
            ),
        ));
    }
    fields.into_iter().map(|(name, field)| (name.to_owned(), field)).collect()
}

fn schedule() -> Value {
    let mut schedule = object(
        &[],
        [
            ("cron", text("minute hour day month weekday")),
            ("every", span("the rhythm")),
            ("zone", text("an IANA zone")),
            ("dst", words(Dst::WORDS)),
            ("input", json!({ "description": "plain values" })),
            ("overlap", words(Overlap::WORDS)),
            ("misfire", words(Misfire::WORDS)),
            ("jitter", span("at most so much later")),
        ],
    );
    schedule["oneOf"] = json!([{ "required": ["cron"] }, { "required": ["every"] }]);
    schedule
}

/// A stage: all fields, and for each mode those that it has not.
fn stage() -> Value {
    let (task, call) = (|| json!({ "$ref": "#/$defs/task" }), || json!({ "$ref": "#/$defs/call" }));
    let policy = |name: &str| json!({ "$ref": format!("#/$defs/{name}") });
    let undoes = object(&["call"], [("call", call()), ("input", json!({})), ("retry", policy("retry")), ("timeout", policy("timeout"))]);
    let count = object(&["count"], [("count", whole(1, Limits::MAX.stages))]);
    let failed = json!({ "oneOf": [{ "type": "integer", "minimum": 0 }, { "type": "string", "pattern": "^[0-9.]+%$" }] });
    let continues = json!({ "type": ["object", "null"], "properties": { "max_failed": failed }, "additionalProperties": false });
    let mut fields: Vec<(&str, Value)> = vec![
        ("name", named("the stage's name")),
        ("mode", words(&MODES)),
        ("call", call()),
        ("depends_on", texts("stages that must have ended before; without it, the one above")),
        ("when", expression("false skips the stage")),
        ("input", json!({ "description": "a template for each task's input" })),
        ("output", json!({ "description": "a template over `result`" })),
        ("retry", policy("retry")),
        ("timeout", policy("timeout")),
        ("throttle", policy("throttle")),
        ("breaker", policy("breaker")),
        ("compensate", json!({ "oneOf": [text("an activity"), undoes] })),
        (
            "on_failure",
            json!({ "oneOf": [
            words(&["fail", "continue"]),
            object(&["continue"], [("continue", continues)]),
            object(&["call"], [("call", call()), ("input", json!({}))]),
        ] }),
        ),
        ("over", expression("the list")),
        ("as", named("the item's second name")),
        ("where", expression("what is left in")),
        ("stages", texts("whose outputs")),
        ("wait", json!({ "oneOf": [words(&["all", "any", "first"]), count] })),
        ("rest", words(&["cancel", "run"])),
        ("group_by", expression("the group's key")),
        ("combine", words(&["concat", "object"])),
        ("targets", json!({ "type": "array", "minItems": 1, "items": { "$ref": "#/$defs/call" } })),
        ("branches", json!({ "type": "object", "minProperties": 1, "propertyNames": { "pattern": NAME }, "additionalProperties": task() })),
        ("map", task()),
        ("reduce", task()),
        ("assignees", texts("user:NAME or role:NAME")),
        ("show", json!({ "description": "a template: what they see" })),
        ("expires", span("how long they have")),
        ("fallback", words(&["approve", "reject", "escalate"])),
        ("escalate_to", texts("who is asked next")),
        ("for", span("how long")),
        ("until", text("an RFC 3339 time, or a template that gives one")),
        ("signal", text("its name")),
    ];
    fields.retain(|(name, _)| !LATER.contains(name));
    let mut stage = object(&["name"], fields);
    let mut rules: Vec<Value> =
        MODES.into_iter().map(|mode| json!({ "if": { "properties": { "mode": { "const": mode } }, "required": ["mode"] }, "then": of_mode(mode) })).collect();
    rules.push(json!({ "if": { "not": { "required": ["mode"] } }, "then": of_mode("single") }));
    stage["allOf"] = rules.into();
    stage
}

fn of_mode(mode: &str) -> Value {
    let foreign: Map<String, Value> = OF_MODE
        .iter()
        .filter(|(field, modes)| !modes.contains(&mode) && !LATER.contains(field))
        .map(|(field, _)| ((*field).to_owned(), false.into()))
        .collect();
    let needs: &[&str] = match mode {
        "single" => &["call"],
        "scatter" => &["over", "call"],
        "gather" => &["stages"],
        "broadcast" => &["targets"],
        "fork_join" => &["branches"],
        "map_reduce" => &["over", "map", "reduce"],
        "approval" => &["assignees"],
        "wait_signal" => &["signal"],
        _ => &[],
    };
    let mut rule = json!({ "properties": foreign, "required": needs });
    if mode == "sleep" {
        rule["oneOf"] = json!([{ "required": ["for"] }, { "required": ["until"] }]);
    }
    rule
}

fn object<'a>(required: &[&str], fields: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
    let properties: Map<String, Value> = fields.into_iter().map(|(name, field)| (name.to_owned(), field)).collect();
    let mut object = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if !required.is_empty() {
        object["required"] = json!(required);
    }
    object
}

fn text(about: &str) -> Value {
    json!({ "type": "string", "description": about })
}

fn texts(about: &str) -> Value {
    json!({ "type": "array", "items": { "type": "string" }, "description": about })
}

fn named(about: &str) -> Value {
    json!({ "type": "string", "pattern": NAME, "description": about })
}

fn expression(about: &str) -> Value {
    text(&format!("JMESPath: {about}"))
}

fn span(about: &str) -> Value {
    text(&format!("{about}, as in 500ms, 30s, 15m, 2h, 3d"))
}

fn boolean(about: &str) -> Value {
    json!({ "type": "boolean", "description": about })
}

/// With what it is for.
fn about(what: &str, mut field: Value) -> Value {
    field["description"] = what.into();
    field
}

/// With what holds where it is not written; none: nothing does.
fn or(default: impl Into<Value>, mut field: Value) -> Value {
    let default = default.into();
    if !default.is_null() {
        field["default"] = default;
    }
    field
}

fn whole(least: u64, most: u64) -> Value {
    json!({ "type": "integer", "minimum": least, "maximum": most })
}

fn words(words: &[&str]) -> Value {
    json!({ "enum": words })
}

#[cfg(test)]
mod tests;
