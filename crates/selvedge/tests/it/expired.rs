//! Who asked may not be there any more when what was asked for goes on.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use selvedge::{Activity, App, Attempt, Ctx, Handler, Outcome, test};
use selvedge_engine::RunStart;
use selvedge_engine::wiring::Rules;
use selvedge_kernel::auth::{Action, AuthorizationContext, Permit, Principal, PrincipalKind, Resource, Verdict, authorize, local};
use selvedge_kernel::machine::RunState;
use selvedge_kernel::ports::Policies;
use selvedge_kernel::time::Millis;

use super::runs::{parse, sound, state};
use crate::kit;

const WORK: Activity<u64, u64> = Activity::new("work");
const REST: Handler<(), u64> = Handler::new("cat", "rest");
const LOOK: Handler<u64, u64> = Handler::new("dog", "look");
const DAY: Duration = Duration::from_secs(86_400);

const SLOW: &str = "
selvedge: 1
name: slow
stages:
  - { name: nap, mode: sleep, for: 30d }
  - { name: look, call: { actor: dog, key: \"'a'\", handler: look }, input: 2, depends_on: [nap] }
  - { name: work, call: work, input: 3, depends_on: [look] }
output: ${stages.work.output}
";

const OFTEN: &str = "
selvedge: 1
name: often
schedule: { every: 10m }
stages:
  - { name: work, call: work, input: 1 }
";

fn app() -> App {
    App::new()
        .activity(WORK, async |_: Attempt, n: u64| Ok(n))
        .handler(LOOK, async |_: Ctx, n: u64| Ok(n))
        .handler(REST, async |ctx: Ctx, ()| -> Outcome<u64> {
            ctx.sleep(30 * DAY).await?;
            let seen = ctx.call(LOOK.on("b"), 2).await?;
            Ok(seen + ctx.activity(WORK, 3).await?)
        })
        .pipeline(parse(SLOW))
        .pipeline(parse(OFTEN))
}

/// Somebody whose credential is good for so long.
fn somebody(engine: &test::Engine, span: Duration) -> AuthorizationContext {
    let now = engine.engine().now();
    let mut context = local("default", now);
    context.principal.id = "ada".to_owned();
    context.until = Some(now.after(span));
    context
}

fn pipeline(name: &str) -> Resource {
    Resource::Pipeline { tenant: "default".to_owned(), name: name.to_owned() }
}

fn permit(engine: &test::Engine, context: &AuthorizationContext, action: Action, resource: Resource) -> Option<Permit> {
    authorize(context.clone(), action, resource, engine.engine().now()).ok()
}

#[tokio::test]
async fn case_54_what_was_accepted_goes_on_when_the_credential_has_expired_and_nothing_new_is_accepted_with_it() {
    let mut engine = test::Engine::new(app()).await.unwrap();
    let ada = somebody(&engine, 10 * DAY);
    let rests = Resource::Handler { actor: kit::actor("cat", "a"), handler: "rest".to_owned() };
    let invoke = permit(&engine, &ada, Action::Invoke, rests.clone()).unwrap();
    let slow = parse(SLOW);
    let run = engine
        .engine()
        .start_run(permit(&engine, &ada, Action::Start, pipeline("slow")).unwrap(), slow, Bytes::from_static(b"{}"), RunStart::default())
        .await
        .unwrap();
    let id = engine.engine().invoke(invoke, Bytes::from_static(b"null"), Default::default()).await.unwrap().id.unwrap();
    engine.advance(20 * DAY).await;
    assert!(permit(&engine, &ada, Action::Invoke, rests).is_none(), "it has expired");
    assert!(permit(&engine, &ada, Action::Start, pipeline("slow")).is_none(), "it has expired");
    engine.kill_and_reopen().await.unwrap();
    engine.advance(11 * DAY).await;
    assert_eq!(engine.local().result::<u64>(id).await.unwrap(), 5);
    assert_eq!((state(&engine, run).await, engine.local().run(run).result::<u64>().await.unwrap()), (RunState::Completed, 3));
    sound(&engine).await;
}

#[tokio::test]
async fn case_54_a_schedule_of_somebody_who_may_no_more_starts_nothing_and_says_so() {
    let engine = test::Engine::with(app(), selvedge::Settings::default()).await.unwrap();
    let ada = somebody(&engine, Duration::from_secs(25 * 60));
    engine.engine().put_schedule(permit(&engine, &ada, Action::Define, pipeline("often")).unwrap()).await.unwrap();
    for _ in 0..3 {
        engine.advance(Duration::from_secs(600)).await;
    }
    let status = engine.local().schedule("often").status().await.unwrap();
    assert_eq!((status.counts.started, status.counts.failed), (2, 1));
    let said = status.sentence();
    assert!(said.contains("denied") && said.contains("ada may not start the pipeline often") && said.contains("the delegation has ended"), "{said}");
    assert_eq!(status.next, Some(Millis(1_767_225_600_000 + 4 * 600_000)), "whoever stores it again lets it go on");
    let again = permit(&engine, &local("default", engine.engine().now()), Action::Define, pipeline("often")).unwrap();
    engine.engine().put_schedule(again).await.unwrap();
    engine.advance(Duration::from_secs(600)).await;
    assert_eq!(engine.local().schedule("often").status().await.unwrap().counts.started, 3);
    sound(&engine).await;
}

/// Lets clerks invoke, and nobody do anything else.
struct Clerks;

impl Policies for Clerks {
    fn decide(&self, context: &AuthorizationContext, action: Action, _: &Resource, _: Millis) -> Verdict {
        let clerk = context.principal.roles.iter().any(|role| role == "clerk");
        if clerk && action == Action::Invoke { Verdict::allow("clerks invoke") } else { Verdict::deny("no policy allows it") }
    }

    fn version(&self) -> u64 {
        1
    }

    fn fault(&self) -> Option<String> {
        None
    }
}

#[tokio::test]
async fn a_client_does_what_the_policies_in_force_allow_it_and_nothing_else() {
    let settings = selvedge::Settings { policies: Rules::Given(Arc::new(Clerks)), ..selvedge::Settings::default() };
    let engine = test::Engine::with(app(), settings).await.unwrap();
    let mut clerk = local("default", engine.engine().now());
    clerk.principal = Principal { id: "bo".to_owned(), kind: PrincipalKind::Actor, tenant: "default".to_owned(), roles: vec!["clerk".to_owned()] };
    let mut guest = clerk.clone();
    guest.principal.roles.clear();
    let rests = Resource::Handler { actor: kit::actor("cat", "a"), handler: "rest".to_owned() };
    let ask = |context: &AuthorizationContext, action| engine.engine().permit(context.clone(), action, rests.clone()).map(|_| ());
    assert!(ask(&clerk, Action::Invoke).is_ok());
    for (context, action) in [(&clerk, Action::Read), (&guest, Action::Invoke), (&guest, Action::Read)] {
        assert_eq!(ask(context, action).unwrap_err().reason, "no policy allows it");
    }
    assert!(ask(&local("default", engine.engine().now()), Action::Read).is_ok(), "the owner of the process needs no policy");
}
