//! `where`: what to keep of a list. Grammar, parser, matching and completion.
//!
//! ```text
//! filter = { term }                                   all terms must hold
//! term   = [ "-" ] ( field operator value | text )    `-` turns it round
//! field  = a name of the list, or attr.NAME           operator = ":" | ">" | "<" | ">=" | "<="
//! value  = word | quoted                              text     = word | quoted
//! ```
//!
//! A word ends at white space; in quotes `\"` and `\\` stand for `"` and `\`. `:` is equality; the others compare numbers,
//! durations (`1h`) and times (`2026-11-25`, `2026-11-25T08:00:00Z`, in UTC). A field that a row has not got holds for nothing,
//! its negation for everything. Text holds where a text of the row contains it, in any case.

mod complete;
mod fields;
mod parse;

pub use complete::{Suggestion, complete};
pub use fields::{Field, FieldKind, List};
pub use parse::{FilterError, parse};

use std::fmt;

use crate::policy::Span;
use crate::time::Millis;

/// A parsed filter: its terms, all of which must hold.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Filter {
    /// In the order written.
    pub terms: Vec<Term>,
}

/// One term.
#[derive(Clone, PartialEq, Debug)]
pub struct Term {
    /// Whether it holds where what it says does not.
    pub negated: bool,
    /// What it says.
    pub says: Says,
}

/// What a term says.
#[derive(Clone, PartialEq, Debug)]
pub enum Says {
    /// Some text of the row contains this.
    Text(String),
    /// A field compares so.
    Field {
        /// Its name in the list, or `attr.NAME`.
        name: String,
        /// How.
        operator: Operator,
        /// With what.
        value: Value,
    },
}

/// How a field is compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operator {
    /// `:`
    Is,
    /// `>`
    Above,
    /// `<`
    Below,
    /// `>=`
    AtLeast,
    /// `<=`
    AtMost,
}

impl Operator {
    /// All of them, those of two characters first.
    pub const ALL: [Operator; 5] = [Operator::AtLeast, Operator::AtMost, Operator::Above, Operator::Below, Operator::Is];

    /// As written.
    #[must_use]
    pub fn sign(self) -> &'static str {
        match self {
            Operator::Is => ":",
            Operator::Above => ">",
            Operator::Below => "<",
            Operator::AtLeast => ">=",
            Operator::AtMost => "<=",
        }
    }

    fn holds(self, order: std::cmp::Ordering) -> bool {
        match self {
            Operator::Is => order.is_eq(),
            Operator::Above => order.is_gt(),
            Operator::Below => order.is_lt(),
            Operator::AtLeast => order.is_ge(),
            Operator::AtMost => order.is_le(),
        }
    }
}

/// A value of a row or of a term.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// Text.
    Text(String),
    /// A finite number.
    Number(f64),
    /// A length of time.
    Duration(Span),
    /// An instant.
    Time(Millis),
}

/// What a filter looks at: one line of a list.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Row {
    /// Fields by name; attributes as `attr.NAME`. A name may come more than once: one that holds is enough.
    pub fields: Vec<(String, Value)>,
    /// Where text is looked for.
    pub texts: Vec<String>,
}

/// Whether every term holds for the row.
#[must_use]
pub fn matches(filter: &Filter, row: &Row) -> bool {
    filter.terms.iter().all(|term| holds(&term.says, row) != term.negated)
}

fn holds(says: &Says, row: &Row) -> bool {
    match says {
        Says::Text(text) => {
            let wanted = text.to_lowercase();
            row.texts.iter().any(|text| text.to_lowercase().contains(&wanted))
        }
        Says::Field { name, operator, value } => row.fields.iter().filter(|(field, _)| field == name).any(|(_, found)| compares(found, *operator, value)),
    }
}

fn compares(found: &Value, operator: Operator, wanted: &Value) -> bool {
    let order = match (found, wanted) {
        (Value::Number(found), Value::Number(wanted)) => found.partial_cmp(wanted),
        (Value::Duration(found), Value::Duration(wanted)) => Some(found.cmp(wanted)),
        (Value::Time(found), Value::Time(wanted)) => Some(found.cmp(wanted)),
        (Value::Text(found), Value::Text(wanted)) => Some(found.cmp(wanted)),
        // What an attribute is, only the row knows: its value as text, or as the number that the text is.
        (Value::Number(found), Value::Text(wanted)) => wanted.parse().ok().and_then(|wanted: f64| found.partial_cmp(&wanted)),
        (found, Value::Text(wanted)) => (found.to_string() == *wanted).then_some(std::cmp::Ordering::Equal),
        _ => None,
    };
    order.is_some_and(|order| operator.holds(order))
}

impl fmt::Display for Value {
    /// As it may be written in a filter, without quotes.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Text(text) => out.write_str(text),
            Value::Number(number) => write!(out, "{number}"),
            Value::Duration(span) => write!(out, "{span}"),
            Value::Time(at) => write!(out, "{at}"),
        }
    }
}

impl fmt::Display for Filter {
    /// The text that parses to this filter.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, term) in self.terms.iter().enumerate() {
            out.write_str(if index > 0 { " " } else { "" })?;
            out.write_str(if term.negated { "-" } else { "" })?;
            match &term.says {
                Says::Text(text) => quoted(out, text)?,
                Says::Field { name, operator, value } => {
                    write!(out, "{name}{}", operator.sign())?;
                    let text = value.to_string();
                    if text.is_empty() || text.starts_with('"') || text.contains(char::is_whitespace) {
                        quoted(out, &text)?;
                    } else {
                        out.write_str(&text)?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn quoted(out: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    write!(out, "\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests;
