//! A store with a million actors that do nothing: what it holds in memory, and how fast it opens.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use selvedge::{Config, Engine};

use crate::figure::Figure;
use crate::load::{Failed, each};
use crate::process;
use crate::program::{NOTHING, SET, WAIT, app};

/// How long an opened engine rests before its memory is read.
const REST: Duration = Duration::from_secs(2);

/// A tenant may have more open than what is measured here: the suspended ones alone are its default limit.
fn roomy(data: &Path) -> Config {
    let mut config = Config::on(data);
    config.settings.limits.tenant_invocations = 10_000_000;
    config
}

/// (f) resident memory and (g) time to accept work, both in a fresh process on a store that this one fills.
pub async fn memory_and_opening(dir: &Path, actors: u64, suspended: u64) -> Result<Vec<Figure>, Failed> {
    let data = dir.join("idle");
    let engine = Engine::open(roomy(&data), app()?).await?;
    let client = engine.local();
    let start = Instant::now();
    each(2048, actors, move |number| {
        let call = client.call(SET.on(format!("a-{number}")), number);
        async move { Ok(call.await?) }
    })
    .await?;
    let client = engine.local();
    each(2048, suspended, move |number| {
        let client = client.clone();
        async move { Ok(client.send(WAIT.on(format!("s-{number}")), ()).await.map(drop)?) }
    })
    .await?;
    engine.close().await?;
    println!("{actors} actors and {suspended} suspended invocations made in {:.0} s", start.elapsed().as_secs_f64());
    let output = Command::new(std::env::current_exe()?).arg("opened").arg(&data).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut numbers = text.split_whitespace().map(str::parse::<f64>);
    let (Some(Ok(seconds)), Some(Ok(bytes))) = (numbers.next(), numbers.next()) else {
        return Err(format!("the opened process failed with {}: {}", output.status, String::from_utf8_lossy(&output.stderr)).into());
    };
    let megabytes = bytes / 1e6;
    Ok(vec![
        Figure { letter: "f", name: "resident_after_restart", value: megabytes, unit: "MB", ratio: megabytes / 300.0 },
        Figure { letter: "g", name: "open_to_first_call", value: seconds, unit: "s", ratio: seconds / 2.0 },
    ])
}

/// The fresh process: opens, has one call answered, rests, prints seconds and resident bytes.
pub async fn opened(data: &Path) -> Result<(), Failed> {
    let start = Instant::now();
    let engine = Engine::open(roomy(data), app()?).await?;
    engine.local().call(NOTHING.on("first"), ()).await?;
    let seconds = start.elapsed().as_secs_f64();
    tokio::time::sleep(REST).await;
    println!("{seconds} {}", process::resident_bytes()?);
    Ok(engine.close().await?)
}
