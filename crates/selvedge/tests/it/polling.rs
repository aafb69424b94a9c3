//! What a handler may await, and what happens when it awaits something else.

use std::pin::Pin;
use std::sync::{Arc, Barrier, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;

use selvedge::{App, Ctx, Failure, Handler, Outcome, Settings, test};
use selvedge_kernel::auth::Action;

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
    const BUSY: Handler<(), ()> = Handler::new("dog", "busy");
    let (stashed, begun, go) = (Arc::new(Mutex::new(None)), Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let (stash, starts, goes) = (stashed.clone(), begun.clone(), go.clone());
    let app = App::new()
        .handler(NAP, async move |ctx: Ctx, ()| {
            let mut nap = ctx.sleep(Duration::from_secs(60));
            std::future::poll_fn(|context| {
                // Whoever has this can wake the handler from outside.
                stash.lock().unwrap().get_or_insert_with(|| context.waker().clone());
                Pin::new(&mut nap).poll(context)
            })
            .await?;
            Ok(1)
        })
        .handler(BUSY, async move |_: Ctx, ()| {
            starts.wait();
            goes.wait();
            Ok(())
        });
    let engine = test::Engine::with(app, Settings { workers: 1, ..Settings::default() }).await.unwrap();
    let id = engine.local().send(NAP.on("a"), ()).await.unwrap();
    engine.settle().await;
    let waker: Waker = stashed.lock().unwrap().clone().unwrap();
    let client = engine.local();
    let busy = tokio::spawn(async move { client.send(BUSY.on("b"), ()).await });
    tokio::task::spawn_blocking(move || begun.wait()).await.unwrap();
    // What reaches its thread in one turn: it is woken, taken up again by hand, and woken as the one that it was.
    waker.wake_by_ref();
    let (shared, permit) = (engine.engine().clone(), kit::permit(&engine, Action::Control, kit::work(id)));
    let mut retried = Box::pin(async move { shared.retry(permit, id).await });
    assert!(std::future::poll_fn(|context| Poll::Ready(retried.as_mut().poll(context).is_pending())).await);
    waker.wake_by_ref();
    tokio::task::spawn_blocking(move || go.wait()).await.unwrap();
    retried.await.unwrap();
    busy.await.unwrap().unwrap();
    engine.settle().await;
    assert_ne!(kit::status(&engine, id).await, "Blocked", "{}", kit::sentence(&engine, id).await);
    engine.advance(Duration::from_secs(60)).await;
    assert_eq!(engine.local().result::<u64>(id).await.unwrap(), 1);
}
