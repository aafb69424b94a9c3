//! Many actors and schedules: calls between 10 000 actors over all shards, so many senders to one actor, so many schedules
//! that are due at once. Each for growing numbers, with time, CPU, peak memory and bytes on disk, and how they grow.
//! `cargo run --release --example scale_actors [FOLDER [calls | senders | schedules]]`.

mod measure;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use selvedge::{Activity, App, Attempt, Ctx, Engine, Handler, Outcome, SharedHandler, View};

use measure::{bytes_below, cpu_seconds, peak_mib};

type Failed = Box<dyn std::error::Error>;

/// Actors that call one another.
const ACTORS: u64 = 10_000;
/// Callers at once.
const CALLERS: u64 = 256;
/// Seconds between two fires of each schedule.
const EVERY: u64 = 60;

const ASK: Handler<u64, u64> = Handler::new("peer", "ask");
const ANSWER: Handler<u64, u64> = Handler::new("peer", "answer");
const TELL: Handler<(), ()> = Handler::new("sender", "tell");
const COUNT: Handler<(), ()> = Handler::new("counter", "count");
const COUNTED: SharedHandler<(), u64> = SharedHandler::new("counter", "counted");
const FIRED: Activity<u64, u64> = Activity::new("fired");

/// What one size has cost.
#[derive(Clone, Copy)]
struct Cost {
    count: u64,
    seconds: f64,
    cpu: f64,
    bytes: u64,
}

/// Prints a size beside the first one: what each costs, and how that grows.
fn print(what: &str, cost: &Cost, first: &Cost) {
    let each = |cost: &Cost| (cost.cpu / cost.count as f64, cost.seconds / cost.count as f64);
    let ((cpu, wall), (cpu_first, wall_first)) = (each(cost), each(first));
    println!(
        "{} {what}: {:.2} s, {:.0} a second ({:.2} of the time each of the first), {:.1} µs of CPU each ({:.2} of the first), {} MiB peak, {} bytes more on disk",
        cost.count,
        cost.seconds,
        cost.count as f64 / cost.seconds,
        wall / wall_first,
        cpu * 1e6,
        cpu / cpu_first,
        peak_mib(),
        cost.bytes
    );
}

async fn tell(ctx: Ctx, (): ()) -> Outcome<()> {
    let _ = ctx.send(COUNT.on("one"), ());
    Ok(())
}

async fn count(ctx: Ctx, (): ()) -> Outcome<()> {
    let counted = ctx.state().get::<u64>("counted").await?.unwrap_or(0);
    ctx.state().set("counted", &(counted + 1))
}

fn actors() -> App {
    App::new()
        .handler(ASK, async |ctx: Ctx, whom: u64| ctx.call(ANSWER.on(whom.to_string()), whom).await)
        .handler(ANSWER, async |_: Ctx, value: u64| Ok(value))
        .handler(TELL, tell)
        .handler(COUNT, count)
        .shared(COUNTED, async |view: View, ()| Ok(view.get("counted").await?.unwrap_or(0)))
}

/// Does `one` for each number below `count`, so many at a time.
async fn each<R: Future<Output = Result<(), String>> + Send + 'static>(count: u64, one: impl Fn(u64) -> R + Clone + Send + 'static) -> Result<(), Failed> {
    let callers = (0..CALLERS).map(|caller| {
        let one = one.clone();
        tokio::spawn(async move {
            for n in (caller..count).step_by(CALLERS as usize) {
                one(n).await?;
            }
            Ok::<_, String>(())
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await??;
    }
    Ok(())
}

/// Each call goes from one half of the actors to the other, so that nobody waits for somebody who waits.
async fn calls(folder: &Path, count: u64) -> Result<Cost, Failed> {
    let engine = Engine::open(folder, actors()).await?;
    let (before, cpu, begun) = (bytes_below(folder), cpu_seconds(), Instant::now());
    let client = engine.local();
    each(count, move |n| {
        let half = ACTORS / 2;
        let call = client.call(ASK.on((n % half).to_string()), half + n.wrapping_mul(7_919) % half);
        async move { call.await.map(drop).map_err(|error| error.to_string()) }
    })
    .await?;
    let (seconds, bytes) = (begun.elapsed().as_secs_f64(), bytes_below(folder).saturating_sub(before));
    engine.close().await?;
    Ok(Cost { count, seconds, cpu: cpu_seconds() - cpu, bytes })
}

/// Each sender is an actor of its own; all send to one.
async fn senders(folder: &Path, count: u64) -> Result<Cost, Failed> {
    let engine = Engine::open(folder, actors()).await?;
    let (before, cpu, begun) = (bytes_below(folder), cpu_seconds(), Instant::now());
    let client = engine.local();
    each(count, move |n| {
        let client = client.clone();
        async move { client.send(TELL.on(n.to_string()), ()).await.map(drop).map_err(|error| error.to_string()) }
    })
    .await?;
    let client = engine.local();
    while client.call(COUNTED.on("one"), ()).await? < count {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (seconds, bytes) = (begun.elapsed().as_secs_f64(), bytes_below(folder).saturating_sub(before));
    engine.close().await?;
    Ok(Cost { count, seconds, cpu: cpu_seconds() - cpu, bytes })
}

/// So many pipelines, each with a schedule that is due with every other: the time from then until each has started and ended a run.
async fn schedules(folder: &Path, count: u64) -> Result<Cost, Failed> {
    let fired = Arc::new((AtomicU64::new(u64::MAX), AtomicU64::new(0)));
    let seen = fired.clone();
    let mut app = App::new().activity(FIRED, async move |_: Attempt, n: u64| {
        // What fires while others are still being stored is not counted.
        if now_ms() >= seen.0.load(Ordering::SeqCst) {
            seen.1.fetch_add(1, Ordering::SeqCst);
        }
        Ok(n)
    });
    for n in 0..count {
        let text = format!(
            "selvedge: 1\nname: tick_{n}\ninput: {{ n: {{ type: integer }} }}\nschedule: {{ every: {EVERY}s, input: {{ n: {n} }} }}\nstages: [{{ name: fired, call: fired, input: '${{input.n}}' }}]\n"
        );
        let (pipeline, _) = selvedge::pipeline("tick.yaml", &text).map_err(|wrong| format!("{wrong:?}"))?;
        app = app.pipeline(pipeline);
    }
    let begun = Instant::now();
    let engine = Engine::open(folder, app).await?;
    println!("{count} schedules: stored in {:.2} s", begun.elapsed().as_secs_f64());
    let due = (now_ms() / (EVERY * 1_000) + 1) * EVERY * 1_000;
    fired.0.store(due, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(due.saturating_sub(now_ms()))).await;
    let (before, cpu, begun) = (bytes_below(folder), cpu_seconds(), Instant::now());
    while fired.1.load(Ordering::SeqCst) < count {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let (seconds, bytes) = (begun.elapsed().as_secs_f64(), bytes_below(folder).saturating_sub(before));
    let cpu = cpu_seconds() - cpu;
    engine.close().await?;
    Ok(Cost { count, seconds, cpu, bytes })
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let mut words = std::env::args_os().skip(1);
    let folder = words.next().map_or_else(|| PathBuf::from("target/scale-actors"), PathBuf::from);
    let only = words.next().map(|word| word.to_string_lossy().into_owned());
    let asked = |what: &str| only.as_deref().is_none_or(|only| only == what);
    if asked("calls") {
        let mut first = None;
        for count in [1_000, 10_000, 100_000] {
            let _ = std::fs::remove_dir_all(&folder);
            let cost = calls(&folder, count).await?;
            print("calls between 10000 actors", &cost, first.get_or_insert(cost));
        }
    }
    if asked("senders") {
        let mut first = None;
        for count in [100, 1_000, 10_000] {
            let _ = std::fs::remove_dir_all(&folder);
            let cost = senders(&folder, count).await?;
            print("senders to one actor", &cost, first.get_or_insert(cost));
        }
    }
    if asked("schedules") {
        let mut first = None;
        for count in [100, 1_000, 10_000] {
            let _ = std::fs::remove_dir_all(&folder);
            let cost = schedules(&folder, count).await?;
            print("schedules due at once", &cost, first.get_or_insert(cost));
        }
    }
    let _ = std::fs::remove_dir_all(&folder);
    Ok(())
}
