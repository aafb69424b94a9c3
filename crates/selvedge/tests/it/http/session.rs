//! Sessions of browsers.

use std::time::Duration;

use super::client::{Answer, Ask};
use super::rig::Rig;
use crate::tokens::signer::{Key, Keys, claims, issuer, set};

/// What a browser sends back.
fn cookie(answer: &Answer) -> String {
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.header("set-cookie").unwrap().split(';').next().unwrap().to_owned()
}

/// A request with a cookie, and with the header that proves whose page it is of.
async fn with(rig: &Rig, method: &str, path: &str, cookie: &str, proof: bool, body: Option<&str>) -> Answer {
    let mut headers = vec![("Cookie", cookie)];
    if proof {
        headers.push(("X-Selvedge-Session", "1"));
    }
    rig.ask("").send(method, path, &headers, body).await
}

#[tokio::test]
async fn a_session_asks_as_whoever_opened_it_until_it_is_closed() {
    let rig = Rig::new().await;
    let opened = rig.owner().post("/v1/session", "").await;
    let session = cookie(&opened);
    assert_eq!((&opened.json()["principal"], &opened.json()["tenant"]), (&rig.owner_id().into(), &"default".into()));
    let given = opened.header("set-cookie").unwrap();
    assert!(given.contains("; HttpOnly; SameSite=Strict") && given.contains("Path=/") && !given.contains("Secure"), "{given}");
    assert!(!opened.text.contains(session.split('=').nth(1).unwrap()), "no script reads it");
    let tls = rig.owner().send("POST", "/v1/session", &[("X-Forwarded-Proto", "https")], Some("")).await;
    assert!(tls.header("set-cookie").unwrap().ends_with("; Secure"));
    assert_eq!(with(&rig, "GET", "/v1/runs", &session, false, None).await.status, 200);
    assert_eq!(with(&rig, "POST", "/v1/actors/counter/a/call/add", &session, true, Some("2")).await.json()["result"], 2);
    let told = with(&rig, "POST", "/v1/actors/counter/b/send/tell", &session, true, Some("1")).await.json()["id"].as_str().unwrap().to_owned();
    let mut stream = rig.ask("").open("GET", &format!("/v1/invocations/{told}/stream"), &[("Cookie", &session)], None).await;
    stream.until("\"chunk\":0").await;
    let another = with(&rig, "POST", "/v1/session", &session, true, None).await;
    assert_eq!((another.status, another.code()), (400, "bad_request".to_owned()));
    let closed = with(&rig, "DELETE", "/v1/session", &session, true, None).await;
    assert!(closed.status == 204 && closed.header("set-cookie").unwrap().contains("Max-Age=0"), "{closed:?}");
    rig.go("b").await;
    let text = stream.end().await;
    assert!(text.contains("event: refused") && !text.contains("\"last\""), "{text}");
    assert_eq!(with(&rig, "GET", "/v1/runs", &session, false, None).await.code(), "unauthenticated");
    assert_eq!(rig.owner().send("DELETE", "/v1/session", &[], None).await.status, 204, "a key has none, and goes on");
    assert_eq!(rig.owner().get("/v1/runs").await.status, 200);
}

#[tokio::test]
async fn what_changes_something_wants_more_than_a_cookie_and_a_cookie_is_nobodys_key() {
    let rig = Rig::new().await;
    let session = cookie(&rig.owner().post("/v1/session", "").await);
    for (method, path, body) in
        [("POST", "/v1/actors/counter/a/call/add", Some("2")), ("DELETE", "/v1/session", None), ("POST", "/v1/keys", Some(r#"{"roles":["owner"]}"#))]
    {
        let answer = with(&rig, method, path, &session, false, body).await;
        assert_eq!((answer.status, answer.code()), (401, "unauthenticated".to_owned()), "{method} {path}: {answer:?}");
        assert!(answer.text.contains("X-Selvedge-Session"), "{answer:?}");
    }
    assert_eq!(with(&rig, "GET", "/v1/runs", &session, false, None).await.status, 200, "it is still open");
    let secret = session.split('=').nth(1).unwrap();
    assert_eq!(rig.ask(secret).get("/v1/runs").await.status, 401);
    let other = format!("selvedge_session={}", "0".repeat(64));
    for wrong in [&*other, "selvedge_session=", &session.to_uppercase(), &format!("{session}; {session}")] {
        assert_eq!(with(&rig, "GET", "/v1/runs", wrong, true, None).await.status, 401, "{wrong}");
    }
    // Whoever presents a key is who it says, whatever cookie comes along.
    let both = rig.other().send("GET", "/v1/session-less", &[("Cookie", &session)], None).await;
    assert_eq!(both.status, 404);
    assert_eq!(rig.nobody().send("GET", "/v1/runs", &[("Cookie", &session)], None).await.status, 403);
}

#[tokio::test]
async fn a_session_ends_with_its_key_with_its_token_and_after_twelve_hours() {
    let key = Key::ed25519();
    let keys = Keys::new(set(&[key.public("k1")])).await;
    let rig = Rig::believing(crate::tokens::believed(issuer(&keys.url)).await).await;
    let ada: Ask = rig.ask(&key.token("k1", &claims(rig.engine.engine().now().0 / 1_000)));
    let (token, owner, other) =
        (cookie(&ada.post("/v1/session", "").await), cookie(&rig.owner().post("/v1/session", "").await), cookie(&rig.other().post("/v1/session", "").await));
    let status = async |session: &str| with(&rig, "GET", "/v1/runs", session, false, None).await.status;
    assert_eq!([status(&token).await, status(&owner).await, status(&other).await], [200; 3]);
    rig.engine.advance(Duration::from_secs(3_661)).await;
    assert_eq!([status(&token).await, status(&owner).await, status(&other).await], [401, 200, 200]);
    rig.revoke().await;
    assert_eq!([status(&owner).await, status(&other).await], [401, 200]);
    rig.engine.advance(Duration::from_secs(12 * 3_600)).await;
    assert_eq!(status(&other).await, 401);
}
