//! `verify`: are the chains and ledgers sound, and are they those of before?

use std::path::Path;

use selvedge_engine::verify::Head;
use selvedge_engine::wiring::Tasks;
use serde_json::{Value, json};

use crate::app::App;
use crate::control::Request;

use super::access::ask_once;
use super::actors::text;
use super::args::{Common, Verify};
use super::check::count;
use super::exit::{Code, Stop};
use super::{print, read_only};

/// `verify`
pub async fn verify(common: &Common, app: App, verb: Verify) -> Result<Code, Stop> {
    let copied = read_only::copied(common).await?;
    let common = copied.as_ref().map_or(common, |(_, common)| common);
    if verb.heads {
        return heads(common, app).await;
    }
    let against = verb.against.map(|file| kept(&file)).transpose()?.unwrap_or_default();
    let compared = !against.is_empty();
    let last = against.iter().map(|head| usize::from(head.shard)).max();
    let reports = ask_once(common, app, Tasks::Leave, Request::Verify { quick: verb.quick, against }).await?;
    let shards: Vec<&Value> = reports.as_array().into_iter().flatten().collect();
    if let Some(last) = last.filter(|last| *last >= shards.len()) {
        let text = format!("--against: there is no shard {last}, there are {}: heads from before an import are those of another store", shards.len());
        return Err(Stop::usage(text));
    }
    let sum = |name: &str| shards.iter().filter_map(|shard| shard[name].as_u64()).sum::<u64>();
    let faults: Vec<String> = shards.iter().flat_map(|shard| shard["faults"].as_array().into_iter().flatten()).map(text).collect();
    print::result(common.output, &json!({ "sound": faults.is_empty(), "shards": reports }), || {
        format!(
            "{}: {}, {}, {} and {} walked, {} erased on purpose",
            if faults.is_empty() { "sound".to_owned() } else { count(faults.len(), "fault") },
            counted(sum("ledger_lines"), "ledger line"),
            counted(sum("invocations"), "invocation"),
            counted(sum("runs"), "run"),
            if sum("entries") == 1 { "1 entry".to_owned() } else { format!("{} entries", sum("entries")) },
            sum("erased")
        ) + &if compared { met(&shards) } else { String::new() }
    })?;
    if faults.is_empty() {
        return Ok(Code::Done);
    }
    Err(Stop::new(Code::Failed, format!("{}\n  hint: copy the data directory before you do anything else", faults.join("\n"))))
}

fn counted(number: u64, noun: &str) -> String {
    count(usize::try_from(number).unwrap_or(usize::MAX), noun)
}

/// `verify --heads`
async fn heads(common: &Common, app: App) -> Result<Code, Stop> {
    let heads = ask_once(common, app, Tasks::Leave, Request::Heads).await?;
    print::result(common.output, &heads, || {
        let line = |head: &Value| format!("{} {} {}", head["shard"], head["lines"], text(&head["head"]));
        heads.as_array().into_iter().flatten().map(line).collect::<Vec<_>>().join("\n")
    })?;
    Ok(Code::Done)
}

/// Heads that were kept, as text or as JSON.
fn kept(file: &Path) -> Result<Vec<Head>, Stop> {
    let name = file.display();
    let written = std::fs::read_to_string(file).map_err(|error| Stop::usage(format!("--against: {name} cannot be read: {error}")))?;
    let wrong = |what: String| Stop::usage(format!("--against: {name} holds no heads ({what}): `selvedge verify --heads > FILE` writes them"));
    let heads: Vec<Head> = match written.trim_start().starts_with('[') {
        true => serde_json::from_str(&written).map_err(|error| wrong(error.to_string()))?,
        false => {
            written.lines().filter(|line| !line.trim().is_empty()).map(|line| head(line).ok_or_else(|| wrong(format!("`{line}`")))).collect::<Result<_, _>>()?
        }
    };
    if heads.is_empty() { Err(wrong("it is empty".to_owned())) } else { Ok(heads) }
}

fn head(line: &str) -> Option<Head> {
    let mut words = line.split_whitespace();
    let head = Head { shard: words.next()?.parse().ok()?, lines: words.next()?.parse().ok()?, head: words.next()?.to_owned() };
    words.next().is_none().then_some(head)
}

/// How many heads were met again.
fn met(shards: &[&Value]) -> String {
    let of = |what: &str| shards.iter().filter(|shard| shard["kept"] == what).count();
    let (same, differ, left) = (of("same"), of("differs"), of("left"));
    let left = if left == 0 { String::new() } else { format!(", the lines of {left} have left after their retention time") };
    format!("\nof the heads that were kept, {same} are still there, {differ} differ{left}")
}
