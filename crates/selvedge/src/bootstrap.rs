//! The one factory: a configuration goes in, a running engine comes out.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use selvedge_engine::engine;
use selvedge_engine::env::{Clock, Environment};
use selvedge_engine::wiring::Settings;
use selvedge_kernel::auth::{AuthorizationContext, local};
use selvedge_kernel::ports::Store;
use selvedge_kernel::time::Millis;
use selvedge_store::{EmbeddedStore, OpenError, Options};

use crate::app::App;
use crate::client::Client;

pub use selvedge_engine::VerbError;

/// What an engine is opened with.
#[derive(Clone, Debug)]
pub struct Config {
    /// The data directory.
    pub data: PathBuf,
    /// The tenant of the local client.
    pub tenant: String,
    /// The engine's settings.
    pub settings: Settings,
    /// What programs run with.
    pub exec: engine::ExecSettings,
    /// The command that holds the directory, for whoever finds it locked.
    pub command: String,
}

impl Config {
    /// The defaults, on a data directory.
    #[must_use]
    pub fn on(data: impl AsRef<Path>) -> Config {
        let data = data.as_ref().to_path_buf();
        let exec = engine::ExecSettings { scratch: data.join("scratch"), environment: std::env::vars().collect(), ..engine::ExecSettings::default() };
        Config { data, tenant: "default".to_owned(), settings: Settings::default(), exec, command: std::env::args().collect::<Vec<_>>().join(" ") }
    }
}

impl From<&str> for Config {
    fn from(data: &str) -> Config {
        Config::on(data)
    }
}

impl From<&Path> for Config {
    fn from(data: &Path) -> Config {
        Config::on(data)
    }
}

impl From<PathBuf> for Config {
    fn from(data: PathBuf) -> Config {
        Config::on(data)
    }
}

/// Why an engine did not open or close.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The data directory.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] VerbError),
}

/// A running engine on a data directory.
pub struct Engine {
    pub(crate) inner: Arc<engine::Engine>,
    pub(crate) tenant: String,
}

impl Engine {
    /// Opens a data directory, making it if it is not there, and goes on where the last process stopped.
    ///
    /// ```
    /// # async fn example(folder: std::path::PathBuf) -> Result<(), Box<dyn std::error::Error>> {
    /// let engine = selvedge::Engine::open(folder, selvedge::App::new()).await?;
    /// engine.close().await?;
    /// # Ok(()) }
    /// ```
    pub async fn open(config: impl Into<Config>, app: App) -> Result<Engine, EngineError> {
        let config = config.into();
        let options = Options { command: config.command.clone(), ..Options::default() };
        let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(&config.data, options)?);
        let inner = engine::Engine::open(store, environment(), app.registry, config.settings, config.exec).await?;
        Ok(Engine { inner: Arc::new(inner), tenant: config.tenant })
    }

    /// The client of whoever owns this process.
    #[must_use]
    pub fn local(&self) -> Client {
        self.client(local(&self.tenant, self.inner.now()))
    }

    /// A client that acts as somebody.
    #[must_use]
    pub fn client(&self, context: AuthorizationContext) -> Client {
        Client { engine: self.inner.clone(), context }
    }

    /// Stops accepting, writes what is decided, and lets go of the directory.
    pub async fn close(self) -> Result<(), EngineError> {
        Ok(self.inner.close().await?)
    }
}

/// The machine's clock and randomness.
pub(crate) fn environment() -> Environment {
    let start = Instant::now();
    Environment {
        clock: Clock::Machine {
            wall: Arc::new(|| {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
            }),
            monotonic: Arc::new(move || Millis(u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX))),
        },
        random: Arc::new(|buffer| {
            if let Err(error) = getrandom::fill(buffer) {
                // Without randomness nothing may be accepted: ids and seals would repeat.
                panic!("the system gives no random bytes: {error}");
            }
        }),
        observer: None,
    }
}
