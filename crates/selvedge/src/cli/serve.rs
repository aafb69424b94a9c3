//! `serve` and `dev`: the HTTP API on a data directory, until somebody ends it.

use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use selvedge_engine::desk::{Asker, KeyVerb, Keys};
use selvedge_engine::wiring::Tasks;
use selvedge_http::{Certificates, Ended, Patience, Tokens, bind};
use selvedge_kernel::auth::{OWNER, RequestFacts, local};
use selvedge_kernel::config::{Configured, Profile};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::app::App;
use crate::bootstrap::Engine;
use crate::config::Control;
use crate::serve::{Offer, Server};

use super::access::hold;
use super::actors::text;
use super::args::{Common, Listen};
use super::checked::{Checked, Extent, checked, scheme};
use super::exit::{Code, Stop};
use super::notify::Notify;
use super::{print, run};

/// The file in the data directory that holds the development key.
const KEY: &str = "dev.key";
/// Time between two looks at whether the engine has stopped by itself.
const LOOK: Duration = Duration::from_millis(500);

/// `serve`: production, for those who have a key.
pub async fn serve(common: &Common, app: App, listen: Listen) -> Result<Code, Stop> {
    let ready = checked(common, app, &Extent { listen: listen.listen.as_deref(), profile: Profile::Production, dev: false })?;
    let tokens = believed(&ready.configured).await?;
    if tokens.is_none() {
        opens_to_somebody(&ready).await?;
    }
    let (engine, served) = opened(ready, tokens).await?;
    until_the_end(engine, served).await
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
    let text = "nobody has a key, and no issuer of tokens is configured, so that a server would answer nobody: make a key with \
                `selvedge keys create --role owner`, and start again";
    Err(Stop::new(Code::Configuration, text))
}

/// `dev`: the same, with a key of the role that may do everything in its tenant, which is made once.
pub async fn dev(common: &Common, app: App, listen: Listen) -> Result<Code, Stop> {
    let ready = checked(common, app, &Extent { listen: listen.listen.as_deref(), profile: Profile::Development, dev: true })?;
    let tokens = believed(&ready.configured).await?;
    let (engine, served) = opened(ready, tokens).await?;
    if let Err(stop) = development_key(&engine).await {
        engine.close().await?;
        return Err(stop);
    }
    until_the_end(engine, served).await
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

/// What is answered, and how.
struct Served {
    listener: TcpListener,
    scheme: &'static str,
    certificates: Option<Arc<Certificates>>,
    tokens: Option<Tokens>,
}

/// Binds, and then takes the directory: everything that can be checked before was.
async fn opened(ready: Checked, tokens: Option<Tokens>) -> Result<(Engine, Served), Stop> {
    room_for_connections();
    for warning in &ready.warnings {
        print::note(&format!("warning: {warning}"));
    }
    let address = ready.configured.config.listen;
    let listener = bind(address).await.map_err(|error| {
        let text = format!("{address} cannot be listened on ({error}): end what listens there, or name another address with --listen");
        Stop::new(Code::Configuration, text)
    })?;
    let served = Served { listener, scheme: scheme(&ready.configured), certificates: ready.certificates, tokens };
    Ok((hold(ready.config, ready.app).await?, served))
}

/// Whose tokens are believed.
#[cfg(feature = "jwt")]
async fn believed(configured: &Configured) -> Result<Option<Tokens>, Stop> {
    let issuers = configured.config.authentication.issuers.clone();
    let believed = crate::tokens::believed(issuers, crate::tokens::Pace::default()).await;
    believed.map_err(|error| Stop::new(Code::Configuration, error.to_string()))
}

/// Nobody's: a configuration that names somebody is refused.
#[cfg(not(feature = "jwt"))]
async fn believed(_: &Configured) -> Result<Option<Tokens>, Stop> {
    Ok(None)
}

/// The development key: the one that is kept, if it still opens something, else a new one, which is printed this once.
async fn development_key(engine: &Engine) -> Result<(), Stop> {
    let file = engine.desk.data.join(KEY);
    let unusable = |error: &std::io::Error| Stop::new(Code::Configuration, format!("the development key {} cannot be kept: {error}", file.display()));
    let kept = match std::fs::read_to_string(&file) {
        Ok(kept) => Some(kept),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(unusable(&error)),
    };
    if kept.is_some_and(|kept| engine.inner.authenticate(kept.trim(), RequestFacts::default()).is_ok()) {
        print::note(&format!("the development key is in {}", file.display()));
        return Ok(());
    }
    let context = local(&engine.tenant, engine.inner.now());
    let asker = Asker { engine: &engine.inner, context: &context, binary: &engine.desk.binary };
    let create = KeyVerb::Create { name: "development".to_owned(), roles: vec![OWNER.to_owned()], lasts_ms: None };
    let key = text(&Keys(asker).perform(create).await?["key"]);
    write(&file, &key).map_err(|error| unusable(&error))?;
    print::note(&format!("the development key, printed this once and kept in {}:\n  {key}", file.display()));
    Ok(())
}

/// A file that nobody else may read, also while it is written.
fn write(file: &Path, key: &str) -> std::io::Result<()> {
    let fresh: PathBuf = file.with_extension("new");
    let _ = std::fs::remove_file(&fresh);
    let mut out = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    writeln!(out, "{key}")?;
    out.sync_all()?;
    std::fs::rename(&fresh, file)
}

/// Comes to its end when the engine has stopped by itself: whoever started this process is to see that it ended, and why.
async fn broken(engine: &Engine) -> String {
    loop {
        if let Some(reason) = engine.inner.stopped() {
            return reason;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Until somebody ends it. A hang-up reads again what can be read again, unless it says that the terminal has gone.
async fn until_interrupted(engine: &Engine) -> Result<(), Stop> {
    let mut hung_up = signal(SignalKind::hangup()).map_err(|error| Stop::new(Code::Failed, format!("signals cannot be received: {error}")))?;
    let on_terminal = std::io::stderr().is_terminal();
    loop {
        tokio::select! {
            ended = run::interrupted() => return ended,
            _ = hung_up.recv() => {}
        }
        if on_terminal && !std::io::stderr().is_terminal() {
            return Ok(());
        }
        let read = engine.reload().await;
        if read.is_empty() {
            print::note("asked to read again: no folder of policies is configured, so that there is nothing to read");
        }
        for read in read {
            match read {
                Ok(said) => print::note(&format!("read again: {said}")),
                Err(refused) => print::complain(&refused),
            }
        }
    }
}

async fn until_the_end(engine: Engine, served: Served) -> Result<Code, Stop> {
    let Served { listener, scheme, certificates, tokens } = served;
    let offer = Offer { patience: Patience::default(), certificates, tokens };
    let server =
        Server::with(engine.inner.clone(), listener, offer).map_err(|error| Stop::new(Code::Failed, format!("the server cannot be started: {error}")))?;
    let manager = Notify::of_environment();
    let serving = format!("serving {} on {scheme}://{}", engine.desk.data.display(), server.address());
    print::say(&serving)?;
    manager.ready(&serving);
    tokio::select! {
        asked = until_interrupted(&engine) => {
            asked?;
            manager.stopping("what is accepted is on disk, and goes on at the next start");
            print::note("stopping: what is accepted is on disk, and goes on at the next start");
        }
        reason = broken(&engine) => {
            manager.stopping(&reason);
            print::note("stopping: the engine cannot go on; why, is said at the end");
        }
    }
    let ended = tokio::select! {
        ended = server.stop() => ended,
        // Asked twice: what was accepted is on disk, a kill does no harm.
        _ = run::interrupted() => Ended::Cut(0),
    };
    if let Ended::Cut(connections) = ended {
        print::note(&format!("{connections} connections were cut: their requests took longer than a server that stops waits"));
    }
    engine.close().await?;
    Ok(Code::Done)
}
