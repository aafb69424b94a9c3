//! `selvedge-bench [DIR [LETTERS]]`: speed as ratios to the bare disk, in DIR/selvedge-bench. Rounds are interleaved, so that a machine
//! that is busy for a while is busy for both sides of a ratio; each figure is the median of its rounds.
//! LETTERS chooses: `b`, `ad`, `c`, `e`, `fg`, `h`, `i`; without it all are measured. `DIR http` measures the HTTP API beside a bare
//! handler, `DIR peers SERVER SERVICE` beside Restate.

mod across;
mod budget;
mod counted;
mod decisions;
mod figure;
mod idle;
mod limit;
mod load;
mod process;
mod program;
mod segment;
mod speed;
mod web;

use std::path::Path;
use std::process::ExitCode;

use load::Failed;

// As the binary does.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const IDLE_ACTORS: u64 = 1_000_000;
const SUSPENDED: u64 = 100_000;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    // A folder of our own name, because it is emptied.
    let dir = Path::new(words.first().map_or("target", String::as_str)).join("selvedge-bench");
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("bench: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let local = tokio::task::LocalSet::new();
    let done = match words.as_slice() {
        [word, data] if word == "opened" => local.block_on(&runtime, idle::opened(Path::new(data))),
        [_, word] if word == "http" => emptied(&dir).and_then(|()| web::http(&dir)),
        [_, word, server, service] if word == "peers" => emptied(&dir).and_then(|()| web::peers(&dir, server.into(), service.into())),
        [word, ..] if word == "serving" || word == "bare" => threads().and_then(|runtime| runtime.block_on(web::child(&words))),
        _ => local.block_on(&runtime, measure(&dir, words.get(1).map_or("abcdefghi", String::as_str))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {}: {error}", dir.display());
            ExitCode::FAILURE
        }
    }
}

/// What a server runs on.
fn threads() -> Result<tokio::runtime::Runtime, Failed> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

fn emptied(dir: &Path) -> Result<(), Failed> {
    if dir.exists() {
        std::fs::remove_dir_all(dir)?;
    }
    Ok(std::fs::create_dir_all(dir)?)
}

async fn measure(dir: &Path, letters: &str) -> Result<(), Failed> {
    emptied(dir)?;
    let asked = |group: &str| letters.chars().any(|letter| group.contains(letter));
    let mut figures = Vec::new();
    if asked("b") {
        figures.extend(speed::calls(dir).await?);
    }
    if asked("ad") {
        figures.extend(speed::steps(dir).await?);
    }
    if asked("c") {
        figures.extend(speed::tasks(dir).await?);
    }
    if asked("e") {
        figures.extend(speed::replay(dir).await?);
    }
    if asked("fg") {
        figures.extend(idle::memory_and_opening(dir, IDLE_ACTORS, SUSPENDED).await?);
    }
    if asked("h") {
        figures.extend(across::calls(dir).await?);
    }
    if asked("i") {
        figures.extend(decisions::cost(dir)?);
    }
    for figure in figures {
        println!("{figure}");
    }
    Ok(())
}
