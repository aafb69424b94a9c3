//! API keys: who presents one is somebody, for as long as it opens something.

use std::sync::Arc;
use std::time::Duration;

use selvedge::{App, Settings, test};
use selvedge_engine::keys::{MadeKey, NewKey, Unauthenticated};
use selvedge_engine::wiring::Rules;
use selvedge_kernel::auth::{Action, AuthorizationContext, OWNER, Permit, PrincipalKind, RequestFacts, Resource, Verdict, authorize, local};
use selvedge_kernel::id::ShardId;
use selvedge_kernel::limit;
use selvedge_kernel::ports::Policies;
use selvedge_kernel::record::api_key::Presented;
use selvedge_kernel::time::Millis;

use crate::rig::Folder;

const HOUR: Duration = Duration::from_secs(3_600);

fn administer(engine: &test::Engine, tenant: &str) -> Permit {
    let now = engine.engine().now();
    authorize(local(tenant, now), Action::Administer, Resource::Tenant { tenant: tenant.to_owned() }, now).unwrap()
}

async fn made(engine: &test::Engine, tenant: &str, lasts: Option<Duration>) -> MadeKey {
    let new = NewKey { name: "ci".to_owned(), roles: vec![OWNER.to_owned()], lasts };
    engine.engine().create_key(administer(engine, tenant), new).await.unwrap()
}

fn presents(engine: &test::Engine, key: &MadeKey) -> Result<AuthorizationContext, Unauthenticated> {
    let request = RequestFacts { address: Some("192.0.2.1".to_owned()), at: engine.engine().now() };
    engine.engine().authenticate(&key.presented.text(), request)
}

fn pipeline(tenant: &str) -> Resource {
    Resource::Pipeline { tenant: tenant.to_owned(), name: "bill".to_owned() }
}

#[tokio::test]
async fn a_key_makes_its_bearer_a_principal_of_its_tenant_with_its_roles_also_after_a_kill() {
    let mut engine = test::Engine::new(App::new()).await.unwrap();
    let key = made(&engine, "acme", None).await;
    engine.kill_and_reopen().await.unwrap();
    let context = presents(&engine, &key).unwrap();
    let principal = &context.principal;
    assert_eq!((principal.kind, principal.tenant.as_str(), &principal.roles), (PrincipalKind::ApiKey, "acme", &vec![OWNER.to_owned()]));
    assert_eq!((context.request.address.as_deref(), context.until), (Some("192.0.2.1"), None));
    let may = |resource| engine.engine().permit(context.clone(), Action::Start, resource).map(|_| ());
    assert!(may(pipeline("acme")).is_ok());
    assert_eq!(may(pipeline("other")).unwrap_err().reason, "it belongs to another tenant");
    assert_eq!(may(Resource::Tenant { tenant: "other".to_owned() }).unwrap_err().reason, "it belongs to another tenant");
}

#[tokio::test]
async fn case_37_an_unknown_a_changed_an_expired_and_a_revoked_key_open_nothing() {
    let engine = test::Engine::new(App::new()).await.unwrap();
    let (good, short) = (made(&engine, "acme", None).await, made(&engine, "acme", Some(HOUR)).await);
    let text = good.presented.text();
    let last = if text.ends_with('0') { "1" } else { "0" };
    let changed = format!("{}{last}", &text[..text.len() - 1]);
    let swapped = format!("{}{}", short.key.id, &text[good.key.id.len()..]);
    for unknown in ["", "slv_", &good.key.id, &changed, &swapped, &text.to_uppercase(), &format!("{text} ")] {
        assert_eq!(engine.engine().authenticate(unknown, RequestFacts::default()), Err(Unauthenticated::Unknown), "{unknown}");
    }
    assert!(presents(&engine, &short).is_ok());
    engine.advance(HOUR).await;
    assert!(matches!(presents(&engine, &short), Err(Unauthenticated::Expired { id, .. }) if id == short.key.id));
    engine.engine().revoke_key(administer(&engine, "acme"), &good.key.id, "lost").await.unwrap();
    assert!(matches!(presents(&engine, &good), Err(Unauthenticated::Revoked { id, .. }) if id == good.key.id));
}

#[tokio::test]
async fn a_key_that_was_revoked_is_denied_everything_also_to_whoever_came_in_with_it_before_and_also_after_a_kill() {
    let mut engine = test::Engine::new(App::new()).await.unwrap();
    let key = made(&engine, "acme", None).await;
    let context = presents(&engine, &key).unwrap();
    let before = engine.engine().policies().version();
    let again = made(&engine, "acme", None).await;
    let revoked = engine.engine().revoke_key(administer(&engine, "acme"), &key.key.id, "lost").await.unwrap();
    assert!(engine.engine().policies().version() > before, "whoever waits learns of it");
    for round in 0..2 {
        let denied = engine.engine().permit(context.clone(), Action::Read, pipeline("acme")).unwrap_err();
        assert!(denied.reason.contains("revoked") && denied.reason.contains("lost"), "{round}: {denied}");
        assert!(presents(&engine, &key).is_err());
        assert!(presents(&engine, &again).is_ok(), "another key of the tenant goes on");
        engine.kill_and_reopen().await.unwrap();
    }
    let twice = engine.engine().revoke_key(administer(&engine, "acme"), &key.key.id, "stolen").await.unwrap();
    assert_eq!(twice, revoked, "who revoked it first stands");
    let other = engine.engine().revoke_key(administer(&engine, "other"), &again.key.id, "mine").await.unwrap_err();
    assert_eq!(other.code, "unknown_key", "a key of another tenant is one that does not exist");
    assert!(presents(&engine, &again).is_ok());
}

#[tokio::test]
async fn what_is_presented_lies_nowhere_in_the_store() {
    let engine = test::Engine::new(App::new()).await.unwrap();
    let key = made(&engine, "acme", None).await;
    let text = key.presented.text();
    let secret = text.rsplit('_').next().unwrap().as_bytes().to_vec();
    let mut rows = 0;
    for shard in (0..selvedge_engine::engine::SHARDS).map(ShardId) {
        for (at, value) in engine.model().rows(shard) {
            rows += 1;
            for bytes in [&at[..], &value[..]] {
                assert!(!bytes.windows(32).any(|part| part == key.presented.secret || part == &secret[..32]));
            }
        }
    }
    assert!(rows > 0);
}

#[tokio::test]
async fn a_tenant_has_so_many_keys_and_what_opens_nothing_makes_room() {
    let mut engine = test::Engine::with(App::new(), selvedge::Settings::default()).await.unwrap();
    let first = made(&engine, "acme", None).await;
    for _ in 1..limit::KEYS {
        made(&engine, "acme", None).await;
    }
    let new = || NewKey { roles: vec![OWNER.to_owned()], ..NewKey::default() };
    let full = engine.engine().create_key(administer(&engine, "acme"), new()).await.unwrap_err();
    assert!(full.code == "limit: keys" && full.message.contains("1000"), "{full}");
    made(&engine, "other", None).await;
    engine.engine().revoke_key(administer(&engine, "acme"), &first.key.id, "room").await.unwrap();
    let last = engine.engine().create_key(administer(&engine, "acme"), new()).await.unwrap();
    for _ in 0..2 {
        let keys = engine.engine().keys(administer(&engine, "acme")).unwrap();
        assert_eq!(keys.len(), limit::KEYS);
        assert!(keys.iter().any(|key| key.id == last.key.id) && keys.iter().all(|key| key.id != first.key.id));
        assert_eq!(presents(&engine, &first), Err(Unauthenticated::Unknown));
        engine.kill_and_reopen().await.unwrap();
    }
}

#[tokio::test]
async fn keys_are_made_and_seen_with_a_permit_for_their_tenant_and_with_roles_that_are_names() {
    let engine = test::Engine::new(App::new()).await.unwrap();
    let now = engine.engine().now();
    let read = authorize(local("acme", now), Action::Read, Resource::Tenant { tenant: "acme".to_owned() }, now).unwrap();
    assert_eq!(engine.engine().keys(read).unwrap_err().code, "wrong_permit");
    let store = authorize(local("acme", now), Action::Administer, Resource::Store, now).unwrap();
    assert_eq!(engine.engine().keys(store).unwrap_err().code, "wrong_permit");
    made(&engine, "acme", None).await;
    assert!(engine.engine().keys(administer(&engine, "other")).unwrap().is_empty());
    for roles in [vec![], vec!["a b".to_owned()], vec![String::new()], vec!["r".to_owned(); 17]] {
        let wrong = engine.engine().create_key(administer(&engine, "acme"), NewKey { roles, ..NewKey::default() }).await.unwrap_err();
        assert_eq!(wrong.code, "bad_request", "{wrong}");
    }
    assert_eq!(engine.engine().keys(administer(&engine, "acme")).unwrap().len(), 1);
}

#[test]
fn keys_are_made_listed_and_revoked_on_the_command_line_whether_or_not_somebody_holds_the_directory() {
    let folder = Folder::new();
    folder.write("p.yaml", "selvedge: 1\nname: p\nstages: [{ name: hold, mode: wait_signal, signal: go }]\n");
    let none = folder.selvedge(&["keys", "create"]);
    assert!(none.code == 64 && none.err.contains("--role"), "{none:?}");
    // Before there is anything: a server wants a key before it starts.
    let first = folder.selvedge(&["keys", "create", "--role", "owner"]);
    assert!(first.code == 0 && first.err.contains("making the data directory") && first.err.contains("only time"), "{first:?}");
    let key = Presented::read(first.out.trim()).expect("standard output is the key and nothing else");
    let all = |folder: &Folder| {
        let made = folder.json(&["keys", "create", "--role", "clerk", "--role", "night", "--tenant", "acme", "--name", "ci", "--expires", "90d"]);
        let id = made["id"].as_str().unwrap();
        assert!(made["key"].as_str().unwrap().starts_with(id), "{made}");
        let listed = folder.json(&["keys", "list", "--tenant", "acme"]);
        let shown = listed.as_array().unwrap().iter().find(|key| key["id"] == id).unwrap();
        assert_eq!((&shown["roles"], &shown["name"], &shown["status"]), (&serde_json::json!(["clerk", "night"]), &"ci".into(), &"open".into()));
        assert!(shown["key"].is_null() && shown["ends"].is_string(), "{shown}");
        let secret = made["key"].as_str().unwrap().rsplit('_').next().unwrap();
        assert!(!listed.to_string().contains(secret), "it is shown once");
        let text = folder.selvedge(&["keys", "list"]);
        assert!(text.out.contains(&key.id) && !text.out.contains(id), "each tenant has its own: {text:?}");
        let silent = folder.selvedge(&["keys", "revoke", id, "--tenant", "acme"]);
        assert!(silent.code == 64 && silent.err.contains("--reason"), "{silent:?}");
        let other = folder.selvedge(&["keys", "revoke", id, "--reason", "lost"]);
        assert!(other.code == 64 && other.err.contains("has no key"), "{other:?}");
        let revoked = folder.selvedge(&["keys", "revoke", id, "--tenant", "acme", "--reason", "lost"]);
        assert!(revoked.code == 0 && revoked.out.contains("opens nothing any more"), "{revoked:?}");
        let listed = folder.json(&["keys", "list", "--tenant", "acme"]);
        let shown = listed.as_array().unwrap().iter().find(|key| key["id"] == id).unwrap();
        assert_eq!((&shown["status"], &shown["revoked"]["reason"]), (&"revoked".into(), &"lost".into()));
    };
    let holder = folder.start(&["run", "p.yaml"]);
    folder.until_run("for the signal `go`");
    all(&folder);
    holder.signal("TERM");
    assert_eq!(folder.end(holder).code, 2);
    all(&folder);
    let wrong = folder.selvedge(&["keys", "create", "--role", "a b"]);
    assert!(wrong.code == 64 && wrong.err.contains("no name of a role"), "{wrong:?}");
}

#[test]
fn a_key_opens_what_it_opened_after_a_backup_and_an_export_have_been_brought_back() {
    let folder = Folder::new();
    folder.selvedge(&["keys", "create", "--role", "owner"]);
    let before = folder.json(&["keys", "list"]);
    assert_eq!(folder.selvedge(&["backup", "--to", "b"]).code, 0);
    assert_eq!(folder.selvedge(&["export", "--to", "e"]).code, 0);
    for (data, words) in [("one", ["restore", "--from", "b"].as_slice()), ("two", &["import", "e", "--shards", "3"])] {
        let said = folder.selvedge(&[&["--data", data], words].concat());
        assert_eq!(said.code, 0, "{said:?}");
        assert_eq!(folder.json(&["--data", data, "keys", "list"]), before, "{data}");
    }
}

/// A policy that lets everybody do everything in their tenant: keys too.
struct Everybody;

impl Policies for Everybody {
    fn decide(&self, _: &AuthorizationContext, _: Action, _: &Resource, _: Millis) -> Verdict {
        Verdict::allow("everybody may")
    }

    fn version(&self) -> u64 {
        1
    }

    fn fault(&self) -> Option<String> {
        None
    }
}

#[tokio::test]
async fn a_key_that_makes_keys_gives_none_of_them_more_than_it_has() {
    let settings = Settings { policies: Rules::Given(Arc::new(Everybody)), ..Settings::default() };
    let engine = test::Engine::with(App::new(), settings).await.unwrap();
    let new = |roles: &[&str], lasts| NewKey { name: "more".to_owned(), roles: roles.iter().map(|role| (*role).to_owned()).collect(), lasts };
    let clerk = engine.engine().create_key(administer(&engine, "acme"), new(&["clerk"], Some(HOUR))).await.unwrap();
    let clerk_may = || {
        let resource = Resource::Tenant { tenant: "acme".to_owned() };
        engine.engine().permit(presents(&engine, &clerk).unwrap(), Action::Administer, resource).unwrap()
    };
    let later = engine.engine().create_key(clerk_may(), new(&["clerk"], Some(10 * HOUR))).await.unwrap();
    assert_eq!(later.key.expires, clerk.key.expires, "it ends when its maker's key ends");
    let denied = engine.engine().create_key(clerk_may(), new(&["clerk", OWNER], None)).await.unwrap_err();
    assert!(denied.code == "denied" && denied.message.contains("has not got the role `owner`"), "{denied}");
    assert_eq!(engine.engine().keys(administer(&engine, "acme")).unwrap().len(), 2);
}
