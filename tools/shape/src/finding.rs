//! One place that does not fit.

use std::fmt;

/// A place, the rule that it breaks, why the rule is there, and what to do.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Finding {
    /// The file, relative to the root.
    pub file: String,
    /// The line, counted from 1; 0 where the file as a whole is meant.
    pub line: usize,
    /// The rule's name, one word or two.
    pub rule: &'static str,
    /// What was found.
    pub what: String,
    /// Why that is refused.
    pub why: &'static str,
    /// What to do instead.
    pub remedy: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}\n    why: {}\n    do:  {}", self.file, self.line, self.rule, self.what, self.why, self.remedy)
    }
}
