//! A tree that is looked at without a write to it. fjall writes when it opens a tree, so it gets a copy of the small
//! files, in memory or in the folder for temporary files, with links to the table files, which never change.

use std::io;
use std::path::{Path, PathBuf};

use crate::directory;

/// The folder of table files in a keyspace.
const TABLES: &str = "tables";

/// A copy of a tree, removed when it is dropped.
pub struct Shadow {
    folder: PathBuf,
}

impl Shadow {
    /// The copy of a tree; an empty place if there is none.
    pub fn of(tree: &Path) -> io::Result<Shadow> {
        let name: String = directory::random_bytes()?.iter().map(|byte| format!("{byte:02x}")).collect();
        let name = format!("selvedge-check-{name}");
        let mut places = [PathBuf::from("/dev/shm"), std::env::temp_dir()].into_iter();
        let shadow = loop {
            let Some(place) = places.next() else {
                let text = "no folder for temporary files can be written to: name one that can in TMPDIR";
                return Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, text));
            };
            let folder = place.join(&name);
            if std::fs::create_dir(&folder).is_ok() {
                break Shadow { folder };
            }
        };
        if tree.exists() {
            copy(&tree.canonicalize()?, &shadow.tree())?;
        }
        Ok(shadow)
    }

    /// Where the copy lies.
    #[must_use]
    pub fn tree(&self) -> PathBuf {
        self.folder.join("tree")
    }
}

impl Drop for Shadow {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.folder).unwrap_or(());
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir(to)?;
    let linked = from.file_name().is_some_and(|name| name == TABLES);
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy(&from, &to)?;
        } else if linked {
            std::os::unix::fs::symlink(&from, &to)?;
        } else {
            // The content alone: what cannot be written must not become a copy that cannot be.
            std::fs::write(&to, std::fs::read(&from)?)?;
        }
    }
    Ok(())
}
