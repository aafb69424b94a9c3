//! Breakers that tasks of many runs, in many shards, share.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use selvedge::{Activity, ActorOptions, App, Attempt, Ctx, Definition, Failure, Handler, Outcome, Retry, RunId, test};
use selvedge_kernel::machine::{BreakerState, RunState};
use selvedge_kernel::record::kind::Kind;
use selvedge_kernel::waiting::Waiting;
use serde_json::{Value, json};

use crate::kit;
use crate::rig::Folder;

const CHARGE: Activity<Value, Value> = Activity::new("charge");
const SECOND: Duration = Duration::from_secs(1);

/// What a shop answers.
#[derive(Clone, Copy, PartialEq)]
enum Answer {
    Yes,
    /// It is not well.
    Away,
    /// It is well and says no.
    No,
    /// Not yet.
    Nothing,
}

/// What the item of a number gets.
type Answers = Box<dyn Fn(u64) -> Answer + Send>;

#[derive(Clone)]
struct Shop {
    tries: Arc<AtomicU64>,
    answers: Arc<Mutex<Answers>>,
}

impl Shop {
    fn new(answer: Answer) -> Shop {
        Shop { tries: Arc::default(), answers: Arc::new(Mutex::new(Box::new(move |_| answer))) }
    }

    /// From now on: what it answers to an item, by number.
    fn answers(&self, answers: impl Fn(u64) -> Answer + Send + 'static) {
        *self.answers.lock().unwrap() = Box::new(answers);
    }

    fn tries(&self) -> u64 {
        self.tries.load(Ordering::SeqCst)
    }

    async fn serve(&self, n: u64) -> Outcome<Value> {
        self.tries.fetch_add(1, Ordering::SeqCst);
        loop {
            let answer = (self.answers.lock().unwrap())(n);
            match answer {
                Answer::Yes => return Ok(json!(n)),
                Answer::Away => return Err(Failure::retryable("http_503", "the shop is away")),
                Answer::No => return Err(Failure::terminal("card_declined", "no")),
                Answer::Nothing => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    }

    fn app(&self, stage: &str) -> App {
        let shop = self.clone();
        App::new().pipeline(orders(stage)).activity(CHARGE, async move |_: Attempt, item: Value| shop.serve(item.as_u64().unwrap_or_default()).await)
    }

    async fn engine(&self, stage: &str) -> test::Engine {
        test::Engine::new(self.app(stage)).await.unwrap()
    }
}

fn orders(stage: &str) -> Definition {
    let text = format!(
        "selvedge: 1\nname: orders\ninput: {{ items: {{ type: array }} }}\nactivities: {{ charge: {{ native: true }} }}\n\
         stages:\n  - {{ name: each, mode: scatter, over: input.items, input: \"${{item}}\", {stage} }}\noutput: \"${{stages.each.output}}\"\n"
    );
    selvedge::pipeline("orders.yaml", &text).unwrap_or_else(|wrong| panic!("{}", selvedge_kernel::diagnostic::listed(&wrong))).0
}

/// Tried again each second, without end.
const PATIENT: &str = "retry: { max_attempts: 1000, backoff: fixed, initial: 1s, max: 1s, jitter: 0 }";

fn charge(breaker: &str, more: &str) -> String {
    format!("call: charge, breaker: {breaker}, {more}")
}

async fn start(engine: &test::Engine, count: u64) -> RunId {
    let items: Vec<u64> = (0..count).collect();
    engine.local().start("orders", json!({ "items": items })).await.unwrap().id()
}

/// Two runs in two shards.
async fn two_runs(engine: &test::Engine) -> [RunId; 2] {
    let first = start(engine, 1).await;
    loop {
        let second = start(engine, 1).await;
        if second.0.hash.shard(64) != first.0.hash.shard(64) {
            return [first, second];
        }
        engine.local().run(second).cancel().await.unwrap();
    }
}

/// What a run says of the breaker that it waits for: state, since and until when.
async fn breaker(engine: &test::Engine, run: RunId) -> Option<(BreakerState, u64, Option<u64>)> {
    let status = engine.local().run(run).status().await.unwrap();
    status.waiting.into_iter().find_map(|waiting| match &waiting {
        Waiting::Breaker { target, state, since: Some(since), until } => {
            let sentence = waiting.sentence();
            assert!(target == "stage orders.each" && sentence.contains(target) && sentence.contains(&since.to_string()), "{sentence}");
            assert!(until.is_none_or(|until| sentence.contains(&until.to_string())), "{sentence}");
            Some((*state, since.0, until.map(|until| until.0)))
        }
        _ => None,
    })
}

async fn pass(engine: &test::Engine, seconds: u64) {
    for _ in 0..seconds {
        engine.advance(SECOND).await;
        engine.settle().await;
    }
}

async fn until(what: &str, fits: impl AsyncFn() -> bool) {
    for _ in 0..10_000 {
        if fits().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("never {what}");
}

async fn ended(engine: &test::Engine, run: RunId) -> RunState {
    let state = async || engine.local().run(run).status().await.unwrap().state;
    until("ended", async || state().await.ended()).await;
    state().await
}

#[tokio::test]
async fn case_16_a_breaker_opens_half_opens_opens_again_and_closes_for_runs_in_two_shards_and_over_restarts() {
    let shop = Shop::new(Answer::Away);
    let mut engine = shop.engine(&charge("{ failures: 4, window: 1m, open_for: 30s, probes: 1 }", PATIENT)).await;
    let runs = two_runs(&engine).await;
    engine.settle().await;
    assert_eq!(shop.tries(), 2, "below its failures everybody goes");
    // Two failures before a restart, two behind it.
    engine.kill_and_reopen().await.unwrap();
    pass(&engine, 2).await;
    assert_eq!(shop.tries(), 4);
    let mut opened = None;
    for run in runs {
        let (state, since, until) = breaker(&engine, run).await.unwrap();
        assert_eq!((state, until), (BreakerState::Open, Some(since + 30_000)));
        assert_eq!(opened.replace(since).unwrap_or(since), since, "it is one breaker");
    }
    let since = opened.unwrap();
    pass(&engine, 10).await;
    engine.kill_and_reopen().await.unwrap();
    pass(&engine, 15).await;
    assert_eq!(shop.tries(), 4, "nobody tries while it is open, nor after a restart");
    assert_eq!(breaker(&engine, runs[0]).await, Some((BreakerState::Open, since, Some(since + 30_000))));
    for run in runs {
        let status = engine.local().run(run).status().await.unwrap();
        assert_eq!((status.state, status.stages[0].failed), (RunState::Running, 0), "who waits has not failed");
    }
    pass(&engine, 5).await;
    assert_eq!(shop.tries(), 5, "one finds out");
    let (state, again, until) = breaker(&engine, runs[0]).await.or(breaker(&engine, runs[1]).await).unwrap();
    assert_eq!((state, until), (BreakerState::Open, Some(again + 30_000)), "and it opens again");
    assert!(again > since);
    engine.kill_and_reopen().await.unwrap();
    pass(&engine, 28).await;
    assert_eq!(shop.tries(), 5);
    shop.answers(|_| Answer::Yes);
    pass(&engine, 4).await;
    for run in runs {
        assert_eq!(ended(&engine, run).await, RunState::Completed);
    }
    assert_eq!(shop.tries(), 7, "one has found out, and the other one went when it closed");
    pass(&engine, 61).await;
    assert_eq!(kit::rows(&engine, Kind::Breaker), 0, "a closed breaker without failures has no row");
    assert!(engine.verify().await.is_empty());
}

#[tokio::test]
async fn case_16_a_half_open_breaker_is_half_open_after_a_restart_and_its_lost_probes_are_made_again() {
    let shop = Shop::new(Answer::Away);
    let mut engine = shop.engine(&charge("{ failures: 1, open_for: 30s, probes: 2 }", PATIENT)).await;
    let run = start(&engine, 1).await;
    engine.settle().await;
    let others = start(&engine, 8).await;
    pass(&engine, 10).await;
    assert_eq!(shop.tries(), 1);
    shop.answers(|_| Answer::Nothing);
    engine.advance(21 * SECOND).await;
    until("two find out", async || shop.tries() == 3).await;
    engine.settle().await;
    let (state, since, _) = breaker(&engine, others).await.unwrap();
    assert_eq!((state, shop.tries()), (BreakerState::HalfOpen, 3));
    engine.kill_and_reopen().await.unwrap();
    until("two find out again", async || shop.tries() == 5).await;
    engine.settle().await;
    assert_eq!(shop.tries(), 5, "the probes of a process that died hold nobody up, and no more are made");
    assert_eq!(breaker(&engine, others).await.map(|said| (said.0, said.1)), Some((BreakerState::HalfOpen, since)));
    shop.answers(|_| Answer::Yes);
    assert_eq!((ended(&engine, run).await, ended(&engine, others).await), (RunState::Completed, RunState::Completed));
}

#[tokio::test]
async fn case_16_it_opens_after_as_many_failures_as_it_says() {
    for failures in [1, 4] {
        let shop = Shop::new(Answer::Away);
        let engine = shop.engine(&charge(&format!("{{ failures: {failures}, window: 1h, open_for: 1h }}"), PATIENT)).await;
        let run = start(&engine, 1).await;
        pass(&engine, 10).await;
        assert_eq!((shop.tries(), breaker(&engine, run).await.map(|said| said.0)), (failures, Some(BreakerState::Open)));
    }
}

#[tokio::test]
async fn case_16_failures_count_within_its_window_and_not_beyond() {
    for (window, tries) in [("1500ms", 2), ("500ms", 10)] {
        let shop = Shop::new(Answer::Away);
        // One failure each second: two of them are within one and a half, and never within a half.
        let engine = shop.engine(&charge(&format!("{{ failures: 2, window: {window}, open_for: 1h }}"), PATIENT)).await;
        start(&engine, 1).await;
        engine.settle().await;
        pass(&engine, 9).await;
        assert_eq!(shop.tries(), tries, "{window}");
    }
}

#[tokio::test]
async fn case_16_it_is_open_for_as_long_as_it_says() {
    for open_for in [5, 40] {
        let shop = Shop::new(Answer::Away);
        let engine = shop.engine(&charge(&format!("{{ failures: 1, open_for: {open_for}s }}"), PATIENT)).await;
        let run = start(&engine, 1).await;
        engine.settle().await;
        pass(&engine, open_for - 1).await;
        assert_eq!(shop.tries(), 1);
        let (_, since, until) = breaker(&engine, run).await.unwrap();
        assert_eq!(until, Some(since + open_for * 1_000));
        pass(&engine, 2).await;
        assert_eq!(shop.tries(), 2);
    }
}

#[tokio::test]
async fn case_16_as_many_find_out_at_once_as_its_probes_say_and_the_rest_goes_when_it_closes() {
    for probes in [1, 3] {
        let shop = Shop::new(Answer::Away);
        let engine = shop.engine(&charge(&format!("{{ failures: 1, open_for: 30s, probes: {probes} }}"), PATIENT)).await;
        start(&engine, 1).await;
        engine.settle().await;
        let run = start(&engine, 12).await;
        engine.settle().await;
        shop.answers(|_| Answer::Nothing);
        engine.advance(31 * SECOND).await;
        until("some find out", async || shop.tries() == 1 + probes).await;
        pass(&engine, 5).await;
        assert_eq!(shop.tries(), 1 + probes);
        shop.answers(|_| Answer::Yes);
        assert_eq!(ended(&engine, run).await, RunState::Completed);
    }
}

#[tokio::test]
async fn case_16_what_was_under_way_when_it_opened_neither_closes_it_nor_opens_it_again() {
    let shop = Shop::new(Answer::Nothing);
    let engine = shop.engine(&charge("{ failures: 1, open_for: 30s, probes: 1 }", PATIENT)).await;
    let run = start(&engine, 6).await;
    until("six at once", async || shop.tries() == 6).await;
    // The first one fails; the others are on their way, and so is its next attempt when it is half open.
    shop.answers(|n| if n == 0 { Answer::Away } else { Answer::Nothing });
    until("open", async || {
        breaker(&engine, run).await.is_some_and(|said| said.0 == BreakerState::Open) || {
            pass(&engine, 1).await;
            false
        }
    })
    .await;
    assert_eq!(shop.tries(), 6);
    shop.answers(|_| Answer::Nothing);
    let late = start(&engine, 3).await;
    pass(&engine, 32).await;
    until("one finds out", async || shop.tries() == 7).await;
    let said = breaker(&engine, late).await.unwrap();
    assert_eq!(said.0, BreakerState::HalfOpen);
    shop.answers(|n| {
        if n == 3 {
            Answer::Yes
        } else if n == 4 {
            Answer::Away
        } else {
            Answer::Nothing
        }
    });
    pass(&engine, 3).await;
    until("two have ended", async || engine.local().run(run).status().await.unwrap().stages[0].done == 1).await;
    pass(&engine, 3).await;
    assert_eq!((shop.tries(), breaker(&engine, late).await), (7, Some(said)), "old ends decide nothing");
    shop.answers(|_| Answer::Yes);
    pass(&engine, 2).await;
    assert_eq!((ended(&engine, run).await, ended(&engine, late).await), (RunState::Completed, RunState::Completed));
}

#[tokio::test]
async fn case_16_a_task_that_was_let_through_and_has_not_started_waits_when_it_opens() {
    let shop = Shop::new(Answer::Away);
    let stage = charge("{ failures: 3, open_for: 30s }", "retry: none, on_failure: continue, throttle: { concurrency: 1 }");
    let engine = shop.engine(&stage).await;
    let run = start(&engine, 20).await;
    pass(&engine, 5).await;
    let tries = shop.tries();
    assert!((3..=4).contains(&tries), "one may be on its way when it opens: {tries}");
    pass(&engine, 20).await;
    assert_eq!(shop.tries(), tries);
    shop.answers(|_| Answer::Yes);
    pass(&engine, 10).await;
    assert_eq!(ended(&engine, run).await, RunState::Completed);
    assert_eq!((shop.tries(), engine.local().run(run).status().await.unwrap().stages[0].failed), (20, tries as u32));
}

#[tokio::test]
async fn case_16_a_target_that_says_no_is_well() {
    let shop = Shop::new(Answer::No);
    let engine = shop.engine(&charge("{ failures: 1, open_for: 1h }", "retry: { max_attempts: 3 }, on_failure: continue")).await;
    let run = start(&engine, 20).await;
    assert_eq!(ended(&engine, run).await, RunState::Completed);
    assert_eq!((shop.tries(), kit::rows(&engine, Kind::Breaker)), (20, 0));
    // What `give_up_on` names is an answer as well.
    let shop = Shop::new(Answer::Away);
    let engine = shop.engine(&charge("{ failures: 1, open_for: 1h }", "retry: { give_up_on: [http_503] }, on_failure: continue")).await;
    let run = start(&engine, 20).await;
    assert_eq!(ended(&engine, run).await, RunState::Completed);
    assert_eq!(shop.tries(), 20);
}

#[tokio::test]
async fn case_16_runs_of_many_shards_all_end_whatever_is_killed_while_the_shop_comes_and_goes() {
    let shop = Shop::new(Answer::Yes);
    let stage = charge("{ failures: 3, window: 10s, open_for: 2s, probes: 2 }", &format!("{PATIENT}, throttle: {{ concurrency: 3 }}"));
    let mut engine = shop.engine(&stage).await;
    let (mut runs, mut shards) = (Vec::new(), BTreeSet::new());
    while shards.len() < 10 {
        let run = start(&engine, 8).await;
        shards.insert(run.0.hash.shard(64));
        runs.push(run);
    }
    let mut dice = 16u64;
    let mut opened = 0;
    for step in 0..60 {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let answer = if dice >> 62 == 0 { Answer::Yes } else { Answer::Away };
        shop.answers(move |n| if step < 40 && n % 3 == 0 { answer } else { Answer::Away });
        engine.advance(Duration::from_millis(dice >> 54)).await;
        tokio::time::sleep(Duration::from_micros(dice >> 51 & 0xfff)).await;
        if dice >> 60 & 3 == 0 {
            engine.kill_and_reopen().await.unwrap();
        }
        opened += u64::from(breaker(&engine, runs[step % runs.len()]).await.is_some_and(|said| said.0 != BreakerState::Closed));
    }
    // How often depends on how fast the machine is.
    assert!(opened > 0, "it was never open");
    shop.answers(|_| Answer::Yes);
    for run in &runs {
        for _ in 0..200 {
            if engine.local().run(*run).status().await.unwrap().state.ended() {
                break;
            }
            pass(&engine, 1).await;
        }
        assert_eq!(ended(&engine, *run).await, RunState::Completed);
    }
    pass(&engine, 11).await;
    assert_eq!(kit::rows(&engine, Kind::Breaker), 0);
    assert!(engine.verify().await.is_empty());
}

const SELL: Handler<u64, u64> = Handler::new("stock", "sell");

#[tokio::test]
async fn case_16_an_actor_that_says_no_is_well_and_one_whose_attempts_are_used_up_is_not() {
    for (failure, open) in [(Failure::terminal as fn(&'static str, &'static str) -> Failure, false), (Failure::retryable, true)] {
        let tries = Arc::new(AtomicU64::new(0));
        let counted = tries.clone();
        let stage = "call: { actor: stock, key: a, handler: sell }, breaker: { failures: 2, open_for: 1h }, on_failure: continue, throttle: { concurrency: 1 }";
        let app = App::new().pipeline(orders(stage)).actor("stock", ActorOptions { retry: Retry::fixed(2, SECOND), ..ActorOptions::default() }).handler(
            SELL,
            async move |_: Ctx, _: u64| {
                counted.fetch_add(1, Ordering::SeqCst);
                Err(failure("sold_out", "none is left"))
            },
        );
        let engine = test::Engine::new(app).await.unwrap();
        let run = start(&engine, 6).await;
        pass(&engine, 12).await;
        let said = breaker(&engine, run).await;
        assert_eq!(said.map(|said| said.0), open.then_some(BreakerState::Open));
        if open {
            let sent = tries.load(Ordering::SeqCst) / 2;
            assert!((2..=3).contains(&sent), "one may be on its way when it opens: {sent}");
        } else {
            assert_eq!((ended(&engine, run).await, tries.load(Ordering::SeqCst)), (RunState::Completed, 6));
        }
    }
}

#[tokio::test]
async fn a_cancelled_run_that_waits_for_a_breaker_ends_and_keeps_nobody_from_it() {
    let shop = Shop::new(Answer::Away);
    let engine = shop.engine(&charge("{ failures: 1, open_for: 30s }", PATIENT)).await;
    let runs = two_runs(&engine).await;
    pass(&engine, 5).await;
    assert!(breaker(&engine, runs[0]).await.is_some() && breaker(&engine, runs[1]).await.is_some());
    let waiting: BTreeSet<String> = engine.local().run(runs[1]).status().await.unwrap().waiting.iter().map(Waiting::sentence).collect();
    assert!(waiting.iter().any(|sentence| sentence.starts_with("for the breaker of stage orders.each, open since ")), "{waiting:?}");
    engine.local().run(runs[0]).cancel().await.unwrap();
    assert_eq!(ended(&engine, runs[0]).await, RunState::Cancelled);
    shop.answers(|_| Answer::Yes);
    pass(&engine, 32).await;
    assert_eq!(ended(&engine, runs[1]).await, RunState::Completed);
}

#[test]
fn why_names_the_breaker_its_state_and_its_times_and_check_takes_it() {
    let folder = Folder::new();
    folder.write(
        "p.yaml",
        "selvedge: 1\nname: p\nactivities:\n  away: { exec: [sh, -c, 'exit 3'], persistent: false, retry: { initial: 10ms }, breaker: { failures: 2, open_for: 1h } }\nstages:\n  - { name: a, call: away }\n",
    );
    assert_eq!(folder.selvedge(&["pipelines", "check", "p.yaml"]).code, 0);
    let holder = folder.start(&["run", "p.yaml"]);
    let run = folder.until_run("for the breaker of activity away, open since ");
    let said = folder.selvedge(&["why", &run]).out;
    assert!(said.contains("because of its failures; at 2") && said.contains("Z it lets somebody try"), "{said}");
    let waiting = folder.json(&["why", &run])["waiting"].clone();
    let breaker = waiting.as_array().unwrap().iter().find(|waiting| waiting["for"] == "breaker").unwrap();
    assert_eq!((&breaker["target"], &breaker["state"]), (&json!("activity away"), &json!("open")));
    assert!(breaker["since"].as_str() < breaker["until"].as_str(), "{breaker}");
    assert_eq!(folder.selvedge(&["runs", "cancel", &run]).code, 0);
    assert_eq!(folder.end(holder).code, 1);
}
