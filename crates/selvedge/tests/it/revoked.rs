//! A key is revoked while what was asked with it goes on: the next call is denied, and whoever asks why is told.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use selvedge::test::ByHand;
use selvedge::{Activity, App, Attempt, Ctx, Failure, Handler, Outcome, Retry, Settings, test};
use selvedge_engine::RunStart;
use selvedge_engine::engine::Ask;
use selvedge_engine::env::{Clock, Environment};
use selvedge_engine::keys::{MadeKey, NewKey};
use selvedge_engine::wiring::Rules;
use selvedge_kernel::auth::{Action, AuthorizationContext, OWNER, Permit, RequestFacts, Resource, Verdict, authorize, local};
use selvedge_kernel::id::{InvocationId, RunId};
use selvedge_kernel::machine::RunState;
use selvedge_kernel::pipeline::run::RunStatus;
use selvedge_kernel::ports::Policies;
use selvedge_kernel::time::Millis;

use super::runs::{parse, sound, state};
use crate::kit;

const WORK: Activity<u64, u64> = Activity::new("work");
const NAP: Handler<String, u64> = Handler::new("cat", "nap");
const LOOK: Handler<u64, u64> = Handler::new("dog", "look");
const DAY: Duration = Duration::from_secs(86_400);

pub const CALLS: &str = "
selvedge: 1
name: calls
stages:
  - { name: nap, mode: sleep, for: 30d }
  - { name: look, call: { actor: dog, key: \"'a'\", handler: look }, input: 2, depends_on: [nap] }
output: ${stages.look.output}
";

pub const WORKS: &str = "
selvedge: 1
name: works
stages:
  - { name: before, call: work, input: 1, compensate: { call: work, input: 7 } }
  - { name: nap, mode: sleep, for: 30d, depends_on: [before] }
  - { name: work, call: work, input: 3, depends_on: [nap] }
output: ${stages.work.output}
";

pub const PARENT: &str = "
selvedge: 1
name: parent
stages:
  - { name: nap, mode: sleep, for: 30d }
  - { name: child, call: { pipeline: often }, depends_on: [nap] }
output: ${stages.child.output}
";

const OFTEN: &str = "
selvedge: 1
name: often
schedule: { every: 10m }
stages:
  - { name: work, call: work, input: 9 }
";

/// What the activity was given.
pub type Done = Arc<Mutex<Vec<u64>>>;

fn app() -> App {
    app_with(&Done::default())
}

pub fn app_with(done: &Done) -> App {
    let done = done.clone();
    App::new()
        .activity(WORK, move |_: Attempt, n: u64| {
            done.lock().unwrap().push(n);
            async move { Ok(n) }
        })
        .handler(LOOK, async |_: Ctx, n: u64| Ok(n))
        .handler(NAP, async |ctx: Ctx, then: String| -> Outcome<u64> {
            let first = ctx.call(LOOK.on("b"), 1).await?;
            ctx.sleep(30 * DAY).await?;
            match then.as_str() {
                "call" => Ok(first + ctx.call(LOOK.on("b"), 2).await?),
                "work" => Ok(first + ctx.activity(WORK, 3).await?),
                "send" => {
                    ctx.send(LOOK.on("c"), 4);
                    Ok(first)
                }
                _ => Ok(first),
            }
        })
        .pipeline(parse(CALLS))
        .pipeline(parse(WORKS))
        .pipeline(parse(PARENT))
        .pipeline(parse(OFTEN))
}

struct Asker {
    key: MadeKey,
    context: AuthorizationContext,
}

async fn asker(engine: &test::Engine, lasts: Option<Duration>) -> Asker {
    let administer = kit::permit(engine, Action::Administer, Resource::Tenant { tenant: "default".to_owned() });
    let key = engine.engine().create_key(administer, NewKey { name: "ci".to_owned(), roles: vec![OWNER.to_owned()], lasts }).await.unwrap();
    let context = engine.engine().authenticate(&key.presented.text(), RequestFacts::default()).unwrap();
    Asker { key, context }
}

impl Asker {
    fn permit(&self, engine: &test::Engine, action: Action, resource: Resource) -> Permit {
        engine.engine().permit(self.context.clone(), action, resource).unwrap()
    }

    async fn start(&self, engine: &test::Engine, name: &str, text: &str) -> RunId {
        let permit = self.permit(engine, Action::Start, pipeline(name));
        engine.engine().start_run(permit, parse(text), Bytes::from_static(b"{}"), RunStart::default()).await.unwrap()
    }

    async fn nap(&self, engine: &test::Engine, then: &str, delay: Option<Duration>) -> InvocationId {
        let resource = Resource::Handler { actor: kit::actor("cat", then), handler: "nap".to_owned() };
        let input = Bytes::from(serde_json::to_vec(then).unwrap());
        let ask = Ask { delay, ..Ask::default() };
        engine.engine().invoke(self.permit(engine, Action::Invoke, resource), input, ask).await.unwrap().id.unwrap()
    }

    async fn revoke(&self, engine: &test::Engine) {
        let administer = kit::permit(engine, Action::Administer, Resource::Tenant { tenant: "default".to_owned() });
        engine.engine().revoke_key(administer, &self.key.key.id, "she has left").await.unwrap();
    }
}

pub fn pipeline(name: &str) -> Resource {
    Resource::Pipeline { tenant: "default".to_owned(), name: name.to_owned() }
}

fn says_why(text: &str) {
    assert!(text.contains("denied") && text.contains("revoked") && text.contains("she has left") && text.contains("(dec_"), "{text}");
}

pub async fn why_run(engine: &test::Engine, run: RunId) -> String {
    let permit = kit::permit(engine, Action::Read, Resource::Work { tenant: "default".to_owned(), id: run.to_string() });
    format!("{:?}", engine.engine().run_status(permit, run).await.unwrap())
}

#[tokio::test]
async fn case_54_a_key_ends_while_a_run_and_a_handler_sleep_and_they_go_on() {
    let mut engine = test::Engine::new(app()).await.unwrap();
    let ada = asker(&engine, Some(10 * DAY)).await;
    let run = ada.start(&engine, "calls", CALLS).await;
    let id = ada.nap(&engine, "call", None).await;
    engine.advance(20 * DAY).await;
    assert!(engine.engine().authenticate(&ada.key.presented.text(), RequestFacts::default()).is_err(), "it opens nothing any more");
    engine.kill_and_reopen().await.unwrap();
    engine.advance(11 * DAY).await;
    assert_eq!((state(&engine, run).await, engine.local().result::<u64>(id).await.unwrap()), (RunState::Completed, 3));
    sound(&engine).await;
}

#[tokio::test]
async fn case_54_the_next_call_of_a_run_whose_key_was_revoked_is_denied_and_why_says_so() {
    let done = Done::default();
    let mut engine = test::Engine::new(app_with(&done)).await.unwrap();
    let ada = asker(&engine, None).await;
    let mut runs = Vec::new();
    for (name, text) in [("calls", CALLS), ("works", WORKS), ("parent", PARENT)] {
        runs.push(ada.start(&engine, name, text).await);
    }
    engine.advance(DAY).await;
    ada.revoke(&engine).await;
    engine.kill_and_reopen().await.unwrap();
    engine.advance(30 * DAY).await;
    for run in runs {
        assert_eq!(state(&engine, run).await, RunState::Failed);
        says_why(&why_run(&engine, run).await);
    }
    // The owner's own schedule goes on.
    let done: Vec<u64> = done.lock().unwrap().iter().copied().filter(|n| *n != 9).collect();
    assert_eq!(done, [1, 7], "what was done before is undone, and nothing else is done");
    sound(&engine).await;
}

#[tokio::test]
async fn case_54_the_next_call_of_a_handler_whose_key_was_revoked_ends_with_denied_and_a_replay_asks_nobody() {
    let mut engine = test::Engine::new(app()).await.unwrap();
    let ada = asker(&engine, None).await;
    let ids = [ada.nap(&engine, "call", None).await, ada.nap(&engine, "work", None).await];
    let (quiet, sends) = (ada.nap(&engine, "quiet", None).await, ada.nap(&engine, "send", None).await);
    let late = ada.nap(&engine, "late", Some(2 * DAY)).await;
    engine.advance(DAY).await;
    ada.revoke(&engine).await;
    // Its handlers run again from the top, with the call that was answered before: it is in their journals.
    engine.kill_and_reopen().await.unwrap();
    engine.advance(31 * DAY).await;
    assert_eq!(engine.local().result::<u64>(quiet).await.unwrap(), 1, "what calls nobody any more ends as it would have");
    for id in ids {
        says_why(&engine.local().result::<u64>(id).await.unwrap_err().to_string());
    }
    assert_eq!(engine.local().result::<u64>(sends).await.unwrap(), 1);
    let letters = kit::dead_letters(&engine).await;
    let to = |actor: &str| letters.iter().find(|letter| letter.message.target.to_string() == actor && letter.error.code == "denied").unwrap();
    says_why(&to("dog/c").error.to_string());
    assert_eq!(to("cat/late").message.id, late, "a delayed message is asked for again when it is due");
    sound(&engine).await;
}

#[tokio::test]
async fn case_54_a_schedule_of_a_key_fires_and_stops_when_it_is_revoked() {
    let engine = test::Engine::with(app(), selvedge::Settings::default()).await.unwrap();
    let ada = asker(&engine, None).await;
    engine.engine().put_schedule(ada.permit(&engine, Action::Define, pipeline("often"))).await.unwrap();
    engine.advance(Duration::from_secs(600)).await;
    assert_eq!(engine.local().schedule("often").status().await.unwrap().counts.started, 1);
    ada.revoke(&engine).await;
    engine.advance(Duration::from_secs(600)).await;
    let status = engine.local().schedule("often").status().await.unwrap();
    assert_eq!((status.counts.started, status.counts.failed), (1, 1));
    says_why(&status.sentence());
    sound(&engine).await;
}

const TELLS: &str = "
selvedge: 1
name: tells
stages:
  - { name: before, call: work, input: 1, compensate: { call: { actor: dog, key: \"'a'\", handler: look }, input: 7 } }
  - { name: nap, mode: sleep, for: 30d, depends_on: [before] }
  - { name: work, call: work, input: 3, depends_on: [nap] }
";

/// Everybody may do everything, but call dogs where that is forbidden.
struct Dogs {
    forbidden: bool,
}

impl Policies for Dogs {
    fn decide(&self, _: &AuthorizationContext, action: Action, resource: &Resource, _: Millis) -> Verdict {
        match (action, resource) {
            (Action::Invoke, Resource::Handler { actor, .. }) if self.forbidden && actor.kind == "dog" => Verdict::deny("no dogs"),
            _ => Verdict::allow("everybody may"),
        }
    }

    fn version(&self) -> u64 {
        1
    }

    fn fault(&self) -> Option<String> {
        None
    }
}

#[tokio::test]
async fn what_a_revoked_key_did_is_undone_as_far_as_policies_let_it_and_no_further() {
    for forbidden in [false, true] {
        let settings = Settings { policies: Rules::Given(Arc::new(Dogs { forbidden })), ..Settings::default() };
        let mut engine = test::Engine::with(app(), settings).await.unwrap();
        let ada = asker(&engine, None).await;
        let run = ada.start(&engine, "tells", TELLS).await;
        engine.advance(DAY).await;
        ada.revoke(&engine).await;
        engine.kill_and_reopen().await.unwrap();
        engine.advance(30 * DAY).await;
        assert_eq!(state(&engine, run).await, RunState::Failed);
        let why = why_run(&engine, run).await;
        says_why(&why);
        assert_eq!(why.contains("no dogs"), forbidden, "{why}");
        let dogs = kit::permit(&engine, Action::Read, Resource::Store);
        let handled = engine.engine().list_invocations(dogs, selvedge_engine::listing::Listed::All).await.unwrap();
        assert_eq!(handled.iter().any(|line| line.actor.starts_with("dog/")), !forbidden, "{handled:?}");
        sound(&engine).await;
    }
}

const UNDONE_BY: &str = "
selvedge: 1
name: undone_by
input: { calls: { type: integer } }
stages:
  - { name: before, call: work, input: 1, compensate: { call: { actor: dog, key: \"'d'\", handler: pass_on }, input: \"${input.calls}\" } }
  - { name: nap, mode: sleep, for: 30d, depends_on: [before] }
  - { name: work, call: work, input: 3, depends_on: [nap] }
";

#[tokio::test]
async fn whom_an_undo_calls_may_call_on_and_nobody_behind_them() {
    const PASS_ON: Handler<u64, u64> = Handler::new("dog", "pass_on");
    let app = app().handler(PASS_ON, async |ctx: Ctx, calls: u64| match calls {
        0 => Ok(0),
        calls => ctx.call(PASS_ON.on("d".repeat(5 - calls as usize)), calls - 1).await,
    });
    for (calls, reached) in [(1, 2), (2, 2), (3, 2)] {
        let settings = Settings { policies: Rules::Given(Arc::new(Dogs { forbidden: false })), ..Settings::default() };
        let engine = test::Engine::with(app.clone(), settings).await.unwrap();
        let ada = asker(&engine, None).await;
        let (permit, input) = (ada.permit(&engine, Action::Start, pipeline("undone_by")), Bytes::from(format!("{{\"calls\":{calls}}}")));
        let run = engine.engine().start_run(permit, parse(UNDONE_BY), input, RunStart::default()).await.unwrap();
        engine.advance(DAY).await;
        ada.revoke(&engine).await;
        engine.advance(30 * DAY).await;
        assert_eq!(state(&engine, run).await, RunState::Failed);
        let all = engine.engine().list_invocations(kit::permit(&engine, Action::Read, Resource::Store), selvedge_engine::listing::Listed::All).await.unwrap();
        assert_eq!(all.iter().filter(|line| line.actor.starts_with("dog/")).count(), reached, "{calls}: {all:?}");
        sound(&engine).await;
    }
}

#[tokio::test]
async fn an_attempt_that_failed_is_not_made_again_for_a_key_that_was_revoked_meanwhile() {
    let tried = Arc::new(AtomicU64::new(0));
    let counted = tried.clone();
    let app = App::new()
        .activity(WORK, move |_: Attempt, _: u64| {
            counted.fetch_add(1, Ordering::SeqCst);
            async move { Err(Failure::retryable("busy", "try later")) }
        })
        .handler(NAP, async |ctx: Ctx, _: String| ctx.activity(WORK, 3).retry(Retry::fixed(3, DAY)).await);
    let engine = test::Engine::with(app, Settings::default()).await.unwrap();
    let ada = asker(&engine, None).await;
    let id = ada.nap(&engine, "a", None).await;
    engine.advance(DAY / 2).await;
    ada.revoke(&engine).await;
    engine.advance(3 * DAY).await;
    says_why(&engine.local().result::<u64>(id).await.unwrap_err().to_string());
    assert_eq!(tried.load(Ordering::SeqCst), 1);
    sound(&engine).await;
}

#[tokio::test]
async fn keys_of_every_shard_are_known_before_anything_goes_on_after_a_restart() {
    let settings = Settings { policies: Rules::Given(Arc::new(Dogs { forbidden: false })), ..Settings::default() };
    let engine = test::Engine::with(app(), settings).await.unwrap();
    let mut runs = Vec::new();
    for number in 0..60 {
        let tenant = format!("t{number}");
        let administer =
            authorize(local(&tenant, engine.engine().now()), Action::Administer, Resource::Tenant { tenant: tenant.clone() }, engine.engine().now());
        let new = NewKey { name: "ci".to_owned(), roles: vec!["clerk".to_owned()], lasts: None };
        let key = engine.engine().create_key(administer.unwrap(), new).await.unwrap();
        let context = engine.engine().authenticate(&key.presented.text(), RequestFacts::default()).unwrap();
        let start = Resource::Pipeline { tenant: tenant.clone(), name: "works".to_owned() };
        let permit = engine.engine().permit(context, Action::Start, start).unwrap();
        let run = engine.engine().start_run(permit, parse(WORKS), Bytes::from_static(b"{}"), RunStart::default()).await.unwrap();
        runs.push((tenant, run));
    }
    engine.settle().await;
    for (tenant, status) in recovered(&engine, &app(), runs).await {
        assert_eq!(status.state, RunState::Completed, "{tenant}: {:?}", status.error);
    }
}

/// How runs of these tenants end in an engine that opens the store a month later: all of them are due when it opens, and one
/// worker is there long before the other.
pub async fn recovered(engine: &test::Engine, app: &App, runs: Vec<(String, RunId)>) -> Vec<(String, RunStatus)> {
    let (wall, draws) = (Arc::new(AtomicU64::new(engine.engine().now().after(31 * DAY).0)), AtomicU64::new(1 << 40));
    let env = Environment {
        clock: Clock::Hands { wall: wall.clone(), monotonic: Arc::new(AtomicU64::new(0)) },
        random: Arc::new(move |buffer| {
            let draw = draws.fetch_add(1, Ordering::SeqCst).to_be_bytes();
            buffer.chunks_mut(8).for_each(|bytes| bytes.copy_from_slice(&draw[..bytes.len()]));
        }),
        observer: None,
    };
    let settings = Settings { workers: 2, policies: Rules::Given(Arc::new(Dogs { forbidden: false })), ..Settings::default() };
    let ByHand { engine: opened, workers } = ByHand::open(app, Arc::new(engine.model().clone()), env, settings, tokio::runtime::Handle::current());
    let mut workers = workers.into_iter();
    let (first, second) = (workers.next().unwrap(), workers.next().unwrap());
    let here = tokio::task::LocalSet::new();
    here.spawn_local(first);
    here.run_until(tokio::time::sleep(Duration::from_millis(300))).await;
    here.spawn_local(second);
    here.run_until(async {
        let mut ended = Vec::new();
        for (tenant, run) in runs {
            let now = opened.now();
            let status = loop {
                let read = authorize(local(&tenant, now), Action::Read, Resource::Work { tenant: tenant.clone(), id: run.to_string() }, now).unwrap();
                let status = opened.run_status(read, run).await.unwrap();
                if status.state.ended() {
                    break status;
                }
                wall.fetch_add(1_000, Ordering::SeqCst);
                opened.tick();
                tokio::time::sleep(Duration::from_millis(2)).await;
            };
            ended.push((tenant, status));
        }
        ended
    })
    .await
}
