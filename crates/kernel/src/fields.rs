//! Reading a mapping field by field: types, unknown fields, fields of a later version.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use crate::diagnostic::{Place, Report};
use crate::nearest::{elsewhere, suggestion};
use crate::pipeline::document::{Entry, Kind, Tree};
use crate::policy::Span;

/// The entries of one mapping, and which of them are known.
pub(crate) struct Fields<'a> {
    /// What the mapping is, for messages: "the stage `check`".
    what: String,
    pub(crate) place: Place,
    entries: &'a [Entry],
    /// Fields that may be written here.
    known: BTreeSet<String>,
    /// Fields that were written and refused with a reason of their own.
    refused: BTreeSet<String>,
}

impl<'a> Fields<'a> {
    /// The mapping, or none and an error.
    pub(crate) fn of(report: &mut Report, tree: &'a Tree, what: impl Into<String>, hint: &str) -> Option<Fields<'a>> {
        let what = what.into();
        match &tree.kind {
            Kind::Map(entries) => Some(Fields { what, place: tree.place, entries, known: BTreeSet::new(), refused: BTreeSet::new() }),
            _ => {
                report.error(tree.place, format!("{what} must be a mapping, it is {}", tree.type_name()), hint);
                None
            }
        }
    }

    /// No field at all: what stays behind when the fields are ended.
    pub(crate) fn empty() -> Fields<'a> {
        Fields { what: String::new(), place: Place::default(), entries: &[], known: BTreeSet::new(), refused: BTreeSet::new() }
    }

    pub(crate) fn rename(&mut self, what: String) {
        self.what = what;
    }

    /// Every field with its place.
    pub(crate) fn places(&self) -> Vec<(String, Place)> {
        self.entries.iter().map(|entry| (entry.key.clone(), entry.place)).collect()
    }

    /// Looks without taking the field as known.
    pub(crate) fn peek(&self, name: &str) -> Option<&'a Entry> {
        self.entries.iter().find(|entry| entry.key == name)
    }

    /// The field, if it is written; known from now on.
    pub(crate) fn get(&mut self, name: &str) -> Option<&'a Entry> {
        self.known.insert(name.to_owned());
        self.peek(name)
    }

    /// The same, with an error where it is missing.
    pub(crate) fn required(&mut self, report: &mut Report, name: &str, hint: &str) -> Option<&'a Entry> {
        let found = self.get(name);
        if found.is_none() {
            report.error(self.place, format!("{} has no `{name}`", self.what), hint);
        }
        found
    }

    /// Refuses fields that the design has and this version has not.
    pub(crate) fn later(&mut self, report: &mut Report, names: &[&str]) {
        for name in names {
            if let Some(entry) = self.peek(name) {
                later(report, entry.place, &format!("`{name}`"));
                self.pass(name);
            }
        }
    }

    /// Refuses fields that exist elsewhere; `why` says where.
    pub(crate) fn elsewhere(&mut self, report: &mut Report, name: &str, why: &str, hint: &str) {
        if let Some(entry) = self.peek(name) {
            report.error(entry.place, format!("`{name}` {why}"), hint);
            self.pass(name);
        }
    }

    /// Leaves a field alone: something else was said about it, or about all of this.
    pub(crate) fn pass(&mut self, name: &str) {
        self.refused.insert(name.to_owned());
    }

    /// Refuses what is left.
    pub(crate) fn end(self, report: &mut Report) {
        for entry in self.entries {
            if !self.known.contains(&entry.key) && !self.refused.contains(&entry.key) {
                let hint = match elsewhere(&entry.key).filter(|meant| self.known.contains(*meant)) {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => suggestion(&entry.key, self.known.iter().map(String::as_str)),
                };
                report.error(entry.place, format!("{} has no field `{}`", self.what, shown(&entry.key)), hint);
            }
        }
    }
}

/// Says that something is in the design and not in this version.
pub(crate) fn later(report: &mut Report, place: Place, what: &str) {
    report.error(place, format!("{what} is not in this version of the format"), "take it out: this version would not honour it");
}

/// At most 60 characters of what somebody wrote.
pub(crate) fn shown(text: &str) -> String {
    if text.chars().count() <= 60 { text.to_owned() } else { text.chars().take(60).chain("…".chars()).collect() }
}

fn wrong(report: &mut Report, name: &str, tree: &Tree, wanted: &str, hint: &str) {
    report.error(tree.place, format!("`{name}` must be {wanted}, it is {}", tree.type_name()), hint);
}

/// A string.
pub(crate) fn string<'a>(report: &mut Report, name: &str, tree: &'a Tree) -> Option<&'a str> {
    match &tree.kind {
        Kind::Text(text) => Some(&text.value),
        Kind::Number(_, written) => {
            wrong(report, name, tree, "a string", &format!("quote it: '{written}'"));
            None
        }
        Kind::Bool(value) => {
            wrong(report, name, tree, "a string", &format!("quote it: '{value}'"));
            None
        }
        _ => {
            wrong(report, name, tree, "a string", "write one text; quote it if it has brackets or a colon");
            None
        }
    }
}

/// One of some words.
pub(crate) fn word<'w>(report: &mut Report, name: &str, tree: &Tree, words: &[&'w str]) -> Option<&'w str> {
    let written = string(report, name, tree)?;
    let found = words.iter().find(|word| **word == written).copied();
    if found.is_none() {
        report.error(tree.place, format!("`{name}` cannot be `{}`", shown(written)), suggestion(written, words.iter().copied()));
    }
    found
}

/// A boolean.
pub(crate) fn boolean(report: &mut Report, name: &str, tree: &Tree) -> Option<bool> {
    match &tree.kind {
        Kind::Bool(value) => Some(*value),
        Kind::Text(text) => {
            let meant = match text.value.as_str() {
                "yes" | "on" | "y" => "write true",
                "no" | "off" | "n" => "write false",
                _ => "write true or false",
            };
            wrong(report, name, tree, "a boolean", meant);
            None
        }
        _ => {
            wrong(report, name, tree, "a boolean", "write true or false");
            None
        }
    }
}

/// A whole number in a range.
pub(crate) fn whole(report: &mut Report, name: &str, tree: &Tree, range: RangeInclusive<u64>) -> Option<u64> {
    let wanted = format!("a whole number from {} to {}", range.start(), range.end());
    let Kind::Number(number, written) = &tree.kind else {
        wrong(report, name, tree, &wanted, "write a number without quotes");
        return None;
    };
    match number.as_u64() {
        Some(value) if range.contains(&value) => Some(value),
        _ => {
            let hint = match number.as_f64() {
                Some(value) if value.fract() != 0.0 => "write it without a fraction".to_owned(),
                Some(value) if value > 0.0 && value > *range.end() as f64 => format!("the most is {}", range.end()),
                _ => format!("the least is {}", range.start()),
            };
            report.error(tree.place, format!("`{name}` must be {wanted}, it is {written}"), hint);
            None
        }
    }
}

/// A number in a range.
pub(crate) fn number(report: &mut Report, name: &str, tree: &Tree, range: RangeInclusive<f64>) -> Option<f64> {
    let wanted = format!("a number from {} to {}", range.start(), range.end());
    let Kind::Number(number, written) = &tree.kind else {
        wrong(report, name, tree, &wanted, "write a number without quotes");
        return None;
    };
    match number.as_f64() {
        Some(value) if range.contains(&value) => Some(value),
        found => {
            let above = found.is_some_and(|value| value > *range.end());
            let hint = if above { format!("the most is {}", range.end()) } else { format!("the least is {}", range.start()) };
            report.error(tree.place, format!("`{name}` must be {wanted}, it is {written}"), hint);
            None
        }
    }
}

/// A duration above zero.
pub(crate) fn span(report: &mut Report, name: &str, tree: &Tree) -> Option<Span> {
    let written = match &tree.kind {
        Kind::Text(text) => &text.value,
        Kind::Number(_, written) => written,
        _ => {
            wrong(report, name, tree, "a duration", "write 250ms, 30s, 5m, 2h, 7d or ISO 8601 such as PT30S");
            return None;
        }
    };
    match written.parse::<Span>() {
        Ok(span) if span.0.is_zero() => {
            report.error(tree.place, format!("`{name}` is zero"), "write a duration such as 250ms");
            None
        }
        Ok(span) => Some(span),
        Err(error) => {
            let text = error.to_string();
            let (message, hint) = text.split_once("; ").unwrap_or((&text, ""));
            report.error(tree.place, format!("`{name}`: {message}"), hint);
            None
        }
    }
}

/// The items of a list.
pub(crate) fn list<'a>(report: &mut Report, name: &str, tree: &'a Tree) -> Option<&'a [Tree]> {
    match &tree.kind {
        Kind::List(items) => Some(items),
        Kind::Text(text) => {
            wrong(report, name, tree, "a list", &format!("write [\"{}\"]", shown(&text.value)));
            None
        }
        _ => {
            wrong(report, name, tree, "a list", "write [first, second]");
            None
        }
    }
}

/// A list of strings, each with its place; what is no string is an error and left out.
pub(crate) fn strings(report: &mut Report, name: &str, tree: &Tree) -> Option<Vec<(String, Place)>> {
    let items = list(report, name, tree)?;
    let mut found = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        found.extend(string(report, &format!("{name}[{index}]"), item).map(|text| (text.to_owned(), item.place)));
    }
    Some(found)
}

/// Whether a value is a list without items.
pub(crate) fn is_empty_list(tree: &Tree) -> bool {
    matches!(&tree.kind, Kind::List(items) if items.is_empty())
}

/// Whether a text is a name: `[a-z][a-z0-9_]{0,62}`.
pub(crate) fn is_name(text: &str) -> bool {
    text.len() <= 63 && text.starts_with(|c: char| c.is_ascii_lowercase()) && text.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_')
}

/// A name, or an error and none.
pub(crate) fn name(report: &mut Report, what: &str, text: &str, place: Place) -> Option<String> {
    if is_name(text) {
        return Some(text.to_owned());
    }
    let mut fitting: String = text.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).take(63).collect();
    if !is_name(&fitting) {
        fitting = format!("x_{fitting}").chars().take(63).collect();
    }
    report.error(
        place,
        format!("{what} `{}` is not a name: a lower-case letter, then lower-case letters, digits and `_`, 63 at most", shown(text)),
        format!("write {fitting}"),
    );
    None
}
