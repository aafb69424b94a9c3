//! What an exec pool runs, where, and with what around it.

use selvedge_kernel::error::{AttemptError, WorkError};
use selvedge_kernel::pipeline::definition::{Exec, Variable};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::secret::{self, Secret};
use super::shut::Shut;

/// The variables of our own environment that a program gets besides its declared ones.
pub const INHERITED: [&str; 3] = ["PATH", "HOME", "LANG"];

/// A program that serves activities, as the manifest declares it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExecSpec {
    /// The activities that it must offer; a persistent worker whose `hello` lacks one is not used.
    pub activities: Vec<String>,
    /// Program and arguments; no shell reads them.
    pub command: Vec<String>,
    /// The folder that it runs in.
    pub folder: PathBuf,
    /// Its whole environment: nothing of ours reaches it otherwise.
    pub environment: BTreeMap<String, String>,
    /// The values of secrets in it: they are blotted out in whatever the program says.
    pub secrets: Vec<Secret>,
    /// References to secrets that led to nothing: the program is not started.
    pub unresolved: Vec<String>,
    /// A JSON Lines worker that is kept (true), or a process per task (false).
    pub persistent: bool,
    /// At most so many processes at the same time, at least 1.
    pub processes: u32,
    /// The task gets the path of a JSON Lines file instead of its input.
    pub as_file: bool,
    /// What keeps the processes from outliving us.
    pub shim: Option<Shim>,
    /// The folder that input files of `as_file` are written to.
    pub scratch: PathBuf,
}

/// The program that stands between us and what we run, so that nothing outlives us: a binary that hands
/// `__exec-shim …` to [`super::shim_main`], in practice our own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shim {
    /// Its path: `std::env::current_exe()` of a binary that knows the verb.
    pub program: PathBuf,
    /// A file that is locked as long as anything started through the shim lives: see [`super::orphans_gone`].
    pub lock: Option<PathBuf>,
    /// The data directory that programs are to be kept out of.
    pub shut: Option<Shut>,
}

impl ExecSpec {
    /// The spec of a declared program that serves these activities, without a shim. Of `ours`, our own environment, it
    /// gets those of [`INHERITED`] that are there.
    #[must_use]
    pub fn new(exec: &Exec, activities: Vec<String>, ours: &BTreeMap<String, String>, scratch: PathBuf) -> ExecSpec {
        let mut environment: BTreeMap<String, String> = INHERITED.iter().filter_map(|name| Some(((*name).to_owned(), ours.get(*name)?.clone()))).collect();
        let (mut secrets, mut unresolved) = (Vec::new(), Vec::new());
        for (name, variable) in &exec.environment {
            let value = match variable {
                Variable::Text(text) => text.clone(),
                Variable::Secret { secret } => match secret::resolve(secret, ours, Path::new(&exec.folder)) {
                    Ok(value) => {
                        secrets.push(Secret { reference: secret.clone(), value: value.clone() });
                        value
                    }
                    Err(reason) => {
                        unresolved.push(reason);
                        continue;
                    }
                },
            };
            environment.insert(name.clone(), value);
        }
        ExecSpec {
            activities,
            command: exec.command.clone(),
            folder: PathBuf::from(&exec.folder),
            environment,
            secrets,
            unresolved,
            persistent: exec.persistent,
            processes: exec.processes.max(1),
            as_file: exec.as_file,
            shim: None,
            scratch,
        }
    }

    /// The same, through this shim.
    #[must_use]
    pub fn with_shim(mut self, shim: Shim) -> ExecSpec {
        self.shim = Some(shim);
        self
    }

    /// The command as people read it.
    #[must_use]
    pub fn shown(&self) -> String {
        super::bound::shorten(&self.command.join(" "), 200)
    }

    /// The error of a program that cannot be used as it is declared.
    pub(super) fn unusable(&self, reason: &str) -> AttemptError {
        let text = format!("`{}` in {} cannot be used: {reason}", self.shown(), self.folder.display());
        AttemptError { error: WorkError::new("exec_start", text), retryable: false, retry_after_ms: None }
    }
}
