//! What is stuck: what waits for longer than is expected of it.

use std::path::Path;
use std::time::Duration;

use selvedge::control::{Control, Request};
use selvedge::{ActorOptions, App, Ctx, Engine, Handler, Signal};

use crate::rig::Folder;

const QUICK: Handler<(), ()> = Handler::new("quick", "go");
const USUAL: Handler<(), ()> = Handler::new("usual", "go");
const ON: Signal<()> = Signal::new("on");

async fn stuck(data: &Path, longer_than_ms: Option<u64>) -> Vec<String> {
    let mut control = Control::connect(data).await.unwrap().unwrap();
    let found = control.ask(&Request::Stuck { longer_than_ms, filter: String::new() }).await.unwrap();
    found.as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn each_type_is_stuck_when_it_waits_longer_than_is_expected_of_it() {
    let folder = Folder::new();
    let quick = ActorOptions { expected_within: Duration::from_millis(1), ..ActorOptions::default() };
    let app = App::new()
        .handler(QUICK, async |ctx: Ctx, (): ()| ctx.signal(ON).await)
        .handler(USUAL, async |ctx: Ctx, (): ()| ctx.signal(ON).await)
        .actor("quick", quick);
    let engine = Engine::open(folder.path(), app).await.unwrap();
    let usual = engine.local().send(USUAL.on("x"), ()).await.unwrap().to_string();
    let quick = engine.local().send(QUICK.on("x"), ()).await.unwrap().to_string();
    while stuck(folder.path(), None).await.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(stuck(folder.path(), None).await, std::slice::from_ref(&quick), "an hour is expected of the other one");
    while stuck(folder.path(), Some(1)).await.len() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let all = stuck(folder.path(), Some(1)).await;
    assert!(all.contains(&usual) && all.contains(&quick), "{all:?}");
    assert_eq!(stuck(folder.path(), Some(3_600_000)).await, Vec::<String>::new(), "what is asked for counts more than what is expected");
    engine.close().await.unwrap();
}

#[test]
fn script_actor_is_stuck_when_it_waits_longer_than_its_manifest_expects() {
    let folder = Folder::new();
    let handlers = "handlers: { count: { exec: [cat], persistent: false } }";
    folder.write("app.yaml", &format!("actors:\n  quick: {{ expected_within: 1ms, {handlers} }}\n  usual: {{ {handlers} }}\n"));
    folder.write("p.yaml", "selvedge: 1\nname: p\nstages: [{ name: a, mode: sleep, for: 1ms }]\n");
    assert_eq!(folder.selvedge(&["run", "p.yaml"]).code, 0);
    let send = |actor: &str| {
        let sent = folder.selvedge(&["actors", "send", actor, "count"]);
        assert_eq!(sent.code, 0, "{sent:?}");
        sent.out.trim().to_owned()
    };
    let (_, quick) = (send("usual/a"), send("quick/a"));
    let found = folder.json(&["stuck"]);
    let found: Vec<&str> = found.as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect();
    assert_eq!(found, [quick]);
}
