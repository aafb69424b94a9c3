//! The file layer: every write, sync, creation and removal that the log makes, so that a test can make them fail.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What shall go wrong, and when. Operations are counted from 0 over writes, syncs, creations and removals.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The write with this number (writes counted alone) fails with this error of the operating system.
    Write {
        /// Which one.
        nth: u64,
        /// For example 28, no space left on device.
        os_error: i32,
    },
    /// The sync with this number (syncs counted alone) fails with this error of the operating system.
    Sync {
        /// Which one.
        nth: u64,
        /// For example 5, input/output error.
        os_error: i32,
    },
    /// The operation with this number and all after it fail and do nothing.
    Crash {
        /// How many operations still work.
        after: u64,
        /// What the medium does with what was written but not synced.
        unsynced: Unsynced,
    },
}

/// What a crash does with bytes that were written but not synced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unsynced {
    /// They are there, as after `kill -9`.
    Kept,
    /// The interrupted write reaches the medium by half.
    Torn,
    /// [`Faults::lose_unsynced`] takes them away, as after a power cut.
    Lost,
}

/// A handle on the faults of one disk; the clone that a test keeps steers the clone in the store's options.
#[derive(Clone, Default)]
pub struct Faults {
    state: Arc<Mutex<FaultState>>,
}

#[derive(Default)]
struct FaultState {
    fault: Option<Fault>,
    operations: u64,
    writes: u64,
    syncs: u64,
    crashed: bool,
    carrier_held: bool,
    undo: Vec<Undo>,
}

enum Undo {
    Write { path: PathBuf, offset: u64, old: Vec<u8>, old_len: u64 },
    Create { path: PathBuf },
}

#[derive(Clone, Copy)]
enum Operation {
    Write,
    Sync,
    Other,
}

/// What an operation shall do.
enum Verdict {
    Go,
    Half(io::Error),
    Fail(io::Error),
}

impl Faults {
    /// A disk on which everything works.
    #[must_use]
    pub fn none() -> Faults {
        Faults::default()
    }

    /// Sets what goes wrong from now on; the counts start again at 0.
    pub fn set(&self, fault: Fault) {
        let mut state = self.lock();
        *state = FaultState { fault: Some(fault), ..FaultState::default() };
    }

    /// Nothing goes wrong any more.
    pub fn clear(&self) {
        let mut state = self.lock();
        state.fault = None;
        state.crashed = false;
    }

    /// Holds the carrier still before its next span, as a tree would that is slow.
    pub fn hold_carrier(&self) {
        self.lock().carrier_held = true;
    }

    /// Lets the carrier go on.
    pub fn release_carrier(&self) {
        self.lock().carrier_held = false;
    }

    /// Whether the carrier is to stand still.
    #[must_use]
    pub fn carrier_is_held(&self) -> bool {
        self.lock().carrier_held
    }

    /// How many operations were asked for since the last [`Faults::set`].
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// Whether the crash has happened.
    #[must_use]
    pub fn crashed(&self) -> bool {
        self.lock().crashed
    }

    /// After a crash with [`Unsynced::Lost`], and with the store dropped: takes away what was never synced.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn lose_unsynced(&self) -> io::Result<()> {
        let undo = std::mem::take(&mut self.lock().undo);
        for step in undo.into_iter().rev() {
            match step {
                Undo::Create { path } if path.exists() => std::fs::remove_file(path)?,
                Undo::Create { .. } => {}
                Undo::Write { path, offset, old, old_len } => {
                    let file = OpenOptions::new().write(true).open(path)?;
                    file.write_all_at(&old, offset)?;
                    file.set_len(old_len)?;
                }
            }
        }
        Ok(())
    }

    /// Counts a step that is not ours to perform (a table file of the tree), which a crash can stand before.
    ///
    /// # Errors
    /// If the crash has happened.
    pub fn step(&self) -> io::Result<()> {
        match self.lock().verdict(Operation::Other) {
            Verdict::Go => Ok(()),
            Verdict::Half(error) | Verdict::Fail(error) => Err(error),
        }
    }

    fn lock(&self) -> MutexGuard<'_, FaultState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FaultState {
    fn verdict(&mut self, operation: Operation) -> Verdict {
        let number = self.operations;
        self.operations += 1;
        let counter = match operation {
            Operation::Write => &mut self.writes,
            Operation::Sync => &mut self.syncs,
            Operation::Other => &mut 0,
        };
        let own = *counter;
        *counter += 1;
        match (self.fault, operation) {
            (Some(Fault::Write { nth, os_error }), Operation::Write) | (Some(Fault::Sync { nth, os_error }), Operation::Sync) if nth == own => {
                Verdict::Fail(io::Error::from_raw_os_error(os_error))
            }
            (Some(Fault::Crash { after, unsynced }), _) if number >= after => {
                let first = !std::mem::replace(&mut self.crashed, true);
                let error = io::Error::other("the process was crashed by a fault plan");
                if first && unsynced == Unsynced::Torn { Verdict::Half(error) } else { Verdict::Fail(error) }
            }
            _ => Verdict::Go,
        }
    }

    fn remembers(&self) -> bool {
        matches!(self.fault, Some(Fault::Crash { unsynced: Unsynced::Lost, .. }))
    }
}

/// A directory of files behind the faults.
#[derive(Clone)]
pub struct Disk {
    faults: Faults,
    access: Access,
}

/// What files are opened for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Write,
    Look,
}

/// One file behind the faults.
pub struct DiskFile {
    file: File,
    path: PathBuf,
    faults: Faults,
}

impl Disk {
    /// A disk with these faults.
    #[must_use]
    pub fn new(faults: Faults) -> Disk {
        Disk { faults, access: Access::Write }
    }

    /// A disk on which nothing is written.
    #[must_use]
    pub fn looking() -> Disk {
        Disk { faults: Faults::none(), access: Access::Look }
    }

    /// Its faults.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Creates a file that must not exist.
    pub fn create(&self, path: &Path) -> io::Result<DiskFile> {
        let mut state = self.faults.lock();
        match state.verdict(Operation::Other) {
            Verdict::Go => {
                let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
                if state.remembers() {
                    state.undo.push(Undo::Create { path: path.to_owned() });
                }
                Ok(DiskFile { file, path: path.to_owned(), faults: self.faults.clone() })
            }
            Verdict::Half(error) | Verdict::Fail(error) => Err(error),
        }
    }

    /// Opens a file that exists.
    pub fn open(&self, path: &Path) -> io::Result<DiskFile> {
        let file = OpenOptions::new().read(true).write(self.access == Access::Write).open(path)?;
        // Reading ahead would make large folios, of which a small write dirties the whole. The advice is no more than that.
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Random).unwrap_or(());
        Ok(DiskFile { file, path: path.to_owned(), faults: self.faults.clone() })
    }

    /// Removes a file.
    pub fn remove(&self, path: &Path) -> io::Result<()> {
        self.faults.step()?;
        std::fs::remove_file(path)
    }

    /// Makes the names in a directory durable.
    pub fn sync_directory(&self, path: &Path) -> io::Result<()> {
        let mut state = self.faults.lock();
        match state.verdict(Operation::Sync) {
            Verdict::Go => {
                File::open(path)?.sync_all()?;
                state.undo.retain(|undo| !matches!(undo, Undo::Create { path: file } if file.parent() == Some(path)));
                Ok(())
            }
            Verdict::Half(error) | Verdict::Fail(error) => Err(error),
        }
    }

    /// Puts a small file in place whole or not at all.
    pub fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let temporary = path.with_extension("tmp");
        if temporary.exists() {
            self.remove(&temporary)?;
        }
        let file = self.create(&temporary)?;
        file.write_at(content, 0)?;
        file.sync()?;
        self.faults.step()?;
        std::fs::rename(&temporary, path)?;
        match path.parent() {
            Some(parent) => self.sync_directory(parent),
            None => Ok(()),
        }
    }
}

impl DiskFile {
    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its length in bytes.
    pub fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Reads as much as there is from `offset` on, at most the length of `into`.
    pub fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < into.len() {
            match self.file.read_at(&mut into[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// Writes all of it.
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let verdict = {
            let mut state = self.faults.lock();
            if state.remembers() {
                let old_len = self.length()?;
                let mut old = vec![0; bytes.len()];
                let count = self.read_at(&mut old, offset)?;
                old.truncate(count);
                state.undo.push(Undo::Write { path: self.path.clone(), offset, old, old_len });
            }
            state.verdict(Operation::Write)
        };
        match verdict {
            Verdict::Go => self.file.write_all_at(bytes, offset),
            Verdict::Fail(error) => Err(error),
            Verdict::Half(error) => {
                self.file.write_all_at(&bytes[..bytes.len() / 2], offset)?;
                Err(error)
            }
        }
    }

    /// Makes its content durable (`fdatasync`).
    pub fn sync(&self) -> io::Result<()> {
        let verdict = self.faults.lock().verdict(Operation::Sync);
        match verdict {
            Verdict::Go => {
                self.file.sync_data()?;
                let mut state = self.faults.lock();
                if !state.undo.is_empty() {
                    let path = &self.path;
                    state.undo.retain(|undo| !matches!(undo, Undo::Write { path: file, .. } if file == path));
                }
                Ok(())
            }
            Verdict::Half(error) | Verdict::Fail(error) => Err(error),
        }
    }
}
