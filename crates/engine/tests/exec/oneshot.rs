//! Programs that are started once per task.

use selvedge_engine::exec::{ExecPool, ExecSpec, ExecTask, Points};
use selvedge_kernel::pipeline::definition::Variable;
use serde_json::json;

use crate::rig::{Folder, open, run, runs, spec, task, until};

#[tokio::test]
async fn input_goes_in_and_one_json_value_comes_out() {
    let folder = Folder::new("one");
    let pool = open(spec(
        &folder,
        false,
        &["sh", "-c", r#"read line; echo "noise" >&2; echo "[$line, \"$SELVEDGE_KEY\", $SELVEDGE_ATTEMPT, $SELVEDGE_DEADLINE_MS]""#],
    ));
    let told = run(&pool, task(&json!({"a": 1}))).await;
    assert_eq!(told.result.unwrap(), json!([{"a": 1}, "key-1", 1, 10_000]));
    assert_eq!(told.log, ["noise"]);
}

#[tokio::test]
async fn no_output_is_null_and_unread_input_is_no_error() {
    let folder = Folder::new("empty");
    let pool = open(spec(&folder, false, &["true"]));
    assert_eq!(run(&pool, task(&json!("x".repeat(1 << 20)))).await.result.unwrap(), json!(null));
}

#[tokio::test]
async fn large_input_and_output_pass_at_the_same_time() {
    let folder = Folder::new("large");
    let pool = open(spec(&folder, false, &["cat"]));
    let big = json!("x".repeat(4 << 20));
    assert_eq!(run(&pool, task(&big)).await.result.unwrap(), big);
}

#[tokio::test]
async fn another_exit_is_retryable_and_carries_its_number_and_the_last_words() {
    let folder = Folder::new("exit");
    let script = "i=0; while [ $i -lt 5000 ]; do echo line $i >&2; i=$((i+1)); done; exit 7";
    let told = run(&open(spec(&folder, false, &["sh", "-c", script])), task(&json!(1))).await;
    let error = told.error();
    assert_eq!((error.error.code.as_str(), error.retryable), ("exit_7", true));
    assert!(error.error.message.contains("line 4999") && error.error.message.len() < 20_000);
    let told = run(&open(spec(&folder, false, &["sh", "-c", "kill -9 $$"])), task(&json!(1))).await;
    assert_eq!(told.error().error.code, "exit_137");
}

#[tokio::test]
async fn output_that_is_not_one_json_value_is_named() {
    let folder = Folder::new("bad");
    for script in ["echo hello", "echo '{\"a\":'", "echo 1 2"] {
        let told = run(&open(spec(&folder, false, &["sh", "-c", script])), task(&json!(1))).await;
        assert_eq!(told.error().error.code, "bad_output", "{script}");
    }
    let told = run(&open(spec(&folder, false, &["sh", "-c", "head -c 9000000 /dev/zero | tr '\\0' 1"])), task(&json!(1))).await;
    assert_eq!(told.error().error.code, "limit: exec_line");
}

#[tokio::test]
async fn a_program_that_is_not_there_is_a_start_error() {
    let folder = Folder::new("missing");
    for with_shim in [true, false] {
        let mut spec = spec(&folder, false, &["no-such-program-here"]);
        if !with_shim {
            spec.shim = None;
        }
        let told = run(&open(spec), task(&json!(1))).await;
        assert_eq!((told.error().error.code.as_str(), told.error().retryable), ("exec_start", false), "{told:?}");
    }
    let mut nowhere = spec(&folder, false, &["true"]);
    nowhere.folder = folder.0.join("no-such-folder");
    assert!(run(&open(nowhere), task(&json!(1))).await.error().error.message.contains("folder does not exist"));
}

#[tokio::test]
async fn a_dropped_task_kills_its_program_and_all_that_it_started() {
    for with_shim in [true, false] {
        let folder = Folder::new(&format!("dropped-{with_shim}"));
        let mut spec = spec(&folder, false, &["sh", "-c", "sleep 1000 & echo $! > child; echo $$ > own; wait"]);
        if !with_shim {
            spec.shim = None;
        }
        let pool = open(spec);
        let running = tokio::spawn({
            let pool = pool.clone();
            async move { run(&pool, task(&json!(1))).await }
        });
        until("it runs", || !folder.read("own").is_empty()).await;
        let (own, child) = (folder.read("own"), folder.read("child"));
        assert!(runs(&own) && runs(&child));
        running.abort();
        until("both are gone", || !runs(&own) && !runs(&child)).await;
    }
}

#[tokio::test]
async fn no_more_programs_run_than_the_spec_allows() {
    let folder = Folder::new("room");
    let script = "mkdir taken || exit 9; sleep 0.05; rmdir taken; echo 1";
    let pool = open(spec(&folder, false, &["sh", "-c", script]));
    let all: Vec<_> = (0..6)
        .map(|n| {
            let pool = pool.clone();
            tokio::spawn(async move { run(&pool, task(&json!(n))).await.result.unwrap() })
        })
        .collect();
    for one in all {
        assert_eq!(one.await.unwrap(), json!(1));
    }
    pool.close().await;
    assert_eq!(run(&pool, task(&json!(1))).await.error().error.code, "closed");
}

#[tokio::test]
async fn a_program_sees_only_the_environment_that_is_declared() {
    let folder = Folder::new("environment");
    let script = r#"printf '['; env | sed 's/=.*//; s/.*/"&",/'; printf '"%s", "%s"]' "$DECLARED" "$(pwd)""#;
    let mut spec = spec(&folder, false, &["sh", "-c", script]);
    spec.environment.insert("DECLARED".into(), "yes".into());
    let result = run(&open(spec), task(&json!(1))).await.result.unwrap();
    let mut seen: Vec<&str> = result.as_array().unwrap().iter().filter_map(serde_json::Value::as_str).collect();
    assert_eq!(seen.split_off(seen.len() - 2), ["yes", folder.0.to_string_lossy().as_ref()]);
    let ours = ["PATH", "HOME", "LANG", "DECLARED", "SELVEDGE_KEY", "SELVEDGE_ATTEMPT", "SELVEDGE_DEADLINE_MS"];
    let of_the_shell = ["PWD", "OLDPWD", "SHLVL", "_"];
    assert!(seen.iter().all(|name| ours.contains(name) || of_the_shell.contains(name)), "{seen:?}");
    assert!(seen.contains(&"PATH") && std::env::vars().any(|(name, _)| name.starts_with("CARGO")));
}

#[tokio::test]
async fn a_secret_reaches_the_program_and_nothing_that_is_kept() {
    let folder = Folder::new("secret");
    folder.write(
        "tell.py",
        "import os, sys, json\nsecret = os.environ['TOKEN']\nprint('log: ' + secret, file=sys.stderr)\nif json.load(sys.stdin) == 'fail':\n    sys.exit('it failed with ' + secret)\nprint(json.dumps({'said': secret, 'length': len(secret)}))\n",
    );
    let exec = selvedge_kernel::pipeline::definition::Exec {
        command: vec!["python3".into(), "tell.py".into()],
        persistent: false,
        processes: 1,
        environment: [("TOKEN".to_owned(), Variable::Secret { secret: "env:THE_TOKEN".to_owned() })].into(),
        folder: folder.0.to_string_lossy().into_owned(),
        as_file: false,
    };
    let mut ours: std::collections::BTreeMap<String, String> = std::env::vars().collect();
    ours.insert("THE_TOKEN".to_owned(), "sk-12345678-abc".to_owned());
    let spec = ExecSpec::new(&exec, vec!["tell".to_owned()], &ours, folder.0.clone());
    assert!(format!("{spec:?}").contains("Secret(env:THE_TOKEN)"), "its Debug form shows the reference");
    let pool = ExecPool::open(spec, tokio::runtime::Handle::current(), Points::default()).unwrap();
    let lines = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let run = |input: &'static str| {
        let lines = lines.clone();
        let task = ExecTask { activity: "tell".to_owned(), attempt: 1, key: "k".to_owned(), deadline_ms: None, trace: None, input: input.into() };
        let pool = pool.clone();
        async move { pool.run(task, |_| {}, move |line| lines.lock().unwrap().push(line)).await }
    };
    let value = String::from_utf8(run("1").await.unwrap().to_vec()).unwrap();
    assert!(value.contains("[secret env:THE_TOKEN]") && value.contains("15"), "it had the value and what it said is blotted: {value}");
    let failure = run("\"fail\"").await.unwrap_err();
    assert!(failure.error.message.contains("[secret env:THE_TOKEN]"), "{}", failure.error.message);
    let all = format!("{value} {failure:?} {:?}", lines.lock().unwrap());
    assert!(!all.contains("sk-12345678"), "{all}");

    ours.remove("THE_TOKEN");
    let spec = ExecSpec::new(&exec, vec!["tell".to_owned()], &ours, folder.0.clone());
    let pool = ExecPool::open(spec, tokio::runtime::Handle::current(), Points::default()).unwrap();
    let task = ExecTask { activity: "tell".to_owned(), attempt: 1, key: "k".to_owned(), deadline_ms: None, trace: None, input: "1".into() };
    let failure = pool.run(task, |_| {}, |_| {}).await.unwrap_err();
    assert_eq!(failure.error.code, "secret_missing");
    assert!(failure.error.message.contains("set the variable THE_TOKEN"), "{}", failure.error.message);
}

#[tokio::test]
async fn no_shell_reads_the_command_of_a_program() {
    let folder = Folder::new("verbatim");
    let words = "\"$HOME; `id` * 'a' && echo b | cat\"";
    let told = run(&open(spec(&folder, false, &["printf", "%s", words])), task(&json!(1))).await;
    assert_eq!(told.result.unwrap(), json!("$HOME; `id` * 'a' && echo b | cat"));
}

#[tokio::test]
async fn a_program_dumps_no_core_and_opens_so_many_files_at_most() {
    let folder = Folder::new("limits");
    let told = run(&open(spec(&folder, false, &["sh", "-c", "echo \"[$(ulimit -n), $(ulimit -c), $(ulimit -Hc)]\""])), task(&json!(1))).await;
    let found = told.result.unwrap();
    assert!(found[0].as_u64().unwrap() <= 4_096 && found[1] == 0 && found[2] == 0, "{found}");
}
