//! Text from strangers as document, pipeline, manifest and configuration: a value or errors, never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use selvedge_kernel::config::{Source, parse_config};
use selvedge_kernel::manifest::parse_manifest;
use selvedge_kernel::pipeline::parse::{parse_pipeline, version};

fuzz_target!(|text: &str| {
    match parse_pipeline("fuzz.yaml", text) {
        Ok((definition, _)) => {
            let stored = serde_json::to_vec(&definition).expect("a definition has a JSON form");
            let again = serde_json::from_slice(&stored).expect("what is stored can be read");
            assert_eq!(version(&definition), version(&again));
        }
        Err(errors) => assert!(!errors.is_empty() && errors.is_sorted_by_key(|error| (error.line == 0, error.line, error.column))),
    }
    let _ = parse_manifest("fuzz.yaml", text);
    let _ = parse_config(&[Source::File { name: "fuzz.yaml".to_owned(), text: text.to_owned() }]);
});
