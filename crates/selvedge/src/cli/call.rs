//! `actors call`: sends, and waits for the end; what it waits for is said, and nothing is lost when the waiting ends.

use std::io::IsTerminal;
use std::time::Duration;

use selvedge_engine::wiring::Tasks;
use serde_json::Value;

use crate::app::App;
use crate::control::Request;

use super::access::{Access, Second};
use super::actors::{invoke, text};
use super::args::{Call, Common};
use super::exit::{Code, Stop};
use super::happened::times;
use super::{print, run};

/// How often it is looked whether an attempt has failed.
const GLANCE: Duration = Duration::from_millis(250);
/// After how many of those a person is told what is waited for.
const SILENCE: u32 = 4;

/// Performs it.
pub async fn call(common: &Common, app: App, call: Call) -> Result<Code, Stop> {
    let invoke = invoke(call.message)?;
    let mut access = Access::open(common, app, if call.no_wait { Tasks::Leave } else { Tasks::Start }).await?;
    let sent = access.ask(Request::Send(invoke)).await;
    let waits = sent.as_ref().is_ok_and(|sent| sent.get("result").is_none()) && !call.no_wait;
    let ended = match sent {
        Ok(sent) if waits => waited(common, &mut access, &text(&sent["id"]), call.wait.map(|span| span.0)).await,
        Ok(sent) => printed(common, &sent),
        Err(problem) => Err(problem.into()),
    };
    access.close().await?;
    ended
}

fn printed(common: &Common, answer: &Value) -> Result<Code, Stop> {
    print::result(common.output, answer, || answer.get("result").map_or_else(|| text(&answer["id"]), print::pretty))?;
    Ok(Code::Done)
}

async fn waited(common: &Common, access: &mut Access, id: &str, at_most: Option<Duration>) -> Result<Code, Stop> {
    let mut second = access.second(common).await?;
    let held = access.is_held();
    let later = |why: String| {
        let goes_on = if held { "it goes on" } else { "it goes on when somebody holds the data directory" };
        Stop::new(
            Code::Waits,
            format!("{why}; {id} is accepted and {goes_on}: `selvedge invocations show {id}` has its result, `selvedge why {id}` says what it waits for"),
        )
    };
    let limit = async {
        match at_most {
            Some(span) => tokio::time::sleep(span).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        answer = access.ask(Request::Await { id: id.to_owned() }) => printed(common, &answer?),
        () = limit => Err(later("the time of --wait is up".to_owned())),
        stopped = run::interrupted() => { stopped?; Err(later("stopped waiting".to_owned())) }
        never = told(&mut second, id) => match never {},
    }
}

/// Says that an attempt has failed and the next one is waited for; and tells a person what else is waited for, once it takes
/// longer.
async fn told(second: &mut Second, id: &str) -> std::convert::Infallible {
    let person = std::io::stderr().is_terminal();
    let (mut last, mut retried) = (Value::Null, Value::Null);
    for glance in 1u32.. {
        tokio::time::sleep(GLANCE).await;
        let Ok(why) = second.ask(Request::Why { id: id.to_owned() }).await else { break };
        let waiting = why["waiting"].as_array().map(Vec::as_slice).unwrap_or_default();
        if let Some(retry) = waiting.iter().find(|waits| waits["for"] == "retry_at") {
            if *retry != retried {
                let failed = times(retry["attempt"].as_u64().unwrap_or_default().saturating_sub(1));
                let of = |name: &str| text(&retry[name]);
                print::note(&format!("`{}` failed {failed} and is tried again at {}: {}", of("name"), of("at"), of("last_error")));
                retried = retry.clone();
            }
        } else if person && glance % SILENCE == 0 && why["sentence"] != last && !waiting.is_empty() {
            print::note(&text(&why["sentence"]));
            last = why["sentence"].clone();
        }
    }
    std::future::pending().await
}
