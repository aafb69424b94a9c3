//! The commands of `docs/runbooks`, read from the pages and run against what they are for.

use std::process::Command;

use serde_json::Value;

use crate::rig::{Folder, Said};

/// Waits for a signal, then for a person, then fails until `mended` is there, then waits for ever.
const NEVER_ENDS: &str = "
selvedge: 1
name: never_ends
activities:
  brittle: { exec: [sh, -c, 'test -e mended || { echo not mended >&2; exit 1; }'], persistent: false, retry: { max_attempts: 1 } }
stages:
  - { name: hold, mode: wait_signal, signal: go }
  - { name: ask, mode: approval, assignees: ['role:ops'], expires: 1d, fallback: reject }
  - { name: work, call: brittle }
  - { name: last, mode: wait_signal, signal: never }
";

/// The command blocks of a page, in order, without the one that only shows what a variable is set to.
fn commands(page: &str) -> Vec<String> {
    let page = std::fs::read_to_string(format!("{}/../../docs/runbooks/{page}.md", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let blocks = page.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap().trim().to_owned());
    blocks.filter(|block| !block.starts_with("RUN=")).collect()
}

fn shell(folder: &Folder, run: &str, command: &str) -> Said {
    let bin = std::path::Path::new(env!("CARGO_BIN_EXE_selvedge")).parent().unwrap().display().to_string();
    let path = format!("{bin}:{}", std::env::var("PATH").unwrap_or_default());
    let output = Command::new("sh").args(["-c", command]).current_dir(folder.path()).env("PATH", path).env("RUN", run).output().unwrap();
    Said { code: output.status.code().unwrap_or(-1), out: String::from_utf8(output.stdout).unwrap(), err: String::from_utf8(output.stderr).unwrap() }
}

#[test]
fn every_command_of_the_page_does_what_it_says() {
    let folder = Folder::new();
    folder.write("p.yaml", NEVER_ENDS);
    let mut first = Some(folder.start(&["run", "p.yaml"]));
    let run = folder.until_run("for the signal `go`");
    let mut holder = None;
    let mut seen = Vec::new();
    for command in commands("a-run-does-not-end") {
        let verb = command.split_whitespace().skip(1).take_while(|word| !word.starts_with('"')).collect::<Vec<_>>().join(" ");
        match verb.as_str() {
            "runs approve" => drop(folder.until_run("for an approval at `ask`")),
            "runs retry" => {
                // The task has failed, and the process that ran it says so.
                let ended = folder.end(first.take().unwrap());
                assert_eq!(ended.code, 1, "{}", ended.err);
                folder.write("mended", "");
            }
            "runs cancel" => {
                holder = Some(folder.start(&["run", "p.yaml"]));
                folder.until_run("for the signal `never`");
            }
            "verify" => assert_eq!(folder.end(holder.take().unwrap()).code, 1),
            _ => {}
        }
        let said = shell(&folder, &run, &command);
        assert_eq!(said.code, 0, "`{command}` said {said:?}");
        match verb.as_str() {
            "runs list" => assert!(said.out.contains(&run) && said.out.contains("never_ends"), "{}", said.out),
            "why" => assert!(said.out.contains("waits for the signal `go`"), "{}", said.out),
            "runs show" => assert!(said.out.contains("hold") && said.out.contains("last"), "{}", said.out),
            _ => {}
        }
        seen.push(verb);
    }
    assert_eq!(seen, ["runs list", "why", "runs show", "runs signal", "runs approve", "runs retry", "runs cancel", "verify"]);
    let shown: Value = folder.json(&["runs", "show", &run]);
    assert_eq!(shown["status"], "cancelled");
}

#[test]
fn every_command_for_somebody_who_is_woken_works_while_the_directory_is_held_and_while_it_is_not() {
    let folder = Folder::new();
    folder.write("p.yaml", &NEVER_ENDS.replace("mode: wait_signal, signal: go", "mode: approval, assignees: ['user:ada'], expires: 1d, fallback: reject"));
    let holder = folder.start(&["run", "p.yaml"]);
    let run = folder.until_run("for an approval at `hold`");
    let all = |folder: &Folder| {
        for command in commands("somebody-is-woken") {
            let said = shell(folder, &run, &command);
            assert_eq!(said.code, 0, "`{command}` said {said:?}");
            let json = shell(folder, &run, &format!("{command} -o json"));
            assert!(serde_json::from_str::<Value>(&json.out).unwrap().is_array(), "{command}: {json:?}");
            if command.ends_with("approvals list") {
                assert!(said.out.contains(&run) && said.out.contains("user:ada"), "{}", said.out);
            }
        }
    };
    all(&folder);
    holder.signal("TERM");
    assert_eq!(folder.end(holder).code, 2);
    all(&folder);
}
