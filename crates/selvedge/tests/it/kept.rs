//! Large answers that wait for their operation: whatever becomes of it, they leave with their owner.

use std::sync::Arc;
use std::time::Duration;

use selvedge::{App, Ctx, Handler, Settings, test};
use selvedge_kernel::record::kind::Kind;
use tokio::sync::Notify;

use crate::kit;

const PARENT: Handler<String, u32> = Handler::new("parent", "go");
const CHILD: Handler<String, String> = Handler::new("child", "answer");
const LARGE: usize = 200_000;

fn app(go: &Arc<Notify>) -> App {
    let go = go.clone();
    App::new().handler(CHILD, async |_: Ctx, text: String| Ok(text.repeat(LARGE))).handler(PARENT, async move |ctx: Ctx, key: String| {
        // Whom it never joins.
        let _child = ctx.spawn(CHILD.on(&key), "x".to_owned());
        ctx.step("waits", async |_| {
            go.notified().await;
            Ok(1)
        })
        .await
    })
}

/// A month later nothing is left but ledgers.
async fn nothing_is_left(engine: &test::Engine) {
    kit::sound(engine).await;
    for _ in 0..2 {
        engine.advance(Duration::from_secs(40 * 86_400)).await;
        engine.advance(Duration::from_secs(1)).await;
    }
    assert_eq!((kit::rows(engine, Kind::Chunk), kit::rows(engine, Kind::Timer)), (0, 0));
}

#[tokio::test]
async fn large_answer_of_a_child_that_nobody_joined_leaves_with_its_parent() {
    let go = Arc::new(Notify::new());
    let engine = test::Engine::with(app(&go), Settings::default()).await.unwrap();
    // In the parent's own shard, and in others.
    for key in ["a", "b", "c", "d"] {
        let id = engine.local().send(PARENT.on(key), key.to_owned()).await.unwrap();
        engine.settle().await;
        let before = kit::rows(&engine, Kind::Chunk);
        assert!(before > 0, "the answer is kept in chunks");
        go.notify_one();
        assert_eq!(engine.local().result::<u32>(id).await.unwrap(), 1);
    }
    nothing_is_left(&engine).await;
}

#[tokio::test]
async fn large_answer_that_came_to_one_who_is_blocked_leaves_when_it_is_killed() {
    let app = App::new().handler(CHILD, async |_: Ctx, text: String| Ok(text.repeat(LARGE))).handler(PARENT, async |ctx: Ctx, key: String| {
        let _child = ctx.spawn(CHILD.on(&key), "x".to_owned());
        ctx.step("one", async |_| Ok(1)).await?;
        // Nobody of ours will ever wake it.
        std::future::pending().await
    });
    let engine = test::Engine::with(app, Settings::default()).await.unwrap();
    for key in ["a", "b", "c"] {
        let id = engine.local().send(PARENT.on(key), key.to_owned()).await.unwrap();
        engine.settle().await;
        assert_eq!(kit::status(&engine, id).await, "Blocked");
        assert!(kit::rows(&engine, Kind::Begun) > 0, "the answer lies in its row");
        kit::kill(&engine, id).await;
    }
    nothing_is_left(&engine).await;
}
