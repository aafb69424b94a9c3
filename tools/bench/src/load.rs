//! Callers that work side by side.

use std::future::Future;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

/// What a bench fails with.
pub type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Lets `callers` callers call `one` with their number and a count, again and again for `time`, and then once more until each
/// has its answer. Gives the calls per second.
pub async fn rate<F, R>(callers: u64, time: Duration, one: F) -> Result<f64, Failed>
where
    F: Fn(u64, u64) -> R + Clone + 'static,
    R: Future<Output = Result<(), Failed>>,
{
    let start = Instant::now();
    let mut set = JoinSet::new();
    for caller in 0..callers {
        let one = one.clone();
        set.spawn_local(async move {
            let mut count = 0;
            while start.elapsed() < time {
                one(caller, count).await?;
                count += 1;
            }
            Ok::<u64, Failed>(count)
        });
    }
    let mut calls = 0;
    while let Some(done) = set.join_next().await {
        calls += done??;
    }
    Ok(calls as f64 / start.elapsed().as_secs_f64())
}

/// Calls `one` once for each number below `count`, `callers` at a time.
pub async fn each<F, R>(callers: u64, count: u64, one: F) -> Result<(), Failed>
where
    F: Fn(u64) -> R + Clone + 'static,
    R: Future<Output = Result<(), Failed>>,
{
    let mut set = JoinSet::new();
    for caller in 0..callers {
        let one = one.clone();
        set.spawn_local(async move {
            for number in (caller..count).step_by(callers as usize) {
                one(number).await?;
            }
            Ok::<(), Failed>(())
        });
    }
    while let Some(done) = set.join_next().await {
        done??;
    }
    Ok(())
}
