//! Stored pipelines, as schedules, runs, handlers and people name them.

use std::time::Duration;

use bytes::Bytes;
use selvedge::{App, Ctx, Definition, Handler, Outcome, RunId, test};
use selvedge_kernel::auth::{Action, Resource};
use selvedge_kernel::id::ShardId;
use selvedge_kernel::machine::RunState;
use selvedge_kernel::pipeline::parse::version;
use selvedge_kernel::record::definition::StoredVersion;
use selvedge_kernel::record::kind::Kind;
use selvedge_kernel::waiting::Waiting;
use selvedge_kernel::wire;
use serde_json::{Value, json};

use super::kit;
use super::rig::Folder;
use super::runs::{end, parse, sound, start, state, until};

const TEN_MINUTES: Duration = Duration::from_secs(600);
const LAUNCH: Handler<Value, RunId> = Handler::new("launcher", "go");

const PARENT: &str = r#"
selvedge: 1
name: parent
stages:
  - { name: below, call: { pipeline: child } }
output: "${stages.below.output}"
"#;

/// A pipeline of this name that waits for `go` and gives a word.
fn says(name: &str, word: &str) -> Definition {
    parse(&format!(
        "
selvedge: 1
name: {name}
stages:
  - {{ name: hold, mode: wait_signal, signal: go }}
output: {word}
"
    ))
}

/// A pipeline with a schedule, or without one.
fn scheduled(schedule: &str) -> Definition {
    parse(&format!(
        "
selvedge: 1
name: nightly
{schedule}
stages:
  - {{ name: rest, mode: sleep, for: 1ms }}
"
    ))
}

async fn put(engine: &test::Engine, definition: &Definition) {
    let resource = Resource::Pipeline { tenant: "default".to_owned(), name: definition.name.clone() };
    engine.engine().put_definition(kit::permit(engine, Action::Define, resource), definition.clone()).await.unwrap();
}

/// The newest run of a pipeline.
async fn newest(engine: &test::Engine, pipeline: &str) -> RunId {
    for _ in 0..5_000 {
        if let Some(run) = engine.local().runs().await.unwrap().into_iter().find(|run| run.pipeline == pipeline && !run.state.ended()) {
            return run.id;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("no run of {pipeline}");
}

async fn go(engine: &test::Engine, id: RunId) {
    engine.local().run(id).signal(selvedge::Signal::<()>::new("go"), ()).await.unwrap();
}

async fn runs_of(engine: &test::Engine, pipeline: &str) -> usize {
    engine.local().runs().await.unwrap().iter().filter(|run| run.pipeline == pipeline).count()
}

#[tokio::test]
async fn schedule_of_a_stored_pipeline_fires_through_a_restart_and_goes_with_a_version_that_has_none() {
    let mut engine = test::Engine::new(App::new()).await.unwrap();
    put(&engine, &scheduled("schedule: { every: 10m }")).await;
    engine.advance(TEN_MINUTES).await;
    assert_eq!(runs_of(&engine, "nightly").await, 1);
    engine.kill_and_reopen().await.unwrap();
    engine.advance(TEN_MINUTES).await;
    assert_eq!(runs_of(&engine, "nightly").await, 2);
    // Stored again it goes on; another time counts from now.
    put(&engine, &scheduled("schedule: { every: 10m }")).await;
    assert_eq!(engine.local().schedule("nightly").status().await.unwrap().counts.started, 2);
    put(&engine, &scheduled("schedule: { every: 1h }")).await;
    engine.advance(TEN_MINUTES).await;
    assert_eq!(runs_of(&engine, "nightly").await, 2);
    put(&engine, &scheduled("")).await;
    engine.advance(10 * TEN_MINUTES).await;
    assert_eq!(runs_of(&engine, "nightly").await, 2);
    assert_eq!(kit::rows(&engine, Kind::Schedule), 0);
    sound(&engine).await;
}

#[tokio::test]
async fn stored_version_and_its_schedule_go_before_those_of_the_application() {
    let mut engine = test::Engine::new(App::new().pipeline(scheduled("schedule: { every: 10m }"))).await.unwrap();
    engine.advance(TEN_MINUTES).await;
    assert_eq!(runs_of(&engine, "nightly").await, 1);
    let stored = scheduled("description: seldom\nschedule: { every: 1h }");
    put(&engine, &stored).await;
    engine.kill_and_reopen().await.unwrap();
    engine.advance(TEN_MINUTES).await;
    assert_eq!(runs_of(&engine, "nightly").await, 1);
    engine.advance(5 * TEN_MINUTES).await;
    assert_eq!(runs_of(&engine, "nightly").await, 2);
    let by_name = start(&engine, "nightly", json!({})).await;
    assert_eq!(by_name.status().await.unwrap().version, version(&stored));
    // Without a schedule in the stored version there is none, although the application's file has one.
    put(&engine, &scheduled("")).await;
    engine.kill_and_reopen().await.unwrap();
    assert_eq!(engine.local().schedules().await.unwrap(), []);
}

#[tokio::test]
async fn parent_calls_a_stored_pipeline_by_its_name_and_its_new_version_is_taken_by_the_next_run_only() {
    let mut engine = test::Engine::new(App::new().pipeline(parse(PARENT))).await.unwrap();
    let (one, two) = (says("child", "one"), says("child", "two"));
    put(&engine, &one).await;
    let first = start(&engine, "parent", json!({})).await.id();
    let child = newest(&engine, "child").await;
    put(&engine, &two).await;
    engine.kill_and_reopen().await.unwrap();
    assert_eq!(engine.local().run(child).status().await.unwrap().version, version(&one));
    go(&engine, child).await;
    assert_eq!(end(&engine, first).await.unwrap(), json!("one"));
    let second = start(&engine, "parent", json!({})).await.id();
    let child = newest(&engine, "child").await;
    assert_eq!(engine.local().run(child).status().await.unwrap().version, version(&two));
    go(&engine, child).await;
    assert_eq!(end(&engine, second).await.unwrap(), json!("two"));
    sound(&engine).await;
}

#[tokio::test]
async fn stored_pipeline_calls_another_stored_one_and_a_handler_starts_it_by_its_name() {
    async fn launch(ctx: Ctx, input: Value) -> Outcome<RunId> {
        ctx.start("parent", input).await
    }
    let engine = test::Engine::new(App::new().handler(LAUNCH, launch).pipeline(says("child", "of the application"))).await.unwrap();
    put(&engine, &parse(PARENT)).await;
    put(&engine, &says("child", "stored")).await;
    let id = engine.local().call(LAUNCH.on("a"), json!({})).await.unwrap();
    let child = newest(&engine, "child").await;
    go(&engine, child).await;
    assert_eq!(end(&engine, id).await.unwrap(), json!("stored"));
    sound(&engine).await;
}

#[tokio::test]
async fn run_that_calls_what_is_stored_nowhere_is_blocked_and_goes_on_when_it_is_stored_and_opened_again() {
    let mut engine = test::Engine::new(App::new().pipeline(parse(PARENT))).await.unwrap();
    let id = start(&engine, "parent", json!({})).await.id();
    until(&engine, id, "blocked", |status| status.state == RunState::Blocked).await;
    let status = engine.local().run(id).status().await.unwrap();
    let Waiting::Blocked { reason } = &status.waiting[0] else { panic!("{status:?}") };
    assert!(reason.starts_with("there is no pipeline `child` here: store it with `selvedge pipelines put FILE`, or name its file"), "{reason}");
    put(&engine, &says("child", "late")).await;
    engine.kill_and_reopen().await.unwrap();
    go(&engine, newest(&engine, "child").await).await;
    assert_eq!(end(&engine, id).await.unwrap(), json!("late"));
    // A name that is neither stored nor given is refused with those that are.
    let unknown = engine.local().start("chid", json!({})).await.map(|run| run.id()).unwrap_err().to_string();
    assert_eq!(unknown, "there is no pipeline `chid` here; there are: child, parent");
    assert_eq!(state(&engine, id).await, RunState::Completed);
}

#[tokio::test]
async fn stored_version_that_this_build_cannot_read_blocks_and_fails_what_needs_it_and_nothing_else() {
    let mut engine = test::Engine::new(App::new().pipeline(parse(PARENT)).pipeline(scheduled("schedule: { every: 10m }"))).await.unwrap();
    put(&engine, &scheduled("schedule: { every: 10m }")).await;
    put(&engine, &says("child", "one")).await;
    engine.settle().await;
    for shard in (0..64).map(ShardId) {
        for (key, value) in engine.model().rows(shard).into_iter().filter(|(key, _)| Kind::of(key) == Some(Kind::Definition)) {
            let stored: StoredVersion = wire::decode("stored pipeline", &value).unwrap();
            let newer = StoredVersion { definition: Bytes::from_static(b"{\"format\": 9}"), ..stored };
            engine.model().overwrite(shard, key, wire::encode(&newer));
        }
    }
    engine.kill_and_reopen().await.unwrap();
    engine.advance(TEN_MINUTES).await;
    let status = engine.local().schedule("nightly").status().await.unwrap();
    assert_eq!(status.counts.failed, 1);
    assert!(
        status.sentence().contains("of `nightly` cannot be read here") && status.sentence().contains("store it again from its file"),
        "{}",
        status.sentence()
    );
    let id = start(&engine, "parent", json!({})).await.id();
    until(&engine, id, "blocked", |status| status.state == RunState::Blocked).await;
    let blocked = format!("{:?}", engine.local().run(id).status().await.unwrap().waiting);
    assert!(blocked.contains("of `child` cannot be read here"), "{blocked}");
}

#[test]
fn file_that_calls_a_stored_pipeline_is_right_and_one_that_calls_none_is_refused() {
    let folder = Folder::new();
    folder.write("child.yaml", "selvedge: 1\nname: child\nstages: [{ name: a, mode: sleep, for: 1ms }]\noutput: warp\n");
    folder.write("parent.yaml", PARENT);
    let early = folder.selvedge(&["pipelines", "check", "parent.yaml"]);
    assert!(early.code == 78 && early.err.contains("there is no pipeline `child`"), "{early:?}");
    assert_eq!(folder.selvedge(&["run", "child.yaml"]).code, 0);
    let early = folder.selvedge(&["pipelines", "put", "parent.yaml"]);
    assert!(early.code == 78 && early.err.contains("there is no pipeline `child`"), "{early:?}");
    assert_eq!(folder.json(&["pipelines", "put", "child.yaml"])["status"], "new");
    let checked = folder.selvedge(&["pipelines", "check", "parent.yaml"]);
    assert_eq!(checked.code, 0, "{}", checked.err);
    assert_eq!(folder.json(&["run", "parent.yaml"])["output"], "warp");
    assert_eq!(folder.json(&["pipelines", "put", "parent.yaml"])["status"], "new");
    let followed = folder.selvedge(&["pipelines", "start", "parent", "--follow"]);
    assert_eq!(followed.code, 0, "{}", followed.err);
    folder.write("parent.yaml", &PARENT.replace("pipeline: child", "pipeline: chill"));
    let near = folder.selvedge(&["pipelines", "put", "parent.yaml"]);
    assert!(near.code == 78 && near.err.contains("did you mean `child`?"), "{near:?}");
}

#[test]
fn put_says_when_the_schedule_that_it_stores_fires_next() {
    let folder = Folder::new();
    folder.write("p.yaml", "selvedge: 1\nname: p\nschedule: { every: 1h }\nstages: [{ name: a, mode: sleep, for: 1ms }]\n");
    assert_eq!(folder.selvedge(&["run", "p.yaml"]).code, 0);
    assert_eq!(folder.json(&["schedules", "list"]), json!([]));
    let said = folder.selvedge(&["pipelines", "put", "p.yaml"]);
    assert!(said.code == 0 && said.out.contains("\nits schedule is stored with it, and fires next at "), "{said:?}");
    assert_eq!(folder.json(&["schedules", "list"])[0]["pipeline"], "p");
    assert!(folder.json(&["schedules", "list"])[0]["next"].is_string());
}
