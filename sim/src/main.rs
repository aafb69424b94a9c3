//! `selvedge-sim [--seeds N] [--from S] [--seed S --tell]`: exit 0 if every invariant held in every history.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use selvedge_sim::{Report, simulate};

struct Args {
    seeds: u64,
    from: u64,
    one: Option<u64>,
}

fn args() -> Result<Args, String> {
    let mut args = Args { seeds: 500, from: 1, one: None };
    let mut rest = std::env::args().skip(1);
    while let Some(arg) = rest.next() {
        let mut number = || rest.next().and_then(|text| text.parse().ok()).ok_or_else(|| format!("{arg} wants a number"));
        match arg.as_str() {
            "--seeds" => args.seeds = number()?,
            "--from" => args.from = number()?,
            "--seed" => args.one = Some(number()?),
            other => return Err(format!("`{other}` is no option: selvedge-sim [--seeds N] [--from S] | --seed S")),
        }
    }
    Ok(args)
}

fn main() -> ExitCode {
    let args = match args() {
        Ok(args) => args,
        Err(reason) => {
            eprintln!("sim: {reason}");
            return ExitCode::from(64);
        }
    };
    // A task that panics is part of the program under simulation: its text would hide the report.
    std::panic::set_hook(Box::new(|_| {}));
    if let Some(seed) = args.one {
        let report = simulate(seed, true);
        report.lines.iter().for_each(|line| println!("{line}"));
        return told(&report);
    }
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let reports: Vec<Report> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let mut mine = Vec::new();
                    loop {
                        let n = next.fetch_add(1, Ordering::SeqCst);
                        if n >= args.seeds {
                            return mine;
                        }
                        let report = simulate(args.from + n, false);
                        if !report.faults.is_empty() {
                            told(&report);
                        }
                        mine.push(report);
                    }
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
    });
    let failed: Vec<u64> = reports.iter().filter(|report| !report.faults.is_empty()).map(|report| report.seed).collect();
    let sum = |pick: fn(&Report) -> u64| reports.iter().map(pick).sum::<u64>();
    println!(
        "sim: {} seeds, {} effects ({} started more than once), {} crashes, {} takeovers, {} lost answers, {} jumps of the clock",
        reports.len(),
        sum(|report| report.counts.0 as u64),
        sum(|report| report.counts.1 as u64),
        sum(|report| report.struck[0].into()),
        sum(|report| report.struck[1].into()),
        sum(|report| report.struck[2].into()),
        sum(|report| report.struck[3].into()),
    );
    if reports.len() as u64 != args.seeds {
        eprintln!("sim: {} seeds ended by a panic of the simulation itself", args.seeds - reports.len() as u64);
        return ExitCode::FAILURE;
    }
    if failed.is_empty() {
        println!("sim: every invariant held");
        return ExitCode::SUCCESS;
    }
    eprintln!("sim: {} seeds broke something: {failed:?}; look at one with --seed", failed.len());
    ExitCode::FAILURE
}

fn told(report: &Report) -> ExitCode {
    for fault in &report.faults {
        eprintln!("seed {}: {fault}", report.seed);
    }
    println!("seed {}: history {}, {} faults", report.seed, report.hash, report.faults.len());
    if report.faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
