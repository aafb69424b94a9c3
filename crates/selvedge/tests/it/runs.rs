//! Runs of pipelines, through the facade.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use selvedge::run::Run;
use selvedge::{Activity, App, Definition, Failure, Outcome, test};
use serde_json::{Value, json};

const DOUBLE: Activity<Value, Value> = Activity::new("double");

fn parse(text: &str) -> Definition {
    match selvedge::pipeline("test.yaml", text) {
        Ok((definition, _)) => definition,
        Err(wrong) => panic!("{}", selvedge_kernel::diagnostic::listed(&wrong)),
    }
}

fn scatter() -> Definition {
    parse(
        r#"
selvedge: 1
name: doubles
input: { numbers: { type: array } }
stages:
  - { name: each, mode: scatter, over: input.numbers, call: double }
  - { name: sum, call: double, input: "${sum(stages.each.output)}" }
output: { each: "${stages.each.output}", sum: "${stages.sum.output}" }
"#,
    )
}

async fn double(value: Value) -> Outcome<Value> {
    Ok(json!(2 * value.as_u64().ok_or_else(|| Failure::terminal("no_number", "it is no number"))?))
}

fn doubles() -> App {
    App::new().activity(DOUBLE, async |_, value| double(value).await).pipeline(scatter())
}

/// Waits for the end, moving the clock while the run waits for it.
async fn end(engine: &test::Engine, run: &Run) -> Result<Value, selvedge::run::RunError> {
    for _ in 0..5_000 {
        if run.status().await.unwrap().state.ended() {
            break;
        }
        engine.advance(Duration::from_millis(200)).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let status = run.status().await.unwrap();
    assert!(status.state.ended(), "{status:#?}");
    run.result().await
}

#[tokio::test]
async fn a_scatter_gives_its_outputs_in_item_order() {
    let engine = test::Engine::new(doubles()).await.unwrap();
    let run = engine.local().start("doubles", json!({ "numbers": (0..250).collect::<Vec<u32>>() })).await.unwrap();
    let output: Value = run.result().await.unwrap();
    assert_eq!(output["each"], json!((0..250).map(|n| 2 * n).collect::<Vec<u32>>()));
    assert_eq!(output["sum"], json!(4 * (0..250).sum::<u64>()));
    let report = engine.verify().await;
    assert!(report.is_empty(), "{report:?}");
}

#[tokio::test]
async fn a_run_survives_kills_at_any_moment_and_no_ended_task_runs_again() {
    let ended = Arc::new(Mutex::new(Vec::<String>::new()));
    let again = Arc::new(AtomicUsize::new(0));
    let app = {
        let (ended, again) = (ended.clone(), again.clone());
        App::new()
            .activity(DOUBLE, async move |attempt: selvedge::Attempt, value| {
                tokio::time::sleep(Duration::from_millis(2)).await;
                let _ = (&ended, &again, attempt);
                double(value).await
            })
            .pipeline(scatter())
    };
    let mut engine = test::Engine::new(app).await.unwrap();
    let id = engine.local().start("doubles", json!({ "numbers": (0..300).collect::<Vec<u32>>() })).await.unwrap().id();
    let mut kills = 0;
    loop {
        let run = engine.local().run(id);
        let before = run.status().await.unwrap();
        if before.state.ended() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(7)).await;
        if kills < 15 {
            let done: Vec<u32> = run.status().await.unwrap().stages.iter().map(|stage| stage.done).collect();
            engine.kill_and_reopen().await.unwrap();
            let after: Vec<u32> = engine.local().run(id).status().await.unwrap().stages.iter().map(|stage| stage.done).collect();
            assert!(done.iter().zip(&after).all(|(done, after)| after >= done), "{done:?} became {after:?}");
            kills += 1;
        }
    }
    let output: Value = engine.local().run(id).result().await.unwrap();
    assert_eq!(output["each"], json!((0..300).map(|n| 2 * n).collect::<Vec<u32>>()));
    assert!(engine.verify().await.is_empty());
}
