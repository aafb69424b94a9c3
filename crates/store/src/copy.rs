//! A copy of a data directory that may only be read, so that it can be opened and looked at.

use std::path::{Path, PathBuf};

use crate::directory::{self, Directory};
use crate::error::OpenError;
use crate::shadow::Shadow;

/// A copy that opens as the store itself would, removed when it is dropped. Until then no other process gets the original,
/// unless that has no `lock`.
///
/// The log and the small files of the tree are copied, to the folder for temporary files or to `/dev/shm`; the table files,
/// which never change, are linked. What is written into the copy is lost with it.
pub struct ReadOnlyCopy {
    shadow: Shadow,
    _original: Directory,
}

impl ReadOnlyCopy {
    /// The copy of a data directory that no process has open.
    ///
    /// # Errors
    /// As for opening a store; and no folder for temporary files can be written to, or has not the space.
    pub fn of(dir: &Path, command: &str) -> Result<ReadOnlyCopy, OpenError> {
        let original = directory::look(dir, command)?;
        let shadow = Shadow::of_store(dir).map_err(OpenError::io("cannot copy to the folder for temporary files what may only be read:", dir))?;
        Ok(ReadOnlyCopy { shadow, _original: original })
    }

    /// Whether a data directory may only be read by this process.
    #[must_use]
    pub fn is_needed(dir: &Path) -> bool {
        let writable = |path: &Path| rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok();
        ["", "log", "tree"].iter().map(|name| dir.join(name)).filter(|path| path.exists()).any(|path| !writable(&path))
    }

    /// Where it lies.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.shadow.data()
    }
}
