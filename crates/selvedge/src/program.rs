//! Whether the programs of a manifest or a pipeline are there, before anything is started.

use std::path::Path;

/// Ends of names that are scripts for an interpreter.
const SCRIPTS: [&str; 8] = ["py", "mjs", "js", "ts", "rb", "pl", "php", "sh"];

/// The script or program of a command that is not there, with what to do about it.
pub(crate) fn missing(command: &[String], folder: &Path) -> Option<(String, String)> {
    let (program, rest) = command.split_first()?;
    if program.contains('/') && !folder.join(program).exists() {
        return Some((format!("the program `{program}` is not there"), format!("a path in `exec` is relative to {}", folder.display())));
    }
    let script = rest.iter().find(|word| !word.starts_with('-'))?;
    // What follows `-c` and the like is code, and may look like anything.
    let is_script = Path::new(script).extension().and_then(|end| end.to_str()).is_some_and(|end| SCRIPTS.contains(&end));
    let first = rest.first() == Some(script) && !script.contains(char::is_whitespace);
    (is_script && first && !folder.join(script).exists())
        .then(|| (format!("the script `{script}` is not there"), format!("a path in `exec` is relative to {}", folder.display())))
}
