//! `wrk` as the load: so many callers, each of whom asks again when it has its answer.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::figure::median;
use crate::load::Failed;

/// What `wrk` runs: each request names another key, and the end is one line.
const SCRIPT: &str = r#"
local threads, asked = 0, 0
function setup(thread)
  thread:set("number", threads)
  threads = threads + 1
end
function init(args)
  method, path, body, tag, keys, pause = args[1], args[2], args[3], args[4], tonumber(args[5]), tonumber(args[6])
  headers = {}
  if args[7] ~= "" then headers["Authorization"] = "Bearer " .. args[7] end
  if body == "" then body = nil else headers["Content-Type"] = "application/json" end
end
function delay() return pause end
function request()
  asked = asked + 1
  local key = keys > 0 and (asked % keys) or (tag .. "-" .. number .. "-" .. asked)
  return wrk.format(method, (path:gsub("KEY", key)), headers, body)
end
function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format("figures %d %d %d %d %d %d\n", summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
"#;

/// What is asked, of whom.
#[derive(Clone, Debug)]
pub struct Asked {
    pub address: SocketAddr,
    pub key: Option<String>,
    pub method: &'static str,
    /// `KEY` in it becomes the name of an actor.
    pub path: String,
    pub body: &'static str,
    /// So many names, in turn; none: another one for each request.
    pub keys: Option<u32>,
    /// How long each caller rests between an answer and its next request.
    pub pause_ms: u32,
}

/// What came of it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Load {
    pub per_second: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    /// The share of answers that were no success.
    pub refused: f64,
}

impl fmt::Display for Load {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:.0}/s, p50 {:.2} ms, p99 {:.2} ms", self.per_second, self.p50_us / 1e3, self.p99_us / 1e3)
    }
}

impl Load {
    /// The middle of several rounds.
    pub fn median(rounds: &[Load]) -> Load {
        let of = |field: fn(&Load) -> f64| median(&mut rounds.iter().map(field).collect::<Vec<f64>>());
        Load { per_second: of(|load| load.per_second), p50_us: of(|load| load.p50_us), p99_us: of(|load| load.p99_us), refused: of(|load| load.refused) }
    }
}

/// Asks for so long. `tag` makes the names of this round its own.
pub fn load(dir: &Path, asked: &Asked, callers: u32, seconds: u32, tag: &str) -> Result<Load, Failed> {
    let script = dir.join("load.lua");
    std::fs::write(&script, SCRIPT)?;
    let mut command = Command::new("wrk");
    command.args(["-t1", &format!("-c{callers}"), &format!("-d{seconds}s"), "--timeout", "30s", "-s"]).arg(&script);
    command.arg(format!("http://{}/", asked.address)).arg("--");
    command.args([asked.method, &asked.path, asked.body, tag, &asked.keys.unwrap_or(0).to_string(), &asked.pause_ms.to_string()]);
    command.arg(asked.key.as_deref().unwrap_or_default());
    let output = command.output().map_err(|error| format!("wrk does not start ({error}): install it, as `make bench-http` does"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    read(&text).ok_or_else(|| format!("wrk ended with {} and no figures: {text}{}", output.status, String::from_utf8_lossy(&output.stderr)).into())
}

fn read(text: &str) -> Option<Load> {
    let line = text.lines().find_map(|line| line.strip_prefix("figures "))?;
    let numbers: Vec<f64> = line.split(' ').map(str::parse).collect::<Result<_, _>>().ok()?;
    let [requests, duration_us, p50_us, p99_us, refused, broken] = numbers[..] else { return None };
    // A connection that broke has no time to count with.
    let bad = (refused + broken) / requests.max(1.0);
    (requests > 0.0).then(|| Load { per_second: requests * 1e6 / duration_us, p50_us, p99_us, refused: bad })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_prints_is_read_whatever_stands_around_it() {
        let text = "Running 1s test\nfigures 1000 500000 120 4500 10 0\nmore\n";
        let load = read(text);
        assert_eq!(load, Some(Load { per_second: 2000.0, p50_us: 120.0, p99_us: 4500.0, refused: 0.01 }));
        assert_eq!(load.map(|load| load.to_string()), Some("2000/s, p50 0.12 ms, p99 4.50 ms".to_owned()));
        assert_eq!(read("unable to connect"), None);
    }
}
