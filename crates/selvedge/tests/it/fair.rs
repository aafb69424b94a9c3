//! Whose turn it is: what a reopened store holds is let out and taken up bit by bit, and one tenant does not keep the
//! others waiting.

use std::time::Duration;

use bytes::Bytes;
use selvedge::{App, Ctx, Handler, Settings, test};
use selvedge_kernel::auth::local;
use selvedge_kernel::id::{ActorId, RawId, ShardId};
use selvedge_kernel::ports::{Commit, Owner, Put, Store};
use selvedge_kernel::record::key;
use selvedge_kernel::record::kind::Kind;
use selvedge_kernel::record::message::{Envelope, Message, OutboxRow};
use selvedge_kernel::transition::sent_id;
use selvedge_kernel::wire;

use crate::kit;

const TAKE: Handler<u64, u64> = Handler::new("sink", "take");

/// Writes envelopes into the outbox of a shard that nobody owns now, as an owner that was killed would have left them.
async fn leave_envelopes(engine: &test::Engine, from: ShardId, to: ShardId, messages: Vec<Message>) {
    let claim = engine.model().claim(from, Owner([7; 16])).await.unwrap();
    let mut number = claim.last;
    let rows: Vec<Put> = messages
        .into_iter()
        .zip(1u64..)
        .map(|(message, n)| Put { key: key::outbox(to, n), value: wire::encode(&OutboxRow::Whole(Envelope::Invoke(message))), expires: None })
        .collect();
    for puts in rows.chunks(100) {
        number += 1;
        let commit = Commit { shard: from, epoch: claim.epoch, number, puts: puts.to_vec(), deletes: Vec::new(), folds: Vec::new() };
        engine.model().commit(vec![commit]).await;
    }
}

#[tokio::test]
async fn thousands_of_envelopes_of_a_reopened_store_arrive_once_in_order_and_a_page_of_them_is_in_memory() {
    let notes = kit::Notes::default();
    let noted = notes.clone();
    let app = App::new().handler(TAKE, async move |_: Ctx, n: u64| {
        noted.add(n.to_string());
        Ok(n)
    });
    let mut engine = test::Engine::with(app, Settings::default()).await.unwrap();
    let target: ActorId = kit::actor("sink", "s");
    let to = target.hash16().shard(64);
    let from = ShardId((to.0 + 1) % 64);
    let now = engine.engine().now();
    engine.engine().die().await;
    let owner = RawId { hash: target.hash16(), uuid: [9; 16] };
    let messages = (0..5_000u64).map(|n| Message {
        id: sent_id(owner, n, &target),
        target: target.clone(),
        handler: "take".to_owned(),
        input: Bytes::from(n.to_string()),
        context: local("default", now),
        idempotency_key: None,
        trace: None,
        deadline: None,
        reply_to: None,
        parent: None,
        chain: Vec::new(),
    });
    leave_envelopes(&engine, from, to, messages.collect()).await;
    engine.model().hold();
    engine.kill_and_reopen().await.unwrap();
    while engine.model().held() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let census = kit::census(&engine).await;
    assert_eq!((census.outbox, census.on_their_way), (5_000, 256), "{census:?}");
    engine.model().release();
    engine.settle().await;
    let expected: Vec<String> = (0..5_000).map(|n| n.to_string()).collect();
    assert!(notes.all() == expected, "{} arrived", notes.all().len());
    let census = kit::census(&engine).await;
    assert_eq!((census.outbox, census.on_their_way, kit::rows(&engine, Kind::Outbox)), (0, 0, 0));
    // What is sent from now on comes behind them, under the next numbers.
    engine.kill_and_reopen().await.unwrap();
    engine.local().call(TAKE.on("s"), 5_000).await.unwrap();
    kit::sound(&engine).await;
}

const NAP: Handler<(), ()> = Handler::new("cat", "nap");
const HANG: Handler<(), ()> = Handler::new("cat", "hang");

#[tokio::test]
async fn what_sleeps_over_many_unclean_ends_is_not_blocked_and_what_runs_in_each_is() {
    let app = App::new()
        .handler(NAP, async |ctx: Ctx, ()| ctx.sleep(Duration::from_secs(3600)).await)
        .handler(HANG, async |ctx: Ctx, ()| ctx.step("hang", async |_| std::future::pending().await).await);
    for replay_always in [false, true] {
        let mut engine = test::Engine::with(app.clone(), Settings { replay_always, ..Settings::default() }).await.unwrap();
        let nap = engine.local().send(NAP.on("nap"), ()).await.unwrap();
        let hang = engine.local().send(HANG.on("hang"), ()).await.unwrap();
        engine.settle().await;
        for end in 1..=15 {
            engine.kill_and_reopen().await.unwrap();
            engine.settle().await;
            assert_eq!(kit::status(&engine, hang).await, if end < 10 { "Running" } else { "Blocked" }, "after {end} ends");
            assert!(kit::sentence(&engine, nap).await.contains("for its timer at"), "after {end} ends");
        }
        assert!(kit::sentence(&engine, hang).await.contains("ended ten times in a row"), "{}", kit::sentence(&engine, hang).await);
        engine.advance(Duration::from_secs(3600)).await;
        engine.local().result::<()>(nap).await.unwrap();
        kit::sound(&engine).await;
    }
}
