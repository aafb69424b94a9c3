//! Unclean ends of the process while a script actor's program starts, and while it has the message.

use bytes::Bytes;
use selvedge_engine::engine::Engine;
use selvedge_engine::registry::Registry;
use selvedge_kernel::auth::{Action, Resource};
use selvedge_kernel::id::{ActorId, InvocationId};
use selvedge_kernel::model::Model;
use selvedge_kernel::record::invocation::Status;
use std::time::Duration;

use crate::rig::{Folder, needs};
use crate::runs::{open_with, permit};

/// It starts while `slow` is there, and holds its message while `hang` is.
const TALLY: &str = r#"
import os, time
def note(line):
    with open("log", "a") as log:
        log.write(line + "\n")
note("starting")
while os.path.exists("slow"):
    time.sleep(0.01)
from selvedge import handler, run

@handler("tally", "add")
def add(actor, name):
    note("handling")
    while os.path.exists("hang"):
        time.sleep(0.01)
    return name

run()
"#;

/// Waits until the program has written a line so often.
async fn until(folder: &Folder, line: &str, count: usize) {
    for _ in 0..6_000 {
        if folder.read("log").lines().filter(|noted| *noted == line).count() >= count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never {count} times `{line}`: {}", folder.read("log"));
}

async fn status(engine: &Engine, id: InvocationId) -> Status {
    engine.why(permit(Action::Read, Resource::Work { tenant: "default".to_owned(), id: id.to_string() }), id).await.unwrap().status
}

async fn killed(engine: Engine, model: &Model, folder: &Folder) -> Engine {
    engine.die().await;
    drop(engine);
    open_with(model, folder, Registry::default()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn unclean_ends_that_meet_a_starting_program_do_not_count_and_those_that_meet_its_handling_do() {
    needs("python3");
    let folder = Folder::new("starting");
    let client = concat!(env!("CARGO_MANIFEST_DIR"), "/../../clients/python/selvedge.py");
    folder.write("selvedge.py", &std::fs::read_to_string(client).unwrap());
    folder.write("tally.py", TALLY);
    folder.write("slow", "");
    folder.write("hang", "");
    let model = Model::new();
    let mut engine = open_with(&model, &folder, Registry::default()).await;
    let target = ActorId { tenant: "default".to_owned(), kind: "tally".to_owned(), key: "a".to_owned() };
    let resource = Resource::Handler { actor: target, handler: "add".to_owned() };
    let sent = engine.invoke(permit(Action::Invoke, resource), Bytes::from_static(b"\"x\""), Default::default()).await.unwrap();
    let id = sent.id.unwrap();
    for starts in 1..=12 {
        until(&folder, "starting", starts).await;
        engine = killed(engine, &model, &folder).await;
    }
    until(&folder, "starting", 13).await;
    assert_ne!(status(&engine, id).await, Status::Blocked, "it never had the message");
    std::fs::remove_file(folder.0.join("slow")).unwrap();
    for handled in 1..=10 {
        until(&folder, "handling", handled).await;
        assert_ne!(status(&engine, id).await, Status::Blocked, "it had the message {handled} times");
        engine = killed(engine, &model, &folder).await;
    }
    let mut last = Status::Accepted;
    for _ in 0..6_000 {
        last = status(&engine, id).await;
        if last == Status::Blocked {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(last, Status::Blocked);
    assert_eq!(folder.read("log").lines().filter(|noted| *noted == "handling").count(), 10);
    engine.close().await.unwrap();
}
