//! What a caller was told is on disk.

use std::future::IntoFuture;
use std::time::Duration;

use selvedge::{App, CallError, Ctx, Handler, Outcome, test};

const ADD: Handler<u64, u64> = Handler::new("counter", "add");

async fn add(ctx: Ctx, by: u64) -> Outcome<u64> {
    let count = ctx.state().get::<u64>("count").await?.unwrap_or(0) + by;
    ctx.state().set("count", &count)?;
    ctx.sleep(Duration::from_secs(1)).await?;
    Ok(count)
}

#[tokio::test]
async fn concurrent_starts_under_one_key_are_one_invocation() {
    let engine = test::Engine::new(App::new().handler(ADD, add)).await.unwrap();
    for round in 0..20 {
        let client = engine.local();
        let key = format!("c-{round}");
        let start = || client.call(ADD.on(&key), 1).idempotency_key("once").wait(Duration::ZERO).into_future();
        let (a, b, c) = tokio::join!(start(), start(), start());
        let ids: Vec<_> = [a, b, c].into_iter().map(|answer| if let Err(CallError::Open { id }) = answer { Some(id) } else { None }).collect();
        assert!(ids[0].is_some() && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        engine.advance(Duration::from_secs(2)).await;
        assert_eq!(client.call(ADD.on(&key), 1).idempotency_key("once").await.unwrap(), 1);
    }
}
