//! `serve`: the HTTP API on a data directory, until somebody ends it.

use std::io::IsTerminal;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use selvedge_engine::wiring::Tasks;
use selvedge_http::{Certificates, Ended, Patience, Tokens, bind};
use selvedge_kernel::config::{Configured, Level, Profile, Tls};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::app::App;
use crate::bootstrap::Engine;
use crate::config::Control;
use crate::log::Log;
use crate::serve::{Offer, Server};

use super::access::hold;
use super::args::{Common, Listen};
use super::checked::{Checked, Extent, checked, log, scheme};
use super::exit::{Code, Stop};
use super::notify::Notify;
use super::{print, run};

/// Time between two looks at whether the engine has stopped by itself.
const LOOK: Duration = Duration::from_millis(500);

/// `serve`: production, for those who have a key.
pub async fn serve(common: &Common, app: App, listen: Listen) -> Result<Code, Stop> {
    let mut hang_ups = HangUps::new()?;
    let mut ready = checked(common, app, &Extent { listen: listen.listen.as_deref(), profile: Profile::Production, dev: false })?;
    let log = log(&ready.configured)?;
    starting(&ready, &log);
    ready.config.log = Some(log.clone());
    let tokens = believed(&ready.configured, &log).await?;
    if tokens.is_none() {
        opens_to_somebody(&ready).await?;
    }
    let served = Served::bind(&ready, log, tokens).await?;
    let engine = hold(ready.config, ready.app).await?;
    let server = served.start(&engine)?;
    served.announce(&engine, &server)?;
    let mut stop = pin!(run::interrupted());
    loop {
        tokio::select! {
            asked = &mut stop => {
                asked?;
                return served.ended(engine, server, ASKED).await;
            }
            again = hang_ups.next() => match again {
                HangUp::ReadAgain => read_again(&engine, &served.log).await,
                HangUp::Gone => return served.ended(engine, server, ASKED).await,
            },
            () = broken(&engine) => return served.ended(engine, server, BROKEN).await,
        }
    }
}

/// Looks into the data directory whether anybody can come in, and leaves it: no work is done, and no port is bound.
async fn opens_to_somebody(ready: &Checked) -> Result<(), Stop> {
    let mut config = ready.config.clone();
    config.settings.tasks = Tasks::Leave;
    config.control = Control::Silent;
    let engine = hold(config, ready.app.clone()).await?;
    let opens = engine.inner.opens_to_somebody();
    engine.close().await?;
    if opens {
        return Ok(());
    }
    if let Some(log) = &ready.config.log {
        log.flush();
    }
    let text = "nobody has a key, and no issuer of tokens is configured, so that a server would answer nobody: make a key with \
                `selvedge keys create --role owner`, and start again";
    Err(Stop::new(Code::Configuration, text))
}

/// Whose tokens are believed.
#[cfg(feature = "jwt")]
pub async fn believed(configured: &Configured, log: &Log) -> Result<Option<Tokens>, Stop> {
    let issuers = configured.config.authentication.issuers.clone();
    let believed = crate::tokens::believed(issuers, crate::tokens::Pace::default(), Some(log.clone())).await;
    believed.map_err(|error| Stop::new(Code::Configuration, error.to_string()))
}

/// Nobody's: a configuration that names somebody is refused.
#[cfg(not(feature = "jwt"))]
pub async fn believed(_: &Configured, _: &Log) -> Result<Option<Tokens>, Stop> {
    Ok(None)
}

/// Comes to its end when the engine has stopped by itself: whoever started this process is to see that it ended, and why.
pub async fn broken(engine: &Engine) {
    while engine.inner.stopped().is_none() {
        tokio::time::sleep(LOOK).await;
    }
}

/// Hang-ups, as a terminal sends them that goes, and whoever wants something to be read again.
pub struct HangUps {
    signals: Signal,
    on_terminal: bool,
}

/// What a hang-up asks for.
pub enum HangUp {
    /// To read again what can be read again.
    ReadAgain,
    /// To end: the terminal has gone.
    Gone,
}

impl HangUps {
    pub fn new() -> Result<HangUps, Stop> {
        let signals = signal(SignalKind::hangup()).map_err(|error| Stop::new(Code::Failed, format!("signals cannot be received: {error}")))?;
        Ok(HangUps { signals, on_terminal: std::io::stderr().is_terminal() })
    }

    pub async fn next(&mut self) -> HangUp {
        self.signals.recv().await;
        if self.on_terminal && !std::io::stderr().is_terminal() { HangUp::Gone } else { HangUp::ReadAgain }
    }
}

/// Reads again what can be read again, and says what came of it.
pub async fn read_again(engine: &Engine, log: &Log) {
    let read = engine.reload().await;
    if read.is_empty() {
        log.say(Level::Warn, "reloaded", "asked to read again: no folder of policies is configured, so that there is nothing to read", Vec::new());
    }
    for read in read {
        match read {
            Ok(said) => log.say(Level::Info, "reloaded", &format!("read again: {said}"), Vec::new()),
            Err(refused) => log.say(Level::Error, "reload_refused", &refused, Vec::new()),
        }
    }
}

/// Takes as many file descriptors as this user may have: each connection is one.
fn room_for_connections() {
    let limit = getrlimit(Resource::Nofile);
    if let (Some(soft), Some(hard)) = (limit.current, limit.maximum)
        && soft < hard
    {
        // What cannot be raised stays: connections that do not fit wait until others end.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(hard), maximum: Some(hard) });
    }
}

/// The first line of the log, and what is allowed and may not be meant.
pub fn starting(ready: &Checked, log: &Log) {
    let data = json!(ready.config.data.display().to_string());
    log.say(Level::Info, "starting", "starting", vec![("version", json!(env!("CARGO_PKG_VERSION"))), ("data", data)]);
    for warning in &ready.warnings {
        log.say(Level::Warn, "configuration", &format!("warning: {warning}"), Vec::new());
    }
}

/// The port that is answered on, and how. It stays bound for as long as this lives, whatever becomes of the engine behind it.
pub struct Served {
    listener: std::net::TcpListener,
    scheme: &'static str,
    certificates: Option<Arc<Certificates>>,
    tokens: Option<Tokens>,
    manager: Notify,
    pub patience: Patience,
    pub log: Log,
}

/// Why a server ends that somebody ends.
pub const ASKED: &str = "what is accepted is on disk, and goes on at the next start";
/// Why one ends by itself.
pub const BROKEN: &str = "the engine cannot go on; why, is said at the end";

impl Served {
    /// Binds: everything that can be checked before was, and the directory is taken after.
    pub async fn bind(ready: &Checked, log: Log, tokens: Option<Tokens>) -> Result<Served, Stop> {
        room_for_connections();
        let address = ready.configured.config.listen;
        let bound = bind(address).await.and_then(tokio::net::TcpListener::into_std);
        let listener = bound.map_err(|error| {
            let text = format!("{address} cannot be listened on ({error}): end what listens there, or name another address with --listen");
            Stop::new(Code::Configuration, text)
        })?;
        let scheme = scheme(&ready.configured);
        let certificates = ready.certificates.clone().filter(|_| matches!(ready.configured.config.tls, Some(Tls::Files(_))));
        Ok(Served { listener, scheme, certificates, tokens, manager: Notify::of_environment(), patience: Patience::default(), log })
    }

    /// Answers with an engine.
    pub fn start(&self, engine: &Engine) -> Result<Server, Stop> {
        let listener = self.listener.try_clone().and_then(TcpListener::from_std);
        let (certificates, tokens) = (self.certificates.clone(), self.tokens.clone());
        let offer = Offer { patience: self.patience, certificates, tokens, log: Some(self.log.clone()) };
        let server = listener.and_then(|listener| Server::with(engine.inner.clone(), listener, offer));
        server.map_err(|error| Stop::new(Code::Failed, format!("the server cannot be started: {error}")))
    }

    /// Says where it answers.
    pub fn announce(&self, engine: &Engine, server: &Server) -> Result<(), Stop> {
        let fields = vec![("address", json!(server.address().to_string())), ("scheme", json!(self.scheme))];
        self.log.say(Level::Info, "ready", "ready: requests are answered", fields);
        let serving = format!("serving {} on {}://{}", engine.desk.data.display(), self.scheme, server.address());
        print::say(&serving)?;
        self.manager.ready(&serving);
        Ok(())
    }

    /// Stops accepting, lets what is under way end within its time, and lets go of the directory.
    pub async fn ended(&self, engine: Engine, server: Server, why: &str) -> Result<Code, Stop> {
        let log = &self.log;
        self.manager.stopping(&engine.inner.stopped().unwrap_or_else(|| why.to_owned()));
        log.say(if why == BROKEN { Level::Error } else { Level::Info }, "stopping", &format!("stopping: {why}"), Vec::new());
        let ended = tokio::select! {
            ended = server.stop() => ended,
            // Asked twice: what was accepted is on disk, a kill does no harm.
            _ = run::interrupted() => Ended::Cut(0),
        };
        // None were counted where somebody asked twice.
        if let Ended::Cut(connections @ 1..) = ended {
            let message = "connections were cut: their requests took longer than a server that stops waits";
            log.say(Level::Warn, "connections_cut", message, vec![("connections", json!(connections))]);
        }
        let closed = engine.close().await;
        if closed.is_ok() {
            log.say(Level::Info, "stopped", "stopped", Vec::new());
        }
        log.flush();
        closed?;
        Ok(Code::Done)
    }
}
