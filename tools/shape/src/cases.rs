//! `docs/failure-cases.md` maps each case to its tests; a test that it names exists.

use std::path::Path;

use crate::finding::Finding;

/// The table.
pub const TABLE: &str = "docs/failure-cases.md";

/// Finds tests that the table names and the tree does not have. A tree without a table has nothing to find.
pub fn check(root: &Path) -> Result<Vec<Finding>, String> {
    let path = root.join(TABLE);
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{TABLE} cannot be read: {error}"))?;
    let mut findings = Vec::new();
    for (at, line) in text.lines().enumerate() {
        for (file, name) in named(line) {
            if !defines(&root.join(file), name) {
                findings.push(Finding {
                    file: TABLE.to_owned(),
                    line: at + 1,
                    rule: "case",
                    what: format!("`{file}` has no test `{name}`"),
                    why: "the table is how a reader finds the proof of a guarantee; a name without a test is a false proof",
                    remedy: "correct the path or the name, or write `not yet` until the test exists".to_owned(),
                });
            }
        }
    }
    Ok(findings)
}

/// The `path::name` pairs between backticks in a row of the table.
pub(crate) fn named(line: &str) -> Vec<(&str, &str)> {
    if !line.starts_with('|') {
        return Vec::new();
    }
    let quoted = line.split('`').skip(1).step_by(2);
    quoted.filter_map(|quoted| quoted.rsplit_once("::")).filter(|(file, _)| file.contains('/')).collect()
}

/// Whether the file defines a function of that name, in Rust, Python, JavaScript or shell.
pub(crate) fn defines(path: &Path, name: &str) -> bool {
    let Ok(text) = std::fs::read_to_string(path) else { return false };
    text.lines().any(|line| {
        let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()).peekable();
        let mut defined = line.trim_start().strip_prefix(name).is_some_and(|rest| rest.starts_with("()"));
        while let Some(word) = words.next() {
            defined |= matches!(word, "fn" | "def" | "function") && words.peek() == Some(&name);
        }
        defined
    })
}
