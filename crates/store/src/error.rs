//! Why a store could not be opened.

use std::io;
use std::path::PathBuf;

/// Why a data directory could not be opened. Nothing was changed in it, except where the text says so.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error(
        "the data directory {} is in use by process {pid} (`{command}`, since {since}): \
         stop that process, or use another directory",
        path.display()
    )]
    Held {
        /// The data directory.
        path: PathBuf,
        /// The other process.
        pid: String,
        /// When it opened the directory, RFC 3339.
        since: String,
        /// What it was started as.
        command: String,
    },
    /// Something lies there that is no store.
    #[error(
        "{} holds files but is no data directory of Selvedge ({reason}): nothing was written; \
         name an empty or a new directory",
        path.display()
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// How that was seen.
        reason: String,
    },
    /// An import into it did not come to its end.
    #[error(
        "the data directory {} is incomplete: an import into it ({note}) is under way or was interrupted. Wait for it; if there \
         is none, remove the directory, and import again: the export is as it was",
        path.display()
    )]
    Incomplete {
        /// The directory.
        path: PathBuf,
        /// What the import has noted.
        note: String,
    },
    /// Written by a newer version.
    #[error(
        "the data directory {} has format {found}, this binary knows formats up to {known}: \
         start the version that wrote it, or a newer one",
        path.display()
    )]
    Newer {
        /// The directory.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// The log is damaged before its end.
    #[error(
        "the log is damaged: {} at byte {offset}: {reason}. Nothing was changed. What lies behind this place was \
         acknowledged, so it is not cut away: restore a backup, or keep a copy of the directory and ask for help",
        file.display()
    )]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// What was found.
        reason: String,
    },
    /// The tree under the log could not be opened.
    #[error("the tree in {} does not open: {reason}. Nothing was changed in the log; restore a backup of the directory", path.display())]
    Tree {
        /// The tree's directory.
        path: PathBuf,
        /// What it said.
        reason: String,
    },
    /// The operating system refused something.
    #[error("{} {}: check that the path exists, is writable and has space", doing, path.display())]
    Io {
        /// What was tried, for example `cannot read`.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
}

impl OpenError {
    /// For `map_err`: what was tried on which path.
    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> OpenError {
        let path = path.into();
        move |source| OpenError::Io { doing, path, source }
    }
}
