//! The way to a data directory: through its holder, or by opening it for as long as one verb takes.

use std::path::Path;
use std::time::Duration;

use selvedge_engine::exec::Shim;
use selvedge_engine::wiring::Tasks;
use selvedge_kernel::error::Consequence;
use selvedge_store::OpenError;
use serde_json::Value;

use crate::app::App;
use crate::bootstrap::{Engine, EngineError};
use crate::config::{self, Config};
use crate::control::{Control, Problem, Request, perform};

use super::args::Common;
use super::check::{manifest_of, with_manifest};
use super::exit::{Code, Stop};
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
}

/// The configuration of a command, with the shim that keeps programs from outliving it.
pub fn config(common: &Common) -> Result<Config, Stop> {
    let mut config = Config::of(&configured(common)?);
    let program = std::env::current_exe().map_err(|error| Stop::new(Code::Configuration, format!("this binary does not find itself: {error}")))?;
    config.exec.shim = Some(Shim { program, lock: Some(config.programs_lock()) });
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
    let mut waited = Duration::ZERO;
    loop {
        match Engine::open(config.clone(), app.clone()).await {
            Ok(engine) => return Ok(engine),
            Err(EngineError::Store(OpenError::Held { .. })) if waited < PATIENCE && connect(&config.data).await?.is_none() => waited += pause().await,
            Err(error) => return Err(error.into()),
        }
    }
}

async fn pause() -> Duration {
    let pause = Duration::from_millis(20);
    tokio::time::sleep(pause).await;
    pause
}

impl Access {
    /// Reaches a data directory that exists. If nobody holds it, this process does, with or without doing its work.
    pub async fn open(common: &Common, app: App, tasks: Tasks) -> Result<Access, Stop> {
        let mut config = config(common)?;
        config.settings.tasks = tasks;
        if tasks == Tasks::Leave {
            config.control = config::Control::Silent;
        }
        let data = config.data.clone();
        if !data.join("meta").exists() {
            let data = shown(&data);
            return Err(Stop::usage(format!("there is no data directory {data}: `selvedge run PIPELINE.yaml` makes one, `--data DIR` names another")));
        }
        let slots = Slots::read(&data)?;
        let manifest = common.app.clone().or(slots.manifest.filter(|file| file.exists())).or_else(|| manifest_of(common, None));
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

    /// Asks, lets go of the directory if it was ours, and gives the answer.
    pub async fn ask_once(self, request: Request) -> Result<Value, Stop> {
        let mut access = self;
        let answer = access.ask(request).await;
        access.close().await?;
        Ok(answer?)
    }

    /// Asks.
    pub async fn ask(&mut self, request: Request) -> Result<Value, Problem> {
        match self {
            Access::Holder(control) => control.ask(&request).await,
            Access::Own(engine) => perform(&engine.inner, &engine.tenant, request).await,
        }
    }

    /// Whether somebody works on what is accepted.
    pub fn is_held(&self) -> bool {
        matches!(self, Access::Holder(_))
    }

    pub async fn close(self) -> Result<(), Stop> {
        if let Access::Own(engine) = self {
            engine.close().await?;
        }
        Ok(())
    }
}

async fn connect(data: &Path) -> Result<Option<Control>, Stop> {
    Control::connect(data).await.map_err(|error| {
        let consequence = if error.kind() == std::io::ErrorKind::PermissionDenied { Consequence::NotPermitted } else { Consequence::Retry };
        Stop::from(Problem::new(consequence, "not_reachable", format!("the holder of {} cannot be reached: {error}", data.display())))
    })
}
