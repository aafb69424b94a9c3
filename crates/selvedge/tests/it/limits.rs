//! Every limit bites, and its error names it.

use selvedge::{App, Ctx, Handler, Outcome, Retry, Settings, Signal, test};
use selvedge_kernel::limit::Limits;

use crate::kit;

const GO: Handler<u32, u64> = Handler::new("subject", "go");
const TEXT: Handler<String, u64> = Handler::new("subject", "text");
const POKE: Signal<String> = Signal::new("poke");
const YEARS: std::time::Duration = std::time::Duration::from_secs(366 * 86_400);

fn app() -> App {
    App::new().handler(TEXT, async |_: Ctx, text: String| Ok(text.len() as u64)).handler(GO, async |ctx: Ctx, way: u32| {
        let long = "k".repeat(300);
        match way {
            0 => {
                for _ in 0..250 {
                    ctx.step("one", async |_| Ok(1)).await?;
                }
            }
            1 => {
                for n in 0..65 {
                    ctx.state().set(&format!("n{n}"), &n)?;
                }
            }
            2 => {
                ctx.state().set("a", &"x".repeat(600 << 10))?;
                ctx.state().set("b", &"x".repeat(600 << 10))?;
            }
            3 => ctx.state().set(&long, &1)?,
            4 => {
                ctx.step(&long, async |_| Ok(1)).await?;
            }
            5 => {
                ctx.call(TEXT.on(long), String::new()).await?;
            }
            6 => {
                ctx.step("large", async |_| Ok("x".repeat(9 << 20))).retry(Retry::none()).await?;
            }
            7 => {
                ctx.call(TEXT.on("t"), "x".repeat(9 << 20)).await?;
            }
            8 => {
                ctx.send(TEXT.on("t"), "x".repeat(9 << 20));
                ctx.step("never", async |_| Ok(1)).await?;
            }
            9 => {
                let _ = ctx.send(TEXT.on("t"), String::new()).idempotency_key(&long);
                ctx.step("never", async |_| Ok(1)).await?;
            }
            10 => {
                for n in 0..60 {
                    ctx.state().set(&format!("n{n}"), &n)?;
                }
                ctx.step("one", async |_| Ok(1)).await?;
                for n in 0..60 {
                    ctx.state().set(&format!("m{n}"), &n)?;
                }
            }
            11 => ctx.sleep(YEARS * 11).await?,
            12 => {
                ctx.signal(POKE).within(YEARS * 11).await?;
            }
            13 => {
                let _ = ctx.send(TEXT.on("t"), String::new()).delay(YEARS * 11);
                ctx.step("never", async |_| Ok(1)).await?;
            }
            14 => {
                ctx.step("one", async |_| Ok(1)).retry(Retry::exponential(1_001)).await?;
            }
            15 => {
                ctx.call(TEXT.on("t"), String::new()).timeout(YEARS * 11).await?;
            }
            _ => {}
        }
        Ok(0)
    })
}

async fn engine() -> test::Engine {
    let limits = Limits { journal_entries: 200, signals: 5, state_names: 100, ..Limits::default() };
    test::Engine::with(app(), Settings { limits, replay_always: true, ..Settings::default() }).await.unwrap()
}

#[tokio::test]
async fn limits_of_an_invocation_name_themselves() {
    let engine = engine().await;
    for (way, limit) in [
        (0, "limit: journal"),
        (1, "limit: transition"),
        (2, "limit: transition"),
        (3, "limit: key part"),
        (4, "limit: key part"),
        (5, "limit: key part"),
        (6, "limit: body"),
        (7, "limit: body"),
        (8, "limit: body"),
        (9, "limit: key part"),
        (10, "limit: state names"),
        (11, "limit: delay"),
        (12, "limit: delay"),
        (13, "limit: delay"),
        (14, "limit: attempts"),
        (15, "limit: delay"),
    ] {
        let error = engine.local().call(GO.on(format!("g{way}")), way).await.unwrap_err().to_string();
        assert!(error.contains(limit), "{way}: {error}");
    }
    kit::sound(&engine).await;
}

#[tokio::test]
async fn limits_of_the_door_name_themselves() {
    let engine = engine().await;
    let client = engine.local();
    let error = client.call(TEXT.on("t"), "x".repeat(9 << 20)).await.unwrap_err().to_string();
    assert!(error.contains("limit of a body"), "{error}");
    let error = client.call(TEXT.on("k".repeat(300)), String::new()).await.unwrap_err().to_string();
    assert!(error.contains("the actor's key has 300 bytes, the limit is 256"), "{error}");
    let error = client.call(TEXT.on("t"), String::new()).idempotency_key("k".repeat(300)).await.unwrap_err().to_string();
    assert!(error.contains("the idempotency key has 300 bytes"), "{error}");
    for _ in 0..5 {
        client.send_signal(GO.on("s"), POKE, "x".to_owned()).await.unwrap();
    }
    let error = client.send_signal(GO.on("s"), POKE, "x".to_owned()).await.unwrap_err().to_string();
    assert!(error.contains("5 signals to subject/s are kept"), "{error}");
    let error = client.send_signal(GO.on("s2"), POKE, "x".repeat(2 << 20)).await.unwrap_err().to_string();
    assert!(error.contains("the limit is"), "{error}");
}

#[tokio::test]
async fn a_policy_with_more_attempts_than_the_limit_is_refused_at_start() {
    let app = app().actor("subject", selvedge::ActorOptions { retry: Retry::exponential(1_001), ..Default::default() });
    let error = test::Engine::new(app).await.err().unwrap().to_string();
    assert!(error.contains("actors of the type `subject` allows 1001 attempts, the limit is 1000"), "{error}");
}

/// What one transition of the mixer below holds.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
struct Mix {
    sets: usize,
    deletes: usize,
    sends: usize,
    spawns: usize,
    emits: usize,
    reads: usize,
    bytes: usize,
    steps_first: bool,
}

const MIX: Handler<Mix, String> = Handler::new("mixer", "mix");

async fn mix(ctx: Ctx, mix: Mix) -> Outcome<String> {
    if mix.steps_first {
        ctx.step("first", async |_| Ok(1)).await?;
    }
    let text = "x".repeat(mix.bytes);
    for n in 0..mix.reads {
        ctx.state().get::<String>(&format!("large-{n}")).await?;
    }
    for n in 0..mix.sets {
        ctx.state().set(&format!("large-{n}"), &text)?;
    }
    for n in 0..mix.deletes {
        ctx.state().delete(&format!("gone-{n}"))?;
    }
    for n in 0..mix.sends {
        ctx.send(TEXT.on(format!("s{n}-{}", "k".repeat(240))), text.clone());
    }
    for n in 0..mix.spawns {
        drop(ctx.spawn(TEXT.on(format!("c{n}-{}", "k".repeat(240))), text.clone()));
    }
    for _ in 0..mix.emits {
        ctx.emit(&text)?;
    }
    Ok("r".repeat(60 << 10))
}

#[tokio::test]
async fn any_transition_within_its_limits_fits_a_commit() {
    let engine = test::Engine::new(app().handler(MIX, mix)).await.unwrap();
    let mut seed = 7u64;
    let mut draw = move |bound: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % bound
    };
    let mut mixes = vec![
        Mix { sets: 64, deletes: 0, sends: 0, spawns: 0, emits: 0, reads: 40, bytes: 16_000, steps_first: true },
        Mix { sets: 0, deletes: 0, sends: 64, spawns: 0, emits: 0, reads: 0, bytes: 15_000, steps_first: false },
        Mix { sets: 0, deletes: 0, sends: 0, spawns: 32, emits: 0, reads: 0, bytes: 30_000, steps_first: true },
        Mix { sets: 0, deletes: 0, sends: 0, spawns: 0, emits: 64, reads: 0, bytes: 16_000, steps_first: false },
        Mix { sets: 0, deletes: 0, sends: 15, spawns: 0, emits: 0, reads: 0, bytes: 65_000, steps_first: false },
    ];
    for _ in 0..60 {
        let spawns = draw(33);
        let sends = draw(65 - 2 * spawns);
        let sets = draw(65 - 2 * spawns - sends);
        let deletes = draw(65 - 2 * spawns - sends - sets);
        let emits = 64 - 2 * spawns - sends - sets - deletes;
        let most = (1 << 20) / (sets + sends + spawns + emits + 1);
        mixes.push(Mix { sets, deletes, sends, spawns, emits, reads: draw(60), bytes: draw(most), steps_first: draw(2) == 0 });
    }
    let client = engine.local();
    for (n, mix) in mixes.into_iter().enumerate() {
        // Some pass the bytes of a transition by their contexts: then it is that limit that they are told.
        let told = client.call(MIX.on(format!("m{}", n % 3)), mix).idempotency_key(format!("key-{n}")).timeout(YEARS).await;
        assert!(engine.engine().stopped().is_none(), "{mix:?}: {:?}", engine.engine().stopped());
        match told {
            Ok(_) => {}
            Err(error) => assert!(error.to_string().contains("limit: transition"), "{mix:?}: {error}"),
        }
    }
    kit::sound(&engine).await;
}

#[tokio::test]
async fn an_error_with_an_endless_text_is_cut_and_kept() {
    let app = App::new().handler(GO, async |ctx: Ctx, _: u32| {
        ctx.step("shouts", async |_| Err::<u64, _>(selvedge::Failure::retryable("loud", "é".repeat(3 << 20))))
            .retry(Retry::fixed(2, std::time::Duration::from_secs(1)))
            .await
    });
    let engine = test::Engine::new(app).await.unwrap();
    let id = engine.local().send(GO.on("x"), 0).await.unwrap();
    engine.advance(std::time::Duration::from_secs(2)).await;
    let error = engine.local().result::<u64>(id).await.unwrap_err().to_string();
    assert!(error.contains("attempts_exhausted") && error.contains("bytes more") && error.len() < 40_000, "{}", error.len());
    kit::sound(&engine).await;
}
