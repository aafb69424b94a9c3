//! Forks of runs: what ended well is taken over, with its approvals, its losers and its large results, and done by nobody again.

use bytes::Bytes;
use selvedge::{Activity, App, Attempt, Failure, RunId, Settings, test};
use selvedge_engine::{ForkedRun, RunFork, VerbError};
use selvedge_kernel::auth::{Action, Permit, Resource, authorize, local};
use selvedge_kernel::machine::{RunState, StageState};
use serde_json::{Value, json};

use crate::kit::{self, Notes};
use crate::rig::Folder;
use crate::runs::{self, parse};
use crate::ways::unless_cut;

const PART: Activity<Value, Value> = Activity::new("part");
const LAST: Activity<Value, Value> = Activity::new("last");

const PARTS: &str = r#"
selvedge: 1
name: parts
input: { numbers: { type: array }, sign: { type: string } }
stages:
  - { name: each, mode: scatter, over: input.numbers, call: part }
  - { name: ask, mode: approval, assignees: ["user:ada"], expires: 1d, fallback: reject }
  - { name: quick, call: part, input: 10, depends_on: [] }
  - { name: never, mode: wait_signal, signal: go, depends_on: [] }
  - { name: first, mode: gather, stages: [quick, never], wait: any }
  - { name: gathered, mode: gather, stages: [each], depends_on: [each] }
  - name: last
    depends_on: [ask, first, gathered]
    call: last
    input: { sign: "${input.sign}", by: "${stages.ask.output.by}", parts: "${stages.gathered.output}", quick: "${stages.first.output}" }
output: "${stages.last.output}"
"#;

fn app(notes: &Notes) -> App {
    let (parts, lasts) = (notes.clone(), notes.clone());
    App::new()
        .pipeline(parse(PARTS))
        .activity(PART, async move |_: Attempt, n: Value| {
            parts.add(format!("part {n}"));
            let pad = if n == 2 { 100_000 } else { 1 };
            Ok(json!({ "n": n, "pad": "x".repeat(pad) }))
        })
        .activity(LAST, async move |_: Attempt, input: Value| {
            lasts.add(format!("last {}", input["sign"].as_str().unwrap_or("")));
            if input["sign"] == "bad" {
                return Err(Failure::terminal("bad_sign", "as asked"));
            }
            let of = |part: &Value| part["pad"].as_str().map_or(0, str::len);
            let bytes: usize = input["parts"].as_array().into_iter().flatten().map(of).sum();
            Ok(json!({ "sign": input["sign"], "by": input["by"], "bytes": bytes, "quick": input["quick"][0]["n"] }))
        })
}

fn permit(engine: &test::Engine, action: Action, id: RunId) -> Permit {
    let now = engine.engine().now();
    let resource = Resource::Work { tenant: "default".to_owned(), id: id.to_string() };
    authorize(local("default", now), action, resource, now).unwrap()
}

fn asked(key: &str, from: Option<&str>, input: Option<&Value>) -> RunFork {
    let input = input.map(|input| Bytes::from(input.to_string()));
    RunFork { from: from.map(str::to_owned), input, reason: "the sign was wrong".to_owned(), key: key.to_owned() }
}

async fn fork(engine: &test::Engine, id: RunId, fork: RunFork) -> Result<ForkedRun, VerbError> {
    engine.engine().fork_run(permit(engine, Action::Rewrite, id), id, fork).await
}

fn good() -> Value {
    json!({ "numbers": [7], "sign": "good" })
}

fn expected(parts: u64) -> Value {
    json!({ "sign": "good", "by": "user:ada", "bytes": 99_999 + parts, "quick": 10 })
}

/// One that has done all but its last stage.
async fn failed(engine: &test::Engine, parts: u64) -> RunId {
    let numbers: Vec<u64> = (1..=parts).collect();
    let run = runs::start(engine, "parts", json!({ "numbers": numbers, "sign": "bad" })).await;
    engine.settle().await;
    run.decide("ask", true, "user:ada", None).await.unwrap();
    let ended = runs::end(engine, run.id()).await.unwrap_err().to_string();
    assert!(ended.contains("bad_sign"), "{ended}");
    run.id()
}

#[tokio::test]
async fn a_fork_takes_over_what_ended_well_and_does_the_rest_with_its_own_input() {
    let notes = Notes::default();
    let mut engine = test::Engine::new(app(&notes)).await.unwrap();
    let old = failed(&engine, 3).await;
    let before = notes.take();
    assert_eq!(before.len(), 5, "{before:?}");
    let new = fork(&engine, old, asked("k", None, Some(&good()))).await.unwrap();
    assert_eq!(new.taken.as_deref().unwrap(), ["each", "ask", "quick", "never", "first", "gathered"]);
    engine.kill_and_reopen().await.unwrap();
    assert_eq!(runs::end(&engine, new.id).await.unwrap(), expected(3));
    let did = notes.take();
    assert!(did.iter().all(|done| done == "last good") && did.len() <= 2, "{did:?}");
    assert_eq!(runs::state(&engine, old).await, RunState::Failed);
    let again = fork(&engine, old, asked("k", None, Some(&good()))).await.unwrap();
    assert_eq!((again.id, again.taken), (new.id, None), "the same key, the same fork");
    let status = engine.local().run(new.id).status().await.unwrap();
    assert!(status.stages.iter().all(|stage| matches!(stage.state, StageState::Completed | StageState::Cancelled)), "{status:?}");
    let events = engine.engine().run_events(permit(&engine, Action::Read, new.id), new.id, 0, false).await.unwrap();
    let told = format!("{events:?}");
    assert!(told.contains(&format!("forked from {old} by ")) && told.contains("the sign was wrong") && told.contains("taken over"), "{told}");
    kit::sound(&engine).await;
}

#[tokio::test]
async fn a_fork_from_a_stage_does_it_and_what_depends_on_it_anew_and_nothing_else() {
    let notes = Notes::default();
    let engine = test::Engine::new(app(&notes)).await.unwrap();
    let old = failed(&engine, 3).await;
    let good = fork(&engine, old, asked("k", None, Some(&good()))).await.unwrap();
    assert_eq!(runs::end(&engine, good.id).await.unwrap(), expected(3));
    notes.take();
    // Of one that was completed, which has taken over itself.
    let new = fork(&engine, good.id, asked("k", Some("quick"), None)).await.unwrap();
    assert_eq!(new.taken.as_deref().unwrap(), ["each", "ask", "gathered"]);
    assert_eq!(runs::end(&engine, new.id).await.unwrap(), expected(3));
    assert_eq!(notes.take(), ["part 10", "last good"]);
    let new = fork(&engine, good.id, asked("l", Some("each"), None)).await.unwrap();
    engine.settle().await;
    // It asks again, and what it has as its input counts.
    engine.local().run(new.id).decide("ask", true, "user:ada", None).await.unwrap();
    assert_eq!(runs::end(&engine, new.id).await.unwrap()["bytes"], 1);
    assert_eq!(notes.take(), ["part 7", "last good"]);
    kit::sound(&engine).await;
}

const UNDONE: &str = r#"
selvedge: 1
name: undone
input: { sign: { type: string } }
stages:
  - { name: made, call: part, input: 1, compensate: { call: part, input: 5 } }
  - { name: last, call: last, input: { sign: "${input.sign}" }, depends_on: [made] }
"#;

#[tokio::test]
async fn a_fork_that_fails_undoes_what_it_did_anew_also_where_the_run_before_it_was_undone() {
    let notes = Notes::default();
    let engine = test::Engine::new(app(&notes).pipeline(parse(UNDONE))).await.unwrap();
    let old = runs::start(&engine, "undone", json!({ "sign": "bad" })).await;
    runs::end(&engine, old.id()).await.unwrap_err();
    assert_eq!(notes.take(), ["part 1", "last bad", "part 5"]);
    let new = fork(&engine, old.id(), asked("k", None, None)).await.unwrap();
    assert_eq!(new.taken.as_deref().unwrap(), [""; 0], "neither what was undone nor what undid it");
    runs::end(&engine, new.id).await.unwrap_err();
    assert_eq!(notes.take(), ["part 1", "last bad", "part 5"]);
    kit::sound(&engine).await;
}

#[tokio::test]
async fn a_fork_that_fails_undoes_nothing_that_it_took_over() {
    let notes = Notes::default();
    let mut engine = test::Engine::new(app(&notes).pipeline(parse(UNDONE))).await.unwrap();
    let old = runs::start(&engine, "undone", json!({ "sign": "good" })).await;
    runs::end(&engine, old.id()).await.unwrap();
    assert_eq!(notes.take(), ["part 1", "last good"]);
    let new = fork(&engine, old.id(), asked("k", Some("last"), Some(&json!({ "sign": "bad" })))).await.unwrap();
    assert_eq!(new.taken.as_deref().unwrap(), ["made"]);
    runs::end(&engine, new.id).await.unwrap_err();
    engine.kill_and_reopen().await.unwrap();
    assert_eq!(notes.take(), ["last bad"], "what was made is the other run's, which is completed");
    kit::sound(&engine).await;
}

#[tokio::test]
async fn a_fork_from_a_gather_finds_the_groups_of_what_it_took_over() {
    let text = "selvedge: 1\nname: groups\ninput: { numbers: { type: array } }\nstages:\n  - { name: each, mode: scatter, over: input.numbers, call: part }\n  - { name: by, mode: gather, stages: [each], group_by: item.odd, call: last, input: { k: \"${group.key}\", n: \"${length(group.items)}\" } }\noutput: \"${stages.by.output}\"\n";
    let notes = Notes::default();
    let (parts, lasts) = (notes.clone(), notes.clone());
    let app = App::new()
        .pipeline(parse(text))
        .activity(PART, async move |_: Attempt, n: Value| {
            parts.add("part");
            Ok(json!({ "odd": if n.as_u64().unwrap_or(0) % 2 == 1 { "odd" } else { "even" } }))
        })
        .activity(LAST, async move |_: Attempt, group: Value| {
            lasts.add("last");
            Ok(group)
        });
    let engine = test::Engine::new(app).await.unwrap();
    let run = runs::start(&engine, "groups", json!({ "numbers": [1, 2, 3, 4, 5] })).await.id();
    let before = runs::end(&engine, run).await.unwrap();
    assert_eq!(notes.take().len(), 7);
    let new = fork(&engine, run, asked("k", Some("by"), None)).await.unwrap();
    assert_eq!(new.taken.as_deref().unwrap(), ["each"]);
    assert_eq!(runs::end(&engine, new.id).await.unwrap(), before);
    assert_eq!(notes.take(), ["last", "last"]);
    kit::sound(&engine).await;
}

#[tokio::test]
async fn a_fork_that_is_cut_after_any_commit_is_there_as_a_whole_or_says_that_it_was_cut_off_and_does_nothing() {
    let (mut whole, mut cut_off, mut absent) = (0, 0, 0);
    for commits in 0..9 {
        let notes = Notes::default();
        let mut engine = test::Engine::with(app(&notes), Settings { workers: 1, ..Settings::default() }).await.unwrap();
        let old = failed(&engine, 250).await;
        engine.settle().await;
        notes.take();
        engine.model().cut_after(&[commits]);
        unless_cut(&engine, fork(&engine, old, asked("k", None, Some(&good())))).await.transpose().unwrap();
        engine.model().cut_after(&[]);
        engine.kill_and_reopen().await.unwrap();
        engine.settle().await;
        let mut new = fork(&engine, old, asked("k", None, Some(&good()))).await.unwrap();
        if new.taken.is_some() {
            absent += 1;
        }
        engine.settle().await;
        let status = engine.local().run(new.id).status().await.unwrap();
        if status.state == RunState::Paused {
            cut_off += 1;
            let why = format!("{:?}", status.waiting);
            assert!(why.contains("was cut off: cancel this one and fork again"), "{why}");
            assert_eq!(notes.take().len(), 0, "cut after {commits}");
            engine.local().run(new.id).cancel().await.unwrap();
            new = fork(&engine, old, asked("l", None, Some(&good()))).await.unwrap();
        } else if new.taken.is_none() {
            whole += 1;
        }
        assert_eq!(runs::end(&engine, new.id).await.unwrap(), expected(250), "cut after {commits}");
        let did = notes.take();
        assert!(did.iter().all(|done| done == "last good"), "cut after {commits}: {did:?}");
        kit::sound(&engine).await;
    }
    assert!(whole > 0 && cut_off > 0 && absent > 0, "{whole} {cut_off} {absent}");
}

#[tokio::test]
async fn what_cannot_be_forked_says_why_and_what_can_be_done() {
    let notes = Notes::default();
    let engine = test::Engine::new(app(&notes)).await.unwrap();
    let open = runs::start(&engine, "parts", json!({ "numbers": [1], "sign": "good" })).await.id();
    engine.settle().await;
    let refused = fork(&engine, open, asked("k", None, None)).await.unwrap_err();
    assert!(refused.code == "open" && refused.message.contains("cancel it first"), "{refused}");
    let old = failed(&engine, 3).await;
    let refused = fork(&engine, old, asked("k", Some("lst"), None)).await.unwrap_err();
    assert!(refused.code == "unknown_stage" && refused.message.contains("gathered, last"), "{refused}");
    let refused = fork(&engine, old, asked("k", None, Some(&json!({ "sign": 1 })))).await.unwrap_err();
    assert!(refused.code == "input" && refused.message.contains("numbers"), "{refused}");
    let silent = RunFork { reason: " ".to_owned(), ..asked("k", None, None) };
    assert_eq!(fork(&engine, old, silent).await.unwrap_err().code, "no_reason");
    let wrong = engine.engine().fork_run(permit(&engine, Action::Control, old), old, asked("k", None, None)).await;
    assert_eq!(wrong.unwrap_err().code, "wrong_permit");
    // Nothing of these has made a run.
    let list = engine.engine().list_runs(authorize(local("default", engine.engine().now()), Action::Read, Resource::Store, engine.engine().now()).unwrap());
    assert_eq!(list.await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_fork_takes_over_so_many_bytes_at_most_and_can_be_made_from_an_earlier_stage() {
    let app = App::new()
        .pipeline(parse(
            "selvedge: 1\nname: wide\ninput: { numbers: { type: array } }\nstages:\n  - { name: each, mode: scatter, over: input.numbers, call: part }\n  - { name: one, call: last, input: 1 }\n",
        ))
        .activity(PART, async |_: Attempt, _: Value| Ok(json!("x".repeat(7 << 20))))
        .activity(LAST, async |_: Attempt, n: Value| Ok(n));
    let engine = test::Engine::new(app).await.unwrap();
    let run = runs::start(&engine, "wide", json!({ "numbers": [1, 2, 3, 4, 5] })).await.id();
    runs::end(&engine, run).await.unwrap();
    let refused = fork(&engine, run, asked("k", None, None)).await.unwrap_err();
    assert!(refused.code == "limit: fork" && refused.message.contains("33554432 bytes") && refused.message.contains("runs retry"), "{refused}");
    let small = fork(&engine, run, asked("k", Some("each"), Some(&json!({ "numbers": [1] })))).await.unwrap();
    runs::end(&engine, small.id).await.unwrap();
    kit::sound(&engine).await;
}

#[test]
fn a_run_is_forked_on_the_command_line_whether_or_not_somebody_holds_the_directory() {
    let folder = Folder::new();
    folder.write(
        "p.yaml",
        "selvedge: 1\nname: p\ninput: { n: { type: integer, default: 1 } }\nactivities:\n  once: { exec: [sh, -c, 'echo x >> ran; echo 1'], persistent: false }\n  mended: { exec: [sh, -c, 'test -f mended && cat'], persistent: false, retry: none }\nstages:\n  - { name: first, call: once }\n  - { name: second, call: mended, input: '${input.n}' }\noutput: { n: '${stages.second.output}' }\n",
    );
    folder.write("hold.yaml", "selvedge: 1\nname: hold\nstages: [{ name: hold, mode: wait_signal, signal: go }]\n");
    let failed = folder.selvedge(&["run", "p.yaml"]);
    assert_eq!(failed.code, 1, "{failed:?}");
    let run = folder.json(&["runs", "list"])[0]["id"].as_str().unwrap().to_owned();
    folder.write("mended", "");
    let silent = folder.selvedge(&["runs", "fork", &run]);
    assert!(silent.code == 64 && silent.err.contains("--reason"), "{silent:?}");
    let forked = folder.selvedge(&["runs", "fork", &run, "--reason", "mended"]);
    assert!(forked.code == 0 && forked.err.contains(&format!("it takes over from {run}: first")) && forked.err.contains("nobody holds"), "{forked:?}");
    let holder = folder.start(&["run", "hold.yaml"]);
    folder.until_run("for the signal `go`");
    let new = forked.out.trim().to_owned();
    folder.until("its end", |folder| folder.json(&["runs", "show", &new])["status"] == "completed");
    let edited = folder.json(&["runs", "fork", &run, "--input", r#"{"n": 5}"#, "--reason", "other number"]);
    assert_eq!((edited["forked_from"].as_str(), &edited["taken"]), (Some(run.as_str()), &json!(["first"])));
    let new = edited["id"].as_str().unwrap().to_owned();
    folder.until("its end", |folder| folder.json(&["runs", "show", &new])["status"] == "completed");
    assert_eq!(folder.json(&["runs", "show", &new])["output"]["n"], 5);
    assert_eq!(std::fs::read_to_string(folder.join("ran")).unwrap(), "x\n");
    drop(holder);
    assert_eq!(folder.json(&["verify"])["sound"], true);
}
