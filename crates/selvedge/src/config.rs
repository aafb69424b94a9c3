//! What an engine is opened with, and how a configuration becomes it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use selvedge_engine::engine::ExecSettings;
use selvedge_engine::exec::Shim;
use selvedge_engine::wiring::{Recorded, Settings};
use selvedge_kernel::config::{Configured, Landlock};
use selvedge_kernel::transition::Keep;

use crate::log::Log;

/// Whether the holder of a data directory answers the command line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Control {
    /// On `DATA/control.sock`.
    Listen,
    /// Not at all: it is there for one verb and gone.
    Silent,
}

/// What an engine is opened with.
///
/// ```
/// let mut config = selvedge::Config::on("./data");
/// config.settings.workers = 1;
/// assert_eq!(config.tenant, "default");
/// ```
#[derive(Clone, Debug)]
pub struct Config {
    /// The data directory.
    pub data: PathBuf,
    /// The tenant of the local client.
    pub tenant: String,
    /// The engine's settings.
    pub settings: Settings,
    /// What programs run with. Without its shim, which the `selvedge` binary is for itself, a program that runs when this
    /// process is killed may outlive it.
    pub exec: ExecSettings,
    /// The command that holds the directory, for whoever finds it locked.
    pub command: String,
    /// How long an open waits for programs that a killed engine left behind, before it starts its own.
    pub orphans_within: Duration,
    /// Whether the command line is answered.
    pub control: Control,
    /// The folder of the policies, which is read again when it changes; none: what `settings` say, the rule that is built in
    /// unless somebody set others.
    #[cfg(feature = "cedar")]
    pub policies: Option<PathBuf>,
    /// The folder of policies that are asked beside them and decide nothing: where they differ is recorded. It is read again as well.
    #[cfg(feature = "cedar")]
    pub shadow: Option<PathBuf>,
    /// Where lines go about what happens; none: what somebody is to look at goes to standard error, in a sentence.
    pub log: Option<Log>,
    /// Whether programs that are started through the shim are kept out of the data directory.
    pub landlock: Landlock,
}

impl Config {
    /// The defaults, on a data directory.
    #[must_use]
    pub fn on(data: impl AsRef<Path>) -> Config {
        // Absolute from here on: programs run in folders of their own.
        let data = std::path::absolute(data.as_ref()).unwrap_or_else(|_| data.as_ref().to_path_buf());
        let exec = ExecSettings { scratch: data.join("scratch"), environment: std::env::vars().collect(), ..ExecSettings::default() };
        Config {
            data,
            tenant: "default".to_owned(),
            settings: Settings::default(),
            exec,
            command: std::env::args().collect::<Vec<_>>().join(" "),
            orphans_within: Duration::from_secs(30),
            control: Control::Listen,
            #[cfg(feature = "cedar")]
            policies: None,
            #[cfg(feature = "cedar")]
            shadow: None,
            log: None,
            landlock: Landlock::Auto,
        }
    }

    /// Starts programs through a `selvedge` binary, which ends them when this process is killed; an opening then waits for what
    /// is left of them.
    ///
    /// ```
    /// let config = selvedge::Config::on("./data").shim("/usr/local/bin/selvedge");
    /// assert!(config.exec.shim.is_some());
    /// ```
    #[must_use]
    pub fn shim(mut self, program: impl Into<PathBuf>) -> Config {
        self.exec.shim = Some(Shim { program: program.into(), lock: Some(self.programs_lock()), shut: None });
        self
    }

    /// What a checked configuration says.
    #[must_use]
    pub fn of(configured: &Configured) -> Config {
        let said = &configured.config;
        let mut config = Config::on(&said.data);
        config.landlock = said.landlock;
        let keep = Keep {
            finished: said.retention.finished.0,
            dead_letters: said.retention.dead_letters.0,
            decisions: said.retention.decisions.0,
            ledger: said.retention.ledger.0,
            ..Keep::default()
        };
        #[cfg(feature = "cedar")]
        {
            let folder = |said: &Option<String>| said.as_ref().map(|folder| std::path::absolute(folder).unwrap_or_else(|_| folder.into()));
            config.policies = folder(&said.authorization.policies);
            config.shadow = folder(&said.authorization.shadow);
        }
        let cores = || std::thread::available_parallelism().map_or(2, usize::from);
        config.settings = Settings {
            limits: said.limits,
            keep,
            replay_always: said.replay_always,
            workers: said.workers.map_or_else(cores, |workers| workers as usize),
            recorded: if said.authorization.record_allowed { Recorded::All } else { Recorded::Denials },
            // A type's own wait stands unless somebody wrote another one for all.
            suspend_after: configured.origins.contains_key("/suspend_after").then_some(said.suspend_after.0),
            ..Settings::default()
        };
        config
    }

    /// The file that is locked as long as a program of this directory's engine lives.
    #[must_use]
    pub fn programs_lock(&self) -> PathBuf {
        self.data.join("programs.lock")
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
