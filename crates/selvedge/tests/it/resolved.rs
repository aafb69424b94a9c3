//! Operations decided by hand, and journals for people.

use std::time::Duration;

use selvedge::{App, Ctx, Failure, Handler, Outcome, Retry, test};
use selvedge_kernel::auth::Action;
use selvedge_kernel::error::WorkError;
use selvedge_kernel::record::kind::Kind;

use crate::by_hand::{self, gives, lines, page, resolve};
use crate::kit::{self, Notes};

const GO: Handler<(), String> = Handler::new("subject", "go");
const HOUR: Duration = Duration::from_secs(3_600);

/// Performs steps, a write, a sleep of an hour, and steps again.
fn program(before: &'static [&'static str], after: &'static [&'static str], notes: &Notes) -> App {
    let notes = notes.clone();
    App::new().handler(GO, async move |ctx: Ctx, (): ()| {
        let mut said = String::new();
        for name in before {
            said.push_str(&step(&ctx, name, &notes).await?);
        }
        ctx.sleep(HOUR).await?;
        for name in after {
            said.push_str(&step(&ctx, name, &notes).await?);
        }
        Ok(said)
    })
}

async fn step(ctx: &Ctx, name: &'static str, notes: &Notes) -> Outcome<String> {
    if name == "sleep" {
        ctx.sleep(HOUR).await?;
        return Ok(String::new());
    }
    if let Some(name) = name.strip_prefix("set ") {
        ctx.state().set(name, &1)?;
        return Ok(String::new());
    }
    let notes = notes.clone();
    ctx.step(name, async move |_| {
        notes.add(name);
        Ok(name.to_owned())
    })
    .await
}

/// One that has done `old` and is blocked by `new`.
async fn blocked(old: &'static [&'static str], new: &'static [&'static str], notes: &Notes) -> (test::Engine, selvedge::InvocationId) {
    let mut engine = test::Engine::new(program(old, &["z"], notes)).await.unwrap();
    let id = engine.local().send(GO.on("x"), ()).await.unwrap();
    engine.settle().await;
    engine.deploy(program(new, &["z"], notes)).await.unwrap();
    engine.settle().await;
    engine.advance(HOUR).await;
    assert_eq!(kit::status(&engine, id).await, "Blocked");
    (engine, id)
}

#[tokio::test]
async fn an_entry_that_does_not_fit_is_superseded_and_stays_and_the_rest_goes_on() {
    let notes = Notes::default();
    let (mut engine, id) = blocked(&["a", "b"], &["a", "c"], &notes).await;
    let why = kit::sentence(&engine, id).await;
    assert!(why.contains("recorded #1 step `b`, attempted #1 step `c`") && why.contains("`resolve`, `fork` or `kill`"), "{why}");
    let done = resolve(engine.engine().clone(), id, 1, gives("\"by hand \"")).await.unwrap();
    assert_eq!((done.supersedes, done.stands_for.as_str()), (Some(1), "#1 step `c`"));
    engine.settle().await;
    engine.kill_and_reopen().await.unwrap();
    engine.settle().await;
    assert_eq!(engine.local().result::<String>(id).await.unwrap(), "aby hand z");
    assert_eq!(notes.all(), ["a", "b", "z"], "nothing that was decided runs");
    let told = lines(engine.engine(), id).await;
    assert_eq!(told, ["#0 step a: value", "#1 step b: value", "#1 resolved: by hand", "#2 sleep: time up", "#3 step z: value"]);
    let by_hand = page(engine.engine(), id, 2).await.entries[0].by_hand.clone().unwrap();
    assert_eq!((by_hand.by.as_str(), by_hand.reason.as_str(), by_hand.supersedes), ("local", "the bank says so", Some(1)));
    kit::sound(&engine).await;
    // The ended journal replays with the code that it went on with.
    assert_eq!(engine.local().rehearse(None, 9 * HOUR).await.unwrap().misfits, []);
    // What only an open one needs goes with what it leaves.
    assert_eq!(kit::rows(&engine, Kind::Resolved), 1);
    engine.advance(Duration::from_secs(9 * 86_400)).await;
    assert_eq!(kit::rows(&engine, Kind::Resolved), 0);
}

#[tokio::test]
async fn the_last_word_on_an_entry_counts_and_what_was_decided_by_hand_is_compared_like_any_other() {
    let notes = Notes::default();
    let mut engine = test::Engine::new(program(&["a", "b"], &["sleep", "z"], &notes)).await.unwrap();
    let id = engine.local().send(GO.on("x"), ()).await.unwrap();
    engine.settle().await;
    for (code, expected) in [(&["c", "b"], "recorded #0 step `a`, attempted #0 step `c`"), (&["d", "b"], "recorded #0 step `c`, attempted #0 step `d`")] {
        engine.deploy(program(code, &["sleep", "z"], &notes)).await.unwrap();
        engine.settle().await;
        // A sleep that is over brings it back.
        engine.advance(HOUR).await;
        let why = kit::sentence(&engine, id).await;
        assert!(why.contains(expected), "{why}");
        resolve(engine.engine().clone(), id, 0, gives(&format!("{:?}", code[0]))).await.unwrap();
        engine.settle().await;
    }
    assert_eq!(engine.local().result::<String>(id).await.unwrap(), "dbz");
    kit::sound(&engine).await;
}

#[tokio::test]
async fn a_decision_that_is_killed_at_any_commit_and_asked_again_is_made_once() {
    for batches in 0..4 {
        let notes = Notes::default();
        let (mut engine, id) = blocked(&["a", "b"], &["a", "c"], &notes).await;
        let verb = resolve(engine.engine().clone(), id, 1, gives("\"B\""));
        by_hand::killed_after(&mut engine, batches, verb).await;
        let again = resolve(engine.engine().clone(), id, 1, gives("\"B\"")).await;
        assert!(again.is_ok() || again.as_ref().is_err_and(|error| error.code == "ended"), "killed after {batches}: {again:?}");
        engine.settle().await;
        assert_eq!(engine.local().result::<String>(id).await.unwrap(), "aBz", "killed after {batches}");
        let told = lines(engine.engine(), id).await;
        assert_eq!(told.iter().filter(|line| line.contains("resolved")).count(), 1, "killed after {batches}: {told:?}");
        kit::sound(&engine).await;
    }
}

#[tokio::test]
async fn a_step_whose_attempts_never_end_is_given_a_result_or_an_error_and_runs_no_more() {
    let app = App::new().handler(GO, async |ctx: Ctx, (): ()| {
        let often = Retry { max_attempts: 1_000, ..Retry::default() };
        let charge = ctx.step("charge", async |_| Err::<String, _>(Failure::retryable("no_answer", "the bank says nothing"))).retry(often);
        Ok(match charge.await {
            Ok(value) => value,
            Err(failure) => format!("{}: {}", failure.code(), failure.message()),
        })
    });
    for (given, expected) in [(gives("\"paid\""), "paid"), (Err(WorkError::new("card_declined", "the bank says no")), "card_declined: the bank says no")] {
        let mut engine = test::Engine::new(app.clone()).await.unwrap();
        let id = engine.local().send(GO.on("x"), ()).await.unwrap();
        engine.advance(HOUR).await;
        let tried = engine.effects().len();
        assert!(tried > 1, "{tried}");
        let done = resolve(engine.engine().clone(), id, 0, given).await.unwrap();
        assert_eq!(done.supersedes, None);
        engine.settle().await;
        engine.kill_and_reopen().await.unwrap();
        engine.advance(HOUR).await;
        assert_eq!(engine.local().result::<String>(id).await.unwrap(), expected);
        assert_eq!(engine.effects().len(), tried);
        assert_eq!((kit::rows(&engine, Kind::Begun), kit::rows(&engine, Kind::Timer)), (0, 1), "the time of its marks alone");
        kit::sound(&engine).await;
        assert_eq!(engine.local().rehearse(None, 9 * HOUR).await.unwrap().misfits, []);
    }
}

#[tokio::test]
async fn a_step_that_ends_the_process_each_time_is_decided_by_hand_and_not_tried_again() {
    let app = App::new().handler(GO, async |ctx: Ctx, (): ()| {
        ctx.step("fine", async |_| Ok(())).await?;
        ctx.step("deadly", async |_| std::future::pending::<Outcome<String>>().await).await
    });
    let mut engine = test::Engine::new(app).await.unwrap();
    let id = engine.local().send(GO.on("x"), ()).await.unwrap();
    engine.settle().await;
    for _ in 0..10 {
        engine.kill_and_reopen().await.unwrap();
        engine.settle().await;
    }
    let why = kit::sentence(&engine, id).await;
    assert!(why.contains("the process ended ten times in a row") && why.contains("`resolve` the operation"), "{why}");
    // No row says what it was: the code does.
    let done = resolve(engine.engine().clone(), id, 1, gives("\"skipped\"")).await.unwrap();
    assert_eq!((done.supersedes, done.stands_for.as_str()), (None, "#1 step `deadly`"));
    engine.settle().await;
    assert_eq!(engine.local().result::<String>(id).await.unwrap(), "skipped");
    kit::sound(&engine).await;
}

#[tokio::test]
async fn an_entry_far_behind_the_window_of_a_replay_is_superseded_in_its_place() {
    let long = |first: &'static str| {
        App::new().handler(GO, async move |ctx: Ctx, (): ()| {
            let said: String = ctx.step(first, async |_| Ok("done".to_owned())).await?;
            for _ in 0..1_100 {
                ctx.step("more", async |_| Ok(())).await?;
            }
            ctx.sleep(HOUR).await?;
            Ok(said)
        })
    };
    let mut engine = test::Engine::with(long("a"), selvedge::Settings::default()).await.unwrap();
    let id = engine.local().send(GO.on("x"), ()).await.unwrap();
    engine.settle().await;
    engine.deploy(long("b")).await.unwrap();
    engine.advance(HOUR).await;
    assert_eq!(kit::status(&engine, id).await, "Blocked");
    resolve(engine.engine().clone(), id, 0, gives("\"by hand\"")).await.unwrap();
    engine.kill_and_reopen().await.unwrap();
    engine.settle().await;
    assert_eq!(engine.local().result::<String>(id).await.unwrap(), "by hand");
    kit::sound(&engine).await;
}

#[tokio::test]
async fn a_sleep_and_a_signal_that_never_comes_are_decided_by_hand() {
    const NEVER: selvedge::Signal<u32> = selvedge::Signal::new("never");
    let app = App::new().handler(GO, async |ctx: Ctx, (): ()| {
        ctx.sleep(100 * HOUR).await?;
        Ok(ctx.signal(NEVER).await?.to_string())
    });
    let engine = test::Engine::new(app).await.unwrap();
    let id = engine.local().send(GO.on("x"), ()).await.unwrap();
    engine.settle().await;
    resolve(engine.engine().clone(), id, 0, gives("null")).await.unwrap();
    engine.settle().await;
    assert!(kit::sentence(&engine, id).await.contains("for the signal `never`"));
    resolve(engine.engine().clone(), id, 1, gives("5")).await.unwrap();
    engine.settle().await;
    assert_eq!(engine.local().result::<String>(id).await.unwrap(), "5");
    engine.advance(200 * HOUR).await;
    assert_eq!(lines(engine.engine(), id).await, ["#0 resolved: by hand", "#1 resolved: by hand"]);
    kit::sound(&engine).await;
}

#[tokio::test]
async fn what_cannot_be_decided_by_hand_says_why_and_what_can_be_done() {
    let notes = Notes::default();
    let (engine, id) = blocked(&["set n", "b"], &["set m", "b"], &notes).await;
    let doing = |operation| resolve(engine.engine().clone(), id, operation, gives("1"));
    let at_call = doing(0).await.unwrap_err();
    assert!(at_call.code == "not_resolvable" && at_call.message.contains("#0 state.set `m`") && at_call.message.contains("fork"), "{at_call}");
    let unknown = doing(77).await.unwrap_err();
    assert!(unknown.code == "unknown_operation" && unknown.message.contains("invocations journal"), "{unknown}");
    let large = resolve(engine.engine().clone(), id, 1, gives(&format!("\"{}\"", "x".repeat(33_000)))).await.unwrap_err();
    assert!(large.code == "limit: resolution" && large.message.contains("32768"), "{large}");
    let wrong = engine.engine().resolve(
        by_hand::permit(engine.engine(), Action::Control, id),
        selvedge_engine::hand::Resolve { id, operation: 1, gives: gives("1"), reason: "x".to_owned() },
    );
    assert_eq!(wrong.await.unwrap_err().code, "wrong_permit");
    let behind = engine.local().send(GO.on("x"), ()).await.unwrap();
    engine.settle().await;
    let waits = resolve(engine.engine().clone(), behind, 0, gives("1")).await.unwrap_err();
    assert!(waits.code == "not_started", "{waits}");
    assert_eq!(kit::status(&engine, id).await, "Blocked");

    // A result that was recorded is not taken away from one that goes on.
    let engine = test::Engine::new(program(&["a"], &["z"], &notes)).await.unwrap();
    let id = engine.local().send(GO.on("x"), ()).await.unwrap();
    engine.settle().await;
    let decided = resolve(engine.engine().clone(), id, 0, gives("1")).await.unwrap_err();
    assert!(decided.code == "decided" && decided.message.contains("fork"), "{decided}");
    engine.advance(HOUR).await;
    assert_eq!(engine.local().result::<String>(id).await.unwrap(), "az");
    assert_eq!(resolve(engine.engine().clone(), id, 0, gives("1")).await.unwrap_err().code, "ended");
}

#[tokio::test]
async fn one_that_lacks_its_code_is_helped_by_no_decision() {
    let notes = Notes::default();
    let mut engine = test::Engine::new(program(&["a"], &["z"], &notes)).await.unwrap();
    let id = engine.local().send(GO.on("x"), ()).await.unwrap();
    engine.settle().await;
    engine.deploy(App::new()).await.unwrap();
    engine.advance(HOUR).await;
    assert_eq!(kit::status(&engine, id).await, "Blocked");
    let refused = resolve(engine.engine().clone(), id, 0, gives("1")).await.unwrap_err();
    assert!(refused.code == "lacks_code" && refused.message.contains("subject"), "{refused}");
    engine.deploy(program(&["a"], &["z"], &notes)).await.unwrap();
    engine.settle().await;
    assert_eq!(engine.local().result::<String>(id).await.unwrap(), "az");
}

#[tokio::test]
async fn a_journal_is_shown_entry_by_entry_by_pages_after_the_end_and_after_an_erasure() {
    const MANY: Handler<u32, ()> = Handler::new("subject", "many");
    let app = App::new().handler(MANY, async |ctx: Ctx, count: u32| {
        for n in 0..count {
            ctx.state().set("n", &n)?;
            if n % 50 == 0 {
                ctx.step("look", async |_| Ok(())).await?;
            }
        }
        ctx.sleep(HOUR).await?;
        let failed: Outcome<()> = ctx.step("fails", async |_| Err(Failure::terminal("broken", "as asked"))).await;
        failed
    });
    let mut engine = test::Engine::with(app, selvedge::Settings::default()).await.unwrap();
    let id = engine.local().send(MANY.on("x"), 1_500).await.unwrap();
    engine.settle().await;
    for ended in [false, true] {
        let first = page(engine.engine(), id, 0).await;
        let numbers: Vec<u32> = first.entries.iter().map(|line| line.entry).collect();
        assert_eq!(numbers, (0..1_000).collect::<Vec<_>>());
        assert_eq!(first.next, Some(1_000));
        let second = page(engine.engine(), id, 1_000).await;
        assert_eq!(second.entries[0].entry, 1_000);
        assert_eq!(second.entries.len(), if ended { 532 } else { 530 });
        assert_eq!(second.next, None);
        assert_eq!(page(engine.engine(), id, 1_234).await.entries[0].entry, 1_234);
        assert!(page(engine.engine(), id, 9_999).await.entries.is_empty());
        let last = second.entries.last().unwrap();
        if ended {
            assert_eq!((last.kind, last.name.as_str(), last.outcome), ("step", "fails", "error"));
            assert_eq!(last.error.as_ref().unwrap().code, "broken");
        }
        engine.advance(HOUR).await;
        engine.kill_and_reopen().await.unwrap();
        engine.settle().await;
    }
    engine.local().erase(id).await.unwrap();
    let erased = page(engine.engine(), id, 0).await;
    assert!(erased.entries.iter().all(|line| line.outcome == "erased" && line.bytes.is_none() && line.seal.len() == 12), "{:?}", erased.entries[0]);
}
