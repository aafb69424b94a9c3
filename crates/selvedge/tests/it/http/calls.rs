//! Messages, their results, state.

use serde_json::json;

use super::rig::Rig;

#[tokio::test]
async fn a_call_over_http_gives_what_the_handler_gave_and_a_send_its_id() {
    let rig = Rig::new().await;
    let owner = rig.owner();
    let called = owner.post("/v1/actors/counter/a/call/add", "5").await;
    assert_eq!((called.status, called.json()["result"].clone()), (200, json!(5)), "{called:?}");
    let sent = owner.post("/v1/actors/counter/a/send/add", "2").await;
    assert_eq!(sent.status, 202);
    let id = sent.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(sent.header("location"), Some(&*format!("/v1/invocations/{id}")));
    let result = owner.send("GET", &format!("/v1/invocations/{id}/result"), &[("Prefer", "wait=20")], None).await;
    assert_eq!((result.status, result.json()["result"].clone()), (200, json!(7)), "{result:?}");
    let shared = owner.post("/v1/actors/counter/a/call/count", "").await;
    assert_eq!((shared.status, shared.json()), (200, json!({ "id": null, "result": 7 })));
    let shown = owner.get(&format!("/v1/invocations/{id}")).await.json();
    assert_eq!((shown["status"].clone(), shown["actor"].clone()), (json!("completed"), json!("counter/a")), "{shown}");
}

#[tokio::test]
async fn a_call_that_does_not_end_in_time_is_202_with_its_id_and_goes_on() {
    let rig = Rig::new().await;
    let owner = rig.owner();
    let key = [("Idempotency-Key", "k-1"), ("Prefer", "wait=0")];
    let called = owner.send("POST", "/v1/actors/counter/a/call/wait", &key, Some("{}")).await;
    assert_eq!(called.status, 202, "{called:?}");
    let id = called.json()["id"].as_str().unwrap().to_owned();
    // Asked again without a wait, it says which one goes on; with another body, that this is another request.
    let again = owner.send("POST", "/v1/actors/counter/a/call/wait", &[("Idempotency-Key", "k-1"), ("Prefer", "respond-async")], Some("{}")).await;
    assert_eq!((again.status, again.code()), (409, "still_running".to_owned()));
    assert!(again.text.contains(&id), "{again:?}");
    let other = owner.send("POST", "/v1/actors/counter/a/call/wait", &key, Some("{\"x\":1}")).await;
    assert_eq!((other.status, other.code()), (422, "idempotency_mismatch".to_owned()));
    // Asked again with a wait, it is the same wait.
    let waiting = {
        let owner = owner.clone();
        tokio::spawn(
            async move { owner.send("POST", "/v1/actors/counter/a/call/wait", &[("Idempotency-Key", "k-1"), ("Prefer", "wait=30")], Some("{}")).await },
        )
    };
    assert_eq!(owner.post("/v1/actors/counter/a/signals/go", "\"on\"").await.status, 204);
    let ended = waiting.await.unwrap();
    assert_eq!((ended.status, ended.json()), (200, json!({ "id": id, "result": { "given": "on" } })));
}

#[tokio::test]
async fn failed_work_is_422_with_its_own_code_and_what_the_engine_refuses_has_a_status_by_its_kind() {
    let rig = Rig::new().await;
    let owner = rig.owner();
    let failed = owner.post("/v1/actors/counter/a/call/fail", "null").await;
    assert_eq!((failed.status, failed.code()), (422, "card_declined".to_owned()));
    for (method, path, body, status, code) in [
        ("POST", "/v1/actors/counter/a/call/nosuch", Some("1"), 404, "unknown_handler"),
        ("POST", "/v1/actors/nosuch/a/call/add", Some("1"), 404, "unknown_handler"),
        ("POST", "/v1/actors/counter/a/call/add", Some("{"), 400, "not_json"),
        ("GET", "/v1/invocations/inv_nosuch", None, 400, "bad_id"),
        ("GET", "/v1/runs?where=status:", None, 422, "where"),
        ("GET", "/v1/pipelines/nosuch", None, 404, "unknown_pipeline"),
        ("GET", "/v1/nosuch", None, 404, "no_route"),
        ("DELETE", "/v1/runs", None, 405, "no_method"),
        ("GET", "/v1/stuck?longer_than=soon", None, 400, "bad_request"),
        ("POST", "/v1/invocations/inv_0/cancel", Some("{\"reason\":\"a\",\"reason\":\"b\"}"), 400, "bad_request"),
        ("POST", "/v1/invocations/inv_0/cancel", Some("{\"reazon\":\"a\"}"), 400, "bad_request"),
    ] {
        let answer = owner.send(method, path, &[], body).await;
        assert_eq!((answer.status, answer.code()), (status, code.to_owned()), "{method} {path}: {answer:?}");
        assert_eq!(answer.header("allow").is_some(), status == 405, "{answer:?}");
    }
}

#[tokio::test]
async fn the_state_of_an_actor_is_read_with_etags_and_edited_only_where_it_is_what_was_read() {
    let rig = Rig::new().await;
    let owner = rig.owner();
    owner.post("/v1/actors/counter/a/call/add", "5").await;
    let entry = "/v1/actors/counter/a/state/count";
    let read = owner.get(entry).await;
    assert_eq!((read.status, read.text.as_str()), (200, "5"));
    let tag = read.header("etag").unwrap().to_owned();
    let edit = |tag: String, value: &'static str| {
        let owner = owner.clone();
        async move { owner.send("PUT", &format!("{entry}?reason=mended"), &[("If-Match", &tag)], Some(value)).await }
    };
    assert_eq!(edit(tag.clone(), "40").await.status, 200);
    let late = edit(tag, "50").await;
    assert_eq!((late.status, late.code()), (412, "changed_since".to_owned()));
    assert_eq!(owner.get("/v1/actors/counter/a/state").await.json(), json!({ "count": 40 }));
    let tagged = owner.get("/v1/actors/counter/a/state?etags=true").await.json();
    assert_eq!((tagged["count"]["value"].clone(), tagged["count"]["etag"].as_str().map(str::len)), (json!(40), Some(32)), "{tagged}");
    // Whatever is there, as long as something is.
    assert_eq!(edit("*".to_owned(), "41").await.status, 200);
    let two = edit("\"a\", \"b\"".to_owned(), "42").await;
    assert_eq!((two.status, two.code()), (400, "bad_request".to_owned()));
    let removed = owner.send("DELETE", &format!("{entry}?reason=gone"), &[], None).await;
    assert_eq!(removed.status, 200, "{removed:?}");
    let nothing = edit("*".to_owned(), "43").await;
    assert_eq!((nothing.status, nothing.code()), (412, "changed_since".to_owned()));
    let gone = owner.get(entry).await;
    assert_eq!((gone.status, gone.code()), (404, "unknown_entry".to_owned()));
    let silent = owner.send("DELETE", &format!("{entry}?reason="), &[], None).await;
    assert_eq!((silent.status, silent.code()), (400, "no_reason".to_owned()));
}

#[tokio::test]
async fn why_and_what_is_shown_of_work_name_who_asked_for_it_and_through_whom() {
    let rig = Rig::new().await;
    let owner = rig.owner();
    let sent = owner.post("/v1/actors/counter/first/send/relay", "\"second\"").await.json()["id"].as_str().unwrap().to_owned();
    let below = loop {
        let open = owner.get("/v1/invocations?where=handler:wait").await.json();
        if let Some(id) = open[0]["id"].as_str() {
            break id.to_owned();
        }
    };
    for (id, through) in [(&sent, json!([])), (&below, json!(["counter/first.relay"]))] {
        for path in [format!("/v1/why/{id}"), format!("/v1/invocations/{id}")] {
            let caller = owner.get(&path).await.json()["caller"].clone();
            assert_eq!((&caller["principal"], &caller["through"]), (&json!(rig.owner_id()), &through), "{path}: {caller}");
        }
    }
    owner.send("PUT", "/v1/pipelines/asked", &[], Some(super::rig::PIPELINE)).await;
    let run = owner.post("/v1/pipelines/asked/runs", "{}").await.json()["run"].as_str().unwrap().to_owned();
    for path in [format!("/v1/why/{run}"), format!("/v1/runs/{run}")] {
        assert_eq!(owner.get(&path).await.json()["caller"]["principal"], rig.owner_id(), "{path}");
    }
}

#[tokio::test]
async fn a_message_that_is_sent_for_later_waits_and_why_says_so() {
    let rig = Rig::new().await;
    let owner = rig.owner();
    let sent = owner.post("/v1/actors/counter/a/send/add?delay=1h", "1").await;
    assert_eq!(sent.status, 202, "{sent:?}");
    assert_eq!(owner.get("/v1/actors/counter/a/state").await.json(), json!({}));
    rig.engine.advance(std::time::Duration::from_secs(3_700)).await;
    assert_eq!(owner.get("/v1/actors/counter/a/state").await.json(), json!({ "count": 1 }));
}

#[tokio::test]
async fn the_tenant_is_that_of_the_credential_and_a_denial_has_no_effect() {
    let rig = Rig::new().await;
    let sent = rig.owner().send("POST", "/v1/actors/counter/a/call/wait", &[("Prefer", "wait=0")], Some("{}")).await;
    let id = sent.json()["id"].as_str().unwrap().to_owned();
    // The same actor of another tenant is another actor.
    let other = rig.other().post("/v1/actors/counter/a/call/add", "1").await;
    assert_eq!(other.json()["result"], 1);
    assert_eq!(rig.owner().get("/v1/actors/counter/a/state").await.json(), json!({}));
    let foreign = rig.other().post(&format!("/v1/invocations/{id}/cancel"), "{}").await;
    assert_eq!((foreign.status, foreign.code()), (404, "unknown_invocation".to_owned()));
    let denied = rig.nobody().post(&format!("/v1/invocations/{id}/cancel"), "{}").await;
    assert_eq!((denied.status, denied.code()), (403, "denied".to_owned()));
    assert!(denied.json()["decision_id"].as_str().unwrap().starts_with("dec_"), "{denied:?}");
    rig.engine.settle().await;
    assert_eq!(rig.owner().get(&format!("/v1/why/{id}")).await.json()["waiting"][0]["for"], "signal");
}
