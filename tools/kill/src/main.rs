//! `selvedge-kill [--cycles N] [--seed S] [--dir DIR]`: starts a bank, kills it N times, lets it come to its end, and audits
//! it and what is restored from the backups that were taken meanwhile; then the same with the real binary on a pipeline.
//! `selvedge-kill bank DIR SEED CYCLE` and `selvedge-kill last DIR SEED` are the lives that it starts.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use std::cell::RefCell;

use selvedge_kill::audit::{self, Audit};
use selvedge_kill::backup::{self, Asking, Taken};
use selvedge_kill::driver::{self, Kills, Program};
use selvedge_kill::life::{self, Failed, Place};
use selvedge_kill::seed::Seed;
use selvedge_kill::{program, record, transfer};

/// Long enough for a life of the bank to do all its work now and then.
const LONGEST_LIFE_MS: u64 = 400;

/// The time of every eighth life counts from where it has opened the data; that of the others from their first instruction.
const LIVES_OPENED: u64 = 8;

/// So often a backup is asked of a life whose kill may come while it is taken; the next kill comes behind it.
const CUT_BACKUPS: u64 = 2;

/// Backups of one loop.
const BACKUPS: u64 = 1;

/// A loop of so many cycles and none of its backups whole has not shown what it is there to show.
const ENOUGH_CYCLES: u64 = 50;

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
    let place = Place(emptied(&dir.join("selvedge-kill-bank"))?);
    let (kills, backups) = bank(&place, cycles, seed)?;
    let audit = audited(&place, seed, kills.killed, None)?;
    report_bank(&kills, &audit);
    broken += audit.broken.len();
    println!("  {} backups were asked for, {} were whole before their life ended", backups.asked, backups.whole.len());
    if backups.whole.is_empty() && cycles >= ENOUGH_CYCLES {
        return Err("no backup was ever whole".into());
    }
    for (n, taken) in backups.whole.iter().enumerate() {
        let copy = Place(place.0.join(format!("copy-{n}")));
        backup::restore(&beside("selvedge")?, &place, taken, &copy)?;
        let audit = audited(&copy, seed, kills.killed + 1, Some((&place, taken)))?;
        report_copy(n, &audit);
        broken += audit.broken.len();
    }
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

/// The backups of one loop.
#[derive(Default)]
struct Backups {
    asked: u64,
    whole: Vec<Taken>,
    /// How many were cut since the last whole one.
    cut: u64,
    asking: Option<Asking>,
}

impl Backups {
    /// The life that was asked is over.
    fn note(&mut self) -> Result<(), String> {
        if let Some(asking) = self.asking.take() {
            let taken = asking.end()?;
            self.cut = if taken.is_some() { 0 } else { self.cut + 1 };
            self.whole.extend(taken);
        }
        Ok(())
    }

    /// Asks the next life, if it is time for a backup: behind each part of the loop but the last, until one is whole.
    fn ask(&mut self, place: &Place, seed: u64, cycle: u64, cycles: u64) {
        let due = BACKUPS.min(cycle * (BACKUPS + 1) / cycles.max(1));
        if (self.whole.len() as u64) < due {
            let after = Duration::from_millis(Seed::new(seed, cycle << 8 | 0xff).below(LONGEST_LIFE_MS / 4));
            self.asking = Some(Asking::begin(place.clone(), place.0.join(format!("backup-{}", self.asked)), after));
            self.asked += 1;
        }
    }
}

fn bank(place: &Place, cycles: u64, seed: u64) -> Result<(Kills, Backups), Failed> {
    let own = std::env::current_exe()?;
    let backups = RefCell::new(Backups::default());
    let life = |cycle: u64, _| {
        let mut backups = backups.borrow_mut();
        backups.note()?;
        backups.ask(place, seed, cycle, cycles);
        let mut command = Command::new(&own);
        command.arg("bank").arg(&place.0).arg(seed.to_string()).arg(cycle.to_string());
        Ok(command)
    };
    let has_begun = |cycle: u64| match &backups.borrow().asking {
        // Its kill comes while the backup is taken, or behind it.
        Some(asking) => asking.is_over() || asking.has_asked() && backups.borrow().cut < CUT_BACKUPS,
        // A slow machine, too, gets on, scripts among the actors included.
        None if cycle.is_multiple_of(LIVES_OPENED) => place.has_opened(cycle),
        None => true,
    };
    let program = Program { name: "bank", longest_life_ms: LONGEST_LIFE_MS, has_begun: &has_begun, life: &life };
    let kills = driver::cycles(&program, cycles, seed)?;
    let mut backups = backups.into_inner();
    backups.note()?;
    Ok((kills, backups))
}

/// Lets a bank come to its end and audits it: as it is, or as a copy of another as that stood when it was backed up.
fn audited(place: &Place, seed: u64, kills: u64, of: Option<(&Place, &Taken)>) -> Result<Audit, Failed> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("last").arg(&place.0).arg(seed.to_string());
    let status = driver::to_the_end("bank", &mut command, Duration::from_secs(300))?;
    if !status.success() {
        return Err(format!("the last, uninterrupted run of the bank ended with {status}; the data is in {}", place.0.display()).into());
    }
    let last = serde_json::from_slice(&std::fs::read(place.last())?)?;
    let effects = match of {
        None => record::read(&place.ledger())?,
        Some((original, taken)) => backup::effects(original, taken, place)?,
    };
    let order = |number| transfer::transfer(seed, number);
    Ok(audit::bank(&effects, &record::read(&place.answers())?, &last, kills as usize, &order))
}

fn report_copy(n: usize, audit: &Audit) {
    println!(
        "backup {}: {} transfers were acknowledged before it, {} tried; {} journal entries were verified",
        n + 1,
        audit.acknowledged,
        audit.tried,
        audit.verified
    );
    verdict(audit, "its copy passes the same audit, as of its position");
}

fn report_bank(kills: &Kills, audit: &Audit) {
    println!("bank: {} lives ended by SIGKILL, {} had done their work before", kills.killed, kills.ended);
    println!("  {} transfers were tried, {} acknowledged, {} still wait", audit.tried, audit.acknowledged, audit.waiting);
    println!("  {} steps finished; {} were running at a kill and ran again under their old key", audit.finished, audit.repeated);
    println!("  {} messages were sent and all handled; {} journal entries were verified", audit.messages, audit.verified);
    println!("  {} scripts were met by ten kills in a row, blocked, and looked at again at the end", audit.looked_again);
    verdict(
        audit,
        "no finished step ran again, no acknowledged transfer is lost, each was handled once wherever it went, no cent is missing, every repeated start gave its first result",
    );
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
