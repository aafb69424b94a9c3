//! A message's way between shards has four writes: it is put into the outbox, taken with its mark, acknowledged, and deleted.
//! The process is cut after each single commit of that way, and after each of what its recovery then commits.

use std::collections::BTreeSet;
use std::time::Duration;

use selvedge::{ActorOptions, App, Ctx, Failure, Handler, Outcome, Retry, Settings, Target, test};
use selvedge_kernel::id::ShardId;
use selvedge_kernel::record::key;
use selvedge_kernel::record::kind::Kind;

use crate::kit;

const SEND: Handler<u32, Vec<u64>> = Handler::new("sender", "send");
const CALL: Handler<u32, Vec<u64>> = Handler::new("sender", "call");
const LATER: Handler<u32, Vec<u64>> = Handler::new("sender", "later");
const KEYED: Handler<u32, Vec<u64>> = Handler::new("sender", "keyed");
const ROUND: Handler<u32, Vec<u64>> = Handler::new("sender", "round");
const HOPE: Handler<u32, Vec<u64>> = Handler::new("sender", "hope");
const LOG: Handler<u32, u64> = Handler::new("log", "add");
const BACK: Handler<u32, String> = Handler::new("log", "back");
const RING: Handler<u32, Vec<u64>> = Handler::new("sender", "ring");
const HOLD: Handler<u32, ()> = Handler::new("log", "hold");
const TAKE_HERE: Handler<u32, u32> = Handler::new("sender", "take");
const TAKE_THERE: Handler<u32, u32> = Handler::new("log", "take");
const BREAK: Handler<u32, u64> = Handler::new("broken", "break");

const SHARDS: u16 = 4;
/// Longer than the longest delay.
const OVER: Duration = Duration::from_secs(120);
/// More commits than any of these ways has.
const BOUND: u64 = 64;

async fn log(ctx: Ctx, value: u32) -> Outcome<u64> {
    let mut seen = ctx.state().get::<Vec<u32>>("seen").await?.unwrap_or_default();
    seen.push(value);
    ctx.state().set("seen", &seen)?;
    Ok(seen.len() as u64)
}

async fn send(ctx: Ctx, value: u32) -> Outcome<Vec<u64>> {
    ctx.send(LOG.on("there"), value);
    // Long enough for the first one to have gone its whole way.
    ctx.sleep(Duration::from_secs(30)).await?;
    ctx.send(LOG.on("there"), value + 1);
    Ok(Vec::new())
}

async fn later(ctx: Ctx, value: u32) -> Outcome<Vec<u64>> {
    let _ = ctx.send(LOG.on("there"), value + 1).delay(Duration::from_secs(90));
    ctx.step("between", async |_| Ok(1)).await?;
    let _ = ctx.send(LOG.on("there"), value).delay(Duration::from_secs(60));
    Ok(Vec::new())
}

async fn call(ctx: Ctx, value: u32) -> Outcome<Vec<u64>> {
    let mut answers = Vec::new();
    for value in [value, value + 1] {
        answers.push(ctx.call(LOG.on("there"), value).await?);
        ctx.state().set("answers", &answers)?;
    }
    Ok(answers)
}

/// Calls twice under one key, and then under the same key with another body.
async fn keyed(ctx: Ctx, value: u32) -> Outcome<Vec<u64>> {
    let calls = (0..2).map(|_| ctx.call(LOG.on("there"), value).idempotency_key("once"));
    let mut answers = ctx.join_all(calls).await?;
    let other = ctx.call(LOG.on("there"), value + 1).idempotency_key("once").await;
    answers.push(other.map_or_else(|failure| u64::from(failure.code() == "refused"), |_| 0));
    Ok(answers)
}

/// Calls somebody who calls back.
async fn round(ctx: Ctx, value: u32) -> Outcome<Vec<u64>> {
    let said = ctx.call(BACK.on("there"), value).await?;
    Ok(vec![u64::from(said == "call_cycle")])
}

async fn back(ctx: Ctx, value: u32) -> Outcome<String> {
    let said = ctx.call(SEND.on("here"), value).await;
    ctx.call(LOG.on("over there"), value).await?;
    Ok(said.map_or_else(|failure| failure.code().to_owned(), |_| "an answer".to_owned()))
}

/// Holds its actor and calls one that somebody else holds, who calls back.
async fn ring(ctx: Ctx, value: u32) -> Outcome<Vec<u64>> {
    ctx.send(HOLD.on("there"), value);
    ctx.sleep(Duration::from_secs(30)).await?;
    let taken = ctx.call(TAKE_THERE.on("there"), value).await;
    given_up(&ctx, taken)?;
    Ok(Vec::new())
}

async fn hold(ctx: Ctx, value: u32) -> Outcome<()> {
    ctx.sleep(Duration::from_secs(30)).await?;
    let taken = ctx.call(TAKE_HERE.on("here"), value).await;
    given_up(&ctx, taken)
}

/// Tells the log if it was that call which was given up.
fn given_up(ctx: &Ctx, taken: Outcome<u32>) -> Outcome<()> {
    match taken {
        Ok(_) => Ok(()),
        Err(failure) if failure.code() == "deadlock" => {
            ctx.send(LOG.on("over there"), 45);
            Ok(())
        }
        Err(failure) => Err(failure),
    }
}

async fn take(ctx: Ctx, value: u32) -> Outcome<u32> {
    ctx.send(LOG.on("over there"), value);
    Ok(value)
}

/// Sends to somebody who never succeeds, and then to somebody else.
async fn hope(ctx: Ctx, value: u32) -> Outcome<Vec<u64>> {
    ctx.send(BREAK.on("there"), value);
    ctx.send(LOG.on("there"), value);
    Ok(Vec::new())
}

fn app() -> App {
    let thrice = ActorOptions { retry: Retry::fixed(3, Duration::from_secs(60)), ..ActorOptions::default() };
    App::new()
        .handler(SEND, send)
        .handler(CALL, call)
        .handler(LATER, later)
        .handler(KEYED, keyed)
        .handler(ROUND, round)
        .handler(HOPE, hope)
        .handler(RING, ring)
        .handler(HOLD, hold)
        .handler(TAKE_HERE, take)
        .handler(TAKE_THERE, take)
        .handler(LOG, log)
        .handler(BACK, back)
        .actor("broken", thrice)
        .handler(BREAK, async |_: Ctx, _: u32| Err(Failure::retryable("broken", "it is what it is")))
}

/// What is written of the first envelope from one shard to another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Stage {
    Nothing,
    Put,
    Taken,
    Deleted,
}

const WHOLE_WAY: [Stage; 4] = [Stage::Nothing, Stage::Put, Stage::Taken, Stage::Deleted];

fn stage(engine: &test::Engine, from: ShardId, to: ShardId) -> Stage {
    let has = |shard, row| engine.model().rows(shard).iter().any(|(key, _)| *key == row);
    match (has(from, key::outbox(to, 1)), has(to, key::taken(from))) {
        (false, false) => Stage::Nothing,
        (true, false) => Stage::Put,
        (true, true) => Stage::Taken,
        (false, true) => Stage::Deleted,
    }
}

fn shard_of(kind: &str, key: &str) -> ShardId {
    kit::actor(kind, key).hash16().shard(SHARDS)
}

/// Which stages were there when a life was cut, of the messages there and of what came back.
#[derive(Default)]
struct Seen {
    there: BTreeSet<Stage>,
    back: BTreeSet<Stage>,
    /// How many lives were cut in one history.
    cuts: usize,
}

impl Seen {
    fn look(&mut self, engine: &test::Engine) {
        let (here, there) = (shard_of("sender", "here"), shard_of("log", "there"));
        assert_ne!(here, there);
        self.there.insert(stage(engine, here, there));
        self.back.insert(stage(engine, there, here));
    }
}

/// Does something until it is done, or until the life of now is cut in it.
pub async fn unless_cut<T>(engine: &test::Engine, done: impl Future<Output = T>) -> Option<T> {
    let cut = async {
        while !engine.model().is_cut() {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    };
    tokio::select! {
        biased;
        () = cut => None,
        done = done => Some(done),
    }
}

/// One history: a client asks under one key, in each life again, until everything has come to its end.
async fn history(of: &'static str, lives: &[u64], seen: &mut Seen) -> (test::Engine, Vec<u64>) {
    let settings = Settings { shards: SHARDS, workers: 1, replay_always: true, ..Settings::default() };
    let mut engine = test::Engine::with(app(), settings).await.unwrap();
    engine.settle().await;
    engine.model().cut_after(lives);
    seen.cuts = 0;
    loop {
        let target: Target<u32, Vec<u64>> = Handler::new("sender", of).on("here");
        let client = engine.local();
        let asked = async {
            let (answer, ()) = tokio::join!(client.call(target, 7).idempotency_key("once").into_future(), async {
                for _ in 0..3 {
                    engine.advance(OVER).await;
                }
            });
            answer.unwrap()
        };
        if let Some(answer) = unless_cut(&engine, asked).await {
            seen.look(&engine);
            return (engine, answer);
        }
        seen.look(&engine);
        seen.cuts += 1;
        engine.kill_and_reopen().await.unwrap();
    }
}

/// How many lives of one history are cut.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cuts {
    One,
    Two,
}

/// What each history must come to.
struct Expected<'a> {
    /// What the client is told.
    answers: &'a [u64],
    /// What the receiver has handled, in its order, and who that is.
    seen: &'a str,
    receiver: &'a str,
    /// How many messages are given up.
    letters: usize,
}

const BOTH: Expected<'static> = Expected { answers: &[], seen: "[7,8]", receiver: "there", letters: 0 };

/// Cuts one life, and then perhaps a second one too, after every number of commits that it can reach.
async fn at_every_commit(cuts: Cuts, of: &'static str, expected: Expected<'_>) -> Seen {
    let mut seen = Seen::default();
    for first in 0..BOUND {
        for second in 0..BOUND {
            let lives = [first, second];
            let (engine, answers) = history(of, if cuts == Cuts::Two { &lives } else { &lives[..1] }, &mut seen).await;
            let what = format!("cut after {first} commits, then after {second}");
            assert_eq!(answers, expected.answers, "{what}");
            assert_eq!(kit::state(&engine, "log", expected.receiver).await["seen"], expected.seen, "{what}");
            let letters = kit::dead_letters(&engine).await;
            assert_eq!(letters.len(), expected.letters, "{what}");
            for letter in letters {
                assert_eq!((&letter.message.input[..], letter.attempts, &*letter.error.code), (&b"7"[..], 3, "attempts_exhausted"), "{what}");
            }
            for kind in [Kind::Outbox, Kind::Inbox, Kind::Begun, Kind::Ready] {
                assert_eq!(kit::rows(&engine, kind), 0, "{kind:?}, {what}");
            }
            kit::sound(&engine).await;
            if seen.cuts < 2 {
                break;
            }
        }
        if seen.cuts == 0 {
            assert!(first > 4, "a way has more commits than {first}");
            return seen;
        }
    }
    panic!("a way has no more than {BOUND} commits");
}

#[tokio::test]
async fn cut_after_every_commit_of_its_way_a_message_is_handled_once_and_in_order() {
    let seen = at_every_commit(Cuts::Two, "send", BOTH).await;
    assert_eq!(seen.there, BTreeSet::from(WHOLE_WAY));
}

#[tokio::test]
async fn cut_after_every_commit_of_its_way_a_call_is_handled_once_and_its_reply_delivered_once() {
    let seen = at_every_commit(Cuts::Two, "call", Expected { answers: &[1, 2], ..BOTH }).await;
    assert_eq!((seen.there, seen.back), (BTreeSet::from(WHOLE_WAY), BTreeSet::from(WHOLE_WAY)));
}

#[tokio::test]
async fn cut_after_every_commit_of_its_way_a_delayed_message_is_handled_once_and_in_the_order_due() {
    let seen = at_every_commit(Cuts::Two, "later", BOTH).await;
    assert_eq!(seen.there, BTreeSet::from(WHOLE_WAY));
}

#[tokio::test]
async fn case_9_cut_after_every_commit_calls_of_another_shard_under_one_key_are_handled_once_and_another_body_is_refused() {
    at_every_commit(Cuts::One, "keyed", Expected { answers: &[1, 1, 1], seen: "[7]", ..BOTH }).await;
}

#[tokio::test]
async fn case_45_cut_after_every_commit_a_call_back_from_another_shard_fails_with_call_cycle() {
    at_every_commit(Cuts::One, "round", Expected { answers: &[1], seen: "[7]", receiver: "over there", letters: 0 }).await;
}

#[tokio::test]
async fn case_45_cut_after_every_commit_a_ring_of_two_shards_is_broken_once_and_what_was_given_up_is_never_started() {
    at_every_commit(Cuts::One, "ring", Expected { seen: "[45,7]", receiver: "over there", ..BOTH }).await;
}

#[tokio::test]
async fn case_7_cut_after_every_commit_a_message_that_another_shard_cannot_handle_is_dead_lettered_once_and_whole() {
    at_every_commit(Cuts::One, "hope", Expected { seen: "[7]", letters: 1, ..BOTH }).await;
}
