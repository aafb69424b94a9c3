//! `dev`: the HTTP API with a key that makes itself, and with what is saved in the files of the application.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use selvedge_engine::desk::{Asker, KeyVerb, Keys};
use selvedge_kernel::auth::{OWNER, RequestFacts, local};
use selvedge_kernel::config::{Level, LogFormat, Profile};
use selvedge_kernel::diagnostic::listed;
use serde_json::json;

use crate::app::App;
use crate::bootstrap::Engine;
use crate::config::Config;
use crate::log::Log;
use crate::serve::Server;

use super::access::hold;
use super::actors::text;
use super::args::{Common, Listen};
use super::checked::{Extent, checked, log};
use super::exit::{Code, Stop};
use super::saved::{Change, Saved};
use super::serve::{ASKED, BROKEN, HangUp, HangUps, Served, believed, broken, read_again, starting};
use super::{print, run};

/// The file in the data directory that holds the development key.
const KEY: &str = "dev.key";
/// Between two looks at the files; a change is taken in after two of them that see the same.
const LOOK: Duration = Duration::from_millis(300);
/// How long requests that are under way have to end before the engine starts again.
const DRAIN: Duration = Duration::from_secs(1);

/// `dev`: like `serve`, with a key of the role that may do everything in its tenant, which is made once, and with what is saved.
pub async fn dev(common: &Common, app: App, listen: Listen) -> Result<Code, Stop> {
    let mut hang_ups = HangUps::new()?;
    let mut ready = checked(common, app.clone(), &Extent { listen: listen.listen.as_deref(), profile: Profile::Development, dev: true })?;
    let log = log(&ready.configured)?;
    starting(&ready, &log);
    ready.config.log = Some(log.clone());
    let tokens = believed(&ready.configured, &log).await?;
    let mut served = Served::bind(&ready, log.clone(), tokens).await?;
    served.patience.drain = DRAIN;
    let mut saved = Saved::of(common, &ready);
    let mut running = Running { config: ready.config, app: ready.app, served };
    let mut engine = hold(running.config.clone(), running.app.clone()).await?;
    if let Err(stop) = development_key(&engine, &log).await {
        engine.close().await?;
        return Err(stop);
    }
    let mut server = running.served.start(&engine)?;
    running.served.announce(&engine, &server)?;
    let mut stop = pin!(run::interrupted());
    loop {
        tokio::select! {
            asked = &mut stop => {
                asked?;
                return running.served.ended(engine, server, ASKED).await;
            }
            again = hang_ups.next() => match again {
                HangUp::ReadAgain => read_again(&engine, &log).await,
                HangUp::Gone => return running.served.ended(engine, server, ASKED).await,
            },
            () = broken(&engine) => return running.served.ended(engine, server, BROKEN).await,
            () = tokio::time::sleep(LOOK) => {}
        }
        match saved.look(app.clone()) {
            None => {}
            Some(Err(wrong)) => {
                let text = format!("what was saved is refused, and what was before stays in force\n{}", listed(&wrong));
                log.say(Level::Error, "reload_refused", &text, Vec::new());
            }
            Some(Ok(change)) => (engine, server) = running.take(engine, server, change).await?,
        }
    }
}

/// What an engine is started with, again and again.
struct Running {
    config: Config,
    app: App,
    served: Served,
}

impl Running {
    /// Takes in what was saved: pipelines at once, all else with an engine that starts again.
    async fn take(&mut self, engine: Engine, server: Server, change: Change) -> Result<(Engine, Server), Stop> {
        let log = self.served.log.clone();
        let say = |level: Level, event: &'static str, text: &str| log.say(level, event, text, Vec::new());
        for warning in &change.warnings {
            say(Level::Warn, "configuration", &format!("warning: {warning}"));
        }
        if change.pipelines_alone {
            match engine.give(&change.app).await {
                Ok(()) => {
                    say(Level::Info, "reloaded", &format!("{}; runs that are open go on with the version that they were started with", change.said));
                    self.app = change.app;
                }
                Err(error) => {
                    // The pipelines are exchanged first, and that does not fail.
                    let text = format!("{}; their schedules are not all as they say, save again to try again: {}", change.said, error.message);
                    say(Level::Error, "reload_refused", &text);
                    self.app = change.app;
                }
            }
            return Ok((engine, server));
        }
        #[cfg(feature = "cedar")]
        if let Err(refused) = crate::bootstrap::policies_open(&self.config) {
            let text = format!("what was saved is not taken in while the policies have faults, with which no engine starts\n{refused}");
            say(Level::Error, "reload_refused", &text);
            return Ok((engine, server));
        }
        say(Level::Info, "restarting", &format!("{}; the engine starts again with it, and requests wait meanwhile", change.said));
        server.stop().await;
        engine.close().await?;
        let engine = match hold(self.config.clone(), change.app.clone()).await {
            Ok(engine) => {
                self.app = change.app;
                say(Level::Info, "reloaded", "the engine runs again, with what was saved; what was under way goes on");
                engine
            }
            Err(stop) => {
                let text = format!("the engine does not start with what was saved, and starts with what was before\n{}", stop.message);
                say(Level::Error, "reload_refused", &text);
                hold(self.config.clone(), self.app.clone()).await?
            }
        };
        let server = self.served.start(&engine)?;
        Ok((engine, server))
    }
}

/// The development key: the one that is kept, if it still opens something, else a new one, which is printed this once.
async fn development_key(engine: &Engine, log: &Log) -> Result<(), Stop> {
    let file = engine.desk.data.join(KEY);
    let unusable = |error: &std::io::Error| Stop::new(Code::Configuration, format!("the development key {} cannot be kept: {error}", file.display()));
    let kept = match std::fs::read_to_string(&file) {
        Ok(kept) => Some(kept),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(unusable(&error)),
    };
    if kept.is_some_and(|kept| engine.inner.authenticate(kept.trim(), RequestFacts::default()).is_ok()) {
        log.say(Level::Info, "development_key", "the development key is kept where it was", vec![("file", json!(file.display().to_string()))]);
        return Ok(());
    }
    let context = local(&engine.tenant, engine.inner.now());
    let asker = Asker { engine: &engine.inner, context: &context, binary: &engine.desk.binary };
    let create = KeyVerb::Create { name: "development".to_owned(), roles: vec![OWNER.to_owned()], lasts_ms: None };
    let key = text(&Keys(asker).perform(create).await?["key"]);
    write(&file, &key).map_err(|error| unusable(&error))?;
    log.say(Level::Info, "development_key", "a development key was made and is kept", vec![("file", json!(file.display().to_string()))]);
    // No part of the log, which never has a key: a program that reads the log gets none, a person in front of it does.
    if log.format() == LogFormat::Human {
        log.flush();
        print::note(&format!("the development key, printed this once and kept in {}:\n  {key}", file.display()));
    }
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
