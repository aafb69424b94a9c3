//! Where a backup, an export or a new store goes, and what can be in the way there.

use std::io;
use std::path::{Path, PathBuf};

/// Why something cannot be read or written where it is.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// Something is where a directory is to be filled.
    #[error("{} is not empty: nothing was written; name an empty or a new directory", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// The operating system refused something.
    #[error("{doing} {}: check that the path exists, is writable and has space; what was written there is of no use, remove it", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
}

/// For `map_err`: what was tried on which path.
pub(crate) fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PlaceError {
    let path = path.to_owned();
    move |source| PlaceError::Io { doing, path, source }
}

/// Makes a directory, or refuses one that holds something.
pub(crate) fn empty(path: &Path) -> Result<(), PlaceError> {
    if !path.exists() {
        return std::fs::create_dir_all(path).map_err(failed("cannot create", path));
    }
    match std::fs::read_dir(path).map_err(failed("cannot read", path))?.next() {
        None => Ok(()),
        Some(_) => Err(PlaceError::NotEmpty { path: path.to_owned() }),
    }
}
