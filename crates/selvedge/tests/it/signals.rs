//! What keeping signals costs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use selvedge::{App, Ctx, Handler, Settings, Signal, test};
use selvedge_engine::env::{Clock, Environment};
use selvedge_kernel::id::{Key, ShardId};
use selvedge_kernel::limit::Limits;
use selvedge_kernel::model::Model;
use selvedge_kernel::ports::{Boxed, Claim, Commit, CommitOutcome, Owner, Store, StoreError};

const TAKE: Handler<u32, u32> = Handler::new("subject", "take");
const POKE: Signal<u32> = Signal::new("poke");

/// A store that counts the rows which scans give.
struct Counting(Model, Arc<AtomicUsize>);

impl Store for Counting {
    fn get(&self, shard: ShardId, key: Key) -> Boxed<'_, Result<Option<Bytes>, StoreError>> {
        self.0.get(shard, key)
    }
    fn scan(&self, shard: ShardId, range: std::ops::Range<Key>, limit: usize) -> Boxed<'_, Result<Vec<(Key, Bytes)>, StoreError>> {
        let rows = self.0.scan(shard, range, limit);
        Box::pin(async move {
            let rows = rows.await?;
            self.1.fetch_add(rows.len(), Ordering::SeqCst);
            Ok(rows)
        })
    }
    fn commit(&self, batch: Vec<Commit>) -> Boxed<'static, Vec<CommitOutcome>> {
        self.0.commit(batch)
    }
    fn claim(&self, shard: ShardId, owner: Owner) -> Boxed<'_, Result<Claim, StoreError>> {
        self.0.claim(shard, owner)
    }
    fn heartbeat(&self, owner: Owner, ttl: Duration) -> Boxed<'_, Result<(), StoreError>> {
        self.0.heartbeat(owner, ttl)
    }
    fn close(&self) -> Boxed<'_, Result<(), StoreError>> {
        self.0.close()
    }
}

#[tokio::test]
async fn kept_signals_are_not_counted_again_for_each_that_comes_and_what_is_taken_makes_room() {
    let app = App::new().handler(TAKE, async |ctx: Ctx, many: u32| {
        let mut sum = 0;
        for _ in 0..many {
            sum += ctx.signal(POKE).await?;
        }
        Ok(sum)
    });
    let rows = Arc::new(AtomicUsize::new(0));
    let draws = AtomicU64::new(0);
    let fill = move |buffer: &mut [u8]| {
        buffer.chunks_mut(8).for_each(|bytes| bytes.copy_from_slice(&draws.fetch_add(1, Ordering::SeqCst).to_be_bytes()[..bytes.len()]));
    };
    let env = Environment { clock: Clock::Manual(Arc::new(AtomicU64::new(1_767_225_600_000))), random: Arc::new(fill), observer: None };
    let settings = Settings { limits: Limits { signals: 300, ..Limits::default() }, ..Settings::default() };
    let mut by_hand = test::ByHand::open(&app, Arc::new(Counting(Model::new(), rows.clone())), env, settings, tokio::runtime::Handle::current());
    let local = tokio::task::LocalSet::new();
    for worker in std::mem::take(&mut by_hand.workers) {
        local.spawn_local(worker);
    }
    let client = by_hand.local();
    local
        .run_until(async move {
            for n in 0..300 {
                client.send_signal(TAKE.on("x"), POKE, n).await.unwrap();
            }
            let read = rows.load(Ordering::SeqCst);
            assert!(read < 1_000, "{read} rows were read to keep 300 signals");
            let refused = client.send_signal(TAKE.on("x"), POKE, 1).await.unwrap_err().to_string();
            assert!(refused.contains("300 signals to subject/x are kept"), "{refused}");
            assert_eq!(client.call(TAKE.on("x"), 2).await.unwrap(), 1);
            for _ in 0..2 {
                client.send_signal(TAKE.on("x"), POKE, 1).await.unwrap();
            }
            client.send_signal(TAKE.on("x"), POKE, 1).await.unwrap_err();
        })
        .await;
}
