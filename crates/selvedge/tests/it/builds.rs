//! Which build recorded an invocation, and which one looks at it now.

use std::time::Duration;

use selvedge::{App, Build, Builds, Ctx, Handler, InvocationId, Outcome, Settings, Signal, test};
use selvedge_kernel::auth::Action;

use crate::by_hand::{fork, forked};
use crate::kit::{self, permit, work};

const GO: Handler<(), ()> = Handler::new("subject", "go");
const ON: Signal<()> = Signal::new("on");
const HOUR: Duration = Duration::from_secs(3_600);
const FIRST: Build = Build([0xa1; 8]);
const SECOND: Build = Build([0xb2; 8]);
const THIRD: Build = Build([0xc3; 8]);

/// A step of that name, then a wait for a signal.
fn program(step: &'static str) -> App {
    App::new().handler(GO, async move |ctx: Ctx, (): ()| -> Outcome<()> {
        ctx.step(step, async |_| Ok(())).await?;
        ctx.signal(ON).await
    })
}

fn of(build: Build) -> Settings {
    Settings { build: Some(build), replay_always: true, ..Settings::default() }
}

/// Goes on with another program, and gives the invocation what it waits for.
async fn wakes_under(engine: &mut test::Engine, app: App) {
    engine.deploy(app).await.unwrap();
    engine.local().send_signal(GO.on("x"), ON, ()).await.unwrap();
    engine.settle().await;
}

async fn builds(engine: &test::Engine, id: InvocationId) -> Builds {
    engine.engine().why(permit(engine, Action::Read, work(id)), id).await.unwrap().builds
}

#[tokio::test]
async fn blocked_invocation_names_the_build_that_recorded_it_and_the_one_that_is_here() {
    let mut engine = test::Engine::with(program("charge"), of(FIRST)).await.unwrap();
    let id = engine.local().send(GO.on("x"), ()).await.unwrap();
    engine.settle().await;
    assert!(!kit::sentence(&engine, id).await.contains("build"), "one that goes on says nothing of it");
    engine.kill_and_reopen_with(of(SECOND)).await.unwrap();
    engine.settle().await;
    assert_eq!(builds(&engine, id).await, Builds { recorded: Some(FIRST), here: Some(SECOND) });
    wakes_under(&mut engine, program("pay")).await;
    let why = kit::sentence(&engine, id).await;
    assert!(why.contains("attempted #0 step `pay`"), "{why}");
    assert!(why.contains("It was recorded by build a1a1a1a1a1a1a1a1; this is build b2b2b2b2b2b2b2b2."), "{why}");
    // What takes its journal over says whose that is.
    engine.deploy(program("charge")).await.unwrap();
    engine.kill_and_reopen_with(of(THIRD)).await.unwrap();
    kit::retry(&engine, id).await;
    engine.settle().await;
    assert_eq!(builds(&engine, id).await, Builds { recorded: Some(FIRST), here: Some(THIRD) }, "it goes on behind what the first one recorded");
    let fork = forked(engine.engine().clone(), fork(id)).await.unwrap().id;
    engine.settle().await;
    assert_eq!(builds(&engine, fork).await, Builds { recorded: Some(FIRST), here: Some(THIRD) });
    kit::sound(&engine).await;
}

#[tokio::test]
async fn code_that_does_not_fit_a_journal_of_its_own_build_is_told_so() {
    let mut engine = test::Engine::with(program("charge"), of(FIRST)).await.unwrap();
    let id = engine.local().send(GO.on("x"), ()).await.unwrap();
    engine.settle().await;
    wakes_under(&mut engine, program("pay")).await;
    let why = kit::sentence(&engine, id).await;
    assert!(why.contains("It was recorded by this very build, a1a1a1a1a1a1a1a1."), "{why}");
}

#[tokio::test]
async fn journal_of_before_builds_were_recorded_says_so_and_what_has_no_build_says_nothing() {
    let mut engine = test::Engine::new(program("charge")).await.unwrap();
    let id = engine.local().send(GO.on("x"), ()).await.unwrap();
    engine.settle().await;
    wakes_under(&mut engine, program("pay")).await;
    assert!(!kit::sentence(&engine, id).await.contains("build"));
    engine.kill_and_reopen_with(of(SECOND)).await.unwrap();
    engine.settle().await;
    let why = kit::sentence(&engine, id).await;
    assert!(why.contains("Which build recorded it is not written; this is build b2b2b2b2b2b2b2b2."), "{why}");
}

#[tokio::test]
async fn message_that_waited_through_a_deploy_is_recorded_by_the_build_that_starts_it() {
    let mut engine = test::Engine::with(program("charge"), of(FIRST)).await.unwrap();
    let head = engine.local().send(GO.on("x"), ()).await.unwrap();
    let behind = engine.local().send(GO.on("x"), ()).await.unwrap();
    engine.settle().await;
    engine.kill_and_reopen_with(of(SECOND)).await.unwrap();
    engine.settle().await;
    assert_eq!(builds(&engine, behind).await.recorded, Some(FIRST), "it has not started");
    engine.local().send_signal(GO.on("x"), ON, ()).await.unwrap();
    engine.settle().await;
    assert_eq!(builds(&engine, head).await.recorded, Some(FIRST), "it was this one that began it");
    assert_eq!(builds(&engine, behind).await.recorded, Some(SECOND));
    engine.kill_and_reopen_with(of(THIRD)).await.unwrap();
    engine.advance(HOUR).await;
    assert_eq!(builds(&engine, behind).await, Builds { recorded: Some(SECOND), here: Some(THIRD) });
    kit::sound(&engine).await;
}

#[tokio::test]
async fn script_is_recorded_by_its_content() {
    let folder = tempfile::tempdir().unwrap();
    let script = |text: &str| {
        let reply = "import json, sys\njson.load(sys.stdin)\nprint(json.dumps({'result': None}))\n";
        std::fs::write(folder.path().join("count.py"), format!("{reply}# {text}\n")).unwrap();
        let manifest = "actors: { subject: { handlers: { go: { exec: [python3, count.py], persistent: false } } } }";
        std::fs::write(folder.path().join("app.yaml"), manifest).unwrap();
        App::new().manifest(folder.path().join("app.yaml")).unwrap()
    };
    let mut engine = test::Engine::with(script("one"), of(FIRST)).await.unwrap();
    let id = engine.local().send(GO.on("x"), ()).await.unwrap();
    engine.local().result::<()>(id).await.unwrap();
    let before = builds(&engine, id).await;
    assert!(before.recorded.is_some() && before.recorded == before.here && before.here != Some(FIRST), "{before:?}");
    engine.deploy(script("two")).await.unwrap();
    let after = builds(&engine, id).await;
    assert_eq!(after.recorded, before.recorded);
    assert_ne!(after.here, before.here);
}
