//! Verbs that look into journals, and those that change what happens by hand.

use selvedge_engine::wiring::Tasks;
use selvedge_kernel::record::run::Event;
use serde_json::{Value, json};

use crate::app::App;
use crate::control::{EditState, Gives, Request};

use super::access::{Access, ask_once, ask_whoever, fresh_key};
use super::actors::text;
use super::args::{Common, Edited, Fork, Output, Resolve, RetryVerb, RunFork};
use super::exit::{Code, Stop};
use super::{happened, print, said};

const NOT_HELD: &str = "nobody holds the data directory: it goes on when somebody does";

/// Tells a person who looks at open work that nobody does it.
pub fn note_unheld(open: bool, held: bool) {
    if open && !held {
        print::note(
            "nobody holds the data directory, so nothing in it goes on: start the process that works on it again, or `selvedge runs follow RUN` to go on with its runs",
        );
    }
}

/// `invocations journal ID`: all of it, a page at a time.
pub async fn journal(common: &Common, app: App, id: String) -> Result<Code, Stop> {
    let mut access = Access::open(common, app, Tasks::Leave).await?;
    let mut entries = Vec::new();
    let mut from = 0;
    let read = loop {
        let mut page = match access.ask(Request::Journal { id: id.clone(), from }).await {
            Ok(page) => page,
            Err(problem) => break Err(problem),
        };
        entries.append(page["entries"].as_array_mut().unwrap_or(&mut Vec::new()));
        match page["next"].as_u64().and_then(|next| u32::try_from(next).ok()) {
            Some(next) => from = next,
            None => break Ok(()),
        }
    };
    access.close().await?;
    read?;
    let entries = Value::Array(entries);
    print::result(common.output, &entries, || {
        let rows: Vec<Vec<String>> = entries.as_array().into_iter().flatten().map(row).collect();
        let names = ["ENTRY", "OPERATION", "WHAT", "NAME", "TO", "OUTCOME", "BYTES", "AT", "SEAL"];
        if rows.is_empty() { "it has recorded nothing yet".to_owned() } else { print::table(&names, &rows) }
    })?;
    Ok(Code::Done)
}

fn row(entry: &Value) -> Vec<String> {
    let of = |name: &str| if entry[name].is_null() { String::new() } else { text(&entry[name]) };
    let operation = entry["operation"].as_u64().map(|number| format!("#{number}")).unwrap_or_default();
    let by_hand = &entry["by_hand"];
    let mut outcome = of("outcome");
    if let Some(code) = entry["error"]["code"].as_str() {
        outcome = format!("{outcome} {code}");
    }
    if let Some(by) = by_hand["by"].as_str() {
        let what = match (by_hand["supersedes"].as_u64(), by_hand["from"].as_str()) {
            (Some(superseded), _) => format!(" instead of entry {superseded}"),
            (_, Some(from)) => format!(" from {from}"),
            _ => String::new(),
        };
        outcome = format!("{outcome}{what}, by {by}: {}", text(&by_hand["reason"]));
    }
    let name = match by_hand["stands_for"].as_str() {
        Some(stands_for) => stands_for.to_owned(),
        None => of("name"),
    };
    vec![of("entry"), operation, of("kind"), name, of("target"), outcome, of("bytes"), of("at"), of("seal")]
}

/// `runs journal ID`: what happened to a run, by number.
pub async fn run_journal(common: &Common, app: App, id: String) -> Result<Code, Stop> {
    let mut access = Access::open(common, app, Tasks::Leave).await?;
    let mut events: Vec<(u64, Event)> = Vec::new();
    let read = loop {
        let from = events.last().map_or(0, |(number, _)| number + 1);
        match access.ask(Request::RunJournal { id: id.clone(), from }).await {
            Ok(page) => match serde_json::from_value::<Vec<(u64, Event)>>(page) {
                Ok(page) if page.is_empty() => break Ok(()),
                Ok(page) => events.extend(page),
                Err(error) => break Err(Stop::new(Code::Failed, format!("the events of {id} do not read: {error}"))),
            },
            Err(problem) => break Err(problem.into()),
        }
    };
    access.close().await?;
    read?;
    match common.output {
        Output::Json => print::say(&print::pretty(&Value::Array(events.iter().map(|(number, event)| happened::json(*number, event)).collect())))?,
        Output::Text => {
            let mut totals = happened::Totals::default();
            for (number, event) in &events {
                for line in happened::lines(event, &mut totals) {
                    print::say(&format!("{number:>5}  {line}"))?;
                }
            }
        }
    }
    Ok(Code::Done)
}

/// `actors state set` and `delete`.
pub async fn edit(common: &Common, app: App, (kind, key): (String, String), edited: Edited, set: Option<String>) -> Result<Code, Stop> {
    let set = set.map(|value| said::json("the value", &value)).transpose()?.map(|said| said.text);
    let edit = EditState { kind, key, name: edited.name, set, if_match: edited.if_match, reason: edited.reason, idempotency_key: Some(fresh_key()?) };
    let answer = ask_once(common, app, Tasks::Leave, Request::EditState(edit)).await?;
    let Some(result) = answer.get("result") else {
        print::result(common.output, &answer, || text(&answer["id"]))?;
        print::note(&format!("accepted, and behind another message of its actor: `selvedge why {}` says which", text(&answer["id"])));
        return Ok(Code::Waits);
    };
    print::result(common.output, &answer, || match result["etag"].as_str() {
        Some(etag) => format!("`{}` is set, its etag is {etag}; {} keeps who and why", text(&result["name"]), text(&answer["id"])),
        None => format!("`{}` is gone; {} keeps who and why", text(&result["name"]), text(&answer["id"])),
    })?;
    Ok(Code::Done)
}

/// `invocations resolve`
pub async fn resolve(common: &Common, app: App, asked: Resolve) -> Result<Code, Stop> {
    let gives = match (asked.result, asked.error) {
        (Some(result), _) => Gives::Result(said::json("--result", &result)?.text),
        (None, Some(error)) => match error.split_once(':') {
            Some((code, message)) if !code.trim().is_empty() => Gives::Error { code: code.trim().to_owned(), message: message.trim().to_owned() },
            _ => return Err(Stop::usage("--error is CODE:MESSAGE, for example --error 'card_declined: the bank says no'")),
        },
        (None, None) => return Err(Stop::usage("say what the operation gives: --result JSON, or --error CODE:MESSAGE")),
    };
    let id = asked.invocation.id;
    let request = Request::Resolve { id: id.clone(), operation: asked.entry.0, gives, reason: asked.reason };
    let (resolved, held) = ask_whoever(common, app, Tasks::Leave, request).await?;
    print::result(common.output, &resolved, || {
        let instead = resolved["supersedes"].as_u64().map(|entry| format!(" instead of entry {entry}, which stays")).unwrap_or_default();
        format!("{} is decided by entry {}{instead}; {id} is tried again", text(&resolved["stands_for"]), resolved["entry"])
    })?;
    if !held {
        print::note(NOT_HELD);
    }
    Ok(Code::Done)
}

/// `invocations fork`
pub async fn fork(common: &Common, app: App, asked: Fork) -> Result<Code, Stop> {
    let id = asked.invocation.id;
    let from = asked.from.map(|from| from.0);
    let request = Request::Fork { id: id.clone(), from, kill_original: asked.kill_original, reason: asked.reason, key: fresh_key()? };
    let (forked, held) = ask_whoever(common, app, Tasks::Leave, request).await?;
    print::result(common.output, &forked, || text(&forked["id"]))?;
    if let Some(entries) = forked["entries"].as_u64() {
        print::note(&format!("it took over {entries} entries of {id}"));
    }
    if !held {
        print::note(NOT_HELD);
    }
    Ok(Code::Done)
}

/// `runs fork`
pub async fn fork_run(common: &Common, app: App, asked: RunFork) -> Result<Code, Stop> {
    let id = asked.run.id;
    let input = asked.input.map(|input| said::json("--input", &input)).transpose()?.map(|said| said.text);
    let request = Request::ForkRun { id: id.clone(), from: asked.from, input, reason: asked.reason, key: fresh_key()? };
    let (forked, held) = ask_whoever(common, app, Tasks::Leave, request).await?;
    print::result(common.output, &forked, || text(&forked["id"]))?;
    let taken: Vec<String> = forked["taken"].as_array().into_iter().flatten().map(text).collect();
    print::note(&match taken.as_slice() {
        [] => format!("it takes nothing over from {id}"),
        stages => format!("it takes over from {id}: {}", stages.join(", ")),
    });
    if !held {
        print::note(NOT_HELD);
    }
    Ok(Code::Done)
}

/// `invocations retry`, of one or of all that a filter keeps.
pub async fn retry(common: &Common, app: App, asked: RetryVerb) -> Result<Code, Stop> {
    let Some(filter) = asked.filter else {
        let Some(id) = asked.id else {
            return Err(Stop::usage(
                "name a blocked invocation, inv_…, or all blocked ones that a filter keeps: `selvedge invocations retry --where 'type:order'` says which, and does it with --yes",
            ));
        };
        let (_, held) = ask_whoever(common, app, Tasks::Leave, Request::RetryInvocation { id }).await?;
        super::actors::done(common, "it is looked at again")?;
        if !held {
            print::note(NOT_HELD);
        }
        return Ok(Code::Done);
    };
    let found = ask_once(common, app, Tasks::Leave, Request::RetryWhere { filter, dry_run: !asked.yes }).await?;
    let count = |name: &str| found[name].as_array().map_or(0, Vec::len);
    print::result(common.output, &found, || {
        let rows: Vec<Vec<String>> = found["matched"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|line| ["id", "actor", "handler", "accepted_at"].iter().map(|name| text(&line[*name])).collect())
            .collect();
        match (rows.is_empty(), asked.yes) {
            (true, _) => "no blocked invocation fits".to_owned(),
            (false, false) => print::table(&["INVOCATION", "ACTOR", "HANDLER", "ACCEPTED"], &rows),
            (false, true) => format!("{} are looked at again", count("retried")),
        }
    })?;
    for left in found["left"].as_array().into_iter().flatten() {
        print::note(&format!("{}: {}", text(&left["id"]), text(&left["reason"])));
    }
    if !asked.yes && count("matched") > 0 {
        print::note(&format!("{} would be tried again; nothing was done: add --yes", count("matched")));
    }
    Ok(Code::Done)
}

/// What `invocations show` says of forks.
pub fn forks(shown: &Value) -> String {
    let from = shown["forked_from"].as_str().map(|from| format!("\nforked from: {from}")).unwrap_or_default();
    let into: Vec<String> = shown["forks"].as_array().into_iter().flatten().map(text).collect();
    let into = if into.is_empty() { String::new() } else { format!("\nforks: {}", into.join(", ")) };
    format!("{from}{into}")
}

/// The state with its etags.
pub fn etags(state: &Value) -> String {
    let rows: Vec<Vec<String>> =
        state.as_object().into_iter().flatten().map(|(name, entry)| vec![name.clone(), text(&entry["etag"]), entry["value"].to_string()]).collect();
    if rows.is_empty() { json!({}).to_string() } else { print::table(&["NAME", "ETAG", "VALUE"], &rows) }
}
