//! What the command line says to somebody who does not know it, or who is woken.

use serde_json::json;

use crate::rig::Folder;

const ASKS: &str = "
selvedge: 1
name: asks
input: { cents: { type: integer } }
stages:
  - { name: review, mode: approval, assignees: ['user:ada', 'role:ops'], show: { cents: '${input.cents}' }, expires: 1d, fallback: reject }
  - { name: second, mode: approval, assignees: ['user:ada'], expires: 1d, fallback: reject }
output: done
";

#[test]
fn a_verb_that_its_noun_does_not_have_is_told_the_ones_that_it_has() {
    let folder = Folder::new();
    let said = folder.selvedge(&["runs", "lst"]);
    assert_eq!(said.code, 64);
    assert!(said.err.starts_with("selvedge: `runs` has no verb `lst`: did you mean `selvedge runs list`? It has list, show, "), "{}", said.err);
    let said = folder.selvedge(&["--data", "x", "approvals", "redrive", "run_1"]);
    assert_eq!(said.err.trim_end(), "selvedge: `approvals` has no verb `redrive`: It has list, show, approve, reject");
    assert!(folder.selvedge(&["run", "list"]).err.contains("did you mean `selvedge runs list`?"));
}

#[test]
fn whatever_is_wrong_is_said_under_the_name_of_the_program() {
    let folder = Folder::new();
    for words in [&["acters"][..], &["run"], &["stuck", "--longer-than", "x"], &["runs", "list", "-o", "yaml"], &["completions", "x"], &["show"]] {
        let said = folder.selvedge(words);
        assert!(said.code == 64 && said.err.starts_with("selvedge: "), "{words:?}: {said:?}");
    }
}

#[test]
fn an_approval_shows_what_it_is_about_before_and_after_its_answer() {
    let folder = Folder::new();
    folder.write("p.yaml", ASKS);
    let holder = folder.start(&["run", "p.yaml", "--input", r#"{"cents": 70000}"#]);
    let run = folder.until_run("for an approval at `review`");
    let shown = folder.json(&["approvals", "show", &run]);
    assert_eq!((&shown["status"], &shown["show"], &shown["stage"]), (&json!("open"), &json!({"cents": 70000}), &json!("review")));
    let said = folder.selvedge(&["approvals", "show", &run]);
    assert!(said.out.contains("review asks user:ada, role:ops since ") && said.out.contains("\"cents\": 70000"), "{said:?}");
    assert!(said.err.contains(&format!("selvedge approvals approve {run} --stage review")), "{said:?}");
    assert_eq!(folder.selvedge(&["approvals", "approve", &run, "--by", "ada", "--comment", "she has paid before"]).code, 0);
    folder.until_run("for an approval at `second`");
    holder.signal("KILL");
    folder.end(holder);
    // Nobody holds it now. The one that asks is shown, unless another one is named.
    let said = folder.selvedge(&["approvals", "show", &run]);
    assert!(said.out.contains("second asks user:ada since") && said.out.contains("it shows nothing"), "{said:?}");
    let said = folder.selvedge(&["approvals", "show", &run, "--stage", "review"]);
    assert!(said.out.contains("review was approved by user:ada at ") && said.out.contains("she has paid before"), "{said:?}");
    assert!(said.out.contains("\"cents\": 70000"), "{said:?}");
    let said = folder.selvedge(&["approvals", "show", &run, "--stage", "thrid"]);
    assert!(said.code == 64 && said.err.contains("`thrid` asks nobody: --stage review or --stage second does or did"), "{said:?}");
}

#[test]
fn who_looks_at_open_work_that_nobody_does_is_told_so() {
    let folder = Folder::new();
    folder.write("p.yaml", "selvedge: 1\nname: p\nstages:\n  - { name: hold, mode: wait_signal, signal: go }\n");
    let holder = folder.start(&["run", "p.yaml"]);
    let run = folder.until_run("for the signal `go`");
    let unheld = "nobody holds the data directory, so nothing in it goes on";
    let looks: [&[&str]; 3] = [&["why", &run], &["runs", "show", &run], &["stuck", "--longer-than", "1ms"]];
    for words in looks {
        assert!(!folder.selvedge(words).err.contains(unheld), "{words:?}");
    }
    holder.signal("KILL");
    folder.end(holder);
    for words in looks {
        let said = folder.selvedge(words);
        assert!(said.code == 0 && said.err.contains(unheld), "{words:?}: {said:?}");
    }
    // The last signal that it waits for ends it: said again, the command that started it would start another run.
    let said = folder.selvedge(&["runs", "signal", &run, "go"]);
    assert!(said.code == 0 && said.err.contains("has ended: completed.") && !said.err.contains("goes on"), "{said:?}");
    for words in &looks[..2] {
        let said = folder.selvedge(words);
        assert!(said.code == 0 && said.err.is_empty(), "{words:?}: {said:?}");
    }
}

#[test]
fn stuck_counts_from_what_last_moved_a_run_on_and_failed_attempts_do_not() {
    let folder = Folder::new();
    folder.write(
        "p.yaml",
        "
selvedge: 1
name: p
activities:
  first: { exec: [sh, -c, 'sleep 0.3'], persistent: false }
  brittle: { exec: [sh, -c, 'echo try >> tries; exit 1'], persistent: false, retry: { max_attempts: 1000, initial: 20ms, max: 20ms } }
stages:
  - { name: first, call: first }
  - { name: second, call: brittle }
",
    );
    let holder = folder.start(&["run", "p.yaml"]);
    folder.until("five attempts", |folder| folder.lines("tries").len() >= 5);
    holder.signal("KILL");
    folder.end(holder);
    let stuck = folder.json(&["stuck", "--longer-than", "1ms"]);
    let run = stuck[0]["id"].as_str().unwrap().to_owned();
    let journal = folder.json(&["runs", "journal", &run]);
    let begins =
        |event: &&serde_json::Value| event["happened"].to_string().contains(r#""stage":"second""#) && event["happened"].to_string().contains("running");
    let begun = journal.as_array().unwrap().iter().find(begins).unwrap();
    assert_eq!(stuck[0]["since"], begun["at"], "{journal}");
    assert_ne!(stuck[0]["since"], folder.json(&["runs", "list"])[0]["started_at"]);
}

#[test]
fn why_names_the_binary_that_lacks_the_code() {
    let folder = Folder::new();
    let handlers = |names: &[&str]| {
        let lines: String = names.iter().map(|name| format!("      {name}: {{ exec: [sh, -c, 'cat'], persistent: false }}\n")).collect();
        format!("actors:\n  tally:\n    handlers:\n{lines}")
    };
    folder.write("app.yaml", &handlers(&["count", "old"]));
    folder.write("p.yaml", "selvedge: 1\nname: p\nstages:\n  - { name: hold, mode: wait_signal, signal: go }\n");
    let holder = folder.start(&["run", "p.yaml"]);
    folder.until_run("for the signal `go`");
    holder.signal("KILL");
    folder.end(holder);
    let id = folder.selvedge(&["actors", "send", "tally/a", "old"]).out.trim().to_owned();
    folder.write("app.yaml", &handlers(&["count"]));
    let holder = folder.start(&["run", "p.yaml"]);
    folder.until_run("for the signal `go`");
    folder.until("it is blocked", |folder| folder.selvedge(&["why", &id]).out.contains("blocked"));
    let why = folder.selvedge(&["why", &id]).out;
    let binary = env!("CARGO_BIN_EXE_selvedge");
    assert!(why.contains("it needs the handler tally.old, which this binary does not have"), "{why}");
    assert!(why.contains(&format!("This binary is {binary} (selvedge {}, written 20", env!("CARGO_PKG_VERSION"))), "{why}");
    assert!(!folder.selvedge(&["why", &folder.until_run("for the signal `go`")]).out.contains("This binary"));
    drop(holder);
}
