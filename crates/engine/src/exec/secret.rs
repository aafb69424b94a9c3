//! Secrets of programs: references that are resolved when a process starts, and blotted out of what it says.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use selvedge_kernel::error::AttemptError;

/// Shorter values are not blotted out: they occur everywhere by chance.
const SHORTEST: usize = 8;

/// A secret that a program was given.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    /// `env:NAME` or `file:PATH`.
    pub reference: String,
    /// The value.
    pub value: String,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Secret({})", self.reference)
    }
}

/// The value of a reference; the error says what to do.
pub fn resolve(reference: &str, ours: &BTreeMap<String, String>, folder: &Path) -> Result<String, String> {
    if let Some(name) = reference.strip_prefix("env:") {
        return ours
            .get(name)
            .cloned()
            .ok_or_else(|| format!("the secret `{reference}` is not there: set the variable {name} where selvedge is started, and start it again"));
    }
    let path = folder.join(reference.strip_prefix("file:").unwrap_or(reference));
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(text.trim_end_matches(['\r', '\n']).to_owned()),
        Err(error) => Err(format!("the secret `{reference}` cannot be read from {}: {error}; mend that and start again", path.display())),
    }
}

/// Blots secrets out of text.
#[must_use]
pub fn blot(secrets: &[Secret], text: String) -> String {
    let hidden = secrets.iter().filter(|secret| secret.value.len() >= SHORTEST);
    hidden.fold(text, |text, secret| if text.contains(&secret.value) { text.replace(&secret.value, &format!("[secret {}]", secret.reference)) } else { text })
}

/// Blots secrets out of what an attempt gave.
pub fn blot_result(secrets: &[Secret], result: Result<Bytes, AttemptError>) -> Result<Bytes, AttemptError> {
    if secrets.is_empty() {
        return result;
    }
    match result {
        Ok(value) => Ok(match String::from_utf8(value.to_vec()) {
            Ok(text) => Bytes::from(blot(secrets, text)),
            Err(_) => value,
        }),
        Err(mut failure) => {
            failure.error.message = blot(secrets, failure.error.message);
            Err(failure)
        }
    }
}
