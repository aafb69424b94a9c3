//! `serve` and `dev`, as processes.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;

use super::client::Ask;
use crate::rig::{Folder, Running};

/// Where a server says that it answers.
pub fn address(server: &mut Running) -> SocketAddr {
    let line = server.line();
    line.rsplit("http://").next().and_then(|address| address.parse().ok()).unwrap_or_else(|| panic!("no address in {line:?}"))
}

pub fn key(folder: &Folder) -> String {
    std::fs::read_to_string(folder.join(".selvedge/dev.key")).unwrap().trim().to_owned()
}

#[tokio::test]
async fn dev_prints_its_key_once_keeps_it_to_its_owner_and_answers_nobody_without_it() {
    let folder = Folder::new();
    let words = ["dev", "--listen", "127.0.0.1:0"];
    let mut server = folder.start(&words);
    let at = address(&mut server);
    let first = key(&folder);
    assert_eq!(std::fs::metadata(folder.join(".selvedge/dev.key")).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(Ask::of(at, &first).get("/v1/runs").await.status, 200);
    assert_eq!(Ask::of(at, "").get("/v1/runs").await.status, 401);
    // The command line goes on to ask the same process.
    assert_eq!(folder.json(&["keys", "list"])[0]["name"], "development");
    server.signal("TERM");
    let said = folder.end(server);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(said.err.matches(&first).count(), 1, "{said:?}");
    // The second time it is the same key, and it is not printed.
    let mut server = folder.start(&words);
    let at = address(&mut server);
    assert_eq!(Ask::of(at, &first).get("/v1/runs").await.status, 200);
    // Once it is revoked the next start makes another one.
    let id = folder.json(&["keys", "list"])[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(folder.selvedge(&["keys", "revoke", &id, "--reason", "lost"]).code, 0);
    assert_eq!(Ask::of(at, &first).get("/v1/runs").await.status, 401);
    server.signal("INT");
    let said = folder.end(server);
    assert_eq!((said.code, said.err.contains(&first)), (0, false), "{said:?}");
    let mut server = folder.start(&words);
    let at = address(&mut server);
    let second = key(&folder);
    assert_ne!(first, second);
    assert_eq!(Ask::of(at, &second).get("/v1/runs").await.status, 200);
    assert_eq!(Ask::of(at, &first).get("/v1/runs").await.status, 401);
}

#[tokio::test]
async fn serve_without_a_key_refuses_to_start_and_says_what_to_write() {
    let folder = Folder::new();
    let words = ["serve", "--listen", "127.0.0.1:0"];
    let said = folder.selvedge(&words);
    assert_eq!((said.code, said.out.as_str()), (78, ""), "{said:?}");
    assert!(said.err.contains("selvedge keys create --role owner"), "{said:?}");
    let made = folder.selvedge(&["keys", "create", "--role", "owner"]);
    let mut server = folder.start(&words);
    let at = address(&mut server);
    assert_eq!(Ask::of(at, made.out.trim()).get("/v1/runs").await.status, 200);
    server.signal("TERM");
    assert_eq!(folder.end(server).code, 0);
    assert!(!folder.join(".selvedge/dev.key").exists(), "serve makes no key of its own");
    let id = folder.json(&["keys", "list"])[0]["id"].as_str().unwrap().to_owned();
    folder.selvedge(&["keys", "revoke", &id, "--reason", "lost"]);
    assert_eq!(folder.selvedge(&words).code, 78);
}

#[test]
fn an_address_that_others_reach_wants_tls_off_before_anything_is_opened() {
    let folder = Folder::new();
    for verb in ["serve", "dev"] {
        let said = folder.selvedge(&[verb, "--listen", "0.0.0.0:0"]);
        assert_eq!(said.code, 78, "{said:?}");
        assert!(said.err.contains("`tls: off`"), "{said:?}");
        assert!(!folder.join(".selvedge").exists());
    }
    folder.write("selvedge.yaml", "listen: 0.0.0.0:0\ntls: off\n");
    let said = folder.selvedge(&["serve"]);
    assert!(said.code == 78 && said.err.contains("keys create"), "{said:?}");
    folder.write("selvedge.yaml", "listen: here\ntls: on\n");
    let said = folder.selvedge(&["serve"]);
    assert!(said.code == 78 && said.err.contains("`listen` is no address") && said.err.contains("tls"), "{said:?}");
}

#[test]
fn an_address_that_is_taken_is_named_before_the_directory_is_opened() {
    let folder = Folder::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let said = folder.selvedge(&["dev", "--listen", &taken.local_addr().unwrap().to_string()]);
    assert_eq!(said.code, 78, "{said:?}");
    assert!(said.err.contains(&taken.local_addr().unwrap().to_string()) && said.err.contains("--listen"), "{said:?}");
    assert!(!folder.join(".selvedge").exists());
}
