//! A key, a user and a whole tenant are disabled while what was asked for goes on, and enabled again.

use std::time::Duration;

use bytes::Bytes;
use selvedge::{App, InvocationId, Settings, test};
use selvedge_engine::engine::Ask;
use selvedge_engine::keys::NewKey;
use selvedge_engine::{RunStart, VerbError};
use selvedge_kernel::auth::{Action, AuthorizationContext, Denied, OWNER, Permit, Principal, PrincipalKind, RequestFacts, Resource, authorize, local};
use selvedge_kernel::id::RunId;
use selvedge_kernel::limit;
use selvedge_kernel::machine::RunState;
use selvedge_kernel::ports::Policies;
use selvedge_kernel::record::disabled::Disabled;

use crate::kit;
use crate::revoked::{CALLS, Done, PARENT, WORKS, app_with, pipeline, recovered, why_run};
use crate::rig::Folder;
use crate::runs::{parse, sound, state};

const DAY: Duration = Duration::from_secs(86_400);
const WHY: &str = "she has left";

/// Who is disabled. Where it is the tenant, the owner of the process asks: its work stops as well.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whom {
    Key,
    User,
    Tenant,
}

pub const ALL: [Whom; 3] = [Whom::Key, Whom::User, Whom::Tenant];

fn administer(engine: &test::Engine, tenant: &str) -> Permit {
    let now = engine.engine().now();
    authorize(local(tenant, now), Action::Administer, Resource::Tenant { tenant: tenant.to_owned() }, now).unwrap()
}

/// Whoever presents a token, as the door makes it.
fn user(subject: &str) -> AuthorizationContext {
    let principal = Principal { id: format!("corp:{subject}"), kind: PrincipalKind::User, tenant: "default".to_owned(), roles: vec![OWNER.to_owned()] };
    AuthorizationContext { principal, chain: Vec::new(), claims: Default::default(), request: RequestFacts::default(), until: None }
}

/// Disables a principal of the tenant `default`, or that tenant.
pub async fn disable(engine: &test::Engine, whom: Whom, id: &str) -> Disabled {
    let permit = administer(engine, "default");
    let disabled = match whom {
        Whom::Tenant => engine.engine().disable_tenant(permit, WHY).await,
        Whom::Key | Whom::User => engine.engine().disable_principal(permit, id, WHY).await,
    };
    disabled.unwrap()
}

pub async fn enable(engine: &test::Engine, whom: Whom, id: &str) {
    let permit = administer(engine, "default");
    match whom {
        Whom::Tenant => engine.engine().enable_tenant(permit).await,
        Whom::Key | Whom::User => engine.engine().enable_principal(permit, id).await,
    }
    .unwrap();
}

struct Asker {
    whom: Whom,
    context: AuthorizationContext,
}

impl Asker {
    async fn new(engine: &test::Engine, whom: Whom) -> Asker {
        let context = match whom {
            Whom::Key => {
                let new = NewKey { name: "ci".to_owned(), roles: vec![OWNER.to_owned()], lasts: None };
                let key = engine.engine().create_key(administer(engine, "default"), new).await.unwrap();
                engine.engine().authenticate(&key.presented.text(), RequestFacts::default()).unwrap()
            }
            Whom::User => user("ada"),
            Whom::Tenant => local("default", engine.engine().now()),
        };
        Asker { whom, context }
    }

    fn may(&self, engine: &test::Engine, action: Action, resource: Resource) -> Result<Permit, Denied> {
        engine.engine().permit(self.context.clone(), action, resource)
    }

    async fn start(&self, engine: &test::Engine, name: &str, text: &str) -> RunId {
        let permit = self.may(engine, Action::Start, pipeline(name)).unwrap();
        engine.engine().start_run(permit, parse(text), Bytes::from_static(b"{}"), RunStart::default()).await.unwrap()
    }

    async fn nap(&self, engine: &test::Engine, then: &str, delay: Option<Duration>) -> InvocationId {
        let resource = Resource::Handler { actor: kit::actor("cat", then), handler: "nap".to_owned() };
        let ask = Ask { delay, ..Ask::default() };
        let permit = self.may(engine, Action::Invoke, resource).unwrap();
        engine.engine().invoke(permit, Bytes::from(serde_json::to_vec(then).unwrap()), ask).await.unwrap().id.unwrap()
    }

    async fn disable(&self, engine: &test::Engine) {
        disable(engine, self.whom, &self.context.principal.id).await;
    }

    async fn enable(&self, engine: &test::Engine) {
        enable(engine, self.whom, &self.context.principal.id).await;
    }
}

fn says_why(text: &str) {
    assert!(text.contains("denied") && text.contains("disabled since") && text.contains(WHY), "{text}");
}

#[tokio::test]
async fn the_next_call_of_a_run_of_whoever_is_disabled_is_denied_what_it_did_is_undone_and_why_says_so() {
    for whom in ALL {
        let done = Done::default();
        let mut engine = test::Engine::new(app_with(&done)).await.unwrap();
        let asker = Asker::new(&engine, whom).await;
        let mut runs = Vec::new();
        for (name, text) in [("calls", CALLS), ("works", WORKS), ("parent", PARENT)] {
            runs.push(asker.start(&engine, name, text).await);
        }
        engine.advance(DAY).await;
        asker.disable(&engine).await;
        let fires = done.lock().unwrap().iter().filter(|n| **n == 9).count();
        engine.kill_and_reopen().await.unwrap();
        engine.advance(30 * DAY).await;
        for run in runs {
            assert_eq!(state(&engine, run).await, RunState::Failed, "{whom:?}");
            says_why(&why_run(&engine, run).await);
        }
        let done = done.lock().unwrap().clone();
        assert_eq!(done.iter().copied().filter(|n| *n != 9).collect::<Vec<_>>(), [1, 7], "{whom:?}: undone, and nothing else is done");
        let fired = done.iter().filter(|n| **n == 9).count() > fires;
        assert_eq!(fired, whom != Whom::Tenant, "{whom:?}: the owner's own schedule goes on where the tenant does");
        sound(&engine).await;
    }
}

#[tokio::test]
async fn the_next_call_of_a_handler_of_whoever_is_disabled_ends_with_denied_and_a_replay_asks_nobody() {
    for whom in ALL {
        let mut engine = test::Engine::new(app_with(&Done::default())).await.unwrap();
        let asker = Asker::new(&engine, whom).await;
        let ids = [asker.nap(&engine, "call", None).await, asker.nap(&engine, "work", None).await];
        let quiet = asker.nap(&engine, "quiet", None).await;
        let late = asker.nap(&engine, "late", Some(2 * DAY)).await;
        engine.advance(DAY).await;
        asker.disable(&engine).await;
        engine.kill_and_reopen().await.unwrap();
        engine.advance(31 * DAY).await;
        assert_eq!(engine.local().result::<u64>(quiet).await.unwrap(), 1, "{whom:?}: what calls nobody any more ends as it would have");
        for id in ids {
            says_why(&engine.local().result::<u64>(id).await.unwrap_err().to_string());
        }
        let letters = kit::dead_letters(&engine).await;
        let letter = letters.iter().find(|letter| letter.message.id == late).unwrap();
        says_why(&letter.error.to_string());
        sound(&engine).await;
    }
}

#[tokio::test]
async fn what_goes_on_when_somebody_is_enabled_in_time_ends_as_if_nothing_had_been() {
    for whom in ALL {
        let mut engine = test::Engine::new(app_with(&Done::default())).await.unwrap();
        let asker = Asker::new(&engine, whom).await;
        let (run, id) = (asker.start(&engine, "calls", CALLS).await, asker.nap(&engine, "call", None).await);
        engine.advance(DAY).await;
        asker.disable(&engine).await;
        engine.kill_and_reopen().await.unwrap();
        engine.advance(DAY).await;
        asker.enable(&engine).await;
        engine.kill_and_reopen().await.unwrap();
        engine.advance(30 * DAY).await;
        assert_eq!((state(&engine, run).await, engine.local().result::<u64>(id).await.unwrap()), (RunState::Completed, 3), "{whom:?}");
        sound(&engine).await;
    }
}

#[tokio::test]
async fn a_schedule_of_whoever_is_disabled_starts_nothing_says_why_and_goes_on_when_it_is_enabled() {
    for whom in ALL {
        let engine = test::Engine::with(app_with(&Done::default()), Settings::default()).await.unwrap();
        let asker = Asker::new(&engine, whom).await;
        engine.engine().put_schedule(asker.may(&engine, Action::Define, pipeline("often")).unwrap()).await.unwrap();
        let fire = async || {
            engine.advance(Duration::from_secs(600)).await;
            engine.local().schedule("often").status().await.unwrap()
        };
        assert_eq!(fire().await.counts.started, 1, "{whom:?}");
        asker.disable(&engine).await;
        let status = fire().await;
        assert_eq!((status.counts.started, status.counts.failed), (1, 1), "{whom:?}");
        says_why(&status.sentence());
        asker.enable(&engine).await;
        let status = fire().await;
        assert_eq!((status.counts.started, status.counts.failed), (2, 1), "{whom:?}");
        sound(&engine).await;
    }
}

#[tokio::test]
async fn whoever_is_disabled_is_denied_everything_and_nobody_else_is_also_after_a_kill() {
    for whom in ALL {
        let mut engine = test::Engine::new(App::new()).await.unwrap();
        let asker = Asker::new(&engine, whom).await;
        let (bystander, owner) = (user("bo"), local("default", engine.engine().now()));
        let other = AuthorizationContext { principal: Principal { tenant: "other".to_owned(), ..asker.context.principal.clone() }, ..asker.context.clone() };
        let start = |engine: &test::Engine, context: &AuthorizationContext| {
            let resource = Resource::Pipeline { tenant: context.principal.tenant.clone(), name: "bill".to_owned() };
            engine.engine().permit(context.clone(), Action::Start, resource).map(|_| ())
        };
        assert!(start(&engine, &asker.context).is_ok());
        let before = engine.engine().policies().version();
        asker.disable(&engine).await;
        assert!(engine.engine().policies().version() > before, "whoever waits learns of it");
        for round in 0..2 {
            let denied = start(&engine, &asker.context).unwrap_err();
            assert!(denied.reason.contains("disabled since") && denied.reason.contains(WHY), "{whom:?} {round}: {denied}");
            assert_eq!(start(&engine, &bystander).is_err(), whom == Whom::Tenant, "{whom:?} {round}");
            // A key has one tenant; the same name in another one is somebody else.
            assert!(whom == Whom::Key || start(&engine, &other).is_ok(), "{whom:?} {round}");
            for action in [Action::Read, Action::Control, Action::Define] {
                assert!(engine.engine().permit(owner.clone(), action, pipeline("bill")).is_ok(), "{whom:?} {round}: {action}");
            }
            engine.kill_and_reopen().await.unwrap();
        }
        asker.enable(&engine).await;
        for round in 0..2 {
            assert!(start(&engine, &asker.context).is_ok() && start(&engine, &bystander).is_ok(), "{whom:?} {round}");
            engine.kill_and_reopen().await.unwrap();
        }
    }
}

#[tokio::test]
async fn who_may_disable_whom_is_said_by_a_permit_and_a_whole_tenant_is_its_local_owners() {
    let engine = test::Engine::new(App::new()).await.unwrap();
    let root = Asker::new(&engine, Whom::Key).await;
    let tenant = || Resource::Tenant { tenant: "default".to_owned() };
    let by_root = || root.may(&engine, Action::Administer, tenant()).unwrap();
    let disabled = engine.engine().disable_principal(by_root(), "corp:ada", WHY).await.unwrap();
    assert_eq!((disabled.by.as_str(), disabled.reason.as_str()), (&*root.context.principal.id, WHY));
    let again = engine.engine().disable_principal(administer(&engine, "default"), "corp:ada", "twice").await.unwrap();
    assert_eq!(again, disabled, "who disabled it first stands");
    assert_eq!(engine.engine().disabled_principals(&by_root()).unwrap(), [disabled]);
    assert!(engine.engine().disabled_principals(&administer(&engine, "other")).unwrap().is_empty());
    let code = |done: Result<_, VerbError>| done.map(|_: Disabled| ()).unwrap_err().code;
    assert_eq!(code(engine.engine().disable_tenant(by_root(), WHY).await), "denied");
    assert_eq!(engine.engine().enable_tenant(by_root()).await.unwrap_err().code, "denied");
    assert_eq!(code(engine.engine().disable_principal(by_root(), "corp:bo", " ").await), "no_reason");
    assert_eq!(code(engine.engine().disable_principal(by_root(), "", WHY).await), "empty");
    assert_eq!(code(engine.engine().disable_principal(administer(&engine, "other"), &root.context.principal.id, WHY).await), "unknown_key");
    assert_eq!(engine.engine().enable_principal(administer(&engine, "other"), &root.context.principal.id).await.unwrap_err().code, "unknown_key");
    assert_eq!(code(engine.engine().disable_principal(root.may(&engine, Action::Read, tenant()).unwrap(), "corp:bo", WHY).await), "wrong_permit");
    assert_eq!(engine.engine().disabled_tenants(&administer(&engine, "default")).unwrap_err().code, "wrong_permit");
}

#[tokio::test]
async fn a_tenant_has_so_many_disabled_principals_and_one_that_is_enabled_makes_room() {
    let engine = test::Engine::with(App::new(), Settings::default()).await.unwrap();
    for number in 0..limit::DISABLED {
        disable(&engine, Whom::User, &format!("corp:{number}")).await;
    }
    let more = || engine.engine().disable_principal(administer(&engine, "default"), "corp:more", WHY);
    let full = more().await.unwrap_err();
    assert!(full.code == "limit: disabled" && full.message.contains("1000"), "{full}");
    disable(&engine, Whom::Tenant, "").await;
    assert_eq!(more().await.unwrap_err().code, "limit: disabled");
    enable(&engine, Whom::User, "corp:7").await;
    assert_eq!(more().await.unwrap().principal.as_deref(), Some("corp:more"));
}

#[tokio::test]
async fn who_is_disabled_in_any_shard_is_known_before_anything_goes_on_after_a_restart() {
    let engine = test::Engine::with(app_with(&Done::default()), Settings::default()).await.unwrap();
    let mut runs = Vec::new();
    for number in 0..60 {
        let tenant = format!("t{number}");
        let now = engine.engine().now();
        let start = Resource::Pipeline { tenant: tenant.clone(), name: "works".to_owned() };
        let permit = engine.engine().permit(local(&tenant, now), Action::Start, start).unwrap();
        runs.push((tenant.clone(), engine.engine().start_run(permit, parse(WORKS), Bytes::from_static(b"{}"), RunStart::default()).await.unwrap()));
    }
    engine.settle().await;
    for (tenant, _) in &runs {
        engine.engine().disable_tenant(administer(&engine, tenant), WHY).await.unwrap();
    }
    engine.settle().await;
    for (tenant, status) in recovered(&engine, &app_with(&Done::default()), runs).await {
        assert_eq!(status.state, RunState::Failed, "{tenant}");
        says_why(&format!("{status:?}"));
    }
}

#[test]
fn principals_and_tenants_are_disabled_listed_and_enabled_on_the_command_line() {
    let folder = Folder::new();
    folder.write("p.yaml", "selvedge: 1\nname: p\nstages: [{ name: hold, mode: wait_signal, signal: go }]\n");
    let key = folder.json(&["keys", "create", "--role", "owner"])["id"].as_str().unwrap().to_owned();
    let all = |folder: &Folder| {
        for (id, tenant) in [("corp:ada/1", "default"), (&*key, "default"), ("corp:ada/1", "acme")] {
            let silent = folder.selvedge(&["principals", "disable", id, "--tenant", tenant]);
            assert!(silent.code == 64 && silent.err.contains("--reason"), "{silent:?}");
            let said = folder.selvedge(&["principals", "disable", id, "--tenant", tenant, "--reason", WHY]);
            assert!(said.code == 0 && said.out.contains(&format!("{id} is disabled since")), "{said:?}");
            let listed = folder.json(&["principals", "list", "--tenant", tenant]);
            let one = listed.as_array().unwrap().iter().find(|one| one["principal"] == id).unwrap();
            assert_eq!((&one["tenant"], &one["by"], &one["reason"]), (&tenant.into(), &"local".into(), &WHY.into()));
        }
        assert!(folder.selvedge(&["principals", "list"]).out.contains(WHY));
        let unknown = folder.selvedge(&["principals", "disable", "slv_0000000000000000", "--reason", WHY]);
        assert!(unknown.code == 64 && unknown.err.contains("has no key"), "{unknown:?}");
        let said = folder.selvedge(&["tenants", "disable", "acme", "--reason", WHY]);
        assert!(said.code == 0 && said.out.contains("acme is disabled since"), "{said:?}");
        let listed = folder.json(&["tenants", "list"]);
        assert_eq!((&listed[0]["tenant"], &listed[0]["reason"], listed.as_array().unwrap().len()), (&"acme".into(), &WHY.into(), 1));
        for (id, tenant) in [("corp:ada/1", "default"), (&*key, "default"), ("corp:ada/1", "acme")] {
            let said = folder.selvedge(&["principals", "enable", id, "--tenant", tenant]);
            assert!(said.code == 0 && said.out.contains("is not disabled"), "{said:?}");
            assert!(folder.json(&["principals", "list", "--tenant", tenant]).as_array().unwrap().iter().all(|one| one["principal"] != id));
        }
        assert_eq!(folder.selvedge(&["tenants", "enable", "acme"]).code, 0);
        assert!(folder.selvedge(&["tenants", "list"]).out.contains("no tenant is disabled"));
    };
    let holder = folder.start(&["run", "p.yaml"]);
    folder.until_run("for the signal `go`");
    all(&folder);
    holder.signal("TERM");
    assert_eq!(folder.end(holder).code, 2);
    all(&folder);
    // In a tenant that is disabled its owner begins nothing, and looks.
    assert_eq!(folder.selvedge(&["tenants", "disable", "default", "--reason", WHY]).code, 0);
    let refused = folder.selvedge(&["run", "p.yaml", "--new"]);
    assert!(refused.code == 77 && refused.err.contains("the tenant `default` is disabled") && refused.err.contains(WHY), "{refused:?}");
    assert_eq!(folder.selvedge(&["runs", "list"]).code, 0);
    // It goes with a backup and an export.
    assert_eq!(folder.selvedge(&["principals", "disable", "corp:ada", "--reason", WHY]).code, 0);
    let before = [folder.json(&["principals", "list"]), folder.json(&["tenants", "list"])];
    assert_eq!(folder.selvedge(&["backup", "--to", "b"]).code, 0);
    assert_eq!(folder.selvedge(&["export", "--to", "e"]).code, 0);
    for (data, words) in [("one", ["restore", "--from", "b"].as_slice()), ("two", &["import", "e", "--shards", "3"])] {
        let said = folder.selvedge(&[&["--data", data], words].concat());
        assert_eq!(said.code, 0, "{said:?}");
        assert_eq!([folder.json(&["--data", data, "principals", "list"]), folder.json(&["--data", data, "tenants", "list"])], before, "{data}");
    }
}
