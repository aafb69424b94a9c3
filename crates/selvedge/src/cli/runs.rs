//! `runs …`

use selvedge_engine::wiring::Tasks;
use selvedge_kernel::machine::RunState;
use selvedge_kernel::pipeline::run::task_name;
use selvedge_kernel::record::run::Event;
use serde_json::{Value, json};

use crate::app::App;
use crate::control::{Decision as Answer, Request, Steer};

use super::access::{Access, ask_once, ask_whoever, fresh_key};
use super::actors::{done, text};
use super::args::{Common, Decision, Keep, Output, RunId, Runs};
use super::exit::{Code, Stop};
use super::stuck::nothing;
use super::{hand, happened, print, said};

/// Performs one of them.
pub async fn runs(common: &Common, app: App, verb: Runs) -> Result<Code, Stop> {
    let id = match &verb {
        Runs::Cancel { run, .. } | Runs::Retry { run, .. } | Runs::Signal { run, .. } | Runs::Pause(run) | Runs::Resume(run) => run.id.clone(),
        Runs::Approve(decision) | Runs::Reject(decision) => decision.run.id.clone(),
        Runs::List(_) | Runs::Show(_) | Runs::Follow(_) | Runs::Journal(_) | Runs::Fork(_) => String::new(),
    };
    let (request, what) = match verb {
        Runs::List(keep) => return all(common, app, keep).await,
        Runs::Show(RunId { id }) => return show(common, app, id).await,
        Runs::Follow(RunId { id }) => return follow(common, app, id).await,
        Runs::Journal(RunId { id }) => return hand::run_journal(common, app, id).await,
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
        Runs::Fork(asked) => return hand::fork_run(common, app, asked).await,
        Runs::Approve(decision) => decide(decision, Answer::Approve),
        Runs::Reject(decision) => decide(decision, Answer::Reject),
        Runs::Signal { run, name, data, idempotency_key } => {
            let what = format!("the signal `{name}` is delivered");
            (
                Request::SignalRun {
                    id: run.id,
                    name,
                    payload: said::json("--data-json", &data.json)?.text,
                    idempotency_key: Some(idempotency_key.map_or_else(fresh_key, Ok)?),
                },
                what,
            )
        }
    };
    let request = with_stage(common, &app, request).await?;
    let held = match ask_whoever(common, app.clone(), Tasks::Leave, request.clone()).await {
        Ok((_, held)) => held,
        Err(stop) => answered_so(common, &app, &request).await.ok_or(stop)?,
    };
    done(common, &what)?;
    if !held {
        let run = ask_once(common, app, Tasks::Leave, Request::Run { id: id.clone() }).await?;
        match run["ended_at"].is_null() {
            true => print::note("nobody holds the data directory: the command that started the run goes on with it"),
            // Said again, that command would start another run.
            false => print::note(&text(&run["sentence"])),
        }
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

/// Names the stage that an answer is for, while one alone asks: said again because its own answer was lost, it is for no other one.
async fn with_stage(common: &Common, app: &App, request: Request) -> Result<Request, Stop> {
    let Request::Decide { id, stage: None, answer, by, comment } = request else { return Ok(request) };
    let asked = Request::Approval { id: id.clone(), stage: None };
    // Where none or more than one asks, the answer itself is refused, with what to do.
    let stage = ask_once(common, app.clone(), Tasks::Leave, asked).await.ok().filter(|shown| shown["status"] == "open");
    Ok(Request::Decide { id, stage: stage.map(|shown| text(&shown["stage"])), answer, by, comment })
}

/// Whether this very answer was given before, by the same person: it was lost on the way, or is said twice. If so, whether
/// somebody holds the directory.
async fn answered_so(common: &Common, app: &App, request: &Request) -> Option<bool> {
    let Request::Decide { id, stage, answer, by, comment } = request else { return None };
    let (run, held) = ask_whoever(common, app.clone(), Tasks::Leave, Request::Run { id: id.clone() }).await.ok()?;
    let status = match answer {
        Answer::Approve => "approved",
        Answer::Reject => "rejected",
    };
    let mut decided = list(&run["stages"]).filter(|at| !at["decision"].is_null() && stage.as_deref().is_none_or(|stage| at["name"] == stage));
    let (first, more) = (decided.next()?, decided.next());
    let decision = &first["decision"];
    let same = decision["status"] == status && decision["by"] == by.as_str() && decision["comment"].as_str().unwrap_or_default() == comment;
    (same && more.is_none()).then_some(held)
}

async fn all(common: &Common, app: App, keep: Keep) -> Result<Code, Stop> {
    let runs = ask_once(common, app, Tasks::Leave, Request::Runs { filter: keep.filter.clone() }).await?;
    print::result(common.output, &runs, || {
        let row = |run: &Value| {
            let attributes = run["attributes"].as_object().into_iter().flatten().map(|(name, value)| format!("{name}:{}", text(value)));
            let attributes = attributes.collect::<Vec<_>>().join(" ");
            ["id", "pipeline", "status"].iter().map(|name| text(&run[*name])).chain([happened::age(&run["started_at_ms"]), attributes]).collect()
        };
        let rows: Vec<Vec<String>> = runs.as_array().into_iter().flatten().map(row).collect();
        if rows.is_empty() {
            nothing("there is no run", &keep)
        } else {
            {
                let names = ["RUN", "PIPELINE", "STATUS", "AGE", "ATTRIBUTES"];
                let any = rows.iter().any(|row| row.last().is_some_and(|attributes| !attributes.is_empty()));
                print::table(if any { &names } else { &names[..4] }, &rows)
            }
        }
    })?;
    Ok(Code::Done)
}

async fn show(common: &Common, app: App, id: String) -> Result<Code, Stop> {
    let (run, held) = ask_whoever(common, app, Tasks::Leave, Request::Run { id }).await?;
    print::result(common.output, &run, || {
        let rows: Vec<Vec<String>> = list(&run["stages"]).map(stage).collect();
        let mut parts = vec![text(&run["sentence"]), print::table(&["STAGE", "STATUS", "DONE", "OF", "FAILED", "RUNNING", "RETRYING", "LAST ERROR"], &rows)];
        parts.extend(failures(&run));
        let decided: Vec<String> = list(&run["stages"]).filter(|stage| !stage["decision"].is_null()).map(decision).collect();
        if !decided.is_empty() {
            parts.push(decided.join("\n"));
        }
        let output = run.get("output").map(|output| format!("\noutput: {}", print::pretty(output))).unwrap_or_default();
        format!("{}{output}", parts.join("\n\n"))
    })?;
    hand::note_unheld(run["ended_at"].is_null(), held);
    Ok(Code::Done)
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The tasks that failed, also those of stages that went on without them.
fn failures(run: &Value) -> Option<String> {
    let number = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok()).unwrap_or_default();
    let tasks = |name: &Value| list(&run["stages"]).find(|stage| stage["name"] == *name).map_or(0, |stage| number(&stage["total"]));
    let line = |failure: &Value| {
        let task = task_name(&text(&failure["stage"]), number(&failure["item"]), tasks(&failure["stage"]));
        vec![task, text(&failure["attempts"]), text(&failure["at"]), error(&failure["error"])]
    };
    let rows: Vec<Vec<String>> = list(&run["failures"]).map(line).collect();
    let more = match run["more_failures"].as_u64() {
        None | Some(0) => String::new(),
        Some(more) => format!("\nand {more} more"),
    };
    (!rows.is_empty()).then(|| format!("{}{more}", print::table(&["FAILED TASK", "ATTEMPTS", "AT", "ERROR"], &rows)))
}

fn decision(stage: &Value) -> String {
    let decision = &stage["decision"];
    let comment = decision["comment"].as_str().map(|comment| format!(": {comment}")).unwrap_or_default();
    format!("{} was {} by {} at {}{comment}", text(&stage["name"]), text(&decision["status"]), text(&decision["by"]), text(&decision["at"]))
}

fn error(error: &Value) -> String {
    if error.is_null() { String::new() } else { format!("{}: {}", text(&error["code"]), text(&error["message"])) }
}

/// `approvals list`
pub async fn approvals(common: &Common, app: App, keep: Keep) -> Result<Code, Stop> {
    let approvals = ask_once(common, app, Tasks::Leave, Request::Approvals { filter: keep.filter.clone() }).await?;
    print::result(common.output, &approvals, || {
        let row = |approval: &Value| {
            let who = match approval["by"].as_str() {
                Some(by) => by.to_owned(),
                None => list(&approval["assignees"]).map(text).collect::<Vec<_>>().join(", "),
            };
            let when = approval["at"].as_str().map_or_else(|| format!("until {}", text(&approval["expires"])), str::to_owned);
            vec![
                text(&approval["run"]),
                text(&approval["stage"]),
                text(&approval["status"]),
                who,
                when,
                approval["comment"].as_str().unwrap_or_default().to_owned(),
            ]
        };
        let rows: Vec<Vec<String>> = list(&approvals).map(row).collect();
        if rows.is_empty() { nothing("there is no approval", &keep) } else { print::table(&["RUN", "STAGE", "STATUS", "WHO", "WHEN", "COMMENT"], &rows) }
    })?;
    Ok(Code::Done)
}

/// `approvals show RUN`
pub async fn approval(common: &Common, app: App, id: String, stage: Option<String>) -> Result<Code, Stop> {
    let shown = ask_once(common, app, Tasks::Leave, Request::Approval { id, stage }).await?;
    print::result(common.output, &shown, || {
        let of = |name: &str| text(&shown[name]);
        let where_it_is = match (shown["by"].as_str(), shown["assignees"].is_array()) {
            (Some(_), _) => decision(&json!({ "name": shown["stage"], "decision": shown })),
            (None, true) => {
                let who = list(&shown["assignees"]).map(text).collect::<Vec<_>>().join(", ");
                format!("{} asks {who} since {} until {}", of("stage"), of("asked_at"), of("expires"))
            }
            (None, false) => format!("{} asks nobody any more", of("stage")),
        };
        let show = if shown["show"].is_null() { "it shows nothing".to_owned() } else { print::pretty(&shown["show"]) };
        format!("{} ({}): {where_it_is}\n{show}", of("run"), of("pipeline"))
    })?;
    if shown["status"] == "open" {
        let (run, stage) = (text(&shown["run"]), text(&shown["stage"]));
        print::note(&format!("`selvedge approvals approve {run} --stage {stage}` or `selvedge approvals reject {run} --stage {stage}` answers it"));
    }
    Ok(Code::Done)
}

fn stage(stage: &Value) -> Vec<String> {
    ["name", "status", "done", "total", "failed", "running", "retrying"].iter().map(|name| text(&stage[*name])).chain([error(&stage["error"])]).collect()
}

async fn follow(common: &Common, app: App, id: String) -> Result<Code, Stop> {
    let mut access = Access::open(common, app, Tasks::Start).await?;
    let mut next = 0;
    let mut totals = happened::Totals::default();
    loop {
        let events = access.ask(Request::RunEvents { id: id.clone(), from: next }).await?;
        let events: Vec<(u64, Event)> =
            serde_json::from_value(events).map_err(|error| Stop::new(Code::Unreachable, format!("the holder speaks another version: {error}")))?;
        if events.is_empty() {
            // It has ended, and none of its events is kept any more.
            let run = access.ask(Request::Run { id }).await?;
            access.close().await?;
            return Ok(if run["status"] == "completed" { Code::Done } else { Code::Failed });
        }
        let mut state = RunState::Running;
        for (number, event) in events {
            next = number + 1;
            state = event.state;
            match common.output {
                Output::Json => print::say(&happened::json(number, &event).to_string())?,
                Output::Text => happened::lines(&event, &mut totals).iter().try_for_each(|line| print::say(line))?,
            }
        }
        // The holder may go away with its run: nothing more is asked of it.
        if state.ended() {
            access.close().await?;
            return Ok(if state == RunState::Completed { Code::Done } else { Code::Failed });
        }
    }
}
