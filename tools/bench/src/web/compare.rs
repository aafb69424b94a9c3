//! Ours beside a bare handler, and a tenant that minds its own business beside one that floods.

use std::net::SocketAddr;
use std::path::Path;

use super::child::{Running, Said, ask, emptied, of_ours};
use super::wrk::{Asked, Load, load};
use crate::load::Failed;

const ROUNDS: usize = 3;
const SECONDS: u32 = 3;
const CALLERS: [u32; 3] = [1, 32, 256];
/// The chunks of a stream.
const CHUNKS: u32 = 100;
/// No limit that a bench meets.
const UNLIMITED: &str = "1000000";

/// Two servers under the same load.
pub struct Pair {
    pub what: &'static str,
    pub ours: Asked,
    pub theirs: Asked,
}

/// Prints a table of each pair at each number of callers; the rounds of the two are interleaved.
pub fn table(dir: &Path, pairs: &[Pair], theirs: &str, rounds: usize) -> Result<(), Failed> {
    println!("| workload | callers | selvedge | {theirs} | ratio of rates |\n|---|---|---|---|---|");
    for Pair { what, ours, theirs } in pairs {
        for callers in CALLERS {
            let (mut left, mut right) = (Vec::new(), Vec::new());
            for round in 0..=rounds {
                let tag = format!("{}-{callers}-{round}", what.replace(' ', "-"));
                let (one, other) = (load(dir, ours, callers, SECONDS, &tag)?, load(dir, theirs, callers, SECONDS, &tag)?);
                for (load, asked) in [(&one, ours), (&other, theirs)] {
                    if load.refused > 0.0 {
                        return Err(format!("{:.1} % of `{} {}` were no success at {callers} callers", load.refused * 100.0, asked.method, asked.path).into());
                    }
                }
                // The first round warms up.
                if round > 0 {
                    left.push(one);
                    right.push(other);
                }
            }
            let (one, other) = (Load::median(&left), Load::median(&right));
            println!("| {what} | {callers} | {one} | {other} | {:.2} |", one.per_second / other.per_second);
        }
    }
    Ok(())
}

/// What our server is asked.
pub fn of_us(said: &Said, method: &'static str, path: &str, body: &'static str) -> Asked {
    Asked { address: said.address, key: said.keys.first().cloned(), method, path: path.to_owned(), body, keys: None, pause_ms: 0 }
}

fn of_bare(address: SocketAddr, method: &'static str, path: &str, body: &'static str) -> Asked {
    Asked { address, key: None, method, path: path.to_owned(), body, keys: None, pause_ms: 0 }
}

/// A call, a send and a stream, beside a handler that only reads and answers.
pub fn with_bare(dir: &Path) -> Result<(), Failed> {
    let (_ours, us) = serving(dir, "http", UNLIMITED)?;
    let key = us.keys.first().map(String::as_str);
    let (_, told) = ask(us.address, key, "POST", "/v1/actors/teller/one/call/tell", &CHUNKS.to_string())?;
    let told: serde_json::Value = serde_json::from_str(&told)?;
    let stream = format!("/v1/invocations/{}/stream", told["id"].as_str().ok_or_else(|| format!("a call was answered with {told}"))?);
    let (_, frames) = ask(us.address, key, "GET", &stream, "")?;
    let file = dir.join("frames");
    std::fs::write(&file, &frames)?;
    let (_bare, bare) = of_ours(&["bare", &file.to_string_lossy()])?;
    println!("a stream has {CHUNKS} chunks and {} bytes", frames.len());
    let pairs = [
        Pair {
            what: "call that does nothing",
            ours: of_us(&us, "POST", "/v1/actors/idle/KEY/call/nothing", "null"),
            theirs: of_bare(bare.address, "POST", "/call/KEY", "null"),
        },
        Pair { what: "send", ours: of_us(&us, "POST", "/v1/actors/idle/KEY/send/nothing", "null"), theirs: of_bare(bare.address, "POST", "/send/KEY", "null") },
        Pair { what: "stream from its start to its end", ours: of_us(&us, "GET", &stream, ""), theirs: of_bare(bare.address, "GET", "/stream", "") },
    ];
    table(dir, &pairs, "bare axum", ROUNDS)
}

/// A server of ours on an empty directory.
pub fn serving(dir: &Path, name: &str, requests: &str) -> Result<(Running, Said), Failed> {
    let data = emptied(dir.join(name))?;
    of_ours(&["serving", &data.to_string_lossy(), requests])
}

/// The latency of a tenant that asks some hundred times a second, alone and while another one floods, with the limits that are default.
pub fn flooded(dir: &Path) -> Result<(), Failed> {
    let (_ours, us) = serving(dir, "flooded", "1000")?;
    let quiet = Asked { pause_ms: 10, ..of_us(&us, "POST", "/v1/actors/idle/KEY/call/nothing", "null") };
    let flood = Asked { key: us.keys.get(1).cloned(), pause_ms: 0, ..quiet.clone() };
    let (mut alone, mut beside, mut floods) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        alone.push(load(dir, &quiet, 4, SECONDS, &format!("alone-{round}"))?);
        let flooding = std::thread::scope(|scope| {
            let other = scope.spawn(|| load(dir, &flood, 128, SECONDS + 1, &format!("flood-{round}")));
            beside.push(load(dir, &quiet, 4, SECONDS, &format!("beside-{round}"))?);
            other.join().unwrap_or_else(|_| Err("the flood broke off".into()))
        })?;
        floods.push(flooding);
    }
    let (alone, beside, flood) = (Load::median(&alone), Load::median(&beside), Load::median(&floods));
    println!("a tenant with 4 callers, alone: {alone}, {:.1} % refused", alone.refused * 100.0);
    println!(
        "the same, while another tenant floods with 128 callers: {beside}, {:.1} % refused; p99 {:.1} times",
        beside.refused * 100.0,
        beside.p99_us / alone.p99_us
    );
    println!("the flood: {flood}, {:.1} % refused with 429", flood.refused * 100.0);
    Ok(())
}
