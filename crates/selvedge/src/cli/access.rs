//! The way to a data directory: through its holder, or by opening it for as long as one verb takes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use selvedge_engine::wiring::Tasks;
use selvedge_kernel::config::Configured;
use selvedge_kernel::error::Consequence;
use selvedge_store::OpenError;
use serde_json::Value;

use crate::app::App;
use crate::bootstrap::{Engine, EngineError};
use crate::config::{self, Config};
use crate::control::{Control, Desk, GONE, Problem, Request, Steer, perform};

use super::args::Common;
use super::check::{manifest_of, with_manifest};
use super::exit::{Code, Stop};
#[cfg(feature = "server")]
use super::remote::Remote;
#[cfg(feature = "server")]
use super::route::route;
use super::settings::configured;
use super::slots::Slots;

/// How long a holder that is just starting or ending may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who answers.
pub enum Access {
    /// The process that holds the directory.
    Holder(Control),
    /// We do.
    Own(Box<Engine>),
    /// A server.
    #[cfg(feature = "server")]
    Server(Remote),
}

/// The configuration of a command, with the shim that keeps programs from outliving it.
pub fn config(common: &Common) -> Result<Config, Stop> {
    config_of(&configured(common)?)
}

/// The same, of one that was read.
pub fn config_of(configured: &Configured) -> Result<Config, Stop> {
    let program = std::env::current_exe().map_err(|error| Stop::new(Code::Configuration, format!("this binary does not find itself: {error}")))?;
    // Closed where it cannot be kept: without them the built-in rule would be in force instead.
    let said = &configured.config.authorization;
    let written = said.policies.as_ref().map(|_| "policies").or(said.shadow.as_ref().map(|_| "shadow"));
    if let Some(name) = written.filter(|_| !cfg!(feature = "cedar")) {
        let text = format!("`authorization.{name}` is written, and this binary was built without the feature `cedar`: build it with it");
        return Err(Stop::new(Code::Configuration, text));
    }
    if !cfg!(feature = "jwt") && !configured.config.authentication.issuers.is_empty() {
        let text = "`authentication.issuers` is written, and this binary was built without the feature `jwt`: build it with it".to_owned();
        return Err(Stop::new(Code::Configuration, text));
    }
    let mut config = Config::of(configured).shim(program);
    config.command = command();
    Ok(config)
}

/// The command that goes on with this one, as a shell takes it.
pub fn command() -> String {
    // Said again, `--new` would start another run instead of going on with this one.
    std::env::args().filter(|word| word != "--new").map(|word| quoted(&word)).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./=:,@+%".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// A path as somebody who stands in this folder writes it.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().ok().and_then(|here| path.strip_prefix(here).ok().map(Path::to_path_buf));
    here.map_or_else(|| path.display().to_string(), |path| format!("./{}", path.display()))
}

/// Opens a data directory to stay in it. A verb that has it for a moment is waited for; whoever stays in it is named.
pub async fn hold(config: Config, app: App) -> Result<Engine, Stop> {
    whole(&config.data)?;
    let mut waited = Duration::ZERO;
    loop {
        match Engine::open(config.clone(), app.clone()).await {
            Ok(engine) => return Ok(engine),
            Err(EngineError::Store(OpenError::Held { .. })) if waited < PATIENCE && connect(&config.data).await?.is_none() => waited += pause().await,
            Err(error @ EngineError::Store(OpenError::Held { .. })) => {
                let mut stop = Stop::from(error);
                if let Some(hint) = what_it_runs(&config.data).await {
                    stop.message = format!("{}\n  hint: {hint}", stop.message);
                }
                return Err(stop);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// How to see what the holder runs.
async fn what_it_runs(data: &Path) -> Option<String> {
    let runs = connect(data).await.ok()??.ask(&Request::Runs { filter: String::new() }).await.ok()?;
    let open = |run: &&Value| !matches!(run["status"].as_str(), Some("completed" | "failed" | "cancelled"));
    let open: Vec<&str> = runs.as_array()?.iter().filter(open).filter_map(|run| run["id"].as_str()).collect();
    match open[..] {
        [] => None,
        [run] => Some(format!("it runs {run}: `selvedge runs follow {run}` prints what happens to it")),
        [..] => Some(format!("it runs {} runs: `selvedge runs list` has them, `selvedge runs follow RUN` prints what happens to one", open.len())),
    }
}

async fn pause() -> Duration {
    let pause = Duration::from_millis(20);
    tokio::time::sleep(pause).await;
    pause
}

/// Asks, lets go of the directory if it was ours, and gives the answer. A holder that closes just now is followed by the
/// next one, or by us: what is asked twice has a key or says that it was done.
pub async fn ask_once(common: &Common, app: App, tasks: Tasks, request: Request) -> Result<Value, Stop> {
    Ok(ask_whoever(common, app, tasks, request).await?.0)
}

/// The same, and whether somebody else holds the directory.
pub async fn ask_whoever(common: &Common, app: App, tasks: Tasks, request: Request) -> Result<(Value, bool), Stop> {
    let mut waited = Duration::ZERO;
    let mut again = false;
    loop {
        let mut access = Access::open(common, app.clone(), tasks).await?;
        let held = access.is_held();
        let mut answer = access.ask(request.clone()).await;
        if again && matches!(&answer, Err(problem) if problem.code == "wrong_state") && was_cancelled(&mut access, &request).await {
            // It ended the run, and with it the holder, before its answer was here.
            answer = Ok(Value::Null);
        }
        access.close().await?;
        match answer {
            Err(problem) if held && problem.code == GONE && waited < PATIENCE => {
                again = true;
                waited += pause().await;
            }
            answer => return Ok((answer?, held)),
        }
    }
}

/// Whether a cancel of a run has done what it was to do.
async fn was_cancelled(access: &mut Access, request: &Request) -> bool {
    let Request::SteerRun { id, steer: Steer::Cancel { .. } } = request else { return false };
    matches!(access.ask(Request::Run { id: id.clone() }).await, Ok(run) if run["status"] == "cancelled")
}

/// The manifest of a data directory: as named, else that of its last run, else the one of this folder.
pub fn manifest_for(common: &Common, data: &Path) -> Result<Option<PathBuf>, Stop> {
    let noted = Slots::read(data)?.manifest.filter(|file| file.exists());
    Ok(common.app.clone().or(noted).or_else(|| manifest_of(common, None)))
}

/// A key that nobody else has: what is sent under it twice arrives once.
pub fn fresh_key() -> Result<String, Stop> {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes).map_err(|error| Stop::new(Code::Failed, format!("the system gives no random bytes: {error}")))?;
    Ok(bytes.iter().fold("cli-".to_owned(), |key, byte| format!("{key}{byte:02x}")))
}

/// Refuses what was a data directory and has lost the file that says so.
fn whole(data: &Path) -> Result<(), Stop> {
    selvedge_store::directory::refuse_incomplete(data).map_err(|error| Stop::new(Code::Configuration, error.to_string()))?;
    let here = |name: &str| data.join(name).exists();
    if here("meta") || !(here("log") || here("tree")) {
        return Ok(());
    }
    let text = format!(
        "the data directory {} is damaged: `meta` is missing beside {}. Nothing was changed: put `meta` back from a backup, or name another directory with --data",
        data.display(),
        if here("log") { "`log`" } else { "`tree`" }
    );
    Err(Stop::new(Code::Configuration, text))
}

/// The nearest data directory in a folder above, if there is none here.
fn above() -> Option<PathBuf> {
    let here = std::env::current_dir().ok()?;
    here.ancestors().skip(1).map(|folder| folder.join(".selvedge")).find(|data| data.join("meta").exists())
}

impl Access {
    /// Reaches a data directory that exists. If nobody holds it, this process does, with or without doing its work.
    pub async fn open(common: &Common, app: App, tasks: Tasks) -> Result<Access, Stop> {
        #[cfg(feature = "server")]
        if let Some(remote) = Remote::of(common)? {
            return Ok(Access::Server(remote));
        }
        let mut config = config(common)?;
        config.settings.tasks = tasks;
        if tasks == Tasks::Leave {
            config.control = config::Control::Silent;
        }
        let data = config.data.clone();
        whole(&data)?;
        if !data.join("meta").exists() {
            let data = shown(&data);
            if let Some(found) = above().filter(|_| common.data.is_none()) {
                let found = found.display();
                return Err(Stop::usage(format!("there is no data directory {data}, but there is {found}: add `--data {found}` if you mean that one")));
            }
            return Err(Stop::usage(format!("there is no data directory {data}: `selvedge run PIPELINE.yaml` makes one, `--data DIR` names another")));
        }
        let manifest = manifest_for(common, &data)?;
        let mut waited = Duration::ZERO;
        loop {
            if let Some(control) = connect(&data).await? {
                return Ok(Access::Holder(control));
            }
            let declared = with_manifest(app.clone(), manifest.as_deref());
            // Who only looks and takes notes may do so although the manifest is broken now.
            let app = if tasks == Tasks::Start { declared? } else { declared.unwrap_or_else(|_| app.clone()) };
            match Engine::open(config.clone(), app).await {
                Ok(engine) => return Ok(Access::Own(Box::new(engine))),
                Err(EngineError::Store(OpenError::Held { .. })) if waited < PATIENCE => waited += pause().await,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Asks.
    pub async fn ask(&mut self, request: Request) -> Result<Value, Problem> {
        match self {
            Access::Holder(control) => control.ask(&request).await,
            Access::Own(engine) => perform(&engine.desk, request).await,
            #[cfg(feature = "server")]
            Access::Server(remote) => remote.ask(route(request)?).await,
        }
    }

    /// A second way to the same directory, to ask something while the first one waits.
    pub async fn second(&self, common: &Common) -> Result<Second, Stop> {
        match self {
            Access::Own(engine) => Ok(Second::Own(engine.desk.clone())),
            #[cfg(feature = "server")]
            Access::Server(remote) => Ok(Second::Server(remote.clone())),
            Access::Holder(_) => match connect(&config(common)?.data).await? {
                Some(control) => Ok(Second::Holder(control)),
                None => Err(Stop::new(Code::Unreachable, "the process that holds the data directory has gone: try again")),
            },
        }
    }

    /// Whether somebody else holds the directory.
    pub fn is_held(&self) -> bool {
        !matches!(self, Access::Own(_))
    }

    pub async fn close(self) -> Result<(), Stop> {
        if let Access::Own(engine) = self {
            engine.close().await?;
        }
        Ok(())
    }
}

/// See [`Access::second`].
pub enum Second {
    /// A connection of its own.
    Holder(Control),
    /// What we work with.
    Own(Arc<Desk>),
    /// A server.
    #[cfg(feature = "server")]
    Server(Remote),
}

impl Second {
    /// Asks.
    pub async fn ask(&mut self, request: Request) -> Result<Value, Problem> {
        match self {
            Second::Holder(control) => control.ask(&request).await,
            Second::Own(desk) => perform(desk, request).await,
            #[cfg(feature = "server")]
            Second::Server(remote) => remote.ask(route(request)?).await,
        }
    }
}

async fn connect(data: &Path) -> Result<Option<Control>, Stop> {
    Control::connect(data).await.map_err(|error| {
        let consequence = if error.kind() == std::io::ErrorKind::PermissionDenied { Consequence::NotPermitted } else { Consequence::Retry };
        Stop::from(Problem::new(consequence, "not_reachable", format!("the holder of {} cannot be reached: {error}", data.display())))
    })
}
