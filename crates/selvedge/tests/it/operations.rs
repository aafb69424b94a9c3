//! Numbering, delivery, begun and dropped operations.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use selvedge::{App, Ctx, Either, Handler, Outcome, Settings, Signal, test};
use selvedge_kernel::record::kind::Kind;

use crate::kit::{self, Notes};

const GO: Handler<u64, Vec<u64>> = Handler::new("subject", "go");
const SLOW: Handler<u64, u64> = Handler::new("other", "slow");
const PAID: Signal<u64> = Signal::new("paid");
const HOUR: Duration = Duration::from_secs(3600);

async fn slow(ctx: Ctx, value: u64) -> Outcome<u64> {
    ctx.sleep(HOUR).await?;
    Ok(value + 1)
}

async fn both(replay_always: bool) -> test::Engine {
    let app = App::new().handler(SLOW, slow).handler(GO, async |ctx: Ctx, way: u64| {
        let mut seen = Vec::new();
        match way {
            // Numbers are taken where operations are called, in whatever order they are awaited.
            0 => {
                let a = ctx.step("a", async |_| Ok(1));
                let b = ctx.sleep(Duration::from_secs(5));
                let c = ctx.step("c", async |_| Ok(3));
                seen.push(c.await?);
                b.await?;
                seen.push(a.await?);
            }
            // A step and a timer: who won stays.
            1 => {
                let step = ctx.step("quick", async |_| Ok(1));
                match ctx.select(step, ctx.sleep(HOUR)).await {
                    Either::Left(value) => seen.push(value?),
                    Either::Right(_) => seen.push(99),
                }
                ctx.sleep(HOUR).await?;
            }
            // Two branches with steps of one name.
            2 => {
                let one = ctx.step("same", async |_| {
                    tokio::task::yield_now().await;
                    Ok(1u64)
                });
                let two = ctx.step("same", async |_| Ok(2u64));
                seen.extend(ctx.join_all([Box::pin(one) as std::pin::Pin<Box<dyn Future<Output = Outcome<u64>>>>, Box::pin(two)]).await?);
                ctx.sleep(HOUR).await?;
            }
            // The loser is kept and awaited later.
            3 => {
                let mut slow = ctx.call(SLOW.on("kept"), 10);
                let mut nap = ctx.sleep(Duration::from_secs(60));
                if let Either::Right(woken) = ctx.select(&mut slow, &mut nap).await {
                    woken?;
                    seen.push(0);
                }
                seen.push(slow.await?);
            }
            // The loser is dropped: its call runs on, its answer reaches nobody.
            4 => {
                if let Either::Right(woken) = ctx.select(ctx.call(SLOW.on("dropped"), 10), ctx.sleep(Duration::from_secs(60))).await {
                    woken?;
                    seen.push(0);
                }
                ctx.sleep(2 * HOUR).await?;
            }
            _ => {}
        }
        Ok(seen)
    });
    test::Engine::with(app, Settings { replay_always, ..Settings::default() }).await.unwrap()
}

async fn run(engine: &mut test::Engine, way: u64, kill: bool) -> Vec<u64> {
    let id = engine.local().send(GO.on(format!("w{way}")), way).await.unwrap();
    for _ in 0..12 {
        engine.advance(Duration::from_secs(31 * 60)).await;
        if kill {
            engine.kill_and_reopen().await.unwrap();
            engine.settle().await;
        }
    }
    let result = engine.local().result(id).await.unwrap();
    kit::sound(engine).await;
    result
}

#[tokio::test]
async fn operations_are_numbered_when_called_and_results_keep_their_branch_through_kills() {
    for replay_always in [false, true] {
        for kill in [false, true] {
            let mut engine = both(replay_always).await;
            assert_eq!(run(&mut engine, 0, kill).await, [3, 1]);
            assert_eq!(run(&mut engine, 1, kill).await, [1]);
            assert_eq!(run(&mut engine, 2, kill).await, [1, 2]);
            assert_eq!(run(&mut engine, 3, kill).await, [0, 11]);
            assert_eq!(run(&mut engine, 4, kill).await, [0]);
            assert_eq!(kit::rows(&engine, Kind::Begun), 0, "what was given up leaves nothing behind");
            assert_eq!(kit::rows(&engine, Kind::Ready), 0);
            assert_eq!(kit::rows(&engine, Kind::Outbox), 0);
            // After an unclean end, one timer looks for chunks that nobody refers to.
            engine.advance(9 * 24 * HOUR).await;
            assert_eq!(kit::rows(&engine, Kind::Timer), 0);
        }
    }
}

#[tokio::test]
async fn a_loser_that_waits_for_a_signal_takes_none() {
    for replay_always in [false, true] {
        let app = App::new().handler(GO, async |ctx: Ctx, _: u64| {
            let first = match ctx.select(ctx.signal(PAID), ctx.sleep(Duration::from_secs(60))).await {
                Either::Left(value) => value?,
                Either::Right(_) => 0,
            };
            ctx.sleep(Duration::from_secs(60)).await?;
            Ok(vec![first, ctx.signal(PAID).await?])
        });
        let engine = test::Engine::with(app, Settings { replay_always, ..Settings::default() }).await.unwrap();
        let id = engine.local().send(GO.on("s"), 0).await.unwrap();
        engine.advance(Duration::from_secs(61)).await;
        engine.local().send_signal(GO.on("s"), PAID, 5).await.unwrap();
        engine.advance(Duration::from_secs(61)).await;
        assert_eq!(engine.local().result::<Vec<u64>>(id).await.unwrap(), [0, 5]);
    }
}

#[tokio::test]
async fn signals_are_first_in_first_out_and_those_to_an_invocation_are_its_own() {
    let app = App::new().handler(GO, async |ctx: Ctx, n: u64| {
        let mut seen = Vec::new();
        for _ in 0..n {
            seen.push(ctx.signal(PAID).await?);
        }
        Ok(seen)
    });
    let mut engine = test::Engine::new(app).await.unwrap();
    let first = engine.local().send(GO.on("s"), 3).await.unwrap();
    let second = engine.local().send(GO.on("s"), 2).await.unwrap();
    engine.local().send_signal_to(second, PAID, 100).await.unwrap();
    for value in [1, 2, 3, 4] {
        engine.local().send_signal(GO.on("s"), PAID, value).await.unwrap();
        engine.kill_and_reopen().await.unwrap();
    }
    engine.settle().await;
    assert_eq!(engine.local().result::<Vec<u64>>(first).await.unwrap(), [1, 2, 3]);
    assert_eq!(engine.local().result::<Vec<u64>>(second).await.unwrap(), [100, 4]);
    let third = engine.local().send(GO.on("t"), 1).await.unwrap();
    engine.settle().await;
    engine.local().send_signal_to(third, PAID, 1).await.unwrap();
    for _ in 0..40 {
        let sent = engine.local().send_signal_to(third, PAID, 2).await;
        if sent.is_err() {
            break;
        }
    }
    engine.local().result::<Vec<u64>>(third).await.unwrap();
    engine.settle().await;
    assert_eq!(kit::rows(&engine, Kind::InvocationSignal), 0, "signals to an invocation go with it");
}

#[tokio::test]
async fn time_randomness_and_ids_are_the_same_on_replay_and_cost_no_entry() {
    let notes = Notes::default();
    let noted = notes.clone();
    const DRAW: Handler<(), (u64, u64)> = Handler::new("subject", "draw");
    let app = App::new().handler(DRAW, async move |ctx: Ctx, (): ()| {
        let (random, uuid, start) = (ctx.random(), ctx.uuid(), ctx.now());
        noted.add(format!("{random} {uuid} {start}"));
        ctx.sleep(HOUR).await?;
        let child = ctx.spawn(SLOW.on("c"), 1);
        noted.add(format!("child {:?} {}", child.id(), ctx.now().since(start).as_secs()));
        child.join().await?;
        Ok((random, ctx.random()))
    });
    let mut engine = test::Engine::new(app.handler(SLOW, slow)).await.unwrap();
    let id = engine.local().send(DRAW.on("d"), ()).await.unwrap();
    for _ in 0..4 {
        engine.advance(HOUR).await;
        engine.kill_and_reopen().await.unwrap();
        engine.settle().await;
    }
    let (a, b) = engine.local().result::<(u64, u64)>(id).await.unwrap();
    assert_ne!(a, b);
    let mut lines = notes.all();
    lines.sort();
    lines.dedup();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines.iter().any(|line| line.ends_with(" 3600")), "{lines:?}");
}

#[tokio::test]
async fn replay_of_a_finished_prefix_makes_no_outside_call() {
    let calls = Arc::new(AtomicU64::new(0));
    let counted = calls.clone();
    let app = App::new().handler(GO, async move |ctx: Ctx, n: u64| {
        let mut seen = Vec::new();
        for i in 0..n {
            let counted = counted.clone();
            seen.push(
                ctx.step("outside", async move |_| {
                    counted.fetch_add(1, Ordering::SeqCst);
                    Ok(i)
                })
                .await?,
            );
        }
        ctx.sleep(HOUR).await?;
        Ok(seen)
    });
    let mut engine = test::Engine::new(app).await.unwrap();
    let id = engine.local().send(GO.on("r"), 30).await.unwrap();
    engine.settle().await;
    assert_eq!(calls.load(Ordering::SeqCst), 30);
    for _ in 0..3 {
        engine.kill_and_reopen().await.unwrap();
        engine.settle().await;
    }
    engine.advance(HOUR).await;
    assert_eq!(engine.local().result::<Vec<u64>>(id).await.unwrap().len(), 30);
    assert_eq!(calls.load(Ordering::SeqCst), 30);
}
