//! The trace of a request goes on through all that is done for it.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use selvedge::{Activity, App, Ctx, Handler};
use selvedge_engine::RunStart;
use selvedge_http::Patience;
use selvedge_kernel::auth::{Action, Resource, authorize, local};
use selvedge_kernel::id::Key;
use selvedge_kernel::limit::Limits;
use selvedge_kernel::record::run::{annex_key, run_key};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::client::Ask;
use super::rig::Rig;
use crate::kit;

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const FETCH: Activity<Value, Value> = Activity::new("fetch");
const GO: Handler<String, Value> = Handler::new("relay", "go");
const START: Handler<u64, Value> = Handler::new("relay", "start");

const MANIFEST: &str = r#"
egress: ["127.0.0.1:PORT"]
activities:
  fetch: { http: { url: "http://127.0.0.1:PORT/${input}" } }
  tell: { exec: [sh, -c, "echo \"\\\"$TRACEPARENT\\\"\""], persistent: false }
  declared: { exec: [sh, -c, "echo \"\\\"$TRACEPARENT\\\"\""], persistent: false, environment: { TRACEPARENT: mine } }
  kept: { exec: [python3, kept.py] }
  resize: { worker: true }
actors:
  licence: { handlers: { count: { worker: true } } }
"#;

const KEPT: &str = r#"
import json, sys
print(json.dumps({"hello": 1, "activities": ["kept"]}), flush=True)
for line in sys.stdin:
    task = json.loads(line)
    print(json.dumps({"id": task["id"], "result": task.get("traceparent")}), flush=True)
"#;

const BELOW: &str = "selvedge: 1
name: below
input: { n: { type: integer, default: 0 } }
stages:
  - { name: fetch, call: fetch, input: \"below-${input.n}\" }
";

const TRACED: &str = "selvedge: 1
name: traced
stages:
  - { name: own, call: fetch, input: own }
  - { name: told, call: tell }
  - { name: declared, call: declared }
  - { name: kept, call: kept }
  - { name: actor, call: { actor: relay, key: a, handler: go }, input: actor }
  - { name: below, call: { pipeline: below }, input: { n: 1 } }
  - { name: limited, call: { pipeline: below }, input: { n: 2 }, timeout: { attempt: 1h } }
  - { name: started, call: { actor: relay, key: a, handler: start }, input: 3 }
  - { name: small, call: resize }
  - { name: late, call: fetch, input: late }
output: { told: \"${stages.told.output}\", declared: \"${stages.declared.output}\", kept: \"${stages.kept.output}\" }
";

const UNDONE: &str = "selvedge: 1
name: undone
stages:
  - { name: made, call: fetch, input: made, compensate: { call: fetch, input: unmade } }
  - { name: fails, call: fetch, input: missing, retry: none }
";

/// A server outside: it knows all but what is missing, and keeps what it was asked for, with the trace that it was asked in.
struct Outside {
    port: u16,
    seen: Arc<Mutex<Vec<(String, String)>>>,
}

impl Outside {
    async fn new() -> Outside {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, seen) = (listener.local_addr().unwrap().port(), Arc::<Mutex<Vec<(String, String)>>>::default());
        let kept = seen.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut asked = Vec::new();
                while !asked.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => asked.push(byte),
                        Err(_) => break,
                    }
                }
                let asked = String::from_utf8_lossy(&asked).into_owned();
                let path = asked.split(' ').nth(1).unwrap_or_default().trim_start_matches('/').to_owned();
                let trace = asked.lines().find_map(|line| line.strip_prefix("traceparent: ")).unwrap_or_default().to_owned();
                let status = if path == "missing" { "404 Not Found" } else { "200 OK" };
                kept.lock().unwrap().push((path, trace));
                let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Outside { port, seen }
    }

    /// What it was asked for since the last look, once all of these were: each in a span of its own of this trace.
    async fn asked(&self, rig: &Rig, paths: &[&str]) {
        for _ in 0..2_000 {
            if self.seen.lock().unwrap().len() >= paths.len() {
                break;
            }
            rig.engine.settle().await;
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let seen = std::mem::take(&mut *self.seen.lock().unwrap());
        let mut found: Vec<&str> = seen.iter().map(|(path, _)| path.as_str()).collect();
        found.sort_unstable();
        assert_eq!(found, paths);
        assert!(seen.iter().all(|(_, trace)| is_within(trace)), "{seen:?}");
    }
}

/// Whether it is the trace that was sent, and another span.
fn is_within(trace: &str) -> bool {
    trace.len() == TRACE.len() && trace.starts_with(&TRACE[..36]) && trace.ends_with(&TRACE[52..]) && trace != TRACE
}

async fn rig(outside: &Outside) -> (Rig, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("app.yaml"), MANIFEST.replace("PORT", &outside.port.to_string())).unwrap();
    std::fs::write(folder.path().join("kept.py"), KEPT).unwrap();
    let app = App::new()
        .manifest(folder.path().join("app.yaml"))
        .unwrap()
        .handler(GO, async |ctx: Ctx, path: String| ctx.activity(FETCH, json!(path)).await)
        .handler(START, async |ctx: Ctx, n: u64| Ok(json!(ctx.start("below", json!({ "n": n })).await?.to_string())));
    let rig = Rig::of(app, Patience::default(), Limits::default()).await;
    for (name, text) in [("below", BELOW), ("traced", TRACED), ("undone", UNDONE)] {
        let put = rig.owner().send("PUT", &format!("/v1/pipelines/{name}"), &[], Some(text)).await;
        assert_eq!(put.status, 201, "{put:?}");
    }
    (rig, folder)
}

async fn started(owner: &Ask, pipeline: &str, trace: &str) -> String {
    let answer = owner.send("POST", &format!("/v1/pipelines/{pipeline}/runs"), &[("traceparent", trace)], Some("{}")).await;
    assert_eq!((answer.status, answer.header("traceparent")), (201, None), "{answer:?}");
    answer.json()["run"].as_str().unwrap().to_owned()
}

async fn ended(owner: &Ask, run: &str) -> Value {
    owner.send("GET", &format!("/v1/runs/{run}"), &[("Prefer", "wait=30")], None).await.json()
}

async fn lease(rig: &Rig, activity: &str) -> Value {
    for _ in 0..1_000 {
        rig.engine.settle().await;
        let answer = rig.owner().post(&format!("/v1/work/{activity}/lease"), r#"{"wait":"20ms"}"#).await.json();
        if let Some(task) = answer["tasks"].get(0) {
            return task.clone();
        }
    }
    panic!("nothing is offered");
}

#[tokio::test]
async fn a_run_gives_its_trace_to_all_that_it_does_and_starts_also_after_a_kill() {
    let outside = Outside::new().await;
    let (mut rig, _folder) = rig(&outside).await;
    let run = started(&rig.owner(), "traced", TRACE).await;
    let before = lease(&rig, "resize").await;
    assert!(is_within(before["traceparent"].as_str().unwrap()), "{before}");
    outside.asked(&rig, &["actor", "below-1", "below-2", "below-3", "own"]).await;
    rig.reopen().await;
    let task = lease(&rig, "resize").await;
    assert_eq!(task["traceparent"], before["traceparent"], "another attempt under the same key is the same span");
    let done = format!("/v1/work/{}/complete", task["task"].as_str().unwrap());
    assert_eq!(rig.owner().post(&done, r#"{"result":null}"#).await.status, 204);
    let ended = ended(&rig.owner(), &run).await;
    assert_eq!(ended["status"], "completed", "{ended}");
    let output = &ended["output"];
    assert!(is_within(output["told"].as_str().unwrap()) && is_within(output["kept"].as_str().unwrap()), "{output}");
    assert_eq!(output["declared"], "mine", "what is declared goes before ours");
    outside.asked(&rig, &["late"]).await;
    kit::sound(&rig.engine).await;
}

#[tokio::test]
async fn undoing_a_retry_and_a_fork_of_a_run_keep_its_trace() {
    let outside = Outside::new().await;
    let (rig, _folder) = rig(&outside).await;
    let owner = rig.owner();
    let run = started(&owner, "undone", TRACE).await;
    assert_eq!(ended(&owner, &run).await["status"], "failed");
    outside.asked(&rig, &["made", "missing", "unmade"]).await;
    assert_eq!(owner.post(&format!("/v1/runs/{run}/retry"), "{}").await.status, 204);
    assert_eq!(ended(&owner, &run).await["status"], "failed");
    outside.asked(&rig, &["made", "missing", "unmade"]).await;
    let run = started(&owner, "below", TRACE).await;
    assert_eq!(ended(&owner, &run).await["status"], "completed");
    outside.asked(&rig, &["below-0"]).await;
    let again = r#"{"from":"fetch","reason":"again"}"#;
    let fork = owner.send("POST", &format!("/v1/runs/{run}/fork"), &[("Idempotency-Key", "f-1")], Some(again)).await;
    assert_eq!(fork.status, 201, "{fork:?}");
    assert_eq!(ended(&owner, fork.json()["id"].as_str().unwrap()).await["status"], "completed");
    outside.asked(&rig, &["below-0"]).await;
}

#[tokio::test]
async fn a_call_over_http_gives_its_trace_to_what_the_handler_asks_for_and_to_the_worker_that_performs_it() {
    let outside = Outside::new().await;
    let (rig, _folder) = rig(&outside).await;
    let traced = [("traceparent", TRACE)];
    let called = rig.owner().send("POST", "/v1/actors/relay/b/call/go", &traced, Some("\"called\"")).await;
    assert_eq!(called.status, 200, "{called:?}");
    outside.asked(&rig, &["called"]).await;
    assert_eq!(rig.owner().send("POST", "/v1/actors/licence/MIT/send/count", &traced, Some("1")).await.status, 202);
    let task = lease(&rig, "licence.count").await;
    assert!(is_within(task["traceparent"].as_str().unwrap()), "{task}");
}

#[tokio::test]
async fn what_belongs_to_no_trace_or_to_one_that_is_none_is_given_none() {
    let outside = Outside::new().await;
    let (rig, _folder) = rig(&outside).await;
    for trace in ["", "00-4bf92f35-00f067aa-01", &"x".repeat(2_000)] {
        started(&rig.owner(), "traced", trace).await;
        let task = lease(&rig, "resize").await;
        assert!(task.get("traceparent").is_none(), "{task}");
    }
    assert!(outside.seen.lock().unwrap().iter().all(|(_, trace)| trace.is_empty()));
    // Beside the door as well: nothing of it is kept.
    let now = rig.engine.engine().now();
    let resource = Resource::Pipeline { tenant: "default".to_owned(), name: "below".to_owned() };
    let start = authorize(local("default", now), Action::Start, resource, now).unwrap();
    let none = RunStart { key: None, trace: Some("x".repeat(2_000)) };
    let run = rig.engine.engine().start_named(start, Bytes::from_static(b"{}"), none).await.unwrap();
    assert_eq!(ended(&rig.owner(), &run.to_string()).await["status"], "completed");
    let stored: Vec<Key> = rig.engine.model().rows(run.0.hash.shard(64)).into_iter().map(|(key, _)| key).collect();
    assert!(stored.contains(&run_key(run)) && !stored.contains(&annex_key(run)));
}
