//! Traces of whoever asks, as W3C writes them in `traceparent`: work that is done for somebody says that it is a part of theirs.

/// The parts of a trace: version, id, span, flags. None of a text that is no trace.
fn parts(text: &str) -> Option<[&str; 4]> {
    let hex = |part: &str, len: usize| part.len() == len && part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    let mut parts = text.split('-');
    let found = [parts.next()?, parts.next()?, parts.next()?, parts.next()?];
    let well = parts.next().is_none() && found.iter().zip([2, 32, 16, 2]).all(|(part, len)| hex(part, len));
    well.then_some(found)
}

/// Whether a text is a trace as W3C writes it.
#[must_use]
pub fn is_trace(text: &str) -> bool {
    parts(text).is_some()
}

/// What work says of its trace that is done under a key: the same trace, and a span of its own, which is the same for each attempt.
pub(crate) fn within(trace: &str, key: &str) -> Option<String> {
    let [version, id, _, flags] = parts(trace)?;
    let span = blake3::hash(key.as_bytes()).to_hex();
    Some(format!("{version}-{id}-{}-{flags}", &span[..16]))
}
