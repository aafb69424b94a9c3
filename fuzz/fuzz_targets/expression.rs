//! An expression and a document, parted by a zero byte: a result or an error, within bounds, and the same twice.
#![no_main]

use libfuzzer_sys::fuzz_target;
use selvedge_kernel::pipeline::expression::{Doc, Expression};

fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.splitn(2, |byte| *byte == 0);
    let (Some(text), document) = (parts.next(), parts.next().unwrap_or(b"{}")) else { return };
    let (Ok(text), Ok(document)) = (std::str::from_utf8(text), Doc::parse(document)) else { return };
    if let Ok(expression) = Expression::compile(text) {
        let first = expression.search(&document).map(|found| found.to_bytes());
        let second = expression.search(&document).map(|found| found.to_bytes());
        assert_eq!(format!("{first:?}"), format!("{second:?}"));
    }
});
