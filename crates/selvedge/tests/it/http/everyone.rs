//! Every operation of the document, asked by those who may not.

use std::collections::BTreeMap;

use serde_json::Value;

use super::client::{Answer, Ask};
use super::rig::{PIPELINE, Rig};

/// What each operation is asked with, as its owner would.
fn bodies() -> BTreeMap<&'static str, &'static str> {
    BTreeMap::from([
        ("POST /v1/actors/{type}/{key}/call/{handler}", "1"),
        ("POST /v1/actors/{type}/{key}/send/{handler}", "1"),
        ("POST /v1/actors/{type}/{key}/signals/{name}", "1"),
        ("PUT /v1/actors/{type}/{key}/state/{name}", "1"),
        ("POST /v1/invocations/{id}/cancel", r#"{"reason":"r"}"#),
        ("POST /v1/invocations/{id}/kill", r#"{"reason":"r"}"#),
        ("POST /v1/invocations/{id}/fork", r#"{"reason":"r"}"#),
        ("POST /v1/invocations/{id}/resolve", r#"{"operation":1,"result":1,"reason":"r"}"#),
        ("POST /v1/invocations/{id}/signals/{name}", "1"),
        ("PUT /v1/pipelines/{name}", PIPELINE),
        ("POST /v1/pipelines/{name}/runs", "{}"),
        ("POST /v1/runs/{id}/cancel", r#"{"reason":"r"}"#),
        ("POST /v1/runs/{id}/retry", "{}"),
        ("POST /v1/runs/{id}/fork", r#"{"reason":"r"}"#),
        ("POST /v1/runs/{id}/signals/{name}", "1"),
        ("POST /v1/approvals/{id}", r#"{"answer":"approve"}"#),
        ("POST /v1/dead-letters/{id}/redrive", "{}"),
        ("POST /v1/work/{activity}/lease", r#"{"wait":"1ms"}"#),
        ("POST /v1/work/{task}/heartbeat", "{}"),
        ("POST /v1/work/{task}/complete", r#"{"result":1}"#),
        ("POST /v1/work/{task}/fail", r#"{"code":"broken"}"#),
        ("POST /v1/keys", r#"{"roles":["owner"]}"#),
        ("POST /v1/keys/{id}/revoke", r#"{"reason":"r"}"#),
        ("POST /v1/principals/{id}/disable", r#"{"reason":"r"}"#),
        ("POST /v1/policy/test", r#"{"action":"start","resource":"pipeline:asked"}"#),
    ])
}

/// Operations of the document, each as method and path, without those that anybody may ask.
async fn operations(rig: &Rig) -> Vec<(String, String)> {
    let document = rig.ask("").get("/openapi.json").await.json();
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap().iter().filter(|(method, _)| ["get", "put", "post", "delete"].contains(&method.as_str())) {
            if operation.get("security").is_none() {
                found.push((method.to_uppercase(), path.clone()));
            } else {
                assert!(["/healthz", "/readyz"].contains(&path.as_str()), "{path} is open to anybody");
            }
        }
    }
    found
}

/// Work of the owner, one of each kind.
struct Work {
    invocation: String,
    run: String,
    approval: String,
    letter: String,
    /// A key that nobody presents.
    key: String,
}

impl Work {
    async fn of(rig: &Rig) -> Work {
        let owner = rig.owner();
        let invocation = owner.post("/v1/actors/counter/a/send/wait", "{}").await.json()["id"].as_str().unwrap().to_owned();
        let failed = owner.post("/v1/actors/counter/b/send/fail", "{}").await.json()["id"].as_str().unwrap().to_owned();
        assert_eq!(owner.send("PUT", "/v1/pipelines/asked", &[], Some(PIPELINE)).await.status, 201);
        let run = owner.post("/v1/pipelines/asked/runs", "{}").await.json()["run"].as_str().unwrap().to_owned();
        let key = owner.post("/v1/keys", r#"{"name":"spare","roles":["reader"]}"#).await.json()["id"].as_str().unwrap().to_owned();
        rig.engine.settle().await;
        let approval = owner.get("/v1/approvals").await.json()[0]["id"].as_str().unwrap().to_owned();
        Work { invocation, run, approval, letter: failed, key }
    }

    /// A path of the document with names in it.
    fn fill(&self, path: &str) -> String {
        let id = match path.split('/').nth(2).unwrap_or_default() {
            "runs" | "why" => &self.run,
            "approvals" => &self.approval,
            "dead-letters" => &self.letter,
            "schedules" => "asked",
            "keys" | "principals" => &self.key,
            _ => &self.invocation,
        };
        let handler = path.replace("{type}", "counter").replace("{key}", "a").replace("{handler}", "add").replace("{id}", id);
        let handler = handler.replace("{activity}", "resize").replace("{task}", "resize~00");
        let name = if path.starts_with("/v1/pipelines") { "asked" } else { "go" };
        let filled = handler.replace("{name}", name);
        if path.ends_with("/diff") {
            return format!("{filled}?before=a&after=b");
        }
        if path.contains("/state/") { format!("{filled}?reason=r") } else { filled }
    }
}

/// Everything that the owner sees.
async fn seen(rig: &Rig, work: &Work) -> Vec<Value> {
    rig.engine.settle().await;
    let mut seen = Vec::new();
    for path in [
        "/v1/actors",
        "/v1/invocations?all=true",
        "/v1/runs",
        "/v1/approvals",
        "/v1/dead-letters",
        "/v1/keys",
        "/v1/principals",
        "/v1/pipelines/asked",
        "/v1/actors/counter/a/state",
        &format!("/v1/invocations/{}/journal", work.invocation),
        &format!("/v1/runs/{}/journal", work.run),
    ] {
        let answer = rig.owner().get(path).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        seen.push(answer.json());
    }
    seen
}

async fn asked(who: &Ask, work: &Work, method: &str, path: &str) -> Answer {
    let bodies = bodies();
    let body = bodies.get(format!("{method} {path}").as_str()).copied();
    who.send(method, &work.fill(path), &[("Idempotency-Key", "k"), ("Prefer", "wait=0")], body).await
}

#[tokio::test]
async fn case_37_no_operation_of_the_document_answers_without_a_credential() {
    let rig = Rig::new().await;
    let work = Work::of(&rig).await;
    let before = seen(&rig, &work).await;
    for (method, path) in operations(&rig).await {
        for key in ["", "unknown-key"] {
            let answer = asked(&rig.ask(key), &work, &method, &path).await;
            assert_eq!((answer.status, answer.code()), (401, "unauthenticated".to_owned()), "{method} {path}: {answer:?}");
        }
    }
    assert_eq!(seen(&rig, &work).await, before);
}

#[tokio::test]
async fn case_37_a_credential_that_no_policy_allows_anything_gets_403_from_every_operation_and_changes_nothing() {
    let rig = Rig::new().await;
    let work = Work::of(&rig).await;
    let before = seen(&rig, &work).await;
    for (method, path) in operations(&rig).await {
        let answer = asked(&rig.nobody(), &work, &method, &path).await;
        assert_eq!((answer.status, answer.code()), (403, "denied".to_owned()), "{method} {path}: {answer:?}");
    }
    assert_eq!(seen(&rig, &work).await, before);
}

#[tokio::test]
async fn case_37_the_credential_of_another_tenant_reaches_nothing_of_this_one_with_any_operation() {
    let rig = Rig::new().await;
    let work = Work::of(&rig).await;
    let before = seen(&rig, &work).await;
    for (method, path) in operations(&rig).await {
        let answer = asked(&rig.other(), &work, &method, &path).await;
        if path.contains("{id}") {
            assert!([403, 404].contains(&answer.status), "{method} {path}: {answer:?}");
        } else if method == "GET" {
            // What it is shown is its own, and of the first tenant there is no trace in it.
            for id in [&work.invocation, &work.run, &work.approval, &work.letter, &work.key] {
                assert!(!answer.text.contains(id.as_str()), "{method} {path}: {answer:?}");
            }
        }
    }
    assert_eq!(seen(&rig, &work).await, before);
}

#[tokio::test]
async fn every_operation_answers_its_owner_with_something_that_the_document_names() {
    let rig = Rig::new().await;
    let work = Work::of(&rig).await;
    let document = rig.ask("").get("/openapi.json").await.json();
    let mut operations = operations(&rig).await;
    // What ends things comes last.
    operations.sort_by_key(|(method, path)| (method != "GET", path.contains("kill") || path.contains("cancel")));
    for (method, path) in operations {
        if path.ends_with("/events") || path.ends_with("/stream") {
            continue;
        }
        let answer = asked(&rig.owner(), &work, &method, &path).await;
        let named = &document["paths"][&path][method.to_lowercase()]["responses"];
        assert!(named.get(answer.status.to_string()).is_some() && answer.status < 500, "{method} {path}: {answer:?}");
        assert!(![401, 403].contains(&answer.status) || path.starts_with("/v1/approvals/"), "{method} {path}: {answer:?}");
    }
}
