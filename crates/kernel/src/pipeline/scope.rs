//! Which roots an expression may read at its place, and the check of every expression and template of a file.

use std::collections::{BTreeMap, BTreeSet};

use super::document::{Kind, Text, Tree};
use super::expression::{Expression, ExpressionError};
use super::template::{Piece, pieces};
use super::validate::Upstream;
use crate::diagnostic::{Place, Report};
use crate::fields::shown;
use crate::nearest::suggestion;

/// The fields of `run`.
const RUN: &[&str] = &["id", "pipeline", "version", "started_at"];
/// The fields of `stages.NAME`.
const STAGE: &[&str] = &["status", "output", "failures", "attempts"];
/// Roots that exist somewhere, and where; no `as` may take their names.
pub(crate) const ROOTS: [(&str, &str); 10] = [
    ("input", "everywhere"),
    ("run", "everywhere"),
    ("stages", "everywhere"),
    ("item", "in a scatter, and in `where` and `group_by` of a gather"),
    ("index", "in a scatter"),
    ("items", "in the `input` of `reduce` of a map_reduce"),
    ("group", "in `input` and `output` of a gather with `group_by`"),
    ("result", "in `output` of a stage"),
    ("output", "in `compensate`"),
    ("error", "in the `input` of `on_failure: {call: …}`"),
];

/// What is in scope at one place.
#[derive(Clone)]
pub(crate) struct InScope<'a> {
    /// The declared input.
    pub(crate) input: &'a BTreeSet<String>,
    /// Every stage, with its place in the file.
    pub(crate) stages: &'a BTreeMap<String, usize>,
    /// None: the dependencies are broken, say nothing.
    pub(crate) upstream: Option<&'a Upstream>,
    /// The stage whose expressions these are; none: all stages have ended.
    pub(crate) own: Option<usize>,
    /// Stages whose output can be null, and why.
    pub(crate) nullable: &'a BTreeMap<String, &'static str>,
    /// Further roots with their fields, where these are fixed.
    pub(crate) more: Vec<(String, Option<&'static [&'static str]>)>,
}

impl InScope<'_> {
    pub(crate) fn with(&self, root: &str, fields: Option<&'static [&'static str]>) -> Self {
        let mut wider = self.clone();
        wider.more.push((root.to_owned(), fields));
        wider
    }
}

/// A bare expression. Gives its text if it compiles.
pub(crate) fn expression(report: &mut Report, name: &str, tree: &Tree, scope: &InScope<'_>) -> Option<String> {
    let text = match &tree.kind {
        Kind::Text(text) => text,
        Kind::Null => {
            report.error(tree.place, format!("`{name}` must be an expression, it is empty"), "write an expression, or take the field out");
            return None;
        }
        kind => {
            let written = match kind {
                Kind::Bool(value) => format!("\"`{value}`\""),
                Kind::Number(_, written) => format!("\"`{written}`\""),
                _ => "\"…\"".to_owned(),
            };
            let message = format!("`{name}` must be an expression, and YAML reads it as {}", tree.type_name());
            report.error(tree.place, message, format!("quote this expression: {name}: {written}"));
            return None;
        }
    };
    match Expression::compile(&text.value) {
        Ok(expression) => {
            check(report, &expression, scope, |column| text.at(tree.place, column));
            Some(text.value.clone())
        }
        Err(error) => {
            report.error(text.at(tree.place, error.column), format!("`{name}`: {}", error.message), hint_of(error));
            None
        }
    }
}

fn hint_of(error: ExpressionError) -> String {
    if error.message.contains("Unclosed") {
        return "close it; if ` #` stands behind it, YAML took the rest as a comment: quote this expression".to_owned();
    }
    error.hint.unwrap_or_default()
}

/// A template: every string in it.
pub(crate) fn template(report: &mut Report, name: &str, tree: &Tree, scope: &InScope<'_>) {
    match &tree.kind {
        Kind::Text(text) => template_text(report, name, text, tree.place, scope),
        Kind::List(items) => items.iter().enumerate().for_each(|(index, item)| template(report, &format!("{name}[{index}]"), item, scope)),
        Kind::Map(entries) => entries.iter().for_each(|entry| template(report, &format!("{name}.{}", shown(&entry.key)), &entry.value, scope)),
        _ => {}
    }
}

fn template_text(report: &mut Report, name: &str, text: &Text, place: Place, scope: &InScope<'_>) {
    match pieces(&text.value) {
        Ok(pieces) => {
            for piece in pieces {
                if let Piece::Insert(expression, start) = piece {
                    check(report, &expression, scope, |column| text.at(place, start + column - 1));
                }
            }
        }
        Err(error) => report.error(text.at(place, error.column), format!("`{name}`: {}", error.message), hint_of(error)),
    }
}

/// Whether a string holds a `${ … }`.
pub(crate) fn has_expression(text: &str) -> bool {
    text.replace("$${", "").contains("${")
}

fn check(report: &mut Report, expression: &Expression, scope: &InScope<'_>, at: impl Fn(usize) -> Place) {
    for read in expression.reads() {
        let Some((root, column)) = read.path.first() else {
            report.error(at(1), "`@` is everything in scope here", "name a root: input, run or stages.NAME");
            continue;
        };
        let place = at(*column);
        let second = read.path.get(1).map(|(name, column)| (name.as_str(), at(*column)));
        match root.as_str() {
            _ if scope.more.iter().any(|(name, _)| name == root) => {
                let fields = scope.more.iter().find(|(name, _)| name == root).and_then(|(_, fields)| *fields);
                if let (Some(fields), Some((name, place))) = (fields, second) {
                    known(report, place, root, name, fields);
                }
            }
            "input" => {
                if let Some((name, place)) = second
                    && !scope.input.contains(name)
                {
                    let hint = match suggestion(name, scope.input.iter().map(String::as_str)) {
                        hint if hint.is_empty() => format!("declare it: input: {{{name}: {{type: string}}}}"),
                        hint => hint,
                    };
                    report.error(place, format!("the input has no `{}`", shown(name)), hint);
                }
            }
            "run" => {
                if let Some((name, place)) = second {
                    known(report, place, root, name, RUN);
                }
            }
            "stages" => match second {
                None => report.error(place, "`stages` alone reads every stage", "name one: stages.NAME.output"),
                Some((name, place)) => stage(
                    report,
                    read.path.get(2).map(|(name, column)| (name.as_str(), at(*column))),
                    name,
                    place,
                    read.projected && read.path.len() == 3,
                    scope,
                ),
            },
            other => match ROOTS.iter().find(|(name, _)| *name == other) {
                Some((_, wherever)) => report.error(place, format!("`{other}` is not in scope here"), format!("it exists {wherever}")),
                None => {
                    let roots = ["input", "run", "stages"].into_iter().chain(scope.more.iter().map(|(name, _)| name.as_str()));
                    report.error(place, format!("there is no variable `{}`", shown(other)), suggestion(other, roots));
                }
            },
        }
    }
}

fn known(report: &mut Report, place: Place, of: &str, name: &str, fields: &[&str]) {
    if !fields.contains(&name) {
        report.error(place, format!("`{of}` has no `{}`", shown(name)), suggestion(name, fields.iter().copied()));
    }
}

fn stage(report: &mut Report, field: Option<(&str, Place)>, name: &str, place: Place, projected: bool, scope: &InScope<'_>) {
    let Some(&read) = scope.stages.get(name) else {
        report.error(place, format!("there is no stage `{}`", shown(name)), suggestion(name, scope.stages.keys().map(String::as_str)));
        return;
    };
    if let (Some(upstream), Some(own)) = (scope.upstream, scope.own)
        && !upstream.has(own, read)
    {
        if own == read {
            report.error(place, format!("the stage `{name}` cannot read itself: it has not ended"), "in its `output` the result of a task is `result`");
        } else if upstream.has(read, own) {
            report.error(place, format!("the stage `{name}` waits for this one, so it has not ended"), "read it in a later stage");
        } else {
            report.error(place, format!("the stage `{name}` is not upstream of this one, so it may not have ended"), format!("add it to depends_on: [{name}]"));
        }
    }
    if let Some((field, place)) = field {
        known(report, place, &format!("stages.{name}"), field, STAGE);
        if let (true, "output", Some(why)) = (projected, field, scope.nullable.get(name)) {
            report.warn(
                place,
                format!("this projection drops nulls, and the output of `{name}` can have them ({why})"),
                format!("to keep their places write map(&x, stages.{name}.output)"),
            );
        }
    }
}
