//! The portable form of a data directory, written by whoever holds it, while its work goes on.

use std::path::PathBuf;

use selvedge_kernel::auth::{Action, Resource};
use selvedge_kernel::error::Consequence;
use selvedge_store::{PlaceError, PortError, export};
use serde_json::{Value, json};

use super::backup::notes_of;
use super::{Desk, NOTES, Problem};

impl Desk {
    /// Writes an export into a new file. It goes on when whoever asked goes away.
    pub(super) async fn export(&self, to: PathBuf) -> Result<Value, Problem> {
        self.permit(Action::Operate, Resource::Store)?;
        let (store, data) = (self.store.clone(), self.data.clone());
        let taken = tokio::task::spawn_blocking(move || {
            // Read first: a run that they do not name yet is found by its key, one that is not in the rows would be missing.
            let unreadable = |error: &dyn std::fmt::Display| {
                let text = format!("{} cannot be read ({error}): look at the file, and export again", data.join(NOTES).display());
                Problem::new(Consequence::Stop, "export_failed", text)
            };
            let notes = notes_of(&data).map_err(|error| unreadable(&error))?;
            let notes = notes.map(String::from_utf8).transpose().map_err(|error| unreadable(&error))?;
            let done = export(&store, &to, notes).map_err(export_problem)?;
            Ok(json!({ "to": to, "lines": done.lines, "bytes": done.bytes, "envelopes": done.envelopes, "group": done.group }))
        });
        taken.await.map_err(|error| Problem::new(Consequence::Stop, "export_failed", format!("nothing was exported: {error}")))?
    }
}

/// What is wrong, as the doors say it.
pub(crate) fn export_problem(error: PortError) -> Problem {
    let (consequence, code) = match &error {
        PortError::Exists { .. } | PortError::Place(PlaceError::NotEmpty { .. }) => (Consequence::Conflict, "not_empty"),
        PortError::Unsound { .. } => (Consequence::Stop, "store_damaged"),
        PortError::Damaged { .. } => (Consequence::FixInput, "export_damaged"),
        PortError::Shards { .. } => (Consequence::FixInput, "shards"),
        PortError::Place(PlaceError::Io { .. }) | PortError::Store(_) | PortError::Made(_) => (Consequence::Stop, "export_failed"),
    };
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    Problem::new(consequence, code, text)
}
