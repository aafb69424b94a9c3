//! Verbs on actors, invocations and the store as a whole.

use selvedge_engine::wiring::Tasks;
use serde_json::{Value, json};

use crate::app::App;
use crate::control::{Invoke, Request};

use super::access::{ask_once, ask_whoever, fresh_key};
use super::args::{Actor, Actors, Common, InvocationId, Invocations, Keep, Message, State, StateVerb};
use super::exit::{Code, Stop};
use super::{call, hand, print, said, stuck};

/// `actors …`
pub async fn actors(common: &Common, app: App, verb: Actors) -> Result<Code, Stop> {
    match verb {
        Actors::Call(call) => return call::call(common, app, call).await,
        Actors::Send(message) => {
            let invoke = invoke(message)?;
            let (answer, held) = ask_whoever(common, app, Tasks::Leave, Request::Send(invoke)).await?;
            print::result(common.output, &answer, || text(&answer["id"]))?;
            if !held {
                print::note("accepted; nobody holds the data directory: it is handled when somebody does");
            }
        }
        Actors::Signal { actor, name, data, idempotency_key } => {
            let (kind, key) = parts(&actor)?;
            let payload = said::json("--data-json", &data.json)?.text;
            let idempotency_key = Some(idempotency_key.map_or_else(fresh_key, Ok)?);
            ask_once(common, app, Tasks::Leave, Request::SignalActor { kind, key, name: name.clone(), payload, idempotency_key }).await?;
            done(common, &format!("the signal `{name}` is kept until somebody takes it"))?;
        }
        Actors::List(keep) => return list(common, app, keep).await,
        Actors::State(State { verb: Some(StateVerb::Set { actor, edited, value }), .. }) => {
            return hand::edit(common, app, parts(&actor)?, edited, Some(value)).await;
        }
        Actors::State(State { verb: Some(StateVerb::Delete { actor, edited }), .. }) => return hand::edit(common, app, parts(&actor)?, edited, None).await,
        Actors::State(State { actor, etags, .. }) => {
            // Without a verb the parser asks for it.
            let actor = Actor { actor: actor.unwrap_or_default() };
            let (kind, key) = parts(&actor)?;
            let request = if etags { Request::StateEtags { kind, key } } else { Request::State { kind, key } };
            let state = ask_once(common, app, Tasks::Leave, request).await?;
            print::result(common.output, &state, || match state.as_object() {
                Some(_) if etags => hand::etags(&state),
                Some(entries) if entries.is_empty() => "{}".to_owned(),
                Some(entries) => {
                    let rows: Vec<Vec<String>> = entries.iter().map(|(name, value)| vec![name.clone(), value.to_string()]).collect();
                    print::table(&["NAME", "VALUE"], &rows)
                }
                None => state.to_string(),
            })?;
            if state.as_object().is_some_and(serde_json::Map::is_empty) {
                print::note(&format!("{} has no state: nothing has set any, or its key is another one", actor.actor));
            }
        }
    }
    Ok(Code::Done)
}

async fn list(common: &Common, app: App, keep: Keep) -> Result<Code, Stop> {
    let found = ask_once(common, app, Tasks::Leave, Request::Actors { filter: keep.filter.clone() }).await?;
    print::result(common.output, &found, || {
        let row = |one: &Value| vec![format!("{}/{}", text(&one["type"]), text(&one["key"])), text(&one["status"]), text(&one["inbox"])];
        let rows: Vec<Vec<String>> = found.as_array().into_iter().flatten().map(row).collect();
        if rows.is_empty() { stuck::nothing("no actor has a state or a message", &keep) } else { print::table(&["ACTOR", "STATUS", "INBOX"], &rows) }
    })?;
    Ok(Code::Done)
}

/// `invocations …`
pub async fn invocations(common: &Common, app: App, verb: Invocations) -> Result<Code, Stop> {
    let (request, what) = match verb {
        Invocations::List { all, keep } => return stuck::invocations(common, app, all, keep).await,
        Invocations::Show(InvocationId { id }) => {
            let (shown, held) = ask_whoever(common, app, Tasks::Leave, Request::Invocation { id }).await?;
            print::result(common.output, &shown, || {
                let result = shown.get("result").map(|result| format!("\nresult: {}", print::pretty(result))).unwrap_or_default();
                format!("{}{}{result}", text(&shown["sentence"]), hand::forks(&shown))
            })?;
            hand::note_unheld(shown["waiting"].as_array().is_some_and(|waiting| !waiting.is_empty()), held);
            return Ok(Code::Done);
        }
        Invocations::Cancel { invocation, reason } => (Request::CancelInvocation { id: invocation.id, reason }, "it was asked to end"),
        Invocations::Kill { invocation, reason } => (Request::KillInvocation { id: invocation.id, reason }, "it has ended"),
        Invocations::Retry(asked) => return hand::retry(common, app, asked).await,
        Invocations::Journal(InvocationId { id }) => return hand::journal(common, app, id).await,
        Invocations::Resolve(asked) => return hand::resolve(common, app, asked).await,
        Invocations::Fork(asked) => return hand::fork(common, app, asked).await,
    };
    let (_, held) = ask_whoever(common, app, Tasks::Leave, request).await?;
    done(common, what)?;
    if !held {
        print::note("nobody holds the data directory: what waits for this goes on when somebody does");
    }
    Ok(Code::Done)
}

/// `why ID`
pub async fn why(common: &Common, app: App, id: String) -> Result<Code, Stop> {
    let (why, held) = ask_whoever(common, app, Tasks::Leave, Request::Why { id }).await?;
    print::result(common.output, &why, || {
        let then = why["then"].as_array().into_iter().flatten().map(|below| format!("\n  {}", text(&below["sentence"])));
        [text(&why["sentence"])].into_iter().chain(then).chain(asked_by(&why["caller"])).collect()
    })?;
    hand::note_unheld(why["waiting"].as_array().is_some_and(|waiting| !waiting.is_empty()), held);
    Ok(Code::Done)
}

/// Who asked for it, where that is not the owner of the directory: what they may counts.
fn asked_by(caller: &Value) -> Option<String> {
    let by = caller["principal"].as_str().filter(|_| !matches!(caller["kind"].as_str(), Some("local" | "system")))?;
    let through: Vec<String> = caller["through"].as_array().into_iter().flatten().map(text).collect();
    let through = if through.is_empty() { String::new() } else { format!(", through {}", through.join(", ")) };
    Some(format!("\n  asked for by {by}{through}"))
}

/// A message as the control socket takes it, under a key.
pub fn invoke(message: Message) -> Result<Invoke, Stop> {
    let (kind, key) = parts(&message.actor)?;
    let input = said::json("--input", &message.input)?.text;
    let idempotency_key = Some(message.idempotency_key.map_or_else(fresh_key, Ok)?);
    Ok(Invoke { kind, key, handler: message.handler, input, idempotency_key, delay_ms: None, trace: None })
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
