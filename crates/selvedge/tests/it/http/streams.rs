//! Streams of runs and of invocations.

use std::time::Duration;

use selvedge_http::Patience;

use super::rig::{PIPELINE, Rig};

#[tokio::test]
async fn what_an_invocation_emits_is_streamed_and_read_on_behind_the_last_event() {
    let rig = Rig::new().await;
    let owner = rig.owner();
    let id = owner.post("/v1/actors/counter/a/send/tell", "3").await.json()["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/invocations/{id}/stream");
    let mut first = owner.open("GET", &path, &[], None).await;
    let text = first.until("\"chunk\":2").await.to_owned();
    assert!(text.contains("event: start") && text.contains("content-type: text/event-stream"), "{text}");
    let ids: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
    assert_eq!(ids.len(), 3, "{text}");
    drop(first);
    // Behind the second chunk comes the third, then what is emitted later, then the end; nothing twice.
    let resumed = owner.open("GET", &path, &[("Last-Event-ID", ids[1])], None).await;
    owner.post("/v1/actors/counter/a/signals/go", "1").await;
    let rest = resumed.end().await;
    assert!(!rest.contains("event: start") && !rest.contains("\"chunk\":1") && rest.contains("\"chunk\":2"), "{rest}");
    assert!(rest.contains("\"chunk\":\"last\"") && rest.contains("event: complete") && rest.contains("\"result\":3"), "{rest}");
    let lines = owner.open("GET", &path, &[("Accept", "application/x-ndjson")], None).await.end().await;
    assert!(lines.contains("content-type: application/x-ndjson") && lines.contains("\"event\":\"complete\""), "{lines}");
}

#[tokio::test]
async fn call_and_stream_in_one_gives_what_is_emitted_and_the_result() {
    let rig = Rig::new().await;
    let owner = rig.owner();
    let mut called = owner.open("POST", "/v1/actors/counter/a/call/tell", &[("Accept", "text/event-stream")], Some("1")).await;
    called.until("\"chunk\":0").await;
    owner.post("/v1/actors/counter/a/signals/go", "1").await;
    let text = called.end().await;
    assert!(text.contains("event: start") && text.contains("event: complete") && text.contains("\"result\":1"), "{text}");
}

#[tokio::test]
async fn what_happens_to_a_run_is_streamed_until_it_ends() {
    let rig = Rig::new().await;
    let owner = rig.owner();
    owner.send("PUT", "/v1/pipelines/asked", &[], Some(PIPELINE)).await;
    let run = owner.post("/v1/pipelines/asked/runs", "{}").await.json()["run"].as_str().unwrap().to_owned();
    let path = format!("/v1/runs/{run}/events");
    let mut stream = owner.open("GET", &path, &[], None).await;
    let text = stream.until("event: happened").await.to_owned();
    let first: u64 = text.lines().find_map(|line| line.strip_prefix("id: ")).unwrap().parse().unwrap();
    owner.post(&format!("/v1/runs/{run}/cancel"), "{}").await;
    let text = stream.end().await;
    assert!(text.contains("event: ended") && text.contains("cancelled"), "{text}");
    let rest = owner.open("GET", &path, &[("Last-Event-ID", &first.to_string())], None).await.end().await;
    assert!(!rest.contains(&format!("id: {first}\n")) && rest.contains("event: ended"), "{rest}");
    let foreign = rig.other().get(&path).await;
    assert_eq!((foreign.status, foreign.code()), (404, "unknown_run".to_owned()));
}

#[tokio::test]
async fn a_revoked_credential_ends_its_streams() {
    let rig = Rig::new().await;
    let owner = rig.owner();
    let id = owner.post("/v1/actors/counter/a/send/tell", "1").await.json()["id"].as_str().unwrap().to_owned();
    let mut stream = owner.open("GET", &format!("/v1/invocations/{id}/stream"), &[], None).await;
    stream.until("\"chunk\":0").await;
    rig.revoke().await;
    // Something comes, and its reader is asked again who it is before it gets it.
    rig.go("a").await;
    let text = stream.end().await;
    assert!(text.contains("event: refused") && text.contains("revoked") && !text.contains("\"last\""), "{text}");
    assert_eq!(owner.get("/v1/runs").await.status, 401);
}

#[tokio::test]
async fn a_revoked_credential_ends_a_stream_in_which_nothing_happens() {
    let rig = Rig::new().await;
    let owner = rig.owner();
    owner.send("PUT", "/v1/pipelines/asked", &[], Some(PIPELINE)).await;
    let run = owner.post("/v1/pipelines/asked/runs", "{}").await.json()["run"].as_str().unwrap().to_owned();
    let mut stream = owner.open("GET", &format!("/v1/runs/{run}/events"), &[], None).await;
    stream.until("event: happened").await;
    rig.revoke().await;
    assert!(stream.end().await.contains("event: refused"));
}

#[tokio::test]
async fn a_revoked_credential_is_not_told_what_it_waits_for() {
    let rig = Rig::new().await;
    let owner = rig.owner();
    let mut called = owner.open("POST", "/v1/actors/counter/a/call/wait", &[("Prefer", "wait=60")], Some("1")).await;
    let id = loop {
        let open = owner.get("/v1/invocations").await.json();
        if let Some(id) = open[0]["id"].as_str() {
            break id.to_owned();
        }
    };
    rig.revoke().await;
    // It is sent away long before its time, with the id and without what comes.
    let text = called.until("202 Accepted").await.to_owned();
    assert!(called.end().await.contains(&id) && !text.contains("given"));
}

#[tokio::test]
async fn a_server_that_stops_ends_streams_lets_calls_end_and_says_where_to_go_on() {
    let rig = Rig::new().await;
    let owner = rig.owner();
    let id = owner.post("/v1/actors/counter/a/send/tell", "1").await.json()["id"].as_str().unwrap().to_owned();
    let mut stream = owner.open("GET", &format!("/v1/invocations/{id}/stream"), &[], None).await;
    stream.until("\"chunk\":0").await;
    let mut called = owner.open("POST", "/v1/actors/counter/a/call/add", &[], Some("1")).await;
    let other = owner.get("/v1/invocations?all=true").await;
    assert_eq!(other.status, 200);
    let ended = rig.server.stop().await;
    assert_eq!(ended, selvedge_http::Ended::Drained);
    assert!(stream.end().await.contains("event: closing"));
    // It waits behind the one that waits for its signal: accepted, and it goes on.
    assert!(called.until("202 Accepted").await.contains("inv_"));
}

#[tokio::test]
async fn a_reader_that_is_too_slow_is_told_where_to_go_on_and_goes_on_there() {
    // Much more than connections hold by themselves.
    const CHUNKS: usize = 400;
    let rig = Rig::with(Patience { slow: Duration::from_millis(100), ..Patience::default() }).await;
    let owner = rig.owner();
    let called = owner.post("/v1/actors/counter/a/call/tell_much", &CHUNKS.to_string()).await.json();
    let path = format!("/v1/invocations/{}/stream", called["id"].as_str().unwrap());
    let mut slow = owner.open("GET", &path, &[], None).await;
    slow.until("\"chunk\":0").await;
    // It takes nothing for longer than it may.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let text = slow.end().await;
    assert!(!text.contains("event: complete"), "it was let go before its end");
    let told = text.split_once("event: slow\ndata: ").map(|(_, rest)| rest.lines().next().unwrap().to_owned());
    let told: serde_json::Value = serde_json::from_str(&told.unwrap_or_else(|| panic!("it was not told: {} bytes", text.len()))).unwrap();
    let last = text.lines().filter_map(|line| line.strip_prefix("id: ")).next_back().unwrap().to_owned();
    assert_eq!(told["last_event_id"].to_string(), last);
    assert!(told["message"].as_str().unwrap().contains("Last-Event-ID"), "{told}");
    // Behind it comes exactly what it has not seen, however often it is slow again.
    let (mut met, mut last) = (text.matches("\"much\":").count(), last);
    loop {
        let text = owner.open("GET", &path, &[("Last-Event-ID", &last)], None).await.end().await;
        met += text.matches("\"much\":").count();
        if text.contains("event: complete") {
            break;
        }
        last = text.lines().filter_map(|line| line.strip_prefix("id: ")).next_back().map_or(last, str::to_owned);
    }
    assert_eq!(met, CHUNKS);
}
