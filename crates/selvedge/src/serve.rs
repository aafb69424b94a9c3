//! The HTTP API of a running engine.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use selvedge_engine::engine;
use selvedge_http::{Door, Ended, Patience, Ready};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A server that answers until it is stopped. Dropped, it stops as well, and nobody waits for it.
pub struct Server {
    address: SocketAddr,
    closing: watch::Sender<bool>,
    serving: JoinHandle<Ended>,
}

impl Server {
    /// Serves an engine to whoever has a key of it, as far as its policies allow.
    ///
    /// # Errors
    /// The address of the listener cannot be told.
    pub fn start(engine: Arc<engine::Engine>, listener: TcpListener, patience: Patience) -> io::Result<Server> {
        let address = listener.local_addr()?;
        let (closing, closed) = watch::channel(false);
        let asked = engine.clone();
        let ready: Ready = Arc::new(move || vec![("engine", asked.stopped())]);
        let router = selvedge_http::router(Door {
            engine,
            ready,
            body_within: patience.body,
            binary: crate::build::sentence(),
            rates: Arc::default(),
            closing: closed.clone(),
        });
        let serving = tokio::spawn(selvedge_http::serve(listener, router, patience, stopped(closed)));
        Ok(Server { address, closing, serving })
    }

    /// Where it answers.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting, ends streams, and lets what is under way end within its time.
    pub async fn stop(self) -> Ended {
        // Nobody listens any more only when it has ended by itself.
        let _ = self.closing.send(true);
        self.serving.await.unwrap_or(Ended::Cut(0))
    }
}

async fn stopped(mut closing: watch::Receiver<bool>) {
    // An error: whoever could stop it is gone.
    let _ = closing.wait_for(|closing| *closing).await;
}
