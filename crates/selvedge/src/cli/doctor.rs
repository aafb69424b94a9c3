//! `doctor`: one line for each part, right or with what to do.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use selvedge_engine::wiring::Tasks;
use selvedge_kernel::config::Landlock;
use serde_json::{Value, json};

use crate::app::App;
use crate::control::Request;

use super::access::{ask_whoever, config, manifest_for};
use super::actors::text;
use super::args::Common;
use super::check::{count, with_manifest};
use super::exit::{Code, Stop};
use super::print;

/// Free bytes below which somebody should make room.
const LOW_DISK: u64 = 1 << 30;
/// How far the engine's clock may be from ours.
const SKEW_MS: u64 = 60_000;

/// What was found of one part: fine, or what to do.
struct Finding {
    part: &'static str,
    seen: String,
    advice: Option<String>,
}

/// Performs it.
pub async fn doctor(common: &Common, app: App) -> Result<Code, Stop> {
    let config = config(common)?;
    let (data, landlock) = (config.data, config.landlock);
    let declared = manifest_for(common, &data).and_then(|manifest| Ok(with_manifest(app.clone(), manifest.as_deref())?));
    let (health, held) = ask_whoever(common, app, Tasks::Leave, Request::Health).await?;
    let findings = [
        store(&health, held),
        log(&data),
        disk(&data),
        clock(&health),
        limits(&health),
        kept(&health),
        programs(&health, landlock),
        executors(&health, declared.err().filter(|_| !held)),
        policies(&health),
        failing(&health),
        dead_letters(&health),
    ];
    let right = findings.iter().all(|finding| finding.advice.is_none());
    let shown: Vec<Value> = findings
        .iter()
        .map(|finding| json!({ "part": finding.part, "ok": finding.advice.is_none(), "seen": finding.seen, "advice": finding.advice }))
        .collect();
    print::result(common.output, &Value::Array(shown), || {
        let line = |finding: &Finding| match &finding.advice {
            None => format!("ok    {}: {}", finding.part, finding.seen),
            Some(advice) => format!("LOOK  {}: {}: {advice}", finding.part, finding.seen),
        };
        findings.iter().map(line).collect::<Vec<_>>().join("\n")
    })?;
    Ok(if right { Code::Done } else { Code::Failed })
}

fn store(health: &Value, held: bool) -> Finding {
    let holder = if held { "another process holds it and answers" } else { "nobody holds it; it opens" };
    match health["stopped"].as_str() {
        Some(reason) => Finding { part: "store", seen: format!("the engine has stopped: {reason}"), advice: Some("start its process again".to_owned()) },
        None => Finding { part: "store", seen: format!("{holder}; `selvedge verify` walks its chains"), advice: None },
    }
}

fn log(data: &Path) -> Finding {
    let sizes = std::fs::read_dir(data.join("log")).map(|files| files.flatten().filter_map(|file| file.metadata().ok()).map(|of| of.len()).collect::<Vec<_>>());
    match sizes {
        Ok(sizes) => Finding { part: "log", seen: format!("{}, {} MB", count(sizes.len(), "segment"), sizes.iter().sum::<u64>() >> 20), advice: None },
        Err(error) => Finding { part: "log", seen: format!("it cannot be listed ({error})"), advice: Some("check who owns the data directory".to_owned()) },
    }
}

fn disk(data: &Path) -> Finding {
    match rustix::fs::statvfs(data) {
        Ok(of) => {
            let free = of.f_bavail.saturating_mul(of.f_frsize);
            let advice = (free < LOW_DISK).then(|| "make room: when it is full, the process stops and keeps what it has said yes to".to_owned());
            Finding { part: "disk", seen: format!("{} MB are free", free >> 20), advice }
        }
        Err(error) => Finding { part: "disk", seen: format!("its free space is not known ({error})"), advice: Some("look with `df`".to_owned()) },
    }
}

fn clock(health: &Value) -> Finding {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let apart = health["now_ms"].as_u64().unwrap_or_default().abs_diff(u64::try_from(now).unwrap_or(u64::MAX));
    let advice = (apart > SKEW_MS).then(|| "look at the time service of this machine, then start the process again".to_owned());
    Finding {
        part: "clock",
        seen: if advice.is_some() { format!("the engine's differs by {} s", apart / 1_000) } else { "it fits the engine's".to_owned() },
        advice,
    }
}

fn limits(health: &Value) -> Finding {
    let names = health["limits"].as_object().map_or(0, serde_json::Map::len);
    Finding { part: "limits", seen: format!("{} in force; `selvedge config show` has their values", count(names, "limit")), advice: None }
}

/// Of a tenant that keeps nine tenths of what it may somebody should know.
fn kept(health: &Value) -> Finding {
    let bound = health["limits"]["tenant_bytes"].as_u64().unwrap_or(u64::MAX);
    let tenants = health["kept"].as_array().map_or(&[][..], Vec::as_slice);
    let Some(most) = tenants.first() else { return Finding { part: "stored bytes", seen: "none".to_owned(), advice: None } };
    let bytes = most["bytes"].as_u64().unwrap_or_default();
    let all = tenants.iter().filter_map(|tenant| tenant["bytes"].as_u64()).sum::<u64>();
    let seen = match tenants.len() {
        1 => format!("the tenant `{}` keeps {bytes}, the limit of each is {bound}", text(&most["tenant"])),
        many => format!("{} keep {all}, `{}` the most: {bytes}, the limit of each is {bound}", count(many, "tenant"), text(&most["tenant"])),
    };
    let advice =
        (bytes >= bound - bound / 10).then(|| "at the limit nothing new is taken in: `selvedge explain 'limit: stored_bytes'` says what gives room".to_owned());
    Finding { part: "stored bytes", seen, advice }
}

/// That it is open is as it should be, unless somebody asked for the contrary.
fn programs(health: &Value, landlock: Landlock) -> Finding {
    let found = &health["data_directory"];
    let advice =
        (landlock == Landlock::Always && found["shut"] != true).then(|| "no program is started like this: mend that, or write `landlock: auto`".to_owned());
    Finding { part: "data directory", seen: text(&found["seen"]), advice }
}

fn executors(health: &Value, broken: Option<Stop>) -> Finding {
    if let Some(broken) = broken {
        return Finding { part: "executors", seen: broken.message, advice: Some("mend the manifest: no run can start with it".to_owned()) };
    }
    let missing: Vec<String> = health["missing"].as_array().into_iter().flatten().map(text).collect();
    let known = health["programs"].as_u64().map_or(0, |known| usize::try_from(known).unwrap_or(usize::MAX));
    if missing.is_empty() {
        return Finding { part: "executors", seen: format!("{} declared, none is missing", count(known, "program")), advice: None };
    }
    Finding { part: "executors", seen: missing.join("; "), advice: Some("put it there or install it, or correct `exec`".to_owned()) }
}

/// A set that was refused while the process ran: the one before it is in force.
fn policies(health: &Value) -> Finding {
    let refused: Vec<String> =
        health["refused"].as_array().into_iter().flatten().map(|of| format!("the {} as written now: {}", text(&of["which"]), text(&of["fault"]))).collect();
    if refused.is_empty() {
        return Finding { part: "policies", seen: "what is in force is what was written last".to_owned(), advice: None };
    }
    let advice = "what was in force before stays in force: mend that, it is read again within seconds, and at once after `kill -HUP`".to_owned();
    Finding { part: "policies", seen: refused.join("\n"), advice: Some(advice) }
}

fn failing(health: &Value) -> Finding {
    let failing = health["failing"].as_array().map_or(&[][..], Vec::as_slice);
    let Some(worst) = failing.first() else { return Finding { part: "messages", seen: "none goes on failing".to_owned(), advice: None } };
    let failed = worst["attempt"].as_u64().unwrap_or_default().saturating_sub(1);
    Finding {
        part: "messages",
        seen: format!(
            "{} of which so many attempts have failed that somebody is to look, {} {failed} times",
            count(failing.len(), "message"),
            text(&worst["id"])
        ),
        advice: Some(format!("`selvedge why {}` has the error and when it is a dead letter: mend what fails, it goes on by itself", text(&worst["id"]))),
    }
}

fn dead_letters(health: &Value) -> Finding {
    let letters = health["dead_letters"].as_u64().map_or(0, |letters| usize::try_from(letters).unwrap_or(usize::MAX));
    let advice =
        (letters > 0).then(|| "`selvedge dead-letters list` has them with their errors, `selvedge dead-letters redrive ID` sends one again".to_owned());
    Finding { part: "dead letters", seen: if letters == 0 { "none".to_owned() } else { count(letters, "dead letter") }, advice }
}
