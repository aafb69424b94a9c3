//! State: what a handler and a shared handler see of it.

use std::time::Duration;

use selvedge::{App, Ctx, Failure, Handler, Outcome, Retry, Settings, SharedHandler, View, test};

use crate::kit;

const SET: Handler<u32, u32> = Handler::new("account", "set");
const READ: Handler<u32, Vec<Option<u32>>> = Handler::new("account", "read");
const SEE: SharedHandler<(), (u32, u32)> = SharedHandler::new("account", "see");
type Read = std::pin::Pin<Box<dyn Future<Output = Outcome<Option<u32>>>>>;
const MINUTE: Duration = Duration::from_secs(60);

fn app() -> App {
    App::new()
        .handler(SET, async |ctx: Ctx, way: u32| {
            let state = ctx.state();
            match way {
                // Two names that belong together.
                0 => {
                    let a = state.get::<u32>("a").await?.unwrap_or(0) + 1;
                    state.set("a", &a)?;
                    state.set("b", &a)?;
                    ctx.step("between", async |_| Ok(())).await?;
                    Ok(a)
                }
                // Written, not committed, then failed.
                1 => {
                    state.set("lost", &1)?;
                    Err(Failure::terminal("no", "no"))
                }
                // Written and committed, then failed.
                2 => {
                    state.set("kept", &1)?;
                    ctx.step("commits", async |_| Ok(())).await?;
                    state.set("lost", &1)?;
                    Err(Failure::terminal("no", "no"))
                }
                3 => {
                    for n in 0..30u32 {
                        state.set(&format!("p/{n:02}"), &n)?;
                    }
                    ctx.sleep(MINUTE).await?;
                    let keys = state.keys("p/").await?;
                    assert_eq!(keys.len(), 30);
                    state.delete("p/07")?;
                    state.set("p/99", &99)?;
                    let entries = state.entries::<u32>("p/").await?;
                    assert_eq!((entries.len(), entries.get("p/07"), entries["p/99"]), (30, None, 99));
                    state.clear()?;
                    assert_eq!(state.get::<u32>("p/01").await?, None);
                    assert!(!state.has("p/02").await?);
                    state.set("after", &1)?;
                    ctx.sleep(MINUTE).await?;
                    assert_eq!(state.keys("").await?, ["after"]);
                    Ok(3)
                }
                n => Ok(n),
            }
        })
        .handler(READ, async |ctx: Ctx, _: u32| {
            // The same name twice at once, before either read has come back.
            let state = ctx.state();
            let (one, two) = (state.clone(), state.clone());
            let reads: Vec<Read> = vec![Box::pin(async move { one.get("a").await }), Box::pin(async move { two.get("a").await })];
            let mut seen = ctx.join_all(reads).await?;
            ctx.sleep(MINUTE).await?;
            seen.push(state.get("a").await?);
            Ok(seen)
        })
        .shared(SEE, async |view: View, ()| {
            let a = view.get::<u32>("a").await?.unwrap_or(0);
            assert_eq!(view.has("a").await?, a > 0);
            Ok((a, view.get::<u32>("b").await?.unwrap_or(0)))
        })
}

#[tokio::test]
async fn a_shared_handler_sees_one_consistent_view() {
    let engine = test::Engine::with(app(), Settings::default()).await.unwrap();
    let writer = engine.local();
    let writes = tokio::spawn(async move {
        for _ in 0..100 {
            writer.call(SET.on("x"), 0).await.unwrap();
        }
    });
    let mut seen = 0;
    while !writes.is_finished() {
        let (a, b) = engine.local().call(SEE.on("x"), ()).await.unwrap();
        assert_eq!(a, b);
        assert!(a >= seen);
        seen = a;
    }
    writes.await.unwrap();
    assert_eq!(engine.local().call(SEE.on("x"), ()).await.unwrap(), (100, 100));
}

#[tokio::test]
async fn writes_that_were_committed_stay_when_a_handler_fails_and_others_are_dropped() {
    let engine = test::Engine::new(app()).await.unwrap();
    for way in [1, 2] {
        assert!(engine.local().call(SET.on("x"), way).await.is_err());
    }
    let state = kit::state(&engine, "account", "x").await;
    assert_eq!(state.keys().collect::<Vec<_>>(), ["kept"]);
}

#[tokio::test]
async fn keys_entries_delete_and_clear_are_replayed_as_they_were() {
    for replay_always in [false, true] {
        let mut engine = test::Engine::with(app(), Settings { replay_always, ..Settings::default() }).await.unwrap();
        let id = engine.local().send(SET.on("x"), 3).await.unwrap();
        for _ in 0..3 {
            engine.advance(MINUTE).await;
            engine.kill_and_reopen().await.unwrap();
            engine.settle().await;
        }
        assert_eq!(engine.local().result::<u32>(id).await.unwrap(), 3, "{}", kit::sentence(&engine, id).await);
        assert_eq!(kit::state(&engine, "account", "x").await.len(), 1);
        kit::sound(&engine).await;
    }
}

#[tokio::test]
async fn one_name_read_twice_at_once_is_one_entry_and_replays() {
    for replay_always in [false, true] {
        let mut engine = test::Engine::with(app(), Settings { replay_always, ..Settings::default() }).await.unwrap();
        engine.local().call(SET.on("x"), 0).await.unwrap();
        let id = engine.local().send(READ.on("x"), 0).await.unwrap();
        engine.settle().await;
        engine.kill_and_reopen().await.unwrap();
        engine.advance(MINUTE).await;
        assert_eq!(engine.local().result::<Vec<Option<u32>>>(id).await.unwrap(), [Some(1), Some(1), Some(1)]);
    }
}

#[tokio::test]
async fn many_middle_sized_values_are_read_in_one_transition() {
    const FILL: Handler<u32, u32> = Handler::new("account", "fill");
    const SUM: Handler<u32, usize> = Handler::new("account", "sum");
    let app = App::new()
        .handler(FILL, async |ctx: Ctx, n: u32| {
            for i in 0..n {
                ctx.state().set(&format!("v{i}"), &"v".repeat(60_000))?;
                if i % 10 == 9 {
                    ctx.step("commit", async |_| Ok(())).await?;
                }
            }
            Ok(n)
        })
        .handler(SUM, async |ctx: Ctx, n: u32| {
            let mut sum = 0;
            for i in 0..n {
                sum += ctx.state().get::<String>(&format!("v{i}")).await?.map_or(0, |value| value.len());
            }
            ctx.sleep(MINUTE).await?;
            Ok(sum)
        });
    let mut engine = test::Engine::with(app, Settings::default()).await.unwrap();
    engine.local().call(FILL.on("x"), 60).await.unwrap();
    let id = engine.local().send(SUM.on("x"), 60).await.unwrap();
    engine.settle().await;
    engine.kill_and_reopen().await.unwrap();
    engine.advance(MINUTE).await;
    assert_eq!(engine.local().result::<usize>(id).await.unwrap(), 60 * 60_000);
    kit::sound(&engine).await;
}

#[tokio::test]
async fn emitted_chunks_are_read_by_position_and_never_twice() {
    const TALK: Handler<u32, u32> = Handler::new("account", "talk");
    let app = App::new().handler(TALK, async |ctx: Ctx, n: u32| {
        for i in 0..n {
            ctx.emit(&i)?;
            if i % 50 == 0 {
                ctx.step("between", async |_| Ok(())).retry(Retry::none()).await?;
            }
        }
        ctx.sleep(MINUTE).await?;
        ctx.emit(&n)?;
        Ok(n)
    });
    let mut engine = test::Engine::new(app).await.unwrap();
    let id = engine.local().send(TALK.on("x"), 250).await.unwrap();
    engine.settle().await;
    let mut stream = engine.local().stream(id);
    let mut seen = Vec::new();
    let mut last = 0;
    while let Some((position, chunk)) = stream.next::<u32>().await.unwrap() {
        seen.push(chunk);
        last = position;
    }
    assert_eq!(seen, (0..250).collect::<Vec<u32>>());
    engine.kill_and_reopen().await.unwrap();
    engine.advance(MINUTE).await;
    let mut stream = engine.local().stream(id).after(last);
    assert_eq!(stream.next::<u32>().await.unwrap().unwrap().1, 250);
    assert!(stream.next::<u32>().await.unwrap().is_none());
}

#[tokio::test]
async fn what_a_handler_asks_for_and_does_not_await_happens_and_is_recorded_as_it_was() {
    const END: Handler<u32, Option<u32>> = Handler::new("account", "end");
    let first = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let app = app().handler(END, move |ctx: Ctx, way: u32| {
        let first = first.clone();
        async move {
            let state = ctx.state();
            if way == 0 {
                state.clear()?;
                return Ok(None);
            }
            // The read is called in the first attempt and awaited in the second.
            let read = state.get::<u32>("a");
            if first.swap(false, std::sync::atomic::Ordering::SeqCst) {
                drop(read);
                return Err(Failure::retryable("again", "again"));
            }
            read.await
        }
    });
    let engine = test::Engine::with(app, Settings { replay_always: false, ..Settings::default() }).await.unwrap();
    engine.local().call(SET.on("x"), 0).await.unwrap();
    let id = engine.local().send(END.on("x"), 1).await.unwrap();
    engine.advance(MINUTE).await;
    assert_eq!(engine.local().result::<Option<u32>>(id).await.unwrap(), Some(1));
    assert_eq!(engine.local().call(END.on("x"), 0).await.unwrap(), None);
    assert!(kit::state(&engine, "account", "x").await.is_empty());
    kit::sound(&engine).await;
}

#[tokio::test]
async fn a_clear_of_more_names_than_a_transition_holds_is_refused_whole() {
    const MANY: Handler<u32, u32> = Handler::new("account", "many");
    let app = App::new().handler(MANY, async |ctx: Ctx, n: u32| {
        if n == 0 {
            ctx.state().clear()?;
        }
        for i in 0..n {
            ctx.state().set(&format!("v{i}"), &i)?;
            if i % 50 == 49 {
                ctx.step("commit", async |_| Ok(())).await?;
            }
        }
        Ok(n)
    });
    let engine = test::Engine::new(app).await.unwrap();
    engine.local().call(MANY.on("x"), 100).await.unwrap();
    let error = engine.local().call(MANY.on("x"), 0).await.unwrap_err().to_string();
    assert!(error.contains("limit: transition") && error.contains("100 names"), "{error}");
    assert_eq!(kit::state(&engine, "account", "x").await.len(), 100);
    engine.local().call(MANY.on("y"), 60).await.unwrap();
    engine.local().call(MANY.on("y"), 0).await.unwrap();
    assert!(kit::state(&engine, "account", "y").await.is_empty());
    kit::sound(&engine).await;
}
