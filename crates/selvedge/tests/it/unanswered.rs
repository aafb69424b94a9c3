//! A store that does not answer for a while.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use selvedge_engine::engine::{Engine, ExecSettings};
use selvedge_engine::env::{Clock, Environment};
use selvedge_engine::registry::Registry;
use selvedge_engine::wiring::Settings;
use selvedge_kernel::auth::{Action, Permit, Resource, authorize, local};
use selvedge_kernel::id::{Key, ShardId};
use selvedge_kernel::model::Model;
use selvedge_kernel::ports::{Boxed, Claim, Commit, CommitOutcome, Owner, Store, StoreError};
use selvedge_kernel::record::kind::Kind;
use selvedge_kernel::time::Millis;

const START: u64 = 1_767_225_600_000;

/// The reference model, which does not answer the next questions for the head of a run.
struct Behind {
    model: Model,
    times: AtomicU32,
}

impl Store for Behind {
    fn get(&self, shard: ShardId, key: Key) -> Boxed<'_, Result<Option<Bytes>, StoreError>> {
        let asked = Kind::of(&key) == Some(Kind::Run);
        if asked && self.times.try_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            return Box::pin(async { Err(StoreError::Behind { reason: "it is full".to_owned() }) });
        }
        self.model.get(shard, key)
    }
    fn scan(&self, shard: ShardId, range: Range<Key>, limit: usize) -> Boxed<'_, Result<Vec<(Key, Bytes)>, StoreError>> {
        self.model.scan(shard, range, limit)
    }
    fn commit(&self, batch: Vec<Commit>) -> Boxed<'static, Vec<CommitOutcome>> {
        self.model.commit(batch)
    }
    fn claim(&self, shard: ShardId, owner: Owner) -> Boxed<'_, Result<Claim, StoreError>> {
        self.model.claim(shard, owner)
    }
    fn heartbeat(&self, owner: Owner, ttl: Duration) -> Boxed<'_, Result<(), StoreError>> {
        self.model.heartbeat(owner, ttl)
    }
    fn close(&self) -> Boxed<'_, Result<(), StoreError>> {
        self.model.close()
    }
}

fn permit(action: Action) -> Permit {
    let resource = Resource::Pipeline { tenant: "default".to_owned(), name: "nightly".to_owned() };
    authorize(local("default", Millis(START)), action, resource, Millis(START)).unwrap()
}

#[tokio::test]
async fn fire_that_meets_a_store_that_does_not_answer_is_made_once_it_answers_and_the_next_one_follows() {
    let text = "selvedge: 1\nname: nightly\nschedule: { every: 10m, overlap: allow }\nstages:\n  - { name: rest, mode: sleep, for: 1ms }\n";
    let (definition, _) = selvedge::pipeline("nightly.yaml", text).unwrap();
    let registry = Registry { pipelines: [("nightly".to_owned(), definition)].into(), ..Registry::default() };
    let (wall, draws) = (Arc::new(AtomicU64::new(START)), AtomicU64::new(0));
    let env = Environment {
        clock: Clock::Hands { wall, monotonic: Arc::default() },
        random: Arc::new(move |buffer| {
            for bytes in buffer.chunks_mut(8) {
                // Never the same twice.
                let word = draws.fetch_add(1, Ordering::SeqCst).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                bytes.copy_from_slice(&word.to_be_bytes()[..bytes.len()]);
            }
        }),
        observer: None,
    };
    let store = Arc::new(Behind { model: Model::new(), times: AtomicU32::new(0) });
    let engine = Engine::open(store.clone(), env, registry, Settings::default(), ExecSettings::default()).await.unwrap();
    engine.put_schedule(permit(Action::Define)).await.unwrap();
    store.times.store(2, Ordering::SeqCst);
    for fires in 1..=2 {
        engine.advance(Duration::from_secs(600)).await;
        let record = engine.schedule(permit(Action::Read)).await.unwrap();
        assert_eq!((record.counts.started, record.counts.missed, record.counts.failed), (fires, 0, 0), "{:?}", record.last_error);
        assert_eq!(record.next, Some(Millis(START + (fires + 1) * 600_000)));
    }
    assert_eq!((store.times.load(Ordering::SeqCst), engine.stopped()), (0, None));
    engine.close().await.unwrap();
}
