//! `pipelines check`, and which application a command speaks of.

use std::path::{Path, PathBuf};

use selvedge_kernel::diagnostic::Diagnostic;
use selvedge_kernel::pipeline::agree::disagreements;
use selvedge_kernel::pipeline::definition::{Definition, Exec, Executor};
use selvedge_kernel::schedule::{Schedule, next, shown};
use serde_json::json;

use crate::app::App;
use crate::manifest::FileError;
use crate::program::not_on_path;

use super::args::{Common, Output};
use super::exit::{Code, Stop};
use super::{happened, print, stored};

/// The manifest of a command: as named, else beside the pipeline, else in the current folder.
pub fn manifest_of(common: &Common, pipeline: Option<&Path>) -> Option<PathBuf> {
    if let Some(named) = &common.app {
        return Some(named.clone());
    }
    let beside = pipeline.and_then(Path::parent).map(|folder| folder.join("app.yaml"));
    [beside, Some(PathBuf::from("app.yaml"))].into_iter().flatten().find(|file| file.exists())
}

/// The application with what its manifest declares.
pub fn with_manifest(app: App, manifest: Option<&Path>) -> Result<App, FileError> {
    Ok(match manifest {
        Some(file) => app.manifest(file)?,
        None => app,
    })
}

/// `pipelines check`
pub async fn pipelines(common: &Common, app: App, mut files: Vec<PathBuf>) -> Result<Code, Stop> {
    if files.is_empty() {
        files = with_manifest(app.clone(), manifest_of(common, None).as_deref())?.pipelines;
        if files.is_empty() {
            return Err(Stop::usage("no pipeline is named here: write `selvedge pipelines check FILE…`, or list them under `pipelines` in app.yaml"));
        }
    }
    let mut checked = Vec::new();
    let mut errors: Vec<Diagnostic> = Vec::new();
    let mut warnings: Vec<Diagnostic> = Vec::new();
    let mut shared = Vec::new();
    for file in &files {
        // Files of one folder share one manifest; what is wrong with it is said once.
        let manifest = manifest_of(common, Some(file));
        let declared = match &manifest {
            Some(manifest) => app.clone().manifest(manifest),
            None => Ok(app.clone()),
        };
        let loaded = match declared {
            Ok(declared) => {
                let absent = absent(manifest.as_deref().unwrap_or(file), declared.registry.programs());
                warnings.extend(absent.into_iter().filter(|one| !warnings.contains(one)).collect::<Vec<_>>());
                stored::load(common, &declared, file).await
            }
            Err(wrong) => Err(wrong),
        };
        match loaded {
            Ok(pipeline) => {
                warnings.extend(pipeline.warnings);
                let own = pipeline.definition.activities.iter().filter_map(|(name, declared)| match &declared.executor {
                    Executor::Exec(exec) => Some((name.clone(), exec.clone())),
                    Executor::Http(_) | Executor::Native | Executor::Worker(_) => None,
                });
                warnings.extend(absent(file, own));
                errors.extend(disagreements(&shared, &pipeline.declared).iter().map(|one| one.diagnostic("")));
                shared.extend(pipeline.declared);
                checked.push((file, pipeline.definition, pipeline.version));
            }
            Err(wrong) => errors.extend(wrong.0.into_iter().filter(|one| !errors.contains(one)).collect::<Vec<_>>()),
        }
    }
    if common.output == Output::Json {
        let shown = |found: &[Diagnostic]| {
            found
                .iter()
                .map(|one| json!({ "file": one.file, "line": one.line, "column": one.column, "message": one.message, "hint": one.hint }))
                .collect::<Vec<_>>()
        };
        let right: Vec<_> = checked
            .iter()
            .map(|(file, definition, version)| json!({ "file": file, "name": definition.name, "version": version, "stages": definition.stages.len(), "fires": fires(definition) }))
            .collect();
        print::say(&print::pretty(&json!({ "ok": right, "errors": shown(&errors), "warnings": shown(&warnings) })))?;
        return Ok(if errors.is_empty() { Code::Done } else { Code::Configuration });
    }
    for warning in &warnings {
        print::note(&format!("warning: {warning}"));
    }
    for (file, definition, version) in &checked {
        print::say(&format!("{}: `{}` is right: {}, version {version}", file.display(), definition.name, count(definition.stages.len(), "stage")))?;
        for (index, fire) in fires(definition).iter().enumerate() {
            print::say(&format!("  {} {fire}", if index == 0 { "would fire" } else { "          " }))?;
        }
    }
    match errors.len() {
        0 => Ok(Code::Done),
        more => {
            let listed: Vec<String> = errors.iter().map(Diagnostic::to_string).collect();
            Err(Stop::new(Code::Configuration, format!("{}\n{}", count(more, "error"), listed.join("\n"))))
        }
    }
}

/// Programs that a file declares and that are not on PATH here.
pub fn absent(file: &Path, programs: impl IntoIterator<Item = (String, Exec)>) -> Vec<Diagnostic> {
    let of = |(activity, exec): (String, Exec)| {
        let (what, hint) = not_on_path(&exec)?;
        Some(Diagnostic { file: file.display().to_string(), line: 0, column: 0, message: format!("`{activity}`: {what}"), hint: Some(hint) })
    };
    programs.into_iter().filter_map(of).collect()
}

/// The next five fires of its schedule, as the clock of its zone shows them.
pub fn fires(definition: &Definition) -> Vec<String> {
    let Some(Ok(schedule)) = definition.schedule.clone().map(Schedule::new) else { return Vec::new() };
    next(&schedule, happened::now(), 5).into_iter().map(|fire| shown(&schedule, fire)).collect()
}

/// `1 stage`, `2 stages`
pub fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}
