//! Runs over 1 000, 10 000 and 100 000 items on the native executor: time, peak memory and bytes on disk, and how each
//! grows per item. `cargo run --release --example scale_runs [FOLDER]`.

mod measure;

use std::path::PathBuf;
use std::time::Instant;

use selvedge::{Activity, App, Attempt, Engine};

use measure::{bytes_below, cpu_seconds, peak_mib};

const TOUCH: Activity<u64, u64> = Activity::new("touch");
const PIPELINE: &str = r#"
selvedge: 1
name: wide
input: { numbers: { type: array } }
stages: [{ name: each, mode: scatter, over: input.numbers, call: touch }]
"#;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("target/scale-runs"), PathBuf::from);
    let (wide, _) = selvedge::pipeline("wide.yaml", PIPELINE).map_err(|wrong| format!("{wrong:?}"))?;
    let mut first = None;
    for count in [1_000u64, 10_000, 100_000] {
        let _ = std::fs::remove_dir_all(&folder);
        let app = App::new().activity(TOUCH, async |_: Attempt, n: u64| Ok(n)).pipeline(wide.clone());
        let engine = Engine::open(folder.as_path(), app).await?;
        let (before, cpu_before, begun) = (bytes_below(&folder), cpu_seconds(), Instant::now());
        let run = engine.local().start("wide", serde_json::json!({ "numbers": (0..count).collect::<Vec<u64>>() })).await?;
        run.result::<serde_json::Value>().await?;
        let seconds = begun.elapsed().as_secs_f64();
        let written = bytes_below(&folder).saturating_sub(before);
        engine.close().await?;
        let cpu = cpu_seconds() - cpu_before;
        let each = cpu / count as f64;
        let ratio = each / *first.get_or_insert(each);
        println!(
            "{count} items: {seconds:.2} s, {:.0} a second, {:.1} µs of CPU each ({ratio:.2} of the first), {} MiB peak, {written} bytes more on disk",
            count as f64 / seconds,
            each * 1e6,
            peak_mib()
        );
    }
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
