//! `app.yaml`: programs that serve activities and handlers, beside what the Rust program registers itself.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use selvedge_engine::registry::{self, Registry};
use selvedge_kernel::diagnostic::{Diagnostic, listed};
use selvedge_kernel::manifest::{Manifest, Performer, parse_manifest};
use selvedge_kernel::nearest::suggestion;
use selvedge_kernel::pipeline::agree::{Declared, disagreements, in_file, of_activity, of_definition};
use selvedge_kernel::pipeline::definition::{Definition, Exec, Executor};
use selvedge_kernel::pipeline::parse::{Known, name_of, parse_pipeline_among, version};

use crate::app::App;
use crate::program::missing;

/// What is wrong with a file: all of it, each with its place and what to write instead.
#[derive(Debug, thiserror::Error)]
#[error("{}", listed(.0))]
pub struct FileError(pub Vec<Diagnostic>);

/// A pipeline from a file, ready to be started.
#[derive(Clone, Debug)]
pub struct LoadedPipeline {
    /// With the folders of its programs made absolute.
    pub definition: Definition,
    /// The content hash of what the file says.
    pub version: String,
    /// What is allowed, but may not be meant.
    pub warnings: Vec<Diagnostic>,
    /// What its activities share with those of other pipelines that name them.
    pub(crate) declared: Vec<Declared>,
}

impl App {
    /// Takes in what an `app.yaml` declares. Native activities and handlers are registered before.
    ///
    /// # Errors
    /// Everything that is wrong with the file, and names that are taken.
    ///
    /// ```no_run
    /// # fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let app = selvedge::App::new().manifest("app.yaml")?;
    /// # let _ = app; Ok(()) }
    /// ```
    pub fn manifest(mut self, file: impl AsRef<Path>) -> Result<App, FileError> {
        let file = file.as_ref();
        let name = file.display().to_string();
        let text = read(file)?;
        let (manifest, _) = parse_manifest(&name, &text).map_err(FileError)?;
        let folder = folder_of(file)?;
        let mut wrong = Vec::new();
        let pipelines: Vec<PathBuf> = manifest.pipelines.iter().map(|pipeline| file.with_file_name(pipeline)).collect();
        let origin = Origin { file: &name, folder: &folder };
        self.declared.extend(in_file(of_manifest(&manifest), &name, &text));
        take(&mut self.registry, manifest, &origin, &mut wrong);
        // One may call another that stands behind it.
        let names: BTreeSet<String> = pipelines.iter().filter_map(|pipeline| name_of(&read(pipeline).ok()?)).collect();
        for pipeline in &pipelines {
            match self.load_among(pipeline, &names) {
                Ok(loaded) => {
                    let (name, found) = (loaded.definition.name.clone(), pipeline.display());
                    self.declare(&name, loaded.declared);
                    if self.registry.pipelines.insert(name.clone(), loaded.definition).is_some() {
                        wrong.push(origin.wrong(format!("a second pipeline is called `{name}`: {found}"), "give one of them another name"));
                    }
                }
                Err(errors) => wrong.extend(errors.0),
            }
        }
        self.pipelines.extend(pipelines);
        if wrong.is_empty() { Ok(self) } else { Err(FileError(wrong)) }
    }

    /// What pipelines may call in this program.
    ///
    /// ```
    /// use selvedge::{Activity, App, Attempt};
    /// const MAIL: Activity<String, ()> = Activity::new("mail");
    /// let app = App::new().activity(MAIL, async |_: Attempt, _: String| Ok(()));
    /// assert!(app.known().activities.contains("mail"));
    /// ```
    #[must_use]
    pub fn known(&self) -> Known {
        let handlers = |actor: &registry::ActorType| actor.handlers.keys().cloned().collect();
        Known {
            activities: self.registry.activities.keys().cloned().collect(),
            actors: self.registry.actors.iter().map(|(kind, actor)| (kind.clone(), handlers(actor))).collect(),
            pipelines: Some(self.registry.pipelines.keys().cloned().collect()),
            egress: self.registry.egress.clone(),
        }
    }

    /// Reads a pipeline and checks its calls against this program.
    ///
    /// # Errors
    /// Everything that is wrong with the file, calls of what nothing declares among it.
    ///
    /// ```
    /// # fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let file = std::env::temp_dir().join("selvedge-load-pipeline.yaml");
    /// std::fs::write(&file, "selvedge: 1\nname: nap\nstages: [{ name: rest, mode: sleep, for: 1s }]\n")?;
    /// assert_eq!(selvedge::App::new().load_pipeline(&file)?.definition.stages.len(), 1);
    /// # Ok(()) }
    /// # example().unwrap();
    /// ```
    pub fn load_pipeline(&self, file: impl AsRef<Path>) -> Result<LoadedPipeline, FileError> {
        self.load_among(file.as_ref(), &BTreeSet::new())
    }

    /// The same beside others, by their names.
    pub(crate) fn load_among(&self, file: &Path, others: &BTreeSet<String>) -> Result<LoadedPipeline, FileError> {
        let text = read(file)?;
        let mut known = self.known();
        known.pipelines.get_or_insert_default().extend(others.iter().cloned().chain(name_of(&text)));
        self.load_text(file, &text, &known)
    }

    /// Whether nothing is wrong with a file but calls of pipelines that are not in this program.
    #[cfg(feature = "cli")]
    pub(crate) fn calls_others(&self, file: &Path) -> bool {
        let known = Known { pipelines: None, ..self.known() };
        read(file).is_ok_and(|text| self.load_text(file, &text, &known).is_ok())
    }

    fn load_text(&self, file: &Path, text: &str, known: &Known) -> Result<LoadedPipeline, FileError> {
        let name = file.display().to_string();
        let (mut definition, warnings) = parse_pipeline_among(&name, text, Some(known)).map_err(FileError)?;
        let version = version(&definition);
        definition.version = Some(version.clone());
        let folder = folder_of(file)?;
        let origin = Origin { file: &name, folder: &folder };
        let mut wrong = Vec::new();
        for (activity, declared) in &mut definition.activities {
            match &mut declared.executor {
                Executor::Exec(exec) => origin.absolute(activity, exec, &mut wrong),
                Executor::Http(http) => http.folder = folder.to_string_lossy().into_owned(),
                Executor::Native => origin.registered(activity, &self.registry, &mut wrong),
                Executor::Worker(_) => {}
            }
        }
        let declared = in_file(of_definition(&definition), &name, text);
        wrong.extend(disagreements(&self.declared, &declared).iter().map(|one| one.diagnostic(&name)));
        if wrong.is_empty() { Ok(LoadedPipeline { definition, version, warnings, declared }) } else { Err(FileError(wrong)) }
    }
}

/// Reads a pipeline for its own sake: what it calls is not looked for.
#[cfg(feature = "cli")]
pub(crate) fn check_alone(file: &Path) -> Result<LoadedPipeline, FileError> {
    let (definition, warnings) = parse_pipeline_among(&file.display().to_string(), &read(file)?, None).map_err(FileError)?;
    Ok(LoadedPipeline { version: version(&definition), declared: Vec::new(), definition, warnings })
}

/// What the activities of a manifest share.
fn of_manifest(manifest: &Manifest) -> Vec<Declared> {
    let of = manifest.activities.iter().flat_map(|(name, activity)| {
        let http = match &activity.executor {
            Executor::Http(http) => Some(http),
            Executor::Exec(_) | Executor::Native | Executor::Worker(_) => None,
        };
        of_activity(name, activity.throttle.as_ref(), activity.breaker.as_ref(), http, "the manifest")
    });
    of.collect()
}

/// The file that declares something.
struct Origin<'a> {
    file: &'a str,
    folder: &'a Path,
}

impl Origin<'_> {
    fn wrong(&self, message: String, hint: &str) -> Diagnostic {
        Diagnostic { file: self.file.to_owned(), line: 0, column: 0, message, hint: (!hint.is_empty()).then(|| hint.to_owned()) }
    }

    fn absolute(&self, activity: &str, exec: &mut Exec, wrong: &mut Vec<Diagnostic>) {
        let folder = self.folder.join(&exec.folder);
        match folder.canonicalize() {
            Ok(folder) if folder.is_dir() => {
                if let Some((what, hint)) = missing(&exec.command, &folder) {
                    wrong.push(self.wrong(format!("{what} (`{activity}`)"), &hint));
                }
                exec.folder = folder.to_string_lossy().into_owned();
            }
            _ => wrong
                .push(self.wrong(format!("the folder `{}` of `{activity}` is not there", exec.folder), "`folder` is relative to the file that declares it")),
        }
    }

    fn registered(&self, activity: &str, registry: &Registry, wrong: &mut Vec<Diagnostic>) {
        if !matches!(registry.activities.get(activity), Some(known) if matches!(known.run, registry::Executor::Native(_))) {
            let near = suggestion(activity, registry.activities.keys().map(String::as_str));
            let hint = if near.is_empty() { "register it with App::activity in a binary of your own, or write exec: [program]".to_owned() } else { near };
            wrong.push(self.wrong(format!("`{activity}` is native, but this binary registers no such activity"), &hint));
        }
    }
}

fn take(registry: &mut Registry, manifest: Manifest, origin: &Origin<'_>, wrong: &mut Vec<Diagnostic>) {
    registry.egress.extend(manifest.egress);
    for (name, activity) in manifest.activities {
        let run = match activity.executor {
            Executor::Exec(mut exec) => {
                origin.absolute(&name, &mut exec, wrong);
                registry::Executor::Exec(exec)
            }
            Executor::Http(mut http) => {
                http.folder = origin.folder.to_string_lossy().into_owned();
                registry::Executor::Http(http)
            }
            Executor::Worker(worker) => registry::Executor::Worker(worker),
            Executor::Native => {
                origin.registered(&name, registry, wrong);
                if let Some(native) = registry.activities.get_mut(&name) {
                    native.retry = activity.retry;
                    native.timeout = activity.timeout;
                    native.throttle = activity.throttle;
                    native.breaker = activity.breaker;
                }
                continue;
            }
        };
        if registry.activities.contains_key(&name) {
            wrong.push(origin.wrong(format!("the activity `{name}` is registered by this binary already"), "give one of them another name"));
        }
        let taken = registry::Activity { run, retry: activity.retry, timeout: activity.timeout, throttle: activity.throttle, breaker: activity.breaker };
        registry.activities.insert(name, taken);
    }
    for (kind, actor) in manifest.actors {
        if let Some(expected) = actor.expected_within {
            registry.actors.entry(kind.clone()).or_default().options.expected_within = expected.0;
        }
        for (name, mut handler) in actor.handlers {
            let served = selvedge_engine::exec::handler_activity(&kind, &name);
            let build = match &mut handler.run {
                Performer::Exec(exec) => {
                    origin.absolute(&served, exec, wrong);
                    crate::build::of_program(&exec.command, Path::new(&exec.folder))
                }
                // Who takes its tasks is not known here.
                Performer::Worker(_) => None,
            };
            let transition = registry::Transition { activity: served.clone(), run: handler.run, retry: Some(handler.retry), timeout: handler.timeout, build };
            let handlers = &mut registry.actors.entry(kind.clone()).or_default().handlers;
            if handlers.insert(name, registry::Handler::Transition(transition)).is_some() {
                wrong.push(origin.wrong(format!("the handler `{served}` is registered by this binary already"), "give one of them another name"));
            }
        }
    }
}

fn read(file: &Path) -> Result<String, FileError> {
    std::fs::read_to_string(file).map_err(|error| {
        let hint = "name a file that is there and readable, as UTF-8 text".to_owned();
        FileError(vec![Diagnostic { file: file.display().to_string(), line: 0, column: 0, message: format!("cannot be read: {error}"), hint: Some(hint) }])
    })
}

/// The absolute folder that a file lies in.
fn folder_of(file: &Path) -> Result<PathBuf, FileError> {
    let absolute = file.canonicalize().map_err(|error| {
        FileError(vec![Diagnostic {
            file: file.display().to_string(),
            line: 0,
            column: 0,
            message: format!("its folder cannot be found: {error}"),
            hint: None,
        }])
    })?;
    Ok(absolute.parent().map_or_else(|| PathBuf::from("/"), Path::to_path_buf))
}
