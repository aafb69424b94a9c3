//! What the README tells a newcomer to type, typed.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::rig::Folder;

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

fn page() -> String {
    std::fs::read_to_string(root().join("README.md")).unwrap()
}

#[test]
fn the_ten_minutes_of_the_readme_work_as_they_are_written() {
    let done = Command::new("python3").arg(root().join("tools/bin/newcomer")).args(["--binary", env!("CARGO_BIN_EXE_selvedge")]).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success() && out.contains("the newcomer's clock"), "{out}\n{err}");
}

#[test]
fn the_workers_on_the_first_screen_do_the_work_of_the_readmes_pipeline() {
    let page = page();
    let pipeline = block(&page, "yaml", "name: measures");
    for (language, worker, client) in [("python", "measure.py", "python/selvedge.py"), ("js", "measure.mjs", "node/selvedge.mjs")] {
        let folder = Folder::new();
        let program = if language == "js" { "node" } else { "python3" };
        std::fs::copy(root().join("clients").join(client), folder.join(client.rsplit('/').next().unwrap())).unwrap();
        folder.write(worker, &block(&page, language, "activity"));
        folder.write("pipeline.yaml", &pipeline.replace("[python3, measure.py]", &format!("[{program}, {worker}]")));
        let value = folder.json(&["run", "pipeline.yaml", "--input", r#"{"words": ["warp", "weft"]}"#]);
        let output = &value["output"];
        assert_eq!((&output[0]["word"], &output[1]["letters"]), (&"warp".into(), &4.into()), "{value}");
        assert_ne!(output[0]["key"], output[1]["key"]);
    }
}

#[test]
fn the_handler_on_the_first_screen_is_the_one_that_a_newcomer_runs() {
    let page = page();
    let short: Vec<String> = block(&page, "rust", "async fn greet").lines().map(|line| line.split("  //").next().unwrap().trim().to_owned()).collect();
    let whole: Vec<String> = block(&page, "rust", "fn main").lines().map(|line| line.trim().to_owned()).collect();
    assert!(whole.windows(short.len()).any(|lines| lines == short), "{short:#?}");
}

#[test]
fn the_curl_lines_of_the_readme_work_as_they_are_written() {
    let page = page();
    let folder = Folder::new();
    folder.write("pipeline.yaml", &block(&page, "yaml", "name: lengths"));
    // The step before this one has made the data directory.
    folder.json(&["run", "pipeline.yaml", "--input", r#"{"words": ["selvedge"]}"#]);
    // A port of its own: other tests run beside this one.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let lines = block(&page, "sh", "curl").replace("selvedge dev", &format!("selvedge dev --listen 127.0.0.1:{port}")).replace("7420", &port);
    let binary = Path::new(env!("CARGO_BIN_EXE_selvedge")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
    let script = format!("set -eu\ntrap 'kill $(jobs -p)' EXIT\n{lines}");
    let done = Command::new("bash").args(["-c", &script]).current_dir(folder.path()).env("PATH", path).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{out}\n{err}");
    assert!(out.contains("\"status\":\"completed\"") && out.contains("event: ended"), "{out}\n{err}");
}
