//! Broken files, each with the whole message.

use selvedge_kernel::config::{Source, parse_config};
use selvedge_kernel::diagnostic::listed;
use selvedge_kernel::manifest::parse_manifest;
use selvedge_kernel::pipeline::parse::parse_pipeline;
use std::path::{Path, PathBuf};

pub fn data(folder: &str) -> Vec<(String, String)> {
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(folder);
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), std::fs::read_to_string(path).unwrap())).collect()
}

#[test]
fn broken_pipelines_are_refused_with_every_error_its_place_and_a_hint() {
    for (name, text) in data("broken/pipeline") {
        let errors = parse_pipeline("pipeline.yaml", &text).unwrap_err();
        assert!(errors.is_sorted(), "{name}");
        insta::assert_snapshot!(format!("pipeline_{name}"), listed(&errors));
    }
}

#[test]
fn whole_programs_of_the_design_give_exactly_what_is_not_in_this_version() {
    for (name, text) in data("whole") {
        let found = match parse_pipeline(&format!("{name}.yaml"), &text) {
            Ok((_, warnings)) => listed(&warnings),
            Err(errors) => listed(&errors),
        };
        insta::assert_snapshot!(format!("whole_{name}"), found);
    }
}

#[test]
fn broken_manifests_are_refused_with_every_error_its_place_and_a_hint() {
    for (name, text) in data("broken/manifest") {
        insta::assert_snapshot!(format!("manifest_{name}"), listed(&parse_manifest("app.yaml", &text).unwrap_err()));
    }
}

#[test]
fn broken_configurations_are_refused_with_the_key_the_place_and_the_remedy() {
    for (name, text) in data("broken/config") {
        let source = Source::File { name: "selvedge.yaml".to_owned(), text };
        insta::assert_snapshot!(format!("config_{name}"), listed(&parse_config(&[source]).unwrap_err()));
    }
}

#[test]
fn aliases_a_tag_a_duplicate_key_and_ten_thousand_brackets_are_refused_by_the_limits_name() {
    let nine_lines = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/broken/pipeline/aliases.yaml")).unwrap();
    assert_eq!(nine_lines.lines().count(), 9);
    let bombs = [
        (nine_lines, "limit: document_aliases = 0"),
        ("selvedge: !!int 1\n".to_owned(), "limit: document_tags = 0"),
        ("selvedge: 1\nselvedge: 1\n".to_owned(), "limit: document_duplicate_keys = 0"),
        ("[".repeat(10_000), "limit: document_depth"),
        (format!("{}{}", "[".repeat(10_000), "]".repeat(10_000)), "limit: document_depth"),
    ];
    for (text, limit) in bombs {
        for errors in [
            parse_pipeline("p", &text).unwrap_err(),
            parse_manifest("p", &text).unwrap_err(),
            parse_config(&[Source::File { name: "p".to_owned(), text: text.clone() }]).unwrap_err(),
        ] {
            assert!(errors.iter().any(|error| error.line > 0 && error.message.contains(limit)), "{limit}: {}", listed(&errors));
        }
    }
}
