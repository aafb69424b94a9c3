//! What `run` notes in the data directory: which run goes with which pipeline and input, and which manifest it used.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::control::NOTES;

use super::exit::{Code, Stop};

/// The notes.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Slots {
    /// The manifest of the last run.
    pub manifest: Option<PathBuf>,
    /// Random, one for each data directory: the same pipeline and input elsewhere is other work, under other keys.
    #[serde(default)]
    pub nonce: String,
    /// By pipeline and hash of the input.
    pub runs: BTreeMap<String, Slot>,
}

/// The runs of one pipeline and input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// Counts up with each new run.
    pub generation: u64,
    /// The version of the file that the last one was started with.
    pub version: String,
    /// The last one; none if a kill came before it was known.
    pub run: Option<String>,
}

impl Slots {
    /// The random part of this directory's keys, drawn when it is first wanted.
    pub fn nonce(&mut self) -> Result<&str, Stop> {
        if self.nonce.is_empty() {
            let mut bytes = [0u8; 8];
            getrandom::fill(&mut bytes).map_err(|error| Stop::new(Code::Configuration, format!("the system gives no random bytes: {error}")))?;
            self.nonce = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        }
        Ok(&self.nonce)
    }

    /// The notes of a data directory; none yet are empty ones.
    pub fn read(data: &Path) -> Result<Slots, Stop> {
        let file = data.join(NOTES);
        match std::fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| {
                Stop::new(Code::Configuration, format!("{} is damaged ({error}): remove it; open runs stay in `selvedge runs list`", file.display()))
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Slots::default()),
            Err(error) => Err(Stop::new(Code::Configuration, format!("{} cannot be read: {error}", file.display()))),
        }
    }

    /// Writes them so that a kill leaves the old ones or these.
    pub fn write(&self, data: &Path) -> Result<(), Stop> {
        let (file, new) = (data.join(NOTES), data.join("cli.json.new"));
        let written = || -> std::io::Result<()> {
            let mut to = std::fs::File::create(&new)?;
            to.write_all(&serde_json::to_vec_pretty(self)?)?;
            to.sync_all()?;
            std::fs::rename(&new, &file)?;
            std::fs::File::open(data)?.sync_all()
        };
        written().map_err(|error| Stop::new(Code::Configuration, format!("{} cannot be written: {error}", file.display())))
    }
}
