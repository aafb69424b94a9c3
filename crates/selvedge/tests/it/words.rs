//! What the command line says, where silence or another word would mislead.

use serde_json::json;

use crate::rig::Folder;

const NAP: &str = "selvedge: 1\nname: nap\nstages: [{ name: a, mode: sleep, for: 1ms }]\n";

/// A folder with a data directory.
fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("nap.yaml", NAP);
    assert_eq!(folder.selvedge(&["run", "nap.yaml"]).code, 0);
    folder
}

/// A pipeline whose own activity is this program.
fn with_program(name: &str, exec: &str, hold: &str) -> String {
    format!("selvedge: 1\nname: {name}\nactivities: {{ out: {{ exec: [{exec}], persistent: false }} }}\nstages:\n  - {hold}\n  - {{ name: b, call: out }}\n")
}

const HOLD: &str = "{ name: hold, mode: wait_signal, signal: go }";
const REST: &str = "{ name: rest, mode: sleep, for: 1ms }";

#[test]
fn doctor_counts_and_looks_for_the_programs_that_pipelines_declare_for_themselves() {
    let folder = folder();
    let executors = |expected: &str| {
        let said = folder.selvedge(&["doctor"]);
        assert!(said.out.lines().any(|line| line.contains(expected)), "{expected}: {said:?}");
    };
    executors("ok    executors: 0 programs declared");
    folder.write("app.yaml", "pipelines: [listed.yaml]\n");
    folder.write("listed.yaml", &with_program("listed", "cat", REST));
    executors("ok    executors: 1 program declared");
    folder.write("stored.yaml", &with_program("kept", "sh, out.sh", REST));
    folder.write("out.sh", "cat");
    assert_eq!(folder.selvedge(&["pipelines", "put", "stored.yaml"]).code, 0);
    executors("ok    executors: 2 programs declared");
    folder.write("p.yaml", &with_program("runs", "cat", HOLD));
    let holder = folder.start(&["run", "p.yaml"]);
    let run = folder.until_run("for the signal `go`");
    executors("ok    executors: 3 programs declared");
    std::fs::remove_file(folder.join("out.sh")).unwrap();
    executors("LOOK  executors: `kept.out`: the script `out.sh` is not there");
    assert_eq!(folder.selvedge(&["runs", "signal", &run, "go"]).code, 0);
    assert_eq!(folder.end(holder).code, 0);
}

#[test]
fn check_warns_of_a_program_that_is_not_on_path_and_doctor_looks_for_it() {
    let folder = Folder::new();
    folder.write("p.yaml", &with_program("p", "no_such_program, -x", REST));
    folder.write("app.yaml", "activities: { far: { exec: [no_other_program], persistent: false }, near: { exec: [cat], persistent: false } }\n");
    let said = folder.selvedge(&["pipelines", "check", "p.yaml"]);
    assert_eq!(said.code, 0, "{}", said.err);
    for line in [
        "warning: p.yaml: `out`: the program `no_such_program` is not on PATH\n  hint: install it, or write its path in `exec`",
        "warning: app.yaml: `far`: the program `no_other_program` is not on PATH",
    ] {
        assert!(said.err.contains(line), "{line}: {}", said.err);
    }
    assert!(!said.err.contains("near"), "{}", said.err);
    // One that says where its programs are is looked for there.
    std::fs::create_dir(folder.join("bin")).unwrap();
    std::os::unix::fs::symlink("/bin/cat", folder.join("bin/no_such_program")).unwrap();
    let path = folder.join("bin").display().to_string();
    let own = with_program("p", "no_such_program", REST).replace("persistent: false", &format!("persistent: false, environment: {{ PATH: '{path}' }}"));
    folder.write("p.yaml", &own);
    let said = folder.selvedge(&["pipelines", "check", "p.yaml"]);
    assert!(said.code == 0 && !said.err.contains("no_such_program"), "{}", said.err);
    folder.write("nap.yaml", NAP);
    assert_eq!(folder.selvedge(&["run", "nap.yaml"]).code, 0);
    let doctor = folder.selvedge(&["doctor"]);
    assert!(doctor.code == 1 && doctor.out.contains("LOOK  executors: `far`: the program `no_other_program` is not on PATH"), "{doctor:?}");
}

#[test]
fn task_of_a_stage_that_has_one_is_called_by_the_name_of_its_stage_alone() {
    let folder = Folder::new();
    let failing = "{ exec: [sh, -c, 'exit 3'], persistent: false, retry: { max_attempts: 2, initial: 1ms } }";
    folder.write(
        "p.yaml",
        &format!(
            "selvedge: 1\nname: p\nactivities: {{ no: {failing} }}\nstages:\n  - {{ name: one, call: no, on_failure: continue }}\n  - {{ name: many, mode: scatter, over: '[`1`, `2`]', call: no, on_failure: continue }}\n"
        ),
    );
    let said = folder.selvedge(&["run", "p.yaml"]);
    let run = folder.json(&["runs", "list"])[0]["id"].as_str().unwrap().to_owned();
    let followed = folder.selvedge(&["runs", "follow", &run]);
    let journal = folder.selvedge(&["runs", "journal", &run]);
    for text in [&said.err, &followed.out, &journal.out] {
        for line in ["many[0] failed 2 times, for good", "many[1] failed 2 times"] {
            assert!(text.contains(line), "{line}: {text}");
        }
        assert!(!text.contains("one["), "{text}");
    }
    // Whoever follows the run itself is told by the events, and an attempt may have followed before he looks.
    for line in ["one failed once and is tried again at ", "one failed 2 times, for good: attempts_exhausted"] {
        assert!([&followed.out, &journal.out].into_iter().all(|text| text.contains(line)), "{line}: {followed:?}");
    }
    let shown = folder.selvedge(&["runs", "show", &run]).out;
    assert!(shown.contains("\none ") && shown.contains("\nmany[0] ") && !shown.contains("one["), "{shown}");
}

#[test]
fn key_by_the_name_of_another_verb_is_answered_with_the_name_that_it_has_here() {
    let folder = folder();
    let said = folder.selvedge(&["pipelines", "start", "nap", "--idempotency-key", "k"]);
    assert!(said.code == 64 && said.err.contains("there is no --idempotency-key here: write --key KEY"), "{said:?}");
    let said = folder.selvedge(&["actors", "send", "tally/a", "count", "--key", "k"]);
    assert!(said.code == 64 && said.err.contains("write --idempotency-key KEY"), "{said:?}");
}

#[test]
fn retry_of_no_invocation_says_that_a_filter_can_name_them() {
    let said = folder().selvedge(&["invocations", "retry"]);
    assert!(said.code == 64 && said.err.contains("name a blocked invocation, inv_…, or all blocked ones that a filter keeps"), "{said:?}");
    assert!(said.err.contains("`selvedge invocations retry --where 'type:order'`"), "{said:?}");
}

#[test]
fn call_says_that_an_attempt_has_failed_and_when_the_next_one_is() {
    let folder = folder();
    folder.write("count.sh", "cat > /dev/null; test -e tried || { touch tried; exit 3; }; echo '{\"result\": 1}'\n");
    folder.write(
        "app.yaml",
        "actors:\n  tally:\n    handlers:\n      count: { exec: [sh, count.sh], persistent: false, retry: { max_attempts: 3, initial: 2s } }\n",
    );
    let said = folder.selvedge(&["actors", "call", "tally/a", "count"]);
    assert_eq!((said.code, said.out.trim()), (0, "1"), "{said:?}");
    let lines: Vec<&str> = said.err.lines().filter(|line| line.contains("failed once and is tried again at 20")).collect();
    assert!(lines.len() == 1 && lines[0].contains("exit_3"), "{said:?}");
}

#[test]
fn answer_to_an_approval_that_was_given_before_by_the_same_person_is_no_error() {
    let folder = Folder::new();
    folder.write(
        "p.yaml",
        "selvedge: 1\nname: asks\nstages:\n  - { name: a, mode: approval, assignees: ['user:ada', 'user:bob'], expires: 1d, fallback: reject }\n  - { name: hold, mode: wait_signal, signal: go }\noutput: '${stages.a.output.by}'\n",
    );
    let holder = folder.start(&["run", "p.yaml"]);
    let run = folder.until_run("`a` by user:ada");
    let approve: &[&str] = &["approvals", "approve", &run, "--by", "ada", "--comment", "fine"];
    assert_eq!(folder.selvedge(approve).code, 0);
    let again = folder.selvedge(approve);
    assert!(again.code == 0 && again.out.contains("approved by user:ada"), "{again:?}");
    assert_eq!(folder.selvedge(&[approve, &["--stage", "a"]].concat()).code, 0);
    for other in [
        &["approvals", "reject", &run, "--stage", "a", "--by", "ada", "--comment", "fine"][..],
        &["approvals", "approve", &run, "--stage", "a", "--by", "bob", "--comment", "fine"],
        &["approvals", "approve", &run, "--stage", "a", "--by", "ada", "--comment", "not so fine"],
    ] {
        let refused = folder.selvedge(other);
        assert!(refused.code == 64 && refused.err.contains("was answered already: approved by user:ada"), "{refused:?}");
    }
    assert_eq!(folder.selvedge(&["runs", "signal", &run, "go"]).code, 0);
    assert_eq!(folder.end(holder).code, 0);
    // Also when its run has ended meanwhile.
    assert_eq!(folder.selvedge(approve).code, 0);
    assert_eq!(folder.json(&["runs", "show", &run])["output"], json!("user:ada"));
}

#[test]
fn doctor_says_whether_programs_can_get_at_the_data_directory_and_how_to_change_that() {
    let folder = folder();
    let part = || {
        let said = folder.selvedge(&["doctor"]);
        (said.code, said.out.lines().find(|line| line.contains("data directory: ")).unwrap().to_owned())
    };
    let (code, line) = part();
    assert!(code == 0 && line.starts_with("ok    data directory: programs can do in it what this user can: this user makes entries in "), "{line}");
    assert!(line.contains("put it where no folder above it is this user's, as /var/lib/selvedge is, or write `landlock: always`"), "{line}");
    folder.write("selvedge.yaml", "landlock: never\n");
    assert!(part().1.ends_with("the configuration says `landlock: never`"), "{:?}", part());
    folder.write("selvedge.yaml", "landlock: always\n");
    let (code, line) = part();
    // A kernel without Landlock, where nothing is started like this, and one with it.
    let kept_out = "ok    data directory: programs can neither read nor change what is in it";
    let not_here = "no program is started like this: mend that, or write `landlock: auto`";
    assert!(code == 0 && line.starts_with(kept_out) || code == 1 && line.starts_with("LOOK") && line.ends_with(not_here), "{line}");
}

#[test]
fn a_program_of_a_run_cannot_read_the_data_directory_where_it_is_always_shut() {
    let folder = Folder::new();
    folder.write("selvedge.yaml", "landlock: always\n");
    let script = "cat > /dev/null; cat .selvedge/meta > /dev/null 2>&1 && echo '\"read\"' || echo '\"kept out\"'";
    folder.write("look.sh", script);
    folder.write("p.yaml", &format!("{}output: \"${{stages.b.output}}\"\n", with_program("p", "sh, look.sh", REST)));
    let said = folder.selvedge(&["run", "p.yaml"]);
    let shut = folder.selvedge(&["doctor"]).out.contains("data directory: programs can neither read nor change");
    if shut {
        assert!(said.code == 0 && said.out.contains("kept out"), "{said:?}");
    } else {
        assert!(said.code != 0 && said.err.contains("`landlock: always` cannot keep the data directory shut"), "{said:?}");
    }
}
