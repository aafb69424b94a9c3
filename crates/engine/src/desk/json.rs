//! JSON in, and JSON out.

use bytes::Bytes;
use selvedge_kernel::error::Consequence;
use selvedge_kernel::limit::JSON_DEPTH;
use serde::Serialize;
use serde_json::Value;

use super::Problem;

/// The bytes of JSON that came as text.
pub(super) fn text_of(text: String) -> Result<Bytes, Problem> {
    match serde_json::from_str::<&serde_json::value::RawValue>(&text) {
        Ok(_) if depth(&text) > JSON_DEPTH => {
            let text = format!("this JSON is nested deeper than {JSON_DEPTH}, the limit: nobody could read it back; flatten it, or send it as a text");
            Err(Problem::new(Consequence::Limit, "limit: json depth", text))
        }
        Ok(_) => Ok(Bytes::from(text)),
        Err(error) => {
            Err(Problem::new(Consequence::FixInput, "not_json", format!("this is not JSON ({error}): {}", text.chars().take(80).collect::<String>())))
        }
    }
}

/// How deep valid JSON is nested.
fn depth(text: &str) -> usize {
    let (mut now, mut deepest, mut inside, mut escaped) = (0_usize, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if inside => escaped = true,
            b'"' => inside = !inside,
            b'[' | b'{' if !inside => {
                now += 1;
                deepest = deepest.max(now);
            }
            b']' | b'}' if !inside => now = now.saturating_sub(1),
            _ => {}
        }
    }
    deepest
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn json_that_is_nested_deeper_than_anybody_reads_is_refused_and_names_the_limit() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(text_of(nested(JSON_DEPTH)).is_ok());
        let problem = text_of(nested(JSON_DEPTH + 1)).unwrap_err();
        assert_eq!(problem.code, "limit: json depth");
        assert!(problem.message.contains("deeper than 100"), "{problem}");
        // Brackets inside a text are no nesting.
        assert!(text_of(format!(r#"{{"a\"": "{}"}}"#, "[".repeat(500))).is_ok());
        assert_eq!(of_bytes(nested(JSON_DEPTH).as_bytes()).to_string(), nested(JSON_DEPTH));
    }
}
