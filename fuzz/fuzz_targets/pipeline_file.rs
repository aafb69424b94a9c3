//! A pipeline's file: any text is a definition or a list of errors, each with its place, and nothing takes for ever.
#![no_main]

use libfuzzer_sys::fuzz_target;
use selvedge_kernel::pipeline::parse::parse_pipeline;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match parse_pipeline("fuzz.yaml", text) {
        Ok((definition, _)) => assert!(!definition.name.is_empty()),
        Err(wrong) => assert!(!wrong.is_empty()),
    }
});
