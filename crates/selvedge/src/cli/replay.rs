//! `replay`: recorded journals, with the code at hand.

use std::time::Duration;

use selvedge_engine::wiring::Tasks;
use serde_json::Value;

use crate::app::App;

use super::access::Access;
use super::args::Common;
use super::exit::{Code, Stop};
use super::{happened, print};

/// Replays what has been recorded, writes nothing, and lists what would block.
pub async fn replay(common: &Common, app: App, kind: Option<String>, since: Duration) -> Result<Code, Stop> {
    let engine = match Access::open(common, app, Tasks::Leave).await? {
        Access::Own(engine) => engine,
        #[cfg(feature = "server")]
        Access::Server(_) => return Err(Stop::usage("a replay runs the code at hand where the journals are: leave out --server, and unset SELVEDGE_SERVER")),
        Access::Holder(_) => {
            return Err(Stop::usage(
                "another process holds the data directory, and would replay with its own code: stop it first, or name a copy of the directory with --data",
            ));
        }
    };
    let found = engine.local().rehearse(kind.as_deref(), since).await;
    engine.close().await?;
    let found = found.map_err(|error| Stop::new(Code::Failed, error.to_string()))?;
    let shown = serde_json::to_value(&found).unwrap_or(Value::Null);
    print::result(common.output, &shown, || {
        let mut lines: Vec<String> = found.misfits.iter().map(|one| format!("{}  {}.{}: {}", one.id, one.actor, one.handler, one.reason)).collect();
        let count = found.replayed;
        lines.push(match found.misfits.len() {
            0 => format!("{count} journals of the last {} and of all that is open were replayed: all fit", happened::span(since)),
            misfits => format!("{misfits} of {count} journals would block"),
        });
        lines.join("\n")
    })?;
    Ok(if found.misfits.is_empty() { Code::Done } else { Code::Failed })
}
