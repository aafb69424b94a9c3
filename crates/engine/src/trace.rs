//! Traces of whoever asks, as W3C writes them in `traceparent`: work that is done for somebody says that it is a part of theirs.

/// The parts of a trace: version, id, span, flags. None of a text that is no trace.
fn parts(text: &str) -> Option<[&str; 4]> {
    let hex = |part: &str, len: usize| part.len() == len && part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    let mut parts = text.split('-');
    let found = [parts.next()?, parts.next()?, parts.next()?, parts.next()?];
    let none = |part: &str| part.bytes().all(|byte| byte == b'0');
    let well = parts.next().is_none() && found.iter().zip([2, 32, 16, 2]).all(|(part, len)| hex(part, len));
    // Version ff, and ids of nothing but zeros, are none.
    let well = well && found[0] != "ff" && !none(found[1]) && !none(found[2]);
    well.then_some(found)
}

/// Whether a text is a trace as W3C writes it.
#[must_use]
pub fn is_trace(text: &str) -> bool {
    parts(text).is_some()
}

/// What work says of its trace that is done under a key: the same trace, and a span of its own, which is the same for each attempt.
pub(crate) fn within(trace: &str, key: &str) -> Option<String> {
    let [_, id, _, flags] = parts(trace)?;
    let span = blake3::hash(key.as_bytes()).to_hex();
    Some(format!("00-{id}-{}-{flags}", &span[..16]))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_span_is_of_the_same_trace_and_the_same_for_the_same_key() {
        let one = within(TRACE, "key-1").unwrap();
        assert!(is_trace(&one) && one != TRACE, "{one}");
        assert_eq!((&one[..36], &one[52..]), (&TRACE[..36], &TRACE[52..]));
        assert_eq!(within(TRACE, "key-1").unwrap(), one);
        assert_ne!(within(TRACE, "key-2").unwrap(), one);
    }

    #[test]
    fn what_is_no_trace_is_none() {
        for text in [
            "",
            "00",
            &TRACE.to_uppercase(),
            &TRACE[1..],
            &format!("{TRACE}-"),
            &format!("{TRACE}\0"),
            &TRACE.replace('b', "g"),
            &TRACE.replacen("00", "ff", 1),
            &TRACE.replace("b7ad6b7169203331", &"0".repeat(16)),
            &TRACE.replace('-', "_"),
        ] {
            assert!(!is_trace(text) && within(text, "key").is_none(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_trace_or_none(text in "\\PC{0,80}") {
            prop_assert_eq!(within(&text, "key").is_some(), is_trace(&text));
        }
    }
}
