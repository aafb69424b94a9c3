//! Replays of recorded journals before a deploy.

use std::time::Duration;

use selvedge::{App, Ctx, Failure, Handler, test};

use crate::kit;
use crate::rig::Folder;

const GO: Handler<String, String> = Handler::new("subject", "go");
const WEEK: Duration = Duration::from_secs(7 * 86_400);

/// A handler whose passages are named, so that a later form of it can name others.
fn app(first: &'static str, last: &'static [&'static str], version: u32) -> App {
    App::new().handler(GO.version(version), async move |ctx: Ctx, how: String| {
        ctx.state().set("how", &how)?;
        ctx.step(first, async |_| Ok(how.clone())).await?;
        if how == "waits" {
            ctx.sleep(Duration::from_secs(3_600)).await?;
        }
        for name in last {
            ctx.step(name, async |_| Ok(())).await?;
        }
        if how == "fails" { Err(Failure::terminal("broken", "as asked")) } else { Ok(how) }
    })
}

async fn recorded() -> test::Engine {
    let engine = test::Engine::new(app("a", &["z"], 1)).await.unwrap();
    for how in ["ends", "fails", "waits"] {
        engine.local().send(GO.on(how), how.to_owned()).await.unwrap();
    }
    let gone = engine.local().send(GO.on("cancelled"), "waits".to_owned()).await.unwrap();
    engine.settle().await;
    engine.local().cancel(gone).await.unwrap();
    engine.settle().await;
    engine
}

async fn reasons(engine: &test::Engine) -> Vec<String> {
    let found = engine.local().rehearse(None, WEEK).await.unwrap();
    assert_eq!(found.replayed, 4);
    found.misfits.into_iter().map(|one| format!("{}: {}", one.actor, one.reason)).collect()
}

#[tokio::test]
async fn code_that_fits_blocks_nothing_and_a_rehearsal_writes_nothing() {
    let mut engine = recorded().await;
    engine.kill_and_reopen().await.unwrap();
    engine.settle().await;
    let (commits, effects) = (engine.model().commits(), engine.effects().len());
    assert_eq!(reasons(&engine).await, Vec::<String>::new());
    assert_eq!(reasons(&engine).await, Vec::<String>::new());
    engine.settle().await;
    assert_eq!((engine.model().commits(), engine.effects().len()), (commits, effects));
    // What is open goes on as if nobody had looked.
    engine.advance(Duration::from_secs(3_600)).await;
    assert_eq!(kit::state(&engine, "subject", "waits").await["how"], "\"waits\"");
    assert!(engine.effects().len() > effects);
    kit::sound(&engine).await;
}

#[tokio::test]
async fn code_that_does_not_fit_is_named_for_each_journal_with_both_sides() {
    let mut engine = recorded().await;
    engine.deploy(app("b", &["z"], 1)).await.unwrap();
    engine.settle().await;
    let found = reasons(&engine).await;
    assert_eq!(found.len(), 4, "{found:?}");
    assert!(found.iter().all(|reason| reason.contains("recorded #1 step `a`, attempted #1 step `b`")), "{found:?}");
    // Less than was recorded, and more.
    engine.deploy(app("a", &[], 1)).await.unwrap();
    engine.settle().await;
    let found = reasons(&engine).await;
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.iter().any(|reason| reason.starts_with("subject/ends: ") && reason.contains("recorded #2 step `z`, attempted nothing")), "{found:?}");
    engine.deploy(app("a", &["z", "y"], 1)).await.unwrap();
    engine.settle().await;
    let found = reasons(&engine).await;
    assert!(found.iter().any(|reason| reason.starts_with("subject/ends: ") && reason.contains("recorded nothing, attempted #3 step `y`")), "{found:?}");
    // Another version is beside what is open, not against it.
    engine.deploy(app("b", &["z"], 2)).await.unwrap();
    engine.settle().await;
    let found = reasons(&engine).await;
    assert!(found.len() == 1 && found[0].contains("needs subject.go@1, this binary has @2"), "{found:?}");
}

#[tokio::test]
async fn a_rehearsal_looks_at_one_type_and_at_what_is_recent_or_open() {
    let engine = recorded().await;
    engine.settle().await;
    assert_eq!(engine.local().rehearse(Some("other"), WEEK).await.unwrap().replayed, 0);
    assert_eq!(engine.local().rehearse(Some("subject"), WEEK).await.unwrap().replayed, 4);
    engine.advance(Duration::from_secs(60)).await;
    assert_eq!(engine.local().rehearse(None, Duration::from_secs(30)).await.unwrap().replayed, 1, "the one that is open");
}

#[test]
fn replay_on_the_command_line_ends_with_nothing_to_replay_and_refuses_a_directory_that_is_held() {
    let folder = Folder::new();
    folder.write("p.yaml", "selvedge: 1\nname: p\nstages:\n  - { name: rest, mode: sleep, for: 1h }\n");
    let running = folder.start(&["run", "p.yaml"]);
    folder.until_run("for its timer");
    let held = folder.selvedge(&["replay"]);
    assert_eq!(held.code, 64, "{}", held.err);
    assert!(held.err.contains("another process holds the data directory"), "{}", held.err);
    running.signal("KILL");
    drop(running);
    let said = folder.selvedge(&["replay", "--since", "7d"]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.contains("0 journals") && said.out.contains("all fit"), "{}", said.out);
}
