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
    for (path, value) in [
        ("policies.step.retry.max_attempts", json!(10)),
        ("policies.step.retry.max", json!("1m")),
        ("policies.step.timeout.attempt", json!("5m")),
        ("policies.message.retry.max_attempts", json!(1000)),
        ("policies.message.retry.max", json!("10m")),
        ("policies.breaker.open_for", json!("30s")),
        ("policies.approval.expires", json!("7d")),
        ("policies.approval.fallback", json!("reject")),
    ] {
        assert_eq!(of(path)["value"], value, "{path}");
        assert!(of(path)["origin"].as_str().unwrap().starts_with("built in"));
    }
    assert_eq!(folder.json(&["config", "check"])["written"], 1);
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
    assert_eq!(folder.json(&["runs", "show", &run])["status"], "running");
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
    assert_eq!(folder.json(&["runs", "show", &run])["stages"][0]["status"], "running");
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
    assert_eq!(folder.selvedge(&["runs", "reject", &run, "--stage", "a"]).code, 64);
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
    // A stop reaches one thread after the other.
    let stopped = |task: std::io::Result<std::fs::DirEntry>| std::fs::read_to_string(task.unwrap().path().join("stat")).is_ok_and(|stat| stat.contains(") T "));
    while !std::fs::read_dir(format!("/proc/{}/task", holder.pid())).unwrap().all(stopped) {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let asked = folder.selvedge(&["runs", "list"]);
    holder.signal("CONT");
    assert!(
        asked.code == 69
            && asked.err.contains("has said nothing for 5 s")
            && asked.err.contains(&format!("process {}", holder.pid()))
            && asked.err.contains("run p.yaml`, since 20"),
        "{} {}",
        asked.code,
        asked.err
    );
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
    assert_eq!(said["status"], "failed");
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

#[test]
fn the_version_of_a_file_is_the_same_everywhere() {
    let versions: Vec<String> = (0..2)
        .map(|_| {
            let folder = folder(NOTES);
            let checked = folder.json(&["pipelines", "check", "p.yaml"])["ok"][0]["version"].as_str().unwrap().to_owned();
            assert_eq!(folder.selvedge(&["run", "p.yaml", "--input", r#"{"items": []}"#]).code, 0);
            let run = folder.json(&["runs", "list"])[0]["id"].as_str().unwrap().to_owned();
            assert_eq!(folder.json(&["runs", "show", &run])["version"], checked.as_str());
            checked
        })
        .collect();
    assert_eq!(versions[0], versions[1]);
}

#[test]
fn a_signal_that_no_stage_waits_for_is_refused_with_the_nearest_name_and_a_key_delivers_once() {
    let folder = folder(
        "selvedge: 1\nname: two\nstages:\n  - { name: a, mode: wait_signal, signal: first }\n  - { name: b, mode: wait_signal, signal: second }\n  - { name: c, mode: wait_signal, signal: second }\n",
    );
    let holder = folder.start(&["run", "p.yaml"]);
    let run = folder.until_run("for the signal `first`");
    let wrong = folder.selvedge(&["runs", "signal", &run, "frist"]);
    assert!(wrong.code == 64 && wrong.err.contains("did you mean `first`?"), "{wrong:?}");
    for _ in 0..2 {
        assert_eq!(folder.selvedge(&["runs", "signal", &run, "second", "--idempotency-key", "k"]).code, 0);
    }
    let other = folder.selvedge(&["runs", "signal", &run, "second", "--idempotency-key", "k", "--data-json", "1"]);
    assert!(other.code == 64 && other.err.contains("another payload"), "{other:?}");
    assert_eq!(folder.selvedge(&["runs", "signal", &run, "first"]).code, 0);
    folder.until_run("for the signal `second`");
    folder.until("one of the two has it", |folder| folder.json(&["runs", "show", &run])["stages"][1]["status"] == "completed");
    assert_eq!(folder.json(&["runs", "show", &run])["stages"][2]["status"], "running");
    let late = folder.selvedge(&["runs", "signal", &run, "first"]);
    assert!(late.code == 64 && late.err.contains("waits no more for the signal `first`"), "{late:?}");
    assert_eq!(folder.selvedge(&["runs", "signal", &run, "second"]).code, 0);
    assert_eq!(folder.end(holder).code, 0);
    assert_eq!(folder.json(&["verify"])["sound"], true);
}

#[test]
fn what_a_stage_went_on_without_and_the_reason_of_a_cancel_are_shown() {
    let folder = folder(
        "selvedge: 1\nname: goes_on\nactivities: { no: { exec: [sh, -c, 'exit 3'], persistent: false, retry: none } }\nstages:\n  - { name: no, call: no, on_failure: continue }\n  - { name: ask, mode: approval, assignees: ['user:ada'], expires: 1d, fallback: reject }\n  - { name: hold, mode: wait_signal, signal: go }\n",
    );
    let holder = folder.start(&["run", "p.yaml"]);
    let run = folder.until_run("`ask` by user:ada");
    assert_eq!(folder.json(&["approvals", "list"])[0]["status"], "open");
    assert_eq!(folder.selvedge(&["approvals", "approve", &run, "--comment", "fine by me"]).code, 0);
    folder.until_run("for the signal `go`");
    assert_eq!(folder.selvedge(&["runs", "cancel", &run, "--reason", "the tenant left"]).code, 0);
    assert_eq!(folder.end(holder).code, 1);
    let shown = folder.json(&["runs", "show", &run]);
    assert_eq!(shown["failures"][0]["error"]["code"], "exit_3");
    assert!(shown["reason"].as_str().unwrap().contains("the tenant left"), "{shown}");
    let said = folder.selvedge(&["runs", "show", &run]).out;
    for words in ["\nno           1 ", "exit_3", "the tenant left", "ask was approved by user:ada at 20", "fine by me"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(folder.selvedge(&["why", &run]).out.contains("the tenant left"));
    let list = folder.selvedge(&["approvals", "list"]).out;
    assert!(list.contains("approved") && list.contains("user:ada") && list.contains("fine by me"), "{list}");
}

#[test]
fn a_profile_is_shown_with_where_it_was_written() {
    let folder = Folder::new();
    let profile = |folder: &Folder| folder.json(&["config", "show"]).as_array().unwrap().iter().find(|line| line["path"] == "profile").unwrap().clone();
    assert_eq!(profile(&folder), json!({"path": "profile", "value": null, "origin": "default"}));
    folder.write("selvedge.yaml", "profile: production\n");
    assert_eq!(profile(&folder), json!({"path": "profile", "value": "production", "origin": "selvedge.yaml"}));
}

/// A folder with a finished run, and an actor type that is a script.
fn with_actor(script: &str) -> Folder {
    let folder = folder(NOTES);
    folder.write("app.yaml", &format!("actors:\n  tally:\n    handlers:\n      count: {{ exec: [sh, -c, '{script}'], persistent: false }}\n"));
    assert_eq!(folder.selvedge(&["run", "p.yaml", "--input", r#"{"items": []}"#]).code, 0);
    folder
}

#[test]
fn the_state_of_an_unknown_type_is_an_error_and_no_state_is_empty() {
    let folder = with_actor("cat");
    let said = folder.selvedge(&["actors", "state", "taly/x"]);
    assert_eq!(said.code, 64);
    assert_snapshot!(said.err, @"selvedge: there is no actor type `taly` here: did you mean `tally`?");
    let none = folder.selvedge(&["actors", "state", "tally/x"]);
    assert!(none.code == 0 && none.out.trim() == "{}" && none.err.contains("tally/x has no state"), "{none:?}");
}

#[test]
fn a_call_that_is_waited_for_no_longer_goes_on() {
    let folder = with_actor("cat > /dev/null; until test -e go; do sleep 0.05; done; echo ''{\"result\": 1}''");
    let mut id = folder.selvedge(&["actors", "call", "tally/a", "count", "--no-wait"]).out.trim().to_owned();
    assert!(id.starts_with("inv_"), "{id}");
    let late = folder.selvedge(&["actors", "call", "tally/b", "count", "--wait", "300ms"]);
    assert!(late.code == 2 && late.err.contains("the time of --wait is up") && late.err.contains("selvedge invocations show inv_"), "{late:?}");
    let call = folder.start(&["actors", "call", "tally/c", "count"]);
    folder.until("it holds the directory", |folder| folder.join(".selvedge/control.sock").exists());
    folder.until("it is accepted", |folder| {
        let shown = folder.selvedge(&["invocations", "show", &id, "-o", "json"]);
        shown.code == 0
    });
    std::thread::sleep(std::time::Duration::from_millis(300));
    call.signal("INT");
    let stopped = folder.end(call);
    assert!(stopped.code == 2 && stopped.err.contains("is accepted and it goes on"), "{stopped:?}");
    let words: Vec<&str> = stopped.err.split_whitespace().filter(|word| word.starts_with("inv_")).collect();
    id = words[0].to_owned();
    folder.write("go", "");
    assert_eq!(folder.json(&["actors", "call", "tally/c", "count"])["result"], 1);
    assert_eq!(folder.json(&["invocations", "show", &id])["status"], "completed");
}

#[test]
fn an_id_of_the_wrong_kind_is_told_which_verb_shows_it() {
    let folder = with_actor("cat");
    let run = folder.json(&["runs", "list"])[0]["id"].as_str().unwrap().to_owned();
    let id = folder.selvedge(&["actors", "send", "tally/a", "count"]).out.trim().to_owned();
    assert!(folder.selvedge(&["runs", "show", &id]).err.contains(&format!("`selvedge invocations show {id}` shows it")));
    assert!(folder.selvedge(&["invocations", "show", &run]).err.contains(&format!("`selvedge runs show {run}` shows it")));
    assert!(folder.selvedge(&["why", "tally/a"]).err.contains("`selvedge actors state tally/a` shows it"));
    assert!(folder.selvedge(&["why", "x"]).err.contains("`selvedge runs list` has them"));
    assert!(folder.selvedge(&["run", "show", &run]).err.contains("did you mean `selvedge runs show`?"));
    assert!(folder.selvedge(&["start", "p.yaml"]).err.contains("`selvedge run FILE`"));
}

#[test]
fn a_script_that_is_not_there_is_a_configuration_error_before_anything_starts() {
    let folder = folder(
        "selvedge: 1\nname: p\nactivities: { a: { exec: [python3, nothing.py] }, b: { exec: [./none], persistent: false } }\nstages:\n  - { name: a, call: a }\n  - { name: b, call: b }\n",
    );
    let said = folder.selvedge(&["run", "p.yaml"]);
    assert!(said.code == 78 && said.err.contains("the script `nothing.py` is not there") && said.err.contains("the program `./none` is not there"), "{said:?}");
    assert!(!folder.join(".selvedge").exists());
}

#[test]
fn a_worker_that_ends_before_its_hello_is_told_of_the_client_and_of_persistent_false() {
    let folder = folder("selvedge: 1\nname: p\nactivities: { a: { exec: [sh, -c, 'echo 1'], retry: none } }\nstages: [{ name: a, call: a }]\n");
    let said = folder.selvedge(&["run", "p.yaml"]);
    assert!(said.code == 1 && said.err.contains("`persistent: false`") && said.err.contains("selvedge.py"), "{said:?}");
}

#[test]
fn a_data_directory_above_is_mentioned_and_one_without_meta_is_damage() {
    let folder = with_actor("cat");
    std::fs::create_dir(folder.join("below")).unwrap();
    let below = folder.command(&["runs", "list"]).current_dir(folder.join("below")).output().unwrap();
    let said = String::from_utf8_lossy(&below.stderr).into_owned();
    assert!(below.status.code() == Some(64) && said.contains("but there is") && said.contains("--data"), "{said}");
    std::fs::remove_file(folder.join(".selvedge/meta")).unwrap();
    for words in [&["run", "p.yaml"][..], &["runs", "list"]] {
        let said = folder.selvedge(words);
        assert!(said.code == 78 && said.err.contains("is damaged: `meta` is missing"), "{said:?}");
    }
    assert!(!folder.join(".selvedge/meta").exists());
}

#[test]
fn a_second_run_names_the_run_to_follow() {
    let folder = folder(WAITS);
    let holder = folder.start(&["run", "p.yaml"]);
    let run = folder.until_run("for the signal `go`");
    let second = folder.selvedge(&["run", "p.yaml"]);
    assert!(second.err.contains(&format!("`selvedge runs follow {run}`")), "{}", second.err);
    assert_eq!(folder.selvedge(&["runs", "signal", &run, "go"]).code, 0);
    assert_eq!(folder.end(holder).code, 0);
}

#[test]
fn what_is_open_for_longer_is_listed_oldest_first_with_its_sentence() {
    let folder = with_actor("cat");
    let first = folder.selvedge(&["actors", "send", "tally/a", "count"]).out.trim().to_owned();
    let second = folder.selvedge(&["actors", "send", "tally/b", "count"]).out.trim().to_owned();
    let ids = |words: &[&str]| folder.json(words).as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(ids(&["stuck", "--longer-than", "1ms"]), [first.clone(), second.clone()]);
    assert_eq!(ids(&["invocations", "list"]), [second.clone(), first.clone()]);
    assert_eq!(folder.selvedge(&["stuck"]).out.trim(), "nothing has waited for longer than its type expects (`expected_within`, or else 1 h)");
    assert!(folder.selvedge(&["stuck", "--longer-than", "1ms"]).out.contains(&format!("{first} (")));
    assert_eq!(folder.selvedge(&["invocations", "kill", &first, "--reason", "a test"]).code, 0);
    assert_eq!(ids(&["invocations", "list"]), std::slice::from_ref(&second));
    assert_eq!(ids(&["invocations", "list", "--all"]).len(), 2);
}

#[test]
fn doctor_says_what_to_do_about_a_script_that_has_gone() {
    let folder = folder(WAITS);
    folder.write("app.yaml", "activities:\n  a: { exec: [sh, a.sh], persistent: false }\n");
    folder.write("a.sh", "cat");
    let holder = folder.start(&["run", "p.yaml"]);
    let run = folder.until_run("for the signal `go`");
    let well = folder.selvedge(&["doctor"]);
    assert!(well.code == 0 && well.out.lines().count() == 11 && well.out.contains("ok    executors: 1 program declared"), "{well:?}");
    std::fs::remove_file(folder.join("a.sh")).unwrap();
    let held = folder.selvedge(&["doctor"]);
    assert!(held.code == 1 && held.out.contains("LOOK  executors: `a`: the script `a.sh` is not there"), "{held:?}");
    assert_eq!(folder.selvedge(&["runs", "signal", &run, "go"]).code, 0);
    assert_eq!(folder.end(holder).code, 0);
    let alone = folder.selvedge(&["doctor"]);
    assert!(alone.code == 1 && alone.out.contains("the script `a.sh` is not there"), "{alone:?}");
}

/// The names in a JSON value, nested, without their values.
fn shape(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Object(entries) => {
            let mut names: Vec<String> = entries.iter().map(|(name, value)| format!("{name}{}", shape(value))).collect();
            names.sort();
            format!("{{{}}}", names.join(" "))
        }
        serde_json::Value::Array(items) => items.first().map_or_else(|| "[]".to_owned(), |first| format!("[{}]", shape(first))),
        _ => String::new(),
    }
}

#[test]
fn every_json_shape_uses_one_word_for_one_thing() {
    let folder = with_actor("cat > /dev/null; echo ''{\"result\": 1}''");
    let id = folder.json(&["actors", "send", "tally/a", "count"])["id"].as_str().unwrap().to_owned();
    let run = folder.json(&["runs", "list"])[0]["id"].as_str().unwrap().to_owned();
    let verbs: [&[&str]; 8] = [
        &["runs", "list"],
        &["runs", "show", &run],
        &["why", &run],
        &["why", &id],
        &["invocations", "list"],
        &["invocations", "show", &id],
        &["stuck", "--longer-than", "1ms"],
        &["doctor"],
    ];
    let shapes: Vec<String> = verbs
        .iter()
        .map(|words| format!("{}: {}", words[..words.len().min(2)].join(" ").replace(&run, "RUN").replace(&id, "INV"), shape(&folder.json(words))))
        .collect();
    let shapes = shapes.join("\n");
    assert!(!shapes.contains("state"), "{shapes}");
    assert_snapshot!(shapes);
}

#[test]
fn why_follows_what_a_run_waits_for_to_the_end() {
    let folder = folder(NOTES);
    folder.write(
        "app.yaml",
        "actors:\n  tally:\n    handlers:\n      count: { exec: [sh, -c, 'cat > /dev/null; until test -e go; do sleep 0.05; done; echo ''{\"result\": 1}'''], persistent: false }\npipelines: [below.yaml]\n",
    );
    folder.write("below.yaml", "selvedge: 1\nname: below\nstages:\n  - { name: ask, call: { actor: tally, key: a, handler: count } }\n");
    folder.write("above.yaml", "selvedge: 1\nname: above\nstages:\n  - { name: down, call: { pipeline: below } }\n");
    let running = folder.start(&["run", "above.yaml"]);
    let above = |folder: &Folder| {
        let said = folder.selvedge(&["runs", "list", "-o", "json"]);
        let runs: serde_json::Value = serde_json::from_str(&said.out).ok()?;
        let found = runs.as_array().into_iter().flatten().find(|run| run["pipeline"] == "above")?["id"].as_str()?.to_owned();
        Some(found)
    };
    let then = |folder: &Folder| above(folder).map(|run| folder.json(&["why", &run])["then"].clone());
    folder.until("the call of the run below", |folder| then(folder).is_some_and(|then| then.as_array().is_some_and(|then| then.len() == 2)));
    let run = above(&folder).unwrap();
    let told = folder.selvedge(&["why", &run]).out;
    let lines: Vec<&str> = told.lines().collect();
    assert!(lines[0].contains("(above) waits") && lines[1].contains("(below) waits") && lines[2].contains("tally/a.count"), "{told}");
    assert!(lines[2].contains("waits for `count`, attempt 1"), "{told}");
    // For programs the times are text, as everywhere else.
    let call = then(&folder).unwrap()[1]["id"].as_str().unwrap().to_owned();
    let why = folder.json(&["why", &call]);
    assert!(why["waiting"][0]["since"].as_str().is_some_and(|since| since.ends_with('Z')), "{why}");
    folder.write("go", "");
    assert_eq!(folder.end(running).code, 0);
}

#[test]
fn a_folder_that_init_has_made_runs_is_tested_and_is_never_overwritten() {
    let folder = Folder::new();
    let said = folder.selvedge(&["init", "mine"]);
    assert!(said.code == 0 && said.out.contains("cd mine && selvedge run pipeline.yaml"), "{said:?}");
    let inside = |command: &str, words: &[&str]| {
        // The README has whoever follows it set `SELVEDGE` to a checkout.
        let mut command = std::process::Command::new(command);
        let command = command.args(words).current_dir(folder.join("mine")).env("SELVEDGE", folder.path());
        let done = command.env("SELVEDGE_BINARY", env!("CARGO_BIN_EXE_selvedge")).output().unwrap();
        (done.status.code(), String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr))
    };
    let (code, out) = inside(env!("CARGO_BIN_EXE_selvedge"), &["pipelines", "check"]);
    assert!(code == Some(0) && out.contains("T06:00:00"), "{out}");
    let (code, out) = inside(env!("CARGO_BIN_EXE_selvedge"), &["run", "pipeline.yaml", "-o", "json"]);
    assert!(code == Some(0) && out.contains(r#""letters": 8"#), "{out}");
    let (code, out) = inside("python3", &["-m", "unittest"]);
    assert_eq!(code, Some(0), "{out}");
    folder.write("mine/measure.py", "mine");
    let again = folder.selvedge(&["init", "mine"]);
    assert_eq!(again.code, 64);
    assert!(again.err.contains("measure.py") && again.err.contains("nothing was written"), "{}", again.err);
    assert_eq!(std::fs::read_to_string(folder.join("mine/measure.py")).unwrap(), "mine");
}
