//! Schedules: one for each way to treat fires that were missed or that meet a run under way.

use std::sync::Arc;

use selvedge::{Activity, App, Attempt, Definition};
use selvedge_engine::engine::Engine;
use selvedge_kernel::auth::{Action, Resource, authorize, local};
use selvedge_kernel::record::schedule::{ScheduleRecord, run_of};
use selvedge_kernel::time::Millis;
use serde_json::Value;

use crate::life::Life;
use crate::program::{parse, task};
use crate::world::World;

/// The first task of a run that a fire starts.
const FIRED: Activity<Value, Value> = Activity::new("fired");
/// Its last one.
const OVER: Activity<Value, Value> = Activity::new("over");

/// A pipeline with a schedule: its name, minutes between fires, `misfire`, `overlap`, and how long its runs rest.
struct Ticking(&'static str, u64, &'static str, &'static str, &'static str);

const ALL: [Ticking; 4] = [
    Ticking("tick_all", 1, "all", "allow", "30s"),
    Ticking("tick_one_by_one", 2, "once", "skip", "150s"),
    Ticking("tick_in_line", 5, "skip", "buffer_one", "400s"),
    Ticking("tick_newest", 3, "once", "cancel_other", "200s"),
];

/// The pipelines.
pub fn pipelines() -> Result<Vec<Definition>, String> {
    ALL.iter()
        .map(|Ticking(name, minutes, misfire, overlap, rest)| {
            parse(&format!(
                r#"
selvedge: 1
name: {name}
schedule: {{ every: {minutes}m, misfire: {misfire}, overlap: {overlap} }}
stages:
  - {{ name: fired, call: fired, input: {{ name: {name}, run: "${{run.id}}" }}, retry: {{ max_attempts: 20, initial: 100ms, max: 1s }} }}
  - {{ name: rest, mode: sleep, for: {rest} }}
  - {{ name: over, call: over, input: {{ name: {name}, run: "${{run.id}}" }}, retry: {{ max_attempts: 20, initial: 100ms, max: 1s }} }}
"#
            ))
        })
        .collect()
}

/// The activities.
pub fn add(app: App, world: &World, owner: u64) -> App {
    let (fired, over) = (world.clone(), world.clone());
    let texts = |value: &Value| (value["name"].as_str().unwrap_or("?").to_owned(), value["run"].as_str().unwrap_or("?").to_owned());
    app.activity(FIRED, async move |attempt: Attempt, value: Value| {
        let (name, run) = texts(&value);
        if ["tick_one_by_one", "tick_in_line"].contains(&name.as_str()) {
            fired.begin_alone(&name, &run);
        }
        fired.same_of(&run, "fired", &name);
        task(&fired, owner, &attempt, "fired", 500).await?;
        Ok(value)
    })
    .activity(OVER, async move |attempt: Attempt, value: Value| {
        let (name, run) = texts(&value);
        over.end_alone(&name, &run);
        task(&over, owner, &attempt, "over", 500).await?;
        Ok(value)
    })
}

/// Stores the schedules, as whoever opens a store with these pipelines does; an engine that ends meanwhile does not.
pub async fn store(engine: Arc<Engine>) {
    for Ticking(name, ..) in &ALL {
        let now = engine.now();
        let resource = Resource::Pipeline { tenant: "default".to_owned(), name: (*name).to_owned() };
        if let Ok(permit) = authorize(local("default", now), Action::Define, resource, now) {
            let _ = engine.put_schedule(permit).await;
        }
    }
}

/// Each fire up to the last that was taken care of is accounted for once, each run is that of a fire, and where every
/// fire starts a run there is one for each. Then they fire no more.
pub async fn check(world: &World, life: &Life) {
    let Ok(runs) = life.client.runs().await else { return };
    for Ticking(name, minutes, misfire, ..) in &ALL {
        let every = minutes * 60_000;
        let Some(record) = record(life, name).await else { continue };
        let fires = (record.last.0 / every).saturating_sub(record.since.0 / every);
        let counts = record.counts;
        let known = counts.started + counts.overlapped + counts.missed + counts.failed + u64::from(record.buffered.is_some());
        if known != fires || counts.failed > 0 {
            world.broken(format!("I10: `{name}` had {fires} fires, and says {counts:?}, {:?} waits", record.buffered));
        }
        let from = record.since.0 / every + 1;
        let latest = world.latest().max(record.last.0) / every;
        let mut of_fires: Vec<(Millis, bool)> = Vec::new();
        let mut mine = runs.iter().filter(|run| run.pipeline == *name).count();
        for fire in (from..=latest).map(|n| Millis(n * every)) {
            let started = runs.iter().any(|run| run.id == run_of("default", name, fire));
            mine -= usize::from(started);
            of_fires.push((fire, started));
        }
        if mine > 0 {
            world.broken(format!("I10: {mine} runs of `{name}` were started by no fire"));
        }
        let started = of_fires.iter().filter(|(fire, started)| *started && *fire <= record.last).count() as u64;
        if *misfire == "all" && started != counts.started {
            world.broken(format!("I10: `{name}` has started {started} runs, and says {counts:?}"));
        }
        if started < counts.started {
            world.broken(format!("I10: `{name}` says that it has started {} runs, there are {started}", counts.started));
        }
        let _ = life.client.schedule(name).pause().await;
    }
}

async fn record(life: &Life, name: &str) -> Option<ScheduleRecord> {
    let now = life.engine.now();
    let resource = Resource::Pipeline { tenant: "default".to_owned(), name: name.to_owned() };
    let permit = authorize(local("default", now), Action::Read, resource, now).ok()?;
    life.engine.schedule(permit).await.ok()
}
