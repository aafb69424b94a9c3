//! A `where` from a stranger, for every list: a filter that prints as itself or errors inside of it, and completions that fit.
#![no_main]

use libfuzzer_sys::fuzz_target;
use selvedge_kernel::filter::{List, Row, complete, matches, parse};

fuzz_target!(|input: (u16, &str)| {
    let (cursor, text) = input;
    for list in List::ALL {
        match parse(list, text) {
            Ok(filter) => {
                assert_eq!(parse(list, &filter.to_string()).as_ref(), Ok(&filter));
                let _ = matches(&filter, &Row::default());
            }
            Err(errors) => assert!(!errors.is_empty() && errors.iter().all(|error| (1..=text.chars().count() + 1).contains(&error.column))),
        }
        for one in complete(list, text, cursor.into()) {
            assert!(text.get(one.replaces.clone()).is_some_and(|replaced| one.text.starts_with(replaced)));
        }
    }
});
