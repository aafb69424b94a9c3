//! Files that call pipelines which are stored in the data directory.

use std::collections::BTreeSet;
use std::path::Path;

use selvedge_engine::wiring::Tasks;

use crate::app::App;
use crate::control::Request;
use crate::manifest::{FileError, LoadedPipeline};

use super::access::{ask_once, config};
use super::args::Common;

/// Reads a pipeline and checks its calls against a program with its manifest. The data directory is asked only where nothing
/// but calls of pipelines stands in the way, and only if there is one.
pub async fn load(common: &Common, app: &App, file: &Path) -> Result<LoadedPipeline, FileError> {
    match app.load_pipeline(file) {
        Err(_) if app.calls_others(file) => app.load_among(file, &names(common, app).await),
        loaded => loaded,
    }
}

/// The names of the pipelines that are stored; none if nobody can say.
async fn names(common: &Common, app: &App) -> BTreeSet<String> {
    if !common.is_remote() && !config(common).is_ok_and(|config| config.data.join("meta").exists()) {
        return BTreeSet::new();
    }
    // What keeps the directory from being read is said by the verb that needs it.
    let found = ask_once(common, app.clone(), Tasks::Leave, Request::Pipelines).await.unwrap_or_default();
    found.as_array().into_iter().flatten().filter_map(|one| one["name"].as_str().map(str::to_owned)).collect()
}
