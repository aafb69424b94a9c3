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

/// Somebody at work, also if he is killed at it.
struct Inside(Arc<AtomicU32>);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A pipeline that calls itself, or another one that calls it, while only so many of its runs may go at once.
fn tree(limit: u32, when_full: &str) -> App {
    let folder = format!(
        r#"
selvedge: 1
name: folder
input: {{ depth: {{ type: integer }}, owner: {{ type: string, default: ada }} }}
concurrency: {{ limit: {limit}, key: input.owner, when_full: {when_full} }}
stages:
  - {{ name: work, call: work, input: "${{input.depth}}" }}
  - {{ name: below, when: "input.depth > `0`", mode: scatter, over: "[`1`, `2`]", call: {{ pipeline: between }}, input: {{ depth: "${{add(input.depth, `-1`)}}", owner: "${{input.owner}}" }} }}
  - {{ name: after, call: work, input: "${{input.depth}}" }}
output: "${{stages.work.output}}"
"#
    );
    let between = r#"
selvedge: 1
name: between
input: { depth: { type: integer }, owner: { type: string } }
stages:
  - { name: down, call: { pipeline: folder }, input: { depth: "${input.depth}", owner: "${input.owner}" } }
output: "${stages.down.output}"
"#;
    App::new().pipeline(parse(&folder)).pipeline(parse(between))
}

#[tokio::test]
async fn case_24_a_run_that_waits_for_runs_below_it_gives_them_its_place_in_line_one_after_the_other() {
    for limit in [1, 2] {
        for batches in [0, 5, 17, 40, 90] {
            let (at_once, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
            let (now, peak) = (at_once, most.clone());
            let work = async move |_: Attempt, n: u64| {
                peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                let inside = Inside(now.clone());
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                drop(inside);
                Ok(n)
            };
            let mut engine = test::Engine::new(tree(limit, "wait").activity(WORK, work)).await.unwrap();
            let mut runs = Vec::new();
            for depth in [2u64, 0, 1] {
                runs.push((depth, start(&engine, "folder", json!({ "depth": depth })).await.id()));
            }
            if batches > 0 {
                let all = async |engine: &test::Engine| {
                    for (_, id) in &runs {
                        drop(end(engine, *id).await);
                    }
                };
                engine.kill_after(batches, all).await.unwrap();
            }
            for (depth, id) in runs {
                assert_eq!(end(&engine, id).await.unwrap(), json!(depth), "limit {limit}, killed after {batches}");
            }
            assert!(most.load(Ordering::SeqCst) <= limit, "{} of a line of {limit} worked at once", most.load(Ordering::SeqCst));
            // The place is free again.
            assert_eq!(end(&engine, start(&engine, "folder", json!({ "depth": 0 })).await.id()).await.unwrap(), json!(0));
            sound(&engine).await;
        }
    }
}

#[tokio::test]
async fn a_second_run_below_one_that_waits_is_refused_where_a_full_line_refuses() {
    // The first of the two is at work until it is cancelled.
    let work = async |_: Attempt, n: u64| if n > 0 { Ok(n) } else { std::future::pending().await };
    let engine = test::Engine::new(tree(1, "reject").activity(WORK, work)).await.unwrap();
    let run = start(&engine, "folder", json!({ "depth": 1 })).await;
    let error = end(&engine, run.id()).await.unwrap_err().to_string();
    assert!(error.contains("1 runs of `folder` go for `ada` already") && error.contains("when_full: reject"), "{error}");
    sound(&engine).await;
}

#[tokio::test]
async fn case_24_thirty_runs_below_one_another_share_one_place() {
    let deep = r#"
selvedge: 1
name: deep
input: { depth: { type: integer } }
concurrency: { limit: 1 }
stages:
  - { name: below, when: "input.depth > `0`", call: { pipeline: deep }, input: { depth: "${add(input.depth, `-1`)}" } }
output: "${input.depth}"
"#;
    let engine = test::Engine::new(App::new().pipeline(parse(deep))).await.unwrap();
    let first = start(&engine, "deep", json!({ "depth": 30 })).await;
    let behind = start(&engine, "deep", json!({ "depth": 0 })).await;
    assert_eq!(end(&engine, first.id()).await.unwrap(), json!(30));
    assert_eq!(end(&engine, behind.id()).await.unwrap(), json!(0), "the place is free again");
    sound(&engine).await;
}
