//! Whether the programs of a manifest or a pipeline are there, before anything is started.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use selvedge_kernel::pipeline::definition::{Exec, Variable};

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

/// A program that is named without a path and is in no folder of PATH, with what to do about it. It may be there later, and
/// elsewhere: this is no error of the file.
pub(crate) fn not_on_path(exec: &Exec) -> Option<(String, String)> {
    let program = exec.command.first().filter(|program| !program.is_empty() && !program.contains('/'))?;
    let path = match exec.environment.get("PATH") {
        Some(Variable::Text(path)) => OsString::from(path),
        // It is known when the process starts.
        Some(Variable::Secret { .. }) => return None,
        None => std::env::var_os("PATH")?,
    };
    let runs = |file: &Path| file.metadata().is_ok_and(|of| of.is_file() && of.permissions().mode() & 0o111 != 0);
    let found = std::env::split_paths(&path).any(|folder| runs(&folder.join(program)));
    (!found).then(|| {
        (
            format!("the program `{program}` is not on PATH"),
            "install it, or write its path in `exec`; tasks fail with `exec_start` until it is there".to_owned(),
        )
    })
}
