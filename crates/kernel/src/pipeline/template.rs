//! Templates: JSON values whose strings may hold `${ … }`.

use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use super::doc::Doc;
use super::expression::{Expression, ExpressionError, Scope, shortened};

/// A compiled template. Cheap to clone.
///
/// A string that is one `${ … }` gives the expression's JSON value; inside a longer string the value is inserted as
/// text. `$${` writes `${`. Keys of objects are literal.
#[derive(Clone)]
pub struct Template {
    root: Arc<Part>,
}

pub(super) enum Part {
    Literal(Doc),
    Whole(Expression),
    Text { source: String, pieces: Vec<Piece> },
    List(Vec<Part>),
    Object(Vec<(Arc<str>, Part)>),
}

pub(super) enum Piece {
    Literal(String),
    /// An expression, and the column of its text in the string.
    Insert(Expression, usize),
}

impl fmt::Debug for Template {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Template(roots: {:?})", self.roots())
    }
}

impl Template {
    /// Compiles every string in it. Errors: the first that is wrong, its column counted in the whole string.
    pub fn compile(value: &Value) -> Result<Template, ExpressionError> {
        Ok(Template { root: Arc::new(compile(value)?) })
    }

    /// The roots it reads.
    #[must_use]
    pub fn roots(&self) -> BTreeSet<String> {
        self.expressions().iter().flat_map(Expression::roots).collect()
    }

    /// Its expressions.
    #[must_use]
    pub fn expressions(&self) -> Vec<Expression> {
        let mut found = Vec::new();
        self.root.collect(&mut found);
        found
    }

    /// If it is one `${ … }` and nothing else: that expression.
    #[must_use]
    pub fn whole(&self) -> Option<&Expression> {
        match &*self.root {
            Part::Whole(expression) => Some(expression),
            _ => None,
        }
    }

    /// Fills it in. Errors: those of its expressions, and null inside a longer text, which names the path.
    pub fn eval(&self, scope: &Scope) -> Result<Value, ExpressionError> {
        self.eval_doc(scope).map(|value| value.to_value())
    }

    /// The same without a copy of what is only passed on.
    pub fn eval_doc(&self, scope: &Scope) -> Result<Doc, ExpressionError> {
        self.root.eval(scope)
    }
}

fn compile(value: &Value) -> Result<Part, ExpressionError> {
    let part = match value {
        Value::String(text) => return compile_text(text),
        Value::Array(items) => Part::List(items.iter().map(compile).collect::<Result<_, _>>()?),
        Value::Object(entries) => {
            let mut parts = Vec::with_capacity(entries.len());
            for (key, value) in entries {
                parts.push((Arc::from(key.as_str()), compile(value)?));
            }
            Part::Object(parts)
        }
        _ => Part::Literal(Doc::from_value(value)),
    };
    Ok(part.folded())
}

/// Compiles one string. Columns of errors count in it.
pub(super) fn compile_text(text: &str) -> Result<Part, ExpressionError> {
    let pieces = pieces(text)?;
    Ok(match pieces.as_slice() {
        [] => Part::Literal(Doc::string("")),
        [Piece::Literal(literal)] => Part::Literal(Doc::string(literal)),
        [Piece::Insert(expression, _)] => Part::Whole(expression.clone()),
        _ => Part::Text { source: shortened(text), pieces },
    })
}

/// Splits a string into literal text and expressions.
pub(super) fn pieces(text: &str) -> Result<Vec<Piece>, ExpressionError> {
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    let column = |rest: &str| 1 + text[..text.len() - rest.len()].chars().count();
    while let Some(at) = rest.find('$') {
        literal.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("$${") {
            literal.push_str("${");
            rest = after;
        } else if let Some(body) = rest.strip_prefix("${") {
            let Some(end) = closing_brace(body) else {
                return Err(ExpressionError {
                    expression: shortened(text),
                    column: column(rest),
                    message: "`${` has no `}` that closes it".to_owned(),
                    hint: Some("close it, or write `$${` for the two characters".to_owned()),
                });
            };
            let inner = &body[..end];
            // Spaces inside the braces belong to nobody, but count for the column.
            let start = column(body) + inner.chars().take_while(|c| c.is_whitespace()).count();
            let expression = Expression::compile(inner.trim()).map_err(|error| ExpressionError { column: error.column + start - 1, ..error })?;
            if !literal.is_empty() {
                pieces.push(Piece::Literal(std::mem::take(&mut literal)));
            }
            pieces.push(Piece::Insert(expression, start));
            rest = &body[end + 1..];
        } else {
            literal.push('$');
            rest = &rest[1..];
        }
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal));
    }
    Ok(pieces)
}

/// Where the `}` is that balances an opened brace; braces inside JMESPath quotes and backticks do not count.
fn closing_brace(body: &str) -> Option<usize> {
    let mut depth = 0usize;
    let mut quote: Option<char> = None;
    let mut chars = body.char_indices();
    while let Some((at, c)) = chars.next() {
        match quote {
            Some(_) if c == '\\' => {
                chars.next();
            }
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None => match c {
                '\'' | '"' | '`' => quote = Some(c),
                '{' => depth += 1,
                '}' if depth == 0 => return Some(at),
                '}' => depth -= 1,
                _ => {}
            },
        }
    }
    None
}

impl Part {
    /// A list or object of literals is a literal.
    fn folded(self) -> Part {
        match self {
            Part::List(parts) if parts.iter().all(Part::is_literal) => Part::Literal(Doc::list(parts.into_iter().filter_map(Part::literal).collect())),
            Part::Object(parts) if parts.iter().all(|(_, part)| part.is_literal()) => {
                Part::Literal(Doc::object(parts.into_iter().filter_map(|(key, part)| Some((key, part.literal()?))).collect()))
            }
            other => other,
        }
    }

    fn is_literal(&self) -> bool {
        matches!(self, Part::Literal(_))
    }

    fn literal(self) -> Option<Doc> {
        match self {
            Part::Literal(value) => Some(value),
            _ => None,
        }
    }

    fn collect(&self, found: &mut Vec<Expression>) {
        match self {
            Part::Literal(_) => {}
            Part::Whole(expression) => found.push(expression.clone()),
            Part::Text { pieces, .. } => found.extend(pieces.iter().filter_map(|piece| match piece {
                Piece::Insert(expression, _) => Some(expression.clone()),
                Piece::Literal(_) => None,
            })),
            Part::List(parts) => parts.iter().for_each(|part| part.collect(found)),
            Part::Object(parts) => parts.iter().for_each(|(_, part)| part.collect(found)),
        }
    }

    fn eval(&self, scope: &Scope) -> Result<Doc, ExpressionError> {
        match self {
            Part::Literal(value) => Ok(value.clone()),
            Part::Whole(expression) => expression.eval(scope),
            Part::Text { source, pieces } => {
                let mut text = String::new();
                for piece in pieces {
                    match piece {
                        Piece::Literal(literal) => text.push_str(literal),
                        Piece::Insert(expression, column) => {
                            let value = expression.eval(scope)?;
                            if value.is_null() {
                                return Err(ExpressionError {
                                    expression: source.clone(),
                                    column: *column,
                                    message: format!("`{}` is null, and null cannot stand inside a text", expression.text()),
                                    hint: Some(format!("give another value: ${{default({}, '')}}", expression.text())),
                                });
                            }
                            text.push_str(&value.text());
                        }
                    }
                }
                Ok(Doc::string(&text))
            }
            Part::List(parts) => Ok(Doc::list(parts.iter().map(|part| part.eval(scope)).collect::<Result<_, _>>()?)),
            Part::Object(parts) => {
                let mut entries = Vec::with_capacity(parts.len());
                for (key, part) in parts {
                    entries.push((key.clone(), part.eval(scope)?));
                }
                Ok(Doc::object(entries))
            }
        }
    }
}
