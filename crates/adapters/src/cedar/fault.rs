//! What is wrong with a set of policies.

use std::fmt;
use std::path::{Path, PathBuf};

use miette::Diagnostic;

/// One thing that is wrong, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// In which file, or the folder as a whole.
    pub file: PathBuf,
    /// In which line, from 1; none where it is the file as a whole.
    pub line: Option<usize>,
    /// What is wrong, and what to do.
    pub text: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(out, "{}:{line}: {}", self.file.display(), self.text),
            None => write!(out, "{}: {}", self.file.display(), self.text),
        }
    }
}

/// A set that is refused, with everything that is wrong with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused(pub Vec<Fault>);

impl fmt::Display for Refused {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, fault) in self.0.iter().enumerate() {
            write!(out, "{}{fault}", if at == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Refused {}

impl Fault {
    pub(super) fn whole(file: &Path, text: impl Into<String>) -> Fault {
        Fault { file: file.to_owned(), line: None, text: text.into() }
    }

    /// Of what the parser or the validator says about a text; a line that it does not name is that of `start`.
    pub(super) fn said(file: &Path, source: &str, start: usize, said: &dyn Diagnostic) -> Fault {
        let at = said.labels().and_then(|mut labels| labels.next()).map_or(start, |label| label.offset());
        let whole = said.to_string();
        // The place says it better than the number of the policy.
        let plain = whole.strip_prefix("for policy `policy").and_then(|rest| rest.split_once("`, ")).map_or(whole.as_str(), |(_, plain)| plain);
        let mut text = plain.to_owned();
        if let Some(help) = said.help() {
            text = format!("{text}; {help}");
        }
        Fault { file: file.to_owned(), line: Some(line_of(source, at)), text }
    }
}

pub(super) fn line_of(source: &str, at: usize) -> usize {
    source.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}
