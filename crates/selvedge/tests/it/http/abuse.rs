//! Clients that are careless, slow or hostile.

use std::time::Duration;

use selvedge_http::Patience;
use selvedge_kernel::limit::{HTTP_HEAD_BYTES, HTTP_HEADERS, Limits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::client::{answer, raw};
use super::rig::Rig;

fn head(rig: &Rig, rest: &str) -> String {
    format!("POST /v1/actors/counter/a/call/add HTTP/1.1\r\nHost: test\r\n{}{rest}\r\n", rig.authorization())
}

#[tokio::test]
async fn a_body_that_is_too_long_is_refused_before_it_is_read_and_names_the_limit() {
    let rig = Rig::new().await;
    // It says its length and never sends a byte of it.
    let said = answer(raw(rig.server.address(), head(&rig, "Connection: close\r\nContent-Length: 99999999999\r\n").as_bytes()).await);
    assert_eq!((said.status, said.code()), (413, "limit: body".to_owned()));
    // It says nothing, and sends too much in pieces.
    let mut stream = TcpStream::connect(rig.server.address()).await.unwrap();
    stream.write_all(head(&rig, "Connection: close\r\nTransfer-Encoding: chunked\r\n").as_bytes()).await.unwrap();
    let piece = format!("100000\r\n{}\r\n", "1".repeat(0x10_0000));
    for _ in 0..12 {
        if stream.write_all(piece.as_bytes()).await.is_err() {
            break;
        }
    }
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text).await;
    assert!(text.is_empty() || text.starts_with("HTTP/1.1 413"), "{text}");
    assert_eq!(rig.owner().get("/v1/actors/counter/a/state").await.text, "{}");
}

#[tokio::test]
async fn a_head_that_is_too_long_or_has_too_many_headers_is_refused() {
    let rig = Rig::new().await;
    let long = raw(rig.server.address(), head(&rig, &format!("Connection: close\r\nX-Long: {}\r\n", "x".repeat(4 * HTTP_HEAD_BYTES))).as_bytes()).await;
    // Whoever still writes when the connection is closed may not see why.
    let refused = |text: &str| text.is_empty() || text.starts_with("HTTP/1.1 431") || text.starts_with("HTTP/1.1 414");
    assert!(refused(&long), "{long}");
    let many: String = (0..=HTTP_HEADERS).map(|number| format!("X-{number}: x\r\n")).collect();
    let many = raw(rig.server.address(), head(&rig, &many).as_bytes()).await;
    assert!(many.starts_with("HTTP/1.1 431"), "{many}");
    let path = raw(rig.server.address(), format!("GET /{} HTTP/1.1\r\nHost: test\r\n\r\n", "x".repeat(4 * HTTP_HEAD_BYTES)).as_bytes()).await;
    assert!(refused(&path), "{path}");
    assert_eq!(rig.owner().get("/v1/actors/counter/a/state").await.text, "{}");
}

#[tokio::test]
async fn a_client_that_never_ends_its_head_is_closed_and_keeps_nobody_else_out() {
    let patience = Patience { connections: 2, head: Duration::from_millis(200), ..Patience::default() };
    let rig = Rig::with(patience).await;
    let mut slow = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(rig.server.address()).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: te").await.unwrap();
        slow.push(stream);
    }
    // All places are taken; once the slow ones are closed, somebody else is served.
    assert_eq!(rig.ask("").get("/healthz").await.status, 200);
    for mut stream in slow {
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text).await;
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 408"), "{text}");
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_keeps_nobody_else_out() {
    let patience = Patience { connections: 1, head: Duration::from_millis(200), ..Patience::default() };
    let rig = Rig::with(patience).await;
    let mut idle = TcpStream::connect(rig.server.address()).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n").await.unwrap();
    let mut part = [0; 1024];
    assert!(idle.read(&mut part).await.unwrap() > 0);
    assert_eq!(rig.ask("").get("/healthz").await.status, 200);
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_dropped() {
    let patience = Patience { connections: 1, stall: Duration::from_millis(300), ..Patience::default() };
    let rig = Rig::with(patience).await;
    let owner = rig.owner();
    let big = format!("\"{}\"", "x".repeat(4 << 20));
    let mut greedy = TcpStream::connect(rig.server.address()).await.unwrap();
    // Answers of four megabytes each, asked for one after the other and never read.
    let one = owner.text("POST", "/v1/actors/counter/a/call/greet", &[], Some(&big)).replace("Connection: close\r\n", "");
    greedy.write_all(one.as_bytes()).await.unwrap();
    let _ = greedy.write_all(one.as_bytes()).await;
    let _ = greedy.write_all(one.as_bytes()).await;
    assert_eq!(owner.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let patience = Patience { body: Duration::from_millis(200), ..Patience::default() };
    let rig = Rig::with(patience).await;
    let mut slow = TcpStream::connect(rig.server.address()).await.unwrap();
    slow.write_all((head(&rig, "Connection: close\r\nContent-Length: 5\r\n") + "1").as_bytes()).await.unwrap();
    let mut text = String::new();
    let _ = slow.read_to_string(&mut text).await;
    let refused = answer(text);
    assert_eq!((refused.status, refused.code()), (408, "slow_body".to_owned()));
    assert_eq!(rig.owner().get("/v1/actors/counter/a/state").await.text, "{}");
}

#[tokio::test]
async fn bodies_that_are_being_read_count_against_the_bytes_of_the_process() {
    let limits = Limits { process_bytes: 100_000, ..Limits::default() };
    let rig = Rig::within(Patience::default(), limits).await;
    let mut slow = TcpStream::connect(rig.server.address()).await.unwrap();
    slow.write_all((head(&rig, "Content-Length: 80000\r\n") + &"1".repeat(60_000)).as_bytes()).await.unwrap();
    // One that says a length and sends nothing takes no room.
    let mut silent = TcpStream::connect(rig.server.address()).await.unwrap();
    silent.write_all(head(&rig, "Content-Length: 8000000\r\n").as_bytes()).await.unwrap();
    // Once the first one is being read there is no room for a second, however it says its length.
    let big = format!("\"{}\"", "x".repeat(60_000));
    let refused = loop {
        let answer = rig.owner().post("/v1/actors/counter/a/call/greet", &big).await;
        if answer.status != 200 {
            break answer;
        }
    };
    assert_eq!((refused.status, refused.code()), (503, "limit: bytes in flight".to_owned()));
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    let pieces = head(&rig, "Connection: close\r\nTransfer-Encoding: chunked\r\n") + &format!("{:x}\r\n{big}\r\n0\r\n\r\n", big.len());
    let refused = answer(raw(rig.server.address(), pieces.as_bytes()).await);
    assert_eq!((refused.status, refused.code()), (503, "limit: bytes in flight".to_owned()));
    // What is small goes on.
    assert_eq!(rig.owner().post("/v1/actors/counter/a/call/add", "1").await.status, 200);
    drop(slow);
    while rig.owner().post("/v1/actors/counter/a/call/greet", &big).await.status != 200 {}
}

#[tokio::test]
async fn what_is_no_http_or_breaks_off_is_refused_and_has_no_effect() {
    let rig = Rig::new().await;
    let at = rig.server.address();
    for (bytes, wanted) in [
        (head(&rig, "Connection: close\r\nTransfer-Encoding: chunked\r\n") + "zz\r\n5\r\n", "400"),
        (head(&rig, "Connection: close\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n") + "1\r\n5\r\n0\r\n\r\n", "200"),
        (head(&rig, "Connection: close\r\nContent-Length: 1\r\nContent-Length: 2\r\n") + "55", "400"),
        (head(&rig, "Connection: close\r\nContent-Length: x\r\n") + "5", "400"),
        ("\u{1}\u{2}\u{3}\r\n\r\n".to_owned(), "400"),
        ("GET / HTTP/9.9\r\n\r\n".to_owned(), "400"),
    ] {
        let text = raw(at, bytes.as_bytes()).await;
        assert!(text.starts_with(&format!("HTTP/1.1 {wanted}")) || text.starts_with(&format!("HTTP/1.0 {wanted}")), "{bytes:?}: {text}");
    }
    // A body that never comes whole.
    let mut broken = TcpStream::connect(at).await.unwrap();
    broken.write_all((head(&rig, "Content-Length: 5\r\n") + "1").as_bytes()).await.unwrap();
    drop(broken);
    let state = rig.owner().get("/v1/actors/counter/a/state").await.json();
    assert_eq!(state, serde_json::json!({ "count": 5 }), "only the one whole request was done");
}

#[tokio::test]
async fn names_are_names_whatever_stands_in_them() {
    let rig = Rig::new().await;
    let owner = rig.owner();
    for (key, status) in [
        ("..%2F..%2Fetc%2Fpasswd", 200),
        ("%2e%2e", 200),
        ("a%00b", 200),
        ("%F0%9F%8E%AB", 200),
        ("a%0D%0AX-Injected:%201", 200),
        ("%C3%28", 400),
        (&"k".repeat(300), 400),
    ] {
        let answer = owner.post(&format!("/v1/actors/counter/{key}/call/add"), "1").await;
        assert_eq!(answer.status, status, "{key}: {answer:?}");
        assert!(!answer.head.to_lowercase().contains("x-injected"), "{answer:?}");
        if status == 200 {
            assert_eq!(owner.get(&format!("/v1/actors/counter/{key}/state")).await.json()["count"], 1, "{key}");
        }
    }
    // A path that leads out of ours leads nowhere, and nobody is nobody.
    assert_eq!(owner.get("/v1/actors/../../etc/passwd").await.status, 404);
    let empty = owner.post("/v1/actors/counter//call/add", "1").await;
    assert_eq!((empty.status, empty.code()), (400, "empty".to_owned()));
}

#[tokio::test]
async fn json_that_is_deep_or_says_a_name_twice_or_has_huge_numbers_has_an_answer() {
    let rig = Rig::new().await;
    let owner = rig.owner();
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let refused = owner.post("/v1/actors/counter/a/call/wait", &deep).await;
    assert_eq!((refused.status, refused.code()), (400, "limit: json depth".to_owned()));
    let open = owner.post("/v1/invocations/inv_0/cancel", &deep).await;
    assert_eq!((open.status, open.code()), (400, "bad_request".to_owned()));
    let huge = owner.post("/v1/actors/counter/a/call/add", &"9".repeat(100_000)).await;
    assert_eq!((huge.status, huge.code()), (422, "wrong_type".to_owned()), "{huge:?}");
    let twice = owner.post("/v1/actors/counter/b/send/wait", "{\"a\":1,\"a\":2}").await;
    assert_eq!(twice.status, 202, "{twice:?}");
    assert_eq!(owner.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn concurrent_requests_under_one_key_are_done_once() {
    let rig = Rig::new().await;
    let asks = (0..32).map(|_| {
        let owner = rig.owner();
        tokio::spawn(async move { owner.send("POST", "/v1/actors/counter/a/call/add", &[("Idempotency-Key", "one")], Some("5")).await })
    });
    let mut ids = std::collections::BTreeSet::new();
    for answer in asks.collect::<Vec<_>>() {
        let answer = answer.await.unwrap();
        assert_eq!((answer.status, answer.json()["result"].clone()), (200, 5.into()), "{answer:?}");
        ids.insert(answer.json()["id"].as_str().unwrap().to_owned());
    }
    assert_eq!(ids.len(), 1);
    assert_eq!(rig.owner().get("/v1/actors/counter/a/state").await.json()["count"], 5);
}

#[tokio::test]
async fn headers_that_do_not_fit_are_refused_and_say_what_to_write() {
    let rig = Rig::new().await;
    let owner = rig.owner();
    for (headers, wanted) in [
        (vec![("Prefer", "wait=soon")], "wait=30"),
        (vec![("Prefer", "wait=100000")], "300 s"),
        (vec![("Idempotency-Key", "a"), ("Idempotency-Key", "b")], "twice"),
        (vec![("Last-Event-ID", "x")], "number"),
    ] {
        let answer = owner.send("POST", "/v1/actors/counter/a/call/add", &headers, Some("1")).await;
        assert_eq!((answer.status, answer.code()), (400, "bad_request".to_owned()), "{headers:?}");
        assert!(answer.text.contains(wanted), "{answer:?}");
    }
    let key = owner.send("POST", "/v1/actors/counter/a/call/add", &[("Idempotency-Key", &"k".repeat(300))], Some("1")).await;
    assert_eq!((key.status, key.code()), (400, "limit: key part".to_owned()));
}
