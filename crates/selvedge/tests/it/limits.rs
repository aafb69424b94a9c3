//! Every limit bites, and its error names it.

use selvedge::{App, Ctx, Handler, Retry, Settings, Signal, test};
use selvedge_kernel::limit::Limits;

use crate::kit;

const GO: Handler<u32, u64> = Handler::new("subject", "go");
const TEXT: Handler<String, u64> = Handler::new("subject", "text");
const POKE: Signal<String> = Signal::new("poke");

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
            _ => {}
        }
        Ok(0)
    })
}

async fn engine() -> test::Engine {
    let limits = Limits { journal_entries: 200, signals: 5, ..Limits::default() };
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
    assert!(error.contains("5 signals `poke` are kept"), "{error}");
    let error = client.send_signal(GO.on("s2"), POKE, "x".repeat(2 << 20)).await.unwrap_err().to_string();
    assert!(error.contains("the limit is"), "{error}");
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
