//! The program under simulation: a bank with an auditor, races, timers, signals, children, pipelines.

use std::time::Duration;

use selvedge::{Activity, ActorOptions, App, Attempt, Ctx, Definition, Either, Failure, Handler, Outcome, Retry, SharedHandler, Signal, View};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::world::World;
use crate::{calls, families, lent, shops, ticking};

/// Accounts of the bank.
pub const ACCOUNTS: u64 = 5;
/// What each holds at first.
pub const OPENING: i64 = 1_000;
/// Tasks of a pipeline's throttled stage at once.
pub const AT_ONCE: i64 = 3;

/// Moves money.
#[derive(Clone, Serialize, Deserialize)]
pub struct Transfer {
    /// Which one.
    pub number: u64,
    /// From which account.
    pub from: u64,
    /// To which account.
    pub to: u64,
    /// How much.
    pub cents: i64,
    /// How long it rests in the middle.
    pub rest_ms: u64,
}

/// Waits for a signal.
#[derive(Clone, Serialize, Deserialize)]
pub struct WaitFor {
    /// For how long.
    pub ms: u64,
}

/// Moves money between two accounts: three steps, two calls, a sleep, a message.
pub const MOVE: Handler<Transfer, bool> = Handler::new("transfer", "move");
/// Takes money if there is enough.
pub const WITHDRAW: Handler<i64, bool> = Handler::new("account", "withdraw");
/// Gives money.
pub const DEPOSIT: Handler<i64, i64> = Handler::new("account", "deposit");
/// What is there.
pub const BALANCE: SharedHandler<(), i64> = SharedHandler::new("account", "balance");
/// Counts a transfer that moved.
pub const COUNT: Handler<u64, u64> = Handler::new("tally", "count");
/// How many were counted.
pub const COUNTED: SharedHandler<(), u64> = SharedHandler::new("tally", "counted");
/// A signal against a timeout.
pub const AWAIT: Handler<WaitFor, Option<u64>> = Handler::new("waiter", "await");
/// What a waiter waits for.
pub const GO: Signal<u64> = Signal::new("go");
/// Sleeps, and says how much later than asked it woke.
pub const NAP: Handler<u64, u64> = Handler::new("napper", "nap");
/// A step against a timer, several times.
pub const RACE: Handler<u64, Vec<bool>> = Handler::new("racer", "race");
/// Children and parallel steps.
pub const FAN: Handler<u64, u64> = Handler::new("fan", "out");
/// Fails now and then.
pub const FRAIL: Handler<u64, u64> = Handler::new("frail", "try");
/// A task.
pub const WORK: Activity<Value, Value> = Activity::new("work");
/// A task that is undone.
pub const RESERVE: Activity<Value, Value> = Activity::new("reserve");
/// What undoes it.
pub const RELEASE: Activity<Value, Value> = Activity::new("release");
/// A task that fails for good if it is told to.
pub const JUDGE: Activity<u64, u64> = Activity::new("judge");
/// A task that sees whether the signal or its timeout was first.
pub const SETTLE: Activity<Value, Value> = Activity::new("settle");
/// A task under the stage's throttle.
pub const NARROW: Activity<Value, Value> = Activity::new("narrow");

/// Reads a pipeline.
pub fn parse(text: &str) -> Result<Definition, String> {
    selvedge::pipeline("sim.yaml", text).map(|(definition, _)| definition).map_err(|wrong| format!("{wrong:?}"))
}

/// The pipelines of the bank and its neighbours.
fn pipelines() -> Result<Vec<Definition>, String> {
    Ok(vec![
        parse(
            r#"
selvedge: 1
name: wide
input: { numbers: { type: array } }
stages:
  - { name: each, mode: scatter, over: input.numbers, call: narrow, throttle: { concurrency: 3 }, retry: { max_attempts: 20, initial: 100ms, max: 1s } }
  - { name: gathered, mode: gather, stages: [each] }
  - { name: sum, call: work, input: "${sum(stages.gathered.output)}", retry: { max_attempts: 20, initial: 100ms, max: 1s } }
output: "${stages.sum.output}"
"#,
        )?,
        parse(
            r#"
selvedge: 1
name: patient
input: { number: { type: integer }, customer: { type: integer } }
stages:
  - { name: first, call: work, input: "${input.number}", retry: { max_attempts: 20, initial: 100ms, max: 1s } }
  - { name: rest, mode: sleep, for: 5s }
  - { name: paid, mode: wait_signal, signal: go, timeout: { total: 60s }, on_failure: continue }
  - { name: counted, call: { actor: tally, key: runs, handler: count }, input: "${input.number}" }
  - { name: settled, call: settle, input: { run: "${run.id}", given: "${stages.paid.output}" }, retry: { max_attempts: 20, initial: 100ms, max: 1s } }
output: { first: "${stages.first.output}" }
"#,
        )?,
        parse(
            r#"
selvedge: 1
name: saga
input: { number: { type: integer }, items: { type: array }, fails: { type: integer } }
stages:
  - name: first
    call: reserve
    input: { number: "${input.number}", item: first }
    retry: { max_attempts: 20, initial: 100ms, max: 1s }
    compensate: { call: release, input: { number: "${input.number}", item: first }, retry: { max_attempts: 50, initial: 100ms, max: 1s } }
  - name: wide
    mode: scatter
    over: input.items
    call: reserve
    input: { number: "${input.number}", item: "${item}" }
    retry: { max_attempts: 20, initial: 100ms, max: 1s }
    compensate: { call: release, input: { number: "${input.number}", item: "${item}" }, retry: { max_attempts: 50, initial: 100ms, max: 1s } }
  - { name: last, call: judge, input: "${input.fails}", retry: { max_attempts: 20, initial: 100ms, max: 1s } }
"#,
        )?,
    ])
}

/// The program of one life of the engine, with schedules or without.
pub fn app(world: &World, owner: u64, scheduled: bool) -> Result<App, String> {
    let of = |_: &str| world.clone();
    let (mover, racer, fan, frail, napper, waiter, work, narrow) =
        (of("transfer"), of("racer"), of("fan"), of("frail"), of("napper"), of("waiter"), of("work"), of("narrow"));
    let (reserve, release, judge, settle) = (of("reserve"), of("release"), of("judge"), of("settle"));
    let quick = Retry { max_attempts: 50, initial: span(100), max: span(1_000), ..Retry::exponential(50) };
    let options = ActorOptions { retry: quick.clone(), suspend_after: Duration::from_millis(200), ..ActorOptions::default() };
    let mut app = App::new()
        .handler(MOVE, async move |ctx: Ctx, order: Transfer| transfer(&mover, owner, &ctx, &order).await)
        .handler(WITHDRAW, withdraw)
        .handler(DEPOSIT, deposit)
        .shared(BALANCE, async |view: View, ()| Ok(view.get("cents").await?.unwrap_or(OPENING)))
        .handler(COUNT, count)
        .shared(COUNTED, async |view: View, ()| Ok(view.get("count").await?.unwrap_or(0)))
        .handler(AWAIT, async move |ctx: Ctx, order: WaitFor| {
            let given = ctx.signal(GO).within(Duration::from_millis(order.ms)).await?;
            waiter.same(&ctx, "signal", &format!("{given:?}"));
            Ok(given)
        })
        .handler(NAP, async move |ctx: Ctx, ms: u64| {
            let until = ctx.now().after(Duration::from_millis(ms));
            ctx.sleep(Duration::from_millis(ms)).await?;
            let woke = ctx.now();
            if woke < until {
                napper.broken(format!("I10: {} woke at {woke:?}, asked for {until:?}", ctx.invocation()));
            }
            napper.same(&ctx, "woke", &format!("{woke:?} {} {}", ctx.random(), ctx.uuid()));
            Ok(woke.since(until).as_millis() as u64)
        })
        .handler(RACE, async move |ctx: Ctx, rounds: u64| race(&racer, owner, &ctx, rounds).await)
        .handler(FAN, async move |ctx: Ctx, width: u64| fan_out(&fan, owner, &ctx, width).await)
        .handler(FRAIL, async move |ctx: Ctx, number: u64| {
            let given = effect(&frail, owner, &ctx, "first", 50).await?;
            // Outside of every operation on purpose: an attempt of the handler as a whole may fail, as long as nothing behind it is recorded.
            if !frail.passed(&ctx) && frail.seed.chance(30) {
                return Err(Failure::retryable("unlucky", "this attempt fails"));
            }
            if number.is_multiple_of(7) {
                return Err(Failure::terminal("seven", "every seventh fails for good"));
            }
            frail.same(&ctx, "passed", "yes");
            let second = effect(&frail, owner, &ctx, "second", 50).await?;
            Ok(given.len() as u64 + second.len() as u64)
        })
        .activity(WORK, async move |attempt: Attempt, value: Value| {
            task(&work, owner, &attempt, "work", 300).await?;
            Ok(value)
        })
        .activity(RESERVE, async move |attempt: Attempt, value: Value| {
            task(&reserve, owner, &attempt, "reserve", 300).await?;
            reserve.same_of(&format!("saga {}", value["number"]), &format!("reserved {}", value["item"]), "yes");
            Ok(value)
        })
        .activity(RELEASE, async move |attempt: Attempt, value: Value| {
            task(&release, owner, &attempt, "release", 300).await?;
            release.same_of(&format!("saga {}", value["number"]), &format!("released {}", value["item"]), "yes");
            Ok(value)
        })
        .activity(JUDGE, async move |attempt: Attempt, fails: u64| {
            task(&judge, owner, &attempt, "judge", 300).await?;
            if fails == 1 { Err(Failure::terminal("judged", "it was told to fail")) } else { Ok(fails) }
        })
        .activity(SETTLE, async move |attempt: Attempt, value: Value| {
            settle.same_of(value["run"].as_str().unwrap_or("?"), "given", &value["given"].to_string());
            task(&settle, owner, &attempt, "settle", 300).await?;
            Ok(value)
        })
        .activity(NARROW, async move |attempt: Attempt, value: Value| {
            let run = value["run"].as_str().unwrap_or("?").to_owned();
            narrow.not_after_cancel(owner, "wide", &json!(run.parse::<u64>().unwrap_or(0)), false);
            let _inside = narrow.enter(owner, &format!("the stage `each` of {run}"), AT_ONCE);
            task(&narrow, owner, &attempt, "narrow", 2_000).await?;
            Ok(value["n"].clone())
        });
    for kind in ["transfer", "account", "tally", "waiter", "napper", "racer", "fan", "frail"] {
        app = app.actor(kind, options.clone());
    }
    app = calls::add(app, world, &options);
    app = families::add(app, world, owner, &options);
    app = lent::add(app, world, owner);
    app = shops::add(app, &options);
    app = ticking::add(app, world, owner);
    let ticking = if scheduled { ticking::pipelines()? } else { Vec::new() };
    for definition in [pipelines()?, families::pipelines()?, lent::pipelines()?, shops::pipelines()?, ticking].into_iter().flatten() {
        app = app.pipeline(definition);
    }
    Ok(app)
}

fn span(ms: u64) -> selvedge::Span {
    selvedge::Span(Duration::from_millis(ms))
}

/// A task: it takes a while, and now and then it fails.
pub async fn task(world: &World, owner: u64, attempt: &Attempt, name: &str, longest_ms: u64) -> Outcome<()> {
    world.attempt(owner, attempt, name);
    world.sleep(world.seed.below(longest_ms)).await;
    match world.seed.below(20) {
        0 => Err(Failure::retryable("flaky", "the world did not answer")),
        1 => std::panic::resume_unwind(Box::new("a task that panics")),
        _ => Ok(()),
    }
}

/// A step whose result names what it was: it must be the same in every life.
async fn effect(world: &World, owner: u64, ctx: &Ctx, name: &str, longest_ms: u64) -> Outcome<String> {
    let (key, value) = ctx
        .step(name, async |attempt: Attempt| {
            world.attempt(owner, &attempt, name);
            world.sleep(world.seed.below(longest_ms)).await;
            if world.seed.chance(8) {
                return Err(Failure::retryable("flaky", "the world did not answer"));
            }
            Ok((attempt.key().to_owned(), format!("{:x}", world.seed.next())))
        })
        .retry(Retry { max_attempts: 50, initial: span(20), max: span(500), ..Retry::exponential(50) })
        .await?;
    world.finished(&key, &value);
    Ok(value)
}

async fn transfer(world: &World, owner: u64, ctx: &Ctx, order: &Transfer) -> Outcome<bool> {
    let debit = effect(world, owner, ctx, "debit", 80).await?;
    world.same(ctx, "debit", &debit);
    let moved = ctx.call(WITHDRAW.on(order.from.to_string()), order.cents).await?;
    world.same(ctx, "moved", &moved.to_string());
    if moved {
        if order.rest_ms > 0 {
            ctx.sleep(Duration::from_millis(order.rest_ms)).await?;
        }
        effect(world, owner, ctx, "credit", 80).await?;
        ctx.call(DEPOSIT.on(order.to.to_string()), order.cents).await?;
        let _ = ctx.send(COUNT.on("transfers"), order.number).delay(Duration::from_millis(order.number % 3 * 700));
    }
    effect(world, owner, ctx, "receipt", 80).await?;
    world.same(ctx, "end", &format!("{:?} {}", ctx.now(), ctx.random()));
    Ok(moved)
}

async fn withdraw(ctx: Ctx, cents: i64) -> Outcome<bool> {
    let balance = ctx.state().get::<i64>("cents").await?.unwrap_or(OPENING);
    if balance < cents {
        return Ok(false);
    }
    ctx.state().set("cents", &(balance - cents))?;
    Ok(true)
}

async fn deposit(ctx: Ctx, cents: i64) -> Outcome<i64> {
    let balance = ctx.state().get::<i64>("cents").await?.unwrap_or(OPENING) + cents;
    ctx.state().set("cents", &balance)?;
    Ok(balance)
}

async fn count(ctx: Ctx, _number: u64) -> Outcome<u64> {
    let count = ctx.state().get::<u64>("count").await?.unwrap_or(0) + 1;
    ctx.state().set("count", &count)?;
    Ok(count)
}

async fn race(world: &World, owner: u64, ctx: &Ctx, rounds: u64) -> Outcome<Vec<bool>> {
    let mut won = Vec::new();
    for round in 0..rounds {
        let step = ctx.step("run", async |attempt: Attempt| {
            world.attempt(owner, &attempt, "run");
            world.sleep(world.seed.below(400)).await;
            Ok(round)
        });
        let winner = match ctx.select(step, ctx.sleep(Duration::from_millis(200))).await {
            Either::Left(given) => given? == round,
            Either::Right(given) => {
                given?;
                false
            }
        };
        world.same(ctx, &format!("round {round}"), &winner.to_string());
        won.push(winner);
    }
    Ok(won)
}

async fn fan_out(world: &World, owner: u64, ctx: &Ctx, width: u64) -> Outcome<u64> {
    let steps = (0..width).map(|n| {
        ctx.step("leaf", async move |attempt: Attempt| {
            world.attempt(owner, &attempt, "leaf");
            world.sleep(world.seed.below(300)).await;
            Ok((attempt.key().to_owned(), n))
        })
    });
    let mut sum = 0;
    for (key, n) in ctx.join_all(steps).await? {
        world.finished(&key, &n.to_string());
        sum += n;
    }
    let children: Vec<_> = (0..width.min(3)).map(|n| ctx.spawn(NAP.on(format!("child-{}-{n}", ctx.key())), n * 300)).collect();
    for (n, child) in children.into_iter().enumerate() {
        let late = child.join().await;
        world.same(ctx, &format!("child {n}"), &format!("{}", late.is_ok()));
    }
    world.same(ctx, "sum", &sum.to_string());
    Ok(sum)
}

/// Input of the pipeline `wide`.
#[must_use]
pub fn wide(run: u64, width: u64) -> Value {
    json!({ "numbers": (0..width).map(|n| json!({ "n": n, "run": run.to_string() })).collect::<Vec<_>>() })
}
