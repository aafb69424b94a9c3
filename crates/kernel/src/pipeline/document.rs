//! YAML or JSON text as a tree that knows where each key and value stands.
//!
//! Refused, each by name: anchors, aliases, tags, merge keys, duplicate keys, more than 1 MiB, more than 64 levels,
//! more than 100 000 nodes, more than one document where one is expected. Values are those of YAML 1.2: `no`, `on` and
//! `12:30` are strings.

use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, ScanError, Span};
use serde_json::{Map, Number, Value};
use std::collections::{BTreeMap, BTreeSet};

use crate::diagnostic::{Diagnostic, Place, Report};
use crate::limit::{DOCUMENT_BYTES, DOCUMENT_DEPTH, DOCUMENT_NODES};

/// A value and where it stands.
#[derive(Clone, PartialEq, Debug)]
pub struct Tree {
    /// Where it begins.
    pub place: Place,
    /// What it is.
    pub kind: Kind,
}

/// What a value is.
#[derive(Clone, PartialEq, Debug)]
pub enum Kind {
    /// `null`, `~` or nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, and how it was written.
    Number(Number, String),
    /// A string.
    Text(Text),
    /// A list.
    List(Vec<Tree>),
    /// A mapping, in its order.
    Map(Vec<Entry>),
}

/// A string and where its characters stand.
#[derive(Clone, PartialEq, Debug)]
pub struct Text {
    /// The string.
    pub value: String,
    /// Where its first character stands; none if it is written over lines or with escapes.
    pub origin: Option<Place>,
}

/// A key with its value.
#[derive(Clone, PartialEq, Debug)]
pub struct Entry {
    /// The key as text, whatever it would be as a value.
    pub key: String,
    /// Where the key begins.
    pub place: Place,
    /// Its value.
    pub value: Tree,
}

impl Tree {
    /// Without the places.
    #[must_use]
    pub fn to_value(&self) -> Value {
        match &self.kind {
            Kind::Null => Value::Null,
            Kind::Bool(value) => Value::Bool(*value),
            Kind::Number(number, _) => Value::Number(number.clone()),
            Kind::Text(text) => Value::String(text.value.clone()),
            Kind::List(items) => Value::Array(items.iter().map(Tree::to_value).collect()),
            Kind::Map(entries) => Value::Object(entries.iter().map(|entry| (entry.key.clone(), entry.value.to_value())).collect::<Map<_, _>>()),
        }
    }

    /// The word for what it is.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self.kind {
            Kind::Null => "empty",
            Kind::Bool(_) => "a boolean",
            Kind::Number(..) => "a number",
            Kind::Text(_) => "a string",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a mapping",
        }
    }
}

impl Text {
    /// Where character `column` (from 1) of the string stands; `place` is where its value begins.
    #[must_use]
    pub fn at(&self, place: Place, column: usize) -> Place {
        self.origin.map_or(place, |origin| Place { line: origin.line, column: origin.column + column - 1 })
    }
}

/// Parses a file with one document.
pub fn parse_document(file: &str, text: &str) -> Result<Tree, Vec<Diagnostic>> {
    let mut report = Report::new(file);
    let tree = one_document(&mut report, text);
    report.end(tree).map(|(tree, _)| tree)
}

/// Parses a file with any number of documents, separated by `---`.
pub fn parse_documents(file: &str, text: &str) -> Result<Vec<Tree>, Vec<Diagnostic>> {
    let mut report = Report::new(file);
    let trees = documents(&mut report, text).into_iter().map(|(_, tree)| tree).collect();
    report.end(Some(trees)).map(|(trees, _)| trees)
}

/// The document, or none with an error in the report. A document with errors may still be given, to find more.
pub(crate) fn one_document(report: &mut Report, text: &str) -> Option<Tree> {
    let mut found = documents(report, text).into_iter();
    let first = found.next();
    if let Some((place, _)) = found.next() {
        report.error(
            place,
            "a second document begins here, and this file is read as one",
            "write one document per file: take out the `---`, or split the file",
        );
    }
    if first.is_none() && !report.failed() {
        report.error(Place { line: 1, column: 1 }, "the file is empty", "is it the right file, and was it written to the end?");
    }
    first.map(|(_, tree)| tree)
}

fn documents(report: &mut Report, text: &str) -> Vec<(Place, Tree)> {
    if text.len() > DOCUMENT_BYTES {
        let message = format!("the document has {} bytes; limit: document_bytes = {DOCUMENT_BYTES}", text.len());
        report.error(Place { line: 1, column: 1 }, message, "split it over several files");
        return Vec::new();
    }
    let options = granit_parser::options! {
        emit_comments: false,
        emit_unresolved_aliases: true,
        disallow_directives: true,
        flow_nesting_limit: DOCUMENT_DEPTH,
        block_nesting_limit: DOCUMENT_DEPTH,
    };
    let mut builder = Builder { report, text, aliases: BTreeSet::new(), open: Vec::new(), done: Vec::new(), started: Place::default(), nodes: 0 };
    for event in Parser::new_from_str_with_options(text, options) {
        let goes_on = match event {
            Ok((event, span)) => builder.take(event, span),
            Err(error) => {
                builder.syntax(&error);
                false
            }
        };
        if !goes_on {
            break;
        }
    }
    builder.done
}

struct Builder<'a> {
    report: &'a mut Report,
    text: &'a str,
    /// Names of aliases that were refused: each is said once.
    aliases: BTreeSet<String>,
    open: Vec<Open>,
    done: Vec<(Place, Tree)>,
    started: Place,
    nodes: usize,
}

/// A key whose value has not come.
#[derive(Default)]
struct Key {
    name: String,
    place: Place,
    twice: bool,
}

/// A list or mapping whose end has not come.
enum Open {
    List(Place, Vec<Tree>),
    Map { place: Place, entries: Vec<Entry>, key: Option<Key>, seen: BTreeMap<String, Place> },
}

fn place_of(span: &Span) -> Place {
    Place { line: span.start.line(), column: span.start.col() + 1 }
}

impl Builder<'_> {
    /// Takes one event; false where a limit ends the reading.
    fn take(&mut self, event: Event<'_>, span: Span) -> bool {
        let place = place_of(&span);
        match event {
            Event::DocumentStart(..) => self.started = place,
            Event::Scalar(value, style, anchor, tag) => {
                self.refuse(anchor, tag.is_some(), &span);
                if !self.counted(place) {
                    return false;
                }
                let as_key = matches!(self.open.last(), Some(Open::Map { key: None, .. }));
                if as_key {
                    self.key(value.into_owned(), place);
                } else {
                    let kind = self.kind_of(value.into_owned(), style, &span);
                    self.value(Tree { place, kind });
                }
            }
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                let name = span.slice(self.text).unwrap_or_default();
                if self.aliases.insert(name.to_owned()) {
                    let message = format!("`{name}` is an alias, and aliases are refused; limit: document_aliases = 0");
                    self.report.error(place, message, "write the value out, here and wherever it stands again; if it is an expression: quote this expression");
                }
                self.report.settle(place);
                let as_key = matches!(self.open.last(), Some(Open::Map { key: None, .. }));
                if as_key {
                    self.key(name.to_owned(), place);
                } else {
                    self.value(Tree { place, kind: Kind::Null });
                }
                return self.counted(place);
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.refuse(anchor, tag.is_some(), &span);
                return self.counted(place) && self.opened(Open::List(place, Vec::new()), place);
            }
            Event::MappingStart(_, anchor, tag) => {
                self.refuse(anchor, tag.is_some(), &span);
                let map = Open::Map { place, entries: Vec::new(), key: None, seen: BTreeMap::new() };
                return self.counted(place) && self.opened(map, place);
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::List(place, items)) => self.value(Tree { place, kind: Kind::List(items) }),
                Some(Open::Map { place, entries, .. }) => self.value(Tree { place, kind: Kind::Map(entries) }),
                None => {}
            },
            _ => {}
        }
        true
    }

    fn counted(&mut self, place: Place) -> bool {
        self.nodes += 1;
        if self.nodes > DOCUMENT_NODES {
            self.report.error(
                place,
                format!("the document has more than {DOCUMENT_NODES} keys and values; limit: document_nodes"),
                "split it over several files",
            );
            return false;
        }
        true
    }

    fn opened(&mut self, open: Open, place: Place) -> bool {
        if self.open.len() >= DOCUMENT_DEPTH {
            self.too_deep(place);
            return false;
        }
        if let Some(Open::Map { key: key @ None, .. }) = self.open.last_mut() {
            *key = Some(Key { place, ..Key::default() });
            self.report.error(place, "a key must be text, this is a list or a mapping", "quote the key");
        }
        self.open.push(open);
        true
    }

    fn too_deep(&mut self, place: Place) {
        self.report.error(place, format!("the document nests deeper than {DOCUMENT_DEPTH} levels; limit: document_depth"), "flatten it");
    }

    fn refuse(&mut self, anchor: usize, tag: bool, span: &Span) {
        let place = place_of(span);
        if anchor > 0 {
            let message = "an anchor (`&name`) stands before this value, and anchors are refused; limit: document_anchors = 0";
            self.report.error(place, message, "write the value where it is used; if it is an expression: quote this expression");
        }
        if tag {
            let place = span.tag_start.map_or(place, |at| Place { line: at.line(), column: at.col() + 1 });
            let message = "a tag (`!name`) stands before this value, and tags are refused; limit: document_tags = 0";
            self.report.error(place, message, "take it out; if it is an expression: quote this expression");
        }
        if anchor > 0 || tag {
            self.report.settle(place);
        }
    }

    fn key(&mut self, name: String, place: Place) {
        let Some(Open::Map { key, seen, .. }) = self.open.last_mut() else { return };
        let earlier = seen.get(&name).copied();
        seen.entry(name.clone()).or_insert(place);
        *key = Some(Key { name: name.clone(), place, twice: earlier.is_some() });
        if let Some(earlier) = earlier {
            self.report.error(
                place,
                format!("the key `{name}` stands here a second time; limit: document_duplicate_keys = 0"),
                format!("it stands first in line {}: take one out", earlier.line),
            );
        }
        if name == "<<" {
            self.report.error(place, "merge keys (`<<`) are refused", "write the entries out");
            self.report.settle(place);
        }
    }

    fn value(&mut self, tree: Tree) {
        match self.open.last_mut() {
            None => self.done.push((self.started, tree)),
            Some(Open::List(_, items)) => items.push(tree),
            Some(Open::Map { entries, key, .. }) => {
                // Invariant: the parser gives a key before each value.
                let Key { name, place, twice } = key.take().unwrap_or_default();
                // Of two equal keys the first stays; the second is an error already.
                if !twice {
                    entries.push(Entry { key: name, place, value: tree });
                }
            }
        }
    }

    fn kind_of(&mut self, value: String, style: ScalarStyle, span: &Span) -> Kind {
        let place = place_of(span);
        if style == ScalarStyle::Plain {
            match scalar(&value) {
                Ok(Some(kind)) => return kind,
                Ok(None) => {}
                Err((message, hint)) => {
                    self.report.error(place, message, hint);
                    return Kind::Null;
                }
            }
        }
        let source = span.slice(self.text).unwrap_or_default();
        let inner = match style {
            ScalarStyle::Plain => Some((source, 0)),
            ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => source.get(1..source.len().saturating_sub(1)).map(|inner| (inner, 1)),
            _ => None,
        };
        let origin = inner.filter(|(inner, _)| *inner == value).map(|(_, quote)| Place { line: place.line, column: place.column + quote });
        Kind::Text(Text { value, origin })
    }

    fn syntax(&mut self, error: &ScanError) {
        let mark = error.marker();
        let place = Place { line: mark.line().max(1), column: mark.col() + 1 };
        if matches!(error.kind(), ErrorKind::RecursionLimitExceeded) {
            return self.too_deep(place);
        }
        if matches!(error.kind(), ErrorKind::DirectiveDisallowed) {
            return self.report.error(place, "directives (`%…`) are refused", "take the line out");
        }
        let line = self.text.lines().nth(place.line - 1).unwrap_or_default();
        let quote = match error.kind() {
            ErrorKind::UnexpectedCharacter { character: '`' | '@' | '%' } => true,
            ErrorKind::InvalidTrailingSingleQuotedScalar | ErrorKind::InvalidTrailingDoubleQuotedScalar | ErrorKind::MappingValueNotAllowed => true,
            _ => line.contains("${") || line.contains('`') || line.contains("[?"),
        };
        let hint = match error.kind() {
            _ if quote => "if this is an expression, YAML reads it as something else: quote this expression",
            ErrorKind::TabNotAllowed | ErrorKind::TabInBlockIndentation | ErrorKind::TabInIndentation => "indent with spaces",
            ErrorKind::UnclosedFlowCollection { .. } | ErrorKind::UnclosedQuotedScalar => "close it: is the file cut off?",
            _ => "look at the indentation, brackets and quotes of this line and the one above",
        };
        self.report.error(place, format!("this is not YAML: {}", error.info()), hint);
    }
}

/// What a scalar without quotes is, if it is no string.
pub(crate) fn scalar(text: &str) -> Result<Option<Kind>, (String, &'static str)> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Some(Kind::Null)),
        "true" | "True" | "TRUE" => return Ok(Some(Kind::Bool(true))),
        "false" | "False" | "FALSE" => return Ok(Some(Kind::Bool(false))),
        _ => {}
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN") {
        return Err((format!("`{text}` is no number of JSON"), "quote it if it is a text"));
    }
    let radix = unsigned.strip_prefix("0x").map(|digits| (digits, 16)).or_else(|| unsigned.strip_prefix("0o").map(|digits| (digits, 8)));
    if let Some((digits, radix)) = radix
        && !digits.is_empty()
        && digits.chars().all(|c| c.is_digit(radix))
    {
        let value = u64::from_str_radix(digits, radix).map_err(|_| too_long(text))?;
        let number = if text.starts_with('-') { i64::try_from(value).map(|value| Number::from(-value)).map_err(|_| too_long(text))? } else { value.into() };
        return Ok(Some(Kind::Number(number, text.to_owned())));
    }
    if !unsigned.is_empty() && unsigned.bytes().all(|c| c.is_ascii_digit()) {
        if unsigned.len() > 1 && unsigned.starts_with('0') {
            return Err((format!("`{text}` has a leading zero: is it a number or a text?"), "quote it if it is a text, take the zero away if it is a number"));
        }
        let text = text.strip_prefix('+').unwrap_or(text);
        let number = text.parse::<u64>().map(Number::from).or_else(|_| text.parse::<i64>().map(Number::from)).map_err(|_| too_long(text))?;
        return Ok(Some(Kind::Number(number, text.to_owned())));
    }
    if is_float(unsigned) {
        let number = text.parse::<f64>().ok().and_then(Number::from_f64).ok_or_else(|| too_long(text))?;
        return Ok(Some(Kind::Number(number, text.to_owned())));
    }
    Ok(None)
}

fn too_long(text: &str) -> (String, &'static str) {
    (format!("`{text}` does not fit a number of 64 bits"), "quote it: it is then carried as a text")
}

/// `1.5`, `.5`, `1.`, `1e9`, without the sign.
fn is_float(text: &str) -> bool {
    let (mantissa, exponent) = text.split_once(['e', 'E']).map_or((text, None), |(mantissa, exponent)| (mantissa, Some(exponent)));
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = |text: &str| text.bytes().all(|c| c.is_ascii_digit());
    let exponent_fits = exponent.is_none_or(|exponent| {
        let digits_of = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        !digits_of.is_empty() && digits(digits_of)
    });
    digits(whole) && digits(part) && !(whole.is_empty() && part.is_empty()) && exponent_fits
}
