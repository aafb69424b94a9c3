//! `schedules …`

use selvedge_engine::wiring::Tasks;
use serde_json::{Value, json};

use crate::app::App;
use crate::control::{Request, SteerSchedule};

use super::access::{ask_once, ask_whoever};
use super::actors::{done, text};
use super::args::{Common, Schedules};
use super::exit::{Code, Stop};
use super::print;

/// Performs one of them.
pub async fn schedules(common: &Common, app: App, verb: Schedules) -> Result<Code, Stop> {
    let (pipeline, steer) = match verb {
        Schedules::List => return list(common, app).await,
        Schedules::Show { pipeline } => {
            let shown = ask_once(common, app, Tasks::Leave, Request::Schedule { pipeline }).await?;
            print::result(common.output, &shown, || text(&shown["sentence"]))?;
            return Ok(Code::Done);
        }
        Schedules::Pause { pipeline } => (pipeline, SteerSchedule::Pause),
        Schedules::Resume { pipeline } => (pipeline, SteerSchedule::Resume),
        Schedules::Remove { pipeline } => (pipeline, SteerSchedule::Remove),
        Schedules::Fire { pipeline } => (pipeline, SteerSchedule::Fire),
    };
    let (answer, held) = ask_whoever(common, app, Tasks::Leave, Request::SteerSchedule { pipeline, steer }).await?;
    let what = match steer {
        SteerSchedule::Fire => format!("it started {}", text(&answer["run"])),
        SteerSchedule::Remove => "it is removed, until a process opens the data directory with its pipeline again".to_owned(),
        SteerSchedule::Pause | SteerSchedule::Resume => text(&answer["sentence"]),
    };
    match steer {
        SteerSchedule::Fire => print::result(common.output, &json!({ "ok": true, "run": answer["run"] }), || what)?,
        _ => done(common, &what)?,
    }
    if !held {
        print::note("nobody holds the data directory: schedules fire, and runs go on, while a process holds it");
    }
    Ok(Code::Done)
}

async fn list(common: &Common, app: App) -> Result<Code, Stop> {
    let found = ask_once(common, app, Tasks::Leave, Request::Schedules).await?;
    print::result(common.output, &found, || {
        let row = |one: &Value| {
            let status = if one["paused"].is_null() { "active" } else { "paused" };
            let counts = ["started", "overlapped", "missed", "failed"].map(|name| text(&one["counts"][name]));
            [text(&one["pipeline"]), status.to_owned(), one["next"].as_str().unwrap_or("never").to_owned()].into_iter().chain(counts).collect()
        };
        let rows: Vec<Vec<String>> = found.as_array().into_iter().flatten().map(row).collect();
        if rows.is_empty() {
            "there is no schedule: one is stored when a process holds the data directory with a pipeline whose file has `schedule`".to_owned()
        } else {
            print::table(&["PIPELINE", "STATUS", "NEXT", "STARTED", "OVERLAPPED", "MISSED", "FAILED"], &rows)
        }
    })?;
    Ok(Code::Done)
}
