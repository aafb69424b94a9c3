//! Every error that a person or a program may see has a page that says what to do, and every page an error.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::rig::Folder;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The code of all crates, without tests and comments.
fn sources() -> Vec<String> {
    let mut folders = vec![root().join("crates")];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && name != "tests" && name != "examples" {
                folders.push(path);
            } else if name.ends_with(".rs") && name != "tests.rs" {
                let text = std::fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]").next().unwrap_or_default();
                let lines: Vec<&str> = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
                sources.push(lines.join("\n"));
            }
        }
    }
    sources
}

/// What stands as the code in the constructors of errors.
fn codes(sources: &[String]) -> BTreeSet<String> {
    let mut codes = BTreeSet::new();
    for source in sources {
        for maker in ["WorkError::new(", "VerbError::new(", "Problem::new("] {
            for (at, _) in source.match_indices(maker) {
                let call = &source[at + maker.len()..];
                // `Consequence::X,` may stand before it.
                let skipped = call.trim_start().strip_prefix("Consequence::").map_or(call, |rest| rest.split_once(',').map_or("", |rest| rest.1));
                let Some(text) = skipped.trim_start().trim_start_matches('&').strip_prefix('"') else { continue };
                let code = text.split('"').next().unwrap_or_default();
                if code.is_empty() {
                    continue;
                }
                codes.insert(code.split(':').next().unwrap_or_default().to_owned());
            }
        }
    }
    codes
}

fn pages() -> BTreeSet<String> {
    let entries = std::fs::read_dir(root().join("docs/errors")).unwrap();
    entries.map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned()).collect()
}

#[test]
fn every_code_has_a_page_and_every_page_a_code_and_the_binary_has_them_all() {
    let sources = sources();
    let codes = codes(&sources);
    assert!(codes.len() > 50, "{codes:?}");
    let pages = pages();
    let without: Vec<&String> = codes.difference(&pages).collect();
    assert!(without.is_empty(), "no page in docs/errors: {without:?}");
    let used = |page: &str| {
        let start = page.strip_suffix("_N").map_or_else(|| format!("\"{page}\""), |kind| format!("\"{kind}_{{"));
        sources.iter().any(|source| source.contains(&start) || source.contains(&format!("\"{page}: ")))
    };
    let stale: Vec<&String> = pages.iter().filter(|page| !used(page)).collect();
    assert!(stale.is_empty(), "no code: {stale:?}");
    let shown = Folder::new().json(&["explain"]);
    let shown: BTreeSet<String> = shown.as_array().unwrap().iter().map(|page| page["code"].as_str().unwrap().to_owned()).collect();
    assert_eq!(shown, pages, "the table in cli/explain.rs is not docs/errors");
}

#[test]
fn every_page_says_what_happened_why_and_what_to_do() {
    for page in pages() {
        let text = std::fs::read_to_string(root().join("docs/errors").join(format!("{page}.md"))).unwrap();
        assert!(text.starts_with(&format!("# `{page}`\n\n")) && text.contains("\n**Why.** ") && text.contains("\n**What to do.** "), "{page}: {text}");
    }
}

#[test]
fn explain_takes_a_code_as_it_stands_in_an_error_and_names_the_nearest() {
    let folder = Folder::new();
    for (written, page) in [("call_cycle", "# `call_cycle`"), ("http_503", "# `http_N`"), ("exit_3", "# `exit_N`"), ("limit: inbox", "# `limit`")] {
        let said = folder.selvedge(&["explain", written]);
        assert!(said.code == 0 && said.out.starts_with(page), "{said:?}");
    }
    let said = folder.selvedge(&["explain", "call_cicle"]);
    assert_eq!(said.code, 64);
    insta::assert_snapshot!(said.err, @"selvedge: no error of ours has the code `call_cicle`: did you mean `call_cycle`? `selvedge explain` lists all; a code that an activity of yours has made up is not among them");
    assert_eq!(folder.selvedge(&["explain", "card_declined"]).code, 64);
}
