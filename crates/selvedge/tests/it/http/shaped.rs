//! One answer of each operation, and one of each word of a closed list, held against the schemas of the document.

use std::collections::BTreeSet;
use std::time::Duration;

use selvedge::{ActorOptions, Ctx, Failure, Handler, Outcome, Retry};
use selvedge_engine::hand::Resolved;
use selvedge_http::Patience;
use selvedge_kernel::error::WorkError;
use selvedge_kernel::limit::Limits;
use selvedge_kernel::machine::{ApprovalState, BreakerState, RunState, StageState};
use selvedge_kernel::record::decision::What;
use selvedge_kernel::record::run::{Event, Happening, Progress};
use selvedge_kernel::time::Millis;
use serde_json::{Value, json};

use super::client::Ask;
use super::rig::{Rig, app};
use super::shapes::Document;

const ALL: &str = "selvedge: 1
name: all
input: { n: { type: integer, default: 1 } }
attributes: { n: input.n }
schedule: { cron: \"0 2 * * *\", zone: UTC }
activities:
  resize: { worker: { lease: 60s } }
stages:
  - { name: small, call: resize, input: \"${input.n}\" }
  - { name: ask, mode: approval, depends_on: [], assignees: [\"role:owner\"], expires: 1d, fallback: reject }
output: \"${stages.small.output}\"
";

/// What fails so is a dead letter.
const BREAK: Handler<Value, Value> = Handler::new("broken", "break");

/// Asks, and notes what was answered.
struct Asking {
    owner: Ask,
    document: Document,
    seen: BTreeSet<String>,
}

impl Asking {
    async fn with(&mut self, method: &str, path: &str, header: (&str, &str), body: &str) -> Value {
        let answer = self.owner.send(method, path, &[header], (method != "GET").then_some(body)).await;
        assert!(answer.status < 300, "{method} {path}: {answer:?}");
        let (written, schema) = self.document.of(method, path, answer.status).unwrap_or_else(|| panic!("{method} {path} has no schema for {}", answer.status));
        let value = answer.json();
        self.document.fits(schema, &value, "$").unwrap_or_else(|misfit| panic!("{method} {path}: {misfit}, in {value}"));
        self.seen.insert(format!("{method} {written} {}", answer.status));
        value
    }

    async fn get(&mut self, path: &str) -> Value {
        self.with("GET", path, ("Accept", "application/json"), "").await
    }

    async fn post(&mut self, path: &str, body: &str) -> Value {
        self.with("POST", path, ("Idempotency-Key", path), body).await
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

async fn actors(asking: &mut Asking, rig: &Rig) {
    let added = text(&asking.post("/v1/actors/counter/a/call/add", "5").await["id"]);
    let waits = text(&asking.with("POST", "/v1/actors/counter/w/call/wait", ("Prefer", "respond-async"), "{}").await["id"]);
    asking.post("/v1/actors/counter/w/send/wait", "{}").await;
    let fails = text(&asking.post("/v1/actors/broken/f/send/break", "{}").await["id"]);
    rig.engine.advance(Duration::from_secs(7_200)).await;
    for path in ["/v1/actors", "/v1/invocations?all=true", "/v1/dead-letters", "/v1/stuck?longer_than=1s", "/v1/actors/counter/a/state"] {
        assert_ne!(asking.get(path).await, json!([]), "{path}");
    }
    for id in [&added, &waits, &fails] {
        asking.get(&format!("/v1/invocations/{id}")).await;
        asking.get(&format!("/v1/invocations/{id}/journal")).await;
        asking.get(&format!("/v1/why/{id}")).await;
    }
    asking.get(&format!("/v1/invocations/{waits}/result")).await;
    asking.get(&format!("/v1/invocations/{added}/result")).await;
    asking.post(&format!("/v1/invocations/{added}/fork"), r#"{"reason":"again"}"#).await;
    asking.get(&format!("/v1/invocations/{added}")).await;
    asking.get("/v1/actors/counter/a/state/count").await;
    asking.with("PUT", "/v1/actors/counter/a/state/count?reason=mended", ("Accept", "*/*"), "40").await;
    asking.with("DELETE", "/v1/actors/counter/a/state/count?reason=gone", ("Accept", "*/*"), "").await;
    asking.get(&format!("/v1/dead-letters/{fails}")).await;
    asking.post(&format!("/v1/dead-letters/{fails}/redrive"), "{}").await;
}

async fn runs(asking: &mut Asking, rig: &Rig) {
    let first = text(&asking.with("PUT", "/v1/pipelines/all", ("Accept", "*/*"), ALL).await["version"]);
    let run = text(&asking.post("/v1/pipelines/all/runs", "{}").await["run"]);
    rig.engine.settle().await;
    let approval = text(&asking.get("/v1/approvals").await[0]["id"]);
    asking.get(&format!("/v1/approvals/{approval}")).await;
    asking.get(&format!("/v1/runs/{run}")).await;
    asking.get(&format!("/v1/why/{run}")).await;
    asking.post(&format!("/v1/approvals/{approval}"), r#"{"answer":"approve","comment":"yes"}"#).await;
    asking.get("/v1/approvals").await;
    asking.get(&format!("/v1/approvals/{approval}")).await;
    let leased = asking.post("/v1/work/resize/lease", r#"{"wait":"10s"}"#).await;
    asking.get(&format!("/v1/runs/{run}/tasks")).await;
    let report = format!("/v1/work/{}/complete", text(&leased["tasks"][0]["task"]));
    assert_eq!(rig.owner().post(&report, r#"{"result":49}"#).await.status, 204);
    let ended = asking.with("GET", &format!("/v1/runs/{run}"), ("Prefer", "wait=30"), "").await;
    assert_eq!((&ended["status"], &ended["output"]), (&json!("completed"), &json!(49)), "{ended}");
    assert_ne!(asking.get(&format!("/v1/runs/{run}/journal")).await, json!([]));
    assert_ne!(asking.get("/v1/runs").await, json!([]));
    asking.post(&format!("/v1/runs/{run}/fork"), r#"{"from":"small","reason":"again"}"#).await;
    let second = text(&asking.with("PUT", "/v1/pipelines/all", ("Accept", "*/*"), &ALL.replace("1d", "2d")).await["version"]);
    for path in ["", "/all", &format!("/all?version={first}"), &format!("/all/diff?before={first}&after={second}")] {
        asking.get(&format!("/v1/pipelines{path}")).await;
    }
    for verb in ["pause", "resume", "fire"] {
        asking.post(&format!("/v1/schedules/all/{verb}"), "").await;
    }
    assert_ne!(asking.get("/v1/schedules").await, json!([]));
    asking.get("/v1/schedules/all").await;
    asking.with("DELETE", "/v1/schedules/all", ("Accept", "*/*"), "").await;
}

async fn people(asking: &mut Asking, rig: &Rig) {
    assert_eq!(rig.nobody().get("/v1/runs").await.status, 403);
    let key = text(&asking.post("/v1/keys", r#"{"name":"spare","roles":["reader"],"expires":"1d"}"#).await["id"]);
    asking.post(&format!("/v1/principals/{key}/disable"), r#"{"reason":"away"}"#).await;
    assert_ne!(asking.get("/v1/principals").await, json!([]));
    asking.post(&format!("/v1/principals/{key}/enable"), "").await;
    asking.post(&format!("/v1/keys/{key}/revoke"), r#"{"reason":"lost"}"#).await;
    asking.post("/v1/session", "").await;
    asking.post("/v1/policy/test", r#"{"action":"start","resource":"pipeline:all"}"#).await;
    assert_ne!(asking.get("/v1/policy/decisions").await["decisions"], json!([]));
    for path in ["/v1/keys", "/v1/nodes", "/healthz", "/readyz"] {
        assert_ne!(asking.get(path).await, json!([]), "{path}");
    }
}

#[tokio::test]
async fn each_answer_has_the_fields_that_the_document_says_and_no_others() {
    let app = app().actor("broken", ActorOptions { retry: Retry::none(), ..ActorOptions::default() });
    let app = app.handler(BREAK, async |_: Ctx, _: Value| -> Outcome<Value> { Err(Failure::retryable("broken", "no")) });
    let rig = Rig::of(app, Patience::default(), Limits::default()).await;
    let mut asking = Asking { owner: rig.owner(), document: Document::new(), seen: BTreeSet::new() };
    actors(&mut asking, &rig).await;
    runs(&mut asking, &rig).await;
    people(&mut asking, &rig).await;
    let unseen: Vec<String> = asking.document.answers().into_iter().filter(|answer| !asking.seen.contains(answer)).collect();
    // Only a blocked invocation is resolved.
    assert_eq!(unseen, ["POST /v1/invocations/{id}/resolve 200"]);
    let resolved = Resolved { entry: 3, supersedes: Some(1), stands_for: "step `charge`".to_owned() };
    asking.document.fits(asking.document.schema("Resolution"), &json!(resolved), "$").unwrap();
}

#[test]
fn a_field_too_many_one_too_few_and_one_of_another_type_do_not_fit() {
    let document = Document::new();
    let started = document.schema("StartedRun");
    assert_eq!(document.fits(started, &json!({ "run": "run_1", "version": "a" }), "$"), Ok(()));
    for (wrong, says) in [
        (json!({ "run": "run_1" }), "has no `version`"),
        (json!({ "run": "run_1", "version": 1 }), "$.version is integer"),
        (json!({ "run": "run_1", "version": null }), "$.version is null"),
        (json!({ "run": "run_1", "version": "a", "id": "run_1" }), "has `id`"),
        (json!([]), "is array"),
    ] {
        let misfit = document.fits(started, &wrong, "$").unwrap_err();
        assert!(misfit.contains(says), "{wrong}: {misfit}");
    }
}

#[test]
fn closed_lists_of_the_document_are_those_of_the_server() {
    let document = Document::new();
    let words = |name: &str| document.schema(name)["enum"].clone();
    assert_eq!(words("RunStatus"), json!(RunState::ALL));
    assert_eq!(words("StageStatus"), json!(StageState::ALL));
    assert_eq!(words("BreakerState"), json!(BreakerState::ALL));
    assert_eq!(words("DecisionKind"), json!(What::ALL.map(What::name)));
    // And what is said of one whose run has ended.
    let approvals: Vec<Value> = ApprovalState::ALL.iter().map(|state| json!(state)).chain([json!("closed")]).collect();
    assert_eq!(words("ApprovalState"), json!(approvals));
}

#[test]
fn whatever_happens_to_a_run_has_a_schema() {
    let (stage, id, error, at) = ("a".to_owned(), "apr_1".to_owned(), WorkError::new("busy", "not now"), Millis(1));
    let happened = vec![
        Happening::Run { state: RunState::Running, reason: None },
        Happening::Stage { stage: stage.clone(), state: StageState::Ready, reason: Some("so".to_owned()) },
        Happening::Retrying { stage: stage.clone(), item: 1, attempts: 1, error: error.clone(), at },
        Happening::TaskFailed { stage: stage.clone(), item: u32::MAX, attempts: 1, error },
        Happening::ApprovalOpened { stage: stage.clone(), id: id.clone(), assignees: vec!["role:owner".to_owned()], expires: at },
        Happening::ApprovalDecided { stage: stage.clone(), id, state: ApprovalState::Approved, by: "somebody".to_owned() },
        Happening::Signal { name: "go".to_owned(), stage: None },
    ];
    let document = Document::new();
    assert_eq!(document.schema("Happening")["oneOf"].as_array().unwrap().len(), happened.len());
    let event = Event { at, state: RunState::Running, progress: vec![Progress { stage, done: 1, failed: 0, total: 2 }], happened };
    document.fits(document.schema("NumberedEvent"), &json!([3, event]), "$").unwrap();
}
