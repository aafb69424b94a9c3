//! `selvedge-kill [--cycles N] [--seed S] [--dir DIR]`: starts a bank, kills it N times, lets it come to its end,
//! audits it; then the same with the real binary on a pipeline.
//! `selvedge-kill bank DIR SEED CYCLE` and `selvedge-kill last DIR SEED` are the lives that it starts.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use selvedge_kill::audit::{self, Audit};
use selvedge_kill::driver::{self, Kills, Program};
use selvedge_kill::life::{self, Failed, Place};
use selvedge_kill::{program, record};

/// Long enough for a life of the bank to do all its work now and then.
const LONGEST_LIFE_MS: u64 = 400;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["bank", dir, seed, cycle] => one_life(&Place(PathBuf::from(dir)), seed, Some(cycle)),
        ["last", dir, seed] => one_life(&Place(PathBuf::from(dir)), seed, None),
        _ => drive(&words),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kill: {error}");
            ExitCode::FAILURE
        }
    }
}

fn one_life(place: &Place, seed: &str, cycle: Option<&str>) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match cycle {
        Some(cycle) => runtime.block_on(life::some(place, seed.parse()?, cycle.parse()?)),
        None => runtime.block_on(life::last(place, seed.parse()?)),
    }
}

/// What the driver was asked for.
struct Asked {
    cycles: u64,
    seed: u64,
    dir: PathBuf,
}

fn asked(words: &[&str]) -> Result<Asked, Failed> {
    let mut asked = Asked { cycles: 200, seed: 1, dir: std::env::temp_dir() };
    for pair in words.chunks(2) {
        match pair {
            ["--cycles", value] => asked.cycles = value.parse()?,
            ["--seed", value] => asked.seed = value.parse()?,
            ["--dir", value] => asked.dir = PathBuf::from(value),
            other => return Err(format!("`{}` is not known; usage: selvedge-kill [--cycles N] [--seed S] [--dir DIR]", other.join(" ")).into()),
        }
    }
    Ok(asked)
}

fn drive(words: &[&str]) -> Result<(), Failed> {
    let Asked { cycles, seed, dir } = asked(words)?;
    let started = Instant::now();
    println!("kill loop: {cycles} cycles for the bank, half as many for the pipeline, seed {seed}, in {}", dir.display());
    let mut broken = 0;
    let place = emptied(&dir.join("selvedge-kill-bank"))?;
    let (kills, audit) = bank(&place, cycles, seed)?;
    report_bank(&kills, &audit);
    broken += audit.broken.len();
    let place = emptied(&dir.join("selvedge-kill-pipeline"))?;
    let (kills, audit) = program::kill(&beside("selvedge")?, &place, cycles.div_ceil(2), seed)?;
    report_pipeline(&kills, &audit);
    broken += audit.broken.len();
    println!("kill loop: {} s, again with: make kill CYCLES={cycles} SEED={seed}", started.elapsed().as_secs());
    if broken == 0 { Ok(()) } else { Err(format!("{broken} promises are broken; the data is in {}", dir.display()).into()) }
}

/// A folder of our own name, without what an earlier run left.
fn emptied(dir: &Path) -> Result<PathBuf, Failed> {
    if dir.exists() {
        std::fs::remove_dir_all(dir)?;
    }
    std::fs::create_dir_all(dir)?;
    Ok(dir.canonicalize()?)
}

/// A program that was built beside this one.
fn beside(name: &str) -> Result<PathBuf, Failed> {
    let path = std::env::current_exe()?.with_file_name(name);
    if path.exists() { Ok(path) } else { Err(format!("{} is not there: build it with `cargo build -p {name}`", path.display()).into()) }
}

fn bank(dir: &Path, cycles: u64, seed: u64) -> Result<(Kills, Audit), Failed> {
    let place = Place(dir.to_owned());
    let own = std::env::current_exe()?;
    let life = |cycle: u64, _| {
        let mut command = Command::new(&own);
        command.arg("bank").arg(dir).arg(seed.to_string()).arg(cycle.to_string());
        Ok(command)
    };
    let kills = driver::cycles(&Program { name: "bank", longest_life_ms: LONGEST_LIFE_MS, life: &life }, cycles, seed)?;
    let status = driver::to_the_end("bank", Command::new(&own).arg("last").arg(dir).arg(seed.to_string()), Duration::from_secs(300))?;
    if !status.success() {
        return Err(format!("the last, uninterrupted run of the bank ended with {status}; the data is in {}", dir.display()).into());
    }
    let last = serde_json::from_slice(&std::fs::read(place.last())?)?;
    let audit = audit::bank(&record::read(&place.ledger())?, &record::read(&place.answers())?, &last, kills.killed as usize);
    Ok((kills, audit))
}

fn report_bank(kills: &Kills, audit: &Audit) {
    println!("bank: {} lives ended by SIGKILL, {} had done their work before", kills.killed, kills.ended);
    println!("  {} transfers were tried, {} acknowledged, {} still wait", audit.tried, audit.acknowledged, audit.waiting);
    println!("  {} steps finished; {} were running at a kill and ran again under their old key", audit.finished, audit.repeated);
    println!("  {} journal entries were verified", audit.verified);
    verdict(audit, "no finished step ran again, no acknowledged transfer is lost, no cent is missing, every repeated start gave its first result");
}

fn report_pipeline(kills: &Kills, audit: &Audit) {
    println!("pipeline: {} lives ended by SIGKILL, {} came to the end of their run before", kills.killed, kills.ended);
    println!("  {} runs ended; {} tasks, {} were running at a kill and ran again under their old key", audit.acknowledged, audit.finished, audit.repeated);
    verdict(audit, "no finished task ran again, no worker outlived its engine, every run gave what an undisturbed one gives, every chain fits");
}

fn verdict(audit: &Audit, sound: &str) {
    for broken in &audit.broken {
        println!("  BROKEN: {broken}");
    }
    if audit.broken.is_empty() {
        println!("  {sound}");
    }
}
