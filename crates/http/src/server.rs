//! Connections: how many, how slow they may be, and how they end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use selvedge_kernel::limit::{
    HTTP_BODY_MS, HTTP_CONNECTIONS, HTTP_DRAIN_MS, HTTP_HANDSHAKE_MS, HTTP_HEAD_BYTES, HTTP_HEAD_MS, HTTP_HEADERS, HTTP_SLOW_MS, HTTP_STALL_MS,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::patient::Patient;
use crate::secure::secured;
use crate::tls::Certificates;

/// What a server allows its clients, each with a default of `kernel::limit`.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Connections at the same time.
    pub connections: usize,
    /// For the handshake of TLS.
    pub handshake: Duration,
    /// For the head of a request.
    pub head: Duration,
    /// For the body of a request.
    pub body: Duration,
    /// For a client that takes nothing.
    pub stall: Duration,
    /// For a page of a stream to be taken.
    pub slow: Duration,
    /// For what is under way when the server stops.
    pub drain: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            connections: HTTP_CONNECTIONS,
            handshake: Duration::from_millis(HTTP_HANDSHAKE_MS),
            head: Duration::from_millis(HTTP_HEAD_MS),
            body: Duration::from_millis(HTTP_BODY_MS),
            stall: Duration::from_millis(HTTP_STALL_MS),
            slow: Duration::from_millis(HTTP_SLOW_MS),
            drain: Duration::from_millis(HTTP_DRAIN_MS),
        }
    }
}

/// How a server has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// Each request was answered.
    Drained,
    /// The time was up first; so many connections were cut.
    Cut(usize),
}

/// Serves in the clear until `stop` comes to its end, then lets what is under way end, within its time.
pub async fn serve(listener: TcpListener, router: Router, patience: Patience, stop: impl Future<Output = ()>) -> Ended {
    accepted(listener, router, patience, None, stop).await
}

/// The same over TLS.
///
/// # Errors
/// This build lacks what TLS needs.
pub async fn serve_tls(
    listener: TcpListener,
    router: Router,
    patience: Patience,
    certificates: &Arc<Certificates>,
    stop: impl Future<Output = ()>,
) -> Result<Ended, rustls::Error> {
    let acceptor = TlsAcceptor::from(certificates.server()?);
    Ok(accepted(listener, router, patience, Some(acceptor), stop).await)
}

async fn accepted(listener: TcpListener, router: Router, patience: Patience, tls: Option<TlsAcceptor>, stop: impl Future<Output = ()>) -> Ended {
    let room = Arc::new(Semaphore::new(patience.connections));
    let graceful = GracefulShutdown::new();
    // Its end ends the handshakes.
    let (open, opening) = watch::channel(());
    let mut connections = JoinSet::new();
    tokio::pin!(stop);
    loop {
        while connections.try_join_next().is_some() {}
        let next = async {
            // The semaphore is never closed.
            let held = room.clone().acquire_owned().await;
            (held, listener.accept().await)
        };
        let (held, accepted) = tokio::select! {
            biased;
            () = &mut stop => break,
            next = next => next,
        };
        match accepted {
            Ok((stream, peer)) => {
                let begun = Begun { stream, peer, router: router.clone(), patience, watcher: graceful.watcher() };
                let (tls, opening) = (tls.clone(), opening.clone());
                connections.spawn(async move {
                    // A client that breaks off, or is too slow, has nobody to tell.
                    begun.served(tls, opening).await;
                    drop(held);
                });
            }
            // Out of file descriptors, most likely: the next one may fit.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
    drop((listener, open));
    if tokio::time::timeout(patience.drain, graceful.shutdown()).await.is_ok() {
        return Ended::Drained;
    }
    while connections.try_join_next().is_some() {}
    let left = connections.len();
    connections.shutdown().await;
    Ended::Cut(left)
}

/// A connection that was accepted.
struct Begun {
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    patience: Patience,
    watcher: Watcher,
}

impl Begun {
    async fn served(self, tls: Option<TlsAcceptor>, mut opening: watch::Receiver<()>) {
        // Answers are small: none of them waits for more to come.
        let _ = self.stream.set_nodelay(true);
        let Begun { stream, peer, router, patience, watcher } = self;
        let Some(tls) = tls else { return spoken(Patient::new(stream, patience.stall), From { peer, kept: None }, router, patience, watcher).await };
        let shaken = tokio::select! {
            shaken = secured(stream, &tls, patience.handshake, patience.stall) => shaken,
            // Nothing is ever sent: the server stops.
            _ = opening.changed() => return,
        };
        if let Ok(stream) = shaken {
            spoken(stream, From { peer, kept: Some(Encrypted) }, router, patience, watcher).await;
        }
    }
}

/// A request came over TLS that is ours.
#[derive(Clone, Copy)]
pub(crate) struct Encrypted;

/// Where requests come from.
struct From {
    peer: SocketAddr,
    kept: Option<Encrypted>,
}

async fn spoken(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, from: From, router: Router, patience: Patience, watcher: Watcher) {
    let service = hyper::service::service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(ConnectInfo(from.peer));
        if let Some(encrypted) = from.kept {
            request.extensions_mut().insert(encrypted);
        }
        let router = TowerToHyperService::new(router.clone());
        async move { hyper::service::Service::call(&router, request.map(axum::body::Body::new)).await }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(patience.head).max_buf_size(HTTP_HEAD_BYTES).max_headers(HTTP_HEADERS);
    let _: Result<(), hyper::Error> = watcher.watch(builder.serve_connection(TokioIo::new(stream), service)).await;
}

/// Binds where the configuration says.
///
/// # Errors
/// The address is taken, or not ours.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}
