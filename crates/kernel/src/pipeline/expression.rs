//! Expressions: JMESPath, compiled and checked when stored, run on [`Doc`]s with a bound on what they visit.
//!
//! jmespath parses; the tree it gives is checked here (functions, arity) and run by `evaluate`, because its own
//! interpreter neither counts what it visits, nor refuses integers it cannot compare, nor keeps the order of keys.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use super::code::{Code, Compiler, Read, Step};
pub use super::doc::Doc;
use super::evaluate::{Budget, run};
use crate::limit::{EXPRESSION_BYTES, EXPRESSION_DEPTH, EXPRESSION_NODES};

/// What is wrong with an expression, or with what it met.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExpressionError {
    /// The expression's text; empty where a value was at fault.
    pub expression: String,
    /// Where in that text (in a template: in the whole string), in characters from 1.
    pub column: usize,
    /// What happened.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
}

impl std::error::Error for ExpressionError {}

impl fmt::Display for ExpressionError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.expression.is_empty() {
            write!(out, "`{}`, column {}: ", self.expression, self.column)?;
        }
        out.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(out, "; {hint}"),
            None => Ok(()),
        }
    }
}

/// What an expression can read: named roots.
#[derive(Clone, Default, Debug)]
pub struct Scope {
    roots: BTreeMap<String, Doc>,
}

impl Scope {
    /// Without any root.
    #[must_use]
    pub fn new() -> Scope {
        Scope::default()
    }

    /// Gives a root its value.
    pub fn set(&mut self, root: &str, value: Doc) {
        self.roots.insert(root.to_owned(), value);
    }

    /// The value of a root.
    #[must_use]
    pub fn get(&self, root: &str) -> Option<&Doc> {
        self.roots.get(root)
    }
}

/// A compiled expression. Cheap to clone.
#[derive(Clone)]
pub struct Expression {
    inner: Arc<Inner>,
}

struct Inner {
    text: String,
    code: Code,
    roots: Vec<Arc<str>>,
    reads: Vec<Read>,
}

impl fmt::Debug for Expression {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Expression({:?})", self.inner.text)
    }
}

impl Expression {
    /// Parses and checks. Errors, with their column: text over 1 KiB (before it is parsed), what is no JMESPath,
    /// unknown functions, wrong arity.
    pub fn compile(text: &str) -> Result<Expression, ExpressionError> {
        let wrong = |column: usize, message: String, hint: Option<String>| ExpressionError { expression: shortened(text), column, message, hint };
        if text.len() > EXPRESSION_BYTES {
            let message = format!("the expression has {} bytes; limit: expression_bytes = {EXPRESSION_BYTES}", text.len());
            return Err(wrong(1, message, Some("split it over two stages".to_owned())));
        }
        if text.trim().is_empty() {
            return Err(wrong(1, "the expression is empty".to_owned(), None));
        }
        let deep = |at: usize| {
            let message = format!("the expression nests too deep; limit: expression_depth = {EXPRESSION_DEPTH}");
            wrong(column_at(text, at), message, Some("split it over two stages".to_owned()))
        };
        // jmespath's parser calls itself, so the depth is bounded before and after it.
        if let Some(at) = super::code::too_deep_to_parse(text) {
            return Err(deep(at));
        }
        let ast = jmespath::parse(text).map_err(|error| {
            let reason = match &error.reason {
                jmespath::ErrorReason::Parse(reason) => super::code::parse_message(reason),
                jmespath::ErrorReason::Runtime(reason) => reason.to_string(),
            };
            wrong(column_at(text, error.offset), format!("this is not JMESPath: {reason}"), super::code::parse_hint(text))
        })?;
        if super::code::depth(&ast) > EXPRESSION_DEPTH {
            return Err(deep(0));
        }
        let mut compiler = Compiler::default();
        let code = compiler.compile(&ast, true).map_err(|fault| wrong(column_at(text, fault.offset), fault.message, fault.hint))?;
        let mut reads = compiler.reads;
        for read in &mut reads {
            for (_, at) in &mut read.path {
                *at = column_at(text, *at);
            }
        }
        let names: BTreeSet<&str> = reads.iter().filter_map(Read::root).collect();
        let roots = names.into_iter().map(Arc::from).collect();
        Ok(Expression { inner: Arc::new(Inner { text: text.to_owned(), code, roots, reads }) })
    }

    /// The roots it reads.
    #[must_use]
    pub fn roots(&self) -> BTreeSet<String> {
        self.inner.roots.iter().map(|root| root.to_string()).collect()
    }

    /// The paths it reads from the scope, each with the column of its parts; an empty path is the whole scope (`@`).
    #[must_use]
    pub fn reads(&self) -> &[Read] {
        &self.inner.reads
    }

    /// If it is a path of names and numbers alone: the path. Such an expression passes a part on as it is.
    #[must_use]
    pub fn path(&self) -> Option<Vec<Step>> {
        self.inner.code.path()
    }

    /// Its text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.inner.text
    }

    /// Runs it. A root that the scope lacks is null. Errors: a function's argument has the wrong type, an integer
    /// beyond 2⁵³ is compared or computed, more than 10 million nodes are visited.
    pub fn eval(&self, scope: &Scope) -> Result<Doc, ExpressionError> {
        let entries = self.inner.roots.iter().filter_map(|root| scope.get(root).map(|value| (root.clone(), value.clone())));
        self.search(&Doc::object(entries.collect()))
    }

    /// Runs it on a document instead of a scope.
    pub fn search(&self, document: &Doc) -> Result<Doc, ExpressionError> {
        let mut budget = Budget::new(EXPRESSION_NODES);
        run(&self.inner.code, document, &mut budget).map_err(|fault| ExpressionError {
            expression: self.inner.text.clone(),
            column: column_at(&self.inner.text, fault.offset),
            message: fault.message,
            hint: fault.hint,
        })
    }
}

/// The character (from 1) at a byte offset.
pub(super) fn column_at(text: &str, offset: usize) -> usize {
    1 + text.char_indices().take_while(|(at, _)| *at < offset).count()
}

pub(super) fn shortened(text: &str) -> String {
    if text.chars().count() <= 200 { text.to_owned() } else { text.chars().take(200).chain("…".chars()).collect() }
}
