//! `schedule:` of a pipeline's file.

use serde_json::Value;

use super::definition::Definition;
use super::document::{Entry, Tree};
use super::expression::Scope;
use super::schema::validate_input;
use super::template::Template;
use crate::diagnostic::{Place, Report};
use crate::fields::{Fields, span, string, word};
use crate::schedule::{Dst, Misfire, Overlap, Schedule, Spec, When};

/// A schedule, and where its parts stand.
pub(crate) struct Written {
    pub(crate) spec: Spec,
    /// Of its input, or of all of it where it gives none.
    input: Place,
}

/// Reads and checks it, all but its input.
pub(crate) fn schedule(report: &mut Report, entry: &Entry) -> Option<Written> {
    let mut fields = Fields::of(report, &entry.value, "the schedule", "write schedule: {cron: \"0 2 * * *\", zone: Europe/Vienna}")?;
    let cron = fields.get("cron");
    let every = fields.get("every");
    let zone = fields.get("zone");
    let dst = fields.get("dst");
    let when = match (cron, every) {
        (Some(_), Some(every)) => {
            report.error(every.place, "`cron` and `every` stand together", "take one out");
            None
        }
        (None, None) => {
            report.error(entry.place, "the schedule has neither `cron` nor `every`", "write cron: \"0 2 * * *\" or every: 1h");
            None
        }
        (Some(cron), None) => {
            let pattern = string(report, "cron", &cron.value);
            let zone = zone.map_or(Some("UTC"), |zone| string(report, "zone", &zone.value));
            // A wrong word is said; pattern and zone are checked all the same.
            let written = dst.and_then(|dst| word(report, "dst", &dst.value, Dst::WORDS));
            let dst = if written == Some("skip") { Dst::Skip } else { Dst::Shift };
            pattern.and_then(|pattern| Some(When::Cron { pattern: pattern.to_owned(), zone: zone?.to_owned(), dst }))
        }
        (None, Some(every)) => {
            for (name, entry) in [("zone", zone), ("dst", dst)] {
                if let Some(entry) = entry {
                    report.error(
                        entry.place,
                        format!("`{name}` says nothing beside `every`, which knows no clock on the wall"),
                        "take it out, or write cron instead",
                    );
                }
            }
            span(report, "every", &every.value).map(When::Every)
        }
    };
    let overlap = fields.get("overlap").map_or(Some(Overlap::default()), |entry| {
        Some(match word(report, "overlap", &entry.value, Overlap::WORDS)? {
            "allow" => Overlap::Allow,
            "buffer_one" => Overlap::BufferOne,
            "cancel_other" => Overlap::CancelOther,
            _ => Overlap::Skip,
        })
    });
    let misfire = fields.get("misfire").map_or(Some(Misfire::default()), |entry| {
        Some(match word(report, "misfire", &entry.value, Misfire::WORDS)? {
            "skip" => Misfire::Skip,
            "all" => Misfire::All,
            _ => Misfire::Once,
        })
    });
    let jitter = fields.get("jitter").map_or(Some(crate::policy::Span::default()), |entry| span(report, "jitter", &entry.value));
    let input = fields.get("input");
    let given = input.map_or(Some(Value::Null), |entry| plain(report, &entry.value));
    let places: Vec<(&str, Place)> = [("cron", cron), ("every", every), ("zone", zone), ("jitter", fields.peek("jitter"))]
        .into_iter()
        .filter_map(|(name, entry)| Some((name, entry?.value.place)))
        .collect();
    fields.end(report);
    // The rhythm is checked whatever else is wrong.
    let rhythm = Spec { when: when?, input: Value::Null, overlap: Overlap::default(), misfire: Misfire::default(), jitter: jitter.unwrap_or_default() };
    if let Err(errors) = Schedule::new(rhythm.clone()) {
        for error in errors {
            let place = places.iter().find(|(name, _)| *name == error.field).map_or(entry.place, |(_, place)| *place);
            report.error(place, format!("`{}`: {}", error.field, error.message), error.hint);
        }
        return None;
    }
    let spec = Spec { input: given?, overlap: overlap?, misfire: misfire?, jitter: jitter?, ..rhythm };
    Some(Written { spec, input: input.map_or(entry.place, |input| input.value.place) })
}

/// The input as it is: nothing is in scope when a schedule fires.
fn plain(report: &mut Report, tree: &Tree) -> Option<Value> {
    let value = tree.to_value();
    match Template::compile(&value) {
        Ok(template) if template.expressions().is_empty() => template.eval(&Scope::default()).ok(),
        _ => {
            report.error(tree.place, "the input of a schedule has an expression, and nothing is in its scope", "write plain values; $${ writes ${");
            None
        }
    }
}

/// Checks the input against what the pipeline takes.
pub(crate) fn check_input(report: &mut Report, written: &Written, definition: &Definition) {
    if let Err(errors) = validate_input(definition, written.spec.input.clone()) {
        for error in errors {
            report.error(written.input, format!("the schedule's input: {}", error.message), error.hint.unwrap_or_default());
        }
    }
}
