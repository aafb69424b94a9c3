//! `runs …`

use selvedge_engine::wiring::Tasks;
use selvedge_kernel::machine::RunState;
use selvedge_kernel::record::run::Event;
use serde_json::Value;

use crate::app::App;
use crate::control::{Decision as Answer, Request, Steer};

use super::access::Access;
use super::actors::{done, text};
use super::args::{Common, Decision, Output, RunId, Runs};
use super::exit::{Code, Stop};
use super::{happened, print, said};

/// Performs one of them.
pub async fn runs(common: &Common, app: App, verb: Runs) -> Result<Code, Stop> {
    let (request, what) = match verb {
        Runs::List => return list(common, app).await,
        Runs::Show(RunId { id }) => return show(common, app, id).await,
        Runs::Follow(RunId { id }) => return follow(common, app, id).await,
        Runs::Cancel { run, reason } => (Request::SteerRun { id: run.id, steer: Steer::Cancel { reason } }, "it ends as cancelled".to_owned()),
        Runs::Pause(run) => (Request::SteerRun { id: run.id, steer: Steer::Pause }, "it starts nothing new; `selvedge runs resume` lets it go on".to_owned()),
        Runs::Resume(run) => (Request::SteerRun { id: run.id, steer: Steer::Resume }, "it goes on".to_owned()),
        Runs::Retry { run, from: None, failed_only: false } => {
            (Request::SteerRun { id: run.id, steer: Steer::Retry }, "what failed or was blocked is taken up again".to_owned())
        }
        Runs::Retry { run, from, failed_only } => {
            let what = match &from {
                Some(stage) => format!("it goes on from `{stage}`"),
                None => "failed tasks run again".to_owned(),
            };
            (Request::SteerRun { id: run.id, steer: Steer::RetryMore { from, failed_only } }, what)
        }
        Runs::Approve(decision) => decide(decision, Answer::Approve),
        Runs::Reject(decision) => decide(decision, Answer::Reject),
        Runs::Signal { run, name, data } => {
            let what = format!("the signal `{name}` is delivered");
            (Request::SignalRun { id: run.id, name, payload: said::json("--data-json", &data.json)?.text }, what)
        }
    };
    let access = Access::open(common, app, Tasks::Leave).await?;
    let held = access.is_held();
    access.ask_once(request).await?;
    done(common, &what)?;
    if !held {
        print::note("nobody holds the data directory: the command that started the run goes on with it");
    }
    Ok(Code::Done)
}

fn decide(decision: Decision, answer: Answer) -> (Request, String) {
    // `--by ada` and `--by user:ada` are the same person.
    let by = decision.by.or_else(|| std::env::var("USER").ok().filter(|user| !user.is_empty()));
    let by = by.map_or_else(|| "local".to_owned(), |user| format!("user:{}", user.strip_prefix("user:").unwrap_or(&user)));
    let what = match answer {
        Answer::Approve => format!("approved by {by}"),
        Answer::Reject => format!("rejected by {by}"),
    };
    (Request::Decide { id: decision.run.id, stage: decision.stage, answer, by, comment: decision.comment }, what)
}

async fn list(common: &Common, app: App) -> Result<Code, Stop> {
    let runs = Access::open(common, app, Tasks::Leave).await?.ask_once(Request::Runs).await?;
    print::result(common.output, &runs, || {
        let row = |run: &Value| ["id", "pipeline", "state"].iter().map(|name| text(&run[*name])).chain([happened::age(&run["started_at_ms"])]).collect();
        let rows: Vec<Vec<String>> = runs.as_array().into_iter().flatten().map(row).collect();
        if rows.is_empty() { "there is no run".to_owned() } else { print::table(&["RUN", "PIPELINE", "STATUS", "AGE"], &rows) }
    })?;
    Ok(Code::Done)
}

async fn show(common: &Common, app: App, id: String) -> Result<Code, Stop> {
    let run = Access::open(common, app, Tasks::Leave).await?.ask_once(Request::Run { id }).await?;
    print::result(common.output, &run, || {
        let stages = run["stages"].as_array().into_iter().flatten();
        let rows: Vec<Vec<String>> = stages.map(stage).collect();
        let output = run.get("output").map(|output| format!("\noutput: {}", print::pretty(output))).unwrap_or_default();
        format!(
            "{}\n\n{}{output}",
            text(&run["sentence"]),
            print::table(&["STAGE", "STATE", "DONE", "OF", "FAILED", "RUNNING", "RETRYING", "LAST ERROR"], &rows)
        )
    })?;
    Ok(Code::Done)
}

fn stage(stage: &Value) -> Vec<String> {
    let error = if stage["error"].is_null() { String::new() } else { format!("{}: {}", text(&stage["error"]["code"]), text(&stage["error"]["message"])) };
    ["name", "state", "done", "total", "failed", "running", "retrying"].iter().map(|name| text(&stage[*name])).chain([error]).collect()
}

async fn follow(common: &Common, app: App, id: String) -> Result<Code, Stop> {
    let mut access = Access::open(common, app, Tasks::Start).await?;
    let mut next = 0;
    loop {
        let events = access.ask(Request::RunEvents { id: id.clone(), from: next }).await?;
        let events: Vec<(u64, Event)> =
            serde_json::from_value(events).map_err(|error| Stop::new(Code::Unreachable, format!("the holder speaks another version: {error}")))?;
        if events.is_empty() {
            // It has ended, and none of its events is kept any more.
            let run = access.ask(Request::Run { id }).await?;
            access.close().await?;
            return Ok(if run["state"] == "completed" { Code::Done } else { Code::Failed });
        }
        let mut state = RunState::Running;
        for (number, event) in events {
            next = number + 1;
            state = event.state;
            match common.output {
                Output::Json => print::say(&serde_json::to_string(&(number, &event)).unwrap_or_default())?,
                Output::Text => happened::lines(&event).iter().try_for_each(|line| print::say(line))?,
            }
        }
        // The holder may go away with its run: nothing more is asked of it.
        if state.ended() {
            access.close().await?;
            return Ok(if state == RunState::Completed { Code::Done } else { Code::Failed });
        }
    }
}
