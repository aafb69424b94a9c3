//! `/metrics`.

use super::client::Ask;
use super::rig::Rig;
use super::served::address;
use crate::rig::Folder;

/// The value of a line, if it is there.
fn value(text: &str, line: &str) -> Option<f64> {
    text.lines().find_map(|found| found.strip_prefix(line)).and_then(|value| value.trim().parse().ok())
}

#[tokio::test]
async fn numbers_of_a_tenant_are_for_whoever_may_read_it_and_for_nobody_without_a_credential() {
    let rig = Rig::new().await;
    assert_eq!(rig.ask("").get("/metrics").await.status, 401);
    assert_eq!(rig.nobody().get("/metrics").await.status, 403);
    for key in ["a", "b"] {
        assert_eq!(rig.owner().post(&format!("/v1/actors/counter/{key}/send/wait"), "{}").await.status, 202);
    }
    rig.engine.settle().await;
    let shown = rig.owner().get("/metrics").await;
    assert_eq!((shown.status, shown.header("content-type")), (200, Some("application/openmetrics-text; version=1.0.0; charset=utf-8")));
    assert_eq!(value(&shown.text, "selvedge_invocations_open{tenant=\"default\"}"), Some(2.0), "{}", shown.text);
    assert!(shown.text.ends_with("# EOF\n") && !shown.text.contains("http_requests"), "what others ask is for whoever operates the store: {}", shown.text);
    let other = rig.other().get("/metrics").await;
    assert!(!other.text.contains("default"), "{}", other.text);
}

#[tokio::test]
async fn numbers_of_all_tenants_and_of_the_process_are_for_whoever_may_operate_the_store_alone() {
    let rig = Rig::new().await;
    let refused = rig.owner().get("/metrics?all=true").await;
    assert_eq!((refused.status, refused.code()), (403, "denied".to_owned()), "the owner of one tenant: {refused:?}");
    let engine = rig.engine.engine();
    let now = engine.now();
    let permit = selvedge_kernel::auth::authorize(
        selvedge_kernel::auth::local("default", now),
        selvedge_kernel::auth::Action::Operate,
        selvedge_kernel::auth::Resource::Store,
        now,
    )
    .unwrap();
    rig.owner().post("/v1/actors/counter/a/send/wait", "{}").await;
    rig.other().post("/v1/actors/counter/a/send/wait", "{}").await;
    rig.engine.settle().await;
    let load = engine.load(&permit).unwrap();
    let open = |tenant: &str| load.tenants.iter().find(|(name, _)| name == tenant).map(|(_, load)| load.open);
    assert_eq!((open("default"), open("other"), load.leased), (Some(1), Some(1), 0), "{load:?}");
}

#[tokio::test]
async fn a_key_that_a_policy_lets_operate_the_store_sees_what_was_asked_by_route_and_how_full_the_store_is() {
    let folder = Folder::new();
    std::fs::create_dir(folder.join("policies")).unwrap();
    folder.write("policies/all.cedar", "permit(principal in Role::\"monitoring\", action == Action::\"operate\", resource);\n");
    folder.write("selvedge.yaml", "authorization: { policies: ./policies }\n");
    let made = folder.selvedge(&["keys", "create", "--role", "monitoring"]);
    let mut server = folder.start(&["serve", "--listen", "127.0.0.1:0"]);
    let monitoring = Ask::of(address(&mut server), made.out.trim());
    assert_eq!(monitoring.get("/v1/runs/run_of-somebody").await.status, 403);
    assert_eq!(monitoring.get("/v1/runs").await.status, 403, "it may not read what tenants have");
    let shown = monitoring.get("/metrics?all=true").await;
    assert_eq!(shown.status, 200, "{shown:?}");
    for (line, wanted) in [
        ("selvedge_http_requests_total{route=\"/v1/runs\",method=\"GET\",status=\"403\"}", 1.0),
        ("selvedge_http_requests_total{route=\"/v1/runs/{id}\",method=\"GET\",status=\"403\"}", 1.0),
        ("selvedge_http_request_seconds_count{route=\"/v1/runs\"}", 1.0),
        ("selvedge_http_requests_under_way", 1.0),
        ("selvedge_tasks_leased", 0.0),
    ] {
        assert_eq!(value(&shown.text, line), Some(wanted), "{line}: {}", shown.text);
    }
    assert!(value(&shown.text, "selvedge_store_pressure_thousandths").is_some(), "{}", shown.text);
    server.signal("TERM");
    assert_eq!(folder.end(server).code, 0);
}
