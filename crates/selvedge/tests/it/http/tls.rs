//! TLS: who is answered, what is told to whoever speaks none, and a certificate that changes meanwhile.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use selvedge::serve::{Offer, Server};
use selvedge_http::{Certificates, Ended, Patience};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::rig::Rig;
use crate::certified::{Authority, Pair};
use crate::rig::Folder;

/// How long a condition may take to come true.
const LIMIT: Duration = Duration::from_secs(60);

fn first(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

fn connector(authority: &Authority, versions: &[&'static SupportedProtocolVersion]) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(first(&authority.pem())).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

async fn connected(at: SocketAddr, authority: &Authority, versions: &[&'static SupportedProtocolVersion]) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(at).await.unwrap();
    connector(authority, versions).connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap()
}

/// A request on a connection that goes on, and the status of its answer.
async fn asked(stream: &mut TlsStream<TcpStream>, authorization: &str) -> String {
    stream.write_all(format!("GET /v1/runs HTTP/1.1\r\nhost: localhost\r\n{authorization}\r\n").as_bytes()).await.unwrap();
    let mut read = Vec::new();
    while !read.ends_with(b"[]") && !read.ends_with(b"}") {
        let mut part = [0; 4096];
        let length = stream.read(&mut part).await.unwrap();
        assert!(length > 0, "it was closed after {read:?}");
        read.extend_from_slice(&part[..length]);
    }
    String::from_utf8(read).unwrap().lines().next().unwrap().to_owned()
}

async fn plainly(at: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut read = Vec::new();
    let _ = stream.read_to_end(&mut read).await;
    String::from_utf8_lossy(&read).into_owned()
}

/// A second server on the rig's engine, over TLS.
async fn secured(rig: &Rig, folder: &Folder, pair: &Pair, patience: Patience) -> Server {
    pair.write(folder.path(), "served");
    let certificates = Certificates::open(folder.join("served.pem"), folder.join("served.key"), SystemTime::now()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let offer = Offer { patience, certificates: Some(Arc::new(certificates)), ..Offer::default() };
    Server::with(rig.engine.engine().clone(), listener, offer).unwrap()
}

#[tokio::test]
async fn requests_over_tls_are_answered_and_whoever_speaks_none_is_told_so() {
    let (rig, folder, authority) = (Rig::new().await, Folder::new(), Authority::new());
    let server = secured(&rig, &folder, &authority.sign(2020, 4000), Patience::default()).await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut stream = connected(server.address(), &authority, &[version]).await;
        // Two requests on one connection.
        for _ in 0..2 {
            assert_eq!(asked(&mut stream, &rig.authorization()).await, "HTTP/1.1 200 OK");
        }
        assert_eq!(asked(&mut stream, "").await, "HTTP/1.1 401 Unauthorized");
    }
    // A cookie that was given here goes over TLS alone.
    let mut stream = connected(server.address(), &authority, rustls::ALL_VERSIONS).await;
    let session = format!("POST /v1/session HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{}\r\n", rig.authorization());
    stream.write_all(session.as_bytes()).await.unwrap();
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text).await;
    assert!(text.starts_with("HTTP/1.1 201") && text.contains("SameSite=Strict; Secure"), "{text}");
    let plain = plainly(server.address(), format!("GET /v1/runs HTTP/1.1\r\nhost: localhost\r\n{}\r\n", rig.authorization()).as_bytes()).await;
    assert!(plain.starts_with("HTTP/1.1 400 Bad Request\r\n") && plain.contains("application/problem+json") && plain.contains("https://"), "{plain}");
    assert!(!plainly(server.address(), &[22, 3, 1, 0, 5, 1, 2, 3, 4, 5]).await.contains("HTTP"), "a broken handshake is closed");
    // One who trusts somebody else is not made to go on.
    let stream = TcpStream::connect(server.address()).await.unwrap();
    let refused = connector(&Authority::new(), rustls::ALL_VERSIONS).connect(ServerName::try_from("localhost").unwrap(), stream).await;
    assert!(refused.is_err());
    assert_eq!(server.stop().await, Ended::Drained);
}

#[tokio::test]
async fn whoever_does_not_shake_hands_counts_as_a_connection_and_is_dropped() {
    let (rig, folder, authority) = (Rig::new().await, Folder::new(), Authority::new());
    let patience = Patience { connections: 1, handshake: Duration::from_millis(300), ..Patience::default() };
    let server = secured(&rig, &folder, &authority.sign(2020, 4000), patience).await;
    let began = Instant::now();
    let mut silent = TcpStream::connect(server.address()).await.unwrap();
    // Half of a handshake is none.
    silent.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
    // There is room for one: this waits for the end of that.
    let mut next = connected(server.address(), &authority, rustls::ALL_VERSIONS).await;
    assert_eq!(asked(&mut next, &rig.authorization()).await, "HTTP/1.1 200 OK");
    assert!(began.elapsed() >= Duration::from_millis(300), "the second one did not wait: {:?}", began.elapsed());
    let mut rest = Vec::new();
    let _ = silent.read_to_end(&mut rest).await;
    assert!(rest.is_empty());
}

#[tokio::test]
async fn a_server_that_stops_does_not_wait_for_handshakes() {
    let (rig, folder, authority) = (Rig::new().await, Folder::new(), Authority::new());
    let patience = Patience { handshake: LIMIT, drain: LIMIT, ..Patience::default() };
    let server = secured(&rig, &folder, &authority.sign(2020, 4000), patience).await;
    let mut silent = TcpStream::connect(server.address()).await.unwrap();
    silent.write_all(&[22]).await.unwrap();
    // Whoever is answered came after it.
    let mut next = connected(server.address(), &authority, rustls::ALL_VERSIONS).await;
    assert_eq!(asked(&mut next, &rig.authorization()).await, "HTTP/1.1 200 OK");
    let began = Instant::now();
    assert_eq!(server.stop().await, Ended::Drained);
    assert!(began.elapsed() < LIMIT / 2, "{:?}", began.elapsed());
}

/// What a new handshake is given.
async fn presented(at: SocketAddr, authority: &Authority) -> CertificateDer<'static> {
    let stream = connected(at, authority, rustls::ALL_VERSIONS).await;
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

async fn until_presented(at: SocketAddr, authority: &Authority, pair: &Pair) {
    let began = Instant::now();
    while presented(at, authority).await != first(&pair.certificate) {
        assert!(began.elapsed() < LIMIT, "the new certificate is not in force after {LIMIT:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A `dev` process over TLS, with what it says on standard error in `said`.
fn dev(folder: &Folder) -> (std::process::Child, SocketAddr) {
    use std::io::BufRead;
    folder.write("selvedge.yaml", "tls: { certificate: served.pem, key: served.key }\n");
    let mut command = folder.command(&["dev", "--listen", "127.0.0.1:0"]);
    let mut child = command.stderr(std::fs::File::create(folder.join("said")).unwrap()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().rsplit("https://").next().unwrap().parse().unwrap_or_else(|_| panic!("{line:?}"));
    (child, address)
}

fn ended(mut child: std::process::Child) {
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
}

#[tokio::test]
async fn a_changed_pair_is_in_force_for_the_next_handshake_and_a_bad_one_is_refused_by_name() {
    let (folder, authority) = (Folder::new(), Authority::new());
    let (old, new, other) = (authority.sign(2020, 4000), authority.sign(2020, 4000), authority.sign(2020, 4000));
    old.write(folder.path(), "served");
    let (child, at) = dev(&folder);
    assert_eq!(presented(at, &authority).await, first(&old.certificate));
    let key = std::fs::read_to_string(folder.join(".selvedge/dev.key")).unwrap();
    let authorization = format!("Authorization: Bearer {}\r\n", key.trim());
    let mut kept = connected(at, &authority, rustls::ALL_VERSIONS).await;
    assert_eq!(asked(&mut kept, &authorization).await, "HTTP/1.1 200 OK");
    new.write(folder.path(), "served");
    until_presented(at, &authority, &new).await;
    // What was connected before goes on.
    assert_eq!(asked(&mut kept, &authorization).await, "HTTP/1.1 200 OK");
    let until = |words: &str| folder.until(words, |folder| folder.lines("said").iter().any(|line| line.contains(words)));
    folder.write("served.key", &other.key);
    until("the changed certificate is refused, and the one before it stays in force");
    until("served.key: it is not the key of the first certificate of served.pem");
    assert_eq!(presented(at, &authority).await, first(&new.certificate));
    authority.sign(2019, 2020).write(folder.path(), "served");
    until("served.pem: its first certificate ended at 2020-01-01T00:00:00");
    assert_eq!(presented(at, &authority).await, first(&new.certificate));
    other.write(folder.path(), "served");
    until_presented(at, &authority, &other).await;
    ended(child);
}

#[tokio::test]
async fn the_command_line_asks_over_tls_whom_it_trusts_and_nobody_else() {
    let (folder, authority) = (Folder::new(), Authority::new());
    authority.sign(2020, 4000).write(folder.path(), "served");
    folder.write("ca.pem", &authority.pem());
    folder.write("stranger.pem", &Authority::new().pem());
    let (child, at) = dev(&folder);
    let key = std::fs::read_to_string(folder.join(".selvedge/dev.key")).unwrap();
    let away = Folder::new();
    let asked = |server: &str, cacert: Option<&Path>| {
        let mut command = away.command(&["runs", "list", "-o", "json", "--server", server]);
        if let Some(file) = cacert {
            command.env("SELVEDGE_CACERT", file);
        }
        away.said(command.env("SELVEDGE_KEY", key.trim()).output().unwrap())
    };
    for host in ["127.0.0.1", "localhost"] {
        let said = asked(&format!("https://{host}:{}/", at.port()), Some(&folder.join("ca.pem")));
        assert_eq!((said.code, said.out.as_str()), (0, "[]\n"), "{said:?}");
    }
    // Of its own server it asks nothing secret, and knows the certificate, whatever name that is for.
    let own = Folder::new();
    for (certificate, code) in [("served.pem", 0), ("stranger.pem", 69)] {
        let (certificate, key) = (folder.join(certificate), folder.join("served.key"));
        own.write("selvedge.yaml", &format!("listen: {at}\ntls: {{ certificate: {}, key: {} }}\n", certificate.display(), key.display()));
        let said = own.selvedge(&["health"]);
        assert_eq!(said.code, code, "{said:?}");
    }
    for cacert in [None, Some(folder.join("stranger.pem"))] {
        let said = asked(&format!("https://{at}"), cacert.as_deref());
        assert!(said.code == 69 && said.err.contains("is not trusted") && said.err.contains("--cacert"), "{said:?}");
    }
    let clear = asked(&format!("http://{at}"), None);
    assert!(clear.code == 64 && clear.err.contains("https://"), "{clear:?}");
    let nothing = asked(&format!("https://{at}"), Some(&folder.join("selvedge.yaml")));
    assert!(nothing.code == 78 && nothing.err.contains("no certificate in PEM"), "{nothing:?}");
    ended(child);
}
