//! The way to a server: requests of the command line over HTTP, with the answers that the control socket gives.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;

use hyper::body::{Body, Incoming};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use selvedge_kernel::config::TlsFiles;
use selvedge_kernel::error::Consequence;
use selvedge_kernel::limit::HTTP_WAIT_S;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::control::Problem;

use super::args::Common;
use super::exit::{Code, Stop};
use super::roots;
use super::route::{Asked, Kind};

/// The variable with the key: an argument could be read by everybody on this machine.
const KEY: &str = "SELVEDGE_KEY";
/// The longest answer that is read.
const ANSWER_BYTES: usize = 256 << 20;

/// A server, and who asks it.
#[derive(Clone)]
pub struct Remote {
    /// Host and port.
    address: String,
    /// None: it speaks no TLS.
    tls: Option<Judged>,
    key: String,
}

impl Remote {
    /// The server that a command names, if it names one.
    pub fn of(common: &Common) -> Result<Option<Remote>, Stop> {
        let Some(server) = &common.server else { return Ok(None) };
        let (address, tls) = reached(server, common.cacert.as_deref())?;
        let key = std::env::var(KEY).ok().filter(|key| !key.trim().is_empty()).ok_or_else(|| {
            Stop::new(
                Code::NotPermitted,
                format!("a server answers nobody without a key: set {KEY} (`selvedge keys create` makes one where the data directory is)"),
            )
        })?;
        Ok(Some(Remote { address, tls, key: key.trim().to_owned() }))
    }

    /// The server of this configuration on this machine, which is asked for what it tells anybody.
    pub fn of_ours(address: SocketAddr, tls: Option<&TlsFiles>) -> Result<Remote, Stop> {
        let judged = |files: &TlsFiles| {
            let connector = TlsConnector::from(roots::itself(Path::new(&files.certificate))?);
            Ok::<_, Stop>((connector, ServerName::IpAddress(address.ip().into())))
        };
        Ok(Remote { address: address.to_string(), tls: tls.map(judged).transpose()?, key: String::new() })
    }

    /// A server that is asked for what it tells anybody.
    pub fn for_anybody(server: &str, cacert: Option<&Path>) -> Result<Remote, Stop> {
        let (address, tls) = reached(server, cacert)?;
        Ok(Remote { address, tls, key: String::new() })
    }

    /// What it answers, whether that is good or bad.
    pub async fn look(&self, path: &str) -> Result<(u16, Value), Problem> {
        self.answered(&Asked::get(path.to_owned())).await
    }

    /// Asks, and waits for the answer.
    pub async fn ask(&self, asked: Asked) -> Result<Value, Problem> {
        match &asked.kind {
            Kind::Once => Ok(self.once(&asked).await?.1),
            // Waits as long as the work does, a request at a time.
            Kind::UntilResult => loop {
                let (_, value) = self.once(&asked).await?;
                if value.get("result").is_some() {
                    return Ok(value);
                }
            },
            Kind::UntilEvent { run } => loop {
                let (_, events) = self.once(&asked).await?;
                if events.as_array().is_some_and(|events| !events.is_empty()) {
                    return Ok(events);
                }
                let (_, shown) = self.once(&Asked::get(format!("/v1/runs/{run}"))).await?;
                if matches!(shown["status"].as_str(), Some("completed" | "failed" | "cancelled")) {
                    // What happened between the two looks is there now, if it did.
                    let now = Asked { headers: Vec::new(), ..asked.clone() };
                    return Ok(self.once(&now).await?.1);
                }
            },
        }
    }

    async fn connected(&self) -> std::io::Result<Box<dyn Stream>> {
        let stream = TcpStream::connect(&self.address).await?;
        match &self.tls {
            None => Ok(Box::new(stream)),
            Some((connector, name)) => Ok(Box::new(connector.connect(name.clone(), stream).await?)),
        }
    }

    /// What answers there is not who it should be, or speaks no TLS.
    fn untrusted(&self, why: &std::io::Error) -> Problem {
        let text = format!(
            "what answers on {} is not trusted ({why}): name the certificate that signed its own with --cacert FILE, look at the name in the URL, \
             and write http:// if it speaks no TLS",
            self.address
        );
        Problem::new(Consequence::Retry, "not_reachable", text)
    }

    async fn once(&self, asked: &Asked) -> Result<(u16, Value), Problem> {
        let (status, value) = self.answered(asked).await?;
        if (200..300).contains(&status) { Ok((status, value)) } else { Err(refused(status, &value)) }
    }

    async fn answered(&self, asked: &Asked) -> Result<(u16, Value), Problem> {
        let gone = |why: String| {
            let text = format!("the server {} does not answer ({why}): look whether it runs, `selvedge serve` starts one", self.address);
            Problem::new(Consequence::Retry, "not_reachable", text)
        };
        let stream = self.connected().await.map_err(|error| match error.kind() {
            std::io::ErrorKind::InvalidData => self.untrusted(&error),
            _ => gone(error.to_string()),
        })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| gone(error.to_string()))?;
        let driven = tokio::spawn(connection);
        let mut request = hyper::Request::builder().method(asked.method).uri(&asked.path).header("host", &self.address);
        if !self.key.is_empty() {
            request = request.header("authorization", format!("Bearer {}", self.key));
        }
        for (name, value) in &asked.headers {
            request = request.header(*name, value);
        }
        let request = request.body(asked.body.clone()).map_err(|error| Problem::new(Consequence::FixInput, "bad_request", error.to_string()))?;
        let answered: Result<(u16, Vec<u8>), Problem> = async {
            let response = sender.send_request(request).await.map_err(|error| gone(error.to_string()))?;
            let status = response.status().as_u16();
            Ok((status, whole(response.into_body()).await.map_err(gone)?))
        }
        .await;
        driven.abort();
        let (status, bytes) = answered?;
        if bytes.is_empty() && (200..300).contains(&status) {
            return Ok((status, Value::Null));
        }
        let value: Value = serde_json::from_slice(&bytes).map_err(|_| gone(format!("it answers {status}, and no JSON: is it a Selvedge?")))?;
        Ok((status, value))
    }
}

/// How the certificate of a server is judged, and the name that it must have.
type Judged = (TlsConnector, ServerName<'static>);

/// Host and port of `--server`, and how its certificate is judged if it speaks TLS.
fn reached(server: &str, cacert: Option<&Path>) -> Result<(String, Option<Judged>), Stop> {
    let wrong = |why: &str| Stop::usage(format!("--server {server}: {why}, write https://HOST:PORT, or http://HOST:PORT where nobody is on the way"));
    let (rest, usual) = match (server.strip_prefix("https://"), server.strip_prefix("http://")) {
        (Some(rest), _) => (rest, 443),
        (None, Some(rest)) => (rest, 80),
        (None, None) => return Err(wrong("it is no address of a server")),
    };
    let host = rest.strip_suffix('/').unwrap_or(rest);
    if host.is_empty() || host.contains(['/', '@', '?', '#']) || host.contains(char::is_whitespace) {
        return Err(wrong("it is more or less than a host and a port"));
    }
    let (name, address) = match host.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()) {
        Some((name, _)) => (name, host.to_owned()),
        None => (host, format!("{host}:{usual}")),
    };
    if usual == 80 {
        return Ok((address, None));
    }
    let name = name.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(name).map_err(|_| wrong("no certificate can be for such a name"))?;
    Ok((address, Some((TlsConnector::from(roots::trusted(cacert)?), name))))
}

/// A connection, with or without TLS.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// The problem of a problem document.
fn refused(status: u16, document: &Value) -> Problem {
    let consequence = serde_json::from_value(document["consequence"].clone()).unwrap_or(Consequence::Retry);
    let text = |name: &str| document[name].as_str().map(str::to_owned);
    let message = text("detail").unwrap_or_else(|| format!("the server answers {status}"));
    Problem { consequence, code: text("code").unwrap_or_else(|| "not_reachable".to_owned()), message, decision: text("decision_id") }
}

async fn whole(mut body: Incoming) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        if let Ok(part) = frame.map_err(|error| error.to_string())?.into_data() {
            if bytes.len() + part.len() > ANSWER_BYTES {
                return Err(format!("its answer is longer than {ANSWER_BYTES} bytes"));
            }
            bytes.extend_from_slice(&part);
        }
    }
    Ok(bytes)
}

/// The header that waits for as long as a request may.
pub fn patient() -> (&'static str, String) {
    ("prefer", format!("wait={HTTP_WAIT_S}"))
}
