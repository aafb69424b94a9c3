//! Somebody is disabled while connections are open.

use super::client::Ask;
use super::rig::Rig;
use crate::disabled::{ALL, Whom, disable, enable};
use crate::tokens::signer::{Key, Keys, claims, issuer, set};

/// A rig that believes tokens, and who asks there: with a key, as a user, and with a key of a tenant.
async fn asked(whom: Whom) -> (Rig, Ask, String) {
    let key = Key::ed25519();
    let keys = Keys::new(set(&[key.public("k1")])).await;
    let rig = Rig::believing(crate::tokens::believed(issuer(&keys.url)).await).await;
    let token = key.token("k1", &claims(rig.engine.engine().now().0 / 1_000));
    match whom {
        Whom::User => {
            let ask = rig.ask(&token);
            (rig, ask, "corp:ada".to_owned())
        }
        Whom::Key | Whom::Tenant => {
            let (ask, id) = (rig.owner(), rig.owner_id());
            (rig, ask, id)
        }
    }
}

#[tokio::test]
async fn whoever_is_disabled_is_refused_at_the_door_and_their_streams_end_also_where_nothing_happens() {
    for whom in ALL {
        let (rig, asker, id) = asked(whom).await;
        let told = asker.post("/v1/actors/counter/a/send/tell", "1").await.json()["id"].as_str().unwrap().to_owned();
        let mut stream = asker.open("GET", &format!("/v1/invocations/{told}/stream"), &[], None).await;
        stream.until("\"chunk\":0").await;
        let called = asker.open("POST", "/v1/actors/counter/b/call/wait", &[("Prefer", "wait=60")], Some("1")).await;
        while asker.get("/v1/invocations?where=handler:wait").await.text == "[]" {}
        disable(&rig.engine, whom, &id).await;
        let text = stream.end().await;
        assert!(text.contains("event: refused") && text.contains("disabled since") && text.contains("she has left"), "{whom:?}: {text}");
        let text = called.end().await;
        assert!(text.starts_with("HTTP/1.1 403") && text.contains("disabled since"), "a call that waits is answered long before its time: {text}");
        for (method, path, body) in
            [("GET", "/v1/runs", None), ("POST", "/v1/actors/counter/a/call/add", Some("1")), ("POST", "/v1/work/resize/lease", Some(r#"{"wait":"1ms"}"#))]
        {
            let answer = asker.send(method, path, &[], body).await;
            assert_eq!((answer.status, answer.code()), (403, "denied".to_owned()), "{whom:?} {path}: {answer:?}");
            assert!(answer.text.contains("disabled since") && answer.text.contains("she has left"), "{answer:?}");
        }
        assert_eq!(rig.other().get("/v1/runs").await.status, 200, "another tenant goes on");
        enable(&rig.engine, whom, &id).await;
        assert_eq!(asker.get("/v1/runs").await.status, 200, "{whom:?}");
    }
}

#[tokio::test]
async fn principals_are_disabled_listed_and_enabled_over_http_each_tenant_its_own() {
    let rig = Rig::new().await;
    let owner = rig.owner();
    let path = "/v1/principals/corp:ada%2F1%20x";
    let made = owner.post(&format!("{path}/disable"), r#"{"reason":"she has left"}"#).await;
    assert_eq!((made.status, &made.json()["principal"], &made.json()["by"]), (200, &"corp:ada/1 x".into(), &rig.owner_id().into()), "{made:?}");
    assert_eq!(owner.get("/v1/principals").await.json().as_array().unwrap().len(), 1);
    assert_eq!(rig.other().get("/v1/principals").await.text, "[]");
    assert_eq!(owner.post(&format!("{path}/disable"), r#"{"reason":""}"#).await.code(), "no_reason");
    let enabled = owner.post(&format!("{path}/enable"), "").await;
    assert_eq!((enabled.status, &enabled.json()["disabled"]), (200, &false.into()), "{enabled:?}");
    assert_eq!(owner.get("/v1/principals").await.text, "[]");
}
