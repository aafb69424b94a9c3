//! Runs whose work is done by requests.

use bytes::Bytes;
use selvedge_engine::RunStart;
use selvedge_engine::registry::{Activity, Executor, Registry};
use selvedge_kernel::auth::{Action, Resource};
use selvedge_kernel::machine::RunState;
use selvedge_kernel::model::Model;
use selvedge_kernel::pipeline::definition::Http;
use selvedge_kernel::pipeline::parse::parse_pipeline;
use selvedge_kernel::policy::{Retry, Timeout};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::rig::Folder;
use crate::runs::{open_with, permit, work};
use crate::server::{Server, answer};

async fn run(model: &Model, folder: &Folder, registry: Registry, text: &str, input: Value) -> (RunState, Option<String>, Value) {
    let (definition, _) = parse_pipeline("calls.yaml", text).unwrap();
    let engine = open_with(model, folder, registry).await;
    let start = permit(Action::Start, Resource::Pipeline { tenant: "default".to_owned(), name: definition.name.clone() });
    let id = engine.start_run(start, definition, Bytes::from(input.to_string()), RunStart::default()).await.unwrap();
    let end = tokio::time::timeout(Duration::from_secs(60), engine.run_wait(work(id, Action::Read), id)).await.expect("the run hangs").unwrap();
    engine.close().await.unwrap();
    let output = end.output.map_or(Value::Null, |output| serde_json::from_slice(&output).unwrap());
    (end.state, end.error.map(|error| error.code), output)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_server_that_is_away_twice_is_asked_again_after_the_time_it_names_under_the_same_key() {
    let away = answer("503 Unavailable", "Retry-After: 1\r\n", b"");
    let server = Server::answers(vec![away.clone(), away, answer("200 OK", "Content-Type: application/json\r\n", b"{\"stored\":true}")]).await;
    let text = format!(
        r#"
selvedge: 1
name: calls
input: {{ id: {{ type: string }} }}
egress: ["{}"]
activities:
  store: {{ http: {{ method: PUT, url: "{}items/${{input.id}}" }}, retry: {{ max_attempts: 3, initial: 1ms }}, timeout: {{ attempt: 20s }} }}
stages:
  - {{ name: stored, call: store, input: {{ id: "${{input.id}}" }}, output: "${{result.body}}" }}
output: "${{stages.stored.output.stored}}"
"#,
        server.named(),
        server.url()
    );
    let started = Instant::now();
    let end = run(&Model::new(), &Folder::new("http-away"), Registry::default(), &text, json!({"id": "x1"})).await;
    assert_eq!(end, (RunState::Completed, None, json!(true)));
    assert!(started.elapsed() >= Duration::from_secs(2), "it came back before the time that the server named");
    let seen = server.seen();
    let keys: Vec<&str> = seen.iter().filter_map(|seen| seen.lines().find_map(|line| line.strip_prefix("idempotency-key: "))).collect();
    assert!(keys.len() == 3 && keys[0].len() > 20 && keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    assert!(seen.iter().all(|seen| seen.starts_with("PUT /items/x1 ") && seen.ends_with(r#"{"id":"x1"}"#)), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_registered_request_reaches_what_the_registry_names_and_nothing_else() {
    let server = Server::answers(vec![answer("404 Not Found", "", b"")]).await;
    let text = "selvedge: 1\nname: calls\nstages:\n  - { name: head, call: head, input: { url: \"${input.url}\" } }\ninput: { url: { type: string } }\n";
    let registry = || {
        let http =
            Http { method: "HEAD".to_owned(), url: "${input.url}".to_owned(), headers: BTreeMap::new(), body: None, redirects: 0, folder: String::new() };
        let mut registry = Registry::default();
        registry.activities.insert(
            "head".to_owned(),
            Activity { run: Executor::Http(http), retry: Retry::default(), timeout: Timeout::default(), throttle: None, breaker: None },
        );
        registry.egress = vec![server.named().parse().unwrap()];
        registry
    };
    let folder = Folder::new("http-registered");
    for (url, code) in [(server.url(), "http_404"), ("http://169.254.169.254/".to_owned(), "egress_denied")] {
        let (state, error, _) = run(&Model::new(), &folder, registry(), text, json!({ "url": url })).await;
        assert_eq!((state, error.as_deref()), (RunState::Failed, Some(code)));
    }
    assert_eq!(server.seen().len(), 1, "a 404 is final");
}
