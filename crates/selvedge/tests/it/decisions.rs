//! Decisions are counted, denials recorded: what is kept of them, for how long, and what a flood of them does to nobody.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use selvedge::{App, Ctx, Handler, Settings, test};
use selvedge_engine::decisions::Summary;
use selvedge_engine::keys::NewKey;
use selvedge_engine::wiring::{Recorded, Rules};
use selvedge_engine::{RunStart, Wanted};
use selvedge_kernel::auth::{Action, AuthorizationContext, Denied, RequestFacts, Resource, Verdict, authorize, local};
use selvedge_kernel::config::{Source, parse_config};
use selvedge_kernel::limit::{DECISIONS, DECISIONS_A_MINUTE};
use selvedge_kernel::ports::Policies;
use selvedge_kernel::record::decision::{DecisionRecord, What, home};
use selvedge_kernel::time::Millis;
use selvedge_kernel::transition::Keep;

use crate::kit;
use crate::rig::Folder;
use crate::runs::{parse, state};

const COUNT: Handler<u64, u64> = Handler::new("counter", "count");
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

const NAPS: &str = "
selvedge: 1
name: naps
stages:
  - { name: nap, mode: sleep, for: 1d }
  - { name: count, call: { actor: counter, key: a, handler: count }, input: 1, depends_on: [nap] }
";

fn app() -> App {
    App::new().handler(COUNT, async |_: Ctx, n: u64| Ok(n)).pipeline(parse(NAPS))
}

/// Everybody may start, and nothing else.
struct Starters;

impl Policies for Starters {
    fn decide(&self, _: &AuthorizationContext, action: Action, _: &Resource, _: Millis) -> Verdict {
        let (policies, took) = (vec!["starters".to_owned()], Duration::from_micros(7));
        match action {
            Action::Start => Verdict { policies, took, ..Verdict::allow("starters may start") },
            _ => Verdict { policies, took, ..Verdict::deny("starters may not do that") },
        }
    }

    fn version(&self) -> u64 {
        1
    }

    fn fault(&self) -> Option<String> {
        None
    }
}

fn ruled() -> Settings {
    Settings { policies: Rules::Given(Arc::new(Starters)), ..Settings::default() }
}

async fn key(engine: &test::Engine) -> AuthorizationContext {
    let administer = kit::permit(engine, Action::Administer, Resource::Tenant { tenant: "default".to_owned() });
    let made = engine.engine().create_key(administer, NewKey { name: "ci".to_owned(), roles: vec!["clerk".to_owned()], lasts: None }).await.unwrap();
    let from = RequestFacts { address: Some("192.0.2.7".to_owned()), at: engine.engine().now() };
    engine.engine().authenticate(&made.presented.text(), from).unwrap()
}

fn pipeline(name: &str) -> Resource {
    Resource::Pipeline { tenant: "default".to_owned(), name: name.to_owned() }
}

fn denied(engine: &test::Engine, who: &AuthorizationContext, name: &str) -> Denied {
    engine.engine().permit(who.clone(), Action::Control, pipeline(name)).unwrap_err()
}

async fn seen(engine: &test::Engine, what: What) -> (Vec<DecisionRecord>, Summary) {
    wanted(engine, Wanted { whats: vec![what], most: usize::MAX, ..Wanted::default() }).await
}

async fn wanted(engine: &test::Engine, wanted: Wanted) -> (Vec<DecisionRecord>, Summary) {
    let administer = kit::permit(engine, Action::Administer, Resource::Tenant { tenant: "default".to_owned() });
    engine.engine().decisions(administer, wanted).await.unwrap()
}

#[tokio::test]
async fn a_denial_is_a_row_with_who_what_why_and_by_which_policies_and_equal_ones_of_a_minute_are_one_with_a_count() {
    let mut engine = test::Engine::with(app(), ruled()).await.unwrap();
    let clerk = key(&engine).await;
    let first = denied(&engine, &clerk, "bill");
    let second = denied(&engine, &clerk, "bill");
    assert_eq!(first.decision, second.decision, "one record, one id");
    let other = denied(&engine, &clerk, "pay");
    engine.advance(MINUTE).await;
    let later = denied(&engine, &clerk, "bill");
    assert_ne!(first.decision, later.decision);
    engine.settle().await;
    engine.advance(MINUTE).await;
    // What is settled is on disk.
    engine.kill_and_reopen().await.unwrap();
    let (records, summary) = seen(&engine, What::Denied).await;
    assert_eq!(records.iter().map(|record| (record.id, record.count)).collect::<Vec<_>>(), {
        let mut expected = vec![(first.decision, 2), (other.decision, 1)];
        expected.sort_by_key(|(id, _)| std::cmp::Reverse(*id));
        [vec![(later.decision, 1)], expected].concat()
    });
    assert_eq!(summary, Summary::default(), "counts are those of this process");
    let record = records.iter().find(|record| record.id == first.decision).unwrap();
    assert_eq!(
        (record.principal.id.as_str(), record.action.as_str(), record.kind.as_str(), record.name.as_str()),
        (clerk.principal.id.as_str(), "control", "pipeline", "bill")
    );
    assert_eq!((record.said.reason.as_str(), &record.said.policies), ("starters may not do that", &vec!["starters".to_owned()]));
    assert_eq!((record.took_ns, record.address.as_deref()), (7_000, Some("192.0.2.7")));
    assert!(record.first <= record.last && record.last < record.first.after(MINUTE));
    let one = |id| Wanted { whats: What::ALL.to_vec(), id: Some(id), most: 1, ..Wanted::default() };
    assert_eq!(wanted(&engine, one(other.decision)).await.0.len(), 1);
    let by = |principal: &str, action: &str| Wanted {
        whats: vec![What::Denied],
        principal: Some(principal.to_owned()),
        action: Some(action.to_owned()),
        most: 2,
        ..Wanted::default()
    };
    assert_eq!(wanted(&engine, by(&clerk.principal.id, "control")).await.0.len(), 2, "no more than asked for");
    assert!(wanted(&engine, by("slv_other", "control")).await.0.is_empty() && wanted(&engine, by(&clerk.principal.id, "read")).await.0.is_empty());
    kit::sound(&engine).await;
}

#[tokio::test]
async fn what_was_denied_just_before_a_close_is_there_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let config = || selvedge::Config { settings: ruled(), ..selvedge::Config::on(folder.path()) };
    let engine = selvedge::Engine::open(config(), app()).await.unwrap();
    let permit = |engine: &selvedge::Engine| {
        let now = engine.inner().now();
        selvedge_kernel::auth::authorize(
            selvedge_kernel::auth::local("default", now),
            Action::Administer,
            Resource::Tenant { tenant: "default".to_owned() },
            now,
        )
        .unwrap()
    };
    let made = engine.inner().create_key(permit(&engine), NewKey { name: String::new(), roles: vec!["clerk".to_owned()], lasts: None }).await.unwrap();
    let clerk = engine.inner().authenticate(&made.presented.text(), RequestFacts::default()).unwrap();
    for n in 0..500 {
        // Of each a few, so that those which are written already change again.
        engine.inner().permit(clerk.clone(), Action::Control, pipeline(&format!("p{}", n % 100))).unwrap_err();
    }
    engine.close().await.unwrap();
    let engine = selvedge::Engine::open(config(), app()).await.unwrap();
    let all = Wanted { whats: vec![What::Denied], most: 1_000, ..Wanted::default() };
    let (records, _) = engine.inner().decisions(permit(&engine), all).await.unwrap();
    assert_eq!((records.len(), records.iter().map(|record| record.count).sum::<u64>()), (100, 500));
    engine.close().await.unwrap();
}

#[tokio::test]
async fn the_why_of_a_run_that_was_denied_names_a_decision_that_is_found() {
    let mut engine = test::Engine::with(app(), ruled()).await.unwrap();
    let clerk = key(&engine).await;
    let permit = engine.engine().permit(clerk.clone(), Action::Start, pipeline("naps")).unwrap();
    let run = engine.engine().start_run(permit, parse(NAPS), Bytes::from_static(b"{}"), RunStart::default()).await.unwrap();
    engine.advance(2 * DAY).await;
    assert_eq!(state(&engine, run).await, selvedge_kernel::machine::RunState::Failed);
    engine.kill_and_reopen().await.unwrap();
    let (records, _) = seen(&engine, What::Denied).await;
    assert_eq!(records.len(), 1, "{records:?}");
    assert_eq!((records[0].action.as_str(), records[0].kind.as_str(), records[0].name.as_str()), ("invoke", "handler", "counter/a.count"));
    assert!(!records[0].chain.is_empty(), "it was the run that asked: {records:?}");
    let why = kit::permit(&engine, Action::Read, Resource::Work { tenant: "default".to_owned(), id: run.to_string() });
    let why = format!("{:?}", engine.engine().run_status(why, run).await.unwrap());
    assert!(why.contains("denied") && why.contains(&records[0].id.to_string()), "{why}");
}

#[tokio::test]
async fn what_is_allowed_is_counted_by_action_and_recorded_where_that_is_wanted() {
    for recorded in [Recorded::Denials, Recorded::All] {
        let engine = test::Engine::with(app(), Settings { recorded, ..ruled() }).await.unwrap();
        let clerk = key(&engine).await;
        for _ in 0..3 {
            engine.engine().permit(clerk.clone(), Action::Start, pipeline("bill")).unwrap();
        }
        denied(&engine, &clerk, "bill");
        let (allowed, summary) = seen(&engine, What::Allowed).await;
        assert_eq!((summary.allowed, summary.denied), (vec![(Action::Start, 3)], vec![(Action::Control, 1)]));
        let counts: Vec<u64> = allowed.iter().map(|record| record.count).collect();
        assert_eq!(counts, if recorded == Recorded::All { vec![3] } else { Vec::new() });
        assert!(allowed.iter().all(|record| record.said.policies == ["starters"]));
    }
}

#[tokio::test]
async fn a_flood_of_different_denials_is_bounded_what_is_lost_is_counted_and_work_goes_on() {
    let engine = test::Engine::with(app(), ruled()).await.unwrap();
    let clerk = key(&engine).await;
    let flood = 5 * DECISIONS_A_MINUTE;
    for n in 0..flood {
        denied(&engine, &clerk, &format!("p{n}"));
    }
    assert_eq!(engine.local().call(COUNT.on("a"), 7).await.unwrap(), 7);
    let (records, summary) = seen(&engine, What::Denied).await;
    assert_eq!((records.len(), summary.unrecorded as usize), (DECISIONS_A_MINUTE, flood - DECISIONS_A_MINUTE));
    assert_eq!(summary.denied, [(Action::Control, flood as u64)], "each one is counted");
    kit::sound(&engine).await;
}

#[tokio::test]
async fn a_tenant_of_which_much_is_to_be_written_leaves_the_others_of_its_shard_a_share_of_each_write() {
    let mut engine = test::Engine::with(app(), ruled()).await.unwrap();
    let clerk = key(&engine).await;
    let shard = |tenant: &str| home(tenant).hash16().shard(selvedge_engine::engine::SHARDS);
    let other = (0..).map(|n| format!("t{n}")).find(|tenant| shard(tenant) == shard("default")).unwrap();
    let administer = |engine: &test::Engine| {
        let now = engine.engine().now();
        authorize(local(&other, now), Action::Administer, Resource::Tenant { tenant: other.clone() }, now).unwrap()
    };
    let made = engine.engine().create_key(administer(&engine), NewKey { name: String::new(), roles: vec!["clerk".to_owned()], lasts: None }).await.unwrap();
    let quiet = engine.engine().authenticate(&made.presented.text(), RequestFacts::default()).unwrap();
    for n in 0..DECISIONS_A_MINUTE {
        denied(&engine, &clerk, &format!("p{n}"));
    }
    engine.engine().permit(quiet, Action::Control, Resource::Pipeline { tenant: other.clone(), name: "p".to_owned() }).unwrap_err();
    // One write, and what is not in it is lost.
    engine.advance(Duration::from_secs(1)).await;
    engine.kill_and_reopen().await.unwrap();
    let all = Wanted { whats: vec![What::Denied], most: usize::MAX, ..Wanted::default() };
    assert_eq!(engine.engine().decisions(administer(&engine), all).await.unwrap().0.len(), 1);
    let busy = seen(&engine, What::Denied).await.0.len();
    assert!(busy > 0 && busy < DECISIONS_A_MINUTE, "{busy}");
}

#[tokio::test]
async fn the_oldest_records_of_a_tenant_make_room_and_what_is_past_its_retention_is_not_seen_any_more() {
    let keep = Keep { decisions: 2 * DAY, ..Keep::default() };
    let mut engine = test::Engine::with(app(), Settings { keep, ..ruled() }).await.unwrap();
    let clerk = key(&engine).await;
    let rounds = DECISIONS / DECISIONS_A_MINUTE + 2;
    for round in 0..rounds {
        for n in 0..DECISIONS_A_MINUTE {
            denied(&engine, &clerk, &format!("r{round}-{n}"));
        }
        if round == rounds / 2 {
            // Whoever opens the store next counts what is there.
            seen(&engine, What::Denied).await;
            engine.kill_and_reopen().await.unwrap();
        }
        // A second, and what is written at once, at a time.
        for _ in 0..DECISIONS_A_MINUTE / 200 {
            engine.advance(Duration::from_secs(1)).await;
        }
        engine.advance(MINUTE).await;
    }
    let (records, _) = seen(&engine, What::Denied).await;
    assert!(records.len() <= DECISIONS && records.len() > DECISIONS / 2, "{}", records.len());
    assert!(records[0].name.starts_with(&format!("r{}-", rounds - 1)), "the newest comes first: {:?}", records[0]);
    assert!(records.iter().all(|record| !record.name.starts_with("r0-")), "the oldest have gone");
    engine.advance(4 * DAY).await;
    engine.model().set_today(engine.engine().now().day());
    assert!(seen(&engine, What::Denied).await.0.is_empty());
}

#[test]
fn how_long_decisions_are_kept_and_which_of_them_is_configured() {
    let of = |text: &str| {
        let source = Source::File { name: "selvedge.yaml".to_owned(), text: text.to_owned() };
        selvedge::Config::of(&parse_config(&[source]).unwrap())
    };
    let (plain, said) = (of("data: d\n"), of("retention: { decisions: 3d }\nauthorization: { record_allowed: true, shadow: ./next }\n"));
    assert_eq!((plain.settings.keep.decisions, plain.settings.recorded, plain.shadow), (30 * DAY, Recorded::Denials, None));
    assert_eq!((said.settings.keep.decisions, said.settings.recorded), (3 * DAY, Recorded::All));
    assert!(said.shadow.is_some_and(|folder| folder.ends_with("next") && folder.is_absolute()));
}

#[test]
fn decisions_are_shown_on_a_data_directory_whether_or_not_somebody_holds_it() {
    let folder = Folder::new();
    folder.selvedge(&["keys", "create", "--role", "owner"]);
    let said = folder.selvedge(&["policy", "decisions"]);
    assert_eq!((said.code, said.out.trim()), (0, "no decision is recorded that fits"), "{said:?}");
    assert!(said.err.contains("it has allowed nothing, and denied nothing"), "{said:?}");
    let said = folder.selvedge(&["policy", "decisions", "--shadow", "--tenant", "acme"]);
    assert!(said.code == 0 && said.err.contains("authorization: { shadow:"), "{said:?}");
    folder.write("selvedge.yaml", "authorization: { shadow: ./nowhere }\n");
    let said = folder.selvedge(&["config", "check"]);
    assert!(said.code == 78 && said.err.contains("`authorization.shadow`: ./nowhere"), "{said:?}");
    std::fs::remove_file(folder.join("selvedge.yaml")).unwrap();
    for wrong in [["--id", "dec_1"], ["--action", "strat"], ["--limit", "0"]] {
        let said = folder.selvedge(&[&["policy", "decisions"], &wrong[..]].concat());
        assert_eq!(said.code, 64, "{said:?}");
    }
}
