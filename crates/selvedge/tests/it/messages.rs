//! Messages between actors: once, in order, whole; refusals; delays; what is large.

use std::time::Duration;

use selvedge::{App, Ctx, Failure, Handler, Outcome, Settings, test};
use selvedge_kernel::limit::Limits;
use selvedge_kernel::record::kind::Kind;

use crate::kit;

const GO: Handler<Vec<u32>, u64> = Handler::new("subject", "go");
const LOG: Handler<u32, u64> = Handler::new("log", "add");
const BIG: Handler<String, usize> = Handler::new("log", "big");
const ECHO: Handler<String, String> = Handler::new("log", "echo");

async fn add(ctx: Ctx, value: u32) -> Outcome<u64> {
    let mut seen = ctx.state().get::<Vec<u32>>("seen").await?.unwrap_or_default();
    seen.push(value);
    ctx.state().set("seen", &seen)?;
    Ok(seen.len() as u64)
}

fn app() -> App {
    App::new()
        .handler(LOG, add)
        .handler(BIG, async |ctx: Ctx, text: String| {
            ctx.state().set("last", &text.len())?;
            Ok(text.len())
        })
        .handler(ECHO, async |_: Ctx, text: String| Ok(text))
        .handler(GO, async |ctx: Ctx, values: Vec<u32>| {
            // In bursts, so that some go straight to their inbox and some by envelope.
            for burst in values.chunks(20) {
                for value in burst {
                    for key in ["a", "b", "c", "d"].iter().take(if burst.len() == 20 { 3 } else { 4 }) {
                        ctx.send(LOG.on(*key), *value);
                    }
                }
                ctx.step("between", async |_| Ok(1)).await?;
            }
            Ok(values.len() as u64)
        })
}

#[tokio::test]
async fn messages_arrive_once_and_in_order_for_each_pair_of_actors_through_kills() {
    let mut engine = test::Engine::new(app()).await.unwrap();
    let mut ids = Vec::new();
    // Many senders, so that some share their shard with a receiver.
    for sender in 0..12u32 {
        let values: Vec<u32> = (0..60).map(|n| sender * 1_000 + n).collect();
        ids.push(engine.local().send(GO.on(format!("s{sender}")), values).await.unwrap());
        if sender % 3 == 0 {
            engine.kill_and_reopen().await.unwrap();
        }
    }
    engine.kill_and_reopen().await.unwrap();
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(3)).await;
        engine.kill_and_reopen().await.unwrap();
    }
    engine.settle().await;
    for id in ids {
        assert!(kit::sentence(&engine, id).await.contains("completed"), "{}", kit::sentence(&engine, id).await);
    }
    let letters = kit::dead_letters(&engine).await;
    assert!(letters.is_empty(), "{} {:?}", letters.len(), letters[0]);
    for key in ["a", "b", "c"] {
        let seen: Vec<u32> = serde_json::from_str(&kit::state(&engine, "log", key).await["seen"]).unwrap();
        assert_eq!(
            seen.len(),
            12 * 60,
            "inbox {} outbox {} ready {} {:?}",
            kit::rows(&engine, Kind::Inbox),
            kit::rows(&engine, Kind::Outbox),
            kit::rows(&engine, Kind::Ready),
            kit::census(&engine).await
        );
        for sender in 0..12 {
            let own: Vec<u32> = seen.iter().copied().filter(|value| value / 1_000 == sender).collect();
            assert_eq!(own, (0..60).map(|n| sender * 1_000 + n).collect::<Vec<u32>>(), "{key} from {sender}");
        }
    }
    kit::sound(&engine).await;
    assert_eq!(kit::rows(&engine, Kind::Outbox), 0);
}

#[tokio::test]
async fn sixty_four_sends_fit_one_transition_and_one_more_names_the_limit() {
    const MANY: Handler<u32, u32> = Handler::new("subject", "many");
    let app = app().handler(MANY, async |ctx: Ctx, n: u32| {
        for i in 0..n {
            ctx.send(LOG.on(format!("m{i}")), i);
        }
        Ok(n)
    });
    let engine = test::Engine::new(app).await.unwrap();
    assert_eq!(engine.local().call(MANY.on("x"), 64).await.unwrap(), 64);
    engine.settle().await;
    for i in 0..64 {
        assert_eq!(kit::state(&engine, "log", &format!("m{i}")).await.len(), 1);
    }
    let error = engine.local().call(MANY.on("y"), 65).await.unwrap_err().to_string();
    assert!(error.contains("limit: transition") && error.contains("64"), "{error}");
    kit::sound(&engine).await;
}

#[tokio::test]
async fn delayed_messages_are_handled_in_the_order_of_their_due_times() {
    const LATER: Handler<u32, u32> = Handler::new("subject", "later");
    let app = app().handler(LATER, async |ctx: Ctx, seed: u32| {
        for n in 0..20u32 {
            let wait = (n * 7 + seed) % 20;
            let _ = ctx.send(LOG.on("late"), wait).delay(Duration::from_secs(u64::from(wait) + 1));
        }
        Ok(1)
    });
    let mut engine = test::Engine::new(app).await.unwrap();
    engine.local().call(LATER.on("x"), 3).await.unwrap();
    engine.kill_and_reopen().await.unwrap();
    engine.settle().await;
    assert!(kit::state(&engine, "log", "late").await.is_empty(), "nothing before its time");
    engine.advance(Duration::from_secs(5)).await;
    engine.advance(Duration::from_secs(60)).await;
    let seen: Vec<u32> = serde_json::from_str(&kit::state(&engine, "log", "late").await["seen"]).unwrap();
    assert_eq!(seen, (0..20).collect::<Vec<u32>>());
}

#[tokio::test]
async fn a_call_to_nobody_is_refused_and_a_send_to_nobody_is_a_dead_letter() {
    const NOBODY: Handler<u32, u32> = Handler::new("nobody", "home");
    const ASK: Handler<u32, String> = Handler::new("subject", "ask");
    let app = App::new().handler(ASK, async |ctx: Ctx, _: u32| {
        ctx.send(NOBODY.on("x"), 1);
        Ok(ctx.call(NOBODY.on("x"), 2).await.map_or_else(|error| format!("{error:?}"), |_| String::new()))
    });
    let engine = test::Engine::new(app).await.unwrap();
    let said = engine.local().call(ASK.on("x"), 1).await.unwrap();
    assert!(said.contains("refused") && said.contains("nobody.home") && said.contains("subject"), "{said}");
    engine.settle().await;
    let letters = kit::dead_letters(&engine).await;
    assert_eq!((letters.len(), &letters[0].message.input[..]), (1, &b"1"[..]));
}

#[tokio::test]
async fn a_full_inbox_refuses_with_its_limit_and_stops_nobody_else() {
    const ASK: Handler<u32, String> = Handler::new("subject", "ask");
    const HOLD: Handler<(), ()> = Handler::new("log", "hold");
    let app = app().handler(HOLD, async |ctx: Ctx, (): ()| ctx.sleep(Duration::from_secs(3600)).await).handler(ASK, async |ctx: Ctx, _: u32| {
        let full = ctx.call(LOG.on("full"), 2).await.map_or_else(|error| format!("{error:?}"), |_| String::new());
        let free = ctx.call(LOG.on("free"), 2).await?;
        Ok(format!("{full} {free}"))
    });
    let settings = Settings { limits: Limits { inbox: 3, ..Limits::default() }, ..Settings::default() };
    let engine = test::Engine::with(app, settings).await.unwrap();
    engine.local().send(HOLD.on("full"), ()).await.unwrap();
    engine.local().send(LOG.on("full"), 1).await.unwrap();
    engine.local().send(LOG.on("full"), 1).await.unwrap();
    let error = engine.local().send(LOG.on("full"), 1).await.unwrap_err().to_string();
    assert!(error.contains("limit of one inbox is 3"), "{error}");
    let said = engine.local().call(ASK.on("x"), 1).await.unwrap();
    assert!(said.starts_with("refused") && said.contains("limit of one inbox is 3") && said.ends_with(" 1"), "{said}");
}

#[tokio::test]
async fn large_inputs_answers_and_delayed_messages_cross_shards_whole_and_leave_no_chunk_behind() {
    const RELAY: Handler<usize, usize> = Handler::new("subject", "relay");
    let app = app().handler(RELAY, async |ctx: Ctx, bytes: usize| {
        let text = "y".repeat(bytes);
        ctx.send(BIG.on("sent"), text.clone());
        let _ = ctx.send(BIG.on("delayed"), text.clone()).delay(Duration::from_secs(60));
        let back = ctx.call(ECHO.on("called"), text.clone()).await?;
        let joined = ctx.spawn(ECHO.on("spawned"), text.clone()).join().await?;
        ctx.sleep(Duration::from_secs(120)).await?;
        if back != text || joined != text {
            return Err(Failure::terminal("changed", "it is not what was sent"));
        }
        Ok(back.len())
    });
    for replay_always in [false, true] {
        let mut engine = test::Engine::with(app.clone(), Settings { replay_always, ..Settings::default() }).await.unwrap();
        for key in ["p", "q", "r"] {
            let id = engine.local().send(RELAY.on(key), 3 << 20).await.unwrap();
            engine.settle().await;
            engine.kill_and_reopen().await.unwrap();
            engine.advance(Duration::from_secs(61)).await;
            engine.kill_and_reopen().await.unwrap();
            engine.advance(Duration::from_secs(61)).await;
            assert_eq!(engine.local().result::<usize>(id).await.unwrap(), 3 << 20);
        }
        assert_eq!(kit::state(&engine, "log", "sent").await["last"], (3 << 20).to_string());
        assert_eq!(kit::state(&engine, "log", "delayed").await["last"], (3 << 20).to_string());
        kit::sound(&engine).await;
        assert_eq!(kit::rows(&engine, Kind::Outbox), 0);
        engine.advance(Duration::from_secs(9 * 86_400)).await;
        engine.advance(Duration::from_secs(1)).await;
        assert_eq!(kit::rows(&engine, Kind::Chunk), 0, "chunks go with their owners");
        assert_eq!(kit::rows(&engine, Kind::Timer), 0);
    }
}

#[tokio::test]
async fn fifty_large_outputs_cost_their_size_once() {
    const STEPS: Handler<u32, u64> = Handler::new("subject", "steps");
    let app = App::new().handler(STEPS, async |ctx: Ctx, n: u32| {
        let mut sum = 0;
        for i in 0..n {
            let text: String = ctx.step("large", async move |_| Ok("z".repeat((512 << 10) * (i as usize % 4 + 1)))).await?;
            sum += text.len() as u64;
        }
        ctx.sleep(Duration::from_secs(60)).await?;
        Ok(sum)
    });
    let mut engine = test::Engine::with(app, Settings::default()).await.unwrap();
    let id = engine.local().send(STEPS.on("x"), 50).await.unwrap();
    engine.settle().await;
    engine.kill_and_reopen().await.unwrap();
    engine.advance(Duration::from_secs(61)).await;
    let sum = engine.local().result::<u64>(id).await.unwrap();
    let kept: usize = (0..64).flat_map(|shard| engine.model().rows(selvedge_kernel::id::ShardId(shard))).map(|(key, value)| key.len() + value.len()).sum();
    assert!(kept as u64 <= sum + sum / 50, "{kept} bytes are kept for {sum}");
    kit::sound(&engine).await;
}
