//! Verbs on actors, invocations and the store as a whole.

use selvedge_engine::wiring::Tasks;
use serde_json::{Value, json};

use crate::app::App;
use crate::control::{Invoke, Request};

use super::access::Access;
use super::args::{Actor, Actors, Common, InvocationId, Invocations, Message};
use super::check::count;
use super::exit::{Code, Stop};
use super::{print, said};

/// `actors …`
pub async fn actors(common: &Common, app: App, verb: Actors) -> Result<Code, Stop> {
    match verb {
        Actors::Call(message) => {
            let invoke = invoke(message)?;
            let access = Access::open(common, app, Tasks::Start).await?;
            let answer = access.ask_once(Request::Call(invoke)).await?;
            print::result(common.output, &answer, || print::pretty(&answer["result"]))?;
        }
        Actors::Send(message) => {
            let invoke = invoke(message)?;
            let access = Access::open(common, app, Tasks::Leave).await?;
            let later = if access.is_held() { "" } else { "; nobody holds the data directory: it is handled when somebody does" };
            let answer = access.ask_once(Request::Send(invoke)).await?;
            print::result(common.output, &answer, || text(&answer["invocation"]))?;
            if !later.is_empty() {
                print::note(&format!("accepted{later}"));
            }
        }
        Actors::Signal { actor, name, data } => {
            let (kind, key) = parts(&actor)?;
            let payload = said::json("--data-json", &data.json)?.text;
            Access::open(common, app, Tasks::Leave).await?.ask_once(Request::SignalActor { kind, key, name: name.clone(), payload }).await?;
            done(common, &format!("the signal `{name}` is kept until somebody takes it"))?;
        }
        Actors::State(actor) => {
            let (kind, key) = parts(&actor)?;
            let state = Access::open(common, app, Tasks::Leave).await?.ask_once(Request::State { kind, key }).await?;
            print::result(common.output, &state, || match state.as_object() {
                Some(entries) if entries.is_empty() => format!("{} has no state", actor.actor),
                Some(entries) => {
                    let rows: Vec<Vec<String>> = entries.iter().map(|(name, value)| vec![name.clone(), value.to_string()]).collect();
                    print::table(&["NAME", "VALUE"], &rows)
                }
                None => state.to_string(),
            })?;
        }
    }
    Ok(Code::Done)
}

/// `invocations …`
pub async fn invocations(common: &Common, app: App, verb: Invocations) -> Result<Code, Stop> {
    let (request, what) = match verb {
        Invocations::Show(InvocationId { id }) => {
            let shown = Access::open(common, app, Tasks::Leave).await?.ask_once(Request::Invocation { id }).await?;
            print::result(common.output, &shown, || {
                let result = shown.get("result").map(|result| format!("\nresult: {}", print::pretty(result))).unwrap_or_default();
                format!("{}{result}", text(&shown["sentence"]))
            })?;
            return Ok(Code::Done);
        }
        Invocations::Cancel { invocation, reason } => (Request::CancelInvocation { id: invocation.id, reason }, "it was asked to end"),
        Invocations::Kill { invocation, reason } => (Request::KillInvocation { id: invocation.id, reason }, "it has ended"),
        Invocations::Retry(invocation) => (Request::RetryInvocation { id: invocation.id }, "it is looked at again"),
    };
    Access::open(common, app, Tasks::Leave).await?.ask_once(request).await?;
    done(common, what)?;
    Ok(Code::Done)
}

/// `why ID`
pub async fn why(common: &Common, app: App, id: String) -> Result<Code, Stop> {
    let why = Access::open(common, app, Tasks::Leave).await?.ask_once(Request::Why { id }).await?;
    print::result(common.output, &why, || text(&why["sentence"]))?;
    Ok(Code::Done)
}

/// `dead-letters list`
pub async fn dead_letters(common: &Common, app: App) -> Result<Code, Stop> {
    let letters = Access::open(common, app, Tasks::Leave).await?.ask_once(Request::DeadLetters).await?;
    print::result(common.output, &letters, || {
        let rows: Vec<Vec<String>> = letters.as_array().into_iter().flatten().map(letter).collect();
        if rows.is_empty() { "there is no dead letter".to_owned() } else { print::table(&["INVOCATION", "ACTOR", "HANDLER", "ATTEMPTS", "AT", "ERROR"], &rows) }
    })?;
    Ok(Code::Done)
}

fn letter(letter: &Value) -> Vec<String> {
    let mut row: Vec<String> = ["invocation", "actor", "handler", "attempts", "at"].iter().map(|name| text(&letter[*name])).collect();
    row.push(format!("{}: {}", text(&letter["error"]["code"]), text(&letter["error"]["message"])));
    row
}

/// `verify`
pub async fn verify(common: &Common, app: App) -> Result<Code, Stop> {
    let reports = Access::open(common, app, Tasks::Leave).await?.ask_once(Request::Verify).await?;
    let shards: Vec<&Value> = reports.as_array().into_iter().flatten().collect();
    let sum = |name: &str| shards.iter().filter_map(|shard| shard[name].as_u64()).sum::<u64>();
    let faults: Vec<String> = shards.iter().flat_map(|shard| shard["faults"].as_array().into_iter().flatten()).map(text).collect();
    print::result(common.output, &json!({ "sound": faults.is_empty(), "shards": reports }), || {
        format!(
            "{}: {} ledger lines, {} invocations, {} runs, {} entries walked, {} erased on purpose",
            if faults.is_empty() { "sound".to_owned() } else { count(faults.len(), "fault") },
            sum("ledger_lines"),
            sum("invocations"),
            sum("runs"),
            sum("entries"),
            sum("erased")
        )
    })?;
    if faults.is_empty() {
        return Ok(Code::Done);
    }
    Err(Stop::new(Code::Failed, format!("{}\n  hint: copy the data directory before you do anything else", faults.join("\n"))))
}

fn invoke(message: Message) -> Result<Invoke, Stop> {
    let (kind, key) = parts(&message.actor)?;
    let input = said::json("--input", &message.input)?.text;
    Ok(Invoke { kind, key, handler: message.handler, input, idempotency_key: message.idempotency_key })
}

fn parts(actor: &Actor) -> Result<(String, String), Stop> {
    match actor.actor.split_once('/') {
        Some((kind, key)) if !kind.is_empty() && !key.is_empty() => Ok((kind.to_owned(), key.to_owned())),
        _ => Err(Stop::usage(format!("`{}` is no actor: write TYPE/KEY, for example licence/MIT", actor.actor))),
    }
}

/// What a verb without a result says.
pub fn done(common: &Common, what: &str) -> Result<(), Stop> {
    print::result(common.output, &json!({ "ok": true }), || what.to_owned())
}

/// A JSON value as people read it.
pub fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
