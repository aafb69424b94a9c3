//! A tree, or a whole store, that is looked at without a write to it. fjall writes when it opens a tree, so it gets a copy of the small
//! files, in memory or in the folder for temporary files, with links to the table files, which never change.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};

use crate::directory;

/// The folder of table files in a keyspace.
const TABLES: &str = "tables";

/// A copy of a tree or of a whole data directory, removed when it is dropped.
pub struct Shadow {
    data: PathBuf,
}

/// So much is read at once of what is copied.
const BLOCK_BYTES: usize = 256 * 1024;

impl Shadow {
    /// The copy of a tree; an empty place if there is none.
    pub fn of(tree: &Path) -> io::Result<Shadow> {
        let shadow = Shadow::in_first(&[PathBuf::from("/dev/shm"), std::env::temp_dir()])?;
        if tree.exists() {
            copy(&tree.canonicalize()?, &shadow.tree())?;
        }
        Ok(shadow)
    }

    /// The copy of a whole data directory.
    pub fn of_store(data: &Path) -> io::Result<Shadow> {
        // A log is large: memory is the last choice.
        let shadow = Shadow::in_first(&[std::env::temp_dir(), PathBuf::from("/dev/shm")])?;
        let (data, to) = (data.canonicalize()?, shadow.data());
        if data.join("log").exists() {
            std::fs::create_dir(to.join("log"))?;
            for entry in std::fs::read_dir(data.join("log"))? {
                let entry = entry?;
                copy_with_holes(&entry.path(), &to.join("log").join(entry.file_name()))?;
            }
        }
        if data.join("tree").exists() {
            copy(&data.join("tree"), &shadow.tree())?;
        }
        std::fs::write(to.join("meta"), std::fs::read(data.join("meta"))?)?;
        Ok(shadow)
    }

    /// An empty place in the first of these folders that can be written to.
    fn in_first(places: &[PathBuf]) -> io::Result<Shadow> {
        let name: String = directory::random_bytes()?.iter().map(|byte| format!("{byte:02x}")).collect();
        let name = format!("selvedge-check-{name}");
        for place in places {
            let data = place.join(&name);
            // What nobody else may read must not become a copy that everybody can.
            if DirBuilder::new().mode(0o700).create(&data).is_ok() {
                return Ok(Shadow { data });
            }
        }
        let text = "no folder for temporary files can be written to: name one that can in TMPDIR";
        Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, text))
    }

    /// Where the copy of a data directory lies.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.data.clone()
    }

    /// Where the copy of the tree lies.
    #[must_use]
    pub fn tree(&self) -> PathBuf {
        self.data.join("tree")
    }
}

impl Drop for Shadow {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.data).unwrap_or(());
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

/// Copies a file of which much may be zeros: these take no space in the copy, which is as long.
fn copy_with_holes(from: &Path, to: &Path) -> io::Result<()> {
    let (from, to) = (File::open(from)?, File::create_new(to)?);
    let mut block = vec![0; BLOCK_BYTES];
    let mut at = 0;
    loop {
        let count = from.read_at(&mut block, at)?;
        if count == 0 {
            return to.set_len(at);
        }
        if block[..count].iter().any(|byte| *byte != 0) {
            to.write_all_at(&block[..count], at)?;
        }
        at += count as u64;
    }
}
