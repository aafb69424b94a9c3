//! JSON in, and JSON out.

use bytes::Bytes;
use selvedge_kernel::error::Consequence;
use serde::Serialize;
use serde_json::Value;

use super::Problem;

/// The bytes of JSON that came as text.
pub(super) fn text_of(text: String) -> Result<Bytes, Problem> {
    match serde_json::from_str::<&serde_json::value::RawValue>(&text) {
        Ok(_) => Ok(Bytes::from(text)),
        Err(error) => {
            Err(Problem::new(Consequence::FixInput, "not_json", format!("this is not JSON ({error}): {}", text.chars().take(80).collect::<String>())))
        }
    }
}

/// JSON that the engine kept.
#[must_use]
pub fn of_bytes(bytes: &[u8]) -> Value {
    // What the engine keeps was JSON when it came in.
    serde_json::from_slice(bytes).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(bytes).into_owned()))
}

/// Something as JSON. Errors: it cannot be written so.
pub fn value<T: Serialize>(of: &T) -> Result<Value, Problem> {
    serde_json::to_value(of).map_err(|error| Problem::new(Consequence::Stop, "not_json", format!("the answer cannot be written as JSON: {error}")))
}
