//! The workloads of `make bench-peers` on Restate: nothing, ten steps, a counter by its key. `restate-service 127.0.0.1:PORT`.

use std::net::SocketAddr;
use std::process::ExitCode;

use restate_sdk::prelude::*;

/// As many as the same workload of ours.
const STEPS: u32 = 10;

struct Work;

#[service]
impl Work {
    #[handler]
    async fn nothing(&self, _ctx: Context<'_>) -> Result<(), TerminalError> {
        Ok(())
    }

    #[handler]
    async fn steps(&self, ctx: Context<'_>) -> Result<u32, TerminalError> {
        for _ in 0..STEPS {
            ctx.run(|| async { Ok(()) }).name("one").await?;
        }
        Ok(STEPS)
    }
}

struct Counter;

#[object]
impl Counter {
    #[handler]
    async fn add(&self, ctx: ObjectContext<'_>, by: u64) -> Result<u64, TerminalError> {
        let count = ctx.get::<u64>("count").await?.unwrap_or(0) + by;
        ctx.set("count", count);
        Ok(count)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let address = std::env::args().nth(1).and_then(|word| word.parse::<SocketAddr>().ok());
    let Some(address) = address else {
        eprintln!("restate-service: say where to listen, as in `restate-service 127.0.0.1:9080`");
        return ExitCode::FAILURE;
    };
    HttpServer::new(Endpoint::builder().bind(Work).bind(Counter).build()).listen_and_serve(address).await;
    ExitCode::SUCCESS
}
