//! `selvedge-kill [--cycles N] [--seed S] [--dir DIR]`: starts a bank, kills it N times, lets it come to its end, audits it.
//! `selvedge-kill bank DIR SEED CYCLE` and `selvedge-kill last DIR SEED` are the lives that it starts.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use selvedge_kill::audit::{self, Audit};
use selvedge_kill::driver::{self, Kills, Program};
use selvedge_kill::life::{self, Failed, Place};
use selvedge_kill::record;

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
    println!("kill loop: {cycles} cycles, seed {seed}, in {}", dir.display());
    let (kills, audit) = bank(&dir.join("selvedge-kill-bank"), cycles, seed)?;
    report(&kills, &audit);
    println!("kill loop: {} s, again with: make kill CYCLES={cycles} SEED={seed}", started.elapsed().as_secs());
    if audit.broken.is_empty() { Ok(()) } else { Err(format!("{} promises are broken; the data is in {}", audit.broken.len(), dir.display()).into()) }
}

fn bank(dir: &Path, cycles: u64, seed: u64) -> Result<(Kills, Audit), Failed> {
    if dir.exists() {
        std::fs::remove_dir_all(dir)?;
    }
    std::fs::create_dir_all(dir)?;
    let place = Place(dir.to_owned());
    let own = std::env::current_exe()?;
    let life = |cycle: u64| {
        let mut command = Command::new(&own);
        command.arg("bank").arg(dir).arg(seed.to_string()).arg(cycle.to_string());
        command
    };
    let kills = driver::cycles(&Program { name: "bank", life: &life }, cycles, seed)?;
    let status = driver::to_the_end("bank", Command::new(&own).arg("last").arg(dir).arg(seed.to_string()), Duration::from_secs(300))?;
    if !status.success() {
        return Err(format!("the last, uninterrupted run of the bank ended with {status}; the data is in {}", dir.display()).into());
    }
    let last = serde_json::from_slice(&std::fs::read(place.last())?)?;
    let audit = audit::bank(&record::read(&place.ledger())?, &record::read(&place.answers())?, &last, kills.killed as usize);
    Ok((kills, audit))
}

fn report(kills: &Kills, audit: &Audit) {
    println!("  {} lives ended by SIGKILL, {} had done their work before", kills.killed, kills.ended);
    println!("  {} transfers were tried, {} acknowledged, {} still wait", audit.tried, audit.acknowledged, audit.waiting);
    println!("  {} steps finished; {} were running at a kill and ran again under their old key", audit.finished, audit.repeated);
    println!("  {} journal entries were verified", audit.verified);
    for broken in &audit.broken {
        println!("  BROKEN: {broken}");
    }
    if audit.broken.is_empty() {
        println!("  no finished step ran again, no acknowledged transfer is lost, no cent is missing, every repeated start gave its first result");
    }
}
