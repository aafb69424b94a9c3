//! The checked form of an expression, made from jmespath's syntax tree.

use jmespath::ast::{Ast, Comparator};
use jmespath::{Rcvar, Variable};
use std::sync::Arc;

use super::doc::Doc;
use super::functions::{ArgKind, Function};
use crate::limit::EXPRESSION_DEPTH;

/// What is wrong, at which byte of the text.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) offset: usize,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl Fault {
    pub(super) fn new(offset: usize, message: impl Into<String>) -> Fault {
        Fault { offset, message: message.into(), hint: None }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Fault {
        self.hint = Some(hint.into());
        self
    }
}

/// A path from a root, as far as it is made of names; with columns.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Read {
    /// Names and the column of each (from 1). Empty: the whole scope.
    pub path: Vec<(String, usize)>,
    /// A projection that drops nulls runs over it.
    pub projected: bool,
}

impl Read {
    /// Its root; none if the whole scope is read.
    #[must_use]
    pub fn root(&self) -> Option<&str> {
        self.path.first().map(|(name, _)| name.as_str())
    }
}

/// One step of a plain path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// An entry of an object.
    Field(Arc<str>),
    /// An item of a list, from the end where negative.
    Index(i64),
}

pub(super) enum Code {
    Current,
    Literal(Doc),
    Path(Vec<Step>),
    Then(Box<Code>, Box<Code>),
    Or(Box<Code>, Box<Code>),
    And(Box<Code>, Box<Code>),
    Not(Box<Code>),
    If(Box<Code>, Box<Code>),
    Compare { offset: usize, how: Comparator, left: Box<Code>, right: Box<Code> },
    Values(Box<Code>),
    Flatten(Box<Code>),
    Project(Box<Code>, Box<Code>),
    Slice { offset: usize, start: Option<i32>, stop: Option<i32>, step: i32 },
    List(Vec<Code>),
    Object(Vec<(Arc<str>, Code)>),
    Call { offset: usize, function: Function, args: Vec<Code> },
}

impl Code {
    pub(super) fn path(&self) -> Option<Vec<Step>> {
        match self {
            Code::Path(steps) => Some(steps.clone()),
            _ => None,
        }
    }
}

/// Turns a syntax tree into [`Code`], and notes what it reads from the scope.
#[derive(Default)]
pub(super) struct Compiler {
    pub(super) reads: Vec<Read>,
}

impl Compiler {
    /// `in_scope`: names are roots here, not fields of some value.
    pub(super) fn compile(&mut self, ast: &Ast, in_scope: bool) -> Result<Code, Fault> {
        let read = if in_scope { names(ast) } else { None };
        let noted = read.is_some();
        self.reads.extend(read);
        self.node(ast, in_scope, noted)
    }

    /// A part of `ast`, whose reads may be noted already.
    fn part(&mut self, ast: &Ast, in_scope: bool, noted: bool) -> Result<Box<Code>, Fault> {
        if noted { self.node(ast, in_scope, true) } else { self.compile(ast, in_scope) }.map(Box::new)
    }

    fn boxed(&mut self, ast: &Ast, in_scope: bool) -> Result<Box<Code>, Fault> {
        self.compile(ast, in_scope).map(Box::new)
    }

    /// `noted`: `ast` is a chain of names and is already among the reads, as a whole.
    fn node(&mut self, ast: &Ast, in_scope: bool, noted: bool) -> Result<Code, Fault> {
        Ok(match ast {
            Ast::Identity { .. } => Code::Current,
            Ast::Literal { value, .. } => Code::Literal(from_variable(value)),
            Ast::Field { name, .. } => Code::Path(vec![Step::Field(Arc::from(name.as_str()))]),
            Ast::Index { idx, .. } => {
                self.whole(in_scope);
                Code::Path(vec![Step::Index(i64::from(*idx))])
            }
            Ast::Subexpr { lhs, rhs, .. } => self.then(lhs, rhs, in_scope, noted)?,
            Ast::Or { lhs, rhs, .. } => Code::Or(self.boxed(lhs, in_scope)?, self.boxed(rhs, in_scope)?),
            Ast::And { lhs, rhs, .. } => Code::And(self.boxed(lhs, in_scope)?, self.boxed(rhs, in_scope)?),
            Ast::Not { node, .. } => Code::Not(self.boxed(node, in_scope)?),
            Ast::Condition { predicate, then, .. } => Code::If(self.boxed(predicate, in_scope)?, self.boxed(then, in_scope)?),
            Ast::Comparison { offset, comparator, lhs, rhs } => {
                Code::Compare { offset: *offset, how: comparator.clone(), left: self.boxed(lhs, in_scope)?, right: self.boxed(rhs, in_scope)? }
            }
            Ast::ObjectValues { node, .. } => Code::Values(self.part(node, in_scope, noted)?),
            Ast::Flatten { node, .. } => Code::Flatten(self.part(node, in_scope, noted)?),
            Ast::Projection { lhs, rhs, .. } => Code::Project(self.part(lhs, in_scope, noted)?, self.boxed(rhs, false)?),
            Ast::Slice { offset, start, stop, step } => {
                self.whole(in_scope);
                if *step == 0 {
                    return Err(Fault::new(*offset, "the step of a slice is 0").hint("write a step such as 1 or -1"));
                }
                Code::Slice { offset: *offset, start: *start, stop: *stop, step: *step }
            }
            Ast::MultiList { elements, .. } => Code::List(elements.iter().map(|part| self.compile(part, in_scope)).collect::<Result<_, _>>()?),
            Ast::MultiHash { elements, .. } => {
                let mut parts = Vec::with_capacity(elements.len());
                for pair in elements {
                    parts.push((Arc::from(pair.key.as_str()), self.compile(&pair.value, in_scope)?));
                }
                Code::Object(parts)
            }
            Ast::Function { offset, name, args } => self.call(*offset, name, args, in_scope)?,
            Ast::Expref { offset, .. } => {
                return Err(Fault::new(*offset, "`&…` stands only where a function takes an expression").hint("as in map(&name, list) or sort_by(list, &name)"));
            }
        })
    }

    fn whole(&mut self, in_scope: bool) {
        if in_scope {
            self.reads.push(Read { path: Vec::new(), projected: false });
        }
    }

    fn then(&mut self, lhs: &Ast, rhs: &Ast, in_scope: bool, noted: bool) -> Result<Code, Fault> {
        if matches!(lhs, Ast::Identity { .. }) {
            // After `@.` we are where we were.
            return if noted { self.node(rhs, in_scope, true) } else { self.compile(rhs, in_scope) };
        }
        let left = if noted { self.node(lhs, in_scope, true)? } else { self.compile(lhs, in_scope)? };
        let right = self.node(rhs, false, false)?;
        Ok(match (left, right) {
            (left, Code::Current) => left,
            (Code::Path(mut steps), Code::Path(more)) => {
                steps.extend(more);
                Code::Path(steps)
            }
            (left, right) => Code::Then(Box::new(left), Box::new(right)),
        })
    }

    fn call(&mut self, offset: usize, name: &str, args: &[Ast], in_scope: bool) -> Result<Code, Fault> {
        // jmespath points at the parenthesis.
        let at = offset.saturating_sub(name.len());
        let Some(function) = Function::named(name) else {
            let fault = Fault::new(at, format!("there is no function `{name}`"));
            return Err(match Function::nearest(name) {
                Some(near) => fault.hint(format!("did you mean `{near}`?")),
                None => fault.hint(format!("functions are {}", Function::names().collect::<Vec<_>>().join(", "))),
            });
        };
        let shape = function.shape();
        if args.len() < shape.least || shape.most.is_some_and(|most| args.len() > most) {
            let message = format!("`{name}` takes {}, not {}", shape.count(), args.len());
            return Err(Fault::new(at, message).hint(format!("write {}", shape.usage)));
        }
        let mut code = Vec::with_capacity(args.len());
        for (index, arg) in args.iter().enumerate() {
            match (shape.kind(index), arg) {
                (ArgKind::Expression, Ast::Expref { ast, .. }) => code.push(self.compile(ast, false)?),
                (ArgKind::Expression, _) => {
                    let message = format!("argument {} of `{name}` must be an expression with `&` before it", index + 1);
                    return Err(Fault::new(at, message).hint(format!("write {}", shape.usage)));
                }
                (ArgKind::Value, Ast::Expref { .. }) => {
                    let message = format!("argument {} of `{name}` is a value, `&` does not belong there", index + 1);
                    return Err(Fault::new(at, message).hint(format!("write {}", shape.usage)));
                }
                (ArgKind::Value, _) => code.push(self.compile(arg, in_scope)?),
            }
        }
        Ok(Code::Call { offset: at, function, args: code })
    }
}

/// The names that a path from the scope begins with: `stages.a.output` of `stages.a.output[0].x`; none of `@`;
/// nothing of what does not begin with a name.
fn names(ast: &Ast) -> Option<Read> {
    let mut steps = Vec::new();
    spine(ast, &mut steps);
    let at_scope = steps.iter().take_while(|step| matches!(step, Ast::Identity { .. })).count();
    let path: Vec<(String, usize)> = steps[at_scope..]
        .iter()
        .map_while(|step| match step {
            Ast::Field { name, offset } => Some((name.clone(), *offset)),
            _ => None,
        })
        .collect();
    if path.is_empty() && at_scope < steps.len() {
        return None;
    }
    let next = steps.get(at_scope + path.len());
    let projected = matches!(next, Some(Ast::Projection { .. } | Ast::Flatten { .. } | Ast::ObjectValues { .. }));
    Some(Read { path, projected })
}

/// The steps of a path in their order, however the parser nested them. A projection stands behind what it runs over.
fn spine<'a>(ast: &'a Ast, steps: &mut Vec<&'a Ast>) {
    match ast {
        Ast::Subexpr { lhs, rhs, .. } => {
            spine(lhs, steps);
            spine(rhs, steps);
        }
        Ast::Projection { lhs: inner, .. } | Ast::Flatten { node: inner, .. } | Ast::ObjectValues { node: inner, .. } => {
            spine(inner, steps);
            steps.push(ast);
        }
        other => steps.push(other),
    }
}

pub(super) fn from_variable(value: &Rcvar) -> Doc {
    match &**value {
        Variable::Null => Doc::null(),
        Variable::Bool(value) => Doc::bool(*value),
        Variable::Number(number) => Doc::number(number.clone()),
        Variable::String(text) => Doc::string(text),
        Variable::Array(items) => Doc::list(items.iter().map(from_variable).collect()),
        Variable::Object(entries) => Doc::object(entries.iter().map(|(key, value)| (Arc::from(key.as_str()), from_variable(value))).collect()),
        // Invariant: an expression reference is made by running jmespath's interpreter, which is not run here.
        Variable::Expref(_) => Doc::null(),
    }
}

/// jmespath's reason without its token names.
pub(super) fn parse_message(reason: &str) -> String {
    let (what, found) = reason.split_once(" -- found ").unwrap_or((reason, ""));
    let what = match what {
        "Unexpected nud token" => "something is missing here or does not belong here",
        "Unexpected led token" => "this does not belong here",
        other => other,
    };
    let found = match found {
        "" => return what.to_owned(),
        "Eof" => "the end of the expression".to_owned(),
        other => match other.split_once('(') {
            Some(("Number" | "Identifier" | "QuotedIdentifier", value)) => format!("`{}`", value.trim_end_matches(')').trim_matches('"')),
            Some(("Literal", _)) => "a literal".to_owned(),
            _ => symbol(other).to_owned(),
        },
    };
    format!("{what} (found {found})")
}

fn symbol(token: &str) -> &str {
    match token {
        "Dot" => "`.`",
        "Star" => "`*`",
        "Flatten" => "`[]`",
        "And" => "`&&`",
        "Or" => "`||`",
        "Pipe" => "`|`",
        "Filter" => "`[?`",
        "Lbracket" => "`[`",
        "Rbracket" => "`]`",
        "Comma" => "`,`",
        "Colon" => "`:`",
        "Not" => "`!`",
        "Ne" => "`!=`",
        "Eq" => "`==`",
        "Gt" => "`>`",
        "Gte" => "`>=`",
        "Lt" => "`<`",
        "Lte" => "`<=`",
        "At" => "`@`",
        "Ampersand" => "`&`",
        "Lparen" => "`(`",
        "Rparen" => "`)`",
        "Lbrace" => "`{`",
        "Rbrace" => "`}`",
        other => other,
    }
}

/// Helps with what people write instead of JMESPath.
pub(super) fn parse_hint(text: &str) -> Option<String> {
    let bare_number = text.split(['<', '>', '=']).skip(1).any(|part| part.trim_start().starts_with(|c: char| c.is_ascii_digit()));
    if bare_number {
        return Some("numbers are written in backticks: length(list) > `0`".to_owned());
    }
    if text.contains("${") {
        return Some("this place takes a bare expression: leave out `${` and `}`".to_owned());
    }
    if text.contains(" and ") || text.contains(" or ") || text.contains(" not ") {
        return Some("write && for and, || for or, ! for not".to_owned());
    }
    for (open, close) in [('[', ']'), ('(', ')'), ('{', '}')] {
        if text.matches(open).count() > text.matches(close).count() {
            return Some(format!("a `{open}` is not closed"));
        }
    }
    None
}

/// The byte at which the parser would have called itself too often: it does for each open bracket and, until the
/// end, for each `*`, slice, filter, `!` and `&`.
pub(super) fn too_deep_to_parse(text: &str) -> Option<usize> {
    let mut open = Vec::new();
    let mut kept = 0;
    let mut quote: Option<char> = None;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match quote {
            Some(_) if c == '\\' => {
                chars.next();
            }
            Some(end) if c == end => quote = None,
            Some(_) => {}
            None => match c {
                '\'' | '"' | '`' => quote = Some(c),
                '(' | '[' | '{' => open.push(c),
                ')' | ']' | '}' => {
                    open.pop();
                }
                '*' | '!' | '&' | '?' => kept += 1,
                ':' if open.last() == Some(&'[') => kept += 1,
                _ => {}
            },
        }
        if open.len() + kept > EXPRESSION_DEPTH {
            return Some(at);
        }
    }
    None
}

/// The height of a syntax tree.
pub(super) fn depth(ast: &Ast) -> usize {
    1 + match ast {
        Ast::Identity { .. } | Ast::Field { .. } | Ast::Index { .. } | Ast::Literal { .. } | Ast::Slice { .. } => 0,
        Ast::Not { node, .. } | Ast::ObjectValues { node, .. } | Ast::Flatten { node, .. } | Ast::Expref { ast: node, .. } => depth(node),
        Ast::Subexpr { lhs, rhs, .. }
        | Ast::Or { lhs, rhs, .. }
        | Ast::And { lhs, rhs, .. }
        | Ast::Comparison { lhs, rhs, .. }
        | Ast::Projection { lhs, rhs, .. }
        | Ast::Condition { predicate: lhs, then: rhs, .. } => depth(lhs).max(depth(rhs)),
        Ast::MultiList { elements, .. } => elements.iter().map(depth).max().unwrap_or(0),
        Ast::MultiHash { elements, .. } => elements.iter().map(|pair| depth(&pair.value)).max().unwrap_or(0),
        Ast::Function { args, .. } => args.iter().map(depth).max().unwrap_or(0),
    }
}
