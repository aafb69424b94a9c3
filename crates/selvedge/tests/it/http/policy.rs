//! Decisions over HTTP: denials that are found again, policies in the shadow on live traffic, questions to the policies in force.

use std::sync::Arc;
use std::time::{Duration, Instant};

use selvedge::Settings;
use selvedge_engine::wiring::Rules;
use selvedge_http::Patience;
use selvedge_kernel::auth::{Action, AuthorizationContext, Resource, Verdict};
use selvedge_kernel::ports::Policies;
use selvedge_kernel::time::Millis;
use serde_json::{Value, json};

use super::client::Ask;
use super::rig::Rig;
use crate::rig::{Folder, Running};

#[tokio::test]
async fn the_decision_id_of_a_403_is_found_in_its_own_tenant_and_in_no_other_one() {
    let rig = Rig::new().await;
    for _ in 0..3 {
        assert_eq!(rig.nobody().post("/v1/runs/run_1/pause", "").await.status, 403);
    }
    let refused = rig.nobody().post("/v1/runs/run_1/pause", "").await.json();
    let id = refused["decision_id"].as_str().unwrap();
    let path = format!("/v1/policy/decisions?id={id}");
    let found = rig.owner().get(&path).await;
    assert_eq!(found.status, 200, "{found:?}");
    let found = found.json();
    let [one] = &found["decisions"].as_array().unwrap()[..] else { panic!("{found}") };
    assert!(refused["detail"].as_str().unwrap().contains(one["reason"].as_str().unwrap()), "{one}");
    assert_eq!(one["id"], id);
    assert_eq!((&one["decision"], &one["action"], &one["resource"], &one["count"]), (&json!("denied"), &json!("control"), &json!("work:run_1"), &json!(4)));
    assert_eq!((&one["address"], &one["roles"]), (&json!("127.0.0.1"), &json!(["reader"])));
    assert_eq!(found["summary"]["denied"], json!({ "control": 4 }));
    // Somebody who may ask nothing may not ask this either; and of another tenant there is nothing to be seen.
    assert_eq!(rig.nobody().get(&path).await.status, 403);
    let other = rig.other().get(&path).await.json();
    assert_eq!((&other["decisions"], &other["summary"]["denied"]), (&json!([]), &json!({})));
    assert_eq!(rig.other().get("/v1/policy/decisions").await.json()["decisions"], json!([]));
    let listed = rig.owner().get("/v1/policy/decisions?action=control&limit=5").await.json();
    assert_eq!(listed["decisions"].as_array().unwrap().len(), 1);
    for wrong in ["id=x", "limit=0", "limit=1001", "action=strat"] {
        assert_eq!(rig.owner().get(&format!("/v1/policy/decisions?{wrong}")).await.status, 400, "{wrong}");
    }
}

#[tokio::test]
async fn requests_without_a_valid_credential_are_counted_and_not_recorded() {
    let rig = Rig::new().await;
    for key in ["", "nonsense", "slv_0000000000000000_00"] {
        assert_eq!(rig.ask(key).get("/v1/runs").await.status, 401);
    }
    let found = rig.owner().get("/v1/policy/decisions").await.json();
    assert_eq!((&found["decisions"], &found["summary"]["without_credential"]), (&json!([]), &json!(3)));
}

/// Policies that allow by role, panic, or cannot be evaluated.
struct By {
    role: &'static str,
    then: fn() -> Verdict,
}

impl Policies for By {
    fn decide(&self, context: &AuthorizationContext, _: Action, _: &Resource, _: Millis) -> Verdict {
        if context.principal.roles.iter().any(|role| role == self.role) { (self.then)() } else { Verdict::deny(format!("only {}", self.role)) }
    }

    fn version(&self) -> u64 {
        1
    }

    fn fault(&self) -> Option<String> {
        None
    }
}

async fn shadowed(role: &'static str, then: fn() -> Verdict) -> Rig {
    let shadow = Some(Rules::Given(Arc::new(By { role, then })));
    Rig::set(Patience::default(), Settings { shadow, ..Settings::default() }).await
}

/// What the shadow has come to, once it was asked so often.
async fn asked(rig: &Rig, times: u64) -> Value {
    let began = Instant::now();
    loop {
        let found = rig.owner().get("/v1/policy/decisions?shadow=true&limit=100").await.json();
        if found["summary"]["shadow"]["asked"].as_u64().unwrap() >= times {
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{found}");
    }
}

#[tokio::test]
async fn policies_in_the_shadow_decide_nothing_and_where_they_differ_is_counted_and_listed() {
    // In force: owners may. In the shadow: readers may.
    let rig = shadowed("reader", || Verdict::allow("readers may")).await;
    for _ in 0..2 {
        assert_eq!(rig.nobody().get("/v1/runs").await.status, 403);
        assert_eq!(rig.owner().get("/v1/actors/counter/a/state").await.status, 200);
    }
    // What the tests ask to see it is a difference as well.
    let found = asked(&rig, 4).await;
    let of = |what: &str, action: &str, resource: &str| {
        let fits = |one: &&Value| one["decision"] == what && one["action"] == action && one["resource"] == resource;
        found["decisions"].as_array().unwrap().iter().find(fits).unwrap_or_else(|| panic!("{what} {action} {resource}: {found}")).clone()
    };
    let allow = of("would_allow", "read", "store");
    assert_eq!((&allow["count"], &allow["reason"]), (&json!(2), &json!("readers may")));
    assert!(allow["in_force"]["reason"].as_str().unwrap().contains("wants the role `owner`"), "{allow}");
    let deny = of("would_deny", "read", "actor:counter/a");
    assert_eq!((&deny["count"], &deny["reason"]), (&json!(2), &json!("only reader")));
    assert_eq!(found["summary"]["shadow"]["would_allow"], 2, "{found}");
    // They stand in no list of what was denied, and nobody else sees them.
    let denied = rig.owner().get("/v1/policy/decisions").await.json();
    assert!(denied["decisions"].as_array().unwrap().iter().all(|one| one["decision"] == "denied"), "{denied}");
    assert_eq!(rig.other().get("/v1/policy/decisions?shadow=true").await.json()["summary"]["shadow"]["would_allow"], 0);
}

#[tokio::test]
async fn policies_in_the_shadow_that_panic_or_cannot_be_evaluated_change_no_answer() {
    let errs = || Verdict { errors: vec!["`size`: there is no such attribute".to_owned()], ..Verdict::allow("all may") };
    for (then, differs) in [((|| panic!("they are broken")) as fn() -> Verdict, 0), (errs, 3)] {
        let rig = shadowed("owner", then).await;
        for n in 0..3 {
            assert_eq!(rig.owner().post("/v1/actors/counter/a/call/add", "1").await.json()["result"], n + 1);
            assert_eq!(rig.nobody().post("/v1/actors/counter/a/call/add", "1").await.status, 403);
        }
        let found = asked(&rig, 6).await;
        assert!(found["summary"]["shadow"]["failed"].as_u64().unwrap() >= 3, "{found}");
        let invokes = |one: &&Value| one["action"] == "invoke" && one["decision"] == "would_deny";
        let counts: u64 = found["decisions"].as_array().unwrap().iter().filter(invokes).filter_map(|one| one["count"].as_u64()).sum();
        assert_eq!(counts, differs, "{found}");
        assert_eq!(rig.engine.engine().stopped(), None);
    }
}

#[tokio::test]
async fn more_than_the_shadow_has_time_for_is_passed_over_and_nobody_waits() {
    let rig = shadowed("reader", || Verdict::allow("readers may")).await;
    let owner = rig.engine.engine().authenticate(&rig.owner_key(), Default::default()).unwrap();
    let work = |n: u64| Resource::Work { tenant: "default".to_owned(), id: format!("run_{n}") };
    // The clock stands still: all of them come within one second.
    for n in 0..10_000 {
        rig.engine.engine().permit(owner.clone(), Action::Read, work(n)).unwrap();
    }
    let found = rig.owner().get("/v1/policy/decisions?shadow=true").await.json();
    let shadow = &found["summary"]["shadow"];
    assert!(shadow["passed_over"].as_u64().unwrap() >= 8_000, "{shadow}");
    assert!(shadow["asked"].as_u64().unwrap() <= 2_000, "{shadow}");
}

#[tokio::test]
async fn whoever_administers_a_tenant_asks_what_somebody_of_it_may_and_nothing_comes_of_it() {
    let rig = Rig::new().await;
    let test = |body: Value| body.to_string();
    let ask = async |who: &Ask, body: Value| who.post("/v1/policy/test", &test(body)).await;
    let start = |extra: Value| {
        let mut body = json!({ "action": "start", "resource": "pipeline:asked" });
        extra.as_object().unwrap().iter().for_each(|(name, value)| body[name] = value.clone());
        body
    };
    let no = ask(&rig.owner(), start(json!({}))).await.json();
    assert_eq!((&no["allowed"], no["reason"].as_str().unwrap().contains("wants the role `owner`")), (&json!(false), true));
    assert_eq!(ask(&rig.owner(), start(json!({ "roles": ["owner"] }))).await.json()["allowed"], true);
    // A key of the tenant is asked for as what it may act as; one that was revoked may nothing any more.
    let made = rig.owner().post("/v1/keys", r#"{"roles":["owner"]}"#).await.json();
    let as_key = start(json!({ "principal": made["id"] }));
    assert_eq!(ask(&rig.owner(), as_key.clone()).await.json()["allowed"], true);
    // Of another tenant it is nobody, whatever it is called there.
    assert_eq!(ask(&rig.other(), as_key.clone()).await.json()["allowed"], false);
    assert_eq!(rig.owner().post(&format!("/v1/keys/{}/revoke", made["id"].as_str().unwrap()), r#"{"reason":"lost"}"#).await.status, 200);
    let revoked = ask(&rig.owner(), as_key).await.json();
    assert!(revoked["allowed"] == false && revoked["reason"].as_str().unwrap().contains("revoked"), "{revoked}");
    assert_eq!(ask(&rig.nobody(), start(json!({}))).await.status, 403);
    for wrong in
        [json!({ "action": "strat" }), json!({ "resource": "bill" }), json!({ "through": ["x"] }), json!({ "tenant": "other" }), json!({ "at": "soon" })]
    {
        assert_eq!(ask(&rig.owner(), start(wrong.clone())).await.status, 400, "{wrong}");
    }
    let found = rig.owner().get("/v1/policy/decisions").await.json();
    assert_eq!(found["summary"]["denied"], json!({ "administer": 1 }), "questions are no decisions: {found}");
    assert_eq!(rig.owner().get("/v1/runs").await.json(), json!([]));
}

const RULES: &str = "@id(\"owners\")\npermit(principal in Role::\"owner\", action, resource) unless { resource is Store };\n\
                     @id(\"clerks\")\npermit(principal in Role::\"clerk\", action == Action::\"start\", resource == Pipeline::\"bill\");\n";

struct Served {
    folder: Folder,
    server: Running,
    address: String,
    key: String,
}

impl Served {
    fn new(configured: &str, files: &[(&str, &str)]) -> Served {
        let folder = Folder::new();
        for (name, text) in files {
            std::fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
            folder.write(name, text);
        }
        folder.write("selvedge.yaml", configured);
        let key = folder.selvedge(&["keys", "create", "--role", "owner"]).out.trim().to_owned();
        let mut command = folder.command(&["serve", "--listen", "127.0.0.1:0"]);
        command.stderr(std::fs::File::create(folder.join("said")).unwrap());
        let mut server = Running::of(command.spawn().unwrap());
        let line = server.line();
        let address = line.rsplit("http://").next().unwrap().to_owned();
        Served { folder, server, address, key }
    }

    fn ask(&self) -> Ask {
        Ask::of(self.address.parse().unwrap(), &self.key)
    }

    fn until_said(&self, words: &str) {
        self.folder.until(words, |folder| folder.lines("said").iter().any(|line| line.contains(words)));
    }
}

#[test]
fn policy_test_on_a_server_prints_what_it_prints_on_the_folder_of_its_policies() {
    let served = Served::new("authorization: { policies: ./rules, record_allowed: true }\n", &[("rules/p.cedar", RULES)]);
    for words in [
        &["--role", "clerk", "start", "pipeline:bill"][..],
        &["--role", "clerk", "start", "pipeline:pay"],
        &["--role", "owner", "--address", "10.0.0.1", "--claim", "a=b", "--through", "desk.ask", "invoke", "handler:order/1.pay"],
        &["--as", "ada", "--at", "2031-01-01T00:00:00Z", "administer", "tenant"],
        &["start", "bill"],
        &["strat", "pipeline:bill"],
    ] {
        for form in ["text", "json"] {
            let words = [&["policy", "test", "-o", form], words].concat();
            let here = served.folder.selvedge(&words);
            let away = Folder::new();
            let mut command = away.command(&words);
            let there = command.env("SELVEDGE_SERVER", format!("http://{}", served.address)).env("SELVEDGE_KEY", &served.key).output().unwrap();
            assert_eq!((there.status.code(), String::from_utf8(there.stdout).unwrap()), (Some(here.code), here.out), "{words:?}");
        }
    }
    // That the questions were allowed is recorded, as configured; what they asked for is not.
    let recorded = served.folder.json(&["policy", "decisions"]);
    let of: Vec<_> = recorded["decisions"].as_array().unwrap().iter().map(|one| (&one["decision"], &one["action"], &one["policies"])).collect();
    assert!(!of.is_empty() && of.iter().all(|one| *one == (&json!("allowed"), &json!("administer"), &json!(["owners"]))), "{recorded}");
}

#[tokio::test]
async fn a_hang_up_reads_policies_again_at_once_and_a_set_that_is_refused_leaves_the_old_one_and_is_a_warning() {
    let configured = "authorization: { policies: ./rules, shadow: ./next }\n";
    let served = Served::new(configured, &[("rules/p.cedar", RULES), ("next/p.cedar", RULES)]);
    assert_eq!(served.ask().get("/v1/runs").await.status, 200);
    // It never stands still for two looks: what is read is read because of the signal.
    served.folder.write("rules/p.cedar", &RULES.replace("Role::\"owner\"", "Role::\"chief\""));
    served.server.signal("HUP");
    served.until_said("read again: 2 policies of");
    served.until_said("read again: 2 policies in the shadow of");
    let refused = served.ask().get("/v1/runs").await;
    assert_eq!(refused.status, 403);
    // The old set in the shadow would have allowed that.
    let id = refused.json()["decision_id"].as_str().unwrap().to_owned();
    let shown = served.folder.json(&["policy", "decisions", "--shadow", "--action", "read"]);
    assert_eq!(shown["decisions"][0]["decision"], "would_allow", "{shown}");
    let shown = served.folder.selvedge(&["policy", "decisions", "--id", &id]);
    assert!(shown.out.contains(&id) && shown.out.contains("no policy allows it"), "{shown:?}");
    // A bad set.
    served.folder.write("rules/p.cedar", "permit(");
    served.server.signal("HUP");
    served.until_said("the changed policies are refused, and those before them stay in force");
    served.until_said("p.cedar:1: ");
    assert_eq!(served.ask().get("/v1/runs").await.status, 403, "the set before it is in force");
    let ready = Ask::of(served.address.parse().unwrap(), "").get("/readyz").await;
    assert_eq!(ready.status, 200, "{ready:?}");
    assert!(ready.json()["parts"]["policies"]["warning"].as_str().unwrap().contains("refused") && !ready.text.contains("p.cedar"), "{ready:?}");
    let doctor = served.folder.selvedge(&["doctor"]);
    let line = doctor.out.lines().find(|line| line.starts_with("LOOK  policies")).unwrap_or_else(|| panic!("{doctor:?}")).to_owned();
    assert!(doctor.out.contains("p.cedar:1: ") && doctor.out.contains("stays in force"), "{line}");
    // A bad set in the shadow is one as well, and mending ends the warning.
    served.folder.write("next/p.cedar", "permit(");
    served.folder.write("rules/p.cedar", RULES);
    served.server.signal("HUP");
    served.until_said("the changed policies in the shadow are refused");
    served.folder.until("the old rules are back", |folder| folder.lines("said").iter().filter(|line| line.contains("2 policies of")).count() >= 2);
    let ready = served.ask().get("/readyz").await.json();
    assert!(ready["parts"]["policies"].is_null() && ready["parts"]["policies_in_the_shadow"]["warning"].is_string(), "{ready}");
    assert_eq!(served.ask().get("/v1/runs").await.status, 200);
}
