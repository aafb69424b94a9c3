//! Text to a filter, or every error with its column.

use super::{FieldKind, Filter, List, Operator, Says, Term, Value};
use crate::limit::{FILTER_BYTES, FILTER_TERMS};
use crate::nearest::{nearest, suggestion};
use crate::policy::Span;
use crate::time::Millis;

/// What is wrong with a filter.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("column {column}: {message}{}", if hint.is_empty() { String::new() } else { format!("; {hint}") })]
pub struct FilterError {
    /// Where, in characters from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to write instead; empty where there is nothing to add.
    pub hint: String,
}

/// A term as it stands in the text, before anything is known of its field. Offsets are in bytes.
pub(super) struct Piece {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) negated: bool,
    pub(super) says: Written,
}

pub(super) enum Written {
    Text(String),
    Field { name: String, at: usize, operator: Operator, value: String, value_at: usize },
}

/// Parses a filter of a list. Errors: every one, in order.
pub fn parse(list: List, text: &str) -> Result<Filter, Vec<FilterError>> {
    if text.len() > FILTER_BYTES {
        let message = format!("the filter has {} bytes; limit: filter = {FILTER_BYTES}", text.len());
        return Err(vec![FilterError { column: 1, message, hint: "leave terms out".to_owned() }]);
    }
    let (mut terms, mut errors) = (Vec::new(), Vec::new());
    for piece in pieces(text) {
        let found = piece.and_then(|piece| term(list, text, piece));
        match found {
            Ok(term) => terms.push(term),
            Err(error) => errors.push(error),
        }
    }
    if terms.len() > FILTER_TERMS {
        let message = format!("the filter has {} terms; limit: filter_terms = {FILTER_TERMS}", terms.len());
        errors.push(FilterError { column: 1, message, hint: "leave terms out".to_owned() });
    }
    if errors.is_empty() { Ok(Filter { terms }) } else { Err(errors) }
}

fn wrong(text: &str, at: usize, message: impl Into<String>, hint: impl Into<String>) -> FilterError {
    // Invariant: offsets come from walking the characters of this text.
    let column = text.get(..at).map_or(0, |before| before.chars().count()) + 1;
    FilterError { column, message: message.into(), hint: hint.into() }
}

/// The text cut into terms.
pub(super) fn pieces(text: &str) -> Vec<Result<Piece, FilterError>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(start) = text[at..].find(|c: char| !c.is_whitespace()).map(|offset| at + offset) {
        let (end, piece) = piece(text, start);
        found.push(piece);
        at = end;
    }
    found
}

/// The end of a word that begins at `at`.
fn word_end(text: &str, at: usize) -> usize {
    text[at..].find(char::is_whitespace).map_or(text.len(), |offset| at + offset)
}

fn piece(text: &str, start: usize) -> (usize, Result<Piece, FilterError>) {
    let negated = text[start..].starts_with('-');
    let at = start + usize::from(negated);
    if text[at..].starts_with('"') {
        return match quoted(text, at) {
            Ok((end, value)) => (end, Ok(Piece { start, end, negated, says: Written::Text(value) })),
            Err((end, error)) => (end, Err(error)),
        };
    }
    let end = word_end(text, at);
    let word = &text[at..end];
    if word.is_empty() {
        return (end, Err(wrong(text, start, "`-` negates nothing", "write it in front of a term, without a space")));
    }
    let Some(sign_at) = word.find([':', '>', '<']) else {
        return (end, Ok(Piece { start, end, negated, says: Written::Text(word.to_owned()) }));
    };
    let name = word[..sign_at].to_owned();
    // Invariant: one of the signs begins here.
    let operator = Operator::ALL.into_iter().find(|operator| word[sign_at..].starts_with(operator.sign())).unwrap_or(Operator::Is);
    let value_at = at + sign_at + operator.sign().len();
    let (end, value) = if text[value_at..].starts_with('"') {
        match quoted(text, value_at) {
            Ok((end, value)) => (end, value),
            Err((end, error)) => return (end, Err(error)),
        }
    } else if value_at == end {
        let hint = format!("write {name}{}VALUE, without a space", operator.sign());
        return (end, Err(wrong(text, value_at, format!("`{}` has no value", &word[..sign_at]), hint)));
    } else {
        (end, text[value_at..end].to_owned())
    };
    (end, Ok(Piece { start, end, negated, says: Written::Field { name, at, operator, value, value_at } }))
}

/// What stands in quotes from `at` on, and where it ends; or where to go on, and what is wrong.
fn quoted(text: &str, at: usize) -> Result<(usize, String), (usize, FilterError)> {
    let mut value = String::new();
    let mut letters = text[at + 1..].char_indices();
    while let Some((offset, letter)) = letters.next() {
        match letter {
            '"' => {
                let end = at + 1 + offset + 1;
                if text[end..].chars().next().is_some_and(|next| !next.is_whitespace()) {
                    return Err((
                        word_end(text, end),
                        wrong(text, end, "something follows a closing quote", "write a space between terms, and \\\" for a quote"),
                    ));
                }
                return Ok((end, value));
            }
            '\\' => match letters.next() {
                Some((_, escaped @ ('"' | '\\'))) => value.push(escaped),
                Some((offset, _)) => {
                    return Err((
                        word_end(text, at + 1 + offset),
                        wrong(text, at + offset, "`\\` stands before something else than `\"` and `\\`", "write \\\\ for `\\`"),
                    ));
                }
                None => break,
            },
            letter => value.push(letter),
        }
    }
    Err((text.len(), wrong(text, at, "a quote is not closed", "write \" at its end")))
}

fn term(list: List, text: &str, piece: Piece) -> Result<Term, FilterError> {
    let says = match piece.says {
        Written::Text(written) => {
            if !text[piece.start..].starts_with(['"', '-'])
                && let Some(field) = list.find(&written)
            {
                return Err(wrong(
                    text,
                    piece.start,
                    format!("`{written}` is a field without a value"),
                    format!("write {}:VALUE, or \"{written}\" for the text", field.name),
                ));
            }
            Says::Text(written)
        }
        Written::Field { name, at, operator, value, value_at } => {
            let value = match (list.find(&name), name.strip_prefix("attr.")) {
                (Some(field), _) => of_kind(text, value_at, &name, field.kind, operator, value)?,
                (None, Some(attribute)) if list.has_attributes() && !attribute.is_empty() => of_attribute(text, value_at, &name, operator, value)?,
                _ => return Err(wrong(text, at, format!("there is no field `{name}` here"), field_hint(list, &name))),
            };
            Says::Field { name, operator, value }
        }
    };
    Ok(Term { negated: piece.negated, says })
}

fn field_hint(list: List, name: &str) -> String {
    if let Some(near) = nearest(name, list.fields().iter().map(|field| field.name)) {
        return format!("did you mean `{near}`?");
    }
    let mut names: Vec<&str> = list.fields().iter().map(|field| field.name).collect();
    if list.has_attributes() {
        names.push("attr.NAME");
    }
    format!("known here: {}; text with such a sign stands in quotes", names.join(", "))
}

fn of_kind(text: &str, at: usize, name: &str, kind: FieldKind, operator: Operator, value: String) -> Result<Value, FilterError> {
    match kind {
        FieldKind::Word(_) | FieldKind::Text if operator != Operator::Is => Err(wrong(
            text,
            at - operator.sign().len(),
            format!("`{name}` is text: `{}` does not compare it", operator.sign()),
            format!("write {name}:{value}"),
        )),
        FieldKind::Word(words) if !words.contains(&value.as_str()) => {
            Err(wrong(text, at, format!("`{name}` is never `{value}`"), suggestion(&value, words.iter().copied())))
        }
        FieldKind::Word(_) | FieldKind::Text => Ok(Value::Text(value)),
        FieldKind::Number => {
            number(&value).map(Value::Number).ok_or_else(|| wrong(text, at, format!("`{name}` is a number, `{value}` is none"), "write digits"))
        }
        FieldKind::Duration => match value.parse::<Span>() {
            Ok(span) => Ok(Value::Duration(span)),
            Err(error) => Err(wrong(text, at, format!("`{name}`: {error}"), "")),
        },
        FieldKind::Time => time(&value)
            .map(Value::Time)
            .ok_or_else(|| wrong(text, at, format!("`{name}` is a time, `{value}` is none"), "write 2026-11-25 or 2026-11-25T08:00:00Z")),
    }
}

/// An attribute can be anything: with `:` its text counts, and the others need something that has an order.
fn of_attribute(text: &str, at: usize, name: &str, operator: Operator, value: String) -> Result<Value, FilterError> {
    if operator == Operator::Is {
        return Ok(Value::Text(value));
    }
    let found = number(&value).map(Value::Number).or_else(|| value.parse().ok().map(Value::Duration)).or_else(|| time(&value).map(Value::Time));
    found.ok_or_else(|| {
        let message = format!("`{}` compares numbers, durations and times, `{value}` is none", operator.sign());
        wrong(text, at, message, format!("write {name}:{value}"))
    })
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite() && text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)))
}

fn time(text: &str) -> Option<Millis> {
    let day = || text.parse::<jiff::civil::Date>().ok().and_then(|day| jiff::tz::Offset::UTC.to_timestamp(day.to_datetime(jiff::civil::Time::midnight())).ok());
    let at = if text.contains(['T', 't', ' ']) { text.parse::<jiff::Timestamp>().ok()? } else { day()? };
    u64::try_from(at.as_millisecond()).ok().map(Millis)
}
