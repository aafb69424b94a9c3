//! `selvedge-bench [DIR]`: speed as ratios to the bare disk under DIR. Rounds are interleaved, so that a machine that is
//! busy for a while is busy for both sides of a ratio; each figure is the median of its rounds.

mod figure;
mod limit;
mod segment;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use figure::{Figure, median};
use segment::Segment;

const ROUNDS: usize = 5;
const CALLERS: usize = 256;
const RECORD_BYTES: usize = 256;

fn main() -> ExitCode {
    let dir = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("target/bench"), PathBuf::from);
    match run(&dir) {
        Ok(figures) => {
            for figure in figures {
                println!("{figure}");
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bench: {}: {error}", dir.display());
            ExitCode::FAILURE
        }
    }
}

fn run(dir: &Path) -> std::io::Result<Vec<Figure>> {
    std::fs::create_dir_all(dir)?;
    let mut segment = Segment::create(&dir.join("limit"))?;
    let (mut grouped, mut single) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        grouped.push(limit::records_per_second(&mut segment, RECORD_BYTES, CALLERS, Duration::from_millis(500))?);
        single.push(limit::append_us(&mut segment, RECORD_BYTES, 200)?);
    }
    Ok(vec![
        Figure { letter: "limit", name: "records_256_callers", value: median(&mut grouped), unit: "per_s", ratio: 1.0 },
        Figure { letter: "limit", name: "append_and_sync", value: median(&mut single), unit: "us", ratio: 1.0 },
    ])
}
