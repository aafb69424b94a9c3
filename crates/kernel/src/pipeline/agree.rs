//! Limits and breakers of activities are shared by name: whoever declares an activity of that name says the same of it.

use super::definition::{Definition, Executor, Http};
use super::document::{Kind, one_document};
use super::shared::any_host;
use crate::diagnostic::{Diagnostic, Place, Report};
use crate::policy::{Breaker, Throttle};

/// A throttle or a breaker that somebody gives an activity.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Declared {
    /// The activity.
    pub activity: String,
    /// `throttle` or `breaker`.
    pub field: &'static str,
    /// Whether there is one for each value of its key, or for each host: such a one is never the one without.
    pub keyed: bool,
    /// What it says, as it is written in a file; its key apart, which is part of the name.
    pub says: String,
    /// Who says it: pipeline `NAME`, the manifest, this program.
    pub by: String,
    /// Where it stands, if it was read from a file.
    pub at: Option<(String, Place)>,
}

impl Declared {
    fn shares_with(&self, other: &Declared) -> bool {
        (&self.activity, self.field, self.keyed) == (&other.activity, other.field, other.keyed)
    }

    /// Who says it, and where it stands.
    fn place(&self) -> String {
        match &self.at {
            None => self.by.clone(),
            Some((file, Place { line: 0, .. })) => format!("{} ({file})", self.by),
            Some((file, place)) => format!("{} ({file}:{}:{})", self.by, place.line, place.column),
        }
    }

    /// It stands in this file: its line is looked for in the text.
    fn in_file(mut self, file: &str, text: &str) -> Declared {
        let place = place_of(text, &["activities", &self.activity, self.field]).unwrap_or_default();
        self.at = Some((file.to_owned(), place));
        self
    }
}

/// One limit or breaker of which two say different things.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "the `{}` of the activity `{}` is {} in {} and {} in {}: both name the same one",
    new.field, new.activity, known.says, known.place(), new.says, new.place()
)]
pub struct Disagreement {
    /// What was said first.
    pub known: Declared,
    /// What was said then.
    pub new: Declared,
}

/// What to do about a [`Disagreement`].
pub const ADVICE: &str = "write the same in both places, or give one of the two activities another name";

impl Disagreement {
    /// The same, at the place of what was said then.
    #[must_use]
    pub fn diagnostic(&self, file: &str) -> Diagnostic {
        let (file, place) = self.new.at.clone().unwrap_or_else(|| (file.to_owned(), Place::default()));
        Diagnostic { file, line: place.line, column: place.column, message: self.to_string(), hint: Some(ADVICE.to_owned()) }
    }
}

/// What an activity is given to share.
#[must_use]
pub fn of_activity(activity: &str, throttle: Option<&Throttle>, breaker: Option<&Breaker>, http: Option<&Http>, by: &str) -> Vec<Declared> {
    let one = |field, keyed, says| Declared { activity: activity.to_owned(), field, keyed, says, by: by.to_owned(), at: None };
    let throttle = throttle.map(|throttle| one("throttle", throttle.key.is_some(), throttle.to_string()));
    // A URL that does not compile is said where it is compiled.
    let breaker = breaker.map(|breaker| one("breaker", matches!(any_host(http), Ok(Some(_))), of_breaker(breaker)));
    throttle.into_iter().chain(breaker).collect()
}

/// How a pipeline is called as one who declares.
#[must_use]
pub fn pipeline(name: &str) -> String {
    format!("the pipeline `{name}`")
}

/// What the activities of a pipeline share with those of others.
#[must_use]
pub fn of_definition(definition: &Definition) -> Vec<Declared> {
    let by = pipeline(&definition.name);
    let of = definition.activities.iter().flat_map(|(name, activity)| {
        let http = match &activity.executor {
            Executor::Http(http) => Some(http),
            Executor::Exec(_) | Executor::Native | Executor::Worker(_) => None,
        };
        of_activity(name, activity.throttle.as_ref(), activity.breaker.as_ref(), http, &by)
    });
    of.collect()
}

/// The same, with the places in the file that they were read from.
#[must_use]
pub fn in_file(declared: Vec<Declared>, file: &str, text: &str) -> Vec<Declared> {
    declared.into_iter().map(|one| one.in_file(file, text)).collect()
}

/// What is new and differs from what is known. Another version of whoever said it takes its place, and does not differ.
#[must_use]
pub fn disagreements(known: &[Declared], new: &[Declared]) -> Vec<Disagreement> {
    let differs = |new: &Declared| known.iter().find(|known| known.shares_with(new) && known.by != new.by && known.says != new.says).cloned();
    new.iter().filter_map(|new| differs(new).map(|known| Disagreement { known, new: new.clone() })).collect()
}

fn of_breaker(Breaker { failures, window, open_for, probes }: &Breaker) -> String {
    format!("{{failures: {failures}, window: {window}, open_for: {open_for}, probes: {probes}}}")
}

/// Where a field stands.
fn place_of(text: &str, path: &[&str]) -> Option<Place> {
    let mut tree = &one_document(&mut Report::new(""), text)?;
    let mut place = None;
    for name in path {
        let Kind::Map(entries) = &tree.kind else { return None };
        let entry = entries.iter().find(|entry| entry.key == *name)?;
        (tree, place) = (&entry.value, Some(entry.place));
    }
    place
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::pipeline::parse::parse_pipeline;

    fn declared(name: &str, activities: &str) -> Vec<Declared> {
        let text = format!("selvedge: 1\nname: {name}\nactivities:\n{activities}stages: [{{ name: a, call: charge }}]\n");
        let file = format!("{name}.yaml");
        in_file(of_definition(&parse_pipeline(&file, &text).unwrap().0), &file, &text)
    }

    #[test]
    fn two_policies_under_one_name_are_named_with_both_places_and_both_numbers() {
        let one = declared("one", "  charge: { native: true, throttle: { concurrency: 2 }, breaker: { failures: 3 } }\n");
        let two = declared("two", "  charge:\n    native: true\n    throttle: { rate: { count: 5, per: 1s } }\n    breaker: { failures: 3, window: 1m }\n");
        let found = disagreements(&one, &two);
        assert_eq!(found.len(), 1, "a breaker that is written in another way is the same: {found:?}");
        assert_eq!(
            found[0].diagnostic("").to_string(),
            "two.yaml:6:5: the `throttle` of the activity `charge` is {concurrency: 2} in the pipeline `one` (one.yaml:4:27) \
             and {rate: {count: 5, per: 1s}} in the pipeline `two` (two.yaml:6:5): both name the same one\n  hint: write the same in both places, or give one of the two activities another name"
        );
        let two = declared("two", "  charge: { native: true, breaker: { failures: 4 } }\n");
        assert!(disagreements(&one, &two)[0].to_string().contains("{failures: 3, window: 1m, open_for: 30s, probes: 1}"));
    }

    #[test]
    fn another_version_of_a_pipeline_another_name_and_a_key_do_not_differ() {
        let one = declared("one", "  charge: { native: true, throttle: { concurrency: 2 } }\n");
        for (name, activities) in [
            ("one", "  charge: { native: true, throttle: { concurrency: 3 } }\n"),
            ("two", "  charge: { native: true, throttle: { concurrency: 2 } }\n"),
            ("two", "  charge: { native: true, throttle: { concurrency: 3, key: input.shop } }\n"),
            ("two", "  charge: { native: true }\n  check: { native: true, throttle: { concurrency: 3 } }\n"),
        ] {
            assert_eq!(disagreements(&one, &declared(name, activities)), [], "{name}: {activities}");
        }
    }
}
