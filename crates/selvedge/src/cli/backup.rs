//! `backup` and `restore`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use selvedge_engine::wiring::Tasks;
use selvedge_store::backup::FILE;
use selvedge_store::restore;
use serde_json::{Value, json};

use crate::app::App;
use crate::control::{GONE, Problem, Request, backup_problem, notes_of, write_notes};

use super::access::{Access, command, config};
use super::args::Common;
use super::exit::{Code, Stop};
use super::{print, run};

/// How often it is said how far it is.
const EVERY: Duration = Duration::from_secs(2);

/// `backup --to DIR`: taken by the holder of the data directory, or by this process if nobody holds it.
pub async fn backup(common: &Common, app: App, to: PathBuf) -> Result<Code, Stop> {
    let to = std::path::absolute(&to).map_err(|error| Stop::usage(format!("--to: {} cannot be used: {error}", to.display())))?;
    let mut access = Access::open(common, app, Tasks::Leave).await?;
    let held = access.is_held();
    let asked = access.ask(Request::Backup { to: to.clone() });
    let answer = tokio::select! {
        answer = asked => answer,
        never = watched(&to) => match never {},
        stopped = run::interrupted() => {
            stopped?;
            let whose = if held { "the process that holds the data directory goes on with it" } else { "it is not whole" };
            return Err(Stop::new(Code::Waits, format!("stopped waiting for the backup in {}: {whose}; it is whole when `{FILE}` is there", to.display())));
        }
    };
    access.close().await?;
    let taken = answer.map_err(|problem| gone(&to, problem))?;
    print::result(common.output, &taken, || format!("{} in {}", size(&taken), to.display()))?;
    print::note(&format!("`selvedge restore --from {} --data DIR` makes a data directory of it", to.display()));
    Ok(Code::Done)
}

/// A holder that ended while it wrote has left a part of a backup.
fn gone(to: &Path, problem: Problem) -> Stop {
    let ended = problem.code == GONE;
    let mut stop = Stop::from(problem);
    if ended {
        stop.message = format!(
            "the process that holds the data directory ended before the backup was whole: remove {} and take it again ({})",
            to.display(),
            stop.message
        );
    }
    stop
}

/// Says how much is written, while it is.
async fn watched(to: &Path) -> std::convert::Infallible {
    let part = to.join(format!("{FILE}.part"));
    loop {
        tokio::time::sleep(EVERY).await;
        if let Ok(written) = tokio::fs::metadata(&part).await {
            print::note(&format!("{} written", bytes(written.len())));
        }
    }
}

/// `restore --from DIR --data DIR`
pub async fn restored(common: &Common, from: PathBuf) -> Result<Code, Stop> {
    let (data, command) = (config(common)?.data, command());
    let (source, target) = (from.clone(), data.clone());
    let done = tokio::task::spawn_blocking(move || -> Result<Value, Problem> {
        let mut told = std::time::Instant::now();
        let (backup, report) = restore(&source, &target, &command, |progress| {
            if told.elapsed() >= EVERY {
                told = std::time::Instant::now();
                print::note(&format!("{} rows, {}", progress.rows, bytes(progress.bytes)));
            }
        })
        .map_err(backup_problem)?;
        Ok(json!({ "from": source, "data": target, "rows": report.rows + report.expiring_rows, "bytes": backup.size.bytes }))
    });
    let restored = done.await.map_err(|error| Stop::new(Code::Failed, format!("the backup was not restored: {error}")))?.map_err(Stop::from)?;
    let copied = notes_of(&from).and_then(|notes| notes.map_or(Ok(()), |notes| write_notes(&data, &notes)));
    copied.map_err(|error| {
        Stop::new(Code::Failed, format!("everything was restored except which run goes with which command ({error}): copy cli.json from {}", from.display()))
    })?;
    print::result(common.output, &restored, || format!("{} in {}", size(&restored), data.display()))?;
    print::note("what was open goes on when a process holds it: never let two copies of one store do their work at the same time");
    Ok(Code::Done)
}

fn size(of: &Value) -> String {
    format!("{} rows, {}", of["rows"], bytes(of["bytes"].as_u64().unwrap_or_default()))
}

fn bytes(bytes: u64) -> String {
    match bytes {
        0..=99_999 => format!("{bytes} bytes"),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}
