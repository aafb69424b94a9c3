//! Stable codes, as whoever speaks the control socket gets them.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use selvedge::{App, Ctx, Handler, SharedHandler, View, test};
use serde_json::{Value, json};

use crate::rig::Folder;

const ASKS: &str = "
selvedge: 1
name: asks
schedule: { every: 1d }
stages:
  - { name: one, mode: approval, assignees: ['user:ada'], expires: 1d, fallback: reject }
  - { name: two, mode: approval, depends_on: [], assignees: ['user:ada'], expires: 1d, fallback: reject }
  - { name: hold, mode: wait_signal, depends_on: [], signal: go }
  - { name: last, mode: approval, assignees: ['user:ada'], expires: 1d, fallback: reject }
";

const APP: &str = "
actors:
  counter: { handlers: { count: { exec: [python3, counter.py] } } }
pipelines: [asks.yaml, plain.yaml]
";

fn ask(folder: &Folder, request: &Value) -> Value {
    let mut stream = UnixStream::connect(folder.join(".selvedge/control.sock")).unwrap();
    stream.write_all(format!("{request}\n").as_bytes()).unwrap();
    // The half of it that we write stays open: whoever closes it does not wait any more.
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).unwrap();
    serde_json::from_str(&answer).unwrap()
}

#[test]
fn each_refusal_of_the_control_socket_has_its_code_and_says_what_to_do() {
    let folder = Folder::new();
    folder.write("asks.yaml", ASKS);
    folder.write("plain.yaml", "selvedge: 1\nname: plain\nstages: [{ name: rest, mode: sleep, for: 1ms }]\n");
    folder.write("app.yaml", APP);
    folder.write("counter.py", "from selvedge import handler, run\n@handler('counter', 'count')\ndef count(actor, message): return 1\nrun()\n");
    std::fs::copy(format!("{}/../../clients/python/selvedge.py", env!("CARGO_MANIFEST_DIR")), folder.join("selvedge.py")).unwrap();
    let holder = folder.start(&["run", "asks.yaml"]);
    let run = folder.until_run("for an approval at");
    // The last character carries four bits of the id and one that is always zero: `0` and `2` are both ones that an id may end with.
    let gone = format!("{}{}", &run[..run.len() - 1], if run.ends_with('0') { '2' } else { '0' });
    let decide = |id: &str, stage: Option<&str>| json!({ "verb": "decide", "id": id, "stage": stage, "answer": "approve", "by": "user:ada", "comment": "" });
    let signal = |id: &str, name: &str, payload: &str| json!({ "verb": "signal_run", "id": id, "name": name, "payload": payload, "idempotency_key": null });
    let call = |kind: &str, handler: &str, input: &str, key: Option<&str>| json!({ "verb": "call", "kind": kind, "key": "a", "handler": handler, "input": input, "idempotency_key": key });
    assert_eq!(ask(&folder, &call("counter", "count", "1", Some("k")))["error"], Value::Null);
    let called = folder.json(&["invocations", "list", "--all"])[0]["id"].clone();
    let cases = [
        ("bad_request", json!({ "verb": "nothing" })),
        ("bad_id", json!({ "verb": "run", "id": "no_id" })),
        ("unknown_run", json!({ "verb": "run", "id": gone })),
        ("unknown_stage", decide(&run, Some("three"))),
        ("which_approval", decide(&run, None)),
        ("no_approval", decide(&run, Some("hold"))),
        ("wrong_state", decide(&run, Some("last"))),
        ("unknown_signal", signal(&run, "stop", "1")),
        ("not_assigned", json!({ "verb": "decide", "id": run, "stage": "one", "answer": "approve", "by": "user:bob", "comment": "" })),
        ("empty", json!({ "verb": "send", "kind": "counter", "key": "", "handler": "count", "input": "1", "idempotency_key": null })),
        ("unknown_invocation", json!({ "verb": "invocation", "id": run.replace("run_", "inv_") })),
        ("unknown_dead_letter", json!({ "verb": "dead_letter", "id": run.replace("run_", "inv_") })),
        ("ended", json!({ "verb": "retry_invocation", "id": called })),
        ("not_json", signal(&run, "go", "{")),
        ("unknown_schedule", json!({ "verb": "schedule", "pipeline": "none" })),
        ("unknown_actor_type", json!({ "verb": "state", "kind": "none", "key": "a" })),
        ("unknown_handler", call("counter", "none", "1", None)),
        ("idempotency_mismatch", call("counter", "count", "2", Some("k"))),
        ("not_empty", json!({ "verb": "backup", "to": folder.path() })),
        ("not_empty", json!({ "verb": "export", "to": folder.join("app.yaml") })),
    ];
    for (code, request) in cases {
        let answer = ask(&folder, &request);
        assert_eq!(answer["error"]["code"], code, "{request}: {answer}");
        let text = answer["error"]["message"].as_str().unwrap();
        assert!(text.len() > 15, "{code}: {text}");
    }
    drop(holder);
}

const MISUSES: Handler<String, ()> = Handler::new("careless", "misuses");
const LOOKS: SharedHandler<(), u64> = SharedHandler::new("careless", "looks");

#[tokio::test]
async fn what_a_handler_does_wrong_is_its_error_with_a_code_of_its_own() {
    let app = App::new()
        .handler(MISUSES, async |ctx: Ctx, how: String| {
            match how.as_str() {
                "wrong_type" => {
                    ctx.state().set("n", "text")?;
                    ctx.state().get::<u64>("n").await?;
                }
                _ => {
                    let mut nap = ctx.sleep(std::time::Duration::ZERO);
                    (&mut nap).await?;
                    (&mut nap).await?;
                }
            }
            Ok(())
        })
        .shared(LOOKS, async |_: View, ()| {
            tokio::task::yield_now().await;
            Ok(1)
        });
    let engine = test::Engine::new(app).await.unwrap();
    for code in ["wrong_type", "consumed"] {
        let id = engine.local().send(MISUSES.on(code), code.to_owned()).await.unwrap();
        engine.settle().await;
        engine.advance(std::time::Duration::from_secs(1)).await;
        let error = engine.local().result::<()>(id).await.unwrap_err().to_string();
        assert!(error.contains(code), "{code}: {error}");
    }
    let error = engine.local().call(LOOKS.on("a"), ()).await.unwrap_err().to_string();
    assert!(error.contains("foreign_wait"), "{error}");
}

#[test]
fn a_message_is_signalled_cancelled_and_looked_at_again_and_a_schedule_removed_by_hand() {
    let folder = Folder::new();
    folder.write("asks.yaml", ASKS);
    folder.write("app.yaml", "actors: { slow: { handlers: { go: { exec: [sh, -c, 'sleep 60'], persistent: false } } } }\npipelines: [asks.yaml]\n");
    let holder = folder.start(&["run", "asks.yaml"]);
    folder.until_run("for an approval at");
    assert_eq!(folder.json(&["schedules", "list"]).as_array().map(Vec::len), Some(1));
    assert_eq!(folder.selvedge(&["schedules", "remove", "asks"]).code, 0);
    assert_eq!(folder.json(&["schedules", "list"]), json!([]));
    let signalled = folder.selvedge(&["actors", "signal", "slow/a", "paid", "--data-json", "5", "--idempotency-key", "k"]);
    assert!(signalled.code == 0 && signalled.out.contains("paid"), "{} {}", signalled.out, signalled.err);
    folder.selvedge(&["actors", "send", "slow/a", "go"]);
    let id = folder.json(&["invocations", "list"])[0]["id"].as_str().unwrap().to_owned();
    let again = folder.selvedge(&["invocations", "retry", &id]);
    assert!(again.code != 0 && again.err.contains("is neither blocked nor waiting"), "{}", again.err);
    assert_eq!(folder.selvedge(&["invocations", "cancel", &id, "--reason", "enough"]).code, 0);
    folder.until("the cancel", |folder| folder.json(&["invocations", "show", &id])["status"] == "cancelled");
    assert!(folder.selvedge(&["invocations", "list", "--all"]).out.contains(&id));
    drop(holder);
}

#[test]
fn a_backup_and_an_export_that_were_changed_are_refused_as_input_and_not_as_a_fault_of_the_store() {
    let folder = Folder::new();
    folder.write("p.yaml", "selvedge: 1\nname: nap\nstages: [{ name: rest, mode: sleep, for: 1ms }]\n");
    assert_eq!(folder.selvedge(&["run", "p.yaml"]).code, 0);
    assert_eq!(folder.selvedge(&["backup", "--to", "backup"]).code, 0);
    folder.write("backup/rows", "x");
    folder.write("e.jsonl", "x\n");
    // `backup_damaged` and `export_damaged`: the file is wrong, so that another one helps.
    for words in [&["restore", "--from", "backup", "--data", "a"][..], &["import", "e.jsonl", "--data", "b"]] {
        assert_eq!(folder.selvedge(words).code, 64, "{words:?}");
    }
    // `backup_failed` and `export_failed`: the disk is.
    for words in [&["backup", "--to", "/proc/none/backup"][..], &["export", "--to", "/proc/none/e.jsonl"]] {
        assert_eq!(folder.selvedge(words).code, 1, "{words:?}");
    }
}
