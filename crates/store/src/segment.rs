//! Segments: the files of the log, made and zero-filled ahead of use, and used again when they were carried.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::disk::{Disk, DiskFile};
use crate::files::Files;

/// Files that wait to be used; more are removed.
const SPARES: usize = 2;
/// A file is filled page by page: larger writes make larger folios, of which a later small write dirties the whole.
const PAGE_BYTES: usize = 4096;

/// A file of the log that nothing refers to.
pub struct Spare {
    /// The number in its name.
    pub slot: u32,
    /// The file, filled to its capacity.
    pub file: Arc<DiskFile>,
    /// Bytes that it has been filled with.
    pub capacity: u64,
}

/// One use of a file of the log. When it was carried and nobody refers to it any more, the file is used again.
pub struct Segment {
    /// The number in the file's name.
    pub slot: u32,
    /// Counted up with each use of any file.
    pub incarnation: u64,
    /// The file.
    pub file: Arc<DiskFile>,
    /// Bytes that it has been filled with.
    pub capacity: u64,
    carried: AtomicBool,
    pool: Arc<Pool>,
}

impl Segment {
    /// A use of a file.
    #[must_use]
    pub fn new(spare: Spare, incarnation: u64, pool: &Arc<Pool>) -> Segment {
        let Spare { slot, file, capacity } = spare;
        Segment { slot, incarnation, file, capacity, carried: AtomicBool::new(false), pool: Arc::clone(pool) }
    }

    /// Says that everything in it is durable elsewhere.
    pub fn set_carried(&self) {
        self.carried.store(true, Ordering::Release);
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        if self.carried.load(Ordering::Acquire) {
            self.pool.give_back(Spare { slot: self.slot, file: Arc::clone(&self.file), capacity: self.capacity });
        }
    }
}

/// The files that wait to be used, and the thread that prepares them.
pub struct Pool {
    folder: PathBuf,
    disk: Disk,
    segment_bytes: u64,
    files: Mutex<Files>,
    state: Mutex<PoolState>,
    changed: Condvar,
}

struct PoolState {
    ready: VecDeque<Spare>,
    returned: Vec<Spare>,
    next_slot: u32,
    wanted: bool,
    failed: Option<io::Error>,
    closed: bool,
}

impl Pool {
    /// A pool over what was found in the folder; `next_slot` is above every name there.
    #[must_use]
    pub fn new(folder: &Path, disk: &Disk, segment_bytes: u64, next_slot: u32, files: Files) -> Arc<Pool> {
        let state = PoolState { ready: VecDeque::new(), returned: Vec::new(), next_slot, wanted: false, failed: None, closed: false };
        let files = Mutex::new(files);
        Arc::new(Pool { folder: folder.to_owned(), disk: disk.clone(), segment_bytes, files, state: Mutex::new(state), changed: Condvar::new() })
    }

    /// Starts the thread that prepares files.
    pub fn start(self: &Arc<Pool>) -> io::Result<JoinHandle<()>> {
        let pool = Arc::clone(self);
        std::thread::Builder::new().name("selvedge-segments".to_owned()).spawn(move || pool.run())
    }

    /// Ends the thread once it is idle.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// How many files there are, used or not.
    #[must_use]
    pub fn files(&self) -> usize {
        self.listed().lengths().len()
    }

    /// The next file to use; waits until there is one.
    pub fn take(&self) -> io::Result<Spare> {
        let mut state = self.lock();
        state.failed = None;
        loop {
            if let Some(spare) = state.ready.pop_front() {
                state.wanted = false;
                self.changed.notify_all();
                return Ok(spare);
            }
            if let Some(error) = state.failed.take() {
                return Err(error);
            }
            if state.closed {
                return Err(io::Error::other("the store is closed"));
            }
            state.wanted = true;
            self.changed.notify_all();
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes in files that hold nothing that is needed; one that was not filled to its end is removed.
    pub fn adopt(&self, spares: impl Iterator<Item = Spare>) {
        self.lock().returned.extend(spares);
        self.changed.notify_all();
    }

    fn give_back(&self, spare: Spare) {
        self.lock().returned.push(spare);
        self.changed.notify_all();
    }

    fn run(&self) {
        let mut state = self.lock();
        loop {
            if state.closed {
                return;
            }
            let full = state.ready.len() >= SPARES;
            if let Some(spare) = state.returned.pop() {
                drop(state);
                let kept = if full || spare.capacity < self.segment_bytes { self.discard(&spare).map(|()| None) } else { warm(&spare).map(|()| Some(spare)) };
                state = self.lock();
                match kept {
                    Ok(Some(spare)) => state.ready.push_back(spare),
                    Ok(None) => {}
                    Err(error) => state.failed = Some(error),
                }
                self.changed.notify_all();
            } else if state.ready.is_empty() && (state.wanted || state.failed.is_none()) {
                let slot = state.next_slot;
                state.next_slot += 1;
                drop(state);
                let made = self.make(slot);
                state = self.lock();
                match made {
                    Ok(spare) => state.ready.push_back(spare),
                    Err(error) => {
                        state.wanted = false;
                        state.failed = Some(error);
                    }
                }
                self.changed.notify_all();
            } else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    fn make(&self, slot: u32) -> io::Result<Spare> {
        let path = self.folder.join(file_name(slot));
        let file = self.disk.create(&path)?;
        let zeros = vec![0; PAGE_BYTES.min(self.segment_bytes as usize)];
        let mut filled = 0;
        while filled < self.segment_bytes {
            let count = zeros.len().min((self.segment_bytes - filled) as usize);
            if let Err(error) = file.write_at(&zeros[..count], filled) {
                self.disk.remove(&path).unwrap_or(());
                return Err(error);
            }
            filled += count as u64;
        }
        file.sync()?;
        self.disk.sync_directory(&self.folder)?;
        self.listed().add(slot, self.segment_bytes)?;
        Ok(Spare { slot, file: Arc::new(file), capacity: self.segment_bytes })
    }

    fn discard(&self, spare: &Spare) -> io::Result<()> {
        self.listed().take_off(spare.slot)?;
        self.disk.remove(spare.file.path())
    }

    fn listed(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The name of a file of the log.
#[must_use]
pub fn file_name(slot: u32) -> String {
    format!("{slot:08}.log")
}

/// Reads a file through, so that writing into it later need not read the pages that it changes.
fn warm(spare: &Spare) -> io::Result<()> {
    let mut page = vec![0; PAGE_BYTES];
    let mut at = 0;
    while at < spare.capacity {
        let count = spare.file.read_at(&mut page, at)?;
        if count == 0 {
            break;
        }
        at += count as u64;
    }
    Ok(())
}
