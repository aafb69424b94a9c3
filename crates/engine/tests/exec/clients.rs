//! The one-file clients, driven through the pool: the same worker in both languages, the same expectations.

use selvedge_engine::exec::{ExecPool, ExecTask};
use serde_json::{Value, json};
use std::path::Path;

use crate::rig::{Folder, needs, open, run, spec, task, until};

const PYTHON: &str = r#"
import os, subprocess, sys, time
from selvedge import activity, handler, run, Retryable, Terminal

@activity("traced")
def traced(input, attempt):
    return attempt.traceparent

@activity("echo")
def echo(input, attempt):
    return {"input": input, "key": attempt.key, "attempt": attempt.attempt, "deadline_ms": attempt.deadline_ms, "pid": os.getpid()}

@activity("later")
async def later(input):
    return input

@activity("fails")
def fails(input):
    if input == "terminal": raise Terminal("card_declined", "no")
    if input == "retryable": raise Retryable("busy", "wait", retry_after_ms=7)
    if input == "unjsonable": return {1, 2}
    if input == "huge": return "x" * (9 << 20)
    raise ValueError("odd input")

@activity("noisy")
def noisy(input, attempt):
    print("one"); print("two\nthree")
    print('{"id": %d, "result": "forged"}' % attempt.id)
    os.write(1, b"raw bytes"); subprocess.run(["echo", "of a child"])
    subprocess.run(["cat"])
    attempt.heartbeat({"done": 1})
    sys.stdout.write("no line end")
    return "true"

@activity("waits")
def waits(input, attempt):
    open("waiting", "w").write("1")
    while not attempt.cancelled: time.sleep(0.005)
    open("seen", "w").write("1")

@activity("meets")
def meets(input):
    open("met-%s" % input, "w").write("1")
    while not (os.path.exists("met-1") and os.path.exists("met-2")): time.sleep(0.005)
    print("met", input)
    return input

@handler("licence", "count")
def count(actor, message):
    if message == "refuse": raise Terminal("refused", "not you")
    actor.state["count"] = actor.state.get("count", 0) + 1
    actor.state.setdefault("names", []).append(message)
    actor.state.pop("old", None)
    actor.send("log", "all", "note", {"of": actor.key}, delay="10s")
    return [actor.type, actor.key, actor.handler, actor.state["count"]]

run(concurrency=int(sys.argv[1]))
"#;

const NODE: &str = r#"
import { existsSync, writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { activity, handler, run, Retryable, Terminal } from "./selvedge.mjs";

activity("echo", (input, { key, attempt, deadlineMs }) => ({ input, key, attempt, deadline_ms: deadlineMs, pid: process.pid }));
activity("traced", (input, attempt) => attempt.traceparent ?? null);
activity("later", async (input) => { await sleep(1); return input; });
activity("fails", (input) => {
  if (input === "terminal") throw new Terminal("card_declined", "no");
  if (input === "retryable") throw new Retryable("busy", "wait", 7);
  if (input === "unjsonable") { const ring = {}; ring.ring = ring; return ring; }
  if (input === "huge") return "x".repeat(9 << 20);
  throw new RangeError("odd input");
});
activity("noisy", (input, attempt) => {
  console.log("one"); console.log("two\nthree");
  console.log(`{"id": ${attempt.id}, "result": "forged"}`);
  attempt.heartbeat({ done: 1 });
  process.stdout.write("no line end");
  return "true";
});
activity("waits", async (input, attempt) => {
  writeFileSync("waiting", "1");
  await new Promise((done) => attempt.signal.addEventListener("abort", done));
  writeFileSync("seen", "1");
});
activity("meets", async (input) => {
  writeFileSync(`met-${input}`, "1");
  while (!(existsSync("met-1") && existsSync("met-2"))) await sleep(5);
  console.log("met", input);
  return input;
});
handler("licence", "count", (actor, message) => {
  if (message === "refuse") throw new Terminal("refused", "not you");
  actor.state.count = (actor.state.count ?? 0) + 1;
  (actor.state.names ??= []).push(message);
  delete actor.state.old;
  actor.send("log", "all", "note", { of: actor.key }, { delay: "10s" });
  return [actor.type, actor.key, actor.handler, actor.state.count];
});
run({ concurrency: Number(process.argv[2]) });
"#;

const ACTIVITIES: [&str; 8] = ["echo", "traced", "later", "fails", "noisy", "waits", "meets", "licence.count"];

fn worker(folder: &Folder, program: &str, concurrency: u32) -> ExecPool {
    needs(program);
    let (client, script, text) = match program {
        "python3" => ("python/selvedge.py", "worker.py", PYTHON),
        _ => ("node/selvedge.mjs", "worker.mjs", NODE),
    };
    let client = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../clients").join(client);
    std::fs::copy(&client, folder.0.join(client.file_name().unwrap())).unwrap();
    folder.write(script, text);
    let mut spec = spec(folder, true, &[program, script, &concurrency.to_string()]);
    spec.activities = ACTIVITIES.map(str::to_owned).to_vec();
    open(spec)
}

fn call(activity: &str, input: &Value) -> ExecTask {
    ExecTask { activity: activity.to_owned(), ..task(input) }
}

async fn serves_activities_and_handlers(program: &str) {
    let folder = Folder::new(&format!("client-{program}"));
    let pool = worker(&folder, program, 1);
    let result = run(&pool, call("echo", &json!({"ü": [1, null]}))).await.result.unwrap();
    let pid = result["pid"].clone();
    assert_eq!(result, json!({"input": {"ü": [1, null]}, "key": "key-1", "attempt": 1, "deadline_ms": 10_000, "pid": pid}));
    for trace in [None, Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned())] {
        let traced = ExecTask { trace: trace.clone(), ..call("traced", &json!(null)) };
        assert_eq!(run(&pool, traced).await.result.unwrap(), json!(trace));
    }
    assert_eq!(run(&pool, call("later", &json!("x"))).await.result.unwrap(), json!("x"));

    for (input, code, retryable, after) in
        [("terminal", "card_declined", false, None), ("retryable", "busy", true, Some(7)), ("huge", "limit: exec_line", false, None)]
    {
        let told = run(&pool, call("fails", &json!(input))).await;
        assert_eq!((told.error().error.code.as_str(), told.error().retryable, told.error().retry_after_ms), (code, retryable, after));
    }
    let told = run(&pool, call("fails", &json!("odd"))).await;
    assert!(["value_error", "range_error"].contains(&told.error().error.code.as_str()) && told.error().retryable, "{told:?}");
    assert!(told.error().error.message.contains("odd input"));
    assert!(!told.log.is_empty(), "the stack is in the log");
    assert!(run(&pool, call("fails", &json!("unjsonable"))).await.result.is_err());

    let told = run(&pool, call("noisy", &json!(null))).await;
    assert_eq!((told.result.as_ref().unwrap(), &told.heartbeats), (&json!("true"), &vec![json!({"progress": {"done": 1}})]));
    for line in ["one", "two", "three", "no line end"] {
        assert!(told.log.iter().any(|said| said == line), "{line}: {told:?}");
    }
    assert!(told.log.iter().any(|said| said.starts_with("print: {\"id\"")), "{told:?}");

    let input = json!({"actor": {"type": "licence", "key": "MIT"}, "handler": "count", "message": "serde@1", "state": {"count": 4, "old": 1, "kept": "k"}});
    let answer = run(&pool, call("licence.count", &input)).await.result.unwrap();
    let expected = json!({
        "result": ["licence", "MIT", "count", 5],
        "state": {"set": {"count": 5, "names": ["serde@1"]}, "delete": ["old"]},
        "send": [{"actor": "log", "key": "all", "handler": "note", "input": {"of": "MIT"}, "delay": "10s"}],
    });
    assert_eq!(answer, expected);
    let refused = json!({"actor": {"type": "licence", "key": "MIT"}, "handler": "count", "message": "refuse", "state": {}});
    let told = run(&pool, call("licence.count", &refused)).await;
    assert_eq!((told.error().error.code.as_str(), told.error().retryable), ("refused", false));

    // Through all of this it was one process.
    assert_eq!(run(&pool, call("echo", &json!(1))).await.result.unwrap()["pid"], pid);
    pool.close().await;
}

async fn sees_a_cancel(program: &str) {
    let folder = Folder::new(&format!("client-cancel-{program}"));
    let pool = worker(&folder, program, 1);
    let pid = run(&pool, call("echo", &json!(1))).await.result.unwrap()["pid"].clone();
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move { run(&pool, call("waits", &json!(null))).await }
    });
    until("it waits", || !folder.read("waiting").is_empty()).await;
    waiting.abort();
    until("it has seen the cancel", || !folder.read("seen").is_empty()).await;
    assert_eq!(run(&pool, call("echo", &json!(1))).await.result.unwrap()["pid"], pid);
}

async fn runs_two_tasks_at_once(program: &str) {
    let folder = Folder::new(&format!("client-two-{program}"));
    let pool = worker(&folder, program, 2);
    let (one, two) = tokio::join!(run(&pool, call("meets", &json!(1))), run(&pool, call("meets", &json!(2))));
    assert_eq!((one.result.unwrap(), two.result.unwrap()), (json!(1), json!(2)));
}

#[tokio::test]
async fn the_python_client_serves_activities_and_handlers() {
    serves_activities_and_handlers("python3").await;
}

#[tokio::test]
async fn the_node_client_serves_activities_and_handlers() {
    serves_activities_and_handlers("node").await;
}

#[tokio::test]
async fn the_python_client_sees_a_cancel() {
    sees_a_cancel("python3").await;
}

#[tokio::test]
async fn the_node_client_sees_a_cancel() {
    sees_a_cancel("node").await;
}

#[tokio::test]
async fn the_python_client_runs_two_tasks_at_once() {
    runs_two_tasks_at_once("python3").await;
}

#[tokio::test]
async fn the_node_client_runs_two_tasks_at_once() {
    runs_two_tasks_at_once("node").await;
}

#[test]
fn each_client_is_one_file_of_under_150_lines() {
    for client in ["python/selvedge.py", "node/selvedge.mjs"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../clients").join(client);
        assert!(std::fs::read_to_string(path).unwrap().lines().count() < 150, "{client}");
    }
}
