//! Numbers as expressions compute with them: integers up to 2⁵³ exactly, the rest as 64-bit floating point.

use serde_json::Number;
use std::cmp::Ordering;

use super::code::Fault;
use super::doc::{Doc, Node};

/// The largest integer that any reader of JSON takes exactly: 2⁵³.
pub(super) const EXACT: i64 = 1 << 53;

/// A number that can be compared and computed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Num {
    Int(i64),
    Float(f64),
}

impl Num {
    /// Errors: an integer beyond 2⁵³.
    pub(super) fn of(number: &Number, offset: usize) -> Result<Num, Fault> {
        match (number.as_i64(), number.as_f64()) {
            (Some(value), _) if value.unsigned_abs() <= EXACT as u64 => Ok(Num::Int(value)),
            (None, Some(value)) if !number.is_u64() => Ok(Num::Float(value)),
            _ => Err(inexact(&number.to_string(), offset)),
        }
    }

    /// The number in a value; none if it is none.
    pub(super) fn in_doc(value: &Doc, offset: usize) -> Result<Option<Num>, Fault> {
        match &value.0 {
            Node::Number(number) => Num::of(number, offset).map(Some),
            Node::Long(digits) => Err(inexact(digits, offset)),
            _ => Ok(None),
        }
    }

    pub(super) fn float(self) -> f64 {
        match self {
            Num::Int(value) => value as f64,
            Num::Float(value) => value,
        }
    }

    pub(super) fn order(self, other: Num) -> Ordering {
        match (self, other) {
            (Num::Int(left), Num::Int(right)) => left.cmp(&right),
            // JSON has no NaN, so there is always an order.
            _ => self.float().partial_cmp(&other.float()).unwrap_or(Ordering::Equal),
        }
    }

    /// As a value: whole numbers are written as integers. Errors: an integer result beyond 2⁵³, infinity.
    pub(super) fn doc(self, offset: usize) -> Result<Doc, Fault> {
        let too_large = || Fault::new(offset, "the result is beyond 2^53, where numbers are no longer exact");
        match self {
            Num::Int(value) if value.unsigned_abs() <= EXACT as u64 => Ok(Doc::number(value.into())),
            Num::Int(_) => Err(too_large()),
            Num::Float(value) if value.fract() == 0.0 && value.abs() <= EXACT as f64 => Ok(Doc::number((value as i64).into())),
            Num::Float(value) => Number::from_f64(value).map(Doc::number).ok_or_else(too_large),
        }
    }

    /// `whole` on two integers, `real` otherwise; `whole` gives none where its result is no exact integer.
    pub(super) fn combine(self, other: Num, whole: fn(i64, i64) -> Option<i64>, real: fn(f64, f64) -> f64) -> Num {
        if let (Num::Int(left), Num::Int(right)) = (self, other)
            && let Some(value) = whole(left, right)
        {
            return Num::Int(value);
        }
        Num::Float(real(self.float(), other.float()))
    }
}

fn inexact(number: &str, offset: usize) -> Fault {
    Fault::new(offset, format!("{number} is beyond 2^53, where numbers are no longer exact, so it is not compared or computed"))
        .hint("pass it on unchanged, or keep it as a string")
}
