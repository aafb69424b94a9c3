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
pub fn commands(page: &str) -> Vec<String> {
    let page = std::fs::read_to_string(format!("{}/../../docs/runbooks/{page}.md", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let blocks = page.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap().trim().to_owned());
    blocks.filter(|block| !["RUN=", "LETTER=", "BACKUP=", "EXPORT=", "INV="].iter().any(|set| block.starts_with(set))).collect()
}

pub fn shell(folder: &Folder, run: &str, command: &str) -> Said {
    let bin = std::path::Path::new(env!("CARGO_BIN_EXE_selvedge")).parent().unwrap().display().to_string();
    let path = format!("{bin}:{}", std::env::var("PATH").unwrap_or_default());
    let output = Command::new("sh")
        .args(["-c", command])
        .current_dir(folder.path())
        .env("PATH", path)
        .env("RUN", run)
        .env("LETTER", run)
        .env("INV", run)
        .env("BACKUP", folder.join("backup"))
        .env("RESTORED", folder.join("restored"))
        .env("EXPORT", folder.join("export.jsonl"))
        .env("MOVED", folder.join("moved"))
        .output()
        .unwrap();
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
            "runs journal" => assert!(said.out.contains("    0  ") && said.out.contains("hold"), "{}", said.out),
            _ => {}
        }
        seen.push(verb);
    }
    assert_eq!(seen, ["runs list", "why", "runs show", "runs journal", "runs signal", "runs approve", "runs retry", "runs cancel", "verify"]);
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

#[test]
fn every_command_for_dead_letters_works_while_the_directory_is_held_and_while_it_is_not() {
    let folder = Folder::new();
    folder.write("p.yaml", "selvedge: 1\nname: p\nstages: [{ name: hold, mode: wait_signal, signal: go }]\n");
    folder.write(
        "app.yaml",
        "actors:\n  order:\n    handlers:\n      pay: { exec: [sh, -c, 'grep -q amount || exit 3; echo ''{}'''], persistent: false, retry: none }\n",
    );
    let letters = |folder: &Folder| folder.json(&["dead-letters", "list"]).as_array().unwrap().clone();
    let holder = folder.start(&["run", "p.yaml"]);
    let run = folder.until_run("for the signal `go`");
    let all = |folder: &Folder| {
        let mut seen = Vec::new();
        let before = letters(folder).len();
        let mut letter = letters(folder)[0]["id"].as_str().unwrap().to_owned();
        for command in commands("dead-letters") {
            let said = shell(folder, &letter, &command);
            assert_eq!(said.code, 0, "`{command}` said {said:?}");
            let verb = command.split_whitespace().nth(2).unwrap().to_owned();
            match verb.as_str() {
                "show" => assert!(said.out.contains("input: {") && said.out.contains("exit_3"), "{}", said.out),
                "redrive" if command.contains("--input") => assert_eq!(letters(folder).len(), before - 2, "{said:?}"),
                "redrive" => {
                    assert!(said.out.starts_with("inv_"), "{said:?}");
                    letter = letters(folder)[0]["id"].as_str().unwrap().to_owned();
                }
                _ => {}
            }
            seen.push(verb);
        }
        assert_eq!(seen, ["list", "show", "redrive", "redrive", "list"]);
    };
    for n in 0..4 {
        assert_eq!(folder.selvedge(&["actors", "send", &format!("order/{n}"), "pay", "--input", r#"{"n": 1}"#]).code, 0);
    }
    folder.until("four letters", |folder| letters(folder).len() == 4);
    // What is sent again fails again: stopped, the handler keeps the count still.
    holder.signal("TERM");
    assert_eq!(folder.end(holder).code, 2);
    all(&folder);
    let holder = folder.start(&["run", "p.yaml"]);
    folder.until("the one that was not mended is a letter again", |folder| folder.join(".selvedge/control.sock").exists() && letters(folder).len() == 3);
    let letter = letters(&folder)[0]["id"].as_str().unwrap().to_owned();
    for command in commands("dead-letters").iter().filter(|command| !command.ends_with("redrive \"$LETTER\"")) {
        let said = shell(&folder, &letter, command);
        assert_eq!(said.code, 0, "`{command}` said {said:?}");
    }
    folder.until("one less", |folder| letters(folder).len() == 2);
    assert_eq!(folder.selvedge(&["runs", "signal", &run, "go"]).code, 0);
    assert_eq!(folder.end(holder).code, 0);
    assert_eq!(folder.json(&["verify"])["sound"], true);
}

/// Five tasks end; the sixth waits for `gate`.
const GATED: &str = "
selvedge: 1
name: gated
activities:
  note:
    exec: [sh, -c, 'echo $SELVEDGE_KEY >> effects; if test $(wc -l < effects) -ge 6; then until test -e gate; do sleep 0.02; done; fi; cat']
    persistent: false
    processes: 1
stages:
  - { name: each, mode: scatter, over: input.items, call: note }
input: { items: { type: array, default: [1, 2, 3, 4, 5, 6, 7, 8] } }
output: ${stages.each.output}
";

#[test]
fn a_run_that_was_backed_up_while_it_was_going_goes_on_in_the_restored_directory() {
    let folder = Folder::new();
    folder.write("p.yaml", GATED);
    let holder = folder.start(&["run", "p.yaml"]);
    folder.until("the sixth task", |folder| folder.lines("effects").len() == 6);
    let run = folder.json(&["runs", "list"])[0]["id"].as_str().unwrap().to_owned();
    folder.until("five ended", |folder| folder.json(&["runs", "show", &run])["stages"][0]["done"] == 5);
    let all = commands("backup");
    assert_eq!(all.len(), 4);
    for command in &all {
        let said = shell(&folder, &run, command);
        assert_eq!(said.code, 0, "`{command}` said {said:?}");
        assert!(!command.contains("runs list") || said.out.contains(&run), "{said:?}");
    }
    for command in &all[..2] {
        let said = shell(&folder, &run, command);
        assert!(said.code != 0 && said.err.contains("is not empty: nothing was written"), "`{command}` said {said:?}");
    }
    holder.signal("KILL");
    folder.end(holder);
    folder.write("gate", "");
    let ended = folder.selvedge(&["run", "p.yaml", "--data", "restored"]);
    assert!(ended.code == 0 && ended.err.contains(&format!("going on with {run}")), "{ended:?}");
    assert_eq!(serde_json::from_str::<Value>(&ended.out).unwrap(), serde_json::json!([1, 2, 3, 4, 5, 6, 7, 8]));
    let keys = folder.lines("effects");
    assert!(keys[..5].iter().all(|key| keys.iter().filter(|other| *other == key).count() == 1), "what had ended is not done again: {keys:?}");
    let alone = folder.json(&["backup", "--to", "second", "--data", "restored"]);
    assert!(alone["rows"].as_u64().unwrap() > 0 && folder.join("second/rows").exists(), "{alone}");
    std::fs::write(folder.join("second/rows"), "x").unwrap();
    let damaged = folder.selvedge(&["restore", "--from", "second", "--data", "third"]);
    assert!(damaged.code == 64 && damaged.err.contains("second/rows is not whole"), "{damaged:?}");
}

#[test]
fn the_commands_of_the_page_on_exports_move_open_work_to_another_number_of_shards() {
    let folder = Folder::new();
    folder.write("p.yaml", NEVER_ENDS);
    let holder = folder.start(&["run", "p.yaml"]);
    let run = folder.until_run("for the signal `go`");
    let all = commands("export");
    assert_eq!(all.len(), 6);
    for command in &all {
        let said = shell(&folder, &run, command);
        assert_eq!(said.code, 0, "{command}: {}", said.err);
        assert!(!command.contains("runs list") || said.out.contains(&run), "{}", said.out);
        assert!(!command.starts_with("grep") || said.out.trim() == "1", "{}", said.out);
    }
    drop(holder);
    let signalled = folder.selvedge(&["runs", "signal", &run, "go", "--data", "moved"]);
    assert_eq!(signalled.code, 0, "{}", signalled.err);
    let goes_on = folder.start(&["run", "p.yaml", "--data", "moved"]);
    folder.until("the moved run to go on", |folder| folder.selvedge(&["why", &run, "--data", "moved"]).out.contains("an approval at `ask`"));
    drop(goes_on);
}
