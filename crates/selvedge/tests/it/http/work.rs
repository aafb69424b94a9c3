//! Workers of other processes over HTTP, as `docs/worker-protocol.md` says.

use serde_json::{Value, json};

use super::client::Ask;
use super::rig::Rig;

const PICTURES: &str = "selvedge: 1
name: pictures
input: { n: { type: integer } }
activities:
  resize: { worker: { lease: 1s }, retry: { max_attempts: 3, initial: 1ms } }
stages:
  - { name: small, call: resize, input: \"${input.n}\" }
output: \"${stages.small.output}\"
";

async fn lease(worker: &Ask) -> Value {
    let answer = worker.post("/v1/work/resize/lease", r#"{"max":1,"wait":"10s"}"#).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["tasks"][0].clone()
}

fn at(task: &Value, verb: &str) -> String {
    format!("/v1/work/{}/{verb}", task["task"].as_str().unwrap())
}

#[tokio::test]
async fn a_worker_takes_a_task_says_that_it_lives_and_ends_it_and_a_stalled_one_is_refused() {
    let rig = Rig::new().await;
    let owner = rig.owner();
    assert_eq!(owner.send("PUT", "/v1/pipelines/pictures", &[], Some(PICTURES)).await.status, 201);
    let run = owner.post("/v1/pipelines/pictures/runs", r#"{"n":7}"#).await.json()["run"].as_str().unwrap().to_owned();
    let stalled = lease(&owner).await;
    assert_eq!((&stalled["input"], &stalled["attempt"], &stalled["lease_ms"]), (&json!(7), &json!(1), &json!(1_000)));
    let task = loop {
        rig.engine.advance(std::time::Duration::from_millis(10)).await;
        let answer = owner.post("/v1/work/resize/lease", r#"{"wait":"50ms"}"#).await.json();
        if let Some(task) = answer["tasks"].get(0) {
            break task.clone();
        }
    };
    assert_eq!((&task["attempt"], &task["key"]), (&json!(2), &stalled["key"]));
    let late = owner.post(&at(&stalled, "complete"), r#"{"result":1}"#).await;
    assert_eq!((late.status, late.code()), (409, "lease_lost".to_owned()));
    assert_eq!(owner.post(&at(&task, "heartbeat"), r#"{"progress":0.5}"#).await.status, 204);
    assert_eq!(rig.other().post(&at(&task, "complete"), r#"{"result":1}"#).await.status, 409, "it is no task of that tenant");
    for _ in 0..2 {
        assert_eq!(owner.post(&at(&task, "complete"), r#"{"result":49}"#).await.status, 204);
    }
    let other = owner.post(&at(&task, "fail"), r#"{"code":"busy"}"#).await;
    assert_eq!((other.status, other.code()), (409, "reported".to_owned()));
    let ended = owner.send("GET", &format!("/v1/runs/{run}"), &[("Prefer", "wait=30")], None).await.json();
    assert_eq!((&ended["status"], &ended["output"]), (&json!("completed"), &json!(49)), "{ended}");
}

#[tokio::test]
async fn a_report_that_cannot_be_read_changes_nothing_and_says_what_to_write() {
    let rig = Rig::new().await;
    let owner = rig.owner();
    assert_eq!(owner.send("PUT", "/v1/pipelines/pictures", &[], Some(PICTURES)).await.status, 201);
    owner.post("/v1/pipelines/pictures/runs", r#"{"n":7}"#).await;
    let task = lease(&owner).await;
    for (verb, body, says) in [
        ("complete", "{}", "missing field `result`"),
        ("complete", "[1]", "it is no object"),
        ("complete", "{\"result\":", "the body does not fit"),
        ("fail", r#"{"code":""}"#, "the code of the error is empty"),
        ("fail", r#"{"kode":"x"}"#, "unknown field `kode`"),
    ] {
        let answer = owner.post(&at(&task, verb), body).await;
        assert!(answer.status == 400 && answer.text.contains(says), "{verb} {body}: {answer:?}");
    }
    let answer = owner.post("/v1/work/resize/lease", r#"{"wait":"soon"}"#).await;
    assert!(answer.status == 400 && answer.text.contains("write \\\"30s\\\""), "{answer:?}");
    let answer = owner.post("/v1/work/nothing-of-ours/complete", r#"{"result":1}"#).await;
    assert!(answer.status == 400 && answer.text.contains("send what `lease` gave as `task`"), "{answer:?}");
    assert_eq!(owner.post(&at(&task, "complete"), r#"{"result":1}"#).await.status, 204, "it is its task all the same");
}

#[tokio::test]
async fn a_task_that_was_offered_before_its_asker_was_revoked_is_handed_to_nobody() {
    let rig = Rig::new().await;
    let owner = rig.owner();
    assert_eq!(owner.send("PUT", "/v1/pipelines/pictures", &[], Some(PICTURES)).await.status, 201);
    let worker = owner.post("/v1/keys", r#"{"roles":["owner"]}"#).await.json()["key"].as_str().unwrap().to_owned();
    let worker = rig.ask(&worker);
    let run = owner.post("/v1/pipelines/pictures/runs", r#"{"n":7}"#).await.json()["run"].as_str().unwrap().to_owned();
    while rig.offered() == 0 {
        rig.engine.advance(std::time::Duration::from_millis(1)).await;
    }
    rig.revoke().await;
    let none = worker.post("/v1/work/resize/lease", r#"{"wait":"10ms"}"#).await;
    assert_eq!((none.status, none.json()["tasks"].clone()), (200, json!([])));
    let ended = worker.send("GET", &format!("/v1/runs/{run}"), &[("Prefer", "wait=20")], None).await.json();
    assert_eq!(ended["status"], "failed", "{ended}");
    assert!(ended["error"].to_string().contains("revoked"), "{ended}");
}
