//! The embedded store: a log, a table in memory, and a tree, in one directory that one process has.

use bytes::Bytes;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use selvedge_kernel::id::{Key, ShardId};
use selvedge_kernel::ports::{Boxed, Claim, Commit, CommitOutcome, Owner, Store, StoreError};
use selvedge_kernel::pressure::Pressure;
use selvedge_kernel::time::Day;

use crate::carry::{self, Carrier};
use crate::directory::{self, Directory, Meta};
use crate::disk::{Disk, Faults};
use crate::entry;
use crate::error::OpenError;
use crate::log::Bounds;
use crate::open;
use crate::options::Options;
use crate::queue::{Batch, Queue, Task};
use crate::recovery;
use crate::reply::reply;
use crate::segment::Pool;
use crate::still::Still;
use crate::table::Tables;

/// What the log's thread and readers share.
pub struct Shared {
    /// What waits for the log's thread.
    pub queue: Queue,
    /// The rows in memory.
    pub tables: Tables,
    /// What waits for the tree.
    pub carrier: Carrier,
    /// How much may wait for the tree.
    pub bounds: Bounds,
    /// The day on which readers stand.
    pub today: Arc<dyn Fn() -> Day + Send + Sync>,
    stopped: AtomicBool,
    reason: Mutex<String>,
}

impl Shared {
    /// Nothing queued, nothing in memory.
    #[must_use]
    pub fn new(shards: u16, options: &Options) -> Shared {
        let bounds = Bounds { table_bytes: options.table_bytes as usize, log_bytes: options.log_bytes };
        Shared {
            queue: Queue::default(),
            tables: Tables::new(shards),
            carrier: Carrier::new(options.spans_kept, bounds),
            bounds,
            today: Arc::clone(&options.today),
            stopped: AtomicBool::new(false),
            reason: Mutex::default(),
        }
    }

    /// Answers nothing any more; the first reason stands.
    pub fn stop(&self, reason: String) {
        let mut stands = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.stopped.swap(true, Ordering::AcqRel) {
            *stands = reason;
        }
    }

    /// The reason why it has stopped, as an error.
    pub fn running(&self) -> Result<(), String> {
        if !self.stopped.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn check(&self) -> Result<(), StoreError> {
        self.running().map_err(|reason| StoreError::Stopped { reason })
    }

    fn damaged(&self, doing: &str, error: &io::Error) -> StoreError {
        self.stop(format!("{doing} failed ({error}): check the disk, then start again"));
        StoreError::Stopped { reason: self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone() }
    }
}

/// The embedded store. Clones are handles on the same one; the last one to go closes it.
#[derive(Clone)]
pub struct EmbeddedStore {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    pool: Arc<Pool>,
    meta: Meta,
    cut: Option<String>,
    running: Mutex<Option<Running>>,
}

struct Running {
    log: JoinHandle<()>,
    carrier: JoinHandle<()>,
    segments: JoinHandle<()>,
    lock: Option<File>,
    folder: PathBuf,
}

/// Figures of an open store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stats {
    /// Files of the log, used or waiting.
    pub log_files: usize,
    /// Bytes of rows in memory that are not yet in the tree, roughly.
    pub table_bytes: usize,
    /// Bytes of filled segments that are not yet in the tree.
    pub log_bytes: u64,
    /// Spans of the log that wait for the tree.
    pub waiting: usize,
    /// The last group of the log that is in the tree, 0 if none came since the store opened.
    pub carried: u64,
    /// Keyspaces of days.
    pub days: usize,
    /// The tree is so far behind that commits are slowed down: begin no new work (`store_behind`).
    pub behind: bool,
    /// Where a torn tail was cut when the store opened, if one was.
    pub cut: Option<String>,
}

impl EmbeddedStore {
    /// Opens a data directory, and makes it if there is none. Reads the log; blocks until that is done.
    ///
    /// # Errors
    /// Another process has the directory, it is foreign, newer or damaged, or the operating system refuses something.
    pub fn open(dir: &Path, options: Options) -> Result<EmbeddedStore, OpenError> {
        let disk = Disk::new(options.faults.clone());
        let directory = directory::open(dir, &options.command, options.shards, &disk)?;
        let shared = Arc::new(Shared::new(directory.meta.shards, &options));
        let opened = open::read(&directory, &disk, &options, &shared)?;
        EmbeddedStore::start(directory, shared, opened, options.faults)
    }

    fn start(directory: Directory, shared: Arc<Shared>, opened: open::Opened, faults: Faults) -> Result<EmbeddedStore, OpenError> {
        let open::Opened { log, tree, cut } = opened;
        let pool = Arc::clone(&log.pool);
        shared.carrier.measure(&shared.tables);
        let failed = |source| OpenError::Io { doing: "cannot start a thread for", path: directory.path.clone(), source };
        let named = |name: &str| std::thread::Builder::new().name(format!("selvedge-{name}"));
        let segments = pool.start().map_err(failed)?;
        let carried = Arc::clone(&shared);
        let carrier = named("carrier").spawn(move || carry::run(&carried, tree, &faults)).map_err(failed)?;
        let log = named("log").spawn(move || log.run()).map_err(failed)?;
        let folder = directory.log();
        let running = Mutex::new(Some(Running { log, carrier, segments, lock: directory.lock, folder }));
        let inner = Inner { shared, pool, meta: directory.meta, cut, running };
        Ok(EmbeddedStore { inner: Arc::new(inner) })
    }

    /// What the directory's `meta` says.
    #[must_use]
    pub fn meta(&self) -> Meta {
        self.inner.meta
    }

    /// How near its bounds what waits for the tree is: whoever accepts work asks it first.
    #[must_use]
    pub fn pressure(&self) -> Pressure {
        self.inner.shared.carrier.pressure().clone()
    }

    /// All shards at one position of the log: after everything that was acknowledged before this was called. Blocks until
    /// the log's thread comes to it.
    pub(crate) fn stand_still(&self) -> Result<Still, StoreError> {
        let (reply, answer) = std::sync::mpsc::sync_channel(1);
        let refused = self.inner.shared.queue.push(Task::Still(reply));
        drop(refused);
        answer.recv().map_err(|_| StoreError::Stopped { reason: self.inner.shared.running().err().unwrap_or_else(|| "it is being closed".to_owned()) })
    }

    /// Figures of now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let progress = self.inner.shared.carrier.progress();
        let table_bytes = self.inner.shared.tables.bytes();
        Stats {
            log_files: self.inner.pool.files(),
            table_bytes,
            log_bytes: progress.log_bytes,
            waiting: progress.waiting,
            carried: progress.carried,
            days: progress.days,
            behind: progress.waiting > 0 && self.inner.shared.bounds.near(table_bytes, progress.log_bytes),
            cut: self.inner.cut.clone(),
        }
    }
}

impl Inner {
    fn close(&self) {
        self.shared.queue.close();
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Running { log, carrier, segments, lock, folder }) = running {
            log.join().unwrap_or(());
            self.shared.carrier.close();
            carrier.join().unwrap_or(());
            self.pool.close();
            segments.join().unwrap_or(());
            if self.shared.check().is_ok() && recovery::looks_used(&folder) {
                // Not written, it is written when the store opens again.
                recovery::note_begun(&folder).unwrap_or(());
            }
            self.shared.stop("it was closed: open it again".to_owned());
            self.shared.tables.clear();
            drop(lock);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

impl Store for EmbeddedStore {
    fn get(&self, shard: ShardId, key: Key) -> Boxed<'_, Result<Option<Bytes>, StoreError>> {
        Box::pin(std::future::ready(self.inner.get(shard, &key)))
    }

    fn scan(&self, shard: ShardId, range: Range<Key>, limit: usize) -> Boxed<'_, Result<Vec<(Key, Bytes)>, StoreError>> {
        Box::pin(std::future::ready(self.inner.scan(shard, range, limit)))
    }

    fn commit(&self, batch: Vec<Commit>) -> Boxed<'static, Vec<CommitOutcome>> {
        let count = batch.len();
        let (reply, answer) = reply();
        let today = (self.inner.shared.today)();
        let rest = batch.into_iter().rev().map(|commit| entry::encode(commit, today)).collect();
        let batch = Batch { rest, outcomes: Vec::with_capacity(count), refused: Vec::new(), reply };
        let refused = self.inner.shared.queue.push(Task::Commit(batch));
        drop(refused);
        Box::pin(async move { answer.await.unwrap_or_else(|| vec![CommitOutcome::Unknown; count]) })
    }

    fn claim(&self, shard: ShardId, owner: Owner) -> Boxed<'_, Result<Claim, StoreError>> {
        let (reply, answer) = reply();
        let refused = self.inner.shared.queue.push(Task::Claim { shard, owner, reply });
        drop(refused);
        Box::pin(async move {
            match answer.await {
                Some(claim) => Ok(claim),
                None => {
                    self.inner.shared.check()?;
                    Err(StoreError::Stopped { reason: format!("shard {} does not exist, there are {}", shard.0, self.inner.meta.shards) })
                }
            }
        })
    }

    fn heartbeat(&self, _owner: Owner, _ttl: Duration) -> Boxed<'_, Result<(), StoreError>> {
        Box::pin(std::future::ready(self.inner.shared.check()))
    }

    fn close(&self) -> Boxed<'_, Result<(), StoreError>> {
        let stopped = self.inner.shared.check();
        self.inner.close();
        Box::pin(std::future::ready(stopped))
    }
}

impl Inner {
    fn get(&self, shard: ShardId, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.shared.check()?;
        let value = self.shared.tables.get(shard, key, (self.shared.today)());
        value.map_err(|error| self.shared.damaged("reading a row", &error))
    }

    fn scan(&self, shard: ShardId, range: Range<Key>, limit: usize) -> Result<Vec<(Key, Bytes)>, StoreError> {
        self.shared.check()?;
        let rows = self.shared.tables.scan(shard, range, limit, (self.shared.today)());
        rows.map_err(|error| self.shared.damaged("reading rows", &error))
    }
}
