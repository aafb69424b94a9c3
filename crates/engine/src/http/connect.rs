//! A connection to an address that was checked.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::ServerName;
use selvedge_kernel::egress::{Allowed, Host, Target, named, reachable};
use selvedge_kernel::error::AttemptError;
use selvedge_kernel::pipeline::request::terminal;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::HttpSettings;
use super::client::transport;
use super::tls::Tls;

/// How long one address may take to answer.
const CONNECT: Duration = Duration::from_secs(10);

/// A connection, with TLS or without.
pub enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Connects to a target: the name is resolved here, every address that it has is checked, and the connection goes to one
/// of those, so that an answer that changes later leads nowhere else.
pub async fn connect(target: &Target, egress: &[Allowed], settings: &HttpSettings, tls: &Tls) -> Result<Stream, AttemptError> {
    let refused = |error: selvedge_kernel::egress::EgressError| terminal("egress_denied", format!("{}: {}", error.message, error.hint));
    named(egress, &target.host, target.port).map_err(refused)?;
    let addresses = resolve(target, settings).await.map_err(|error| transport(target, &format!("its name cannot be resolved: {error}")))?;
    for address in &addresses {
        reachable(egress, &target.host, *address, target.port).map_err(refused)?;
    }
    let mut last = transport(target, "its name has no address");
    for address in addresses {
        let address = SocketAddr::new(address, target.port);
        let stream = match tokio::time::timeout(CONNECT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                last = transport(target, &format!("no connection to {address}: {error}"));
                continue;
            }
            Err(_) => {
                last = transport(target, &format!("no connection to {address} within {} s", CONNECT.as_secs()));
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        if !target.tls {
            return Ok(Stream::Plain(stream));
        }
        let config = tls.config(settings.roots.as_deref()).map_err(|reason| transport(target, &reason))?;
        let name = match &target.host {
            Host::Name(name) => ServerName::try_from(name.clone()).map_err(|error| terminal("http_request", format!("{}: {error}", target.shown())))?,
            Host::Address(address) => ServerName::from(*address),
        };
        let secured = tokio::time::timeout(CONNECT, tokio_rustls::TlsConnector::from(config).connect(name, stream)).await;
        return match secured {
            Ok(Ok(stream)) => Ok(Stream::Tls(Box::new(stream))),
            Ok(Err(error)) => Err(transport(target, &format!("TLS with {address} failed: {error}"))),
            Err(_) => Err(transport(target, &format!("TLS with {address} took more than {} s", CONNECT.as_secs()))),
        };
    }
    Err(last)
}

async fn resolve(target: &Target, settings: &HttpSettings) -> io::Result<Vec<IpAddr>> {
    let name = match &target.host {
        Host::Address(address) => return Ok(vec![*address]),
        Host::Name(name) => name,
    };
    match &settings.resolve {
        Some(resolve) => resolve(name.clone()).await,
        None => Ok(tokio::net::lookup_host((name.as_str(), target.port)).await?.map(|address| address.ip()).collect()),
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(context),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
