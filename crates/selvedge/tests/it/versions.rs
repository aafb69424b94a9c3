//! Versions of handlers, and of passages inside them.

use std::time::Duration;

use selvedge::{App, Ctx, Handler, Outcome, test};

use crate::kit;

const PLACE: Handler<u64, String> = Handler::new("order", "place");
const MINUTE: Duration = Duration::from_secs(60);

async fn placed(ctx: Ctx, by: &'static str) -> Outcome<String> {
    ctx.step(by, async |_| Ok(())).await?;
    ctx.sleep(MINUTE).await?;
    Ok(by.to_owned())
}

fn with(versions: &[u32]) -> App {
    let mut app = App::new();
    for version in versions {
        app = match version {
            1 => app.handler(PLACE, async |ctx: Ctx, _: u64| placed(ctx, "one").await),
            2 => app.handler(PLACE.version(2), async |ctx: Ctx, _: u64| placed(ctx, "two").await),
            _ => app.handler(PLACE.version(3), async |ctx: Ctx, _: u64| placed(ctx, "three").await),
        };
    }
    app
}

#[tokio::test]
async fn an_invocation_is_finished_by_the_version_that_accepted_it() {
    // The order of registration does not matter.
    for versions in [[1, 2], [2, 1]] {
        let mut engine = test::Engine::new(with(&[1])).await.unwrap();
        let old = engine.local().send(PLACE.on("a"), 1).await.unwrap();
        engine.settle().await;
        engine.deploy(with(&versions)).await.unwrap();
        let queued = engine.local().send(PLACE.on("a"), 1).await.unwrap();
        engine.settle().await;
        assert!(kit::sentence(&engine, queued).await.contains("order/a.place@2)"), "{}", kit::sentence(&engine, queued).await);
        engine.advance(MINUTE).await;
        engine.advance(MINUTE).await;
        assert_eq!(engine.local().result::<String>(old).await.unwrap(), "one");
        assert_eq!(engine.local().result::<String>(queued).await.unwrap(), "two");
    }
}

#[tokio::test]
async fn a_version_that_is_missing_blocks_and_is_looked_at_again_when_a_binary_starts() {
    let mut engine = test::Engine::new(with(&[2])).await.unwrap();
    let id = engine.local().send(PLACE.on("a"), 1).await.unwrap();
    engine.settle().await;
    engine.deploy(with(&[3])).await.unwrap();
    engine.advance(MINUTE).await;
    let why = kit::sentence(&engine, id).await;
    assert!(why.contains("needs order.place@2, this binary has @3"), "{why}");
    assert_eq!(kit::status(&engine, id).await, "Blocked");
    // Not the right one yet, twice, and the row that brings it back stays.
    for versions in [&[1, 3][..], &[][..]] {
        engine.deploy(with(versions)).await.unwrap();
        engine.settle().await;
        assert_eq!(kit::status(&engine, id).await, "Blocked");
    }
    engine.deploy(with(&[2, 3])).await.unwrap();
    engine.settle().await;
    assert_eq!(engine.local().result::<String>(id).await.unwrap(), "two");
    assert_eq!(kit::rows(&engine, selvedge_kernel::record::kind::Kind::Ready), 0);
    kit::sound(&engine).await;
}

/// A passage that was changed behind a wait, with what the handler took.
fn fee(newest: Option<u32>, waits: u64) -> App {
    App::new().handler(PLACE, async move |ctx: Ctx, _: u64| {
        let before: u64 = ctx.step("before", async |_| Ok(7)).await?;
        let first = newest.map_or(1, |newest| ctx.version("fee", newest));
        for _ in 0..waits {
            ctx.sleep(MINUTE).await?;
        }
        let taken = newest.map_or(1, |newest| ctx.version("fee", newest));
        assert_eq!(first, taken);
        let late = newest.map_or(1, |newest| ctx.version("late", newest));
        Ok(format!("{before} fee {taken} late {late}"))
    })
}

#[tokio::test]
async fn a_changed_passage_is_taken_in_its_old_form_by_whoever_had_passed_it_and_in_the_new_one_by_others() {
    for waits in [1, 2] {
        let mut engine = test::Engine::new(fee(None, waits)).await.unwrap();
        let old = engine.local().send(PLACE.on("old"), 1).await.unwrap();
        engine.settle().await;
        engine.deploy(fee(Some(2), waits)).await.unwrap();
        let new = engine.local().send(PLACE.on("new"), 1).await.unwrap();
        engine.settle().await;
        // A third form comes while both wait.
        engine.deploy(fee(Some(3), waits)).await.unwrap();
        engine.settle().await;
        for _ in 0..waits {
            engine.advance(MINUTE).await;
            engine.kill_and_reopen().await.unwrap();
            engine.settle().await;
        }
        assert_eq!(engine.local().result::<String>(old).await.unwrap(), "7 fee 1 late 3");
        assert_eq!(engine.local().result::<String>(new).await.unwrap(), "7 fee 2 late 3");
        kit::sound(&engine).await;
    }
}

#[tokio::test]
async fn a_call_of_version_takes_no_number_and_may_be_taken_out_again() {
    let mut engine = test::Engine::new(fee(Some(2), 1)).await.unwrap();
    let id = engine.local().send(PLACE.on("x"), 1).await.unwrap();
    engine.settle().await;
    engine.deploy(fee(None, 1)).await.unwrap();
    engine.settle().await;
    engine.advance(MINUTE).await;
    assert_eq!(engine.local().result::<String>(id).await.unwrap(), "7 fee 1 late 1");
}
