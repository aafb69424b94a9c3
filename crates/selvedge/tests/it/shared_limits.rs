//! Limits that tasks of many runs, in many shards, share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use selvedge::{Activity, App, Attempt, Definition, RunId, test};
use selvedge_kernel::machine::RunState;
use selvedge_kernel::record::kind::Kind;
use selvedge_kernel::waiting::Waiting;
use serde_json::{Value, json};

use crate::kit;

const FETCH: Activity<Value, Value> = Activity::new("fetch");

/// What the activity saw.
#[derive(Default)]
struct Seen {
    running: BTreeMap<String, usize>,
    most: BTreeMap<String, usize>,
    starts: Vec<u64>,
}

#[derive(Clone, Default)]
struct Watch {
    seen: Arc<Mutex<Seen>>,
    now: Arc<AtomicU64>,
    /// Nobody ends while this is above zero.
    held: Arc<AtomicU64>,
}

/// One attempt, until it ends or is dropped.
struct Running(Watch, String);

impl Running {
    fn start(watch: &Watch, key: &str) -> Running {
        let mut seen = watch.seen.lock().unwrap();
        let running = seen.running.entry(key.to_owned()).or_default();
        *running += 1;
        let running = *running;
        let most = seen.most.entry(key.to_owned()).or_default();
        *most = running.max(*most);
        seen.starts.push(watch.now.load(Ordering::SeqCst));
        drop(seen);
        Running(watch.clone(), key.to_owned())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        *self.0.seen.lock().unwrap().running.get_mut(&self.1).unwrap() -= 1;
    }
}

impl Watch {
    fn app(&self, activity: &str, stage: &str) -> App {
        let watch = self.clone();
        App::new().pipeline(links(activity, stage)).activity(FETCH, async move |_: Attempt, value: Value| {
            let running = Running::start(&watch, value["key"].as_str().unwrap_or(""));
            tokio::time::sleep(Duration::from_millis(value["n"].as_u64().unwrap_or(0) % 3)).await;
            while watch.held.load(Ordering::SeqCst) > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            drop(running);
            Ok(value)
        })
    }

    fn most(&self, key: &str) -> usize {
        self.seen.lock().unwrap().most.get(key).copied().unwrap_or(0)
    }

    fn running(&self) -> usize {
        self.seen.lock().unwrap().running.values().sum()
    }

    async fn advance(&self, engine: &test::Engine, ms: u64) {
        self.now.fetch_add(ms, Ordering::SeqCst);
        engine.advance(Duration::from_millis(ms)).await;
    }
}

fn links(activity: &str, stage: &str) -> Definition {
    let text = format!(
        r#"
selvedge: 1
name: links
input: {{ links: {{ type: array }} }}
activities: {{ fetch: {{ native: true{activity} }} }}
stages:
  - {{ name: each, mode: scatter, over: input.links, call: fetch{stage} }}
output: "${{stages.each.output[].n}}"
"#
    );
    selvedge::pipeline("links.yaml", &text).unwrap_or_else(|wrong| panic!("{}", selvedge_kernel::diagnostic::listed(&wrong))).0
}

fn items(keys: &[&str], count: usize) -> Value {
    let links: Vec<Value> = (0..count).map(|n| json!({ "key": keys[n % keys.len()], "n": n })).collect();
    json!({ "links": links })
}

async fn start(engine: &test::Engine, input: &Value) -> RunId {
    engine.local().start("links", input.clone()).await.unwrap().id()
}

/// Runs with their work in so many different shards.
async fn in_shards(engine: &test::Engine, count: usize, input: &Value) -> Vec<RunId> {
    let (mut runs, mut shards) = (Vec::new(), BTreeSet::new());
    while shards.len() < count {
        let run = start(engine, input).await;
        shards.insert(run.0.hash.shard(64));
        runs.push(run);
    }
    runs
}

async fn ended(engine: &test::Engine, runs: &[RunId]) -> bool {
    for run in runs {
        let status = engine.local().run(*run).status().await.unwrap();
        assert!(!matches!(status.state, RunState::Failed | RunState::Cancelled), "{status:#?}");
        if !status.state.ended() {
            return false;
        }
    }
    true
}

async fn until(what: &str, fits: impl Fn() -> bool) {
    for _ in 0..10_000 {
        if fits() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("never {what}");
}

/// Nothing is lent and nobody waits: once the windows have passed, no limit has a row.
async fn at_rest(engine: &test::Engine) {
    engine.settle().await;
    engine.advance(Duration::from_secs(60)).await;
    engine.settle().await;
    assert_eq!(kit::rows(engine, Kind::Limit), 0, "a limit that nobody uses has no row");
    assert!(engine.verify().await.is_empty());
}

#[tokio::test]
async fn a_keyed_throttle_of_two_over_three_keys_runs_six_at_once() {
    let watch = Watch::default();
    watch.held.store(1, Ordering::SeqCst);
    let engine = test::Engine::new(watch.app("", ", throttle: { concurrency: 2, key: item.key }")).await.unwrap();
    let run = start(&engine, &items(&["a", "b", "c"], 30)).await;
    until("six at once", || watch.running() == 6).await;
    engine.settle().await;
    assert_eq!(watch.running(), 6);
    let status = engine.local().run(run).status().await.unwrap();
    assert_eq!(status.stages[0].running, 6, "a task that waits is not running");
    let waits = |key: &str| {
        status.waiting.iter().any(|waiting| matches!(waiting, Waiting::Throttle { limit, position: 0, .. } if *limit == format!("stage links.each[{key}]")))
    };
    assert!(waits("a") && waits("b") && waits("c"), "{:?}", status.waiting);
    watch.held.store(0, Ordering::SeqCst);
    engine.local().run(run).result::<Value>().await.unwrap();
    assert!(["a", "b", "c"].into_iter().all(|key| watch.most(key) == 2));
    at_rest(&engine).await;
}

#[tokio::test]
async fn case_53_a_key_used_by_runs_in_forty_shards_holds_in_sum_also_while_engines_are_killed() {
    let watch = Watch::default();
    let mut engine = test::Engine::new(watch.app("", ", throttle: { concurrency: 7, key: item.key }")).await.unwrap();
    let runs = in_shards(&engine, 40, &items(&["a", "a", "b"], 12)).await;
    let mut dice = 77u64;
    for _ in 0..12 {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        tokio::time::sleep(Duration::from_millis(dice >> 60)).await;
        engine.kill_and_reopen().await.unwrap();
    }
    for _ in 0..5_000 {
        if ended(&engine, &runs).await {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(ended(&engine, &runs).await);
    assert_eq!((watch.most("a"), watch.most("b")), (7, 7), "the whole limit is used, and no more");
    // A limit that was last used in an earlier life has its row until somebody uses it again, or its day has come.
    let last = start(&engine, &items(&["a", "b"], 2)).await;
    engine.local().run(last).result::<Value>().await.unwrap();
    at_rest(&engine).await;
}

#[tokio::test]
async fn case_53_the_rate_of_a_key_holds_over_shards_and_restarts() {
    let watch = Watch::default();
    let mut engine = test::Engine::new(watch.app("", ", throttle: { rate: { count: 5, per: 1s }, key: item.key }")).await.unwrap();
    let runs = in_shards(&engine, 8, &items(&["a"], 3)).await;
    let mut steps = 0;
    while !ended(&engine, &runs).await {
        engine.settle().await;
        watch.advance(&engine, 50).await;
        steps += 1;
        if steps % 17 == 0 {
            engine.settle().await;
            engine.kill_and_reopen().await.unwrap();
        }
        assert!(steps < 2_000, "{:?}", engine.local().run(runs[0]).status().await.unwrap());
    }
    let starts = watch.seen.lock().unwrap().starts.clone();
    assert!(starts.len() >= 3 * runs.len());
    for at in &starts {
        let within = starts.iter().filter(|other| **other <= *at && **other + 1_000 > *at).count();
        assert!(within <= 5, "{within} starts in the second before {at}: {starts:?}");
    }
    at_rest(&engine).await;
}

#[tokio::test]
async fn the_throttle_of_an_activity_holds_over_all_runs_that_call_it() {
    let watch = Watch::default();
    let engine = test::Engine::new(watch.app(", throttle: { concurrency: 3 }", "")).await.unwrap();
    let runs = in_shards(&engine, 10, &items(&["a"], 6)).await;
    for run in &runs {
        engine.local().run(*run).result::<Value>().await.unwrap();
    }
    assert_eq!(watch.most("a"), 3);
    at_rest(&engine).await;
}

#[tokio::test]
async fn a_cancelled_and_a_paused_run_hold_no_permit() {
    let watch = Watch::default();
    watch.held.store(1, Ordering::SeqCst);
    let engine = test::Engine::new(watch.app("", ", throttle: { concurrency: 2, key: item.key }")).await.unwrap();
    let first = start(&engine, &items(&["a"], 5)).await;
    until("two at once", || watch.running() == 2).await;
    let second = start(&engine, &items(&["a"], 5)).await;
    engine.settle().await;
    engine.local().run(second).pause().await.unwrap();
    engine.local().run(first).cancel().await.unwrap();
    until("nobody runs", || watch.running() == 0).await;
    engine.settle().await;
    assert_eq!(watch.running(), 0, "the paused run starts nothing");
    let third = start(&engine, &items(&["a"], 2)).await;
    until("the third has both places", || watch.running() == 2).await;
    engine.local().run(second).resume().await.unwrap();
    watch.held.store(0, Ordering::SeqCst);
    engine.local().run(third).result::<Value>().await.unwrap();
    engine.local().run(second).result::<Value>().await.unwrap();
    assert_eq!(watch.most("a"), 2);
    at_rest(&engine).await;
}
