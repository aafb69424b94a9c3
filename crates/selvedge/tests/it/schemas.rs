//! The JSON Schemas for editors, as they are committed.

use std::path::Path;

use crate::rig::Folder;

#[test]
fn the_schemas_in_docs_are_those_of_this_binary() {
    let folder = Folder::new();
    for (file, words) in [("pipeline", &["pipelines", "schema"][..]), ("app", &["pipelines", "schema", "--manifest"])] {
        let said = folder.selvedge(words);
        let path = format!("docs/reference/{file}.schema.json");
        let kept = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(&path)).unwrap_or_default();
        assert!(kept == said.out, "{path} is not what `selvedge {}` prints: write that into it", words.join(" "));
    }
}
