//! What is printed: results on standard output, everything else on standard error.

use std::io::Write;

use serde_json::Value;

use super::args::Output;
use super::exit::{Code, Stop};

/// A line of a result.
pub fn say(line: &str) -> Result<(), Stop> {
    let mut out = anstream::stdout();
    written(writeln!(out, "{line}").and_then(|()| out.flush()))
}

/// Bytes of a result.
pub fn raw(bytes: &[u8]) -> Result<(), Stop> {
    let mut out = std::io::stdout();
    written(out.write_all(bytes).and_then(|()| out.flush()))
}

/// Whoever reads may have gone away, and has what was wanted; anything else is an error, or a script takes nothing for a result.
fn written(done: std::io::Result<()>) -> Result<(), Stop> {
    match done {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Stop::new(
            Code::Failed,
            format!("the result cannot be written to standard output ({error}): what was asked for has been done; make room and ask again for the result"),
        )),
        _ => Ok(()),
    }
}

/// A line for the person in front of it.
pub fn note(line: &str) {
    let _ = writeln!(anstream::stderr(), "{line}");
}

/// An error.
pub fn complain(text: &str) {
    note(&format!("selvedge: {text}"));
}

/// JSON as it is, or as text for people.
pub fn result(output: Output, value: &Value, text: impl FnOnce() -> String) -> Result<(), Stop> {
    match output {
        Output::Json => say(&pretty(value)),
        Output::Text => {
            let text = text();
            if text.is_empty() { Ok(()) } else { say(&text) }
        }
    }
}

/// JSON on several lines.
pub fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string())
}

/// Rows below their names, each column as wide as its widest cell.
pub fn table(names: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).chain([names[column].len()]).max();
    let widths: Vec<usize> = (0..names.len()).map(|column| width(column).unwrap_or_default()).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    let head = line(&mut names.iter().copied());
    let body = rows.iter().map(|row| line(&mut row.iter().map(String::as_str)));
    [head].into_iter().chain(body).collect::<Vec<_>>().join("\n")
}
