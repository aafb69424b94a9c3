//! How many bytes of keys and values a step puts: counted at the port, with the engine's own face and no facade.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use selvedge_engine::engine::{Ask, Engine, ExecSettings};
use selvedge_engine::env::{Clock, Environment};
use selvedge_engine::registry::{ActorType, Handler, Registry, RunHandler};
use selvedge_engine::wiring::Settings;
use selvedge_kernel::auth::{Action, Resource, authorize, local};
use selvedge_kernel::id::{ActorId, Key, ShardId};
use selvedge_kernel::ports::{Boxed, Claim, Commit, CommitOutcome, Owner, Store, StoreError};
use selvedge_kernel::time::Millis;
use selvedge_store::{EmbeddedStore, Options};

use crate::load::{Failed, rate};

/// A store that counts what is put.
struct Counted {
    inner: EmbeddedStore,
    bytes: Arc<AtomicU64>,
    sample: Arc<Mutex<Vec<Commit>>>,
}

/// So many commits are kept, to be looked at alone.
const SAMPLE: usize = 4_000;

/// What a load puts.
pub struct Put {
    /// Bytes of keys and values for each step of an invocation of ten, its own rows included.
    pub bytes_per_step: f64,
    /// Commits of that load.
    pub sample: Vec<Commit>,
}

impl Store for Counted {
    fn get(&self, shard: ShardId, key: Key) -> Boxed<'_, Result<Option<Bytes>, StoreError>> {
        self.inner.get(shard, key)
    }

    fn scan(&self, shard: ShardId, range: Range<Key>, limit: usize) -> Boxed<'_, Result<Vec<(Key, Bytes)>, StoreError>> {
        self.inner.scan(shard, range, limit)
    }

    fn commit(&self, batch: Vec<Commit>) -> Boxed<'static, Vec<CommitOutcome>> {
        let puts = batch.iter().flat_map(|commit| &commit.puts);
        self.bytes.fetch_add(puts.map(|put| (put.key.len() + put.value.len()) as u64).sum(), Ordering::Relaxed);
        let mut sample = self.sample.lock().unwrap_or_else(PoisonError::into_inner);
        let room = SAMPLE.saturating_sub(sample.len());
        sample.extend(batch.iter().take(room).cloned());
        drop(sample);
        self.inner.commit(batch)
    }

    fn claim(&self, shard: ShardId, owner: Owner) -> Boxed<'_, Result<Claim, StoreError>> {
        self.inner.claim(shard, owner)
    }

    fn heartbeat(&self, owner: Owner, ttl: Duration) -> Boxed<'_, Result<(), StoreError>> {
        self.inner.heartbeat(owner, ttl)
    }

    fn close(&self) -> Boxed<'_, Result<(), StoreError>> {
        self.inner.close()
    }
}

/// Counts what invocations of ten steps put.
pub async fn steps(dir: &Path, callers: u64, time: Duration) -> Result<Put, Failed> {
    let bytes = Arc::new(AtomicU64::new(0));
    let sample = Arc::new(Mutex::new(Vec::new()));
    let store = Counted { inner: EmbeddedStore::open(dir, Options::default())?, bytes: bytes.clone(), sample: sample.clone() };
    let engine = Arc::new(Engine::open(Arc::new(store), environment(), registry(), Settings::default(), ExecSettings::default()).await?);
    let invocations = Arc::new(AtomicU64::new(0));
    let (asked, counted) = (engine.clone(), invocations.clone());
    rate(callers, time, move |caller, count| {
        let (engine, counted) = (asked.clone(), counted.clone());
        async move {
            let actor = ActorId { tenant: "default".to_owned(), kind: "worker".to_owned(), key: format!("{caller}-{count}") };
            let handler = Resource::Handler { actor, handler: "steps".to_owned() };
            let permit = authorize(local("default", engine.now()), Action::Invoke, handler, engine.now())?;
            engine.invoke(permit, Bytes::from_static(b"10"), Ask { wait: true, ..Ask::default() }).await?;
            counted.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
    })
    .await?;
    engine.close().await?;
    let bytes_per_step = bytes.load(Ordering::Relaxed) as f64 / (10.0 * invocations.load(Ordering::Relaxed) as f64);
    let sample = std::mem::take(&mut *sample.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(Put { bytes_per_step, sample })
}

fn environment() -> Environment {
    let now = || Millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64);
    let fill = |buffer: &mut [u8]| assert!(getrandom::fill(buffer).is_ok(), "the system gives no random bytes");
    Environment { clock: Clock::Wall(Arc::new(now)), random: Arc::new(fill), observer: None }
}

fn registry() -> Registry {
    let steps: RunHandler = Arc::new(|ctx, _| {
        Box::pin(async move {
            for _ in 0..10 {
                ctx.step("one", Box::new(|_| Box::pin(async { Ok(Bytes::from_static(b"null")) }))).await;
            }
            Ok(Bytes::from_static(b"10"))
        })
    });
    let handlers = BTreeMap::from([("steps".to_owned(), Handler::Exclusive(steps))]);
    Registry { actors: HashMap::from([("worker".to_owned(), ActorType { handlers, ..ActorType::default() })]), ..Registry::default() }
}
