//! The http executor against real servers on this machine.

use selvedge_engine::http::{Client, HttpSettings, Resolve};
use selvedge_kernel::egress::Allowed;
use selvedge_kernel::error::AttemptError;
use selvedge_kernel::pipeline::definition::{Header, Http};
use selvedge_kernel::time::Millis;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::server::{Server, answer};

fn http(method: &str, url: &str) -> Http {
    Http { method: method.to_owned(), url: url.to_owned(), headers: BTreeMap::new(), body: None, redirects: 0, folder: String::new() }
}

fn text(value: &str) -> Header {
    Header::Text(value.to_owned())
}

fn secret(name: &str) -> Header {
    Header::Secret { secret: format!("env:{name}"), prefix: "Bearer ".to_owned() }
}

fn egress(entries: &[&str]) -> Vec<Allowed> {
    entries.iter().map(|entry| entry.parse().unwrap()).collect()
}

async fn call_with(client: &Client, http: &Http, entries: &[&str], input: &Value) -> Result<Value, AttemptError> {
    let input = input.to_string();
    let (egress, now) = (egress(entries), || Millis(784_111_777_000));
    let running = client.run(http, &egress, "key-1", None, input.as_bytes(), now);
    let result = tokio::time::timeout(Duration::from_secs(30), running).await.expect("the request hangs");
    result.map(|bytes| serde_json::from_slice(&bytes).unwrap())
}

async fn call(http: &Http, entries: &[&str], input: &Value) -> Result<Value, AttemptError> {
    call_with(&Client::default(), http, entries, input).await
}

fn code(result: &Result<Value, AttemptError>) -> (&str, bool) {
    let error = result.as_ref().unwrap_err();
    (error.error.code.as_str(), error.retryable)
}

#[tokio::test]
async fn a_request_belongs_to_the_trace_of_whoever_asked_for_it_unless_it_declares_another() {
    let server = Server::answers(vec![answer("200 OK", "", b"1"), answer("200 OK", "", b"1"), answer("200 OK", "", b"1")]).await;
    let (egress, now, client) = (egress(&[&server.named()]), || Millis(784_111_777_000), Client::default());
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut declared = http("GET", &server.url());
    for _ in 0..2 {
        client.run(&declared, &egress, "key-1", Some(trace), b"null", now).await.unwrap();
    }
    declared.headers.insert("traceparent".to_owned(), text("00-11111111111111111111111111111111-2222222222222222-00"));
    client.run(&declared, &egress, "key-1", Some(trace), b"null", now).await.unwrap();
    let sent: Vec<Vec<String>> =
        server.seen().iter().map(|seen| seen.lines().filter_map(|line| line.strip_prefix("traceparent: ")).map(str::to_owned).collect()).collect();
    assert_eq!(sent[0], sent[1], "each attempt is the same span");
    assert!(sent[0][0].starts_with("00-0af7651916cd43dd8448eb211c80319c-") && sent[0][0].ends_with("-01") && sent[0][0].len() == trace.len(), "{sent:?}");
    assert_ne!(sent[0][0], trace, "it is a span of its own");
    assert_eq!(sent[2], ["00-11111111111111111111111111111111-2222222222222222-00"]);
}

#[tokio::test]
async fn a_request_carries_input_key_and_headers_and_gives_status_headers_and_body() {
    let server = Server::answers(vec![answer(
        "201 Created",
        "Content-Type: application/json; charset=utf-8\r\nX-A: 1\r\nx-a: 2\r\nSet-Cookie: s=1\r\n",
        b"{\"id\": 7}",
    )])
    .await;
    let mut declared = http("POST", &format!("{}items/${{input.name}}?q=1", server.url()));
    declared.headers.insert("x-name".to_owned(), text("of ${input.name}"));
    let result = call(&declared, &[&server.named()], &json!({"name": "a b"})).await.unwrap();
    assert_eq!((&result["status"], &result["body"], &result["headers"]["x-a"]), (&json!(201), &json!({"id": 7}), &json!("1, 2")));
    assert_eq!(result["headers"].get("set-cookie"), None, "a cookie is not kept");
    let seen = server.seen().remove(0);
    assert!(seen.starts_with("POST /items/a%20b?q=1 HTTP/1.1\r\n"), "{seen}");
    for line in
        [format!("host: {}", server.named()), "idempotency-key: key-1".to_owned(), "x-name: of a b".to_owned(), "content-type: application/json".to_owned()]
    {
        assert!(seen.to_lowercase().contains(&format!("{line}\r\n")), "{line}: {seen}");
    }
    assert!(seen.ends_with(r#"{"name":"a b"}"#), "{seen}");
}

#[tokio::test]
async fn a_body_is_json_text_or_null_as_its_content_type_says() {
    for (headers, body, expected) in [
        ("Content-Type: text/plain\r\n", &b"5"[..], Ok(json!("5"))),
        ("Content-Type: application/problem+json\r\n", b"5", Ok(json!(5))),
        ("", b"", Ok(json!(null))),
        ("Content-Type: application/json\r\n", b"{\"cut", Err(("http_body", true))),
        ("Content-Type: image/png\r\n", b"\xff\xfe", Err(("http_body", false))),
    ] {
        let server = Server::answers(vec![answer("200 OK", headers, body)]).await;
        let result = call(&http("GET", &server.url()), &[&server.named()], &json!(null)).await;
        match expected {
            Ok(expected) => assert_eq!(result.unwrap()["body"], expected),
            Err(expected) => assert_eq!(code(&result), expected),
        }
    }
}

#[tokio::test]
async fn a_status_says_whether_another_attempt_helps_and_retry_after_is_heard() {
    for (status, headers, expected, wait) in [
        ("404 Not Found", "", ("http_404", false), None),
        ("410 Gone", "Retry-After: 9\r\n", ("http_410", false), None),
        ("422 Unprocessable", "", ("http_422", false), None),
        ("304 Not Modified", "", ("http_304", false), None),
        ("408 Timeout", "", ("http_408", true), None),
        ("425 Too Early", "", ("http_425", true), None),
        ("429 Too Many", "Retry-After: 7\r\n", ("http_429", true), Some(7_000)),
        ("500 Error", "", ("http_500", true), None),
        ("503 Unavailable", "Retry-After: Sun, 06 Nov 1994 08:50:37 GMT\r\n", ("http_503", true), Some(60_000)),
    ] {
        let server = Server::answers(vec![answer(status, headers, if status.starts_with("304") { b"" } else { b"because of that" })]).await;
        let result = call(&http("GET", &server.url()), &[&server.named()], &json!(null)).await;
        assert_eq!(code(&result), expected, "{status}");
        let error = result.unwrap_err();
        assert_eq!(error.retry_after_ms, wait, "{status}");
        assert!(status.starts_with("304") || error.error.message.contains("because of that"), "{}", error.error.message);
    }
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let result = call(&http("GET", &format!("http://{closed}/")), &[&closed.to_string()], &json!(null)).await;
    assert_eq!(code(&result), ("http_transport", true));
}

#[tokio::test]
async fn nothing_inside_is_reached_however_its_address_is_written() {
    for url in [
        "http://169.254.169.254/latest/meta-data/",
        "http://[::ffff:169.254.169.254]/",
        "http://[::ffff:7f00:1]/",
        "http://[64:ff9b::a9fe:a9fe]/",
        "http://[::1]/",
        "http://0.0.0.0/",
        "http://127.0.0.1/",
        "http://localhost/",
        "http://2852039166/",
        "http://0251.0376.0251.0376/",
        "http://0xa9.0xfe.0xa9.0xfe/",
        "http://0xa9fea9fe/",
        "http://127.1/",
        "http://example.org@169.254.169.254/",
        "http://169.254.169.254\\@example.org/",
        "http://example.org\r\nHost: 169.254.169.254/",
    ] {
        let result = call(&http("GET", "${input}"), &["*"], &json!(url)).await;
        let (code, retryable) = code(&result);
        assert!(!retryable && ["egress_denied", "http_request"].contains(&code), "{url}: {result:?}");
    }
    let result = call(&http("GET", "https://example.org/"), &[], &json!(null)).await;
    assert_eq!(code(&result), ("egress_denied", false));
    assert!(result.unwrap_err().error.message.contains("add it: egress: [\"example.org\"]"));
}

#[tokio::test]
async fn a_redirect_is_off_unless_asked_for_and_each_hop_is_checked() {
    let end = Server::answers(vec![answer("200 OK", "", b"there")]).await;
    let to = |location: &str| answer("302 Found", &format!("Location: {location}\r\n"), b"");
    let server = Server::answers(vec![to(&end.url())]).await;
    let declared = http("GET", &server.url());
    let both = [server.named(), end.named()];
    let both: Vec<&str> = both.iter().map(String::as_str).collect();
    assert_eq!(code(&call(&declared, &both, &json!(null)).await), ("http_302", false));
    let following = Http { redirects: 1, ..declared };
    assert_eq!(call(&following, &both, &json!(null)).await.unwrap()["body"], "there");
    assert_eq!(code(&call(&following, &both[..1], &json!(null)).await), ("egress_denied", false), "the second host is not named");

    for location in ["http://169.254.169.254/", "http://[::ffff:169.254.169.254]/", "//2852039166/", "http://user@127.0.0.1/", "file:///etc/passwd"] {
        let server = Server::answers(vec![to(location)]).await;
        let result = call(&Http { redirects: 3, ..http("GET", &server.url()) }, &[&server.named(), "*"], &json!(null)).await;
        assert!(["egress_denied", "http_request", "http_302"].contains(&code(&result).0), "{location}: {result:?}");
        assert_eq!(server.seen().len(), if location.starts_with("file") { server.seen().len() } else { 1 });
    }
    let round = Server::answers(vec![to("/again")]).await;
    assert_eq!(code(&call(&Http { redirects: 3, ..http("GET", &round.url()) }, &[&round.named()], &json!(null)).await), ("http_302", false));
    assert_eq!(round.seen().len(), 4);
}

#[tokio::test]
async fn credentials_stay_with_the_host_that_they_were_written_for() {
    let other = Server::answers(vec![answer("200 OK", "", b"")]).await;
    let server =
        Server::answers(vec![answer("307 Elsewhere", "Location: /here\r\n", b""), answer("307 Elsewhere", &format!("Location: {}\r\n", other.url()), b"")])
            .await;
    let mut declared = Http { redirects: 3, ..http("POST", &server.url()) };
    declared.headers.insert("x-token".to_owned(), secret("TOKEN"));
    declared.headers.insert("cookie".to_owned(), text("a=b"));
    for credential in ["authorization", "proxy-authorization", "x-api-key"] {
        declared.headers.insert(credential.to_owned(), text("w0rd"));
    }
    declared.headers.insert("x-kept".to_owned(), text("yes"));
    let client = Client::new(HttpSettings::default(), BTreeMap::from([("TOKEN".to_owned(), "s3cret-value".to_owned())]));
    call_with(&client, &declared, &[&server.named(), &other.named()], &json!({"a": 1})).await.unwrap();
    let (first, then) = (server.seen(), other.seen());
    assert!(
        first.iter().all(|seen| seen.contains("x-token: Bearer s3cret-value") && seen.contains("cookie: a=b") && seen.matches("w0rd").count() == 3),
        "{first:?}"
    );
    assert!(!then[0].contains("s3cret") && !then[0].contains("w0rd") && !then[0].contains("cookie") && then[0].contains("x-kept: yes"), "{then:?}");
    assert!(then[0].starts_with("POST / ") && then[0].ends_with(r#"{"a":1}"#), "307 keeps method and body: {then:?}");
}

#[tokio::test]
async fn a_secret_is_sent_and_shows_nowhere() {
    let server =
        Server::answers(vec![answer("200 OK", "X-Echo: s3cret-value\r\n", b"you said s3cret-value"), answer("400 Bad", "", b"bad token s3cret-value")]).await;
    let mut declared = http("GET", &server.url());
    declared.headers.insert("authorization".to_owned(), secret("TOKEN"));
    let client = Client::new(HttpSettings::default(), BTreeMap::from([("TOKEN".to_owned(), "s3cret-value".to_owned())]));
    let result = call_with(&client, &declared, &[&server.named()], &json!(null)).await.unwrap();
    assert!(result["body"] == "you said [secret env:TOKEN]" && !result.to_string().contains("s3cret"), "{result}");
    let error = call_with(&client, &declared, &[&server.named()], &json!(null)).await.unwrap_err();
    assert!(!error.error.message.contains("s3cret") && error.error.message.contains("[secret env:TOKEN]"), "{}", error.error.message);
    assert!(server.seen()[0].contains("authorization: Bearer s3cret-value"));
    let result = call(&declared, &[&server.named()], &json!(null)).await;
    assert_eq!(code(&result), ("secret_missing", true));
}

/// A chunk of 4 096 bytes.
const CHUNK: &[u8] = {
    const BYTES: [u8; 4096 + 8] = {
        let mut bytes = [b'x'; 4096 + 8];
        let (head, end) = (*b"1000\r\n", *b"\r\n");
        let mut at = 0;
        while at < head.len() {
            bytes[at] = head[at];
            at += 1;
        }
        bytes[4096 + 6] = end[0];
        bytes[4096 + 7] = end[1];
        bytes
    };
    &BYTES
};

fn resolver(answers: &'static [&'static [&'static str]]) -> (Resolve, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let resolve: Resolve = Arc::new(move |_| {
        let number = count.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move { Ok(answers[number.min(answers.len() - 1)].iter().map(|address| address.parse().unwrap()).collect()) })
    });
    (resolve, asked)
}

#[tokio::test]
async fn a_name_is_resolved_once_and_the_address_that_was_checked_is_the_one_connected_to() {
    let server = Server::answers(vec![answer("200 OK", "", b"")]).await;
    let (resolve, asked) = resolver(&[&["127.0.0.1"], &["169.254.169.254"], &["8.8.8.8", "10.0.0.1"], &["::ffff:169.254.169.254"], &[]]);
    let client = Client::new(HttpSettings { resolve: Some(resolve), roots: None }, BTreeMap::new());
    let declared = http("GET", &format!("http://api.test:{}/", server.port));
    let named = format!("api.test:{}", server.port);
    let both = [named.as_str(), &server.named()];
    assert_eq!(call_with(&client, &declared, &both, &json!(null)).await.unwrap()["status"], 200);
    assert_eq!(asked.load(Ordering::SeqCst), 1, "an answer that changes between check and connection is not asked for");
    assert!(server.seen()[0].to_lowercase().contains(&format!("host: {named}\r\n")));
    for _ in 0..3 {
        assert_eq!(code(&call_with(&client, &declared, &both, &json!(null)).await), ("egress_denied", false));
    }
    assert_eq!(code(&call_with(&client, &declared, &both, &json!(null)).await), ("http_transport", true));
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn what_is_larger_than_its_limit_when_unpacked_is_refused_and_not_read_on() {
    let packed = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let gzip = |bytes: &[u8]| answer("200 OK", "Content-Encoding: gzip\r\n", bytes);
    let bomb = packed(&vec![0; 64 << 20]);
    assert!(bomb.len() < 100_000);
    let mut broken = packed(b"hello");
    broken.truncate(12);
    for (answers, expected) in [
        (gzip(&packed(b"hello")), Ok("hello")),
        (gzip(&bomb), Err(("limit: http_answer", false))),
        (gzip(&broken), Err(("http_transport", true))),
        (answer("200 OK", "Content-Encoding: br\r\n", b"x"), Err(("http_body", false))),
        (answer("200 OK", "", &vec![b'x'; (8 << 20) + 1]), Err(("limit: http_answer", false))),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf".to_vec(), Err(("http_transport", true))),
        (b"this is no HTTP\r\n\r\n".to_vec(), Err(("http_transport", true))),
    ] {
        let server = Server::answers(vec![answers]).await;
        let result = call(&http("GET", &server.url()), &[&server.named()], &json!(null)).await;
        match expected {
            Ok(body) => assert_eq!(result.unwrap()["body"], body),
            Err(expected) => assert_eq!(code(&result), expected),
        }
    }
    let chunks = Server::endless("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", CHUNK).await;
    assert_eq!(code(&call(&http("GET", &chunks.url()), &[&chunks.named()], &json!(null)).await), ("limit: http_answer", false));
    let headers = Server::endless("HTTP/1.1 200 OK\r\n", b"x-more: and more\r\n").await;
    assert_eq!(code(&call(&http("GET", &headers.url()), &[&headers.named()], &json!(null)).await), ("http_transport", true));
}

#[tokio::test]
async fn a_line_break_in_a_value_makes_no_second_header() {
    let server = Server::answers(vec![answer("200 OK", "", b"")]).await;
    let mut declared = http("GET", &server.url());
    declared.headers.insert("x-name".to_owned(), text("${input}"));
    let result = call(&declared, &[&server.named()], &json!("a\r\nEvil: 1")).await;
    assert_eq!(code(&result), ("http_request", false));
    declared.headers.insert("x-name".to_owned(), secret("TOKEN"));
    let client = Client::new(HttpSettings::default(), BTreeMap::from([("TOKEN".to_owned(), "s3cret\r\nEvil: 1".to_owned())]));
    let result = call_with(&client, &declared, &[&server.named()], &json!(null)).await;
    assert_eq!(code(&result), ("http_request", false));
    assert!(!format!("{result:?}").contains("s3cret") && server.seen().is_empty());
}

#[tokio::test]
async fn a_server_is_verified_with_the_certificates_that_are_trusted() {
    let made = rcgen::generate_simple_self_signed(vec!["api.test".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let server = Server::secured(config, answer("200 OK", "", b"safe")).await;
    let other = rcgen::generate_simple_self_signed(vec!["api.test".to_owned()]).unwrap();
    let (resolve, _) = resolver(&[&["127.0.0.1"]]);
    let client = |root: &[u8]| Client::new(HttpSettings { resolve: Some(resolve.clone()), roots: Some(vec![root.to_vec()]) }, BTreeMap::new());
    let named = [format!("api.test:{}", server.port), format!("other.test:{}", server.port), server.named()];
    let named: Vec<&str> = named.iter().map(String::as_str).collect();
    let declared = http("GET", &format!("https://api.test:{}/", server.port));
    assert_eq!(call_with(&client(made.cert.der()), &declared, &named, &json!(null)).await.unwrap()["body"], "safe");
    for (root, host) in [(other.cert.der(), "api.test"), (made.cert.der(), "other.test")] {
        let declared = http("GET", &format!("https://{host}:{}/", server.port));
        let result = call_with(&client(root), &declared, &named, &json!(null)).await;
        assert_eq!(code(&result), ("http_transport", true));
        assert!(result.unwrap_err().error.message.contains("TLS"));
    }
}

#[test]
fn proxy_variables_are_not_read() {
    const TEST: &str = "http::proxy_variables_are_not_read";
    if std::env::var_os("SELVEDGE_TEST_PROXIED").is_none() {
        // A proxy that is not there: a request that went to it would fail.
        let proxies = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"].map(|name| (name, "http://127.0.0.1:1"));
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let status = child.args(["--exact", TEST]).envs(proxies).env("SELVEDGE_TEST_PROXIED", "1").stdout(std::process::Stdio::null()).status();
        assert!(status.unwrap().success());
        return;
    }
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let server = Server::answers(vec![answer("200 OK", "", b"direct")]).await;
        let environment = std::env::vars().collect();
        let client = Client::new(HttpSettings::default(), environment);
        let result = call_with(&client, &http("GET", &server.url()), &[&server.named()], &json!(null)).await.unwrap();
        assert_eq!((&result["body"], server.seen()[0].starts_with("GET / HTTP/1.1")), (&json!("direct"), true));
    });
}
