//! Steps, calls and replay, each beside the limit of the same moment.

use std::path::Path;
use std::time::{Duration, Instant};

use selvedge::Engine;

use crate::budget;
use crate::counted;
use crate::figure::{Figure, median};
use crate::limit;
use crate::load::{Failed, each, rate};
use crate::process::{self, grown};
use crate::program::{GO, LONG, NOTHING, STEPS, app};
use crate::segment::Segment;

const ROUNDS: usize = 5;
const CALLERS: u64 = 256;
const STEPS_EACH: u32 = 10;
const ROUND: Duration = Duration::from_millis(1500);

/// (a) steps per second, (d) bytes written: rounds, in turns with the limit.
pub async fn steps(dir: &Path) -> Result<Vec<Figure>, Failed> {
    let counted::Put { bytes_per_step: step_bytes, sample } = counted::steps(&dir.join("counted"), CALLERS, ROUND).await?;
    println!("a step puts {step_bytes:.0} bytes of keys and values, its share of the invocation included");
    let mut segment = Segment::create(&dir.join("limit"))?;
    let engine = Engine::open(dir.join("speed"), app()?).await?;
    let (mut limits, mut steps, mut step_ratios, mut amplification) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut budget = Vec::new();
    for round in 0..=ROUNDS {
        let grouped = limit::records_per_second(&mut segment, step_bytes as usize, CALLERS as usize, ROUND / 3)?;
        let (written, cpu) = (process::write_bytes()?, process::cpu_by_thread()?);
        let client = engine.local();
        let per_second = rate(CALLERS, ROUND, move |caller, count| {
            let call = client.call(STEPS.on(format!("{round}-{caller}-{count}")), STEPS_EACH);
            async move { Ok(call.await.map(drop)?) }
        });
        let started = Instant::now();
        let per_second = per_second.await? * f64::from(STEPS_EACH);
        let done = per_second * started.elapsed().as_secs_f64();
        let spent = grown(&cpu, &process::cpu_by_thread()?);
        let written = (process::write_bytes()? - written) as f64;
        if round == 0 {
            continue; // The first round warms up.
        }
        limits.push(grouped);
        steps.push(per_second);
        step_ratios.push(per_second / grouped);
        amplification.push(written / (done * step_bytes));
        budget.push((spent, done));
    }
    engine.close().await?;
    let threads = budget_us(&budget);
    for (thread, us) in &threads {
        println!("cpu of a step: {us:.2} us in threads named {thread}");
    }
    for (part, us) in budget::lines(&threads, &budget::alone(&sample)) {
        println!("cpu of a step by part: {us:.2} us {part}");
    }
    Ok(vec![
        Figure { letter: "limit", name: "records_256_callers", value: median(&mut limits), unit: "per_s", ratio: 1.0 },
        Figure { letter: "a", name: "durable_steps_256_callers", value: median(&mut steps), unit: "per_s", ratio: median(&mut step_ratios) },
        Figure { letter: "d", name: "written_over_put", value: median(&mut amplification), unit: "times", ratio: median(&mut amplification) },
    ])
}

/// (b) the latency of one durable call by one caller, on an engine that does nothing else: rounds, in turns with a bare append and
/// its sync.
pub async fn calls(dir: &Path) -> Result<Vec<Figure>, Failed> {
    const RECORD: usize = 400;
    let mut segment = Segment::create(&dir.join("limit"))?;
    let engine = Engine::open(dir.join("calls"), app()?).await?;
    let (mut appends, mut calls, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=2 * ROUNDS {
        let append = limit::append_us(&mut segment, RECORD, 200)?;
        let call = call_us(&engine, round, 200).await?;
        if round == 0 {
            continue; // The first round warms up.
        }
        appends.push(append);
        calls.push(call);
        ratios.push(call / append);
    }
    engine.close().await?;
    Ok(vec![
        Figure { letter: "limit", name: "append_and_sync", value: median(&mut appends), unit: "us", ratio: 1.0 },
        Figure { letter: "b", name: "durable_call_one_caller", value: median(&mut calls), unit: "us", ratio: median(&mut ratios) },
    ])
}

/// The median time of one durable call that does nothing, by one caller.
async fn call_us(engine: &Engine, round: usize, times: u32) -> Result<f64, Failed> {
    let client = engine.local();
    let mut us = Vec::new();
    for call in 0..times {
        let start = Instant::now();
        client.call(NOTHING.on(format!("n-{round}-{call}")), ()).await?;
        us.push(start.elapsed().as_secs_f64() * 1e6);
    }
    Ok(median(&mut us))
}

/// Microseconds of CPU for each step, by thread name, over all rounds.
fn budget_us(rounds: &[(std::collections::BTreeMap<String, f64>, f64)]) -> Vec<(String, f64)> {
    let steps: f64 = rounds.iter().map(|(_, steps)| steps).sum();
    let mut seconds: std::collections::BTreeMap<String, f64> = std::collections::BTreeMap::new();
    for (name, spent) in rounds.iter().flat_map(|(spent, _)| spent) {
        *seconds.entry(name.clone()).or_default() += spent;
    }
    seconds.into_iter().map(|(name, seconds)| (name, seconds * 1e6 / steps)).filter(|(_, us)| *us >= 0.01).collect()
}

/// (e) journal entries replayed per second: long journals are written, the engine is opened again, and each is woken.
pub async fn replay(dir: &Path) -> Result<Vec<Figure>, Failed> {
    const JOURNALS: u64 = 256;
    const ENTRIES: u32 = 4_000;
    let data = dir.join("replay");
    let engine = Engine::open(data.clone(), app()?).await?;
    let client = engine.local();
    let mut ids = Vec::new();
    for journal in 0..JOURNALS {
        ids.push(client.send(LONG.on(format!("l-{journal}")), ENTRIES).await?);
    }
    for id in &ids {
        while !client.why(*id).await?.waiting.iter().any(|waiting| matches!(waiting, selvedge::Waiting::Signal { .. })) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    engine.close().await?;
    let engine = Engine::open(data, app()?).await?;
    let start = Instant::now();
    let client = engine.local();
    each(JOURNALS, JOURNALS, move |journal| {
        let (client, id) = (client.clone(), ids[journal as usize]);
        async move {
            client.send_signal_to(id, GO, 1).await?;
            Ok(client.result::<u32>(id).await.map(drop)?)
        }
    })
    .await?;
    let per_second = (JOURNALS * u64::from(ENTRIES)) as f64 / start.elapsed().as_secs_f64();
    engine.close().await?;
    Ok(vec![Figure { letter: "e", name: "entries_replayed", value: per_second, unit: "per_s", ratio: per_second / 1e6 }])
}

/// (c) tasks per second of a pipeline that scatters, each round beside the limit.
pub async fn tasks(dir: &Path) -> Result<Vec<Figure>, Failed> {
    const ITEMS: u64 = 10_000;
    let step_bytes = counted::steps(&dir.join("counted"), CALLERS, ROUND / 2).await?.bytes_per_step as usize;
    let mut segment = Segment::create(&dir.join("limit"))?;
    let engine = Engine::open(dir.join("tasks"), app()?).await?;
    let items = serde_json::json!({ "items": (0..ITEMS).collect::<Vec<u64>>() });
    let (mut rates, mut ratios) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let grouped = limit::records_per_second(&mut segment, step_bytes, CALLERS as usize, ROUND / 3)?;
        let start = Instant::now();
        let done: u64 = engine.local().start("scatter", &items).await?.result().await?;
        let rate = done as f64 / start.elapsed().as_secs_f64();
        rates.push(rate);
        ratios.push(rate / grouped);
    }
    engine.close().await?;
    Ok(vec![Figure { letter: "c", name: "pipeline_tasks", value: median(&mut rates), unit: "per_s", ratio: median(&mut ratios) }])
}
