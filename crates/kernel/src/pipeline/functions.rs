//! The functions of expressions: JMESPath's own 26, and ours: `add, sub, mul, div, mod, concat, split, replace, lower,
//! upper, trim, host, default, date`.
//!
//! Ours: `add` and `mul` take two or more numbers, `sub`, `div` and `mod` two; `mod` has the sign of its first argument.
//! Whole results are written as integers. `concat` joins lists into a list, or strings, numbers and booleans into a
//! text. `split(text, separator)` gives a list, `replace(text, from, to)` replaces every occurrence. `host(url)` is the
//! lower-case host of a URL without port and user, null where there is none. `default(value, other)` is `other` where
//! `value` is null. `date(time)` is the day `YYYY-MM-DD` in UTC of an RFC 3339 text or of milliseconds since 1970;
//! `date(time, format)` writes it by a strftime format such as `'%Y-%m'`, also in UTC.

use super::code::{Code, Fault};
use super::doc::{Doc, Node};
use super::evaluate::{Budget, run, same};
use super::number::Num;

/// What an argument is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ArgKind {
    Value,
    Expression,
}

/// How a function is called.
pub(super) struct Shape {
    pub(super) name: &'static str,
    pub(super) least: usize,
    pub(super) most: Option<usize>,
    /// Which argument is an expression with `&`.
    expression: Option<usize>,
    pub(super) usage: &'static str,
    function: Function,
}

impl Shape {
    pub(super) fn kind(&self, index: usize) -> ArgKind {
        if self.expression == Some(index) { ArgKind::Expression } else { ArgKind::Value }
    }

    pub(super) fn count(&self) -> String {
        let word = |count: usize| if count == 1 { "1 argument".to_owned() } else { format!("{count} arguments") };
        match self.most {
            Some(most) if most == self.least => word(most),
            Some(most) => format!("{} to {}", self.least, word(most)),
            None => format!("{} or more", word(self.least)),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Function {
    Abs,
    Add,
    Avg,
    Ceil,
    Concat,
    Contains,
    Date,
    Default,
    Div,
    EndsWith,
    Floor,
    Host,
    Join,
    Keys,
    Length,
    Lower,
    Map,
    Max,
    MaxBy,
    Merge,
    Min,
    MinBy,
    Mod,
    Mul,
    NotNull,
    Replace,
    Reverse,
    Sort,
    SortBy,
    Split,
    StartsWith,
    Sub,
    Sum,
    ToArray,
    ToNumber,
    ToString,
    Trim,
    Type,
    Upper,
    Values,
}

const fn shape(function: Function, name: &'static str, least: usize, most: Option<usize>, expression: Option<usize>, usage: &'static str) -> Shape {
    Shape { name, least, most, expression, usage, function }
}

/// By name.
const SHAPES: &[Shape] = &[
    shape(Function::Abs, "abs", 1, Some(1), None, "abs(number)"),
    shape(Function::Add, "add", 2, None, None, "add(number, number)"),
    shape(Function::Avg, "avg", 1, Some(1), None, "avg(numbers)"),
    shape(Function::Ceil, "ceil", 1, Some(1), None, "ceil(number)"),
    shape(Function::Concat, "concat", 1, None, None, "concat(list, list) or concat(text, text)"),
    shape(Function::Contains, "contains", 2, Some(2), None, "contains(list_or_text, value)"),
    shape(Function::Date, "date", 1, Some(2), None, "date(time) or date(time, '%Y-%m')"),
    shape(Function::Default, "default", 2, Some(2), None, "default(value, other)"),
    shape(Function::Div, "div", 2, Some(2), None, "div(number, number)"),
    shape(Function::EndsWith, "ends_with", 2, Some(2), None, "ends_with(text, suffix)"),
    shape(Function::Floor, "floor", 1, Some(1), None, "floor(number)"),
    shape(Function::Host, "host", 1, Some(1), None, "host(url)"),
    shape(Function::Join, "join", 2, Some(2), None, "join(glue, texts)"),
    shape(Function::Keys, "keys", 1, Some(1), None, "keys(object)"),
    shape(Function::Length, "length", 1, Some(1), None, "length(list_object_or_text)"),
    shape(Function::Lower, "lower", 1, Some(1), None, "lower(text)"),
    shape(Function::Map, "map", 2, Some(2), Some(0), "map(&field, list)"),
    shape(Function::Max, "max", 1, Some(1), None, "max(list)"),
    shape(Function::MaxBy, "max_by", 2, Some(2), Some(1), "max_by(list, &field)"),
    shape(Function::Merge, "merge", 1, None, None, "merge(object, object)"),
    shape(Function::Min, "min", 1, Some(1), None, "min(list)"),
    shape(Function::MinBy, "min_by", 2, Some(2), Some(1), "min_by(list, &field)"),
    shape(Function::Mod, "mod", 2, Some(2), None, "mod(number, number)"),
    shape(Function::Mul, "mul", 2, None, None, "mul(number, number)"),
    shape(Function::NotNull, "not_null", 1, None, None, "not_null(value, value)"),
    shape(Function::Replace, "replace", 3, Some(3), None, "replace(text, from, to)"),
    shape(Function::Reverse, "reverse", 1, Some(1), None, "reverse(list_or_text)"),
    shape(Function::Sort, "sort", 1, Some(1), None, "sort(list)"),
    shape(Function::SortBy, "sort_by", 2, Some(2), Some(1), "sort_by(list, &field)"),
    shape(Function::Split, "split", 2, Some(2), None, "split(text, separator)"),
    shape(Function::StartsWith, "starts_with", 2, Some(2), None, "starts_with(text, prefix)"),
    shape(Function::Sub, "sub", 2, Some(2), None, "sub(number, number)"),
    shape(Function::Sum, "sum", 1, Some(1), None, "sum(numbers)"),
    shape(Function::ToArray, "to_array", 1, Some(1), None, "to_array(value)"),
    shape(Function::ToNumber, "to_number", 1, Some(1), None, "to_number(value)"),
    shape(Function::ToString, "to_string", 1, Some(1), None, "to_string(value)"),
    shape(Function::Trim, "trim", 1, Some(1), None, "trim(text)"),
    shape(Function::Type, "type", 1, Some(1), None, "type(value)"),
    shape(Function::Upper, "upper", 1, Some(1), None, "upper(text)"),
    shape(Function::Values, "values", 1, Some(1), None, "values(object)"),
];

impl Function {
    pub(super) fn named(name: &str) -> Option<Function> {
        SHAPES.iter().find(|shape| shape.name == name).map(|shape| shape.function)
    }

    pub(super) fn shape(self) -> &'static Shape {
        // Invariant: the table has one row per function, in the order of the enum; a test holds it.
        &SHAPES[self as usize]
    }

    pub(super) fn names() -> impl Iterator<Item = &'static str> {
        SHAPES.iter().map(|shape| shape.name)
    }

    pub(super) fn nearest(name: &str) -> Option<&'static str> {
        crate::nearest::nearest(name, Function::names())
    }
}

/// The arguments of one call, with what is needed to complain about them.
struct Args<'a> {
    function: Function,
    code: &'a [Code],
    data: &'a Doc,
    offset: usize,
}

impl Args<'_> {
    fn value(&self, index: usize, budget: &mut Budget) -> Result<Doc, Fault> {
        // Invariant: arity was checked when the expression was compiled.
        self.code.get(index).map_or_else(|| Ok(Doc::null()), |code| run(code, self.data, budget))
    }

    fn wrong(&self, index: usize, wanted: &str, got: &Doc) -> Fault {
        let shape = self.function.shape();
        let message = format!("argument {} of `{}` must be {wanted}, it is {}", index + 1, shape.name, got.type_name());
        let fault = Fault::new(self.offset, message);
        if got.is_null() { fault.hint("a path that finds nothing is null: default(value, other) gives another value") } else { fault }
    }

    fn text(&self, index: usize, budget: &mut Budget) -> Result<std::sync::Arc<str>, Fault> {
        let value = self.value(index, budget)?;
        match &value.0 {
            Node::Text(text) => {
                budget.spend(text.len() as u64 / 16, self.offset)?;
                Ok(text.clone())
            }
            _ => Err(self.wrong(index, "a string", &value)),
        }
    }

    fn number(&self, index: usize, budget: &mut Budget) -> Result<Num, Fault> {
        let value = self.value(index, budget)?;
        Num::in_doc(&value, self.offset)?.ok_or_else(|| self.wrong(index, "a number", &value))
    }

    fn list(&self, index: usize, budget: &mut Budget) -> Result<Doc, Fault> {
        let value = self.value(index, budget)?;
        match value.items() {
            Some(items) => {
                budget.spend(items.len() as u64, self.offset)?;
                Ok(value)
            }
            None => Err(self.wrong(index, "an array", &value)),
        }
    }

    fn made(&self, value: Doc, budget: &mut Budget) -> Result<Doc, Fault> {
        budget.spend(
            match &value.0 {
                Node::Text(text) => text.len() as u64 / 16,
                Node::List(list) => list.items.len() as u64,
                _ => 1,
            },
            self.offset,
        )?;
        budget.bounded(value, self.offset)
    }
}

/// Calls a function.
pub(super) fn call(function: Function, code: &[Code], data: &Doc, budget: &mut Budget, offset: usize) -> Result<Doc, Fault> {
    let args = Args { function, code, data, offset };
    match function {
        Function::Abs | Function::Ceil | Function::Floor => {
            let value = args.number(0, budget)?;
            match (function, value) {
                (Function::Abs, Num::Int(value)) => Num::Int(value.abs()),
                (Function::Abs, Num::Float(value)) => Num::Float(value.abs()),
                (Function::Ceil, Num::Float(value)) => Num::Float(value.ceil()),
                (_, Num::Float(value)) => Num::Float(value.floor()),
                (_, whole) => whole,
            }
            .doc(offset)
        }
        Function::Add | Function::Mul | Function::Sub | Function::Div | Function::Mod => arithmetic(&args, budget),
        Function::Sum | Function::Avg => total(&args, budget),
        Function::Concat => concat(&args, budget),
        Function::Contains => contains(&args, budget),
        Function::Date => date(&args, budget),
        Function::Default => {
            let value = args.value(0, budget)?;
            if value.is_null() { args.value(1, budget) } else { Ok(value) }
        }
        Function::EndsWith => Ok(Doc::bool(args.text(0, budget)?.ends_with(&*args.text(1, budget)?))),
        Function::StartsWith => Ok(Doc::bool(args.text(0, budget)?.starts_with(&*args.text(1, budget)?))),
        Function::Host => Ok(host(&args.text(0, budget)?).map_or_else(Doc::null, |host| Doc::string(&host))),
        Function::Join => join(&args, budget),
        Function::Keys | Function::Values => {
            let value = args.value(0, budget)?;
            let Node::Object(object) = &value.0 else { return Err(args.wrong(0, "an object", &value)) };
            let part = |(key, value): &(std::sync::Arc<str>, Doc)| if function == Function::Keys { Doc::string(key) } else { value.clone() };
            args.made(Doc::list(object.entries.iter().map(part).collect()), budget)
        }
        Function::Length => {
            let value = args.value(0, budget)?;
            let length = match &value.0 {
                Node::List(list) => list.items.len(),
                Node::Object(object) => object.entries.len(),
                Node::Text(text) => text.chars().count(),
                _ => return Err(args.wrong(0, "an array, an object or a string", &value)),
            };
            Ok(Doc::number(length.into()))
        }
        Function::Lower => args.made(Doc::string(&args.text(0, budget)?.to_lowercase()), budget),
        Function::Upper => args.made(Doc::string(&args.text(0, budget)?.to_uppercase()), budget),
        Function::Trim => Ok(Doc::string(args.text(0, budget)?.trim())),
        Function::Map => {
            let list = args.list(1, budget)?;
            let items = list.items().unwrap_or_default().iter().map(|item| run(&code[0], item, budget)).collect::<Result<Vec<_>, _>>()?;
            args.made(Doc::list(items), budget)
        }
        Function::Max | Function::Min | Function::Sort => {
            let list = args.list(0, budget)?;
            let items = list.items().unwrap_or_default();
            ordered(&args, items, items.to_vec())
        }
        Function::MaxBy | Function::MinBy | Function::SortBy => {
            let list = args.list(0, budget)?;
            let items = list.items().unwrap_or_default();
            let keys = items.iter().map(|item| run(&code[1], item, budget)).collect::<Result<Vec<_>, _>>()?;
            ordered(&args, items, keys)
        }
        Function::Merge => {
            let mut entries = Vec::new();
            for index in 0..code.len() {
                let value = args.value(index, budget)?;
                let Node::Object(object) = &value.0 else { return Err(args.wrong(index, "an object", &value)) };
                budget.spend(object.entries.len() as u64, offset)?;
                entries.extend_from_slice(&object.entries);
            }
            args.made(Doc::object(entries), budget)
        }
        Function::NotNull => {
            for index in 0..code.len() {
                let value = args.value(index, budget)?;
                if !value.is_null() {
                    return Ok(value);
                }
            }
            Ok(Doc::null())
        }
        Function::Replace => {
            let (text, from, to) = (args.text(0, budget)?, args.text(1, budget)?, args.text(2, budget)?);
            if from.is_empty() {
                return Err(Fault::new(offset, "argument 2 of `replace` is an empty string"));
            }
            // Counted before it is made: each occurrence may grow the text.
            let grown = text.matches(&*from).count() as u64 * to.len() as u64 + text.len() as u64;
            budget.spend(grown / 16, offset)?;
            Ok(Doc::string(&text.replace(&*from, &to)))
        }
        Function::Reverse => {
            let value = args.value(0, budget)?;
            match &value.0 {
                Node::List(list) => args.made(Doc::list(list.items.iter().rev().cloned().collect()), budget),
                Node::Text(text) => args.made(Doc::string(&text.chars().rev().collect::<String>()), budget),
                _ => Err(args.wrong(0, "an array or a string", &value)),
            }
        }
        Function::Split => {
            let (text, separator) = (args.text(0, budget)?, args.text(1, budget)?);
            if separator.is_empty() {
                return Err(Fault::new(offset, "argument 2 of `split` is an empty string"));
            }
            args.made(Doc::list(text.split(&*separator).map(Doc::string).collect()), budget)
        }
        Function::ToArray => {
            let value = args.value(0, budget)?;
            if value.items().is_some() { Ok(value) } else { Ok(Doc::list(vec![value])) }
        }
        Function::ToNumber => {
            let value = args.value(0, budget)?;
            Ok(match &value.0 {
                Node::Number(_) | Node::Long(_) => value,
                Node::Text(text) => Doc::parse(text.as_bytes()).ok().filter(|value| value.type_name() == "number").unwrap_or_default(),
                _ => Doc::null(),
            })
        }
        Function::ToString => {
            let value = args.value(0, budget)?;
            if value.as_str().is_some() {
                return Ok(value);
            }
            budget.spend(value.weight(), offset)?;
            args.made(Doc::string(&value.text()), budget)
        }
        Function::Type => Ok(Doc::string(args.value(0, budget)?.type_name())),
    }
}

fn arithmetic(args: &Args<'_>, budget: &mut Budget) -> Result<Doc, Fault> {
    let mut result = args.number(0, budget)?;
    for index in 1..args.code.len() {
        let next = args.number(index, budget)?;
        let by_zero = next.float() == 0.0;
        result = match args.function {
            Function::Add => result.combine(next, i64::checked_add, |a, b| a + b),
            Function::Sub => result.combine(next, i64::checked_sub, |a, b| a - b),
            Function::Mul => result.combine(next, |a, b| Some(a.saturating_mul(b)), |a, b| a * b),
            _ if by_zero => {
                return Err(Fault::new(args.offset, format!("argument 2 of `{}` is 0", args.function.shape().name)));
            }
            Function::Div => result.combine(next, |a, b| if a % b == 0 { Some(a / b) } else { None }, |a, b| a / b),
            _ => result.combine(next, i64::checked_rem, |a, b| a % b),
        };
        // Between steps too, so that no later step hides that one was not exact.
        result.doc(args.offset)?;
    }
    result.doc(args.offset)
}

fn total(args: &Args<'_>, budget: &mut Budget) -> Result<Doc, Fault> {
    let list = args.list(0, budget)?;
    let items = list.items().unwrap_or_default();
    let mut sum = Num::Int(0);
    for (index, item) in items.iter().enumerate() {
        let Some(number) = Num::in_doc(item, args.offset)? else {
            let message = format!("argument 1 of `{}` must be an array of numbers, item {index} is {}", args.function.shape().name, item.type_name());
            return Err(Fault::new(args.offset, message));
        };
        sum = sum.combine(number, i64::checked_add, |a, b| a + b);
        sum.doc(args.offset)?;
    }
    match args.function {
        Function::Avg if items.is_empty() => Ok(Doc::null()),
        Function::Avg => Num::Float(sum.float() / items.len() as f64).doc(args.offset),
        _ => sum.doc(args.offset),
    }
}

fn concat(args: &Args<'_>, budget: &mut Budget) -> Result<Doc, Fault> {
    let values = (0..args.code.len()).map(|index| args.value(index, budget)).collect::<Result<Vec<_>, _>>()?;
    if values.first().is_some_and(|value| value.items().is_some()) {
        let mut joined = Vec::new();
        for (index, value) in values.iter().enumerate() {
            let Some(items) = value.items() else { return Err(args.wrong(index, "an array like argument 1", value)) };
            budget.spend(items.len() as u64, args.offset)?;
            joined.extend_from_slice(items);
        }
        return args.made(Doc::list(joined), budget);
    }
    let mut text = String::new();
    for (index, value) in values.iter().enumerate() {
        match &value.0 {
            Node::Text(_) | Node::Number(_) | Node::Long(_) | Node::Bool(_) => text.push_str(&value.text()),
            _ => return Err(args.wrong(index, "a string, a number or a boolean (or all of them arrays)", value)),
        }
        budget.spend(value.weight(), args.offset)?;
    }
    Ok(Doc::string(&text))
}

fn contains(args: &Args<'_>, budget: &mut Budget) -> Result<Doc, Fault> {
    let (subject, wanted) = (args.value(0, budget)?, args.value(1, budget)?);
    match &subject.0 {
        Node::List(list) => {
            for item in &list.items {
                if same(item, &wanted, budget, args.offset)? {
                    return Ok(Doc::bool(true));
                }
            }
            Ok(Doc::bool(false))
        }
        Node::Text(text) => {
            budget.spend(text.len() as u64 / 16, args.offset)?;
            Ok(Doc::bool(wanted.as_str().is_some_and(|wanted| text.contains(wanted))))
        }
        _ => Err(args.wrong(0, "an array or a string", &subject)),
    }
}

fn join(args: &Args<'_>, budget: &mut Budget) -> Result<Doc, Fault> {
    let glue = args.text(0, budget)?;
    let list = args.list(1, budget)?;
    let mut text = String::new();
    for (index, item) in list.items().unwrap_or_default().iter().enumerate() {
        let Some(part) = item.as_str() else {
            return Err(Fault::new(args.offset, format!("argument 2 of `join` must be an array of strings, item {index} is {}", item.type_name())));
        };
        if index > 0 {
            text.push_str(&glue);
        }
        text.push_str(part);
        budget.spend((glue.len() + part.len()) as u64 / 16, args.offset)?;
    }
    Ok(Doc::string(&text))
}

/// `sort`, `max`, `min` and their `_by`: `keys` are all strings or all numbers.
fn ordered(args: &Args<'_>, items: &[Doc], keys: Vec<Doc>) -> Result<Doc, Fault> {
    let name = args.function.shape().name;
    let mixed = |index: usize, key: &Doc| {
        Fault::new(args.offset, format!("`{name}` orders strings or numbers, all of one type: for item {index} it has {}", key.type_name()))
    };
    let mut numbers = Vec::new();
    for (index, key) in keys.iter().enumerate() {
        match Num::in_doc(key, args.offset)? {
            Some(number) if numbers.len() == index => numbers.push(number),
            None if numbers.is_empty() && key.as_str().is_some() => {}
            _ => return Err(mixed(index, key)),
        }
    }
    let order = |a: &usize, b: &usize| match (numbers.get(*a), numbers.get(*b)) {
        (Some(a), Some(b)) => a.order(*b),
        _ => keys[*a].as_str().cmp(&keys[*b].as_str()),
    };
    let mut places: Vec<usize> = (0..items.len()).collect();
    let first_of = |place: Option<usize>| Ok(place.map_or_else(Doc::null, |place| items[place].clone()));
    match args.function {
        // The first of equals.
        Function::Max | Function::MaxBy => first_of(places.into_iter().reduce(|best, next| if order(&next, &best).is_gt() { next } else { best })),
        Function::Min | Function::MinBy => first_of(places.into_iter().reduce(|best, next| if order(&next, &best).is_lt() { next } else { best })),
        _ => {
            places.sort_by(order);
            Ok(Doc::list(places.into_iter().map(|place| items[place].clone()).collect()))
        }
    }
}

/// The lower-case host of a URL.
/// The host of a URL, in lower case, without its port.
pub(crate) fn host(url: &str) -> Option<String> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#', '\\']).next()?;
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next()?,
        None => authority.split(':').next()?,
    };
    if host.is_empty() { None } else { Some(host.to_lowercase()) }
}

fn date(args: &Args<'_>, budget: &mut Budget) -> Result<Doc, Fault> {
    let value = args.value(0, budget)?;
    let wanted = "an RFC 3339 time such as '2026-01-31T12:00:00Z', or milliseconds since 1970";
    let time = match &value.0 {
        Node::Text(text) => text.parse::<jiff::Timestamp>().map_err(|_| {
            Fault::new(args.offset, format!("argument 1 of `date` is not a time: `{}`", text.chars().take(40).collect::<String>()))
                .hint(format!("give {wanted}"))
        })?,
        Node::Number(number) => number
            .as_i64()
            .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
            .ok_or_else(|| Fault::new(args.offset, format!("argument 1 of `date` is not a time: {number}")).hint(format!("give {wanted}")))?,
        Node::Long(digits) => return Err(Fault::new(args.offset, format!("argument 1 of `date` is not a time: {digits}")).hint(format!("give {wanted}"))),
        _ => return Err(args.wrong(0, wanted, &value)),
    };
    let format = if args.code.len() > 1 { args.text(1, budget)? } else { "%Y-%m-%d".into() };
    // A directive can be padded to any width; digits after `%` are refused so that a format cannot grow without bound.
    let padded = format.split('%').skip(1).any(|part| part.trim_start_matches(['-', '_', '^', '#']).starts_with(|c: char| c.is_ascii_digit()));
    let bad = || Fault::new(args.offset, format!("argument 2 of `date` is not a format: `{format}`")).hint("write directives such as '%Y-%m-%d %H:%M'");
    if padded {
        return Err(bad());
    }
    jiff::fmt::strtime::format(&*format, time).map(|text| Doc::string(&text)).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::SHAPES;

    #[test]
    fn table_of_functions_is_in_the_order_of_the_enum_and_of_names() {
        for (index, shape) in SHAPES.iter().enumerate() {
            assert_eq!(shape.function as usize, index, "{}", shape.name);
            assert_eq!(shape.function.shape().name, shape.name);
        }
        assert!(SHAPES.is_sorted_by_key(|shape| shape.name));
    }
}
