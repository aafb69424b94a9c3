//! Tokens at the door: real connections, a real issuer.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::signer::{Key, Keys, claims, issuer, set};
use super::{One, believed};
use crate::http::client::Ask;
use crate::http::rig::Rig;
use crate::rig::Folder;

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// The time of a rig's engine, in seconds.
fn now(rig: &Rig) -> u64 {
    rig.engine.engine().now().0 / 1_000
}

#[tokio::test]
async fn a_token_opens_what_its_roles_may_in_its_tenant_and_keys_go_on_to_open() {
    let key = Key::p256();
    let keys = Keys::new(set(&[key.public("k1")])).await;
    let rig = Rig::believing(believed(issuer(&keys.url)).await).await;
    let ada = rig.ask(&key.token("k1", &claims(now(&rig))));
    let made = ada.post("/v1/actors/counter/a/call/add", "2").await;
    assert_eq!((made.status, made.json()["result"].clone()), (200, 2.into()), "{made:?}");
    assert_eq!(rig.owner().get("/v1/runs").await.status, 200);
    // The same tenant, whatever a header says.
    let other = ada.send("GET", "/v1/actors", &[("X-Tenant", "other"), ("Tenant", "other")], None).await;
    assert!(other.text.contains("counter"), "{other:?}");
    let mut said = claims(now(&rig));
    said["groups"] = json!([]);
    let guest = rig.ask(&key.token("k1", &said)).get("/v1/runs").await;
    assert_eq!((guest.status, guest.code()), (403, "denied".to_owned()));
    assert!(guest.text.contains("corp:ada"), "{guest:?}");
}

#[tokio::test]
async fn readiness_names_each_issuer_and_those_whose_keys_cannot_be_read_and_says_no_more_to_everybody() {
    let keys = Keys::new(set(&[Key::p256().public("k1")])).await;
    for (url, read) in [(keys.url.as_str(), true), ("http://127.0.0.1:1/s3cr3t", false)] {
        let rig = Rig::believing(believed(issuer(url)).await).await;
        // Nobody has to present a token before it is tried.
        let part = loop {
            let ready = rig.ask("").get("/readyz").await;
            assert_eq!(ready.status, 200, "keys of ours open what they did: {ready:?}");
            assert!(!ready.text.contains("s3cr3t") && !ready.text.contains("127.0.0.1"), "{ready:?}");
            let part = ready.json()["parts"]["issuer_corp"].clone();
            if read || part.get("warning").is_some() {
                break part;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert_eq!((&part["ready"], part.get("warning").is_none()), (&json!(true), read), "{part}");
    }
}

#[tokio::test]
async fn a_token_that_opens_nothing_is_answered_with_the_reason_and_nothing_of_what_it_says() {
    let one = One::new().await;
    let rig = Rig::believing(one.tokens.clone()).await;
    let at = now(&rig);
    let with = |name: &str, value: Value| {
        let mut said = claims(at);
        said["secret"] = "s3cr3t".into();
        said[name] = value;
        one.key.token("k1", &said)
    };
    let forged = Key::ed25519();
    for (token, reason) in [
        (with("exp", (at - 61).into()), "ended at"),
        (with("nbf", (at + 90).into()), "before"),
        (with("aud", "s3cr3t".into()), "`aud`"),
        (with("iss", "s3cr3t".into()), "`iss`"),
        (with("sub", Value::Null), "`sub`"),
        (forged.token("k1", &claims(at)), "signature"),
        (forged.token("s3cr3t", &claims(at)), "key that `corp` does not have"),
        (forged.token_of(r#"{"alg":"none"}"#, &claims(at).to_string()), "RS256, ES256 and EdDSA"),
        ("s3cr3t".to_owned(), "three parts"),
        ("slv_0000000000000000_s3cr3t".to_owned(), "knows this key"),
    ] {
        let answer = rig.ask(&token).get("/v1/runs").await;
        assert_eq!((answer.status, answer.code()), (401, "unauthenticated".to_owned()), "{reason}: {answer:?}");
        assert!(answer.text.contains(reason), "{reason}: {answer:?}");
        assert!(!answer.text.contains("s3cr3t") && !answer.text.contains(&token), "{answer:?}");
    }
}

#[tokio::test]
async fn a_stream_ends_with_the_token_that_opened_it() {
    let one = One::new().await;
    let rig = Rig::believing(one.tokens.clone()).await;
    let mut said = claims(now(&rig));
    said["exp"] = (now(&rig) + 10).into();
    let ada = rig.ask(&one.key.token("k1", &said));
    let made = ada.post("/v1/actors/counter/a/send/tell", "2").await.json()["id"].as_str().unwrap().to_owned();
    let mut reading = ada.open("GET", &format!("/v1/invocations/{made}/stream"), &[("Accept", "text/event-stream")], None).await;
    reading.until(r#""chunk":1"#).await;
    rig.engine.advance(Duration::from_secs(71)).await;
    // What was accepted goes on; that more of it comes makes the stream ask.
    rig.engine
        .local()
        .send_signal(selvedge::Handler::<u64, u64>::new("counter", "tell").on("a"), selvedge::Signal::<Value>::new("go"), json!(1))
        .await
        .unwrap();
    let text = reading.end().await;
    assert!(text.contains("event: refused") && text.contains("ended at") && !text.contains("last"), "{text}");
    assert_eq!(rig.owner().get(&format!("/v1/invocations/{made}/result")).await.json(), json!({ "id": made, "result": 2 }));
}

/// The code blocks of a language in a page.
fn blocks(page: &str, language: &str) -> Vec<String> {
    page.split(&format!("```{language}\n")).skip(1).filter_map(|rest| rest.split_once("\n```")).map(|(block, _)| block.to_owned()).collect()
}

#[tokio::test]
async fn the_example_of_the_page_about_tokens_is_right_and_serve_needs_no_key_beside_it() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/jwt.md")).unwrap();
    let one = |language: &str| blocks(&page, language).remove(0);
    let folder = Folder::new();
    let key = Key::rsa();
    folder.write("selvedge.yaml", &one("yaml"));
    std::fs::create_dir(folder.join("policies")).unwrap();
    folder.write("policies/all.cedar", &one("cedar"));
    // Nothing is opened where the keys are not there.
    let refused = folder.selvedge(&["serve", "--listen", "127.0.0.1:0"]);
    assert!(refused.code == 78 && refused.err.contains("keys.json") && !folder.join(".selvedge").exists(), "{refused:?}");
    folder.write("keys.json", &set(&[key.public("k1")]));
    let mut server = folder.start(&["serve", "--listen", "127.0.0.1:0"]);
    let line = server.line();
    let address = line.rsplit("http://").next().unwrap().parse().unwrap();
    let said: Value = serde_json::from_str(&one("json")).unwrap();
    assert!(said["exp"].as_u64().unwrap() > seconds(), "the example is of the past");
    let ask = |said: &Value| Ask::of(address, &key.token("k1", said));
    let answer = ask(&said).get("/v1/runs").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let mut other = said.clone();
    other["department"] = "sales".into();
    let answer = ask(&other).get("/v1/runs").await;
    assert!(answer.status == 403 && answer.text.contains("corp:ada"), "{answer:?}");
    other["org"] = "org_1".into();
    assert_eq!(ask(&other).get("/v1/runs").await.status, 401);
    // A key that is put into the file opens before long, one that is taken out does no more.
    let next = Key::ed25519();
    folder.write("keys.json", &set(&[next.public("k2")]));
    while Ask::of(address, &next.token("k2", &said)).get("/v1/runs").await.status != 200 {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(ask(&said).get("/v1/runs").await.status, 401);
    server.signal("TERM");
    assert_eq!(folder.end(server).code, 0);
}

#[test]
fn what_is_wrong_with_an_issuer_is_named_with_its_line() {
    let folder = Folder::new();
    folder.write(
        "selvedge.yaml",
        "authentication:\n  issuers:\n    corp: { issuer: a, audience: b, jwks: \"http://login.test/keys\", tenant: acme, roles: [clerk] }\n",
    );
    let said = folder.selvedge(&["serve"]);
    assert!(said.code == 78 && said.err.contains("selvedge.yaml:3:") && said.err.contains("on the way"), "{said:?}");
}

#[tokio::test]
async fn keys_over_https_are_believed_of_a_server_whose_certificate_the_system_knows_alone() {
    let key = Key::ed25519();
    let (url, certificate) = Keys::secured(set(&[key.public("k1")])).await;
    let (_, other) = Keys::secured(String::new()).await;
    for (trusted, status) in [(&certificate, 200), (&other, 401)] {
        let folder = Folder::new();
        let issuer = format!("{{ issuer: 'https://login.test', audience: selvedge, jwks: '{url}', tenant: default, roles: [owner] }}");
        folder.write("selvedge.yaml", &format!("authentication: {{ issuers: {{ corp: {issuer} }} }}\n"));
        folder.write("roots.pem", trusted);
        let roots = folder.join("roots.pem");
        let mut server = folder.start_with(&["serve", "--listen", "127.0.0.1:0"], &[("SSL_CERT_FILE", roots.to_str().unwrap())]);
        let address = server.line().rsplit("http://").next().unwrap().parse().unwrap();
        let answer = Ask::of(address, &key.token("k1", &claims(seconds()))).get("/v1/runs").await;
        assert_eq!(answer.status, status, "{answer:?}");
        server.signal("TERM");
        let said = folder.end(server);
        assert_eq!(said.err.contains("the keys of the issuer `corp` at https://localhost"), status == 401, "{said:?}");
    }
}
