//! What actors do, in combination: restarts with children, deadlines along chains of calls, signals before anybody waits,
//! passages of code in forks, and what a kill in between does to them.

use std::sync::Arc;
use std::time::Duration;

use selvedge::{App, Ctx, Either, Failure, Handler, SharedHandler, Signal, View, test};
use selvedge_engine::SignalTarget;
use selvedge_kernel::auth::{Action, Resource};
use selvedge_kernel::record::kind::Kind;

use crate::by_hand::{self, fork, forked};
use crate::kit::{self, Notes};

const GO: Handler<u64, u64> = Handler::new("subject", "go");
const OTHER: Handler<u64, u64> = Handler::new("subject", "other");
const LEAF: Handler<u64, u64> = Handler::new("leaf", "wait");
const MIDDLE: Handler<u64, u64> = Handler::new("middle", "ask");
const PAID: Signal<u64> = Signal::new("paid");
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

/// A leaf that waits for an hour and says how it ended, and one that asks it.
fn asking(notes: &Notes) -> App {
    let (leaf, middle) = (notes.clone(), notes.clone());
    App::new()
        .handler(LEAF, async move |ctx: Ctx, n: u64| {
            leaf.add(format!("leaf {} began", ctx.key()));
            let slept = ctx.sleep(HOUR).await;
            leaf.add(format!("leaf {} {}", ctx.key(), if slept.is_ok() { "slept" } else { "cancelled" }));
            slept.map(|()| n)
        })
        .handler(MIDDLE, async move |ctx: Ctx, n: u64| {
            let asked = ctx.call(LEAF.on("l"), n).await;
            if let Err(error) = &asked {
                middle.add(format!("middle {error:?}"));
            }
            asked
        })
}

#[tokio::test]
async fn a_restart_cancels_the_children_that_were_not_joined_and_their_answers_reach_nobody() {
    for kills in [false, true] {
        let notes = Notes::default();
        let app = asking(&notes).handler(GO, async |ctx: Ctx, n: u64| {
            if n > 0 {
                ctx.spawn(LEAF.on(format!("child{n}")), n);
                ctx.state().set("n", &n)?;
                ctx.sleep(MINUTE).await?;
                ctx.state().set("last", &n)?;
                return Err(ctx.restart(n - 1));
            }
            Ok(ctx.state().get::<u64>("last").await?.unwrap_or(99))
        });
        let mut engine = test::Engine::new(app).await.unwrap();
        let id = engine.local().send(GO.on("a"), 2).await.unwrap();
        for _ in 0..3 {
            engine.settle().await;
            if kills {
                engine.kill_and_reopen().await.unwrap();
            }
            engine.advance(MINUTE).await;
        }
        engine.settle().await;
        assert_eq!(engine.local().result::<u64>(id).await.unwrap(), 1, "what it wrote right before it started anew was written");
        for n in [1, 2] {
            assert_eq!(notes.count(&format!("leaf child{n} cancelled")), 1, "{:?}", notes.all());
        }
        assert_eq!(kit::rows(&engine, Kind::Begun), 0);
        assert_eq!(kit::rows(&engine, Kind::Outbox), 0);
        kit::sound(&engine).await;
    }
}

#[tokio::test]
async fn a_deadline_goes_down_a_chain_of_calls_and_each_ends_once_also_through_kills() {
    for kills in [false, true] {
        let notes = Notes::default();
        let mut engine = test::Engine::new(asking(&notes)).await.unwrap();
        let client = engine.local();
        let call = tokio::spawn(async move { client.call(MIDDLE.on("m"), 1).timeout(MINUTE).await });
        engine.settle().await;
        while notes.all().is_empty() {
            engine.settle().await;
        }
        if kills {
            engine.kill_and_reopen().await.unwrap();
            engine.settle().await;
        }
        engine.advance(Duration::from_secs(59)).await;
        assert_eq!(notes.count("leaf l cancelled"), 0);
        engine.advance(Duration::from_secs(2)).await;
        engine.settle().await;
        assert_eq!(notes.count("leaf l cancelled"), 1, "{:?}", notes.all());
        if !kills {
            let error = call.await.unwrap().unwrap_err().to_string();
            assert!(error.contains("deadline"), "{error}");
        }
        assert_eq!(kit::rows(&engine, Kind::Inbox), 0);
        assert_eq!(kit::rows(&engine, Kind::Begun), 0);
        kit::sound(&engine).await;
    }
}

#[tokio::test]
async fn a_queued_call_past_its_callers_deadline_is_never_started() {
    let notes = Notes::default();
    let mut engine = test::Engine::new(asking(&notes)).await.unwrap();
    let first = engine.local().send(LEAF.on("l"), 7).await.unwrap();
    engine.settle().await;
    let client = engine.local();
    let call = tokio::spawn(async move { client.call(MIDDLE.on("m"), 1).timeout(MINUTE).await });
    engine.settle().await;
    engine.advance(Duration::from_secs(61)).await;
    let error = call.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("deadline"), "{error}");
    engine.kill_and_reopen().await.unwrap();
    engine.advance(HOUR).await;
    assert_eq!(engine.local().result::<u64>(first).await.unwrap(), 7);
    engine.settle().await;
    assert_eq!(notes.count("leaf l slept"), 1, "{:?}", notes.all());
    assert_eq!(notes.count("leaf l cancelled"), 0);
    kit::sound(&engine).await;
}

#[tokio::test]
async fn a_kill_runs_no_code_and_cancels_the_children_of_what_it_ends_but_nothing_that_it_called_or_sent() {
    for kills in [false, true] {
        let notes = Notes::default();
        let noted = notes.clone();
        let app = asking(&notes).handler(GO, async move |ctx: Ctx, n: u64| {
            ctx.spawn(LEAF.on("child"), n);
            ctx.send(LEAF.on("sent"), n);
            let called = ctx.call(LEAF.on("called"), n).await;
            noted.add("handler went on");
            called
        });
        let mut engine = test::Engine::new(app).await.unwrap();
        let id = engine.local().send(GO.on("a"), 2).await.unwrap();
        while notes.all().len() < 3 {
            engine.settle().await;
        }
        if kills {
            engine.kill_and_reopen().await.unwrap();
            engine.settle().await;
        }
        kit::kill(&engine, id).await;
        if kills {
            engine.kill_and_reopen().await.unwrap();
        }
        engine.settle().await;
        assert_eq!(kit::status(&engine, id).await, "Killed");
        assert_eq!(notes.count("handler went on"), 0);
        assert_eq!(notes.count("leaf child cancelled"), 1, "{:?}", notes.all());
        assert_eq!(notes.count("leaf called cancelled") + notes.count("leaf sent cancelled"), 0);
        assert_eq!(kit::rows(&engine, Kind::Begun), 2, "both sleep on");
        kit::sound(&engine).await;
    }
}

#[tokio::test]
async fn whoever_fails_behind_its_cancel_ends_as_cancelled_and_is_not_tried_again_and_a_second_cancel_changes_nothing() {
    for kills in [false, true] {
        let notes = Notes::default();
        let noted = notes.clone();
        let app = App::new().handler(GO, async move |ctx: Ctx, way: u64| {
            noted.add("began");
            let slept = ctx.sleep(HOUR).await;
            assert_eq!(slept.is_err(), ctx.cancelled());
            // It undoes what it did, for a while.
            ctx.sleep(MINUTE).await?;
            noted.add("undone");
            match way {
                0 => Ok(5),
                1 => Err(Failure::retryable("busy", "not now")),
                _ => panic!("as asked"),
            }
        });
        let mut engine = test::Engine::with(app, selvedge::Settings::default()).await.unwrap();
        for way in 0..3 {
            let id = engine.local().send(GO.on(format!("w{way}")), way).await.unwrap();
            engine.settle().await;
            engine.local().cancel(id).await.unwrap();
            if kills {
                engine.kill_and_reopen().await.unwrap();
            }
            engine.settle().await;
            let _ = engine.local().cancel(id).await;
            engine.settle().await;
            engine.advance(MINUTE).await;
            engine.settle().await;
            let status = kit::status(&engine, id).await;
            assert_eq!(status, if way == 0 { "Completed" } else { "Cancelled" });
            engine.advance(HOUR).await;
        }
        assert_eq!(notes.count("undone"), 3, "{:?}", notes.all());
        assert!(kit::dead_letters(&engine).await.is_empty());
        kit::sound(&engine).await;
    }
}

#[tokio::test]
async fn a_signal_to_an_actor_that_never_ran_is_kept_once_for_whichever_handler_waits_first() {
    let app = App::new()
        .handler(GO, async |ctx: Ctx, _: u64| ctx.signal(PAID).await)
        .handler(OTHER, async |ctx: Ctx, _: u64| Ok(ctx.signal(PAID).within(MINUTE).await?.unwrap_or(0)));
    let mut engine = test::Engine::new(app).await.unwrap();
    let keyed = async |engine: &Arc<selvedge_engine::engine::Engine>, handler: &str, value: &str, key: &str| {
        let resource = Resource::Handler { actor: kit::actor("subject", "a"), handler: handler.to_owned() };
        let context = selvedge_kernel::auth::local("default", engine.now());
        let permit = selvedge_kernel::auth::authorize(context, Action::Signal, resource, engine.now()).unwrap();
        let target = SignalTarget::Actor(kit::actor("subject", "a"));
        engine.signal(permit, target, "paid", bytes::Bytes::from(value.to_owned()), Some(key.to_owned())).await.unwrap();
    };
    for (handler, value, key) in [("go", "1", "one"), ("other", "1", "one"), ("other", "2", "two"), ("go", "3", "three")] {
        keyed(engine.engine(), handler, value, key).await;
        engine.kill_and_reopen().await.unwrap();
    }
    let mut got = Vec::new();
    for handler in [OTHER, GO, OTHER, OTHER] {
        let id = engine.local().send(handler.on("a"), 0).await.unwrap();
        engine.settle().await;
        engine.advance(MINUTE).await;
        got.push(engine.local().result::<u64>(id).await.unwrap());
    }
    assert_eq!(got, [1, 2, 3, 0]);
    kit::sound(&engine).await;
}

/// A changed passage before and behind a wait.
fn passages(newest: Option<u32>, notes: &Notes) -> App {
    let notes = notes.clone();
    App::new().handler(GO, async move |ctx: Ctx, _: u64| {
        let form = |change: &str| newest.map_or(1, |newest| ctx.version(change, newest));
        let one: u64 = ctx.step("one", async |_| Ok(1)).await?;
        let early = form("early");
        ctx.step("two", async |_| Ok(())).await?;
        ctx.sleep(MINUTE).await?;
        let late = form("late");
        ctx.step("three", async |_| Ok(())).await?;
        if notes.all().is_empty() {
            return Err(Failure::terminal("broken", "as asked"));
        }
        Ok(one * 100 + u64::from(early) * 10 + u64::from(late))
    })
}

#[tokio::test]
async fn a_fork_takes_the_form_of_a_changed_passage_that_its_original_took_and_the_new_one_behind_its_cut() {
    let notes = Notes::default();
    let mut engine = test::Engine::new(passages(None, &notes)).await.unwrap();
    let old = engine.local().send(GO.on("old"), 0).await.unwrap();
    engine.advance(MINUTE).await;
    engine.deploy(passages(Some(2), &notes)).await.unwrap();
    let new = engine.local().send(GO.on("new"), 0).await.unwrap();
    engine.advance(MINUTE).await;
    engine.settle().await;
    notes.add("mended");
    engine.deploy(passages(Some(3), &notes)).await.unwrap();
    // Everything is taken over, or what lies before the sleep (operation 2), or before the second step (operation 1).
    let mut results = Vec::new();
    for (id, name) in [(old, "old"), (new, "new")] {
        for (from, wait) in [(None, false), (Some(2), true), (Some(1), true)] {
            let key = format!("{name}{from:?}");
            let fork = selvedge_engine::hand::Fork { from, key, ..fork(id) };
            let made = forked(engine.engine().clone(), fork).await.unwrap();
            engine.settle().await;
            engine.kill_and_reopen().await.unwrap();
            engine.settle().await;
            if wait {
                engine.advance(MINUTE).await;
                engine.settle().await;
            }
            results.push(engine.local().result::<u64>(made.id).await.unwrap());
        }
    }
    assert_eq!(results, [111, 113, 133, 122, 123, 123]);
    kit::sound(&engine).await;
}

#[tokio::test]
async fn a_step_that_loses_a_select_is_aborted_and_leaves_nothing() {
    let notes = Notes::default();
    let noted = notes.clone();
    struct Told(Notes);
    impl Drop for Told {
        fn drop(&mut self) {
            self.0.add("aborted");
        }
    }
    let app = App::new().handler(GO, async move |ctx: Ctx, _: u64| {
        let told = noted.clone();
        let step = ctx.step("slow", async move |_| {
            let _told = Told(told.clone());
            std::future::pending::<()>().await;
            Ok(1u64)
        });
        match ctx.select(step, ctx.sleep(MINUTE)).await {
            Either::Left(value) => value,
            Either::Right(slept) => slept.map(|()| 2),
        }
    });
    let engine = test::Engine::new(app).await.unwrap();
    let id = engine.local().send(GO.on("a"), 0).await.unwrap();
    engine.settle().await;
    engine.advance(MINUTE).await;
    engine.settle().await;
    assert_eq!(engine.local().result::<u64>(id).await.unwrap(), 2);
    assert_eq!(notes.all(), ["aborted"]);
    assert_eq!(by_hand::lines(engine.engine(), id).await.len(), 1, "only the sleep is recorded");
    kit::sound(&engine).await;
}

#[tokio::test]
async fn a_call_of_a_shared_handler_leaves_nothing_to_cancel_and_its_caller_can_still_be_cancelled() {
    const SEE: SharedHandler<u64, u64> = SharedHandler::new("subject", "see");
    let app = App::new()
        .shared(SEE, async |view: View, n: u64| match n {
            0 => Err(Failure::retryable("busy", "not now")),
            n => Ok(view.get::<u64>("n").await?.unwrap_or(n)),
        })
        .handler(MIDDLE, async |ctx: Ctx, n: u64| {
            let seen = ctx.call(SEE.on("s"), 4).timeout(MINUTE).await?;
            let failed = ctx.call(SEE.on("s"), 0).await.unwrap_err();
            assert_eq!(failed.code(), "busy");
            let child = ctx.spawn(SEE.on("s"), 5);
            let slept = ctx.sleep(HOUR).await;
            assert!(slept.is_err());
            // It asks on behind its cancel.
            let after = ctx.call(SEE.on("s"), n).await?;
            child.cancel();
            Ok(seen * 10 + after)
        });
    let mut engine = test::Engine::new(app).await.unwrap();
    let id = engine.local().send(MIDDLE.on("m"), 3).await.unwrap();
    engine.settle().await;
    engine.kill_and_reopen().await.unwrap();
    engine.settle().await;
    engine.local().cancel(id).await.unwrap();
    engine.settle().await;
    assert_eq!(engine.local().result::<u64>(id).await.unwrap(), 43);
    assert_eq!(kit::rows(&engine, Kind::Begun), 0);
    kit::sound(&engine).await;
}

#[tokio::test]
async fn a_retryable_failure_behind_a_wait_goes_on_from_its_journal_and_runs_no_finished_step_again() {
    let notes = Notes::default();
    let noted = notes.clone();
    let app = App::new().handler(GO, async move |ctx: Ctx, _: u64| {
        let drawn: u64 = ctx
            .step("draw", {
                let noted = noted.clone();
                async move |_| {
                    noted.add("drawn");
                    Ok(noted.count("drawn") as u64)
                }
            })
            .await?;
        ctx.sleep(MINUTE).await?;
        noted.add("attempt");
        if noted.count("attempt") < 3 {
            return Err(Failure::retryable("busy", "not now"));
        }
        Ok(drawn)
    });
    let mut engine = test::Engine::with(app, selvedge::Settings::default()).await.unwrap();
    let id = engine.local().send(GO.on("a"), 0).await.unwrap();
    for _ in 0..6 {
        engine.advance(MINUTE).await;
        engine.kill_and_reopen().await.unwrap();
        engine.settle().await;
    }
    assert_eq!(engine.local().result::<u64>(id).await.unwrap(), 1);
    assert_eq!(notes.count("drawn"), 1);
    kit::sound(&engine).await;
}

#[tokio::test]
async fn a_key_of_a_call_counts_for_one_handler_of_one_actor() {
    let app = App::new().handler(GO, async |_: Ctx, n: u64| Ok(n)).handler(OTHER, async |_: Ctx, n: u64| Ok(n + 100));
    let engine = test::Engine::new(app).await.unwrap();
    let client = engine.local();
    assert_eq!(client.call(GO.on("a"), 1).idempotency_key("k").await.unwrap(), 1);
    assert_eq!(client.call(OTHER.on("a"), 2).idempotency_key("k").await.unwrap(), 102);
    assert_eq!(client.call(GO.on("b"), 3).idempotency_key("k").await.unwrap(), 3);
    assert_eq!(client.call(GO.on("a"), 1).idempotency_key("k").await.unwrap(), 1);
    assert!(client.call(GO.on("a"), 4).idempotency_key("k").await.is_err());
}

#[tokio::test]
async fn a_token_of_a_signal_is_all_that_somebody_outside_needs_to_answer_it() {
    let notes = Notes::default();
    let noted = notes.clone();
    let app = App::new().handler(GO, async move |ctx: Ctx, _: u64| {
        let wait = ctx.signal(PAID);
        noted.add(wait.token());
        wait.await
    });
    let mut engine = test::Engine::new(app).await.unwrap();
    let id = engine.local().send(GO.on("a"), 0).await.unwrap();
    engine.settle().await;
    engine.kill_and_reopen().await.unwrap();
    engine.settle().await;
    let token = notes.all().pop().unwrap();
    assert!(notes.all().iter().all(|noted| *noted == token), "it is the same on replay");
    engine.local().send_signal_by_token(&token, 8).await.unwrap();
    engine.settle().await;
    assert_eq!(engine.local().result::<u64>(id).await.unwrap(), 8);
    let late = engine.local().send_signal_by_token(&token, 9).await.unwrap_err().to_string();
    assert!(late.contains("has ended"), "{late}");
    let wrong = engine.local().send_signal_by_token("paid", 9).await.unwrap_err().to_string();
    assert!(wrong.contains("`paid` is no token of a signal"), "{wrong}");
}

#[tokio::test]
async fn a_journal_that_is_four_fifths_full_is_reported_once_whatever_replays_it() {
    let app = App::new().handler(GO, async |ctx: Ctx, n: u64| {
        for _ in 0..n {
            ctx.step("one", async |_| Ok(())).await?;
        }
        ctx.sleep(MINUTE).await?;
        ctx.step("more", async |_| Ok(())).await?;
        Ok(n)
    });
    let limits = selvedge_kernel::limit::Limits { journal_entries: 100, ..selvedge_kernel::limit::Limits::default() };
    let mut engine = test::Engine::with(app, selvedge::Settings { limits, replay_always: true, ..selvedge::Settings::default() }).await.unwrap();
    let few = engine.local().send(GO.on("few"), 77).await.unwrap();
    let many = engine.local().send(GO.on("many"), 90).await.unwrap();
    engine.settle().await;
    engine.kill_and_reopen().await.unwrap();
    engine.advance(MINUTE).await;
    engine.settle().await;
    for id in [few, many] {
        engine.local().result::<u64>(id).await.unwrap();
    }
    assert_eq!(engine.filling(), [many]);
    kit::sound(&engine).await;
}
