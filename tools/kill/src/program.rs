//! The real binary on a pipeline whose work is done by programs, killed again and again.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::audit::Audit;
use crate::driver::{self, Kills, Program};
use crate::record::{self, Record};
use crate::work::{self, Note};

const PIPELINE: &str = include_str!("../work/pipeline.yaml");
const WORKER: &str = include_str!("../work/worker.py");

/// Long enough for two interpreters to start and to work for a while.
const LONGEST_LIFE_MS: u64 = 1000;

/// How long the last, uninterrupted run may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Kills `selvedge run` in `dir`, which is empty, then lets the last run come to its end and audits all of them.
/// A life that ends takes its run with it: the next one has the next input.
pub fn kill(selvedge: &Path, dir: &Path, cycles: u64, seed: u64) -> Result<(Kills, Audit), String> {
    let put = |name: &str, text: &str| std::fs::write(dir.join(name), text).map_err(|error| format!("{} cannot be written: {error}", dir.join(name).display()));
    put("pipeline.yaml", PIPELINE)?;
    put("worker.py", WORKER)?;
    let effects = Record::open(&dir.join("effects.jsonl")).map_err(|error| format!("{} cannot be written: {error}", dir.display()))?;
    let life = |number: u64, ended: u64| {
        effects.write(&Note::Life { number }).map_err(|error| format!("the driver cannot note a life: {error}"))?;
        let round = ended + 1;
        put(&format!("input-{round}.json"), &work::input(round).to_string())?;
        let output = File::create(output_of(dir, round)).map_err(|error| format!("{} cannot be written: {error}", dir.display()))?;
        let log = File::options().create(true).append(true).open(dir.join("log")).map_err(|error| format!("{} cannot be written: {error}", dir.display()))?;
        let mut command = Command::new(selvedge);
        command.args(["run", "pipeline.yaml", "--data", "data", "--input"]).arg(format!("@input-{round}.json"));
        command.current_dir(dir).stdout(Stdio::from(output)).stderr(Stdio::from(log));
        Ok(command)
    };
    let kills = driver::cycles(&Program { name: "pipeline", longest_life_ms: LONGEST_LIFE_MS, has_begun: &|_| true, life: &life }, cycles, seed)?;
    let ended = driver::to_the_end("the last run of the pipeline", &mut life(cycles + 1, kills.ended)?, PATIENCE)?;
    if !ended.success() {
        return Err(format!("the last, uninterrupted run of the pipeline ended with {ended}; its words are in {}", dir.join("log").display()));
    }
    let mut outputs = BTreeMap::new();
    for round in 1..=kills.ended + 1 {
        let path = output_of(dir, round);
        let bytes = std::fs::read(&path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
        outputs.insert(round, serde_json::from_slice(&bytes).map_err(|error| format!("{} is no JSON: {error}", path.display()))?);
    }
    let mut audit = work::pipeline(&record::read(&dir.join("effects.jsonl"))?, &outputs);
    let verify =
        Command::new(selvedge).args(["verify", "--data", "data"]).current_dir(dir).output().map_err(|error| format!("verify cannot be started: {error}"))?;
    if !verify.status.success() {
        let said = String::from_utf8_lossy(&verify.stdout).into_owned() + &String::from_utf8_lossy(&verify.stderr);
        audit.broken.push(format!("verify ended with {}: {}", verify.status, said.trim()));
    }
    Ok((kills, audit))
}

fn output_of(dir: &Path, round: u64) -> PathBuf {
    dir.join(format!("output-{round}.json"))
}
