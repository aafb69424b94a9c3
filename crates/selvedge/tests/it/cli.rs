//! The binary from outside: exit codes, messages, the control socket, kills.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use insta::assert_snapshot;
use serde_json::json;

use crate::rig::Folder;

/// Each task notes its key outside, works a little, and gives its input back.
const NOTES: &str = "
selvedge: 1
name: notes
input: { items: { type: array, default: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12] } }
activities:
  note: { exec: [sh, -c, 'echo $SELVEDGE_KEY >> effects; sleep 0.03; cat'], persistent: false, processes: 1 }
stages:
  - { name: each, mode: scatter, over: input.items, call: note }
output: ${stages.each.output}
";

const WAITS: &str = "
selvedge: 1
name: waits
stages:
  - { name: hold, mode: wait_signal, signal: go }
output: ${stages.hold.output}
";

fn folder(pipeline: &str) -> Folder {
    let folder = Folder::new();
    folder.write("p.yaml", pipeline);
    folder
}

#[test]
fn a_verb_where_a_noun_was_meant_says_did_you_mean() {
    let said = Folder::new().selvedge(&["cancel", "run_1"]);
    assert_eq!(said.code, 64);
    assert_snapshot!(said.err, @"selvedge: `cancel` is a verb, its noun comes first: did you mean `selvedge runs cancel` or `selvedge invocations cancel`?");
    assert!(Folder::new().selvedge(&["acters"]).err.contains("a similar subcommand exists: 'actors'"));
}

#[test]
fn help_is_success_and_a_wrong_word_is_usage() {
    let folder = Folder::new();
    assert_eq!(folder.selvedge(&["--help"]).code, 0);
    assert_eq!(folder.selvedge(&["man"]).code, 0);
    assert_eq!(folder.selvedge(&["completions", "bash"]).code, 0);
    assert_eq!(folder.selvedge(&["run"]).code, 64);
    assert_eq!(folder.selvedge(&["run", "p.yaml", "--wrong"]).code, 64);
}

#[test]
fn what_is_wrong_with_configuration_manifest_and_pipeline_is_said_at_once() {
    let folder = folder("selvedge: 1\nname: p\nstages:\n  - { name: a, call: nothing, modee: single }\n");
    folder.write("selvedge.yaml", "limits: { inbx: 3 }\n");
    folder.write("app.yaml", "activities:\n  head: { exec: [sh], proceses: 2 }\n");
    let said = folder.selvedge(&["run", "p.yaml"]);
    assert_eq!(said.code, 78);
    assert_snapshot!(said.err);
    assert!(!folder.join(".selvedge").exists(), "nothing was opened");
}

#[test]
fn an_activity_that_nothing_declares_is_an_error_with_the_nearest_name() {
    let folder = folder(&NOTES.replace("call: note", "call: noet"));
    let said = folder.selvedge(&["run", "p.yaml"]);
    assert_eq!(said.code, 78);
    assert_snapshot!(said.err);
    assert!(folder.selvedge(&["pipelines", "check", "p.yaml"]).err.contains("did you mean `note`?"));
}

#[test]
fn an_input_that_does_not_fit_is_usage() {
    let folder = folder(NOTES);
    assert_snapshot!(folder.selvedge(&["run", "p.yaml", "--input", "{items: 3}"]).err);
    let said = folder.selvedge(&["run", "p.yaml", "--input", r#"{"items": 3}"#]);
    assert_eq!(said.code, 64);
    assert_snapshot!(said.err);
}

#[test]
fn config_show_says_where_each_value_comes_from() {
    let folder = Folder::new();
    folder.write("selvedge.yaml", "workers: 3\n");
    let shown = folder.json(&["config", "show", "--data", "there"]);
    let of = |path: &str| shown.as_array().unwrap().iter().find(|line| line["path"] == path).unwrap().clone();
    assert_eq!(of("workers"), json!({"path": "workers", "value": 3, "origin": "selvedge.yaml"}));
    assert_eq!(of("data"), json!({"path": "data", "value": "there", "origin": "--data"}));
    assert_eq!(of("log.level")["origin"], "default");
}

#[test]
fn the_same_command_goes_on_after_a_kill_and_no_finished_task_runs_again() {
    let folder = folder(NOTES);
    let first = folder.start(&["run", "p.yaml"]);
    folder.until("five tasks", |folder| folder.lines("effects").len() >= 5);
    first.signal("KILL");
    folder.end(first);
    let again = folder.selvedge(&["run", "p.yaml"]);
    assert_eq!(again.code, 0, "{}", again.err);
    assert!(again.err.contains("going on with run_"), "{}", again.err);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&again.out).unwrap(), json!([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]));
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    for key in folder.lines("effects") {
        *times.entry(key).or_default() += 1;
    }
    assert_eq!(times.len(), 12);
    // One process: one task was in flight, and one may have ended in the moment before its end was durable.
    assert!(times.values().filter(|times| **times > 1).count() <= 2, "{times:?}");
    assert_eq!(folder.json(&["runs", "list"]).as_array().unwrap().len(), 1);
    assert_eq!(folder.json(&["verify"])["sound"], true);
}

#[test]
fn looking_at_a_directory_does_none_of_its_work() {
    let folder = folder(NOTES);
    let first = folder.start(&["run", "p.yaml"]);
    folder.until("five tasks", |folder| folder.lines("effects").len() >= 5);
    first.signal("KILL");
    folder.end(first);
    let run = folder.json(&["runs", "list"])[0]["id"].as_str().unwrap().to_owned();
    let before = folder.lines("effects").len();
    assert_eq!(folder.json(&["runs", "show", &run])["state"], "running");
    assert!(folder.selvedge(&["why", &run]).out.contains("waits for"));
    assert_eq!(folder.json(&["verify"])["sound"], true);
    assert!(folder.lines("effects").len() <= before + 1, "only what was in flight at the kill may still have come");
}

#[test]
fn another_version_of_the_file_is_refused_until_new_is_said() {
    let folder = folder(WAITS);
    let first = folder.start(&["run", "p.yaml"]);
    folder.until_run("for the signal `go`");
    first.signal("KILL");
    folder.end(first);
    folder.write("p.yaml", &WAITS.replace("name: hold", "name: held").replace("stages.hold", "stages.held"));
    let refused = folder.selvedge(&["run", "p.yaml"]);
    assert_eq!(refused.code, 78);
    assert!(refused.err.contains("another version of the file") && refused.err.contains("--new"), "{}", refused.err);
    let fresh = folder.start(&["run", "p.yaml", "--new"]);
    folder.until("both runs", |folder| folder.json(&["runs", "list"]).as_array().unwrap().len() == 2);
    fresh.signal("TERM");
    assert!(folder.end(fresh).err.contains("stays open"));
}

#[test]
fn a_second_run_on_a_held_directory_names_the_holder() {
    let folder = folder(WAITS);
    let holder = folder.start(&["run", "p.yaml"]);
    folder.until_run("for the signal `go`");
    let second = folder.selvedge(&["run", "p.yaml"]);
    assert_eq!(second.code, 69);
    let shown = second.err.replace(&holder.pid().to_string(), "PID");
    assert!(shown.contains("is in use by process PID") && shown.contains("selvedge run p.yaml"), "{shown}");
}

#[test]
fn verbs_go_through_the_holder_and_reach_its_run() {
    let folder = folder(WAITS);
    let holder = folder.start(&["run", "p.yaml"]);
    let run = folder.until_run("for the signal `go`");
    let mode = std::fs::metadata(folder.join(".selvedge/control.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(folder.json(&["runs", "show", &run])["stages"][0]["state"], "running");
    assert_eq!(folder.selvedge(&["runs", "pause", &run]).code, 0);
    assert!(folder.selvedge(&["why", &run]).out.contains("paused"));
    assert_eq!(folder.selvedge(&["runs", "resume", &run]).code, 0);
    assert_eq!(folder.selvedge(&["runs", "signal", &run, "go", "--data-json", r#"{"by": "me"}"#]).code, 0);
    let ended = folder.end(holder);
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&ended.out).unwrap(), json!({"by": "me"}));
    assert!(!folder.join(".selvedge/control.sock").exists());
    assert_eq!(folder.json(&["runs", "show", &run])["output"], json!({"by": "me"}));
}

#[test]
fn a_run_is_followed_through_its_holder_to_its_end() {
    let folder = folder(WAITS);
    let holder = folder.start(&["run", "p.yaml"]);
    let run = folder.until_run("for the signal `go`");
    let follower = folder.start(&["runs", "follow", &run]);
    assert_eq!(folder.selvedge(&["runs", "signal", &run, "go"]).code, 0);
    let followed = folder.end(follower);
    assert_eq!(followed.code, 0, "{}", followed.err);
    assert!(followed.out.contains("the signal `go` came, hold took it") && followed.out.contains("the run is completed"), "{}", followed.out);
    assert_eq!(folder.end(holder).code, 0);
    assert_eq!(folder.selvedge(&["runs", "follow", &run]).out, followed.out);
}

#[test]
fn two_stages_that_ask_are_told_apart_by_name() {
    let folder = folder(
        "selvedge: 1\nname: asks\nstages:\n  - { name: a, mode: approval, assignees: ['role:x'], expires: 1d, fallback: reject }\n  - { name: b, mode: approval, depends_on: [], assignees: ['role:y'], expires: 1d, fallback: reject, on_failure: continue }\noutput: { a: '${stages.a.output.by}', b: '${stages.b.output.decision}' }\n",
    );
    let holder = folder.start(&["run", "p.yaml"]);
    let run = folder.until_run("`b` by role:y");
    let unclear = folder.selvedge(&["runs", "approve", &run]);
    assert!(unclear.code == 64 && unclear.err.contains("--stage a or --stage b"), "{}", unclear.err);
    assert_eq!(folder.selvedge(&["runs", "approve", &run, "--stage", "a"]).code, 0);
    assert_eq!(folder.selvedge(&["runs", "reject", &run, "--stage", "b", "--by", "bob", "--comment", "not now"]).code, 0);
    let ended = folder.end(holder);
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&ended.out).unwrap(), json!({"a": "user:ada", "b": "rejected"}));
    assert_eq!(folder.selvedge(&["runs", "approve", &run, "--stage", "a"]).code, 64);
}

#[test]
fn an_approval_for_one_person_is_answered_by_that_person_alone() {
    let folder = folder(
        "selvedge: 1\nname: asks\nstages:\n  - { name: a, mode: approval, assignees: ['user:ada'], expires: 1d, fallback: reject }\noutput: { a: '${stages.a.output.by}' }\n",
    );
    let holder = folder.start(&["run", "p.yaml"]);
    let run = folder.until_run("`a` by user:ada");
    let refused = folder.selvedge(&["runs", "approve", &run, "--by", "bob"]);
    assert!(refused.code == 77 && refused.err.contains("it is for user:ada; say who you are with --by NAME"), "{}", refused.err);
    assert_eq!(folder.selvedge(&["runs", "approve", &run, "--by", "user:ada"]).code, 0);
    let ended = folder.end(holder);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&ended.out).unwrap(), json!({"a": "user:ada"}));
}

#[test]
fn a_pipeline_in_another_folder_runs_with_a_relative_data_directory_and_under_keys_of_its_own() {
    let keys: Vec<String> = (0..2)
        .map(|_| {
            let folder = folder(WAITS);
            std::fs::create_dir_all(folder.join("x")).unwrap();
            std::fs::write(folder.join("x/key.sh"), "echo \"\\\"$SELVEDGE_KEY\\\"\"\n").unwrap();
            let pipeline = "selvedge: 1\nname: keys\nactivities: { key: { exec: [sh, key.sh], persistent: false } }\nstages:\n  - { name: k, call: key }\noutput: '${stages.k.output}'\n";
            std::fs::write(folder.join("x/k.yaml"), pipeline).unwrap();
            let ended = folder.selvedge(&["run", "x/k.yaml"]);
            assert_eq!(ended.code, 0, "{}", ended.err);
            ended.out
        })
        .collect();
    assert_ne!(keys[0], keys[1], "two data directories gave one effect the same key");
}

#[test]
fn a_holder_that_is_stopped_is_named_instead_of_waited_for() {
    let folder = folder(WAITS);
    let holder = folder.start(&["run", "p.yaml"]);
    let run = folder.until_run("for the signal `go`");
    holder.signal("STOP");
    let asked = folder.selvedge(&["runs", "list"]);
    holder.signal("CONT");
    assert!(asked.code == 69 && asked.err.contains("has said nothing for 5 s"), "{} {}", asked.code, asked.err);
    assert_eq!(folder.selvedge(&["runs", "signal", &run, "go"]).code, 0);
    assert_eq!(folder.end(holder).code, 0);
}

#[test]
fn a_result_that_cannot_be_written_is_an_error_and_a_reader_that_has_gone_is_none() {
    let folder = folder(WAITS);
    let to = |out: std::process::Stdio| folder.command(&["pipelines", "check", "p.yaml"]).stdout(out).output().unwrap();
    let full = to(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap().into());
    let said = String::from_utf8_lossy(&full.stderr).into_owned();
    assert!(full.status.code() == Some(1) && said.contains("cannot be written to standard output"), "{said}");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_eq!(to(writer.into()).status.code(), Some(0));
}

#[test]
fn a_failed_run_says_so_in_json() {
    let folder = folder(
        "selvedge: 1\nname: fails\nactivities: { no: { exec: [sh, -c, 'exit 3'], persistent: false, retry: none } }\nstages: [{ name: no, call: no }]\n",
    );
    let ended = folder.selvedge(&["run", "p.yaml", "-o", "json"]);
    assert_eq!(ended.code, 1, "{}", ended.err);
    let said: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(said["state"], "failed");
    assert!(said["error"]["message"].as_str().is_some_and(|text| !text.is_empty()), "{said}");
}

#[test]
fn garbage_on_the_socket_is_answered_with_an_error_and_harms_nobody() {
    let folder = folder(WAITS);
    let holder = folder.start(&["run", "p.yaml"]);
    let run = folder.until_run("for the signal `go`");
    let socket = folder.join(".selvedge/control.sock");
    let ask = |line: &[u8]| {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.write_all(line).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    for line in [&b"hello\n"[..], b"{\"verb\": \"no_such\"}\n", b"\xff\xfe\n", b"{\"verb\": \"runs\"", b"{\"verb\": \"why\", \"id\": 1}\n", b"\n"] {
        let answer: serde_json::Value = serde_json::from_str(&ask(line)).unwrap();
        assert_eq!(answer["error"]["code"], "bad_request", "{answer}");
    }
    assert_eq!(ask(b""), "");
    assert_eq!(folder.selvedge(&["runs", "signal", &run, "go"]).code, 0);
    assert_eq!(folder.end(holder).code, 0);
}

#[test]
fn a_long_path_of_the_data_directory_has_a_socket_too() {
    let folder = folder(WAITS);
    let data = "d".repeat(120);
    let holder = folder.start(&["run", "p.yaml", "--data", &data]);
    folder.until("the socket", |folder| folder.join(&data).join("control.sock").exists());
    folder.until("the run", |folder| folder.selvedge(&["runs", "list", "--data", &data]).out.contains("waits"));
    holder.signal("TERM");
    assert_eq!(folder.end(holder).code, 2);
}

#[test]
fn a_failed_run_ends_with_1_and_says_why() {
    let folder = folder(
        "selvedge: 1\nname: fails\nactivities:\n  no: { exec: [sh, -c, 'echo sorry >&2; exit 3'], persistent: false, retry: { max_attempts: 1 } }\nstages:\n  - { name: a, call: no }\n",
    );
    let said = folder.selvedge(&["run", "p.yaml"]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("exit_3") && said.err.contains("sorry"), "{}", said.err);
}

#[test]
fn a_run_that_is_told_to_end_ends_with_2_and_says_how_to_go_on() {
    let folder = folder(WAITS);
    let run = folder.start(&["run", "p.yaml", "--input", "{}"]);
    folder.until_run("for the signal `go`");
    run.signal("INT");
    let ended = folder.end(run);
    assert_eq!(ended.code, 2);
    assert!(ended.err.contains("selvedge run p.yaml --input '{}'"), "{}", ended.err);
}

#[test]
fn an_actor_that_is_a_script_is_called_and_has_state() {
    let folder = folder(NOTES);
    let answer = r#"{"result": 1, "state": {"set": {"count": 1}}}"#;
    folder.write(
        "app.yaml",
        &format!("actors:\n  tally:\n    handlers:\n      count: {{ exec: [sh, -c, 'cat > /dev/null; echo ''{answer}'''], persistent: false }}\n"),
    );
    assert_eq!(folder.selvedge(&["run", "p.yaml", "--input", r#"{"items": []}"#]).code, 0);
    assert_eq!(folder.json(&["actors", "call", "tally/a", "count"])["result"], 1);
    assert_eq!(folder.json(&["actors", "state", "tally/a"]), json!({"count": 1}));
    let sent = folder.selvedge(&["actors", "send", "tally/b", "count"]);
    let id = sent.out.trim();
    assert!(id.starts_with("inv_") && sent.err.contains("nobody holds"), "{sent:?}");
    assert_ne!(folder.json(&["invocations", "show", id])["status"], "completed");
    assert_eq!(folder.selvedge(&["invocations", "kill", id, "--reason", "a test"]).code, 0);
    assert_eq!(folder.json(&["invocations", "show", id])["status"], "killed");
    assert_eq!(folder.json(&["verify"])["sound"], true);
}

#[test]
fn an_actor_that_is_a_slow_script_is_answered() {
    let folder = folder(NOTES);
    folder.write(
        "app.yaml",
        "actors:\n  tally:\n    handlers:\n      count: { exec: [sh, -c, 'cat > /dev/null; sleep 3; echo ''{\"result\": 1}'''], persistent: false }\n",
    );
    assert_eq!(folder.selvedge(&["run", "p.yaml", "--input", r#"{"items": []}"#]).code, 0);
    assert_eq!(folder.json(&["actors", "call", "tally/a", "count"])["result"], 1);
}

#[test]
fn what_is_not_there_is_usage_and_says_so() {
    let folder = folder(NOTES);
    let said = folder.selvedge(&["runs", "list"]);
    assert_eq!(said.code, 64);
    assert_snapshot!(said.err, @"selvedge: there is no data directory ./.selvedge: `selvedge run PIPELINE.yaml` makes one, `--data DIR` names another");
    assert_eq!(folder.selvedge(&["run", "p.yaml", "--input", r#"{"items": []}"#]).code, 0);
    assert_eq!(folder.selvedge(&["why", "run_1"]).code, 64);
    assert_eq!(folder.selvedge(&["why", "inv_00000000000000000000000000000"]).code, 64);
    assert_eq!(folder.selvedge(&["actors", "state", "nothing"]).code, 64);
}

#[test]
fn a_foreign_directory_is_a_configuration_error_and_stays_as_it_was() {
    let folder = folder(NOTES);
    std::fs::create_dir(folder.join("mine")).unwrap();
    folder.write("mine/letter.txt", "dear");
    let said = folder.selvedge(&["run", "p.yaml", "--data", "mine"]);
    assert_eq!(said.code, 78);
    assert!(said.err.contains("is no data directory"), "{}", said.err);
    assert_eq!(std::fs::read_dir(folder.join("mine")).unwrap().count(), 1);
}
