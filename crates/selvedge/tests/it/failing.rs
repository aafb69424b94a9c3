//! Attempts: of steps, activities and handlers; panics, timeouts, dead letters, crashes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use selvedge::{Activity, ActorOptions, App, Attempt, Ctx, Failure, Handler, Retry, Settings, Span, Timeout, test};

use crate::kit::{self, Notes};

const GO: Handler<u32, u32> = Handler::new("subject", "go");
const WORK: Activity<u32, u32> = Activity::new("work");
const MINUTE: Duration = Duration::from_secs(60);

struct Dropped(Notes);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.add("dropped");
    }
}

#[tokio::test]
async fn a_failed_handler_is_tried_again_after_the_wait_of_its_policy_and_not_before() {
    let tries = Arc::new(AtomicU64::new(0));
    let counted = tries.clone();
    let app =
        App::new().actor("subject", ActorOptions { retry: Retry::fixed(5, MINUTE), ..ActorOptions::default() }).handler(GO, async move |ctx: Ctx, n: u32| {
            let once: u32 = ctx.step("once", async |_| Ok(1)).await?;
            if counted.fetch_add(1, Ordering::SeqCst) < 2 { Err(Failure::retryable("not_yet", "later")) } else { Ok(n + once) }
        });
    let mut engine = test::Engine::with(app, Settings::default()).await.unwrap();
    let id = engine.local().send(GO.on("x"), 1).await.unwrap();
    engine.advance(Duration::from_secs(59)).await;
    assert_eq!(tries.load(Ordering::SeqCst), 1, "a wait of a minute is not over after 59 s");
    assert!(kit::sentence(&engine, id).await.contains("not_yet: later"));
    engine.kill_and_reopen().await.unwrap();
    engine.advance(Duration::from_secs(2)).await;
    assert_eq!(tries.load(Ordering::SeqCst), 2);
    engine.advance(MINUTE).await;
    assert_eq!(engine.local().result::<u32>(id).await.unwrap(), 2);
    assert_eq!(engine.effects().len(), 1, "the journal stays: the step is not executed again");
}

#[tokio::test]
async fn a_message_that_cannot_be_handled_is_dead_lettered_whole_and_holds_nobody() {
    let app = App::new()
        .actor("subject", ActorOptions { retry: Retry::fixed(3, MINUTE), ..ActorOptions::default() })
        .handler(GO, async |_: Ctx, n: u32| if n == 7 { Err(Failure::retryable("broken", "no")) } else { Ok(n) });
    let engine = test::Engine::new(app).await.unwrap();
    let id = engine.local().send(GO.on("x"), 7).await.unwrap();
    let behind = engine.local().send(GO.on("x"), 8).await.unwrap();
    engine.advance(MINUTE).await;
    assert!(kit::dead_letters(&engine).await.is_empty());
    engine.advance(MINUTE).await;
    let letters = kit::dead_letters(&engine).await;
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].message.id, &letters[0].message.input[..], letters[0].attempts), (id, &b"7"[..], 3));
    assert!(letters[0].error.message.contains("broken: no"), "{:?}", letters[0].error);
    assert_eq!(letters[0].error.code, "attempts_exhausted");
    assert_eq!(engine.local().result::<u32>(behind).await.unwrap(), 8);
}

#[tokio::test]
async fn a_large_message_is_dead_lettered_too_and_its_chunks_leave_after_its_retention() {
    const BIG: Handler<String, u32> = Handler::new("subject", "big");
    let app = App::new()
        .actor("subject", ActorOptions { retry: Retry::none(), ..ActorOptions::default() })
        .handler(BIG, async |_: Ctx, _: String| Err(Failure::retryable("broken", "no")));
    let engine = test::Engine::new(app).await.unwrap();
    let id = engine.local().send(BIG.on("x"), "x".repeat(5 << 20)).await.unwrap();
    engine.settle().await;
    kit::sound(&engine).await;
    let letters = kit::dead_letters(&engine).await;
    assert_eq!(letters[0].message.id, id);
    assert_eq!(letters[0].input, selvedge_kernel::journal::Payload::Chunked { len: (5 << 20) + 2 });
    let chunks = selvedge_kernel::record::kind::Kind::Chunk;
    assert_eq!(kit::rows(&engine, chunks), 21);
    engine.advance(Duration::from_secs(8 * 86_400)).await;
    assert_eq!(kit::rows(&engine, chunks), 21, "a dead letter is kept longer than what is finished");
    engine.advance(Duration::from_secs(24 * 86_400)).await;
    assert_eq!(kit::rows(&engine, chunks), 0);
}

#[tokio::test]
async fn a_panic_of_a_handler_or_a_step_is_a_failed_attempt_and_nothing_else_falls() {
    let tries = Arc::new(AtomicU64::new(0));
    let counted = tries.clone();
    let app = App::new().handler(GO, async move |ctx: Ctx, way: u32| {
        let tries = counted.fetch_add(1, Ordering::SeqCst);
        match way {
            0 if tries == 0 => panic!("the handler broke"),
            1 => {
                ctx.step("breaks", async |attempt| {
                    assert!(attempt.number() > 1, "the step broke");
                    Ok(attempt.number())
                })
                .retry(Retry::fixed(3, MINUTE))
                .await
            }
            other => Ok(other),
        }
    });
    let engine = test::Engine::with(app, Settings::default()).await.unwrap();
    let id = engine.local().send(GO.on("x"), 0).await.unwrap();
    engine.settle().await;
    assert!(kit::sentence(&engine, id).await.contains("the handler broke"));
    engine.advance(MINUTE).await;
    assert_eq!(engine.local().result::<u32>(id).await.unwrap(), 0);
    let id = engine.local().send(GO.on("y"), 1).await.unwrap();
    engine.settle().await;
    assert!(kit::sentence(&engine, id).await.contains("the step broke"), "{}", kit::sentence(&engine, id).await);
    engine.advance(MINUTE).await;
    assert_eq!(engine.local().result::<u32>(id).await.unwrap(), 2);
}

#[tokio::test]
async fn a_step_whose_time_is_up_is_aborted_at_once_and_tried_again() {
    let notes = Notes::default();
    let noted = notes.clone();
    let app = App::new().handler(GO, async move |ctx: Ctx, _: u32| {
        ctx.step("hangs", async |attempt: Attempt| {
            let _guard = Dropped(noted.clone());
            if attempt.number() == 1 {
                std::future::pending::<()>().await;
            }
            Ok(attempt.number())
        })
        .retry(Retry::fixed(2, MINUTE))
        .timeout(Timeout { attempt: Some(Span(Duration::from_secs(10))), total: None })
        .await
    });
    let engine = test::Engine::with(app, Settings::default()).await.unwrap();
    let id = engine.local().send(GO.on("x"), 0).await.unwrap();
    engine.advance(Duration::from_secs(9)).await;
    assert_eq!(notes.count("dropped"), 0);
    engine.advance(Duration::from_secs(2)).await;
    assert_eq!(notes.count("dropped"), 1);
    assert!(kit::sentence(&engine, id).await.contains("timeout"));
    engine.advance(MINUTE).await;
    assert_eq!(engine.local().result::<u32>(id).await.unwrap(), 2);
}

#[tokio::test]
async fn the_time_of_all_attempts_ends_a_step_even_in_the_middle_of_one() {
    let app = App::new().handler(GO, async |ctx: Ctx, _: u32| {
        ctx.step("hangs", async |_| {
            std::future::pending::<()>().await;
            Ok(1)
        })
        .retry(Retry::fixed(100, Duration::from_secs(1)))
        .timeout(Timeout { attempt: Some(Span(Duration::from_secs(40))), total: Some(Span(MINUTE)) })
        .await
    });
    let engine = test::Engine::with(app, Settings::default()).await.unwrap();
    let id = engine.local().send(GO.on("x"), 0).await.unwrap();
    for _ in 0..13 {
        engine.advance(Duration::from_secs(5)).await;
    }
    let error = engine.local().result::<u32>(id).await.unwrap_err().to_string();
    assert!(error.contains("attempts_exhausted") && error.contains("timeout"), "{error}");
}

#[tokio::test]
async fn an_activity_that_ends_between_two_attempts_of_its_handler_is_not_executed_again() {
    let runs = Arc::new(AtomicU64::new(0));
    let gate = Arc::new(tokio::sync::Notify::new());
    let tries = Arc::new(AtomicU64::new(0));
    let (counted, opened, tried) = (runs.clone(), gate.clone(), tries.clone());
    let app = App::new()
        .actor("subject", ActorOptions { retry: Retry::fixed(5, MINUTE), ..ActorOptions::default() })
        .handler(GO, async move |ctx: Ctx, _: u32| {
            let mut work = ctx.activity(WORK, 5);
            // It begins, and this attempt ends before it does.
            let nap = ctx.sleep(Duration::from_secs(1));
            ctx.select(&mut work, nap).await;
            if tried.fetch_add(1, Ordering::SeqCst) == 0 {
                return Err(Failure::retryable("once", "more"));
            }
            work.await
        })
        .activity(WORK, async move |_: Attempt, n: u32| {
            counted.fetch_add(1, Ordering::SeqCst);
            opened.notified().await;
            Ok(n)
        });
    let engine = test::Engine::with(app, Settings::default()).await.unwrap();
    let id = engine.local().send(GO.on("x"), 0).await.unwrap();
    engine.advance(Duration::from_secs(2)).await;
    gate.notify_one();
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        engine.settle().await;
        if kit::census(&engine).await.tasks == 0 {
            break;
        }
    }
    engine.advance(MINUTE).await;
    assert_eq!(engine.local().result::<u32>(id).await.unwrap(), 5);
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_step_that_waits_for_its_next_attempt_survives_suspension_and_a_kill_in_that_attempt() {
    let app = App::new().handler(GO, async |ctx: Ctx, _: u32| {
        ctx.step("shaky", async |attempt: Attempt| match attempt.number() {
            1 => Err(Failure::retryable("first", "no")),
            2 => {
                tokio::time::sleep(Duration::from_secs(3600)).await;
                Ok(0)
            }
            n => Ok(n),
        })
        .retry(Retry::fixed(5, MINUTE))
        .timeout(Timeout { attempt: Some(Span(MINUTE)), total: None })
        .await
    });
    let mut engine = test::Engine::with(app, Settings::default()).await.unwrap();
    let id = engine.local().send(GO.on("x"), 0).await.unwrap();
    engine.advance(Duration::from_secs(5)).await;
    assert_eq!(kit::census(&engine).await.active, 0, "it waits outside memory");
    engine.advance(MINUTE).await;
    assert_eq!(engine.effects().len(), 2);
    engine.kill_and_reopen().await.unwrap();
    engine.settle().await;
    assert_eq!(engine.effects().len(), 3, "a kill in the second attempt does not lose it");
    for _ in 0..4 {
        engine.advance(MINUTE).await;
    }
    assert_eq!(engine.local().result::<u32>(id).await.unwrap(), 3);
}

#[tokio::test]
async fn ten_unclean_ends_in_a_row_without_an_entry_block_and_an_entry_starts_the_count_again() {
    let gate = Arc::new(AtomicU64::new(0));
    let opened = gate.clone();
    let app = App::new().handler(GO, async move |ctx: Ctx, n: u32| {
        for i in 0..n {
            let opened = opened.clone();
            ctx.step("hangs", async move |_| {
                if opened.load(Ordering::SeqCst) <= u64::from(i) {
                    std::future::pending::<()>().await;
                }
                Ok(1)
            })
            .await?;
        }
        Ok(n)
    });
    let mut engine = test::Engine::new(app).await.unwrap();
    let id = engine.local().send(GO.on("x"), 2).await.unwrap();
    engine.settle().await;
    for _ in 0..7 {
        engine.kill_and_reopen().await.unwrap();
        engine.settle().await;
    }
    gate.store(1, Ordering::SeqCst);
    engine.kill_and_reopen().await.unwrap();
    engine.settle().await;
    for _ in 0..9 {
        assert_ne!(kit::status(&engine, id).await, "Blocked");
        engine.kill_and_reopen().await.unwrap();
        engine.settle().await;
    }
    engine.kill_and_reopen().await.unwrap();
    engine.settle().await;
    assert_eq!(kit::status(&engine, id).await, "Blocked");
    assert!(kit::sentence(&engine, id).await.contains("ten times"));
    gate.store(2, Ordering::SeqCst);
    kit::retry(&engine, id).await;
    assert_eq!(engine.local().result::<u32>(id).await.unwrap(), 2);
}

#[tokio::test]
async fn a_blocking_step_runs_elsewhere_and_is_not_executed_again() {
    let runs = Arc::new(AtomicU64::new(0));
    let counted = runs.clone();
    let app = App::new().handler(GO, async move |ctx: Ctx, n: u32| {
        let counted = counted.clone();
        let sum = ctx
            .blocking("heavy", move |_| {
                counted.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(2));
                Ok(n + 1)
            })
            .await?;
        ctx.sleep(MINUTE).await?;
        Ok(sum)
    });
    let mut engine = test::Engine::new(app).await.unwrap();
    let id = engine.local().send(GO.on("x"), 4).await.unwrap();
    for _ in 0..500 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        if kit::sentence(&engine, id).await.contains("timer") {
            break;
        }
    }
    engine.kill_and_reopen().await.unwrap();
    engine.advance(MINUTE).await;
    assert_eq!(engine.local().result::<u32>(id).await.unwrap(), 5);
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}
