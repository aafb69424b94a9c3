//! A backup, taken by whoever holds the data directory, while its work goes on.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use selvedge_kernel::auth::{Action, Resource};
use selvedge_kernel::error::Consequence;
use selvedge_store::{Backup, BackupError, EmbeddedStore, PlaceError, backup};
use serde_json::{Value, json};

use super::{Desk, NOTES, Problem};

impl Desk {
    /// Writes a backup into an empty or new directory. It goes on when whoever asked goes away.
    pub(super) async fn backup(&self, to: PathBuf) -> Result<Value, Problem> {
        self.permit(Action::Operate, Resource::Store)?;
        let (store, data) = (self.store.clone(), self.data.clone());
        let taken = tokio::task::spawn_blocking(move || taken(&store, &data, &to));
        taken.await.map_err(|error| Problem::new(Consequence::Stop, "backup_failed", format!("the backup was not taken: {error}")))?
    }
}

fn taken(store: &Arc<EmbeddedStore>, data: &Path, to: &Path) -> Result<Value, Problem> {
    // Read first: a run that they do not name yet is found by its key, one that is not in the rows would be missing.
    let notes = notes_of(data).map_err(|error| noted(&data.join(NOTES), &error))?;
    let backup = backup(store, to, |_| {}).map_err(backup_problem)?;
    if let Some(notes) = notes {
        write_notes(to, &notes).map_err(|error| noted(&to.join(NOTES), &error))?;
    }
    Ok(json!({ "to": to, "rows": backup.size.rows, "bytes": backup.size.bytes, "group": backup.group, "store": hex(&backup) }))
}

fn hex(backup: &Backup) -> String {
    backup.store.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What `run` has noted in a directory, if it has.
pub(crate) fn notes_of(folder: &Path) -> io::Result<Option<Vec<u8>>> {
    match std::fs::read(folder.join(NOTES)) {
        Ok(notes) => Ok(Some(notes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Puts notes into a directory that has none; durable when this returns.
pub(crate) fn write_notes(folder: &Path, notes: &[u8]) -> io::Result<()> {
    let mut file = std::fs::File::create(folder.join(NOTES))?;
    file.write_all(notes)?;
    file.sync_all()?;
    std::fs::File::open(folder)?.sync_all()
}

fn noted(file: &Path, error: &io::Error) -> Problem {
    let text = format!("{} cannot be copied ({error}): remove what was written, look at the file, and take the backup again", file.display());
    Problem::new(Consequence::Stop, "backup_failed", text)
}

/// What is wrong, as the doors say it.
pub(crate) fn backup_problem(error: BackupError) -> Problem {
    let (consequence, code) = match &error {
        BackupError::Place(PlaceError::NotEmpty { .. }) => (Consequence::Conflict, "not_empty"),
        BackupError::Damaged { .. } => (Consequence::FixInput, "backup_damaged"),
        BackupError::Place(PlaceError::Io { .. }) | BackupError::Store(_) | BackupError::Restored(_) => (Consequence::Stop, "backup_failed"),
    };
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    Problem::new(consequence, code, text)
}
