//! `cargo run --release --example scale_timers -- 1000000`: so many delayed messages, then all of them fire. Prints time,
//! peak memory, and bytes on disk, and each figure for a tenth of the number first, so that growth shows as a ratio.

mod measure;

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use selvedge::{App, Config, Ctx, Engine, Handler, Outcome};
use selvedge_engine::engine::Ask;
use selvedge_kernel::auth::{Action, Resource, authorize, local};
use selvedge_kernel::id::ActorId;

use measure::{bytes_below, cpu_seconds, peak_mib};

const RING: Handler<(), ()> = Handler::new("bell", "ring");
const CALLERS: u64 = 256;

async fn ring(_: Ctx, (): ()) -> Outcome<()> {
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let timers = std::env::args().nth(1).map_or(Ok(1_000_000), |count| count.parse::<u64>())?;
    let folder = std::env::temp_dir().join(format!("selvedge-scale-timers-{}", std::process::id()));
    let small = measure(timers / 10, &folder).await?;
    let large = measure(timers, &folder).await?;
    println!("ten times the timers: {:.1} times the time to set, {:.1} times the time to fire", large.0 / small.0, large.1 / small.1);
    Ok(())
}

async fn measure(timers: u64, folder: &Path) -> Result<(f64, f64), Box<dyn std::error::Error>> {
    if folder.exists() {
        std::fs::remove_dir_all(folder)?;
    }
    let engine = Engine::open(Config::on(folder), App::new().handler(RING, ring)).await?;
    let (cpu, started) = (cpu_seconds(), Instant::now());
    // All are due when all are set: the queue is at its longest before the first fires.
    let delay = Duration::from_micros(timers * 60) + Duration::from_secs(5);
    let inner = engine.inner().clone();
    let callers = (0..CALLERS).map(|caller| {
        let inner = inner.clone();
        tokio::spawn(async move {
            for n in (caller..timers).step_by(CALLERS as usize) {
                let actor = ActorId { tenant: "default".to_owned(), kind: "bell".to_owned(), key: format!("b{}", n % 10_000) };
                let resource = Resource::Handler { actor, handler: "ring".to_owned() };
                let permit = authorize(local("default", inner.now()), Action::Invoke, resource, inner.now()).map_err(|denied| denied.to_string())?;
                let ask = Ask { delay: Some(delay.saturating_sub(started.elapsed())), ..Ask::default() };
                inner.invoke(permit, Bytes::from_static(b"null"), ask).await.map_err(|error| error.to_string())?;
            }
            Ok::<_, String>(())
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await??;
    }
    let set = started.elapsed();
    tokio::time::sleep(delay.saturating_sub(started.elapsed())).await;
    let due = Instant::now();
    let client = engine.local();
    loop {
        let census = client.census().await?;
        if census.active == 0 && census.timers == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let fired = due.elapsed();
    println!(
        "{timers} timers: set in {:.1} s, fired in {:.1} s, {:.1} µs of CPU each, peak memory {} MiB, {} MiB on disk",
        set.as_secs_f64(),
        fired.as_secs_f64(),
        (cpu_seconds() - cpu) * 1e6 / timers as f64,
        peak_mib(),
        bytes_below(folder) >> 20
    );
    engine.close().await?;
    std::fs::remove_dir_all(folder)?;
    Ok((set.as_secs_f64(), fired.as_secs_f64()))
}
