//! A set of keys, from where it lies.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::http::header;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use selvedge_kernel::config::{KeySet, place_of_keys};
use selvedge_kernel::egress::{Host, Target};
use selvedge_kernel::limit::KEY_SET_BYTES;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// For the whole of it: name, connection, TLS, answer.
const WITHIN: Duration = Duration::from_secs(5);

/// Where a set of keys lies.
pub(super) enum Source {
    File(PathBuf),
    Url { target: Target, tls: Mutex<Option<Arc<ClientConfig>>> },
}

impl Source {
    pub(super) fn read(written: &str) -> Result<Source, String> {
        Ok(match place_of_keys(written)? {
            KeySet::File(file) => Source::File(std::path::absolute(&file).unwrap_or_else(|_| file.into())),
            KeySet::Url(target) => Source::Url { target, tls: Mutex::default() },
        })
    }

    /// For people.
    pub(super) fn shown(&self) -> String {
        match self {
            Source::File(file) => file.display().to_string(),
            Source::Url { target, .. } => format!("{}{}", target.shown(), target.path.split('?').next().unwrap_or_default()),
        }
    }

    /// What lies there: no more than a set may have, and in time.
    pub(super) async fn fetch(&self) -> Result<Vec<u8>, String> {
        let fetched = async {
            match self {
                Source::File(file) => {
                    let long = tokio::fs::metadata(file).await.map_err(|error| error.to_string())?.len();
                    if long > KEY_SET_BYTES as u64 {
                        return Err(too_long());
                    }
                    tokio::fs::read(file).await.map_err(|error| error.to_string())
                }
                Source::Url { target, tls } => get(target, tls).await,
            }
        };
        tokio::time::timeout(WITHIN, fetched).await.unwrap_or_else(|_| Err(format!("there was no whole answer within {} s", WITHIN.as_secs())))
    }
}

fn too_long() -> String {
    format!("it has more than {KEY_SET_BYTES} bytes")
}

/// One request on a connection of its own. It follows no redirect: who is configured is asked, and nobody else.
async fn get(target: &Target, tls: &Mutex<Option<Arc<ClientConfig>>>) -> Result<Vec<u8>, String> {
    let unreachable = |error: std::io::Error| format!("{} cannot be reached: {error}", target.shown());
    let stream = match &target.host {
        Host::Address(address) => TcpStream::connect((*address, target.port)).await,
        Host::Name(name) => TcpStream::connect((name.as_str(), target.port)).await,
    };
    let stream = stream.map_err(unreachable)?;
    if !target.tls {
        return exchange(target, stream).await;
    }
    let name = match &target.host {
        Host::Name(name) => ServerName::try_from(name.clone()).map_err(|error| error.to_string())?,
        Host::Address(address) => ServerName::from(*address),
    };
    let config = client(tls)?;
    let stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await.map_err(unreachable)?;
    exchange(target, stream).await
}

async fn exchange(target: &Target, stream: impl AsyncRead + AsyncWrite + Unpin + Send) -> Result<Vec<u8>, String> {
    let broken = |error: hyper::Error| format!("{} gave no answer: {error}", target.shown());
    let (mut sender, connection) = hyper::client::conn::http1::handshake::<_, Nothing>(TokioIo::new(stream)).await.map_err(broken)?;
    let request = hyper::Request::get(&target.path)
        .header(header::HOST, target.authority())
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, concat!("selvedge/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close")
        .body(Nothing)
        .map_err(|error| error.to_string())?;
    let answered = async {
        let answer = sender.send_request(request).await.map_err(broken)?;
        if !answer.status().is_success() {
            return Err(format!("{} answered {}", target.shown(), answer.status()));
        }
        whole(answer.into_body()).await.map_err(|error| error.unwrap_or_else(too_long))
    };
    let (mut answered, mut connection) = (std::pin::pin!(answered), std::pin::pin!(connection));
    let mut open = true;
    loop {
        tokio::select! {
            answer = &mut answered => return answer,
            _ = &mut connection, if open => open = false,
        }
    }
}

/// A body; none as the error: it is too long, and was not read on.
async fn whole(mut body: Incoming) -> Result<Vec<u8>, Option<String>> {
    let mut bytes = Vec::new();
    while let Some(frame) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let frame = frame.map_err(|error| Some(format!("the answer broke off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > KEY_SET_BYTES {
            return Err(None);
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

/// TLS with the certificates of the system, made for the first request.
fn client(made: &Mutex<Option<Arc<ClientConfig>>>) -> Result<Arc<ClientConfig>, String> {
    let mut made = made.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(config) = &*made {
        return Ok(config.clone());
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err("this system has no certificates to verify a server with: install ca-certificates, or set SSL_CERT_FILE to a file of them".to_owned());
    }
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(made.insert(Arc::new(config)).clone())
}

/// No body.
struct Nothing;

impl Body for Nothing {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut std::task::Context<'_>) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
        std::task::Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        true
    }
}
