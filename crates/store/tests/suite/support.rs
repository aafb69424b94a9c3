//! What the tests share: a place on the disk, a way to wait, both kinds of subject.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use selvedge_kernel::model::Model;
use selvedge_kernel::ports::{Epoch, Owner, Store};
use selvedge_kernel::time::Day;
use selvedge_store::conformance::Subject;
use selvedge_store::{EmbeddedStore, Fault, Faults, Options, Unsynced};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future to its end on this thread.
pub fn wait<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
        std::thread::park();
    }
}

/// A directory of one test, removed at its end.
pub struct Place(PathBuf);

impl Place {
    /// An empty place.
    pub fn new(name: &str) -> Place {
        let path = folder().join(format!("selvedge-store-{name}-{}", std::process::id()));
        if path.exists() {
            std::fs::remove_dir_all(&path).unwrap();
        }
        std::fs::create_dir_all(&path).unwrap();
        Place(path)
    }

    /// The data directory in it.
    pub fn data(&self) -> PathBuf {
        self.0.join("data")
    }
}

/// Memory, where there is enough of it: these tests are about what is written and in which order, and sync much.
fn folder() -> PathBuf {
    let memory = Path::new("/dev/shm");
    match rustix::fs::statvfs(memory) {
        Ok(figures) if figures.f_bavail * figures.f_frsize > 1 << 30 => memory.to_owned(),
        _ => std::env::temp_dir(),
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap_or(());
    }
}

/// Options for a small store that stands on day 100.
pub fn small() -> Options {
    Options { command: "test".to_owned(), segment_bytes: 64 * 1024, today: Arc::new(|| Day(100)), ..Options::default() }
}

/// The embedded store as a subject of the suite.
pub fn embedded(place: &Place, options: Options) -> Subject {
    let dir = place.data();
    let day = Arc::new(AtomicU32::new(100));
    let faults = Faults::none();
    let read = Arc::clone(&day);
    let options = Options { faults: faults.clone(), today: Arc::new(move || Day(read.load(Ordering::Relaxed))), ..options };
    let open = move |dir: &Path| -> Arc<dyn Store> { Arc::new(EmbeddedStore::open(dir, options.clone()).unwrap()) };
    let (reopen_at, back_at, cleared) = (dir.clone(), dir.clone(), faults.clone());
    let store = open(&dir);
    let again = open.clone();
    Subject {
        store,
        reopen: Box::new(move |store| {
            drop(store);
            cleared.clear();
            open(&reopen_at)
        }),
        // The disk fails from its next operation but one on, so that the commit fails whatever is done in the background beside it.
        lose_answer: Box::new(move || faults.set(Fault::Crash { after: 1, unsynced: Unsynced::Kept })),
        go_back: Box::new(move |store, _| {
            drop(store);
            cut_last_group(&back_at);
            again(&back_at)
        }),
        set_today: Box::new(move |today| day.store(today.0, Ordering::Relaxed)),
    }
}

/// Overwrites the last group of the log with zeros.
pub fn cut_last_group(dir: &Path) {
    let store = selvedge_store::directory::read_meta(dir).unwrap().store;
    let groups = groups(dir, &store);
    let (path, at, bytes) = groups.last().unwrap();
    let mut content = std::fs::read(path).unwrap();
    content[*at..at + bytes].fill(0);
    std::fs::write(path, content).unwrap();
}

/// Every group of the log, in order: file, place, bytes.
pub fn groups(dir: &Path, store: &[u8; 16]) -> Vec<(PathBuf, usize, usize)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir.join("log")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let mut at = 0;
        while let Some(group) = bytes.get(at..).and_then(|rest| selvedge_store::group::parse(rest, store)) {
            found.push((group.header.number, path.clone(), at, group.bytes));
            at += group.bytes;
        }
    }
    found.sort();
    found.into_iter().map(|(_, path, at, bytes)| (path, at, bytes)).collect()
}

/// The reference model as a subject of the suite.
pub fn model() -> Subject {
    let model = Model::new();
    model.set_today(Day(100));
    let (reopened, losing, back, day) = (model.clone(), model.clone(), model.clone(), model.clone());
    Subject {
        store: Arc::new(model),
        reopen: Box::new(move |_| Arc::new(reopened.clone())),
        lose_answer: Box::new(move || losing.lose_answers(1)),
        go_back: Box::new(move |_, shard| {
            back.go_back(shard, 1);
            Arc::new(back.clone())
        }),
        set_today: Box::new(move |today| day.set_today(today)),
    }
}

/// Claims a shard.
pub fn claim(store: &dyn Store, shard: u16) -> (Epoch, u64) {
    let claim = wait(store.claim(selvedge_kernel::id::ShardId(shard), Owner([9; 16]))).unwrap();
    (claim.epoch, claim.last)
}
