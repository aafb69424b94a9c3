//! Runs that wait for runs, with every limit at its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use selvedge::{Activity, App, Attempt, Settings, test};
use selvedge_kernel::limit::Limits;
use serde_json::json;

use super::runs::{end, parse, sound, start};

const WORK: Activity<u64, u64> = Activity::new("work");

/// A grandparent, its children and their children: of each kind two runs go at once, each has one task at a time, and what
/// they do in the end is done by one at a time.
const PIPELINES: [&str; 3] = [
    r#"
selvedge: 1
name: grandparent
input: { n: { type: integer } }
concurrency: { limit: 2 }
stages:
  - { name: each, mode: scatter, over: "[`0`, `1`, `2`]", call: { pipeline: parent }, input: { n: "${input.n}", m: "${item}" }, throttle: { concurrency: 2 } }
output: "${sum(stages.each.output)}"
"#,
    r#"
selvedge: 1
name: parent
input: { n: { type: integer }, m: { type: integer } }
concurrency: { limit: 2 }
stages:
  - { name: down, call: { pipeline: child }, input: { n: "${add(input.n, input.m)}" }, throttle: { concurrency: 1, key: "'all'" } }
output: "${stages.down.output}"
"#,
    r#"
selvedge: 1
name: child
input: { n: { type: integer } }
concurrency: { limit: 2 }
stages:
  - { name: nap, mode: sleep, for: 1s }
  - { name: work, call: work, input: "${input.n}", throttle: { concurrency: 1, key: "'all'" } }
output: "${stages.work.output}"
"#,
];

#[tokio::test]
async fn case_24_nested_runs_at_full_concurrency_all_end_also_through_kills() {
    let (at_once, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (now, peak) = (at_once.clone(), most.clone());
    let work = async move |_: Attempt, n: u64| {
        peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        now.fetch_sub(1, Ordering::SeqCst);
        Ok(n)
    };
    let app = PIPELINES.iter().fold(App::new().activity(WORK, work), |app, text| app.pipeline(parse(text)));
    let settings = Settings { limits: Limits { run_tasks: 2, ..Limits::default() }, ..Settings::default() };
    let mut engine = test::Engine::with(app, settings).await.unwrap();
    let mut runs = Vec::new();
    for n in 0..5u64 {
        runs.push(start(&engine, "grandparent", json!({ "n": n })).await.id());
    }
    for _ in 0..3 {
        engine.advance(std::time::Duration::from_secs(2)).await;
        at_once.store(0, Ordering::SeqCst);
        engine.kill_and_reopen().await.unwrap();
    }
    for (n, id) in runs.into_iter().enumerate() {
        assert_eq!(end(&engine, id).await.unwrap(), json!(3 * n + 3));
    }
    let status = engine.local().runs().await.unwrap();
    assert_eq!(status.len(), 5 + 15 + 15, "each was started once");
    assert_eq!(most.load(Ordering::SeqCst), 1);
    sound(&engine).await;
}
