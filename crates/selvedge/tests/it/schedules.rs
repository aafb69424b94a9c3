//! Schedules: as files say them, and as they fire.

use std::time::Duration;

use selvedge::{Activity, App, Attempt, Definition, Millis, RunId, Settings, Signal, test};
use selvedge_kernel::auth::{Action, Resource, authorize, local};
use selvedge_kernel::machine::RunState;
use selvedge_kernel::record::schedule::Counts;
use serde_json::{Value, json};

use crate::kit;
use crate::rig::Folder;

const NIGHTLY: &str = "
selvedge: 1
name: nightly
input: { files: { type: array } }
schedule: { cron: '30 3 * * *', zone: Europe/Vienna, input: { files: [a] }, overlap: skip, misfire: once }
stages:
  - { name: rest, mode: sleep, for: 1ms }
";

#[test]
fn check_prints_the_next_five_fires_as_the_clock_of_the_zone_shows_them() {
    let folder = Folder::new();
    folder.write("p.yaml", NIGHTLY);
    let said = folder.selvedge(&["pipelines", "check", "p.yaml"]);
    assert_eq!(said.code, 0, "{}", said.err);
    let lines: Vec<&str> = said.out.lines().collect();
    assert_eq!(lines.len(), 6, "{}", said.out);
    assert!(lines[1].starts_with("  would fire "), "{}", said.out);
    for line in &lines[1..] {
        assert!(line.contains("T03:30:00+0") && line.ends_with("[Europe/Vienna]"), "{line}");
    }
    let said = folder.selvedge(&["pipelines", "check", "p.yaml", "-o", "json"]);
    let shown: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(shown["ok"][0]["fires"].as_array().map(Vec::len), Some(5), "{}", said.out);
}

#[test]
fn check_refuses_a_schedule_with_its_line_and_a_hint() {
    let folder = Folder::new();
    folder.write("p.yaml", &NIGHTLY.replace("Europe/Vienna", "Europe/Viena"));
    let said = folder.selvedge(&["pipelines", "check", "p.yaml"]);
    assert_eq!(said.code, 78);
    assert!(said.err.contains("p.yaml:5:39: `zone`: there is no zone `Europe/Viena`\n  hint: did you mean Europe/Vienna?"), "{}", said.err);
}

const WORK: Activity<Value, Value> = Activity::new("work");
const TEN_MINUTES: Duration = Duration::from_secs(600);
/// When the clock of a test begins: 2026-01-01, a full hour.
const START: u64 = 1_767_225_600_000;

/// A pipeline that notes each run, every ten minutes.
fn noting(rest: &str) -> Definition {
    parsed(&format!(
        "
selvedge: 1
name: noting
input: {{ n: {{ type: integer, default: 1 }} }}
schedule: {{ every: 10m, input: {{ n: 7 }}{rest} }}
stages:
  - {{ name: note, call: work, input: '${{input.n}}' }}
output: ${{stages.note.output}}
"
    ))
}

/// A pipeline whose runs wait for a signal, every ten minutes.
fn waiting(rest: &str) -> Definition {
    parsed(&format!(
        "
selvedge: 1
name: waiting
schedule: {{ every: 10m{rest} }}
stages:
  - {{ name: hold, mode: wait_signal, signal: go }}
"
    ))
}

fn parsed(text: &str) -> Definition {
    match selvedge::pipeline("test.yaml", text) {
        Ok((definition, _)) => definition,
        Err(wrong) => panic!("{}", selvedge_kernel::diagnostic::listed(&wrong)),
    }
}

fn app(definition: Definition) -> App {
    App::new().activity(WORK, async |_: Attempt, n: Value| Ok(n)).pipeline(definition)
}

async fn engine(definition: Definition) -> test::Engine {
    test::Engine::with(app(definition), Settings::default()).await.unwrap()
}

/// The runs, the oldest first.
async fn runs(engine: &test::Engine) -> Vec<(RunId, RunState)> {
    let mut runs = engine.local().runs().await.unwrap();
    runs.reverse();
    runs.into_iter().map(|run| (run.id, run.state)).collect()
}

async fn counts(engine: &test::Engine, pipeline: &str) -> [u64; 4] {
    let Counts { started, overlapped, missed, failed } = engine.local().schedule(pipeline).status().await.unwrap().counts;
    [started, overlapped, missed, failed]
}

/// Waits for a condition, with the clock standing still.
async fn until<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    for _ in 0..10_000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("never: {what}");
}

#[tokio::test]
async fn each_fire_starts_a_run_with_the_schedules_input_and_no_time_fires_twice() {
    let engine = engine(noting("")).await;
    assert_eq!(engine.local().schedule("noting").status().await.unwrap().next, Some(Millis(START + 600_000)));
    for _ in 0..5 {
        engine.advance(TEN_MINUTES).await;
    }
    let started = runs(&engine).await;
    assert_eq!(started.len(), 5);
    for (id, _) in started {
        assert_eq!(engine.local().run(id).result::<u64>().await.unwrap(), 7);
    }
    assert_eq!(counts(&engine, "noting").await, [5, 0, 0, 0]);
    kit::sound(&engine).await;
}

#[tokio::test]
async fn fire_that_was_started_and_not_marked_before_a_kill_starts_no_second_run() {
    let mut engine = engine(noting("")).await;
    // What a process leaves that is killed after the run was accepted and before the record says so.
    let there = engine.local().start("noting", json!({ "n": 7 })).idempotency_key(format!("schedule\n{}", START + 600_000)).await.unwrap().id();
    engine.kill_and_move_on(TEN_MINUTES).await.unwrap();
    engine.settle().await;
    assert_eq!(runs(&engine).await.iter().map(|run| run.0).collect::<Vec<_>>(), [there]);
    assert_eq!(counts(&engine, "noting").await, [1, 0, 0, 0]);
}

#[tokio::test]
async fn run_that_was_started_and_not_marked_before_a_kill_is_under_way_for_the_fire_after_the_downtime() {
    for (overlap, open, cancelled, wanted) in [("skip", 1, 0, [1, 1, 0, 0]), ("cancel_other", 1, 1, [2, 0, 0, 0]), ("allow", 2, 0, [2, 0, 0, 0])] {
        let mut engine = engine(waiting(&format!(", overlap: {overlap}, misfire: once"))).await;
        // What a process leaves that is killed after the run was accepted and before the record says so; the next one comes
        // when another fire has been missed.
        let there = engine.local().start("waiting", json!({})).idempotency_key(format!("schedule\n{}", START + 600_000)).await.unwrap().id();
        engine.kill_and_move_on(Duration::from_secs(25 * 60)).await.unwrap();
        engine.settle().await;
        let found = runs(&engine).await;
        assert!(found.iter().any(|run| run.0 == there), "{overlap}: {found:?}");
        assert_eq!(found.iter().filter(|run| !run.1.ended()).count(), open, "{overlap}: {found:?}");
        assert_eq!(found.iter().filter(|run| run.1 == RunState::Cancelled).count(), cancelled, "{overlap}: {found:?}");
        assert_eq!(counts(&engine, "waiting").await, wanted, "{overlap}");
        kit::sound(&engine).await;
    }
}

#[tokio::test]
async fn fires_are_kept_through_kills_at_any_moment() {
    let mut engine = engine(noting(", overlap: allow, misfire: all")).await;
    for round in 0..30u64 {
        engine.engine().clone().advance(Duration::from_secs(60 * (round % 7))).await;
        engine.kill_and_move_on(Duration::from_secs(200)).await.unwrap();
    }
    engine.settle().await;
    let elapsed = engine.engine().now().0 - START;
    let started = runs(&engine).await;
    assert_eq!(started.len() as u64, elapsed / 600_000);
    kit::sound(&engine).await;
}

#[tokio::test]
async fn fires_missed_in_a_downtime_are_dropped_made_up_for_once_or_all_of_them_as_misfire_says() {
    for (misfire, wanted) in [("skip", [0, 0, 6, 0]), ("once", [1, 0, 5, 0]), ("all", [6, 0, 0, 0])] {
        let mut engine = engine(noting(&format!(", overlap: allow, misfire: {misfire}"))).await;
        engine.kill_and_move_on(Duration::from_secs(3_600 + 300)).await.unwrap();
        engine.settle().await;
        assert_eq!(counts(&engine, "noting").await, wanted, "{misfire}");
        assert_eq!(runs(&engine).await.len() as u64, wanted[0], "{misfire}");
        assert_eq!(engine.local().schedule("noting").status().await.unwrap().next, Some(Millis(START + 7 * 600_000)));
    }
}

#[tokio::test]
async fn clock_that_goes_back_fires_nothing_twice() {
    let engine = engine(noting("")).await;
    engine.advance(TEN_MINUTES).await;
    engine.jump(-400_000).await;
    for _ in 0..3 {
        engine.advance(Duration::from_secs(200)).await;
    }
    assert_eq!(runs(&engine).await.len(), 1);
}

#[tokio::test]
async fn fire_while_a_run_is_under_way_is_skipped_or_starts_beside_it_or_cancels_it_as_overlap_says() {
    for (overlap, open, cancelled, wanted) in [("skip", 1, 0, [1, 2, 0, 0]), ("allow", 3, 0, [3, 0, 0, 0]), ("cancel_other", 1, 2, [3, 0, 0, 0])] {
        let engine = engine(waiting(&format!(", overlap: {overlap}"))).await;
        for _ in 0..3 {
            engine.advance(TEN_MINUTES).await;
        }
        let found = runs(&engine).await;
        assert_eq!(found.iter().filter(|run| !run.1.ended()).count(), open, "{overlap}: {found:?}");
        assert_eq!(found.iter().filter(|run| run.1 == RunState::Cancelled).count(), cancelled, "{overlap}: {found:?}");
        assert_eq!(counts(&engine, "waiting").await, wanted, "{overlap}");
    }
}

#[tokio::test]
async fn one_fire_waits_for_the_end_of_the_run_before_it_through_a_kill_and_further_ones_are_dropped() {
    let mut engine = engine(waiting(", overlap: buffer_one")).await;
    for _ in 0..3 {
        engine.advance(TEN_MINUTES).await;
    }
    let first = runs(&engine).await[0].0;
    assert_eq!(counts(&engine, "waiting").await, [1, 1, 0, 0]);
    let status = engine.local().schedule("waiting").status().await.unwrap();
    assert_eq!(status.buffered, Some(Millis(START + 2 * 600_000)));
    assert!(status.sentence().contains(&format!("Its fire at 2026-01-01T00:20:00.000Z waits for the end of {first}.")), "{}", status.sentence());
    engine.kill_and_reopen().await.unwrap();
    engine.local().run(first).signal(Signal::<()>::new("go"), ()).await.unwrap();
    until("the buffered fire starts", async || runs(&engine).await.len() == 2).await;
    until("it is marked", async || engine.local().schedule("waiting").status().await.unwrap().buffered.is_none()).await;
    assert_eq!(counts(&engine, "waiting").await, [2, 1, 0, 0]);
    kit::sound(&engine).await;
}

#[tokio::test]
async fn paused_schedule_does_not_fire_and_resumed_it_misses_nothing_of_what_it_left_out() {
    let mut engine = engine(noting("")).await;
    let schedule = engine.local().schedule("noting");
    assert_eq!(schedule.pause().await.unwrap().next, None);
    engine.advance(2 * TEN_MINUTES).await;
    engine.kill_and_move_on(2 * TEN_MINUTES).await.unwrap();
    engine.settle().await;
    let schedule = engine.local().schedule("noting");
    assert!(schedule.status().await.unwrap().sentence().contains("is paused since 2026-01-01T00:00:00.000Z"));
    assert_eq!(schedule.resume().await.unwrap().next, Some(Millis(START + 5 * 600_000)));
    engine.advance(TEN_MINUTES).await;
    assert_eq!(counts(&engine, "noting").await, [1, 0, 0, 0]);
}

#[tokio::test]
async fn fired_by_hand_it_starts_a_run_although_it_is_paused_and_its_next_fire_stays() {
    let engine = engine(waiting("")).await;
    let schedule = engine.local().schedule("waiting");
    let first = schedule.fire().await.unwrap().id();
    assert_eq!(schedule.status().await.unwrap().next, Some(Millis(START + 600_000)));
    schedule.pause().await.unwrap();
    engine.advance(Duration::from_secs(1)).await;
    let second = schedule.fire().await.unwrap().id();
    assert_eq!(runs(&engine).await.iter().map(|run| run.0).collect::<Vec<_>>(), [first, second]);
}

#[tokio::test]
async fn removed_schedule_and_one_that_its_file_names_no_more_are_gone_with_their_timers() {
    let mut engine = engine(noting("")).await;
    engine.local().schedule("noting").remove().await.unwrap();
    engine.advance(TEN_MINUTES).await;
    assert_eq!(runs(&engine).await.len(), 0);
    assert_eq!(engine.local().schedules().await.unwrap(), []);
    let gone = engine.local().schedule("noting").status().await.unwrap_err().to_string();
    assert_eq!(gone, "the pipeline `noting` has no schedule here: `selvedge schedules list` shows those there are");
    // Opened again with the file, it is there again; with a file that names none, it is not.
    engine.kill_and_reopen().await.unwrap();
    assert_eq!(engine.local().schedules().await.unwrap().len(), 1);
    let without = Definition { schedule: None, ..noting("") };
    engine.deploy(app(without)).await.unwrap();
    engine.advance(TEN_MINUTES).await;
    assert_eq!(runs(&engine).await.len(), 0);
    assert_eq!(kit::rows(&engine, selvedge_kernel::record::kind::Kind::Schedule), 0);
    assert_eq!(kit::rows(&engine, selvedge_kernel::record::kind::Kind::Timer), 0);
}

#[tokio::test]
async fn schedule_removed_and_stored_again_fires_and_stored_twice_it_fires_once() {
    let mut engine = engine(noting("")).await;
    engine.local().schedule("noting").remove().await.unwrap();
    engine.kill_and_reopen().await.unwrap();
    engine.kill_and_reopen().await.unwrap();
    engine.advance(TEN_MINUTES).await;
    assert_eq!(runs(&engine).await.len(), 1);
    assert_eq!(counts(&engine, "noting").await, [1, 0, 0, 0]);
}

#[tokio::test]
async fn changed_schedule_fires_at_its_new_times_only_and_an_unchanged_one_goes_on() {
    let mut engine = engine(noting("")).await;
    engine.advance(Duration::from_secs(300)).await;
    engine.kill_and_reopen().await.unwrap();
    assert_eq!(engine.local().schedule("noting").status().await.unwrap().last, Millis(START), "it goes on");
    let mut hourly = noting("");
    hourly.schedule.as_mut().unwrap().when = selvedge_kernel::schedule::When::Every("1h".parse().unwrap());
    engine.deploy(app(hourly)).await.unwrap();
    assert_eq!(engine.local().schedule("noting").status().await.unwrap().next, Some(Millis(START + 3_600_000)));
    engine.advance(Duration::from_secs(1_000)).await;
    assert_eq!(runs(&engine).await.len(), 0);
}

#[tokio::test]
async fn fire_whose_pipeline_is_gone_is_counted_and_says_why() {
    let mut engine = engine(noting("")).await;
    engine.deploy(App::new()).await.unwrap();
    engine.advance(TEN_MINUTES).await;
    let status = engine.local().schedule("noting").status().await.unwrap();
    assert_eq!(status.counts.failed, 1);
    let said = status.sentence();
    assert!(said.contains("unknown_pipeline: the fire at 2026-01-01T00:10:00.000Z started nothing: there is no pipeline `noting` here"), "{said}");
    assert_eq!(status.next, Some(Millis(START + 2 * 600_000)), "it goes on");
}

#[tokio::test]
async fn runs_of_a_schedule_act_as_whoever_stored_it_last_also_when_it_says_the_same_and_its_next_fire_stays() {
    let engine = engine(noting("")).await;
    engine.advance(Duration::from_secs(300)).await;
    let asked = |id: &str, action| {
        let now = engine.engine().now();
        let mut context = local("default", now);
        context.principal.id = id.to_owned();
        let resource = Resource::Pipeline { tenant: "default".to_owned(), name: "noting".to_owned() };
        authorize(context, action, resource, now).unwrap()
    };
    let before = engine.engine().schedule(asked("ada", Action::Read)).await.unwrap();
    engine.engine().put_schedule(asked("eve", Action::Define)).await.unwrap();
    let after = engine.engine().schedule(asked("ada", Action::Read)).await.unwrap();
    assert_eq!((after.context.principal.id.as_str(), after.next, after.timer), ("eve", before.next, before.timer), "it goes on, as she");
    engine.advance(TEN_MINUTES).await;
    assert_eq!(counts(&engine, "noting").await, [1, 0, 0, 0]);
    let writes = engine.model().commits();
    engine.engine().put_schedule(asked("eve", Action::Define)).await.unwrap();
    assert_eq!(engine.model().commits(), writes, "stored again by the same one, it is not written");
}

#[test]
fn schedules_of_the_application_are_listed_paused_resumed_and_fired_through_the_holder() {
    let folder = Folder::new();
    folder.write("app.yaml", "pipelines: [nightly.yaml]\n");
    folder.write("nightly.yaml", NIGHTLY);
    folder.write("p.yaml", "selvedge: 1\nname: waits\nstages:\n  - { name: hold, mode: wait_signal, signal: go }\n");
    let _holder = folder.start(&["run", "p.yaml"]);
    folder.until_run("for the signal `go`");
    let list = folder.json(&["schedules", "list"]);
    assert_eq!((&list[0]["pipeline"], list.as_array().map(Vec::len)), (&json!("nightly"), Some(1)), "{list}");
    assert!(list[0]["next"].as_str().unwrap().ends_with("30:00.000Z"), "{list}");
    assert!(folder.selvedge(&["schedules", "pause", "nightly"]).out.contains("is paused since"));
    assert!(folder.selvedge(&["schedules", "show", "nightly"]).out.contains("`selvedge schedules resume nightly` lets it go on"));
    assert!(folder.selvedge(&["schedules", "resume", "nightly"]).out.contains("waits for its next fire at"));
    let fired = folder.selvedge(&["schedules", "fire", "nightly"]);
    assert!(fired.out.contains("it started run_"), "{} {}", fired.out, fired.err);
    assert_eq!(folder.json(&["runs", "list"]).as_array().map(Vec::len), Some(2));
    let again = folder.json(&["schedules", "fire", "nightly"]);
    assert!(again["run"].as_str().is_some_and(|run| run.starts_with("run_")), "{again}");
    let unknown = folder.selvedge(&["schedules", "fire", "nigthly"]);
    assert_eq!(unknown.code, 64, "{}", unknown.err);
    assert!(unknown.err.contains("the pipeline `nigthly` has no schedule here"), "{}", unknown.err);
}
