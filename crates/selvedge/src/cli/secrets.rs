//! Whether the secrets that a program refers to are there, before anything needs them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use selvedge_engine::exec::secret::resolve;
use selvedge_engine::registry::{self, Registry};
use selvedge_kernel::diagnostic::Diagnostic;
use selvedge_kernel::pipeline::definition::{Exec, Executor, Header, Http, Variable};

/// Each reference that leads nowhere, where it stands first. What a secret is, is looked at and forgotten.
pub fn missing(registry: &Registry, manifest: &Path, pipelines: &[PathBuf]) -> Vec<Diagnostic> {
    let ours: BTreeMap<String, String> = std::env::vars().collect();
    let mut found: BTreeSet<(String, String, String)> = BTreeSet::new();
    let mut look = |of: &str, references: Vec<&str>, folder: &str| {
        for reference in references {
            if let Err(reason) = resolve(reference, &ours, Path::new(folder)) {
                found.insert((of.to_owned(), reference.to_owned(), reason));
            }
        }
    };
    for (name, exec) in registry.programs() {
        look(&name, of_program(&exec), &exec.folder);
    }
    for (name, activity) in &registry.activities {
        if let registry::Executor::Http(http) = &activity.run {
            look(name, of_request(http), &http.folder);
        }
    }
    for definition in registry.pipelines.values() {
        for (name, activity) in &definition.activities {
            let name = format!("{}.{name}", definition.name);
            match &activity.executor {
                Executor::Exec(exec) => look(&name, of_program(exec), &exec.folder),
                Executor::Http(http) => look(&name, of_request(http), &http.folder),
                Executor::Native | Executor::Worker(_) => {}
            }
        }
    }
    let files: Vec<(String, String)> = std::iter::once(manifest)
        .chain(pipelines.iter().map(PathBuf::as_path))
        .filter_map(|file| Some((file.display().to_string(), std::fs::read_to_string(file).ok()?)))
        .collect();
    found.into_iter().map(|(of, reference, reason)| diagnostic(&files, &of, &reference, &reason)).collect()
}

fn of_program(exec: &Exec) -> Vec<&str> {
    let secrets = exec.environment.values().filter_map(|variable| match variable {
        Variable::Secret { secret } => Some(secret.as_str()),
        Variable::Text(_) => None,
    });
    secrets.collect()
}

fn of_request(http: &Http) -> Vec<&str> {
    let secrets = http.headers.values().filter_map(|header| match header {
        Header::Secret { secret, .. } => Some(secret.as_str()),
        Header::Text(_) => None,
    });
    secrets.collect()
}

fn diagnostic(files: &[(String, String)], of: &str, reference: &str, reason: &str) -> Diagnostic {
    let place = files.iter().find_map(|(file, text)| {
        let (line, column) = text.lines().enumerate().find_map(|(at, line)| Some((at + 1, line[..line.find(reference)?].chars().count() + 1)))?;
        Some((file.clone(), line, column))
    });
    let (file, line, column) = place.unwrap_or_else(|| (files.first().map_or_else(|| "app.yaml".to_owned(), |(file, _)| file.clone()), 0, 0));
    let (message, hint) = reason.split_once(": set ").map_or_else(
        || (reason.trim_end_matches("; mend that and start again").to_owned(), "put the file there, readable for this user".to_owned()),
        |(message, hint)| (message.to_owned(), format!("set {hint}")),
    );
    Diagnostic { file, line, column, message: format!("`{of}`: {message}"), hint: Some(hint) }
}
