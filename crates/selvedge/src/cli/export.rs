//! `export` and `import`: everything that a data directory holds, for another number of shards, another disk, another version.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use selvedge_engine::wiring::Tasks;
use selvedge_store::import;
use serde_json::{Value, json};

use crate::app::App;
use crate::control::{Problem, Request, export_problem, write_notes};

use super::access::{Access, command, config};
use super::args::Common;
use super::exit::{Code, Stop};
use super::print;

/// How often it is said how far it is.
const EVERY: Duration = Duration::from_secs(2);

/// `export --to FILE`: written by the holder of the data directory, or by this process if nobody holds it.
pub async fn export(common: &Common, app: App, to: PathBuf) -> Result<Code, Stop> {
    let to = std::path::absolute(&to).map_err(|error| Stop::usage(format!("--to: {} cannot be used: {error}", to.display())))?;
    let mut access = Access::open(common, app, Tasks::Leave).await?;
    let answer = access.ask(Request::Export { to: to.clone() }).await;
    access.close().await?;
    let done = answer?;
    print::result(common.output, &done, || {
        format!("{} lines, {} bytes in {}; {} messages between shards are on their way in it", done["lines"], done["bytes"], to.display(), done["envelopes"])
    })?;
    print::note(&format!("`selvedge import {} --data DIR` makes a data directory of it", to.display()));
    Ok(Code::Done)
}

/// `import FILE --data DIR`
pub async fn imported(common: &Common, file: PathBuf, shards: u16) -> Result<Code, Stop> {
    let (data, command) = (config(common)?.data, command());
    let (source, target) = (file.clone(), data.clone());
    let done = tokio::task::spawn_blocking(move || -> Result<Value, Problem> {
        let mut told = Instant::now();
        let done = import(&source, &target, shards, &command, |rows| {
            if told.elapsed() >= EVERY {
                told = Instant::now();
                print::note(&format!("{rows} rows"));
            }
        })
        .map_err(export_problem)?;
        if let Some(notes) = &done.notes {
            write_notes(&target, notes.as_bytes()).map_err(|error| {
                let text = format!("everything was imported except which run goes with which command ({error}): remove {} and import again", target.display());
                Problem::new(selvedge_kernel::error::Consequence::Stop, "export_failed", text)
            })?;
        }
        Ok(json!({
            "from": source, "data": target, "rows": done.rows, "envelopes": done.envelopes, "shards": done.shards, "shards_before": done.shards_before,
        }))
    });
    let done = done.await.map_err(|error| Stop::new(Code::Failed, format!("nothing was imported: {error}")))?.map_err(Stop::from)?;
    print::result(common.output, &done, || {
        format!("{} rows in {}: {} shards, where {} were", done["rows"], data.display(), done["shards"], done["shards_before"])
    })?;
    print::note(
        "what was open goes on when a process holds it: never let it and the directory that it comes from do their work at the same time. \
         Ledgers have new heads: `selvedge verify --heads` prints them",
    );
    Ok(Code::Done)
}
