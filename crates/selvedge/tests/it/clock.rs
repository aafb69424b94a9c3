//! Time: it never runs backwards, jumps are reported and spread, and idleness costs nothing.

use std::time::Duration;

use selvedge::{App, Ctx, Handler, Settings, test};
use selvedge_kernel::record::kind::Kind;

use crate::kit::{self, Notes};

const NAP: Handler<u64, u64> = Handler::new("cat", "nap");
const WATCH: Handler<u32, Vec<u64>> = Handler::new("cat", "watch");
const HOUR: Duration = Duration::from_secs(3600);

fn app(notes: &Notes) -> App {
    let notes = notes.clone();
    App::new()
        .handler(NAP, async move |ctx: Ctx, ms: u64| {
            ctx.sleep(Duration::from_millis(ms)).await?;
            notes.add(ms.to_string());
            Ok(ms)
        })
        .handler(WATCH, async |ctx: Ctx, n: u32| {
            let mut seen = Vec::new();
            for _ in 0..n {
                ctx.signal(selvedge::Signal::<()>::new("tick")).await?;
                ctx.step("look", async |_| Ok(())).await?;
                seen.push(ctx.now().0);
            }
            Ok(seen)
        })
}

#[tokio::test]
async fn now_never_runs_backwards_when_the_wall_clock_does() {
    let notes = Notes::default();
    let mut engine = test::Engine::new(app(&notes)).await.unwrap();
    let id = engine.local().send(WATCH.on("w"), 6).await.unwrap();
    for jump in [0, 1_000, -40_000, 5_000, -400_000, 60_000] {
        engine.jump(jump).await;
        engine.local().send_signal(WATCH.on("w"), selvedge::Signal::new("tick"), ()).await.unwrap();
        engine.settle().await;
        engine.kill_and_reopen().await.unwrap();
        engine.settle().await;
    }
    let seen = engine.local().result::<Vec<u64>>(id).await.unwrap();
    assert!(seen.is_sorted(), "{seen:?}");
    assert_eq!(seen.len(), 6);
    kit::sound(&engine).await;
}

#[tokio::test]
async fn time_of_an_actor_never_runs_backwards_from_one_invocation_to_the_next() {
    const NOW: Handler<(), u64> = Handler::new("clock", "now");
    let app = App::new().handler(NOW, async |ctx: Ctx, ()| Ok(ctx.now().0));
    let mut engine = test::Engine::new(app).await.unwrap();
    let mut seen = Vec::new();
    for jump in [0, 1_000, -40_000, 5_000, -400_000, 60_000] {
        engine.jump(jump).await;
        seen.push(engine.local().call(NOW.on("c"), ()).await.unwrap());
        engine.kill_and_reopen().await.unwrap();
        seen.push(engine.local().call(NOW.on("c"), ()).await.unwrap());
    }
    assert!(seen.is_sorted() && seen.first() < seen.last(), "{seen:?}");
    kit::sound(&engine).await;
}

#[tokio::test]
async fn a_jump_ahead_is_reported_and_what_it_made_due_is_spread_over_a_minute_in_order() {
    let notes = Notes::default();
    let engine = test::Engine::with(app(&notes), Settings::default()).await.unwrap();
    for minute in 1..=50u64 {
        engine.local().send(NAP.on(format!("n{minute}")), minute * 60_000).await.unwrap();
    }
    engine.local().send(NAP.on("later"), 2 * 3_600_000).await.unwrap();
    engine.settle().await;
    engine.jump(3_600_000).await;
    assert_eq!(engine.jumps(), [3_600_000]);
    assert!(notes.all().len() <= 1, "{:?}", notes.all());
    engine.advance(Duration::from_secs(30)).await;
    let half = notes.all().len();
    assert!((20..=30).contains(&half), "{half} of 50 after half a minute");
    engine.advance(Duration::from_secs(30)).await;
    assert_eq!(notes.all().len(), 50);
    engine.advance(HOUR).await;
    assert_eq!(notes.all().len(), 51);
    engine.jump(-40_000).await;
    engine.jump(-600_000).await;
    assert_eq!(engine.jumps(), [3_600_000, -600_000], "40 s are no jump");
}

#[tokio::test]
async fn timer_set_after_the_clock_went_ahead_and_back_again_fires_at_its_time() {
    let notes = Notes::default();
    let engine = test::Engine::with(app(&notes), Settings::default()).await.unwrap();
    engine.jump(3_600_000).await;
    engine.jump(-3_500_000).await;
    engine.local().send(NAP.on("new"), 5_000).await.unwrap();
    engine.settle().await;
    engine.advance(Duration::from_secs(5)).await;
    assert_eq!(notes.count("5000"), 1, "nothing jumped over it");
    kit::sound(&engine).await;
}

#[tokio::test]
async fn timer_set_after_a_jump_waits_for_none_that_is_spread_and_a_kill_meanwhile_loses_none() {
    for many in [50u64, 1_500] {
        let (notes, apart) = (Notes::default(), 3_000_000 / many);
        let mut engine = test::Engine::with(app(&notes), Settings { shards: 1, ..Settings::default() }).await.unwrap();
        for n in 1..=many {
            engine.local().send(NAP.on(format!("n{n}")), n * apart).await.unwrap();
        }
        engine.local().send(NAP.on("later"), 3_600_000 + 1_500).await.unwrap();
        engine.settle().await;
        engine.jump(3_600_000).await;
        engine.local().send(NAP.on("new"), 7).await.unwrap();
        engine.local().send(NAP.on("after"), 1_777).await.unwrap();
        engine.settle().await;
        engine.advance(Duration::from_millis(7)).await;
        assert_eq!(notes.count("7"), 1, "{many}: it was set after the jump");
        engine.advance(Duration::from_millis(2_000)).await;
        assert_eq!(notes.count("1777"), 1, "{many}");
        assert!(notes.all().len() < 2 + many as usize / 2, "{many}: {} are spread", notes.all().len());
        engine.kill_and_reopen().await.unwrap();
        engine.settle().await;
        engine.advance(Duration::from_secs(60)).await;
        for n in 1..=many {
            assert_eq!(notes.count(&(n * apart).to_string()), 1, "{many}: the {n}th fired once");
        }
        assert_eq!(notes.count("3601500"), 1, "{many}");
        kit::sound(&engine).await;
    }
}

#[tokio::test]
async fn downtime_is_no_jump_and_what_came_due_fires_at_once() {
    let notes = Notes::default();
    let mut engine = test::Engine::with(app(&notes), Settings::default()).await.unwrap();
    for n in 1..=300u64 {
        engine.local().send(NAP.on(format!("n{n}")), n * 1_000).await.unwrap();
    }
    engine.settle().await;
    engine.kill_and_move_on(HOUR).await.unwrap();
    engine.settle().await;
    assert_eq!(notes.all().len(), 300);
    assert!(engine.jumps().is_empty());
}

#[tokio::test]
async fn an_idle_hour_writes_nothing_and_wakes_nobody() {
    let notes = Notes::default();
    let engine = test::Engine::with(app(&notes), Settings::default()).await.unwrap();
    for n in 0..100u64 {
        engine.local().send(NAP.on(format!("n{n}")), 2 * 3_600_000).await.unwrap();
    }
    engine.local().send(WATCH.on("w"), 1).await.unwrap();
    engine.advance(Duration::from_secs(2)).await;
    assert_eq!(kit::census(&engine).await.active, 0, "what waits has left memory");
    let commits = engine.model().commits();
    for _ in 0..60 {
        engine.advance(Duration::from_secs(60)).await;
    }
    assert_eq!(engine.model().commits(), commits);
}

#[tokio::test]
async fn after_many_fired_timers_the_next_is_found_without_looking_at_them() {
    let notes = Notes::default();
    let mut engine = test::Engine::with(app(&notes), Settings::default()).await.unwrap();
    // One after the other on one actor, and one that is due behind all of them.
    let far = engine.local().send(NAP.on("far"), 3_600_000).await.unwrap();
    let ids: Vec<_> = {
        let mut ids = Vec::new();
        for n in 0..1_000u64 {
            ids.push(engine.local().send(NAP.on("one"), n + 1).await.unwrap());
        }
        ids
    };
    for _ in 0..11 {
        engine.advance(Duration::from_millis(100)).await;
    }
    assert_eq!(notes.all().len(), 1_000, "{}", kit::sentence(&engine, ids[notes.all().len()]).await);
    assert_eq!(kit::rows(&engine, Kind::Timer), 1);
    engine.kill_and_reopen().await.unwrap();
    let last = engine.local().send(NAP.on("one"), 5).await.unwrap();
    engine.advance(Duration::from_millis(5)).await;
    assert_eq!(engine.local().result::<u64>(last).await.unwrap(), 5);
    engine.advance(HOUR).await;
    assert_eq!(engine.local().result::<u64>(far).await.unwrap(), 3_600_000);
}

#[tokio::test]
async fn more_timers_than_fit_in_memory_all_fire() {
    let notes = Notes::default();
    const MANY: Handler<u32, u32> = Handler::new("cat", "many");
    let app = app(&notes).handler(MANY, async |ctx: Ctx, n: u32| {
        let naps: Vec<_> = (0..n).map(|i| ctx.sleep(Duration::from_secs(u64::from(i % 100) + 1))).collect();
        ctx.join_all(naps).await?;
        Ok(n)
    });
    let mut engine = test::Engine::with(app, Settings::default()).await.unwrap();
    let id = engine.local().send(MANY.on("x"), 2_500).await.unwrap();
    engine.settle().await;
    assert_eq!(kit::rows(&engine, Kind::Timer), 2_500);
    engine.advance(Duration::from_secs(50)).await;
    engine.kill_and_reopen().await.unwrap();
    engine.advance(Duration::from_secs(50)).await;
    assert_eq!(engine.local().result::<u32>(id).await.unwrap(), 2_500);
    assert_eq!(kit::rows(&engine, Kind::Timer), 1, "one timer is left to look for chunks after an unclean end");
}
