//! Connections: how many, how slow they may be, and how they end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use selvedge_kernel::limit::{HTTP_BODY_MS, HTTP_CONNECTIONS, HTTP_DRAIN_MS, HTTP_HEAD_BYTES, HTTP_HEAD_MS, HTTP_HEADERS, HTTP_SLOW_MS, HTTP_STALL_MS};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::patient::Patient;

/// What a server allows its clients, each with a default of `kernel::limit`.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Connections at the same time.
    pub connections: usize,
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

/// Serves until `stop` comes to its end, then lets what is under way end, within its time.
pub async fn serve(listener: TcpListener, router: Router, patience: Patience, stop: impl Future<Output = ()>) -> Ended {
    let room = Arc::new(Semaphore::new(patience.connections));
    let graceful = GracefulShutdown::new();
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
                let connection = connection(stream, peer, &router, patience, &graceful);
                connections.spawn(async move {
                    // A client that breaks off, or is too slow, has nobody to tell.
                    connection.await;
                    drop(held);
                });
            }
            // Out of file descriptors, most likely: the next one may fit.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
    drop(listener);
    if tokio::time::timeout(patience.drain, graceful.shutdown()).await.is_ok() {
        return Ended::Drained;
    }
    while connections.try_join_next().is_some() {}
    let left = connections.len();
    connections.shutdown().await;
    Ended::Cut(left)
}

fn connection(stream: TcpStream, peer: SocketAddr, router: &Router, patience: Patience, graceful: &GracefulShutdown) -> impl Future<Output = ()> + use<> {
    // Answers are small: none of them waits for more to come.
    let _ = stream.set_nodelay(true);
    let router = router.clone();
    let service = hyper::service::service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        let router = TowerToHyperService::new(router.clone());
        async move { hyper::service::Service::call(&router, request.map(axum::body::Body::new)).await }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(patience.head).max_buf_size(HTTP_HEAD_BYTES).max_headers(HTTP_HEADERS);
    let watched = graceful.watch(builder.serve_connection(TokioIo::new(Patient::new(stream, patience.stall)), service));
    async move {
        let _: Result<(), hyper::Error> = watched.await;
    }
}

/// Binds where the configuration says.
///
/// # Errors
/// The address is taken, or not ours.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}
