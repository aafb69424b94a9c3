//! What a handler may await, and what happens when it awaits something else.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::time::Duration;

use selvedge::test::ByHand;
use selvedge::{App, Ctx, Failure, Handler, Millis, Outcome, Settings, test};
use selvedge_engine::env::{Clock, Environment};
use selvedge_kernel::model::Model;
use tokio::task::LocalSet;

use crate::kit;

const GO: Handler<u32, u64> = Handler::new("subject", "go");

async fn go(ctx: Ctx, way: u32) -> Outcome<u64> {
    match way {
        0 => tokio::time::sleep(Duration::from_millis(1)).await,
        1 => std::future::pending::<()>().await,
        2 => {
            let inner = ctx.clone();
            return ctx.step("outer", async move |_| inner.step("inner", async |_| Ok(1)).await).await;
        }
        3 => {
            let inner = ctx.clone();
            return ctx
                .step("outer", async move |_| {
                    inner.state().set("x", &1)?;
                    Ok(1)
                })
                .await;
        }
        4 => {
            let inner = ctx.clone();
            return ctx.step("outer", async move |_| Ok(inner.random())).await;
        }
        5 => {
            // A foreign wait beside an operation: found when it is woken.
            let nap = ctx.sleep(Duration::from_secs(60));
            let foreign = Box::pin(async {
                tokio::time::sleep(Duration::from_millis(1)).await;
                Ok::<(), Failure>(())
            });
            ctx.select(nap, foreign).await;
        }
        6 => {
            // It wakes itself for ever.
            std::future::poll_fn(|context| {
                context.waker().wake_by_ref();
                std::task::Poll::<()>::Pending
            })
            .await;
        }
        7 => {
            // A step may await anything.
            return ctx
                .step("waits", async |_| {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    Ok(7)
                })
                .await;
        }
        _ => {}
    }
    Ok(0)
}

async fn blocked(way: u32) -> String {
    let engine = test::Engine::new(App::new().handler(GO, go)).await.unwrap();
    let id = engine.local().send(GO.on("x"), way).await.unwrap();
    for _ in 0..500 {
        engine.settle().await;
        if kit::status(&engine, id).await == "Blocked" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    kit::sentence(&engine, id).await
}

#[tokio::test]
async fn a_foreign_wait_is_blocked_at_once_with_that_reason() {
    for way in [0, 5, 6] {
        let why = blocked(way).await;
        assert!(why.contains("not an operation of its context"), "{way}: {why}");
    }
}

#[tokio::test]
async fn being_pending_with_no_operation_is_blocked() {
    let why = blocked(1).await;
    assert!(why.contains("not an operation of its context"), "{why}");
}

#[tokio::test]
async fn an_operation_called_inside_a_step_fails_with_nested_operation() {
    let engine = test::Engine::new(App::new().handler(GO, go)).await.unwrap();
    for way in [2, 3, 4] {
        let error = engine.local().call(GO.on(format!("n{way}")), way).await.unwrap_err().to_string();
        assert!(error.contains("nested_operation"), "{way}: {error}");
    }
    assert_eq!(engine.local().call(GO.on("w"), 7).await.unwrap(), 7);
}

/// Polls its parts only when they were woken, each through a waker of its own, as sets of futures do.
struct Picky<F> {
    parts: Vec<(Option<F>, std::sync::Arc<Flag>)>,
    done: Vec<u64>,
}

struct Flag {
    woken: std::sync::atomic::AtomicBool,
    parent: std::sync::Mutex<Option<std::task::Waker>>,
}

impl std::task::Wake for Flag {
    fn wake(self: std::sync::Arc<Self>) {
        self.woken.store(true, std::sync::atomic::Ordering::SeqCst);
        if let Some(parent) = &*self.parent.lock().unwrap() {
            parent.wake_by_ref();
        }
    }
}

impl<F: Future<Output = Outcome<u64>> + Unpin> Future for Picky<F> {
    type Output = Vec<u64>;
    fn poll(mut self: std::pin::Pin<&mut Self>, context: &mut std::task::Context<'_>) -> std::task::Poll<Vec<u64>> {
        let this = &mut *self;
        for (part, flag) in &mut this.parts {
            *flag.parent.lock().unwrap() = Some(context.waker().clone());
            if !flag.woken.swap(false, std::sync::atomic::Ordering::SeqCst) {
                continue;
            }
            let waker = std::task::Waker::from(flag.clone());
            if let Some(future) = part
                && let std::task::Poll::Ready(value) = std::pin::Pin::new(future).poll(&mut std::task::Context::from_waker(&waker))
            {
                this.done.push(value.unwrap());
                *part = None;
            }
        }
        if this.parts.iter().all(|part| part.0.is_none()) { std::task::Poll::Ready(std::mem::take(&mut this.done)) } else { std::task::Poll::Pending }
    }
}

#[tokio::test]
async fn a_set_of_futures_that_polls_only_what_was_woken_gets_all_its_results() {
    let app = App::new().handler(GO, async |ctx: Ctx, n: u32| {
        let parts = (0..n)
            .map(|i| {
                let step = ctx.step("part", async move |_| {
                    tokio::task::yield_now().await;
                    Ok(u64::from(i))
                });
                (Some(step), std::sync::Arc::new(Flag { woken: true.into(), parent: std::sync::Mutex::default() }))
            })
            .collect();
        let got = Picky { parts, done: Vec::new() }.await;
        Ok(got.into_iter().sum())
    });
    let engine = test::Engine::new(app).await.unwrap();
    assert_eq!(engine.local().call(GO.on("p"), 40).await.unwrap(), (0..40).sum::<u64>());
}

#[tokio::test]
async fn late_wake_of_a_handler_that_has_left_memory_does_not_block_it_when_it_is_back() {
    const NAP: Handler<(), u64> = Handler::new("cat", "nap");
    /// Whoever has it wakes the handler from outside, once.
    type Stashed = Arc<Mutex<Option<Waker>>>;
    let (stashed, woken, draws) = (Stashed::default(), Arc::new(AtomicBool::new(false)), AtomicU64::new(1));
    let (stash, wakes, told) = (stashed.clone(), stashed.clone(), woken.clone());
    let app = App::new().handler(NAP, async move |ctx: Ctx, ()| {
        ctx.step("first", async |_| Ok(())).await?;
        let mut nap = ctx.sleep(Duration::from_secs(3_600));
        std::future::poll_fn(|context| {
            if !told.load(Ordering::SeqCst) {
                stash.lock().unwrap().get_or_insert_with(|| context.waker().clone());
            }
            Pin::new(&mut nap).poll(context)
        })
        .await?;
        Ok(1)
    });
    let done = woken.clone();
    let monotonic = move || {
        // Asked on the handler's thread right behind its poll, before it is dropped and replayed.
        if let Some(waker) = wakes.lock().unwrap().take() {
            done.store(true, Ordering::SeqCst);
            waker.wake();
        }
        Millis(0)
    };
    let env = Environment {
        clock: Clock::Machine { wall: Arc::new(|| Millis(1_767_225_600_000)), monotonic: Arc::new(monotonic) },
        random: Arc::new(move |buffer| {
            for bytes in buffer.chunks_mut(8) {
                let word = draws.fetch_add(1, Ordering::SeqCst).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                bytes.copy_from_slice(&word.to_be_bytes()[..bytes.len()]);
            }
        }),
        observer: None,
    };
    let settings = Settings { workers: 1, replay_always: true, ..Settings::default() };
    let by_hand = ByHand::open(&app, Arc::new(Model::new()), env, settings, tokio::runtime::Handle::current());
    let client = by_hand.local();
    LocalSet::new()
        .run_until(async move {
            by_hand.workers.into_iter().for_each(|worker| drop(tokio::task::spawn_local(worker)));
            let id = client.send(NAP.on("a"), ()).await.unwrap();
            while !woken.load(Ordering::SeqCst) {
                tokio::task::yield_now().await;
            }
            // Asked behind the wake.
            for _ in 0..3 {
                let why = client.why(id).await.unwrap();
                assert!(why.sentence().contains("timer"), "{}", why.sentence());
            }
        })
        .await;
}
