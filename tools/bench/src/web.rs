//! The HTTP API under load, each figure beside somebody else's server in the same round: a bare axum handler, or Restate.

mod bare;
mod child;
mod compare;
mod idle;
mod peers;
mod serving;
mod wrk;

use std::path::{Path, PathBuf};

use crate::load::Failed;

/// `bench DIR http`.
pub fn http(dir: &Path) -> Result<(), Failed> {
    compare::with_bare(dir)?;
    compare::flooded(dir)?;
    idle::subscribers(dir)
}

/// `bench DIR peers SERVER SERVICE`: the paths of Restate's server and of the service that runs on it.
pub fn peers(dir: &Path, server: PathBuf, service: PathBuf) -> Result<(), Failed> {
    peers::measure(dir, server, service)
}

/// A process that this program starts of itself.
pub async fn child(words: &[String]) -> Result<(), Failed> {
    match words {
        [word, data, requests] if word == "serving" => serving::run(Path::new(data), requests.parse()?).await,
        [word, frames] if word == "bare" => bare::run(Path::new(frames)).await,
        _ => Err(format!("there is no such process: {words:?}").into()),
    }
}
