//! `docs/coverage-of-words.md` lists every word of the design with a test that names it: each row names one that exists,
//! and no word that the sources know is missing.

use std::collections::BTreeSet;
use std::path::Path;

use crate::cases::{defines, named};
use crate::finding::Finding;
use crate::tree::Source;

/// The table.
pub const TABLE: &str = "docs/coverage-of-words.md";
/// Where fields of files are read.
const FIELDS: [&str; 2] = ["crates/kernel/src/pipeline/", "crates/kernel/src/manifest.rs"];
/// Pages of the codes of errors.
const CODES: &str = "docs/errors";
/// Where verbs are declared.
const VERBS: &str = "crates/selvedge/src/cli/args.rs";
/// Where else.
const MORE_VERBS: [&str; 1] = ["crates/selvedge/src/cli/args/rights.rs"];

/// How many words the table has.
#[must_use]
pub fn count(root: &Path) -> usize {
    std::fs::read_to_string(root.join(TABLE)).unwrap_or_default().lines().filter(|line| word_of(line).is_some()).count()
}

/// Finds rows without a test that exists, and words that have no row. A tree without the table has nothing to find.
pub fn check(root: &Path, sources: &[Source]) -> Result<Vec<Finding>, String> {
    let path = root.join(TABLE);
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{TABLE} cannot be read: {error}"))?;
    let mut findings = Vec::new();
    let mut rows = BTreeSet::new();
    for (at, line) in text.lines().enumerate() {
        let Some(word) = word_of(line) else { continue };
        rows.insert(word.to_owned());
        let tests = named(line);
        let missing: Vec<String> = tests.iter().filter(|(file, name)| !defines(&root.join(file), name)).map(|(file, name)| format!("{file}::{name}")).collect();
        if tests.is_empty() || !missing.is_empty() {
            let what = if tests.is_empty() { format!("`{word}` has no test") } else { format!("`{word}` names {}, which is not there", missing.join(", ")) };
            findings.push(finding(at + 1, what, "name a test as `path::function` that fails when the word is ignored, and write it where there is none"));
        }
    }
    let mut known = fields(root, sources)?;
    if root.join(VERBS).exists() {
        let mut text = read(root, VERBS)?;
        for more in MORE_VERBS.iter().filter(|more| root.join(more).exists()) {
            // One text: what a noun is made of may stand in either. A module's own comment stands at the top of its file only.
            text.extend(read(root, more)?.lines().filter(|line| !line.starts_with("//!")).flat_map(|line| [line, "\n"]));
        }
        known.extend(verbs(&text));
    }
    known.extend(codes(root)?);
    rows.extend(text.lines().filter_map(excused).map(str::to_owned));
    for word in known.difference(&rows) {
        findings.push(finding(1, format!("`{word}` is a word that can be written, and has no row"), "add a row with the test that names it"));
    }
    Ok(findings)
}

fn finding(line: usize, what: String, remedy: &str) -> Finding {
    Finding {
        file: TABLE.to_owned(),
        line,
        rule: "word",
        what,
        why: "a word that no test names can be ignored without anybody noticing",
        remedy: remedy.to_owned(),
    }
}

/// The codes that have a page.
fn codes(root: &Path) -> Result<BTreeSet<String>, String> {
    let folder = root.join(CODES);
    if !folder.exists() {
        return Ok(BTreeSet::new());
    }
    let failed = |error: std::io::Error| format!("{CODES} cannot be listed: {error}");
    let names = std::fs::read_dir(folder).map_err(failed)?.map(|entry| Ok(entry.map_err(failed)?.file_name().to_string_lossy().into_owned()));
    names.collect::<Result<Vec<_>, String>>().map(|names| names.iter().filter_map(|name| name.strip_suffix(".md")).map(str::to_owned).collect())
}

/// The word of a row that says why no test can name it: `| (`word`) | … |`.
fn excused(line: &str) -> Option<&str> {
    line.strip_prefix("| (`")?.split('`').next()
}

/// The word of a row, in its first column.
fn word_of(line: &str) -> Option<&str> {
    line.strip_prefix("| `")?.split('`').next()
}

fn read(root: &Path, file: &str) -> Result<String, String> {
    std::fs::read_to_string(root.join(file)).map_err(|error| format!("{file} cannot be read: {error}"))
}

/// Fields and their words, in what reads files.
fn fields(root: &Path, sources: &[Source]) -> Result<BTreeSet<String>, String> {
    let mut found = BTreeSet::new();
    for source in sources.iter().filter(|source| !source.test && FIELDS.iter().any(|place| source.path.starts_with(place))) {
        let text = read(root, &source.path)?;
        let text = text.split("#[cfg(test)]").next().unwrap_or_default();
        found.extend(asked_for(text));
        found.extend(text.lines().flat_map(values));
        if let Some(modes) = text.split("const MODES: ").nth(1) {
            found.extend(quoted(modes.split(';').nth(1).unwrap_or_default()));
        }
    }
    Ok(found)
}

/// The words in `fields.get("word")`.
fn asked_for(text: &str) -> Vec<String> {
    let rest = text.split("fields.get(\"").skip(1);
    rest.filter_map(|rest| rest.split('"').next()).map(str::to_owned).collect()
}

/// The values in `word(report, "field", …, &["one", "two"])`, as `field: one`.
fn values(line: &str) -> Vec<String> {
    let Some((_, rest)) = line.split_once("word(report, \"") else { return Vec::new() };
    let Some((field, rest)) = rest.split_once('"') else { return Vec::new() };
    let Some((_, list)) = rest.split_once("&[") else { return Vec::new() };
    quoted(list.split(']').next().unwrap_or_default()).into_iter().map(|value| format!("{field}: {value}")).collect()
}

/// What stands between quotes.
fn quoted(text: &str) -> Vec<String> {
    text.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The verbs that the command line declares, as they are typed.
fn verbs(text: &str) -> Vec<String> {
    let mut nouns = Vec::new();
    let mut of: Vec<(String, String)> = Vec::new();
    let mut current = None;
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("pub enum ").and_then(|rest| rest.strip_suffix(" {")) {
            current = Some(name.to_owned());
        } else if line == "}" {
            current = None;
        } else if let (Some(of_enum), Some(variant)) = (&current, variant(line)) {
            match of_enum.as_str() {
                "Noun" => nouns.push((variant, argument(line))),
                other => of.push((other.to_owned(), variant)),
            }
        }
    }
    let mut found = Vec::new();
    for (noun, argument) in nouns {
        let under: Vec<&str> = of.iter().filter(|(name, _)| Some(name) == argument.as_ref()).map(|(_, verb)| verb.as_str()).collect();
        match under[..] {
            [] => found.push(typed(&noun)),
            [..] => found.extend(under.iter().map(|verb| format!("{} {}", typed(&noun), typed(verb)))),
        }
    }
    found
}

/// The name of a variant that a line begins.
fn variant(line: &str) -> Option<String> {
    let line = line.strip_prefix("    ")?;
    let name: String = line.chars().take_while(char::is_ascii_alphanumeric).collect();
    let begins = name.starts_with(|first: char| first.is_ascii_uppercase());
    (begins && line[name.len()..].starts_with([',', '(', ' '])).then_some(name)
}

/// The type in `Variant(Type)`.
fn argument(line: &str) -> Option<String> {
    line.split_once('(')?.1.split_once(')').map(|(inner, _)| inner.to_owned())
}

/// `DeadLetters` as it is typed: `dead-letters`.
fn typed(name: &str) -> String {
    let mut typed = String::new();
    for (at, letter) in name.chars().enumerate() {
        if letter.is_ascii_uppercase() && at > 0 {
            typed.push('-');
        }
        typed.push(letter.to_ascii_lowercase());
    }
    typed
}
