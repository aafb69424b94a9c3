//! What a service manager and a watcher are told of a server.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use super::client::Ask;
use crate::rig::{Folder, Running, Said};

/// How long a message may take.
const LIMIT: Duration = Duration::from_secs(60);

fn received(manager: &UnixDatagram) -> String {
    let mut bytes = [0; 4096];
    manager.set_read_timeout(Some(LIMIT)).unwrap();
    let length = manager.recv(&mut bytes).unwrap();
    String::from_utf8(bytes[..length].to_vec()).unwrap()
}

/// Starts a server that may listen anywhere and is told where its manager is.
fn managed(folder: &Folder, socket: &str) -> Running {
    let mut command = folder.command(&["dev", "--listen", "127.0.0.1:0"]);
    command.env("NOTIFY_SOCKET", socket);
    Running::of(command.spawn().unwrap())
}

/// The address in what a manager was told.
fn address(told: &str) -> SocketAddr {
    told.trim().rsplit("http://").next().and_then(|address| address.parse().ok()).unwrap_or_else(|| panic!("no address in {told:?}"))
}

#[tokio::test]
async fn a_service_manager_is_told_when_requests_are_answered_and_when_it_stops() {
    let folder = Folder::new();
    let socket = folder.join("notify.sock");
    let manager = UnixDatagram::bind(&socket).unwrap();
    let server = managed(&folder, socket.to_str().unwrap());
    let told = received(&manager);
    assert!(told.starts_with("READY=1\nSTATUS=serving "), "{told:?}");
    assert_eq!(Ask::of(address(&told), "").get("/readyz").await.status, 200, "it is ready when it says so");
    server.signal("TERM");
    assert!(received(&manager).starts_with("STOPPING=1\nSTATUS=what is accepted is on disk"));
    assert_eq!(folder.end(server).code, 0);
    manager.set_nonblocking(true).unwrap();
    assert!(manager.recv(&mut [0; 16]).is_err(), "nothing else is told");
}

#[test]
fn a_service_manager_with_a_name_that_is_no_path_is_told_as_well() {
    let folder = Folder::new();
    let name = format!("selvedge-test-{}", folder.path().file_name().unwrap().display());
    let manager = UnixDatagram::bind_addr(&std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let server = managed(&folder, &format!("@{name}"));
    assert!(received(&manager).starts_with("READY=1\n"));
    drop(server);
}

#[test]
fn a_service_manager_that_cannot_be_told_keeps_nobody_from_being_served() {
    let folder = Folder::new();
    let mut server = managed(&folder, folder.join("nobody").to_str().unwrap());
    let at = address(&server.line());
    assert_eq!(folder.selvedge(&["health", "--server", &format!("http://{at}")]).code, 0);
    server.signal("TERM");
    let said = folder.end(server);
    assert!(said.code == 0 && said.err.contains("NOTIFY_SOCKET=") && said.err.contains("cannot be told"), "{said:?}");
}

#[test]
fn health_needs_no_key_and_says_where_it_looked() {
    let folder = Folder::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    folder.write("selvedge.yaml", &format!("listen: 127.0.0.1:{port}\n"));
    let said = folder.selvedge(&["health"]);
    assert!(said.code == 69 && said.err.contains(&format!("127.0.0.1:{port} does not answer")), "{said:?}");
    let mut server = folder.start(&["dev"]);
    server.line();
    let said = folder.selvedge(&["health"]);
    assert_eq!((said.code, said.out.as_str()), (0, format!("http://127.0.0.1:{port} is ready\n").as_str()), "{said:?}");
    assert_eq!(folder.json(&["health"])["ready"], true);
}

/// Asks a server that gives one answer, or none at all.
fn asked_of_one_that_says(answer: Option<&str>) -> Said {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let answer = answer.map(str::to_owned);
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        match answer {
            Some(answer) => {
                let head = format!("HTTP/1.1 503 Service Unavailable\r\ncontent-length: {}\r\n\r\n", answer.len());
                let mut asked = [0; 1024];
                let length = stream.read(&mut asked).unwrap();
                assert!(asked[..length].starts_with(b"GET /readyz ") && !String::from_utf8_lossy(&asked).contains("authorization"));
                stream.write_all(format!("{head}{answer}").as_bytes()).unwrap();
            }
            // It takes the request and says nothing, until the other side has had enough.
            None => drop(stream.read_to_end(&mut Vec::new())),
        }
    });
    Folder::new().selvedge(&["health", "--server", &format!("http://{at}")])
}

#[test]
fn a_server_that_is_not_ready_is_named_with_what_it_lacks_and_one_that_says_nothing_is_given_up() {
    let said = asked_of_one_that_says(Some(r#"{"ready": false, "parts": {"engine": {"ready": false, "reason": "the disk is full"}}}"#));
    assert!(said.code == 1 && said.out.ends_with("is not ready: engine: the disk is full\n"), "{said:?}");
    let said = asked_of_one_that_says(Some(r#"{"ready": false, "parts": {"engine": {"ready": true}}}"#));
    assert!(said.code == 1 && said.out.ends_with("is not ready: it is stopping\n"), "{said:?}");
    let said = asked_of_one_that_says(None);
    assert!(said.code == 69 && said.err.contains("has not answered for 5 s"), "{said:?}");
}
