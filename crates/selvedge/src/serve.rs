//! The HTTP API of a running engine.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use selvedge_engine::engine;
use selvedge_http::{Answered, Certificates, Door, Ended, Patience, Ready, Tokens};
use selvedge_kernel::config::Level;
use selvedge_kernel::ports::Policies;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::certificates::watch as watch_files;
use crate::log::{Line, Log};

/// Time between two looks at whether policies or keys have changed.
const CHANGES: Duration = Duration::from_secs(1);

/// A server that answers until it is stopped. Dropped, it stops as well, and nobody waits for it.
pub struct Server {
    address: SocketAddr,
    closing: watch::Sender<bool>,
    serving: JoinHandle<Ended>,
}

/// How an engine is served.
#[derive(Default)]
pub struct Offer {
    /// What clients are allowed.
    pub patience: Patience,
    /// What it proves itself with; none: in the clear.
    pub certificates: Option<Arc<Certificates>>,
    /// Whose tokens are believed; none: nobody's, there are keys.
    pub tokens: Option<Tokens>,
    /// Where lines go about what is answered; none: nowhere.
    pub log: Option<Log>,
}

impl Server {
    /// Serves an engine in the clear to whoever has a key of it, as far as its policies allow.
    ///
    /// # Errors
    /// The address of the listener cannot be told.
    pub fn start(engine: Arc<engine::Engine>, listener: TcpListener, patience: Patience) -> io::Result<Server> {
        Server::with(engine, listener, Offer { patience, ..Offer::default() })
    }

    /// The same over TLS, where there are certificates, which are read again when their files change; to whoever has a token that is
    /// believed; and with a log of what is answered.
    ///
    /// # Errors
    /// The address of the listener cannot be told.
    pub fn with(engine: Arc<engine::Engine>, listener: TcpListener, offer: Offer) -> io::Result<Server> {
        let Offer { patience, certificates, tokens, log } = offer;
        let address = listener.local_addr()?;
        let (closing, closed) = watch::channel(false);
        let asked = engine.clone();
        let ready: Ready = Arc::new(move || vec![("engine", asked.stopped())]);
        let (told, versions) = watch::channel(engine.policies().version());
        let looking = look(engine.clone(), told);
        let router = selvedge_http::router(Door {
            engine,
            ready,
            tokens,
            body_within: patience.body,
            slow_after: patience.slow,
            binary: crate::build::sentence(),
            versions,
            sessions: Arc::default(),
            rates: Arc::default(),
            closing: closed.clone(),
        });
        let router = match log.clone() {
            Some(log) => selvedge_http::watched(router, Arc::new(move |answered| log.write(&answered_line(answered)))),
            None => router,
        };
        let serving = tokio::spawn(async move {
            let served = async {
                let Some(certificates) = certificates else { return selvedge_http::serve(listener, router, patience, stopped(closed)).await };
                let _watch = watch_files(certificates.clone(), log);
                // This build has what TLS needs: the certificates were read with it.
                selvedge_http::serve_tls(listener, router, patience, &certificates, stopped(closed)).await.unwrap_or(Ended::Cut(0))
            };
            tokio::select! {
                ended = served => ended,
                never = looking => match never {},
            }
        });
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

/// A request as a line: its route and what was answered, nothing of what it carried.
fn answered_line(answered: &Answered<'_>) -> Line<'static> {
    let status = answered.status.as_u16();
    let (level, event, message) = match status {
        503 => (Level::Warn, "request_refused", "a request was refused, and may be sent again later"),
        500.. => (Level::Error, "request_failed", "a request failed"),
        403 => (Level::Warn, "request_denied", "a request was denied"),
        401 | 429 => (Level::Warn, "request_refused", "a request was refused"),
        400.. => (Level::Info, "request_refused", "a request was refused"),
        _ => (Level::Debug, "request_answered", "a request was answered"),
    };
    let fields = vec![
        ("method", json!(answered.method)),
        ("route", json!(answered.route)),
        ("status", json!(status)),
        ("code", json!(answered.code)),
        ("decision", json!(answered.decision)),
        ("traceparent", json!(answered.trace)),
        ("address", json!(answered.address.map(|address| address.ip().to_string()))),
        ("took_ms", json!(u64::try_from(answered.took.as_millis()).unwrap_or(u64::MAX))),
    ];
    Line { level, event, message, fields }
}

/// Tells streams when policies or keys have changed.
async fn look(engine: Arc<engine::Engine>, told: watch::Sender<u64>) -> Infallible {
    loop {
        tokio::time::sleep(CHANGES).await;
        let version = engine.policies().version();
        told.send_if_modified(|known| std::mem::replace(known, version) != version);
    }
}

async fn stopped(mut closing: watch::Receiver<bool>) {
    // An error: whoever could stop it is gone.
    let _ = closing.wait_for(|closing| *closing).await;
}
