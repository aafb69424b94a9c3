//! As many connections as a server takes, and more.

use std::io::{Read, Write};
use std::net::TcpStream;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use selvedge_kernel::limit::HTTP_CONNECTIONS;

use super::client::Ask;
use super::served::{address, key};
use crate::rig::Folder;

/// Connections beyond those that the server takes at once.
const MORE: usize = 50;
/// File descriptors that a process needs beside its connections.
const OTHERS: usize = 200;

fn resident_kb(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn ten_thousand_connections_that_say_nothing_keep_nobody_out_for_long() {
    let allowed = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: allowed, maximum: allowed }).unwrap();
    let room = allowed.map_or(usize::MAX, |allowed| usize::try_from(allowed).unwrap().saturating_sub(OTHERS));
    let wanted = (HTTP_CONNECTIONS + MORE).min(room);
    if wanted < HTTP_CONNECTIONS {
        eprintln!("this user may have {room} connections, so that {wanted} are tried and not {HTTP_CONNECTIONS}");
    }
    let folder = Folder::new();
    let mut server = folder.start(&["dev", "--listen", "127.0.0.1:0"]);
    let at = address(&mut server);
    let owner = Ask::of(at, &key(&folder));
    assert_eq!(owner.get("/v1/runs").await.status, 200);
    let before = resident_kb(server.pid());
    // Half of them begin a request and never end it.
    let crowd: Vec<TcpStream> = (0..wanted)
        .map(|number| {
            let mut stream = TcpStream::connect(at).unwrap();
            if number % 2 == 0 {
                stream.write_all(b"POST /v1/pipelines/a/runs HTTP/1.1\r\nHost: te").unwrap();
            }
            stream
        })
        .collect();
    println!("{wanted} connections: {before} kB resident before, {} kB with them", resident_kb(server.pid()));
    // Whoever has something to say waits for a place, and is served.
    assert_eq!(owner.get("/v1/runs").await.status, 200);
    // Those that said nothing were let go.
    let mut first = &crowd[0];
    let mut said = String::new();
    let _ = first.read_to_string(&mut said);
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 408"), "{said}");
    drop(crowd);
    assert_eq!(owner.get("/v1/runs").await.status, 200);
    server.signal("TERM");
    assert_eq!(folder.end(server).code, 0);
}
