//! JSON as it was said on the command line: in place, or `@FILE`.

use serde_json::Value;

use super::exit::Stop;

/// The text and its value.
pub struct Said {
    pub text: String,
    pub value: Value,
}

/// Reads the value of a flag.
pub fn json(flag: &str, said: &str) -> Result<Said, Stop> {
    let text = match said.strip_prefix('@') {
        Some(file) => std::fs::read_to_string(file).map_err(|error| Stop::usage(format!("{flag}: {file} cannot be read: {error}")))?,
        None => said.to_owned(),
    };
    match serde_json::from_str(&text) {
        Ok(value) => Ok(Said { value, text: text.trim().to_owned() }),
        Err(error) => {
            let shown: String = text.chars().take(60).collect();
            let before = if flag.starts_with('-') { format!("{flag} ") } else { String::new() };
            Err(Stop::usage(format!(
                "{flag} is not JSON ({error}): {shown}\n  hint: quote it for the shell, as in {before}'{{\"name\": \"value\"}}' or {before}'\"text\"', or write {before}@FILE"
            )))
        }
    }
}
