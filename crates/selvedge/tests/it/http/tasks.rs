//! The tasks of a run, and the process that does them.

use serde_json::{Value, json};

use super::client::Ask;
use super::rig::Rig;

const PICTURES: &str = "selvedge: 1
name: pictures
input: { ns: { type: array, items: { type: integer } } }
activities:
  resize: { worker: true, retry: { max_attempts: 3, initial: 1h, max: 1h } }
stages:
  - { name: small, mode: scatter, over: input.ns, as: n, call: resize, input: \"${n}\", on_failure: { continue: { max_failed: 100% } } }
";

/// All tasks of a run, two at a time.
async fn tasks(owner: &Ask, run: &str) -> Vec<Value> {
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let answer = owner.get(&format!("/v1/runs/{run}/tasks?limit=2{cursor}")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let page = answer.json();
        assert!(page["tasks"].as_array().unwrap().len() <= 2, "{page}");
        found.extend(page["tasks"].as_array().unwrap().clone());
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return found,
        }
    }
}

/// All tasks, once something is true of them.
async fn once(owner: &Ask, run: &str, holds: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    for _ in 0..2_000 {
        let found = tasks(owner, run).await;
        if holds(&found) {
            return found;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("that is never true of {:?}", tasks(owner, run).await);
}

/// Where each task is, once all of them are where they are awaited.
async fn until(owner: &Ask, run: &str, statuses: &[&str]) -> Vec<Value> {
    once(owner, run, |found| found.iter().map(|task| task["status"].as_str().unwrap()).eq(statuses.iter().copied())).await
}

#[tokio::test]
async fn tasks_of_a_run_are_shown_page_by_page_with_where_each_is_and_what_it_waits_for() {
    let rig = Rig::new().await;
    let owner = rig.owner();
    assert_eq!(owner.send("PUT", "/v1/pipelines/pictures", &[], Some(PICTURES)).await.status, 201);
    let run = owner.post("/v1/pipelines/pictures/runs", r#"{"ns":[0,1,2,3,4]}"#).await.json()["run"].as_str().unwrap().to_owned();
    let first = json!({ "for": "no_executor", "activity": "resize" });
    let found = once(&owner, &run, |found| found.len() == 5 && found.iter().all(|task| task["waiting"] == json!([first]))).await;
    assert!(found.iter().all(|task| task["status"] == "running"), "{found:?}");
    assert_eq!((&found[0]["name"], &found[0]["item"], &found[0]["attempts"]), (&json!("small[0]"), &json!(0), &json!(1)), "{}", found[0]);
    assert!(found.iter().all(|task| task["ended_at"].is_null()), "{found:?}");
    let leased = owner.post("/v1/work/resize/lease", r#"{"max":4,"wait":"10s"}"#).await.json();
    for task in leased["tasks"].as_array().unwrap() {
        let (verb, body) = match task["input"].as_u64().unwrap() {
            0 => ("complete", r#"{"result":0}"#),
            1 => ("fail", r#"{"code":"busy","message":"not now"}"#),
            2 => ("fail", r#"{"code":"no_picture","retryable":false}"#),
            _ => continue,
        };
        let answer = owner.post(&format!("/v1/work/{}/{verb}", task["task"].as_str().unwrap()), body).await;
        assert_eq!(answer.status, 204, "{answer:?}");
    }
    let found = until(&owner, &run, &["completed", "retrying", "failed", "running", "running"]).await;
    assert!(found[0]["ended_at"].is_string() && found[0]["error"].is_null(), "{}", found[0]);
    let (error, waits) = (&found[1]["error"], &found[1]["waiting"][0]);
    assert_eq!((&error["code"], &waits["for"], &waits["attempt"]), (&json!("busy"), &json!("retry_at"), &json!(2)), "{}", found[1]);
    assert_eq!(found[2]["error"]["code"], "no_picture");
    assert_eq!((&found[3]["waiting"], &found[4]["waiting"]), (&json!([]), &json!([first])), "a worker has one of them");
    assert_eq!(owner.post(&format!("/v1/runs/{run}/cancel"), r#"{"reason":"enough"}"#).await.status, 204);
    let found = until(&owner, &run, &["completed", "cancelled", "failed", "cancelled", "cancelled"]).await;
    assert_eq!(found[2]["error"]["code"], "no_picture");
    assert!(found.iter().all(|task| task["waiting"] == json!([])), "{found:?}");
}

#[tokio::test]
async fn tasks_are_asked_for_with_words_that_are_there_or_it_is_said_what_to_send() {
    let rig = Rig::new().await;
    let owner = rig.owner();
    assert_eq!(owner.send("PUT", "/v1/pipelines/pictures", &[], Some(PICTURES)).await.status, 201);
    let run = owner.post("/v1/pipelines/pictures/runs", r#"{"ns":[]}"#).await.json()["run"].as_str().unwrap().to_owned();
    assert_eq!(owner.get(&format!("/v1/runs/{run}/tasks?stage=small")).await.json(), json!({ "tasks": [], "next": null }));
    let unknown = owner.get(&format!("/v1/runs/{run}/tasks?stage=large")).await;
    assert_eq!((unknown.status, unknown.code()), (404, "unknown_stage".to_owned()));
    assert!(unknown.text.contains("it has small"), "{unknown:?}");
    for (query, says) in [("cursor=here", "send what a page gave as `next`"), ("limit=0", "1 to 1000 tasks"), ("limit=9999", "1 to 1000 tasks")] {
        let answer = owner.get(&format!("/v1/runs/{run}/tasks?{query}")).await;
        assert!(answer.status == 400 && answer.text.contains(says), "{query}: {answer:?}");
    }
}

#[tokio::test]
async fn the_process_that_owns_the_shards_says_who_it_is_since_when_and_that_it_works() {
    let rig = Rig::new().await;
    let nodes = rig.owner().get("/v1/nodes").await.json();
    let node = &nodes[0];
    assert_eq!((nodes.as_array().unwrap().len(), &node["status"], &node["shards"][0]["first"]), (1, &json!("working"), &json!(0)), "{nodes}");
    assert!(node["id"].as_str().is_some_and(|id| id.len() == 16) && node["since"].is_string(), "{nodes}");
    assert_eq!(rig.other().get("/v1/nodes").await.json()[0]["id"], node["id"], "it works for every tenant");
}
