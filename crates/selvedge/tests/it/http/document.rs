//! The document that is served is the one that is committed.

use std::path::Path;

#[tokio::test]
async fn the_openapi_document_is_what_is_served_and_what_is_committed() {
    let rig = super::rig::Rig::new().await;
    let served = rig.ask("").get("/openapi.json").await;
    assert_eq!(served.status, 200);
    let served: serde_json::Value = served.json();
    assert_eq!(served["openapi"], "3.1.0");
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/openapi.json");
    let written = format!("{}\n", serde_json::to_string_pretty(&served).unwrap());
    if std::env::var_os("SELVEDGE_WRITE_REFERENCE").is_some() {
        std::fs::write(&place, &written).unwrap();
    }
    let committed = std::fs::read_to_string(&place).unwrap_or_default();
    assert!(
        committed == written,
        "docs/reference/openapi.json is not what is served: run this test with SELVEDGE_WRITE_REFERENCE=1 and look at the difference"
    );
}

#[test]
fn each_operation_of_the_document_has_a_name_of_its_own_and_needs_a_body_only_where_something_must_stand_in_it() {
    let document = serde_json::to_value(selvedge_http::document()).unwrap();
    let mut names = std::collections::BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let name = operation["operationId"].as_str().unwrap();
            assert!(names.insert(name.to_owned()), "{method} {path} is called {name}, and so is another one");
        }
    }
    let needs = |path: &str| document["paths"][path]["post"]["requestBody"]["required"].as_bool();
    assert_eq!((needs("/v1/runs/{id}/cancel"), needs("/v1/work/{activity}/lease")), (Some(false), Some(false)));
    assert_eq!((needs("/v1/work/{task}/complete"), needs("/v1/approvals/{id}")), (Some(true), Some(true)));
}

#[tokio::test]
async fn whether_it_lives_and_is_ready_is_said_without_a_credential() {
    let rig = super::rig::Rig::new().await;
    let anybody = rig.ask("");
    assert_eq!(anybody.get("/healthz").await.status, 200);
    let ready = anybody.get("/readyz").await;
    assert_eq!((ready.status, ready.json()["parts"]["engine"]["ready"].clone()), (200, true.into()));
    // One whose disk is full, say.
    let engine = rig.engine.engine().clone();
    let ready: selvedge_http::Ready = std::sync::Arc::new(|| vec![("engine", Some("the disk is full".to_owned()))]);
    let (_closing, closing) = tokio::sync::watch::channel(false);
    let (_told, versions) = tokio::sync::watch::channel(0);
    let router = selvedge_http::router(selvedge_http::Door {
        engine,
        ready,
        tokens: None,
        body_within: std::time::Duration::from_secs(1),
        slow_after: std::time::Duration::from_secs(1),
        binary: String::new(),
        versions,
        sessions: Default::default(),
        rates: Default::default(),
        closing,
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ill = super::client::Ask::of(listener.local_addr().unwrap(), "");
    tokio::spawn(selvedge_http::serve(listener, router, selvedge_http::Patience::default(), std::future::pending()));
    let ready = ill.get("/readyz").await;
    assert_eq!((ready.status, ready.json()["parts"]["engine"]["reason"].clone()), (503, "the disk is full".into()));
    assert_eq!(ill.get("/healthz").await.status, 200);
}

/// What is served beside the document would be asked by no test: there is one such route, the document itself.
#[test]
fn no_route_is_served_that_the_document_does_not_have() {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../http/src")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            for maker in [".route(", ".route_service(", ".nest(", ".nest_service(", ".merge(", ".fallback_service("] {
                found.extend(text.lines().filter(|line| line.contains(maker)).map(|line| line.trim().to_owned()));
            }
        }
    }
    assert_eq!(found, [r#".route("/openapi.json", served)"#]);
}
