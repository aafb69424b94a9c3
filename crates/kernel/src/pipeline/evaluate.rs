//! Runs a checked expression on a document, within a budget of visited nodes.

use jmespath::ast::Comparator;

use super::code::{Code, Fault, Step};
use super::doc::{Doc, Node};
use super::functions::call;
use super::number::Num;
use crate::limit::EXPRESSION_NODES;

/// What may still be visited, or made.
pub(super) struct Budget {
    left: u64,
}

impl Budget {
    pub(super) fn new(nodes: u64) -> Budget {
        Budget { left: nodes }
    }

    /// Takes `nodes` from what is left.
    pub(super) fn spend(&mut self, nodes: u64, offset: usize) -> Result<(), Fault> {
        match self.left.checked_sub(nodes) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(over(offset)),
        }
    }

    /// Refuses what would be larger, written out, than one evaluation may visit.
    pub(super) fn bounded(&mut self, made: Doc, offset: usize) -> Result<Doc, Fault> {
        if made.weight() > EXPRESSION_NODES { Err(over(offset)) } else { Ok(made) }
    }
}

fn over(offset: usize) -> Fault {
    Fault::new(offset, format!("the expression visits or makes more than {EXPRESSION_NODES} nodes; limit: expression_nodes"))
        .hint("narrow the list first, or group it with a gather and group_by")
}

/// Gives the value of `code` for `data`.
pub(super) fn run(code: &Code, data: &Doc, budget: &mut Budget) -> Result<Doc, Fault> {
    budget.spend(1, 0)?;
    match code {
        Code::Current => Ok(data.clone()),
        Code::Literal(value) => Ok(value.clone()),
        Code::Path(steps) => Ok(walk(steps, data)),
        Code::Then(first, then) => {
            let value = run(first, data, budget)?;
            run(then, &value, budget)
        }
        Code::Or(left, right) => {
            let value = run(left, data, budget)?;
            if truthy(&value) { Ok(value) } else { run(right, data, budget) }
        }
        Code::And(left, right) => {
            let value = run(left, data, budget)?;
            if truthy(&value) { run(right, data, budget) } else { Ok(value) }
        }
        Code::Not(node) => Ok(Doc::bool(!truthy(&run(node, data, budget)?))),
        Code::If(predicate, then) => {
            if truthy(&run(predicate, data, budget)?) {
                run(then, data, budget)
            } else {
                Ok(Doc::null())
            }
        }
        Code::Compare { offset, how, left, right } => {
            let left = run(left, data, budget)?;
            let right = run(right, data, budget)?;
            compare(how, &left, &right, budget, *offset)
        }
        Code::Values(node) => match run(node, data, budget)?.0 {
            Node::Object(object) => {
                budget.spend(object.entries.len() as u64, 0)?;
                Ok(Doc::list(object.entries.iter().map(|(_, value)| value.clone()).collect()))
            }
            _ => Ok(Doc::null()),
        },
        Code::Flatten(node) => flatten(&run(node, data, budget)?, budget),
        Code::Project(list, each) => {
            let list = run(list, data, budget)?;
            let Some(items) = list.items() else { return Ok(Doc::null()) };
            let mut kept = Vec::new();
            for item in items {
                let value = run(each, item, budget)?;
                if !value.is_null() {
                    kept.push(value);
                }
            }
            budget.bounded(Doc::list(kept), 0)
        }
        Code::Slice { offset, start, stop, step } => {
            let Some(items) = data.items() else { return Ok(Doc::null()) };
            let picked = slice(items, *start, *stop, *step);
            budget.spend(picked.len() as u64, *offset)?;
            Ok(Doc::list(picked))
        }
        Code::List(parts) => {
            if data.is_null() {
                return Ok(Doc::null());
            }
            let items = parts.iter().map(|part| run(part, data, budget)).collect::<Result<Vec<_>, _>>()?;
            budget.bounded(Doc::list(items), 0)
        }
        Code::Object(parts) => {
            if data.is_null() {
                return Ok(Doc::null());
            }
            let mut entries = Vec::with_capacity(parts.len());
            for (key, part) in parts {
                entries.push((key.clone(), run(part, data, budget)?));
            }
            budget.bounded(Doc::object(entries), 0)
        }
        Code::Call { offset, function, args } => call(*function, args, data, budget, *offset),
    }
}

fn walk(steps: &[Step], data: &Doc) -> Doc {
    steps.iter().fold(data.clone(), |value, step| match step {
        Step::Field(name) => value.field(name),
        Step::Index(index) => value.item(*index),
    })
}

/// JMESPath's truth: not null, not false, not empty.
fn truthy(value: &Doc) -> bool {
    match &value.0 {
        Node::Null => false,
        Node::Bool(value) => *value,
        Node::Number(_) | Node::Long(_) => true,
        Node::Text(text) => !text.is_empty(),
        Node::List(list) => !list.items.is_empty(),
        Node::Object(object) => !object.entries.is_empty(),
    }
}

fn flatten(list: &Doc, budget: &mut Budget) -> Result<Doc, Fault> {
    let Some(items) = list.items() else { return Ok(Doc::null()) };
    let mut flat = Vec::with_capacity(items.len());
    for item in items {
        match item.items() {
            Some(inner) => {
                budget.spend(inner.len() as u64, 0)?;
                flat.extend_from_slice(inner);
            }
            None => flat.push(item.clone()),
        }
    }
    budget.spend(items.len() as u64, 0)?;
    Ok(Doc::list(flat))
}

fn compare(how: &Comparator, left: &Doc, right: &Doc, budget: &mut Budget, offset: usize) -> Result<Doc, Fault> {
    match how {
        Comparator::Equal => return Ok(Doc::bool(same(left, right, budget, offset)?)),
        Comparator::NotEqual => return Ok(Doc::bool(!same(left, right, budget, offset)?)),
        _ => {}
    }
    // Order is for numbers; anything else gives null, as the specification says.
    let (Some(left), Some(right)) = (Num::in_doc(left, offset)?, Num::in_doc(right, offset)?) else { return Ok(Doc::null()) };
    let order = left.order(right);
    Ok(Doc::bool(match how {
        Comparator::LessThan => order.is_lt(),
        Comparator::LessThanEqual => order.is_le(),
        Comparator::GreaterThan => order.is_gt(),
        _ => order.is_ge(),
    }))
}

/// Whether two values are equal: numbers by value, objects whatever the order of their keys.
pub(super) fn same(left: &Doc, right: &Doc, budget: &mut Budget, offset: usize) -> Result<bool, Fault> {
    budget.spend(1, offset)?;
    match (&left.0, &right.0) {
        (Node::Null, Node::Null) => Ok(true),
        (Node::Bool(left), Node::Bool(right)) => Ok(left == right),
        (Node::Number(_) | Node::Long(_), Node::Number(_) | Node::Long(_)) => {
            let (left, right) = (Num::in_doc(left, offset)?, Num::in_doc(right, offset)?);
            Ok(left.zip(right).is_some_and(|(left, right)| left.order(right).is_eq()))
        }
        (Node::Text(left), Node::Text(right)) => {
            budget.spend(left.len() as u64 / 16, offset)?;
            Ok(left == right)
        }
        (Node::List(left), Node::List(right)) => {
            if left.items.len() != right.items.len() {
                return Ok(false);
            }
            for (left, right) in left.items.iter().zip(&right.items) {
                if !same(left, right, budget, offset)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        (Node::Object(left), Node::Object(right)) => {
            if left.entries.len() != right.entries.len() {
                return Ok(false);
            }
            for (key, value) in &left.entries {
                match right.get(key) {
                    Some(other) if same(value, other, budget, offset)? => {}
                    _ => return Ok(false),
                }
            }
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// Python's slice.
fn slice(items: &[Doc], start: Option<i32>, stop: Option<i32>, step: i32) -> Vec<Doc> {
    let len = items.len() as i64;
    let step = i64::from(step);
    let (low, high) = if step > 0 { (0, len) } else { (-1, len - 1) };
    let end = |given: Option<i32>, otherwise: i64| {
        given.map_or(otherwise, |at| {
            let at = i64::from(at);
            (if at < 0 { at + len } else { at }).clamp(low, high)
        })
    };
    let (from, to) = if step > 0 { (end(start, 0), end(stop, len)) } else { (end(start, len - 1), end(stop, -1)) };
    let mut picked = Vec::new();
    let mut at = from;
    while if step > 0 { at < to } else { at > to } {
        // Invariant: `at` lies in 0..len: both ends are clamped to it.
        picked.extend(usize::try_from(at).ok().and_then(|at| items.get(at)).cloned());
        at += step;
    }
    picked
}
