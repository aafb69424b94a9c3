//! The embedded store: a log, a table in memory, and a tree, in one directory that one process has.

use bytes::Bytes;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use selvedge_kernel::id::{Key, ShardId};
use selvedge_kernel::ports::{Boxed, Claim, Commit, CommitOutcome, Owner, Store, StoreError};
use selvedge_kernel::time::Day;

use crate::directory::{self, Directory, Meta};
use crate::disk::Disk;
use crate::entry;
use crate::error::OpenError;
use crate::log::ShardState;
use crate::open;
use crate::options::Options;
use crate::queue::{Batch, Queue, Task};
use crate::reply::reply;
use crate::segment::Pool;
use crate::table::Tables;

/// What the log's thread and readers share.
pub struct Shared {
    /// What waits for the log's thread.
    pub queue: Queue,
    /// The rows in memory.
    pub tables: Tables,
    /// The day on which readers stand.
    pub today: Arc<dyn Fn() -> Day + Send + Sync>,
    stopped: AtomicBool,
    reason: Mutex<String>,
}

impl Shared {
    /// Nothing queued, nothing in memory.
    #[must_use]
    pub fn new(shards: u16, options: &Options) -> Shared {
        Shared {
            queue: Queue::default(),
            tables: Tables::new(shards),
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

    fn check(&self) -> Result<(), StoreError> {
        if !self.stopped.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(StoreError::Stopped { reason: self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone() })
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
    threads: Vec<JoinHandle<()>>,
    lock: File,
}

/// Figures of an open store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stats {
    /// Files of the log, used or waiting.
    pub log_files: usize,
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
        EmbeddedStore::start(directory, shared, opened)
    }

    fn start(directory: Directory, shared: Arc<Shared>, opened: open::Opened) -> Result<EmbeddedStore, OpenError> {
        let open::Opened { log, cut } = opened;
        let pool = Arc::clone(&log.pool);
        let failed = |source| OpenError::Io { doing: "cannot start a thread for", path: directory.path.clone(), source };
        let segments = pool.start().map_err(failed)?;
        let writer = std::thread::Builder::new().name("selvedge-log".to_owned()).spawn(move || log.run()).map_err(failed)?;
        let running = Running { threads: vec![writer, segments], lock: directory.lock };
        let inner = Inner { shared, pool, meta: directory.meta, cut, running: Mutex::new(Some(running)) };
        Ok(EmbeddedStore { inner: Arc::new(inner) })
    }

    /// What the directory's `meta` says.
    #[must_use]
    pub fn meta(&self) -> Meta {
        self.inner.meta
    }

    /// Figures of now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats { log_files: self.inner.pool.files(), cut: self.inner.cut.clone() }
    }
}

impl Inner {
    fn close(&self) {
        self.shared.queue.close();
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Running { mut threads, lock }) = running {
            let segments = threads.split_off(1);
            for writer in threads {
                writer.join().unwrap_or(());
            }
            self.pool.close();
            for thread in segments {
                thread.join().unwrap_or(());
            }
            self.shared.stop("it was closed: open it again".to_owned());
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
        let cell = self.shared.tables.get(shard, key).filter(|cell| cell.seen((self.shared.today)()));
        let value = cell.map(|cell| cell.value.read()).transpose();
        value.map_err(|error| self.shared.damaged("reading a value from the log", &error))
    }

    fn scan(&self, shard: ShardId, range: Range<Key>, limit: usize) -> Result<Vec<(Key, Bytes)>, StoreError> {
        self.shared.check()?;
        let rows = self.shared.tables.scan(shard, range, limit, (self.shared.today)());
        let read: io::Result<Vec<_>> = rows.into_iter().map(|(key, cell)| Ok((key, cell.value.read()?))).collect();
        read.map_err(|error| self.shared.damaged("reading a value from the log", &error))
    }
}

/// The states that the log's thread begins with.
#[must_use]
pub fn unclaimed(shards: u16) -> Vec<ShardState> {
    vec![ShardState::default(); usize::from(shards)]
}
