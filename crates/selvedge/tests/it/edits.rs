//! State changed by hand: in the actor's line, in one commit, with who and why.

use std::time::Duration;

use selvedge::{App, Ctx, Handler, Outcome, test};
use selvedge_engine::{Answer, Progress, VerbError};
use selvedge_kernel::auth::Action;
use selvedge_kernel::record::hand::etag;
use selvedge_kernel::record::kind::Kind;
use selvedge_kernel::record::message::Outcome as Ended;

use crate::by_hand::{self, edit, set};
use crate::kit;
use crate::rig::Folder;

const ADD: Handler<u64, u64> = Handler::new("counter", "add");
const SEND: Handler<(), ()> = Handler::new("counter", "send");
const HOUR: Duration = Duration::from_secs(3_600);

/// Reads, waits an hour, and writes what it read and more: whoever writes in between would be lost.
async fn add(ctx: Ctx, by: u64) -> Outcome<u64> {
    let count = ctx.state().get::<u64>("count").await?.unwrap_or(0) + by;
    ctx.sleep(HOUR).await?;
    ctx.state().set("count", &count)?;
    Ok(count)
}

fn app() -> App {
    App::new().handler(ADD, add).handler(SEND, async |ctx: Ctx, ()| {
        const EDIT: Handler<(), ()> = Handler::new("counter", "state, by hand");
        ctx.send(EDIT.on("other"), ());
        ctx.call(EDIT.on("other"), ()).await
    })
}

fn said(answer: Result<Answer, VerbError>) -> String {
    match answer.unwrap().progress {
        Progress::Ended(Ended::Value(bytes)) => String::from_utf8(bytes.to_vec()).unwrap(),
        Progress::Ended(Ended::Error(error)) => error.to_string(),
        Progress::Open => "open".to_owned(),
    }
}

async fn count(engine: &test::Engine, key: &str) -> Option<String> {
    kit::state(engine, "counter", key).await.get("count").cloned()
}

#[tokio::test]
async fn an_edit_waits_behind_the_handler_that_holds_its_actor_and_loses_no_write() {
    let engine = test::Engine::new(app()).await.unwrap();
    let first = engine.local().send(ADD.on("a"), 1).await.unwrap();
    engine.settle().await;
    let answer = edit(engine.engine().clone(), "counter", "a", set("count", "40")).await.unwrap();
    assert_eq!(answer.progress, Progress::Open);
    let behind = answer.id.unwrap();
    assert!(kit::sentence(&engine, behind).await.contains(&format!("behind {first}")));
    let third = engine.local().send(ADD.on("a"), 2).await.unwrap();
    engine.advance(HOUR).await;
    assert_eq!(engine.local().result::<u64>(first).await.unwrap(), 1);
    engine.advance(HOUR).await;
    assert_eq!(engine.local().result::<u64>(third).await.unwrap(), 42, "it read what the edit wrote");
    let told = by_hand::lines(engine.engine(), behind).await;
    assert_eq!(told, ["#0 state.get count: recorded", "#1 state.set count: recorded"]);
    let why = engine.local().why(behind).await.unwrap();
    assert_eq!((why.caller.principal.id.as_str(), why.handler.as_str()), ("local", "state, by hand"));
    kit::sound(&engine).await;
}

#[tokio::test]
async fn an_edit_of_an_entry_that_was_changed_since_it_was_read_writes_nothing() {
    let engine = test::Engine::new(app()).await.unwrap();
    let doing = |asked| edit(engine.engine().clone(), "counter", "a", asked);
    let mut asked = set("count", "1");
    asked.if_match = Some("none".to_owned());
    let first = said(doing(asked).await);
    assert!(first.contains(&etag(b"1")) && first.contains("\"before\":null"), "{first}");
    let mut late = set("count", "2");
    late.if_match = Some("none".to_owned());
    let refused = said(doing(late).await);
    assert!(refused.contains("changed_since") && refused.contains(&etag(b"1")) && refused.contains("not none"), "{refused}");
    assert_eq!(count(&engine, "a").await.as_deref(), Some("1"));
    let mut right = set("count", "3");
    right.if_match = Some(etag(b"1"));
    assert!(said(doing(right).await).contains(&etag(b"3")));
    let mut gone = set("count", "gone");
    gone.set = None;
    gone.if_match = Some(etag(b"3"));
    assert!(said(doing(gone).await).contains("\"etag\":null"));
    assert_eq!(count(&engine, "a").await, None);
    kit::sound(&engine).await;
}

#[tokio::test]
async fn a_value_of_an_edit_is_kept_byte_for_byte_and_null_is_a_value() {
    let engine = test::Engine::new(app()).await.unwrap();
    for value in ["{\"b\": 1,  \"a\":1.0}", "null"] {
        said(edit(engine.engine().clone(), "counter", "a", set("count", value)).await);
        assert_eq!(count(&engine, "a").await.as_deref(), Some(value));
    }
}

#[tokio::test]
async fn nobody_reaches_the_handler_of_edits_but_by_the_verb_with_its_own_permit_and_a_reason() {
    let engine = test::Engine::new(app()).await.unwrap();
    let called = engine.local().call_json("counter", "a", "state, by hand", &serde_json::json!({ "name": "count", "reason": "x" })).await.unwrap_err();
    assert!(called.to_string().contains("there is no handler"), "{called}");
    let inside = engine.local().call(SEND.on("a"), ()).await.unwrap_err().to_string();
    assert!(inside.contains("refused"), "{inside}");
    for action in [Action::Invoke, Action::Control, Action::Read] {
        let permit = by_hand::on_actor(engine.engine(), action, "counter", "a");
        assert_eq!(engine.engine().edit_state(permit, set("count", "1")).await.unwrap_err().code, "wrong_permit");
    }
    let mut silent = set("count", "1");
    silent.reason = " ".to_owned();
    let refused = edit(engine.engine().clone(), "counter", "a", silent).await.unwrap_err();
    assert!(refused.code == "no_reason" && refused.message.contains("say why"), "{refused}");
    let mut long = set("count", "1");
    long.reason = "x".repeat(1025);
    let refused = edit(engine.engine().clone(), "counter", "a", long).await.unwrap_err();
    assert!(refused.code == "limit: reason" && refused.message.contains("the limit is 1024"), "{refused}");
    assert_eq!(count(&engine, "a").await, None);
}

#[tokio::test]
async fn an_edit_into_a_full_inbox_is_refused_by_the_name_of_the_limit_and_writes_nothing() {
    let limits = selvedge_kernel::limit::Limits { inbox: 1, ..Default::default() };
    let engine = test::Engine::with(app(), selvedge::Settings { limits, ..selvedge::Settings::default() }).await.unwrap();
    let first = engine.local().send(ADD.on("a"), 1).await.unwrap();
    engine.settle().await;
    let refused = edit(engine.engine().clone(), "counter", "a", set("count", "40")).await.unwrap_err();
    assert!(refused.code == "limit: inbox" && refused.message.contains("the limit of one inbox is 1"), "{refused}");
    engine.advance(HOUR).await;
    assert_eq!(engine.local().result::<u64>(first).await.unwrap(), 1);
    kit::sound(&engine).await;
}

#[tokio::test]
async fn an_edit_that_is_killed_at_any_commit_and_asked_again_happens_once() {
    for batches in 0..4 {
        let mut engine = test::Engine::new(app()).await.unwrap();
        let asked = set("count", "7");
        let verb = edit(engine.engine().clone(), "counter", "a", asked.clone());
        by_hand::killed_after(&mut engine, batches, verb).await;
        said(edit(engine.engine().clone(), "counter", "a", asked).await);
        engine.settle().await;
        assert_eq!(count(&engine, "a").await.as_deref(), Some("7"), "killed after {batches}");
        assert_eq!(kit::rows(&engine, Kind::Invocation), 1, "killed after {batches}");
        kit::sound(&engine).await;
    }
}

#[test]
fn state_is_set_and_deleted_on_the_command_line_whether_or_not_somebody_holds_the_directory() {
    let folder = Folder::new();
    folder.write("p.yaml", "selvedge: 1\nname: p\nstages: [{ name: hold, mode: wait_signal, signal: go }]\n");
    folder.write("app.yaml", "actors:\n  order:\n    handlers:\n      pay: { exec: [sh, -c, 'echo ''{}'''], persistent: false }\n");
    let all = |folder: &Folder| {
        let set = folder.selvedge(&["actors", "state", "set", "order/1", "total", r#"{"amount": 3}"#, "--reason", "a typo"]);
        assert!(set.code == 0 && set.out.contains("`total` is set, its etag is "), "{set:?}");
        assert_eq!(folder.json(&["actors", "state", "order/1"])["total"]["amount"], 3);
        let shown = folder.json(&["actors", "state", "order/1", "--etags"]);
        let etag = shown["total"]["etag"].as_str().unwrap();
        let other = ["actors", "state", "set", "order/1", "total", "4", "--reason", "late", "--if-match", "none"];
        let refused = folder.selvedge(&other);
        assert!(refused.code == 1 && refused.err.contains("changed_since") && refused.err.contains(etag), "{refused:?}");
        let set = folder.json(&["actors", "state", "set", "order/1", "total", "4", "--reason", "late", "--if-match", etag]);
        let id = set["id"].as_str().unwrap();
        let journal = folder.selvedge(&["invocations", "journal", id]);
        assert!(journal.out.contains("state.set") && journal.out.contains("total"), "{journal:?}");
        let gone = folder.selvedge(&["actors", "state", "delete", "order/1", "total", "--reason", "done"]);
        assert!(gone.code == 0 && gone.out.contains("`total` is gone"), "{gone:?}");
        assert_eq!(folder.json(&["actors", "state", "order/1"]), serde_json::json!({}));
        let silent = folder.selvedge(&["actors", "state", "set", "order/1", "total", "4"]);
        assert!(silent.code == 64 && silent.err.contains("--reason"), "{silent:?}");
        let unknown = folder.selvedge(&["actors", "state", "set", "odrer/1", "total", "4", "--reason", "x"]);
        assert!(unknown.code != 0 && unknown.err.contains("did you mean `order`?"), "{unknown:?}");
    };
    let holder = folder.start(&["run", "p.yaml"]);
    folder.until_run("for the signal `go`");
    all(&folder);
    holder.signal("TERM");
    assert_eq!(folder.end(holder).code, 2);
    all(&folder);
    assert_eq!(folder.json(&["verify"])["sound"], true);
}
