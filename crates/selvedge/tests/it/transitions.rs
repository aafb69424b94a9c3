//! What one transition of an actor holds, and what it must not start.

use std::time::Duration;

use bytes::Bytes;
use selvedge::{ActorOptions, App, Ctx, Failure, Handler, Outcome, Retry, Settings, Signal, test};
use selvedge_engine::engine::Ask;
use selvedge_kernel::auth::{Action, Resource, authorize, local};
use selvedge_kernel::id::{InvocationId, RawId, ShardId};
use selvedge_kernel::limit::Limits;
use selvedge_kernel::record::invocation::Invocation;
use selvedge_kernel::record::key;
use selvedge_kernel::record::kind::Kind;
use selvedge_kernel::record::message::{Envelope, Message, OutboxRow};
use selvedge_kernel::wire;

use crate::kit::{self, Notes};

const GO: Handler<u32, u32> = Handler::new("subject", "go");
const NOTE: Handler<u32, u32> = Handler::new("subject", "note");
const SLOW: Handler<u32, u32> = Handler::new("slow", "work");
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test]
async fn however_many_operations_a_handler_drops_at_once_each_is_given_up() {
    for replay_always in [false, true] {
        let app = App::new()
            .handler(GO, async |ctx: Ctx, many: u32| {
                let sleeps = ctx.join_all((0..many).map(|_| ctx.sleep(HOUR)));
                let calls = ctx.join_all((0..many).map(|n| ctx.call(SLOW.on(format!("s{n}")), n)));
                ctx.select(ctx.select(sleeps, calls), ctx.sleep(SECOND)).await;
                ctx.step("after", async move |_| Ok(many)).await
            })
            .handler(SLOW, async |ctx: Ctx, n: u32| {
                ctx.sleep(HOUR).await?;
                Ok(n)
            });
        let mut engine = test::Engine::with(app, Settings { replay_always, ..Settings::default() }).await.unwrap();
        let id = engine.local().send(GO.on("x"), 150).await.unwrap();
        engine.settle().await;
        engine.advance(2 * SECOND).await;
        assert_eq!(engine.engine().stopped(), None);
        engine.kill_and_reopen().await.unwrap();
        engine.settle().await;
        assert_eq!(engine.local().result::<u32>(id).await.unwrap(), 150);
        assert_eq!((kit::rows(&engine, Kind::Begun), kit::rows(&engine, Kind::Timer)), (150, 150), "the callees sleep on, and nothing else is left");
        engine.advance(HOUR).await;
        assert_eq!((kit::rows(&engine, Kind::Begun), kit::rows(&engine, Kind::Timer), kit::rows(&engine, Kind::Inbox)), (0, 0, 0));
        kit::sound(&engine).await;
    }
}

#[tokio::test]
async fn as_many_delayed_messages_as_a_transition_may_send_go_to_an_actor_of_its_own_shard() {
    let notes = Notes::default();
    let noted = notes.clone();
    let app = App::new()
        .handler(GO, async |ctx: Ctx, many: u32| {
            for n in 0..many {
                let _ = ctx.send(NOTE.on("x"), n).delay(Duration::from_secs(u64::from(n % 4) + 10));
            }
            Ok(many)
        })
        .handler(NOTE, async move |_: Ctx, n: u32| {
            noted.add(n.to_string());
            Ok(n)
        });
    let mut engine = test::Engine::with(app, Settings::default()).await.unwrap();
    engine.local().call(GO.on("x"), 64).await.unwrap();
    engine.settle().await;
    assert_eq!((engine.engine().stopped(), kit::rows(&engine, Kind::Timer), kit::rows(&engine, Kind::Outbox)), (None, 64, 0));
    engine.kill_and_reopen().await.unwrap();
    engine.advance(20 * SECOND).await;
    let by_due_time: Vec<String> = (0..4).flat_map(|due| (0..16).map(move |n| (n * 4 + due).to_string())).collect();
    assert_eq!(notes.all(), by_due_time);
    kit::sound(&engine).await;
}

#[tokio::test]
async fn messages_to_an_actor_of_ones_own_shard_keep_their_order_over_bursts_larger_than_what_goes_directly() {
    let notes = Notes::default();
    let noted = notes.clone();
    let app = App::new()
        .handler(GO, async |ctx: Ctx, many: u32| {
            for n in 0..many {
                ctx.send(NOTE.on("x"), n);
                if n % 20 == 19 {
                    ctx.step("between", async |_| Ok(1)).await?;
                }
            }
            Ok(many)
        })
        .handler(NOTE, async move |_: Ctx, n: u32| {
            noted.add(n.to_string());
            Ok(n)
        });
    let engine = test::Engine::with(app, Settings::default()).await.unwrap();
    engine.local().call(GO.on("x"), 90).await.unwrap();
    engine.settle().await;
    assert_eq!(notes.all(), (0..90).map(|n| n.to_string()).collect::<Vec<_>>());
    kit::sound(&engine).await;
}

#[tokio::test]
async fn restart_with_many_changes_takes_along_all_who_joined_it() {
    const ASK: Handler<u32, u32> = Handler::new("asker", "ask");
    let app = App::new()
        .handler(GO, async |ctx: Ctx, more: u32| {
            ctx.sleep(HOUR).await?;
            for n in 0..60 {
                ctx.state().set(&format!("n{n}"), &more)?;
            }
            if more > 0 { Err(ctx.restart(more - 1)) } else { Ok(7) }
        })
        .handler(ASK, async |ctx: Ctx, more: u32| ctx.call(GO.on("x"), more).idempotency_key("once").await);
    let engine = test::Engine::with(app, Settings::default()).await.unwrap();
    let mut askers = Vec::new();
    for n in 0..40 {
        askers.push(engine.local().send(ASK.on(format!("a{n}")), 1).await.unwrap());
    }
    engine.settle().await;
    assert_eq!(kit::rows(&engine, Kind::Joined), 39);
    engine.advance(HOUR).await;
    assert_eq!(engine.engine().stopped(), None);
    engine.advance(HOUR).await;
    for asker in askers {
        assert_eq!(engine.local().result::<u32>(asker).await.unwrap(), 7);
    }
    assert_eq!(kit::rows(&engine, Kind::Joined), 0);
    kit::sound(&engine).await;
}

#[tokio::test]
async fn attempt_that_came_sooner_by_hand_does_not_cut_the_wait_of_the_next_one_short() {
    let notes = Notes::default();
    let noted = notes.clone();
    let app = App::new().actor("subject", ActorOptions { retry: Retry::fixed(5, HOUR), ..ActorOptions::default() }).handler(
        GO,
        async move |_: Ctx, _: u32| -> Outcome<u32> {
            noted.add("tried");
            Err(Failure::retryable("not_yet", "later"))
        },
    );
    let mut engine = test::Engine::with(app, Settings::default()).await.unwrap();
    let id = engine.local().send(GO.on("x"), 1).await.unwrap();
    engine.advance(HOUR / 2).await;
    kit::retry(&engine, id).await;
    engine.settle().await;
    assert_eq!(notes.count("tried"), 2);
    engine.advance(HOUR / 2 + SECOND).await;
    assert_eq!(notes.count("tried"), 2, "the second attempt failed half an hour ago, and an hour is to pass");
    engine.kill_and_reopen().await.unwrap();
    engine.settle().await;
    assert_eq!(notes.count("tried"), 2);
    engine.advance(HOUR / 2).await;
    assert_eq!(notes.count("tried"), 3);
}

fn stepping() -> App {
    App::new().handler(GO, async |ctx: Ctx, way: u32| {
        if way == 0 {
            ctx.sleep(HOUR).await?;
        }
        if way == 2 {
            ctx.step("first", async |_| Ok(1)).await?;
        }
        ctx.step("effect", async |_| {
            std::future::pending::<()>().await;
            Ok(1)
        })
        .await
    })
}

#[tokio::test]
async fn cancel_that_comes_before_the_first_step_starts_none() {
    let engine = test::Engine::with(stepping(), Settings::default()).await.unwrap();
    let holder = engine.local().send(GO.on("x"), 0).await.unwrap();
    let next = engine.local().send(GO.on("x"), 1).await.unwrap();
    engine.settle().await;
    engine.model().hold();
    // The next in line comes in when the holder has ended; before that is on the disk, it is cancelled.
    let held = async |batches: usize| {
        while engine.model().held() < batches {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::join!(
        kit::kill(&engine, holder),
        async {
            held(1).await;
            engine.local().cancel(next).await.unwrap();
        },
        async {
            held(2).await;
            engine.model().release();
        }
    );
    engine.settle().await;
    assert_eq!(kit::status(&engine, next).await, "Cancelled");
    assert!(engine.effects().is_empty(), "{:?}", engine.effects());
    kit::sound(&engine).await;
}

#[tokio::test]
async fn cancel_that_was_kept_over_a_kill_starts_no_step_again() {
    let mut engine = test::Engine::with(stepping(), Settings::default()).await.unwrap();
    let id = engine.local().send(GO.on("x"), 2).await.unwrap();
    engine.settle().await;
    assert_eq!(engine.effects().len(), 2);
    // As a kill right behind the commit that keeps the cancel leaves it.
    let (row, shard) = (key::invocation(id), id.0.hash.shard(64));
    let stored = engine.model().rows(shard).into_iter().find(|(key, _)| *key == row).unwrap().1;
    let mut record = Invocation::decode(&stored).unwrap();
    record.cancel = Some("enough".to_owned());
    engine.model().overwrite(shard, row, record.encode());
    engine.kill_and_reopen().await.unwrap();
    engine.settle().await;
    assert_eq!(kit::status(&engine, id).await, "Cancelled");
    assert_eq!(engine.effects().len(), 2, "{:?}", engine.effects());
    kit::sound(&engine).await;
}

#[tokio::test]
async fn key_of_a_delayed_message_that_is_refused_when_it_is_due_is_free_again() {
    let app = stepping().handler(NOTE, async |_: Ctx, n: u32| Ok(n));
    let limits = Limits { inbox: 1, ..Limits::default() };
    let engine = test::Engine::with(app, Settings { limits, ..Settings::default() }).await.unwrap();
    let actor = kit::actor("subject", "x");
    let now = engine.engine().now();
    let permit = authorize(local("default", now), Action::Invoke, Resource::Handler { actor, handler: "note".to_owned() }, now).unwrap();
    let ask = Ask { idempotency_key: Some("k".to_owned()), delay: Some(SECOND), ..Ask::default() };
    engine.engine().invoke(permit, "1".into(), ask).await.unwrap();
    engine.local().send(GO.on("x"), 1).await.unwrap();
    assert_eq!(kit::rows(&engine, Kind::Idempotency), 1);
    engine.advance(2 * SECOND).await;
    assert_eq!((kit::dead_letters(&engine).await.len(), kit::rows(&engine, Kind::Idempotency)), (1, 0));
    kit::sound(&engine).await;
}

#[tokio::test]
async fn call_whose_time_is_over_when_it_comes_is_never_started() {
    let notes = Notes::default();
    let noted = notes.clone();
    let app = App::new()
        .handler(GO, async |ctx: Ctx, n: u32| match ctx.call(NOTE.on("other"), n).timeout(Duration::ZERO).await {
            Err(error) if format!("{error:?}").contains("deadline") => Ok(1),
            _ => Ok(2),
        })
        .handler(NOTE, async move |_: Ctx, n: u32| {
            noted.add(n.to_string());
            Ok(n)
        });
    let engine = test::Engine::with(app, Settings::default()).await.unwrap();
    assert_eq!(engine.local().call(GO.on("x"), 1).await.unwrap(), 1);
    engine.settle().await;
    assert!(notes.all().is_empty(), "{:?}", notes.all());
    kit::sound(&engine).await;
}

/// An actor of another shard than `subject/x`, which `GO` sends one note to; an outbox row of that pair; and the number that
/// its shard has taken last.
async fn with_a_pair() -> (test::Engine, Notes, ShardId, ShardId, u64) {
    const TELL: Handler<u32, u32> = Handler::new("subject", "tell");
    let notes = Notes::default();
    let noted = notes.clone();
    let app = App::new()
        .handler(TELL, async |ctx: Ctx, n: u32| {
            ctx.send(NOTE.on("other"), n);
            Ok(n)
        })
        .handler(NOTE, async move |_: Ctx, n: u32| {
            noted.add(n.to_string());
            Ok(n)
        });
    let engine = test::Engine::with(app, Settings::default()).await.unwrap();
    engine.local().call(TELL.on("x"), 1).await.unwrap();
    engine.settle().await;
    let (from, to) = (kit::actor("subject", "x").hash16().shard(64), kit::actor("subject", "other").hash16().shard(64));
    assert_ne!(from, to);
    let taken = engine.model().rows(to).into_iter().find(|(row, _)| *row == key::taken(from)).unwrap().1;
    let last: u64 = wire::decode("mark", &taken).unwrap();
    assert_eq!((notes.all(), last, kit::rows(&engine, Kind::Outbox)), (vec!["1".to_owned()], 1, 0));
    (engine, notes, from, to, last)
}

/// Puts an envelope into an outbox, as one that nobody has acknowledged.
fn put_envelope(engine: &test::Engine, (from, to): (ShardId, ShardId), n: u64, input: u32) {
    let id = InvocationId(RawId { hash: kit::actor("subject", "other").hash16(), uuid: [input as u8; 16] });
    let context = local("default", engine.engine().now());
    let message = Message::new(id, kit::actor("subject", "other"), "note", Bytes::from(input.to_string()), context);
    engine.model().overwrite(from, key::outbox(to, n), wire::encode(&OutboxRow::Whole(Envelope::Invoke(message))));
}

#[tokio::test]
async fn what_comes_again_under_a_number_that_was_taken_is_acknowledged_and_not_taken() {
    let (mut engine, notes, from, to, last) = with_a_pair().await;
    put_envelope(&engine, (from, to), last, 2);
    engine.kill_and_reopen().await.unwrap();
    engine.settle().await;
    assert_eq!((notes.all(), kit::rows(&engine, Kind::Outbox)), (vec!["1".to_owned()], 0));
    put_envelope(&engine, (from, to), last + 1, 3);
    engine.kill_and_reopen().await.unwrap();
    engine.settle().await;
    assert_eq!((notes.all(), kit::rows(&engine, Kind::Outbox)), (vec!["1".to_owned(), "3".to_owned()], 0));
    kit::sound(&engine).await;
}

#[tokio::test]
async fn envelope_behind_one_that_is_missing_is_not_taken_and_the_engine_says_what_is_damaged() {
    let (mut engine, notes, from, to, last) = with_a_pair().await;
    put_envelope(&engine, (from, to), last + 2, 2);
    engine.kill_and_reopen().await.unwrap();
    while engine.engine().stopped().is_none() && notes.all().len() == 1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let reason = engine.engine().stopped().unwrap_or_default();
    assert_eq!(
        reason,
        format!(
            "envelope 2 from shard {} to shard {} is missing in the outbox, and later ones are there: the store is damaged; run `selvedge verify`",
            from.0, to.0
        )
    );
    assert_eq!(notes.all(), ["1"]);
}

#[tokio::test]
async fn signal_that_comes_while_another_result_is_on_its_way_is_taken_by_nobody_who_lost() {
    const POKE: Signal<u32> = Signal::new("poke");
    let app = App::new().handler(GO, async |ctx: Ctx, _: u32| {
        {
            let (poked, slept) = (ctx.signal(POKE), ctx.sleep(SECOND / 2));
            ctx.select(poked, slept).await;
        }
        ctx.sleep(SECOND).await?;
        ctx.signal(POKE).await
    });
    let engine = test::Engine::with(app, Settings::default()).await.unwrap();
    let id = engine.local().send(GO.on("x"), 1).await.unwrap();
    engine.settle().await;
    engine.model().hold();
    let client = engine.local();
    // It is still in memory. The sleep is over, and that is on its way to the disk, when the signal comes.
    let ((), sent) = tokio::join!(engine.advance(SECOND / 2), async {
        while engine.model().held() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let before = engine.model().held();
        let sent = tokio::spawn(async move { client.send_signal_to(id, POKE, 7).await });
        while engine.model().held() == before {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        engine.model().release();
        sent.await.unwrap()
    });
    sent.unwrap();
    engine.advance(2 * SECOND).await;
    assert_eq!(kit::status(&engine, id).await, "Completed", "{}", kit::sentence(&engine, id).await);
    assert_eq!(engine.local().result::<u32>(id).await.unwrap(), 7);
    kit::sound(&engine).await;
}
