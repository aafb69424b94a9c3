//! What `where` sees of a line.

use std::collections::BTreeMap;
use std::time::Duration;

use selvedge_kernel::error::Consequence;
use selvedge_kernel::filter::{Filter, FilterError, List, Operator, Row, Says, Value, parse};
use selvedge_kernel::policy::Span;
use selvedge_kernel::record::actor::DeadLetter;
use selvedge_kernel::time::Millis;
use serde_json::Value as Json;

use super::{ActorSummary, InvocationSummary};
use crate::runs::RunSummary;
use crate::shard::VerbError;

/// A filter of a list as somebody wrote it.
///
/// # Errors
/// `where`: every term that the list cannot be asked for, with the fields that it has.
pub fn filter(list: List, text: &str) -> Result<Filter, VerbError> {
    parse(list, text).map_err(|errors| {
        let line = |error: &FilterError| {
            let hint = if error.hint.is_empty() { String::new() } else { format!(" ({})", error.hint) };
            format!("column {}: {}{hint}", error.column, error.message)
        };
        let fields: Vec<&str> = list.fields().iter().map(|field| field.name).chain(list.has_attributes().then_some("attr.NAME")).collect();
        let lines: Vec<String> = errors.iter().map(line).collect();
        VerbError::new(Consequence::FixInput, "where", format!("`where` does not read: {}; this list has the fields {}", lines.join("; "), fields.join(", ")))
    })
}

/// The values that a filter asks an attribute to be equal to, as an index has them: no numbers, since `5` and `5.0` are the same number.
pub(super) fn equal_attribute(filter: &Filter) -> Option<(&str, &str)> {
    filter.terms.iter().find_map(|term| match &term.says {
        Says::Field { name, operator: Operator::Is, value: Value::Text(value) } if !term.negated && value.parse::<f64>().is_err() => {
            Some((name.strip_prefix("attr.")?, value.as_str()))
        }
        _ => None,
    })
}

/// Whether a filter names a field.
pub(super) fn names(filter: &Filter, wanted: impl Fn(&str) -> bool) -> bool {
    filter.terms.iter().any(|term| matches!(&term.says, Says::Field { name, .. } if wanted(name)))
}

/// Fields of a row under their names.
#[derive(Default)]
pub struct Fields(Row);

impl Fields {
    /// A text that is a field, and in which text is found.
    #[must_use]
    pub fn text(mut self, name: &str, value: impl Into<String>) -> Fields {
        let value = value.into();
        self.0.texts.push(value.clone());
        self.0.fields.push((name.to_owned(), Value::Text(value)));
        self
    }

    /// A number.
    #[must_use]
    pub fn number(mut self, name: &str, value: f64) -> Fields {
        self.0.fields.push((name.to_owned(), Value::Number(value)));
        self
    }

    /// An instant, if there is one.
    #[must_use]
    pub fn time(mut self, name: &str, value: Option<Millis>) -> Fields {
        self.0.fields.extend(value.map(|at| (name.to_owned(), Value::Time(at))));
        self
    }

    /// How long ago something was.
    #[must_use]
    pub fn age(mut self, since: Millis, now: Millis) -> Fields {
        self.0.fields.push(("age".to_owned(), Value::Duration(Span(Duration::from_millis(now.0.saturating_sub(since.0))))));
        self
    }

    /// Text that is found and is no field.
    #[must_use]
    pub fn found(mut self, text: impl Into<String>) -> Fields {
        self.0.texts.push(text.into());
        self
    }

    /// The row.
    #[must_use]
    pub fn row(self) -> Row {
        self.0
    }
}

/// What belongs to a run beside its line.
#[derive(Default)]
pub struct Beside {
    /// Its attributes.
    pub attributes: BTreeMap<String, Json>,
    /// The version of its definition; none where nobody asks for it.
    pub version: Option<String>,
}

/// A run.
#[must_use]
pub fn run(line: &RunSummary, beside: &Beside, now: Millis) -> Row {
    let fields = Fields::default().text("id", line.id.to_string()).text("pipeline", &line.pipeline).text("status", line.state.to_string());
    let mut row = fields.age(line.started_at, now).time("started", Some(line.started_at)).time("ended", line.ended_at).row();
    row.fields.extend(beside.version.iter().map(|version| ("version".to_owned(), Value::Text(version.clone()))));
    for (name, value) in &beside.attributes {
        let value = match value {
            Json::Number(number) => Value::Number(number.as_f64().unwrap_or_default()),
            other => Value::Text(selvedge_kernel::record::attribute::text(other)),
        };
        row.texts.push(value.to_string());
        row.fields.push((format!("attr.{name}"), value));
    }
    row
}

/// An invocation.
#[must_use]
pub fn invocation(line: &InvocationSummary, now: Millis) -> Row {
    let (kind, key) = line.actor.split_once('/').unwrap_or((&line.actor, ""));
    let fields = Fields::default().text("id", line.id.to_string()).text("type", kind).text("key", key).text("handler", &line.handler);
    let fields = fields.text("status", word(&line.status)).number("attempts", f64::from(line.attempt)).age(line.accepted_at, now);
    fields.time("started", Some(line.accepted_at)).time("ended", line.ended_at).found(&line.actor).row()
}

/// An actor.
#[must_use]
pub fn actor(line: &ActorSummary) -> Row {
    let fields = Fields::default().text("type", &line.kind).text("key", &line.key).text("status", word(&line.status));
    fields.number("inbox", line.inbox as f64).found(format!("{}/{}", line.kind, line.key)).row()
}

/// A dead letter.
#[must_use]
pub fn dead_letter(letter: &DeadLetter, now: Millis) -> Row {
    let message = &letter.message;
    let fields = Fields::default().text("id", message.id.to_string()).text("type", &message.target.kind).text("key", &message.target.key);
    let fields = fields.text("handler", &message.handler).text("error", &letter.error.code).number("attempts", f64::from(letter.attempts));
    fields.age(letter.at, now).found(&letter.error.message).row()
}

/// A state as its word.
fn word(state: &impl serde::Serialize) -> String {
    // Invariant: states are written as one word.
    serde_json::to_value(state).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}
