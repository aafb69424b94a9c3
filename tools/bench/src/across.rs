//! Calls from an actor to an actor of another shard, each beside the limit of the same moment.

use std::path::Path;
use std::time::{Duration, Instant};

use selvedge::Engine;
use selvedge_engine::engine::SHARDS;
use selvedge_kernel::id::ActorId;

use crate::figure::{Figure, median};
use crate::limit;
use crate::load::{Failed, rate};
use crate::program::{RELAY, app};
use crate::segment::Segment;

const ROUNDS: usize = 5;
const CALLERS: u64 = 256;
const CALLS: usize = 200;
const ROUND: Duration = Duration::from_millis(1500);
/// The bytes of a record beside which a call is measured, as for a call that stays in its shard.
const RECORD: usize = 400;
/// What must be durable one after the other until a call is answered: the call, what the called actor did, the answer.
const APPENDS: f64 = 3.0;

/// (h) the latency of one call to another shard by one caller, against three bare appends with their syncs, and the calls per second
/// of 256 callers, against a third of the records that the bare disk takes from 256: rounds, in turns with the limit.
pub async fn calls(dir: &Path) -> Result<Vec<Figure>, Failed> {
    let mut segment = Segment::create(&dir.join("limit"))?;
    let engine = Engine::open(dir.join("across"), app()?).await?;
    let (mut calls, mut call_ratios, mut rates, mut rate_ratios) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let append = limit::append_us(&mut segment, RECORD, CALLS)?;
        let call = call_us(&engine, round).await?;
        let grouped = limit::records_per_second(&mut segment, RECORD, CALLERS as usize, ROUND / 3)?;
        let client = engine.local();
        let per_second = rate(CALLERS, ROUND, move |caller, count| {
            let (from, to) = pair(&format!("{round}-{caller}-{count}"));
            let call = client.call(RELAY.on(from), to);
            async move { Ok(call.await?) }
        });
        let per_second = per_second.await?;
        if round == 0 {
            continue; // The first round warms up.
        }
        calls.push(call);
        call_ratios.push(call / (APPENDS * append));
        rates.push(per_second);
        rate_ratios.push(per_second * APPENDS / grouped);
    }
    engine.close().await?;
    Ok(vec![
        Figure { letter: "h", name: "cross_shard_call_one_caller", value: median(&mut calls), unit: "us", ratio: median(&mut call_ratios) },
        Figure { letter: "h", name: "cross_shard_calls_256_callers", value: median(&mut rates), unit: "per_s", ratio: median(&mut rate_ratios) },
    ])
}

/// The median time of one call by one caller.
async fn call_us(engine: &Engine, round: usize) -> Result<f64, Failed> {
    let client = engine.local();
    let mut us = Vec::new();
    for call in 0..CALLS {
        let (from, to) = pair(&format!("one-{round}-{call}"));
        let start = Instant::now();
        client.call(RELAY.on(from), to).await?;
        us.push(start.elapsed().as_secs_f64() * 1e6);
    }
    Ok(median(&mut us))
}

/// The keys of a caller and of somebody to be called who lives in another shard.
fn pair(name: &str) -> (String, String) {
    let shard = |kind: &str, key: &str| ActorId { tenant: "default".to_owned(), kind: kind.to_owned(), key: key.to_owned() }.hash16().shard(SHARDS);
    let from = format!("from-{name}");
    let home = shard("relay", &from);
    let others = (0..).map(|n: u64| format!("to-{name}-{n}"));
    // Invariant: one in 64 names hashes into the shard of the caller, so that some name does not.
    let to = others.into_iter().find(|key| shard("idle", key) != home).unwrap_or_default();
    (from, to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_lives_in_two_shards() {
        let shard = |kind: &str, key: &str| ActorId { tenant: "default".to_owned(), kind: kind.to_owned(), key: key.to_owned() }.hash16().shard(SHARDS);
        for n in 0..1_000 {
            let (from, to) = pair(&n.to_string());
            assert_ne!(shard("relay", &from), shard("idle", &to));
        }
    }
}
