//! The one factory: a configuration goes in, a running engine comes out.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

#[cfg(feature = "cedar")]
use selvedge_adapters::cedar::CedarPolicies;
use selvedge_engine::ScheduleChange;
use selvedge_engine::engine;
use selvedge_engine::env::{Clock, Environment};
use selvedge_engine::exec::{Shut, orphans_gone};
#[cfg(feature = "cedar")]
use selvedge_engine::wiring::Rules;
use selvedge_engine::wiring::{Settings, Tasks};
use selvedge_kernel::auth::{Action, AuthorizationContext, Resource, authorize, local};
use selvedge_kernel::error::Consequence;
use selvedge_kernel::ports::Store;
use selvedge_kernel::time::Millis;
use selvedge_store::{EmbeddedStore, OpenError, Options};

use crate::app::App;
use crate::client::Client;
use crate::config::{Config, Control};
use crate::control::{Desk, Listener};
use crate::log::Log;
use crate::observed::{follow, observer};
#[cfg(feature = "cedar")]
use crate::policies::{Watch, watch};

pub use selvedge_engine::VerbError;

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
    /// The policies have faults: nothing was opened.
    #[cfg(feature = "cedar")]
    #[error("the policies are refused:\n{0}")]
    Policies(#[from] selvedge_adapters::cedar::Refused),
    /// Something beside the store in the data directory.
    #[error("{} cannot be used: check that the data directory is writable and has space", path.display())]
    Folder {
        /// What.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// Programs of a killed engine still run.
    #[error("programs that a killed engine had started still run after {seconds} s: end them (`fuser -v {}` lists them), then try again", lock.display())]
    Programs {
        /// The file that they hold.
        lock: PathBuf,
        /// How long was waited.
        seconds: u64,
    },
}

/// A running engine on a data directory.
pub struct Engine {
    pub(crate) inner: Arc<engine::Engine>,
    pub(crate) tenant: String,
    /// What verbs of the command line work with.
    #[cfg(feature = "cli")]
    pub(crate) desk: Arc<Desk>,
    /// Held for as long as the directory is.
    control: Option<Listener>,
    /// Look at the folders of the policies meanwhile.
    #[cfg(feature = "cedar")]
    folders: Vec<Watch>,
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
        #[cfg(feature = "cedar")]
        let (policies, shadow) = (opened(config.policies.as_ref())?, opened(config.shadow.as_ref())?);
        let options = Options { command: config.command.clone(), ..Options::default() };
        let store = Arc::new(EmbeddedStore::open(&config.data, options)?);
        let build = config.settings.build.or_else(crate::build::of_this_binary);
        let settings = Settings { pressure: store.pressure(), shards: store.meta().shards, build, follow: follow(config.log.as_ref()), ..config.settings };
        #[cfg(feature = "cedar")]
        let settings = match &policies {
            Some(policies) => Settings { policies: Rules::Given(policies.clone()), ..settings },
            None => settings,
        };
        #[cfg(feature = "cedar")]
        let settings = match &shadow {
            Some(shadow) => Settings { shadow: Some(Rules::Given(shadow.clone())), ..settings },
            None => settings,
        };
        let folder = |path: PathBuf| move |source| EngineError::Folder { path, source };
        std::fs::create_dir_all(&config.exec.scratch).map_err(folder(config.exec.scratch.clone()))?;
        if let Some(lock) = config.exec.shim.as_ref().and_then(|shim| shim.lock.clone())
            && settings.tasks == Tasks::Start
        {
            // Nothing of the last engine may run beside what this one starts.
            let gone = orphans_gone(&lock, config.orphans_within).await.map_err(folder(lock.clone()))?;
            if !gone {
                return Err(EngineError::Programs { lock, seconds: config.orphans_within.as_secs() });
            }
        }
        let tasks = settings.tasks;
        let mut exec = config.exec;
        if let Some(shim) = &mut exec.shim {
            let shut = Shut { data: config.data.clone(), scratch: exec.scratch.clone(), landlock: config.landlock };
            shim.shut.get_or_insert(shut);
        }
        let inner = Arc::new(engine::Engine::open(store.clone() as Arc<dyn Store>, observed(config.log.clone()), app.registry, settings, exec).await?);
        if tasks == Tasks::Start {
            store_schedules(&inner, &config.tenant).await?;
        }
        let binary = crate::build::sentence();
        let desk = Arc::new(Desk { engine: inner.clone(), store, data: config.data.clone(), tenant: config.tenant.clone(), binary });
        let control = match config.control {
            Control::Listen => {
                let opened = Listener::open(desk.clone());
                Some(opened.map_err(folder(config.data.join(crate::control::SOCKET)))?)
            }
            Control::Silent => None,
        };
        Ok(Engine {
            inner,
            tenant: config.tenant,
            #[cfg(feature = "cli")]
            desk,
            control,
            #[cfg(feature = "cedar")]
            folders: {
                let log = config.log;
                let shadow = shadow.map(|shadow| watch(shadow, SHADOW, log.clone()));
                policies.map(|policies| watch(policies, POLICIES, log)).into_iter().chain(shadow).collect()
            },
        })
    }

    /// The engine below.
    #[must_use]
    pub fn inner(&self) -> &Arc<engine::Engine> {
        &self.inner
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

    /// Reads again at once what can be read again while it runs, the folders of the policies, and says of each what came of it. What
    /// is refused changes nothing: what was in force stays in force.
    pub async fn reload(&self) -> Vec<Result<String, String>> {
        #[cfg(feature = "cedar")]
        {
            let mut read = Vec::with_capacity(self.folders.len());
            for folder in &self.folders {
                read.push(folder.read_now().await);
            }
            read
        }
        #[cfg(not(feature = "cedar"))]
        Vec::new()
    }

    /// Exchanges the pipelines that the manifest names, and their schedules: what starts from now on is of these.
    #[cfg(all(feature = "cli", feature = "server"))]
    pub(crate) async fn give(&self, app: &App) -> Result<(), VerbError> {
        let before: Vec<String> = self.inner.pipelines().into_keys().collect();
        self.inner.give(app.registry.pipelines.clone())?;
        for name in before.iter().filter(|name| !app.registry.pipelines.contains_key(*name)) {
            remove_schedule(&self.inner, &self.tenant, name).await?;
        }
        store_schedules(&self.inner, &self.tenant).await
    }

    /// Stops accepting, writes what is decided, and lets go of the directory.
    pub async fn close(self) -> Result<(), EngineError> {
        drop(self.control);
        Ok(self.inner.close().await?)
    }
}

/// What the policies in force are called.
#[cfg(feature = "cedar")]
const POLICIES: &str = "policies";
/// What those in the shadow are called.
#[cfg(feature = "cedar")]
const SHADOW: &str = "policies in the shadow";

/// Whether an engine would start with the policies that are in the folders now.
#[cfg(all(feature = "cedar", feature = "cli", feature = "server"))]
pub(crate) fn policies_open(config: &Config) -> Result<(), EngineError> {
    opened(config.policies.as_ref())?;
    opened(config.shadow.as_ref()).map(drop)
}

#[cfg(feature = "cedar")]
fn opened(folder: Option<&PathBuf>) -> Result<Option<Arc<CedarPolicies>>, EngineError> {
    Ok(folder.map(CedarPolicies::open).transpose()?.map(Arc::new))
}

/// Stores the schedules of the application's pipelines, each as its name is understood: of the stored version, if there is
/// one. What a pipeline names no more is removed.
pub(crate) async fn store_schedules(engine: &engine::Engine, tenant: &str) -> Result<(), VerbError> {
    let names: Vec<String> = engine.pipelines().into_keys().collect();
    for name in names {
        let now = engine.now();
        let permit = |action| {
            let resource = Resource::Pipeline { tenant: tenant.to_owned(), name: name.clone() };
            authorize(local(tenant, now), action, resource, now).map_err(|denied| VerbError {
                consequence: Consequence::NotPermitted,
                code: "denied".to_owned(),
                message: denied.to_string(),
            })
        };
        if !engine.stored_versions(permit(Action::Read)?).await?.is_empty() {
            // Its schedule came with its version, and is of whoever stored that.
            continue;
        }
        let done = match engine.put_schedule(permit(Action::Define)?).await {
            Err(error) if error.code == "no_schedule" => engine.change_schedule(permit(Action::Control)?, ScheduleChange::Remove).await.map(|_| ()),
            done => done,
        };
        match done {
            // A stored version that this build cannot read is no reason to do no other work: its fires say so.
            Err(error) if error.consequence != Consequence::NotFound && error.code != "definition" => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Removes the schedule of a pipeline that is gone, unless it is stored as well.
#[cfg(all(feature = "cli", feature = "server"))]
async fn remove_schedule(engine: &engine::Engine, tenant: &str, name: &str) -> Result<(), VerbError> {
    let permit = |action| {
        let now = engine.now();
        authorize(local(tenant, now), action, Resource::Pipeline { tenant: tenant.to_owned(), name: name.to_owned() }, now).map_err(VerbError::from)
    };
    if !engine.stored_versions(permit(Action::Read)?).await?.is_empty() {
        return Ok(());
    }
    match engine.change_schedule(permit(Action::Control)?, ScheduleChange::Remove).await {
        Err(error) if error.consequence != Consequence::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The machine's clock and randomness.
#[cfg(all(feature = "cedar", feature = "cli"))]
pub(crate) fn environment() -> Environment {
    observed(None)
}

/// The same, with what the engine says going to a log.
fn observed(log: Option<Log>) -> Environment {
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
        observer: Some(observer(log)),
    }
}
