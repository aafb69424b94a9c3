//! Random handlers, random schedules, random kills: the journal decides, and the outcome is the same.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use proptest::prelude::*;
use selvedge::{App, Ctx, Either, Handler, Outcome, Settings, Signal, test};
use serde::{Deserialize, Serialize};

use crate::kit;

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Op {
    Step(u32),
    Sleep(u32),
    Bump(u32),
    Emit(u32),
    Send(u32),
    Spawn(u32),
    Call(u32),
    Signal(u32),
    JoinAll(Vec<u32>),
    RaceKeepLoser(u32, u32),
    RaceDropLoser(u32),
    Both(Vec<Op>, Vec<Op>),
}

type Program = Vec<Op>;

const RUN: Handler<Program, Vec<u64>> = Handler::new("subject", "run");
const SINK: Handler<u64, u64> = Handler::new("sink", "add");
const DOUBLE: Handler<u64, u64> = Handler::new("helper", "double");

fn signal(id: u32) -> Signal<u64> {
    const NAMES: [&str; 8] = ["s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7"];
    Signal::new(NAMES[(id % 8) as usize])
}

/// What a schedule decides, and what is counted.
#[derive(Clone, Default)]
struct World {
    seed: u64,
    finished: Arc<Mutex<HashMap<String, u32>>>,
}

impl World {
    /// Waits for some turns, as many as the seed says, then counts.
    async fn work(&self, id: u32, key: &str) -> u64 {
        let turns = if self.seed == 0 { 0 } else { (u64::from(id) + 1).wrapping_mul(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)) >> 61 };
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
        *self.finished.lock().unwrap().entry(key.to_owned()).or_default() += 1;
        u64::from(id) + 1
    }
}

struct Both<A, B>(Option<A>, Option<B>);

impl<A: Future<Output = Outcome<()>> + Unpin, B: Future<Output = Outcome<()>> + Unpin> Future for Both<A, B> {
    type Output = Outcome<()>;
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome<()>> {
        if let Some(a) = &mut self.0
            && let Poll::Ready(done) = Pin::new(a).poll(context)
        {
            self.0 = None;
            done?;
        }
        if let Some(b) = &mut self.1
            && let Poll::Ready(done) = Pin::new(b).poll(context)
        {
            self.1 = None;
            done?;
        }
        if self.0.is_none() && self.1.is_none() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}

type Log = Rc<RefCell<Vec<(u32, u64)>>>;

fn perform<'a>(ctx: &'a Ctx, world: &'a World, ops: &'a [Op], log: &'a Log) -> Pin<Box<dyn Future<Output = Outcome<()>> + 'a>> {
    Box::pin(async move {
        let step = |id: u32| ctx.step(&format!("step-{id}"), async move |attempt| Ok(world.work(id, attempt.key()).await));
        for op in ops {
            let (id, value) = match op {
                Op::Step(id) => (*id, step(*id).await?),
                Op::Sleep(id) => {
                    ctx.sleep(Duration::from_millis(u64::from(id % 7) * 1_000)).await?;
                    (*id, 0)
                }
                Op::Bump(id) => {
                    let name = format!("n{id}");
                    let value = ctx.state().get::<u64>(&name).await?.unwrap_or(0) + 1;
                    ctx.state().set(&name, &value)?;
                    (*id, value)
                }
                Op::Emit(id) => {
                    ctx.emit(id)?;
                    (*id, 0)
                }
                Op::Send(id) => {
                    let sent = ctx.send(SINK.on(format!("sink-{}", id % 3)), 1);
                    if id % 4 == 0 {
                        let _ = sent.delay(Duration::from_secs(2));
                    }
                    (*id, 0)
                }
                Op::Spawn(id) => (*id, ctx.spawn(DOUBLE.on(format!("h{}", id % 5)), u64::from(*id)).join().await?),
                Op::Call(id) => (*id, ctx.call(DOUBLE.on(format!("h{}", id % 5)), u64::from(*id)).await?),
                Op::Signal(id) => {
                    let got = ctx.signal(signal(*id)).within(Duration::from_secs(5)).await?;
                    (*id, got.map_or(7, |_| 8))
                }
                Op::JoinAll(ids) => (ids[0], ctx.join_all(ids.iter().map(|id| step(*id))).await?.into_iter().sum()),
                Op::RaceKeepLoser(a, b) => {
                    let (mut first, mut second) = (step(*a), step(*b));
                    let sum = match ctx.select(&mut first, &mut second).await {
                        Either::Left(won) => won? + second.await?,
                        Either::Right(won) => won? + first.await?,
                    };
                    (*a, sum)
                }
                Op::RaceDropLoser(id) => match ctx.select(step(*id), ctx.sleep(Duration::from_secs(9_999))).await {
                    Either::Left(won) => (*id, won?),
                    Either::Right(_) => (*id, 99),
                },
                Op::Both(a, b) => {
                    Both(Some(perform(ctx, world, a, log)), Some(perform(ctx, world, b, log))).await?;
                    continue;
                }
            };
            log.borrow_mut().push((id, value));
        }
        Ok(())
    })
}

fn app(world: &World) -> App {
    let (subject, helper) = (world.clone(), world.clone());
    App::new()
        .handler(RUN, async move |ctx: Ctx, program: Program| {
            let log = Log::default();
            perform(&ctx, &subject, &program, &log).await?;
            let mut log = log.take();
            log.sort_unstable();
            let mut result: Vec<u64> = log.into_iter().map(|entry| entry.1).collect();
            result.push(ctx.random());
            Ok(result.split_last().map(|(_, rest)| rest.to_vec()).unwrap_or_default())
        })
        .handler(SINK, async |ctx: Ctx, by: u64| {
            let sum = ctx.state().get::<u64>("sum").await?.unwrap_or(0) + by;
            ctx.state().set("sum", &sum)?;
            Ok(sum)
        })
        .handler(DOUBLE, async move |ctx: Ctx, value: u64| {
            let own: u64 = ctx.step("double", async |attempt| Ok(helper.work(77, attempt.key()).await)).await?;
            Ok(value * 2 + own)
        })
}

fn number(ops: &mut [Op], next: &mut u32) {
    for op in ops.iter_mut() {
        let mut give = |id: &mut u32| {
            *next += 1;
            *id = *next;
        };
        match op {
            Op::Step(id)
            | Op::Sleep(id)
            | Op::Bump(id)
            | Op::Emit(id)
            | Op::Send(id)
            | Op::Spawn(id)
            | Op::Call(id)
            | Op::Signal(id)
            | Op::RaceDropLoser(id) => give(id),
            Op::JoinAll(ids) => ids.iter_mut().for_each(give),
            Op::RaceKeepLoser(a, b) => [a, b].into_iter().for_each(give),
            Op::Both(a, b) => {
                number(a, next);
                number(b, next);
            }
        }
    }
}

fn program() -> impl Strategy<Value = Program> {
    let leaf = prop_oneof![
        3 => Just(Op::Step(0)),
        2 => Just(Op::Sleep(0)),
        2 => Just(Op::Bump(0)),
        1 => Just(Op::Emit(0)),
        2 => Just(Op::Send(0)),
        1 => Just(Op::Spawn(0)),
        1 => Just(Op::Call(0)),
        1 => Just(Op::Signal(0)),
        1 => (1usize..5).prop_map(|n| Op::JoinAll(vec![0; n])),
        1 => Just(Op::RaceKeepLoser(0, 0)),
        1 => Just(Op::RaceDropLoser(0)),
    ];
    let block = prop::collection::vec(leaf.clone(), 0..4);
    let op = prop_oneof![6 => leaf, 1 => (block.clone(), block).prop_map(|(a, b)| Op::Both(a, b))];
    prop::collection::vec(op, 1..9).prop_map(|mut ops| {
        number(&mut ops, &mut 0);
        ops
    })
}

fn walk(ops: &[Op], count: &mut impl FnMut(&Op)) {
    for op in ops {
        count(op);
        if let Op::Both(a, b) = op {
            walk(a, count);
            walk(b, count);
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Seen {
    results: Vec<Vec<u64>>,
    state: Vec<(String, String)>,
    sinks: u64,
    chunks: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kills {
    None,
    AtCommits(u64),
}

async fn once(program: &Program, seed: u64, replay_always: bool, kills: Kills) -> (Seen, u32) {
    let world = World { seed, ..World::default() };
    let mut engine = test::Engine::with(app(&world), Settings { replay_always, ..Settings::default() }).await.unwrap();
    let mut results = Vec::new();
    let mut killed = 0u32;
    let mut chunks = 0;
    for _ in 0..2 {
        let mut waits = Vec::new();
        walk(program, &mut |op| {
            if let Op::Signal(id) = op
                && id % 2 == 0
            {
                waits.push(signal(*id));
            }
        });
        for signal in waits {
            engine.local().send_signal(RUN.on("it"), signal, 1).await.unwrap();
        }
        let id = engine.local().send(RUN.on("it"), program.clone()).await.unwrap();
        let mut draw = match kills {
            Kills::None => 0,
            Kills::AtCommits(draw) => draw,
        };
        for round in 0.. {
            assert!(round < 200, "it does not end: {}", kit::sentence(&engine, id).await);
            if kills != Kills::None && killed < 12 {
                // Some batches go through, and one of them is the last that this process sees.
                for _ in 0..12 {
                    engine.model().hold();
                    for _ in 0..3 {
                        if engine.model().held() == 0 {
                            tokio::time::sleep(Duration::from_millis(1)).await;
                        }
                    }
                    if engine.model().held() == 0 {
                        engine.model().release();
                        break;
                    }
                    draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    if draw >> 62 == 0 {
                        engine.model().drop_held();
                        engine.kill_and_reopen().await.unwrap();
                        killed += 1;
                    } else {
                        engine.model().release();
                    }
                }
                engine.model().release();
            }
            engine.advance(Duration::from_secs(2)).await;
            let why = engine.local().why(id).await.unwrap();
            assert!(!why.sentence().contains("blocked"), "{}", why.sentence());
            if why.status.ended() {
                break;
            }
        }
        results.push(engine.local().result::<Vec<u64>>(id).await.unwrap());
        let mut stream = engine.local().stream(id);
        while stream.next::<u32>().await.unwrap().is_some() {
            chunks += 1;
        }
    }
    engine.advance(Duration::from_secs(10)).await;
    let mut sinks = 0;
    for n in 0..3 {
        sinks += kit::state(&engine, "sink", &format!("sink-{n}")).await.get("sum").map_or(0, |sum| sum.parse::<u64>().unwrap());
    }
    kit::sound(&engine).await;
    let most = world.finished.lock().unwrap().values().copied().max().unwrap_or(0);
    assert!(most <= 1 + killed, "a step finished {most} times with {killed} kills");
    let state = kit::state(&engine, "subject", "it").await.into_iter().collect();
    (Seen { results, state, sinks, chunks }, killed)
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 40, ..ProptestConfig::with_cases(16) })]

    #[test]
    fn random_handlers_give_the_same_through_any_schedule_replay_and_kill(program in program(), draw in any::<u64>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (plain, _) = once(&program, 0, false, Kills::None).await;
            let mut sends = 0;
            let mut emits = 0;
            walk(&program, &mut |op| match op {
                Op::Send(_) => sends += 2,
                Op::Emit(_) => emits += 2,
                _ => {}
            });
            assert_eq!((plain.sinks, plain.chunks), (sends, emits));
            for (seed, replay_always, kills) in [
                (draw | 1, false, Kills::None),
                (0, true, Kills::None),
                (draw | 1, true, Kills::None),
                (draw | 1, false, Kills::AtCommits(draw)),
                (draw.rotate_left(7) | 1, true, Kills::AtCommits(draw.rotate_left(9))),
            ] {
                let (seen, _) = once(&program, seed, replay_always, kills).await;
                assert_eq!(plain, seen, "seed {seed} replay {replay_always} {kills:?}");
            }
        });
    }
}
