//! Processes of ours and of others, which end with what holds them.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

use crate::load::Failed;

/// What a server says when it can be asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Said {
    /// Where it answers.
    pub address: SocketAddr,
    /// A key for each of its tenants.
    pub keys: Vec<String>,
}

/// A process that is killed when it is dropped.
pub struct Running(Child);

impl Running {
    /// Starts a program; what it says goes into a file.
    pub fn start(command: &mut Command, log: &Path) -> Result<Running, Failed> {
        let (out, err) = (File::create(log)?, File::options().append(true).open(log)?);
        let started = command.stdin(Stdio::piped()).stdout(out).stderr(err).spawn();
        Ok(Running(started.map_err(|error| format!("{command:?} does not start: {error}"))?))
    }

    /// Its resident memory in bytes.
    pub fn resident_bytes(&self) -> Result<u64, Failed> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        Ok(crate::process::field(&text, "VmRSS:") * 1024)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts this program as one of its servers, and hears where it answers.
pub fn of_ours(words: &[&str]) -> Result<(Running, Said), Failed> {
    let mut command = Command::new(std::env::current_exe()?);
    let mut child = command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let out = child.stdout.take().ok_or("no output to read")?;
    let running = Running(child);
    let mut line = String::new();
    BufReader::new(out).read_line(&mut line)?;
    let said = serde_json::from_str(&line).map_err(|error| format!("the server {words:?} said {line:?} and no address: {error}"))?;
    Ok((running, said))
}

/// Says where this process answers.
pub fn say(said: &Said) -> Result<(), Failed> {
    let mut out = std::io::stdout();
    writeln!(out, "{}", serde_json::to_string(said)?)?;
    Ok(out.flush()?)
}

/// Waits until whoever started this process is gone.
pub async fn until_nobody_asks() {
    // A thread of its own: standard input has no other way to be waited for.
    let read = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    let _ = read.await;
}

/// Takes as many file descriptors as this user may have.
pub fn room_for_connections() {
    let limit = getrlimit(Resource::Nofile);
    // What cannot be raised stays, and is said by what fails for want of it.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// One request on a connection of its own: the body of the answer, whatever its status.
pub fn ask(address: SocketAddr, key: Option<&str>, method: &str, path: &str, body: &str) -> Result<(u16, String), Failed> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let authorization = key.map(|key| format!("Authorization: Bearer {key}\r\n")).unwrap_or_default();
    write!(stream, "{method} {path} HTTP/1.0\r\nHost: bench\r\n{authorization}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| format!("{address} answered {text:?}"))?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(|| format!("{address} answered {head:?}"))?;
    Ok((status, body.to_owned()))
}

/// A port that nobody listens on now.
pub fn free_address() -> Result<SocketAddr, Failed> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// A folder that is empty.
pub fn emptied(folder: PathBuf) -> Result<PathBuf, Failed> {
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}
