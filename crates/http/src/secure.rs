//! The beginning of a connection: with TLS, where the server has a certificate.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::patient::Patient;
use crate::refusal::{PROBLEM, Refusal};

/// How long whoever speaks no TLS may take to read that this is what is spoken here.
const FAREWELL: Duration = Duration::from_secs(1);

/// Makes a connection safe, as long as its client goes along within its time. Whoever begins with plain HTTP is told what to say
/// instead; nothing of the request is done.
///
/// # Errors
/// The handshake fails, takes too long, or is none.
pub(crate) async fn secured(stream: TcpStream, tls: &TlsAcceptor, within: Duration, stall: Duration) -> io::Result<TlsStream<Patient>> {
    let mut first = [0u8; 1];
    let ends = Instant::now() + within;
    let there = tokio::time::timeout_at(ends, stream.peek(&mut first)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    // A request begins with a method, a handshake with a 22.
    if there > 0 && first[0].is_ascii_alphabetic() {
        let _ = tokio::time::timeout(FAREWELL, told(stream)).await;
        return Err(io::ErrorKind::InvalidData.into());
    }
    tokio::time::timeout_at(ends, tls.accept(Patient::new(stream, stall))).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Says what is spoken here, and waits until it was taken: closed with something unread, the answer could be lost.
async fn told(mut stream: TcpStream) -> io::Result<()> {
    let refusal = Refusal::bad("this port speaks TLS, and the request came in the clear: ask it with https://");
    let (status, body) = refusal.plain();
    let head = format!(
        "HTTP/1.1 {} {}\r\ncontent-type: {PROBLEM}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        status.as_str(),
        status.canonical_reason().unwrap_or_default(),
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&body).await?;
    stream.shutdown().await?;
    let mut unread = [0u8; 4096];
    while stream.read(&mut unread).await? > 0 {}
    Ok(())
}
