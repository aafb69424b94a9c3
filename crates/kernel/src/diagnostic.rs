//! What is wrong with a file, where, and what to write instead; all of it at once.

use std::collections::BTreeSet;
use std::fmt;

/// At most this many are reported; a file with more has one cause.
const MOST: usize = 100;

/// A place in a text, from 1 in characters; 0, 0 where there is no text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Place {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

/// One thing that is wrong, or to be warned of.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Diagnostic {
    /// The file, as it was named.
    pub file: String,
    /// Line, from 1; 0 where there is no text.
    pub line: usize,
    /// Column in characters, from 1; 0 where it is not known.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
}

impl fmt::Display for Diagnostic {
    /// `pipeline.yaml:12:5: message`, and the hint on a line of its own.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.file)?;
        if self.line > 0 {
            write!(out, ":{}", self.line)?;
        }
        if self.column > 0 {
            write!(out, ":{}", self.column)?;
        }
        write!(out, ": {}", self.message)?;
        match &self.hint {
            Some(hint) => write!(out, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Diagnostic {}

/// All of them, one below the other.
#[must_use]
pub fn listed(diagnostics: &[Diagnostic]) -> String {
    diagnostics.iter().map(Diagnostic::to_string).collect::<Vec<_>>().join("\n")
}

/// Collects what is found in one file.
#[derive(Debug)]
pub(crate) struct Report {
    file: String,
    errors: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
    /// Places about which the one thing to say is said.
    settled: BTreeSet<Place>,
}

impl Report {
    pub(crate) fn new(file: &str) -> Report {
        Report { file: file.to_owned(), errors: Vec::new(), warnings: Vec::new(), settled: BTreeSet::new() }
    }

    fn diagnostic(&self, place: Place, message: String, hint: Option<String>) -> Diagnostic {
        Diagnostic { file: self.file.clone(), line: place.line, column: place.column, message, hint }
    }

    /// An error with what to do about it.
    pub(crate) fn error(&mut self, place: Place, message: impl Into<String>, hint: impl Into<String>) {
        if self.settled.contains(&place) {
            return;
        }
        let hint = hint.into();
        let found = self.diagnostic(place, message.into(), if hint.is_empty() { None } else { Some(hint) });
        self.errors.push(found);
    }

    /// Drops what else will be found at this place: it follows from what was found.
    pub(crate) fn settle(&mut self, place: Place) {
        self.settled.insert(place);
    }

    pub(crate) fn warn(&mut self, place: Place, message: impl Into<String>, hint: impl Into<String>) {
        let found = self.diagnostic(place, message.into(), Some(hint.into()));
        self.warnings.push(found);
    }

    pub(crate) fn failed(&self) -> bool {
        !self.errors.is_empty()
    }

    /// The errors, sorted by place, or the value with the warnings.
    pub(crate) fn end<T>(mut self, value: Option<T>) -> Result<(T, Vec<Diagnostic>), Vec<Diagnostic>> {
        self.warnings.sort();
        self.warnings.dedup();
        match value {
            Some(value) if self.errors.is_empty() => Ok((value, self.warnings)),
            _ => {
                self.errors.sort();
                self.errors.dedup();
                if self.errors.len() > MOST {
                    let more = self.errors.len() - MOST;
                    self.errors.truncate(MOST);
                    let last = self.diagnostic(Place::default(), format!("{more} more errors are not listed"), None);
                    self.errors.push(last);
                }
                Err(self.errors)
            }
        }
    }
}
