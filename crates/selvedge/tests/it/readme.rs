//! What the README tells a newcomer to type, typed.

use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The first fenced block of a language that contains a text, without its indentation.
fn block(page: &str, language: &str, with: &str) -> String {
    let fence = format!("```{language}");
    let mut blocks = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for line in page.lines() {
        let indent = line.len() - line.trim_start().len();
        match &mut open {
            None if line.trim() == fence => open = Some((indent, String::new())),
            None => {}
            Some((_, text)) if line.trim() == "```" => {
                blocks.push(std::mem::take(text));
                open = None;
            }
            Some((indent, text)) => {
                text.push_str(line.get(*indent..).unwrap_or_default());
                text.push('\n');
            }
        }
    }
    blocks.into_iter().find(|text| text.contains(with)).unwrap_or_else(|| panic!("the README has no {language} block with `{with}`"))
}

#[test]
fn the_ten_minutes_of_the_readme_work_as_they_are_written() {
    let page = std::fs::read_to_string(root().join("README.md")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(root().join("clients/python/selvedge.py"), folder.path().join("selvedge.py")).unwrap();
    std::fs::write(folder.path().join("measure.py"), block(&page, "python", "@activity(\"measure\")")).unwrap();
    std::fs::write(folder.path().join("pipeline.yaml"), block(&page, "yaml", "name: lengths")).unwrap();
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_selvedge"));
    let path = format!("{}:{}", binary.parent().unwrap().display(), std::env::var("PATH").unwrap_or_default());
    let commands = block(&page, "sh", "selvedge run pipeline.yaml");
    let done = Command::new("sh").args(["-eu", "-c", &commands]).current_dir(folder.path()).env("PATH", path).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{out}\n{err}");
    let json = &out[out.find("[\n").or(out.find('[')).unwrap_or_else(|| panic!("{out}\n{err}"))..];
    let value: serde_json::Value = serde_json::from_str(json.trim()).unwrap_or_else(|error| panic!("{error}: {out}"));
    assert_eq!(value[0]["word"], "warp");
    assert_eq!(value[1]["letters"], 4);
    assert_ne!(value[0]["key"], value[1]["key"]);
}
