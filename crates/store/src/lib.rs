//! Selvedge's embedded store: a log, a table in memory, and a tree; and the suite that every store passes.
//!
//! `LAYOUT.md` beside this crate's manifest says byte by byte what lies on disk, and what is assumed of the medium.

pub mod backup;
pub mod check;
pub mod conformance;
pub mod directory;
pub mod disk;
pub mod entry;
pub mod error;
pub mod export;
pub mod group;
pub mod import;
pub mod options;
pub mod recovery;

mod bring;
mod carry;
mod copy;
mod dump;
mod embedded;
mod files;
mod layer;
mod log;
mod merge;
mod open;
mod pass;
mod place;
mod position;
mod queue;
mod reply;
mod segment;
mod shadow;
mod stack;
mod still;
mod table;
mod tree;

pub use backup::{Backup, BackupError, backup, restore};
pub use check::{Report, check};
pub use copy::ReadOnlyCopy;
pub use disk::{Fault, Faults, Unsynced};
pub use embedded::{EmbeddedStore, Stats};
pub use error::OpenError;
pub use export::{Exported, PortError, export};
pub use import::{Imported, import};
pub use options::Options;
pub use place::PlaceError;
