//! A message that goes on failing is spoken of long before its last attempt.

use std::time::Duration;

use selvedge::{ActorOptions, App, Ctx, Failure, Handler, Retry, test};

use crate::kit;
use crate::rig::Folder;

const GO: Handler<(), ()> = Handler::new("desk", "go");

async fn engine(retry: Retry) -> test::Engine {
    let options = ActorOptions { retry, ..ActorOptions::default() };
    let go = async |_: Ctx, (): ()| Err(Failure::retryable("away", "the desk is empty"));
    test::Engine::new(App::new().actor("desk", options).handler(GO, go)).await.unwrap()
}

#[tokio::test]
async fn a_message_that_goes_on_failing_is_said_once_and_why_says_when_it_is_a_dead_letter() {
    let mut engine = engine(Retry { max_attempts: 300, ..Retry::fixed(300, Duration::from_secs(60)) }).await;
    let id = engine.local().send(GO.on("a"), ()).await.unwrap();
    engine.settle().await;
    for _ in 0..28 {
        engine.advance(Duration::from_secs(60)).await;
    }
    assert_eq!(engine.failing(), []);
    assert!(kit::sentence(&engine, id).await.contains("(attempt 30; the last one said: away: the desk is empty)"), "{}", kit::sentence(&engine, id).await);
    engine.advance(Duration::from_secs(60)).await;
    let said = "(attempt 31 of 300: after the last of them it is a dead letter; the one before this said: away: the desk is empty)";
    assert!(kit::sentence(&engine, id).await.contains(said), "{}", kit::sentence(&engine, id).await);
    engine.kill_and_reopen().await.unwrap();
    for _ in 0..5 {
        engine.advance(Duration::from_secs(60)).await;
    }
    assert_eq!(engine.failing(), [(id, 30)], "once");
    assert!(kit::sentence(&engine, id).await.contains("(attempt 36 of 300: "));
}

#[tokio::test]
async fn who_has_few_attempts_is_a_dead_letter_without_more_ado() {
    let engine = engine(Retry::fixed(20, Duration::from_secs(1))).await;
    engine.local().send(GO.on("a"), ()).await.unwrap();
    for _ in 0..25 {
        engine.advance(Duration::from_secs(1)).await;
    }
    assert_eq!((engine.failing(), kit::dead_letters(&engine).await.len()), (vec![], 1));
}

#[test]
fn the_process_says_so_and_doctor_and_stuck_show_it() {
    let folder = Folder::new();
    let go = "exec: [\"false\"], persistent: false, retry: { max_attempts: 1000, backoff: fixed, initial: 20ms, max: 20ms, jitter: 0 }";
    folder.write("app.yaml", &format!("actors:\n  desk:\n    handlers:\n      go: {{ {go} }}\n"));
    folder.write("hold.yaml", "selvedge: 1\nname: hold\nstages:\n  - { name: send, call: { actor: desk, key: a, handler: go } }\n");
    let running = folder.start(&["run", "hold.yaml"]);
    let shown = || serde_json::from_str::<serde_json::Value>(&folder.selvedge(&["doctor", "-o", "json"]).out).unwrap_or_default();
    let part = |name: &str| shown().as_array().into_iter().flatten().find(|one| one["part"] == name).cloned().unwrap_or_default();
    folder.until("doctor speaks of it", |_| part("messages")["ok"] == false);
    let messages = part("messages");
    assert!(messages["advice"].as_str().unwrap().contains("selvedge why inv_"), "{messages}");
    folder.until("stuck has it between two attempts", |folder| {
        folder.selvedge(&["stuck", "--longer-than", "1s"]).out.contains(" of 1000: after the last of them it is a dead letter")
    });
    running.signal("KILL");
    let said = folder.end(running);
    assert!(said.err.contains("has failed 100 times, after 1000 it is a dead letter"), "{said:?}");
}
