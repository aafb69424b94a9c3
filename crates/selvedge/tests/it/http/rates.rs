//! Those who ask too often.

use std::time::Duration;

use selvedge_http::Patience;
use selvedge_kernel::limit::{FAILED_CREDENTIALS, Limits};

use super::rig::Rig;

#[tokio::test]
async fn a_tenant_that_asks_too_often_is_told_to_wait_and_keeps_no_other_tenant_out() {
    let rig = Rig::within(Patience::default(), Limits { tenant_requests: 5, ..Limits::default() }).await;
    let path = "/v1/actors/counter/a/state";
    for _ in 0..5 {
        assert_eq!(rig.owner().get(path).await.status, 200);
    }
    let refused = rig.owner().post("/v1/actors/counter/a/call/add", "1").await;
    assert_eq!((refused.status, refused.code(), refused.header("retry-after")), (429, "limit: requests".to_owned(), Some("1")));
    assert!(refused.text.contains("the tenant `default` has asked more than 5 times within a second"), "{refused:?}");
    assert_eq!(rig.nobody().get(path).await.status, 429, "it is the tenant's limit, whoever asks for it");
    assert_eq!(rig.other().get(path).await.status, 200);
    rig.engine.advance(Duration::from_secs(1)).await;
    let state = rig.owner().get(path).await;
    assert_eq!((state.status, state.text.as_str()), (200, "{}"), "what was refused had no effect");
}

#[tokio::test]
async fn a_worker_says_how_its_tasks_are_while_its_tenant_is_busy_ten_times_as_often_as_that_may_ask() {
    let rig = Rig::within(Patience::default(), Limits { tenant_requests: 2, ..Limits::default() }).await;
    let owner = rig.owner();
    for status in [200, 200, 429] {
        assert_eq!(owner.post("/v1/work/resize/lease", r#"{"wait":"1ms"}"#).await.status, status);
    }
    for report in 0..20 {
        let answer = owner.post("/v1/work/nothing-of-ours/heartbeat", "{}").await;
        assert_eq!(answer.status, 400, "report {report} is looked at, busy as the tenant is: {answer:?}");
    }
    let refused = owner.post("/v1/work/nothing-of-ours/heartbeat", "{}").await;
    assert_eq!((refused.status, refused.code()), (429, "limit: requests".to_owned()));
    assert!(refused.text.contains("more than 20 times within a second"), "{refused:?}");
}

#[tokio::test]
async fn an_address_that_guesses_credentials_is_told_to_wait_and_whoever_has_one_is_let_in_from_there() {
    let rig = Rig::new().await;
    for _ in 0..FAILED_CREDENTIALS {
        assert_eq!(rig.ask("guess").get("/v1/runs").await.status, 401);
    }
    let refused = rig.ask("guess").get("/v1/runs").await;
    assert_eq!((refused.status, refused.code()), (429, "limit: failed credentials".to_owned()));
    assert!(refused.text.contains("without a valid credential came from 127.0.0.1 within a minute"), "{refused:?}");
    assert_eq!(rig.owner().get("/v1/runs").await.status, 200);
    rig.engine.advance(Duration::from_secs(60)).await;
    assert_eq!(rig.ask("guess").get("/v1/runs").await.status, 401);
}
