//! Workers that are kept.

use serde_json::json;
use std::time::Duration;

use crate::rig::{Folder, open, python_worker, run, spec, task, until};

const ECHO: &str = r#"
say({"hello": 1, "activities": ["work"]})
for line in sys.stdin:
    t = json.loads(line)
    if "cancel" in t: continue
    say({"id": t["id"], "result": {"pid": os.getpid(), **{k: t[k] for k in t if k != "id"}}})
"#;

#[tokio::test]
async fn a_task_arrives_whole_and_the_process_is_kept() {
    let folder = Folder::new("whole");
    let pool = open(python_worker(&folder, ECHO));
    let first = run(&pool, task(&json!({"a": "ü\n"}))).await.result.unwrap();
    let second = run(&pool, task(&json!(null))).await.result.unwrap();
    assert_eq!(first["pid"], second["pid"]);
    let expected = json!({"pid": first["pid"], "activity": "work", "attempt": 1, "key": "key-1", "deadline_ms": 10_000, "input": {"a": "ü\n"}});
    assert_eq!(first, expected);
    pool.close().await;
    assert_eq!(run(&pool, task(&json!(1))).await.error().error.code, "closed");
}

#[tokio::test]
async fn errors_carry_code_message_and_whether_to_retry() {
    let folder = Folder::new("errors");
    let pool = open(python_worker(
        &folder,
        r#"
say({"hello": 1, "activities": ["work"]})
for line in sys.stdin:
    t = json.loads(line)
    say({"id": t["id"], "heartbeat": {"progress": 0.4}})
    say({"id": t["id"], "error": {"code": "card_declined", "message": "no", "retryable": False, "retry_after_ms": 7}})
"#,
    ));
    let told = run(&pool, task(&json!(1))).await;
    let error = told.error();
    assert_eq!((error.error.code.as_str(), error.error.message.as_str(), error.retryable, error.retry_after_ms), ("card_declined", "no", false, Some(7)));
    assert_eq!(told.heartbeats, [json!({"progress": 0.4})]);
}

#[tokio::test]
async fn noise_on_standard_output_is_logged_and_nothing_is_lost_or_confused() {
    let folder = Folder::new("noise");
    let pool = open(python_worker(
        &folder,
        r#"
print("starting up")
say({"hello": 1, "activities": ["work"]})
for line in sys.stdin:
    t = json.loads(line)
    print("a print")
    say({"id": 999999, "result": "of nobody"})
    say({"id": t["id"]})
    say("x" * (9 << 20) + "\n")
    answer = json.dumps({"id": t["id"], "result": t["input"]}) + "\n"
    say(answer[:7]); time.sleep(0.05); say(answer[7:])
    say(answer)
    say("half a line without its end\n")
"#,
    ));
    for n in 0..3 {
        let told = run(&pool, task(&json!(n))).await;
        assert_eq!(told.result.unwrap(), json!(n));
        assert!(told.log.contains(&"a print".to_owned()), "{:?}", told.log);
        assert!(told.log.contains(&"(a line of 9437184 bytes was left out)".to_owned()), "{:?}", told.log);
    }
}

#[tokio::test]
async fn an_answer_above_the_line_limit_fails_its_task_by_name() {
    let folder = Folder::new("too-long");
    let body = r#"
say({"hello": 1, "activities": ["work"]})
for line in sys.stdin:
    t = json.loads(line)
    say({"id": t["id"], "result": "x" * t["input"]})
"#;
    let pool = open(python_worker(&folder, body));
    let told = run(&pool, task(&json!(9 << 20))).await;
    assert_eq!((told.error().error.code.as_str(), told.error().retryable), ("limit: exec_line", false));
    assert_eq!(run(&pool, task(&json!(8_000_000))).await.result.unwrap().as_str().unwrap().len(), 8_000_000);
}

#[tokio::test]
async fn a_flood_of_log_lines_is_bounded_and_the_answer_comes_through() {
    let folder = Folder::new("flood");
    let body = r#"
say({"hello": 1, "activities": ["work"]})
for line in sys.stdin:
    t = json.loads(line)
    for n in range(20000): print("line", n)
    sys.stderr.write("e" * (4 << 20) + "\n"); sys.stderr.flush()
    say({"id": t["id"], "result": 1})
"#;
    let pool = open(python_worker(&folder, body));
    let told = run(&pool, task(&json!(0))).await;
    assert_eq!(told.result.unwrap(), json!(1));
    assert!(told.log.iter().all(|line| line.len() < 20_000));
}

#[tokio::test]
async fn a_worker_that_dies_fails_its_task_and_the_next_one_gets_a_new_process() {
    let folder = Folder::new("dies");
    let body = r#"
say({"hello": 1, "activities": ["work"]})
for line in sys.stdin:
    t = json.loads(line)
    if t["input"] == "die":
        sys.stderr.write("last words\n"); sys.stderr.flush()
        sys.stdout.write('{"id": %d, "resu' % t["id"]); sys.stdout.flush()
        os._exit(3)
    if t["input"] == "kill": os.kill(os.getpid(), 9)
    say({"id": t["id"], "result": os.getpid()})
"#;
    let pool = open(python_worker(&folder, body));
    let before = run(&pool, task(&json!("pid"))).await.result.unwrap();
    let told = run(&pool, task(&json!("die"))).await;
    assert_eq!((told.error().error.code.as_str(), told.error().retryable), ("worker_died", true));
    let message = &told.error().error.message;
    assert!(message.contains("exit status 3") && message.contains("last words"), "{message}");
    let told = run(&pool, task(&json!("kill"))).await;
    assert!(told.error().error.message.contains("killed by signal 9"), "{told:?}");
    assert_ne!(run(&pool, task(&json!("pid"))).await.result.unwrap(), before);
}

#[tokio::test]
async fn a_hello_that_lacks_an_activity_is_a_start_error_that_names_it() {
    let folder = Folder::new("lacks");
    let mut spec = python_worker(&folder, ECHO);
    spec.activities = vec!["work".into(), "head".into()];
    let told = run(&open(spec), task(&json!(1))).await;
    assert_eq!((told.error().error.code.as_str(), told.error().retryable), ("exec_start", false));
    assert!(told.error().error.message.contains("its hello does not offer head (it offers work)"), "{told:?}");
}

#[tokio::test]
async fn a_program_that_is_not_there_is_a_start_error_with_and_without_a_shim() {
    let folder = Folder::new("not-there");
    for with_shim in [true, false] {
        let mut spec = spec(&folder, true, &["no-such-program-here"]);
        if !with_shim {
            spec.shim = None;
        }
        let told = run(&open(spec), task(&json!(1))).await;
        assert_eq!((told.error().error.code.as_str(), told.error().retryable), ("exec_start", false), "{told:?}");
        assert!(told.error().error.message.contains("no-such-program-here"), "{told:?}");
    }
}

#[tokio::test]
async fn a_worker_that_ends_before_its_hello_tells_why() {
    let folder = Folder::new("early");
    let told = run(&open(python_worker(&folder, "raise RuntimeError('no database')")), task(&json!(1))).await;
    assert_eq!((told.error().error.code.as_str(), told.error().retryable), ("exec_start", true));
    assert!(told.error().error.message.contains("no database"), "{told:?}");
    let told = run(&open(python_worker(&folder, "say({'hello': 2, 'activities': []})\nsys.stdin.read()")), task(&json!(1))).await;
    assert!(told.error().error.message.contains("speaks version 2 of the exec protocol"), "{told:?}");
}

#[tokio::test]
async fn a_dropped_task_is_cancelled_and_its_late_answer_is_ignored() {
    let folder = Folder::new("cancel");
    let body = r#"
say({"hello": 1, "activities": ["work"]})
waiting = None
for line in sys.stdin:
    t = json.loads(line)
    if "cancel" in t:
        open("cancelled", "w").write(str(t["cancel"] == waiting))
        say({"id": t["cancel"], "result": "late"})
    elif t["input"] == "wait":
        waiting = t["id"]; open("got", "w").write("1")
    else: say({"id": t["id"], "result": [os.getpid(), t["input"]]})
"#;
    let pool = open(python_worker(&folder, body));
    let first = run(&pool, task(&json!("pid"))).await.result.unwrap();
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move { run(&pool, task(&json!("wait"))).await }
    });
    until("the worker has the task", || !folder.read("got").is_empty()).await;
    waiting.abort();
    until("the cancel has arrived", || !folder.read("cancelled").is_empty()).await;
    assert_eq!(folder.read("cancelled"), "True");
    assert_eq!(run(&pool, task(&json!("next"))).await.result.unwrap(), json!([first[0], "next"]));
}

#[tokio::test]
async fn a_worker_that_ignores_a_cancel_is_replaced() {
    let folder = Folder::new("deaf");
    let body = r#"
say({"hello": 1, "activities": ["work"]})
for line in sys.stdin:
    t = json.loads(line)
    if t.get("input") == "hang":
        open("got", "w").write("1")
        time.sleep(10000)
    say({"id": t["id"], "result": t["input"]})
"#;
    let pool = open(python_worker(&folder, body));
    let hanging = tokio::spawn({
        let pool = pool.clone();
        async move { run(&pool, task(&json!("hang"))).await }
    });
    until("the worker hangs", || !folder.read("got").is_empty()).await;
    hanging.abort();
    assert_eq!(run(&pool, task(&json!("next"))).await.result.unwrap(), json!("next"));
}

#[tokio::test]
async fn one_process_takes_as_many_tasks_as_its_hello_says_and_more_wait() {
    let folder = Folder::new("concurrency");
    let body = r#"
say({"hello": 1, "activities": ["work"], "concurrency": 3})
held, most = [], 0
for line in sys.stdin:
    t = json.loads(line)
    held.append(t["id"]); most = max(most, len(held))
    if len(held) == 3:
        for id in reversed(held): say({"id": id, "result": [os.getpid(), most]})
        held = []
"#;
    let pool = open(python_worker(&folder, body));
    let tasks: Vec<_> = (0..9)
        .map(|n| {
            let pool = pool.clone();
            tokio::spawn(async move { run(&pool, task(&json!(n))).await.result.unwrap() })
        })
        .collect();
    let mut pids = std::collections::BTreeSet::new();
    for task in tasks {
        let result = task.await.unwrap();
        assert_eq!(result[1], json!(3));
        pids.insert(result[0].to_string());
    }
    assert_eq!(pids.len(), 1);
}

#[tokio::test]
async fn as_many_processes_run_as_the_spec_allows() {
    let folder = Folder::new("processes");
    let body = r#"
say({"hello": 1, "activities": ["work"]})
for line in sys.stdin:
    t = json.loads(line)
    open("in-%d" % os.getpid(), "w").write("1")
    while len([n for n in os.listdir(".") if n.startswith("in-")]) < 2: time.sleep(0.01)
    say({"id": t["id"], "result": os.getpid()})
"#;
    let mut spec = python_worker(&folder, body);
    spec.processes = 2;
    let pool = open(spec);
    let (one, two) = (task(&json!(1)), task(&json!(2)));
    let (one, two) = tokio::join!(run(&pool, one), run(&pool, two));
    assert_ne!(one.result.unwrap(), two.result.unwrap());
    assert_eq!(std::fs::read_dir(&folder.0).unwrap().filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("in-")).count(), 2);
}

#[tokio::test]
async fn an_input_as_file_is_json_lines_and_goes_with_the_task() {
    let folder = Folder::new("as-file");
    let body = r#"
say({"hello": 1, "activities": ["work"]})
for line in sys.stdin:
    t = json.loads(line)
    say({"id": t["id"], "result": [t["input"], [json.loads(l) for l in open(t["input"])]]})
"#;
    let mut spec = python_worker(&folder, body);
    spec.as_file = true;
    let pool = open(spec);
    let result = run(&pool, task(&json!([{"a": 1}, "x", null]))).await.result.unwrap();
    assert_eq!(result[1], json!([{"a": 1}, "x", null]));
    assert!(!std::path::Path::new(result[0].as_str().unwrap()).exists());
    assert_eq!(run(&pool, task(&json!({"one": "object"}))).await.result.unwrap()[1], json!([{"one": "object"}]));
}

#[tokio::test]
async fn close_does_not_wait_for_a_hello() {
    let folder = Folder::new("close-early");
    let pool = open(python_worker(&folder, "open('got', 'w').write(str(os.getpid()))\nwhile True: time.sleep(1000)"));
    let running = tokio::spawn({
        let pool = pool.clone();
        async move { run(&pool, task(&json!("x"))).await }
    });
    until("the worker starts", || !folder.read("got").is_empty()).await;
    tokio::time::timeout(Duration::from_secs(10), pool.close()).await.expect("close hangs");
    assert_eq!(running.await.unwrap().error().error.code, "closed");
    assert!(!crate::rig::runs(&folder.read("got")));
}

#[tokio::test]
async fn the_last_owner_takes_the_processes_along() {
    let folder = Folder::new("owner");
    let pool = open(python_worker(&folder, ECHO));
    let pid = run(&pool, task(&json!(1))).await.result.unwrap()["pid"].to_string();
    assert!(crate::rig::runs(&pid));
    drop(pool);
    until("the worker is gone", || !crate::rig::runs(&pid)).await;
}

#[tokio::test]
async fn close_ends_the_processes_and_a_running_task_is_told() {
    let folder = Folder::new("close");
    let body = r#"
say({"hello": 1, "activities": ["work"]})
for line in sys.stdin: open("got", "w").write(str(os.getpid()))
time.sleep(1000)
"#;
    let pool = open(python_worker(&folder, body));
    let running = tokio::spawn({
        let pool = pool.clone();
        async move { run(&pool, task(&json!("x"))).await }
    });
    until("the worker has the task", || !folder.read("got").is_empty()).await;
    tokio::time::timeout(Duration::from_secs(20), pool.close()).await.expect("close hangs");
    assert_eq!(running.await.unwrap().error().error.code, "closed");
    assert!(!crate::rig::runs(&folder.read("got")));
}

#[tokio::test]
async fn tasks_of_dying_workers_all_end_on_a_later_attempt() {
    let folder = Folder::new("dying");
    let body = r#"
say({"hello": 1, "activities": ["work"], "concurrency": 4})
for line in sys.stdin:
    t = json.loads(line)
    if t["attempt"] == 1 and t["input"] % 10 == 0: os.kill(os.getpid(), 9)
    say({"id": t["id"], "result": t["input"]})
"#;
    let mut spec = python_worker(&folder, body);
    spec.processes = 2;
    let pool = open(spec);
    let all: Vec<_> = (0..100)
        .map(|n| {
            let pool = pool.clone();
            tokio::spawn(async move {
                for attempt in 1.. {
                    let told = run(&pool, selvedge_engine::exec::ExecTask { attempt, ..task(&json!(n)) }).await;
                    match told.result {
                        Ok(result) => return (n, result),
                        Err(error) => assert!(error.retryable && error.error.code == "worker_died", "{error:?}"),
                    }
                }
                unreachable!()
            })
        })
        .collect();
    for one in all {
        let (n, result) = one.await.unwrap();
        assert_eq!(result, json!(n));
    }
}
