//! What subscribers cost who only wait.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use selvedge_kernel::limit::HTTP_CONNECTIONS;

use super::child::{ask, room_for_connections};
use super::compare::serving;
use crate::load::Failed;

/// A connection is left for whoever looks.
const SUBSCRIBERS: usize = HTTP_CONNECTIONS - 2;
/// How long they wait before the memory is read: their heartbeats come meanwhile.
const REST: Duration = Duration::from_secs(20);

/// Opens ten thousand streams of handlers that emit nothing, and prints what each costs the server in memory.
pub fn subscribers(dir: &Path) -> Result<(), Failed> {
    room_for_connections();
    let (ours, us) = serving(dir, "subscribers", "1000000")?;
    let key = us.keys.first().ok_or("no key")?;
    let (_, sent) = ask(us.address, Some(key), "POST", "/v1/actors/sleeper/one/send/wait", "null")?;
    let sent: serde_json::Value = serde_json::from_str(&sent)?;
    let path = format!("/v1/invocations/{}/stream", sent["id"].as_str().ok_or_else(|| format!("a send was answered with {sent}"))?);
    let before = ours.resident_bytes()?;
    let mut streams = Vec::new();
    for number in 0..SUBSCRIBERS {
        let mut stream = TcpStream::connect(us.address).map_err(|error| format!("subscriber {number} finds no place: {error}"))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {key}\r\n\r\n")?;
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line)?;
        if !line.starts_with("HTTP/1.1 200") {
            return Err(format!("subscriber {number} was answered {line:?}").into());
        }
        streams.push(stream);
    }
    std::thread::sleep(REST);
    let (bytes, alive) = (ours.resident_bytes()?, ask(us.address, None, "GET", "/healthz", "")?.0);
    let each = (bytes.saturating_sub(before)) as f64 / SUBSCRIBERS as f64 / 1e3;
    println!(
        "{SUBSCRIBERS} idle subscribers: {:.0} MB resident before, {:.0} MB with them, {each:.1} kB each; /healthz {alive}",
        before as f64 / 1e6,
        bytes as f64 / 1e6
    );
    Ok(())
}
