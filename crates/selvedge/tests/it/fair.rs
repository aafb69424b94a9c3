//! Whose turn it is: what a reopened store holds is let out and taken up bit by bit, and one tenant does not keep the
//! others waiting.

use std::time::Duration;

use bytes::Bytes;
use selvedge::{App, Ctx, Handler, Settings, test};
use selvedge_engine::engine::Ask;
use selvedge_kernel::auth::{Action, Resource, authorize, local};
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
    let rows: Vec<Put> = messages
        .into_iter()
        .zip(1u64..)
        .map(|(message, n)| Put { key: key::outbox(to, n), value: wire::encode(&OutboxRow::Whole(Envelope::Invoke(message))), expires: None })
        .collect();
    for (puts, number) in rows.chunks(100).zip(claim.last + 1..) {
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
    let messages = (0..5_000u64).map(|n| Message::new(sent_id(owner, n, &target), target.clone(), "take", Bytes::from(n.to_string()), local("default", now)));
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

/// Keys of actors that all live in one shard.
fn keys_of_one_shard(tenant: &str, kind: &str, shard: ShardId, count: usize) -> Vec<String> {
    let of = |key: &String| ActorId { tenant: tenant.to_owned(), kind: kind.to_owned(), key: key.clone() };
    (0..).map(|n: u32| format!("k{n}")).filter(|key| of(key).hash16().shard(64) == shard).take(count).collect()
}

#[tokio::test]
async fn a_reopened_shard_brings_so_many_back_at_a_time_and_the_others_wait_in_line_and_can_be_ended_there() {
    const WORK: Handler<(), u32> = Handler::new("desk", "work");
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let opened = gate.clone();
    let app = App::new().handler(WORK, async move |ctx: Ctx, ()| {
        let gate = opened.clone();
        ctx.step("work", async move |_| {
            gate.acquire().await.unwrap().forget();
            Ok(7)
        })
        .await
    });
    let mut engine = test::Engine::with(app, Settings::default()).await.unwrap();
    let mut ids = Vec::new();
    for key in keys_of_one_shard("default", "desk", ShardId(5), 10) {
        ids.push(engine.local().send(WORK.on(key), ()).await.unwrap());
    }
    engine.settle().await;
    assert_eq!(engine.effects().len(), 10);
    engine.kill_and_reopen_with(Settings { recovered_at_once: 3, ..Settings::default() }).await.unwrap();
    engine.settle().await;
    assert_eq!((kit::census(&engine).await.active, engine.effects().len()), (3, 13));
    assert!(kit::sentence(&engine, ids[9]).await.contains("for its turn, 6 before it"), "{}", kit::sentence(&engine, ids[9]).await);
    // One in line is killed, and one is cancelled, which its handler is told out of its turn.
    kit::kill(&engine, ids[8]).await;
    engine.local().cancel(ids[7]).await.unwrap();
    engine.settle().await;
    assert_eq!((kit::status(&engine, ids[8]).await.as_str(), kit::status(&engine, ids[7]).await.as_str()), ("Killed", "Cancelled"));
    let before = engine.effects().len();
    // As one ends, the next comes in, in order.
    gate.add_permits(1);
    while engine.effects().len() < before + 1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    engine.settle().await;
    assert_eq!((kit::census(&engine).await.active, engine.effects().len()), (3, before + 1));
    assert!(kit::sentence(&engine, ids[3]).await.contains("for `work`"));
    gate.add_permits(100);
    for id in ids.iter().filter(|id| **id != ids[7] && **id != ids[8]) {
        assert_eq!(engine.local().result::<u32>(*id).await.unwrap(), 7);
    }
    engine.settle().await;
    assert_eq!(engine.effects().len(), before + 5);
    assert_eq!(kit::rows(&engine, Kind::Ready), 0);
    kit::sound(&engine).await;
}

const STEP: Handler<String, ()> = Handler::new("desk", "step");

fn stepping(gate: &std::sync::Arc<tokio::sync::Semaphore>) -> App {
    let gate = gate.clone();
    App::new().handler(STEP, async move |ctx: Ctx, tenant: String| {
        let gate = gate.clone();
        ctx.step(&format!("of {tenant}"), async move |_| {
            gate.acquire().await.unwrap().forget();
            Ok(())
        })
        .await
    })
}

async fn start_for(engine: &test::Engine, tenant: &str, key: String) -> selvedge::InvocationId {
    let actor = ActorId { tenant: tenant.to_owned(), kind: "desk".to_owned(), key };
    let now = engine.engine().now();
    let permit = authorize(local(tenant, now), Action::Invoke, Resource::Handler { actor, handler: "step".to_owned() }, now).unwrap();
    engine.engine().invoke(permit, Bytes::from(format!("\"{tenant}\"")), Ask::default()).await.unwrap().id.unwrap()
}

#[tokio::test]
async fn thousands_of_one_tenant_do_not_keep_another_tenant_waiting() {
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let settings = Settings { workers: 1, recovered_at_once: 10_000, ..Settings::default() };
    let mut engine = test::Engine::with(stepping(&gate), settings).await.unwrap();
    for key in keys_of_one_shard("a", "desk", ShardId(5), 3_000) {
        start_for(&engine, "a", key).await;
    }
    let key = keys_of_one_shard("b", "desk", ShardId(5), 1).remove(0);
    start_for(&engine, "b", key).await;
    engine.settle().await;
    let before = engine.effects().len();
    assert_eq!(before, 3_001);
    engine.kill_and_reopen().await.unwrap();
    engine.settle().await;
    let effects = engine.effects().split_off(before);
    assert_eq!(effects.len(), 3_001);
    let place = effects.iter().position(|effect| effect.name == "of b").unwrap();
    assert!(place <= 2, "{place} of the other tenant came before");
    gate.add_permits(10_000);
    engine.settle().await;
    kit::sound(&engine).await;
}

const TASK: selvedge::Activity<u64, u64> = selvedge::Activity::new("task");

/// Keys under which the runs of a pipeline lie in one shard.
fn run_keys_of_one_shard(pipeline: &str, shard: ShardId, count: usize) -> Vec<String> {
    let of = |key: &String| selvedge::RunId::keyed("default", pipeline, key).0.hash.shard(64);
    (0..).map(|n: u32| format!("k{n}")).filter(|key| of(key) == shard).take(count).collect()
}

#[tokio::test]
async fn runs_of_a_reopened_shard_come_back_bit_by_bit_each_once_and_one_that_is_asked_for_comes_before_its_turn() {
    let text = "selvedge: 1\nname: one\ninput: { n: { type: integer } }\nstages:\n  - { name: task, call: task, input: \"${input.n}\" }\noutput: ${stages.task.output}\n";
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let opened = gate.clone();
    let started = kit::Notes::default();
    let noted = started.clone();
    let app = App::new().pipeline(super::runs::parse(text)).activity(TASK, async move |_: selvedge::Attempt, n: u64| {
        noted.add(n.to_string());
        opened.acquire().await.unwrap().forget();
        Ok(n)
    });
    let mut engine = test::Engine::new(app).await.unwrap();
    let mut ids = Vec::new();
    for (n, key) in run_keys_of_one_shard("one", ShardId(9), 100).into_iter().enumerate() {
        ids.push(engine.local().start("one", serde_json::json!({ "n": n })).idempotency_key(key).await.unwrap().id());
    }
    engine.settle().await;
    assert_eq!(started.all().len(), 100);
    engine.kill_and_reopen().await.unwrap();
    // The last in line is told to end, whether or not its turn has come.
    engine.local().run(ids[99]).cancel().await.unwrap();
    engine.settle().await;
    let again = started.all().split_off(100);
    assert!(again.len() == 99 || again.len() == 100 && again[99] != "99", "{again:?}");
    let census = kit::census(&engine).await;
    assert_eq!((census.runs, kit::rows(&engine, Kind::Ready)), (99, 99));
    gate.add_permits(300);
    for (n, id) in ids.iter().enumerate().take(99) {
        assert_eq!(engine.local().run(*id).result::<u64>().await.unwrap(), n as u64);
    }
    engine.settle().await;
    assert_eq!(super::runs::state(&engine, ids[99]).await, selvedge_kernel::machine::RunState::Cancelled);
    assert_eq!(kit::rows(&engine, Kind::Ready), 0);
    kit::sound(&engine).await;
}

#[tokio::test]
async fn a_wide_run_does_not_keep_a_small_one_of_its_shard_waiting() {
    let wide = "selvedge: 1\nname: wide\nstages:\n  - { name: each, mode: scatter, over: input.list, call: task, input: \"${item}\" }\n";
    let wide = wide.replace("stages:", "input: { list: { type: array } }\nstages:");
    let small = "selvedge: 1\nname: small\nstages:\n  - { name: task, call: task, input: 1 }\n";
    let app = App::new().pipeline(super::runs::parse(&wide)).pipeline(super::runs::parse(small)).activity(TASK, async |_: selvedge::Attempt, n: u64| Ok(n));
    let engine = test::Engine::new(app).await.unwrap();
    let key = |pipeline: &str| run_keys_of_one_shard(pipeline, ShardId(3), 1).remove(0);
    let list: Vec<u64> = (0..20_000).collect();
    let wide = engine.local().start("wide", serde_json::json!({ "list": list })).idempotency_key(key("wide")).await.unwrap();
    let small = engine.local().start("small", serde_json::json!({})).idempotency_key(key("small")).await.unwrap();
    small.result::<serde_json::Value>().await.unwrap();
    let done = wide.status().await.unwrap().stages[0].done;
    assert!(done < 10_000, "{done} tasks of the wide run came before the one of the small run");
    wide.result::<serde_json::Value>().await.unwrap();
}
