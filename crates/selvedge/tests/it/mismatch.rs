//! Code that does not fit its journal: parked with both sides, and continued by code that fits.

use std::time::Duration;

use selvedge::{App, Ctx, Handler, Outcome, test};

use crate::kit::{self, Notes};

const GO: Handler<(), String> = Handler::new("subject", "go");
const HOUR: Duration = Duration::from_secs(3600);

/// A program that performs its lines one after the other: `step a`, `set n`, `sleep`, `send`.
fn program(lines: &'static [&'static str], notes: &Notes) -> App {
    let notes = notes.clone();
    App::new().handler(GO, async move |ctx: Ctx, (): ()| run(&ctx, lines, &notes).await)
}

async fn run(ctx: &Ctx, lines: &[&str], notes: &Notes) -> Outcome<String> {
    let mut said = String::new();
    for line in lines {
        match line.split_once(' ') {
            Some(("step", name)) => {
                let notes = notes.clone();
                let text: String = ctx
                    .step(name, async move |_| {
                        notes.add(name);
                        Ok(name.to_owned())
                    })
                    .await?;
                said.push_str(&text);
            }
            Some(("set", name)) => ctx.state().set(name, &1)?,
            Some(("get", name)) => said.push_str(&format!("{:?}", ctx.state().get::<u32>(name).await?)),
            _ => ctx.sleep(HOUR).await?,
        }
    }
    Ok(said)
}

async fn deployed(old: &'static [&'static str], new: &'static [&'static str], expected: &[&str]) {
    let notes = Notes::default();
    let mut engine = test::Engine::new(program(old, &notes)).await.unwrap();
    let id = engine.local().send(GO.on("x"), ()).await.unwrap();
    engine.settle().await;
    let before = notes.all();
    engine.deploy(program(new, &notes)).await.unwrap();
    engine.advance(HOUR + Duration::from_secs(1)).await;
    let why = kit::sentence(&engine, id).await;
    assert_eq!(kit::status(&engine, id).await, "Blocked", "{old:?} → {new:?}: {why}");
    for part in expected {
        assert!(why.contains(part), "{why} lacks {part}");
    }
    assert_eq!(notes.all(), before, "nothing runs where the code does not fit");
    // Others behind it wait, and say for whom.
    let behind = engine.local().send(GO.on("x"), ()).await.unwrap();
    engine.settle().await;
    assert!(kit::sentence(&engine, behind).await.contains(&format!("behind {id}")));
    // Fitting code goes on where it was, its timer included.
    engine.deploy(program(old, &notes)).await.unwrap();
    engine.settle().await;
    assert_eq!(kit::status(&engine, id).await, "Blocked");
    kit::retry(&engine, id).await;
    engine.advance(HOUR).await;
    engine.advance(HOUR).await;
    engine.local().result::<String>(id).await.unwrap();
    engine.advance(2 * HOUR).await;
    engine.local().result::<String>(behind).await.unwrap();
    kit::sound(&engine).await;
}

#[tokio::test]
async fn swapped_steps_are_parked_with_both_sides_shown() {
    deployed(&["step a", "step b", "sleep"], &["step b", "step a", "sleep"], &["recorded #0 step `a`", "attempted #0 step `b`"]).await;
}

#[tokio::test]
async fn a_renamed_step_is_parked_with_both_sides_shown() {
    deployed(&["step a", "step b", "sleep"], &["step a", "step c", "sleep"], &["recorded #1 step `b`", "attempted #1 step `c`"]).await;
}

#[tokio::test]
async fn a_missing_step_is_parked_with_both_sides_shown() {
    deployed(&["step a", "step b", "sleep"], &["step b", "sleep"], &["recorded #0 step `a`", "attempted #0 step `b`"]).await;
}

#[tokio::test]
async fn a_leftover_entry_is_parked() {
    deployed(&["step a", "step b", "sleep"], &["step a"], &["recorded #1 step `b`", "attempted nothing"]).await;
}

#[tokio::test]
async fn an_operation_that_was_begun_and_is_called_no_more_is_parked() {
    deployed(&["step a", "sleep"], &["step a"], &["recorded #1 sleep", "attempted nothing"]).await;
}

#[tokio::test]
async fn an_extra_step_is_parked_with_the_timer_that_was_begun() {
    deployed(&["step a", "sleep"], &["step a", "step b", "sleep"], &["recorded #1 sleep", "attempted #1 step `b`"]).await;
}

#[tokio::test]
async fn a_changed_write_of_state_is_parked_with_both_sides_shown() {
    deployed(&["set n", "sleep"], &["set m", "sleep"], &["recorded #0 state.set `n`", "attempted #0 state.set `m`"]).await;
    deployed(&["get n", "set n", "sleep"], &["set n", "sleep"], &["recorded #0 state.get `n`", "attempted #0 state.set `n`"]).await;
}

#[tokio::test]
async fn a_missing_handler_is_parked_and_found_again_after_a_deploy() {
    let notes = Notes::default();
    let mut engine = test::Engine::new(program(&["step a", "sleep"], &notes)).await.unwrap();
    let id = engine.local().send(GO.on("x"), ()).await.unwrap();
    engine.settle().await;
    engine.deploy(App::new()).await.unwrap();
    engine.advance(HOUR).await;
    assert!(kit::sentence(&engine, id).await.contains("subject.go, which this binary does not have"));
    engine.deploy(program(&["step a", "sleep"], &notes)).await.unwrap();
    assert_eq!(engine.local().result::<String>(id).await.unwrap(), "a");
}

#[tokio::test]
async fn an_error_text_with_a_stack_trace_does_not_change_a_replay() {
    let app = App::new().handler(GO, async |ctx: Ctx, (): ()| {
        let mut said = String::new();
        for _ in 0..3 {
            let failed = ctx
                .step("fails", async |_| {
                    let trace = std::backtrace::Backtrace::force_capture();
                    Err::<u32, _>(selvedge::Failure::terminal("broken", format!("at {:p}: {trace}", &raw const trace)))
                })
                .await;
            let text = failed.unwrap_err().message().to_owned();
            assert!(text.len() <= 16 * 1024 + 64);
            said.push_str(&text);
            ctx.sleep(Duration::from_secs(60)).await?;
        }
        Ok(said.len().to_string())
    });
    let mut engine = test::Engine::new(app).await.unwrap();
    let id = engine.local().send(GO.on("x"), ()).await.unwrap();
    for _ in 0..4 {
        engine.advance(Duration::from_secs(61)).await;
        engine.kill_and_reopen().await.unwrap();
        engine.settle().await;
    }
    engine.local().result::<String>(id).await.unwrap();
    assert_eq!(engine.effects().len(), 3);
}
