//! Exports and imports: everything comes along, whatever the number of shards, while the work goes on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use selvedge::test::ByHand;
use selvedge::{Activity, App, Attempt, Ctx, Definition, Engine, Failure, Handler, InvocationId, Millis, RunId, Settings, SharedHandler, Signal, View};
use selvedge_engine::engine::SHARDS;
use selvedge_engine::env::{Clock, Environment};
use selvedge_kernel::auth::local;
use selvedge_kernel::id::{ActorId, RawId};
use selvedge_kernel::model::Model;
use selvedge_kernel::ports::{Commit, CommitOutcome, Owner, Put, Store};
use selvedge_kernel::record::deal::Dealer;
use selvedge_kernel::record::kind::Kind;
use selvedge_kernel::record::message::{Envelope, Message};
use selvedge_kernel::record::portable::{self, Line};
use selvedge_kernel::wire;
use selvedge_store::{EmbeddedStore, Options};
use serde_json::{Value, json};

use crate::rig::Folder;

const SENDERS: u32 = 6;
const LOGS: u32 = 3;
const NOTES: u32 = 120;
const ACCOUNTS: u32 = 9;
const MOVES: u32 = 40;

/// Sends so many numbered notes to each log, without waiting.
const COUNT: Handler<u32, u32> = Handler::new("sender", "count");
/// Takes a note, and keeps what is wrong with it.
const NOTE: Handler<(String, u32, String), ()> = Handler::new("log", "note");
/// The last number of each sender, and what was wrong.
const TAKEN: SharedHandler<(), BTreeMap<String, Value>> = SharedHandler::new("log", "taken");
/// Moves one to another account by a call, and waits for its answer.
const MOVE: Handler<String, i64> = Handler::new("account", "move");
const DEPOSIT: Handler<i64, i64> = Handler::new("account", "deposit");
const BALANCE: SharedHandler<(), i64> = SharedHandler::new("account", "balance");
/// Waits for a signal, at most an hour.
const HOLD: Handler<(), Option<u64>> = Handler::new("waiting", "hold");
const GO: Signal<u64> = Signal::new("go");
/// Sends itself a note in a second, and one to nobody.
const LATER: Handler<(), ()> = Handler::new("waiting", "later");
const NOBODY: Handler<(), ()> = Handler::new("nobody", "is_here");
const TWICE: Activity<u64, u64> = Activity::new("twice");

const SUMS: &str = r#"
selvedge: 1
name: sums
input: { numbers: { type: array } }
schedule: { cron: "0 2 * * *", input: { numbers: [] } }
stages:
  - { name: twice, mode: scatter, over: input.numbers, as: n, call: twice, input: "${n}" }
  - { name: wait, mode: wait_signal, signal: go }
output: "${stages.twice.output}"
"#;

/// Large enough for chunks, now and then.
fn text(n: u32) -> String {
    if n.is_multiple_of(40) { "x".repeat(150_000) } else { String::new() }
}

async fn count(ctx: Ctx, notes: u32) -> Result<u32, Failure> {
    for n in 1..=notes {
        for log in 0..LOGS {
            let _ = ctx.send(NOTE.on(format!("l{log}")), (ctx.key().to_owned(), n, text(n)));
        }
        ctx.step("tick", async |_: Attempt| Ok(())).await?;
    }
    Ok(notes)
}

async fn note(ctx: Ctx, (sender, n, sent): (String, u32, String)) -> Result<(), Failure> {
    let last = ctx.state().get::<u32>(&sender).await?.unwrap_or(0);
    if n != last + 1 || sent != text(n) {
        ctx.state().set(&format!("wrong {sender} {n}"), &format!("{n} came behind {last}"))?;
    }
    ctx.state().set(&sender, &n)?;
    Ok(())
}

async fn moves(ctx: Ctx, to: String) -> Result<i64, Failure> {
    let balance = ctx.state().get::<i64>("balance").await?.unwrap_or(0) - 1;
    ctx.state().set("balance", &balance)?;
    ctx.call(DEPOSIT.on(to), 1).await
}

async fn deposit(ctx: Ctx, amount: i64) -> Result<i64, Failure> {
    let balance = ctx.state().get::<i64>("balance").await?.unwrap_or(0) + amount;
    ctx.state().set("balance", &balance)?;
    Ok(balance)
}

fn app() -> App {
    let sums: Definition = selvedge::pipeline("sums.yaml", SUMS).unwrap().0;
    App::new()
        .handler(COUNT, count)
        .handler(NOTE, note)
        .shared(TAKEN, async |view: View, ()| Ok(view.entries::<Value>("").await?.into_iter().collect()))
        .handler(MOVE, moves)
        .handler(DEPOSIT, deposit)
        .shared(BALANCE, async |view: View, ()| Ok(view.get::<i64>("balance").await?.unwrap_or(0)))
        .handler(HOLD, async |ctx: Ctx, ()| ctx.signal(GO).within(Duration::from_secs(3600)).await)
        .handler(LATER, async |ctx: Ctx, ()| {
            let _ = ctx.send(NOTE.on("later"), ("later".to_owned(), 1, String::new())).delay(Duration::from_secs(1));
            let _ = ctx.send(NOBODY.on("x"), ());
            Ok(())
        })
        .activity(TWICE, async |_: Attempt, n: u64| Ok(2 * n))
        .pipeline(sums)
}

/// What was begun: its ends are asked for in each copy.
struct Begun {
    counts: Vec<InvocationId>,
    moves: Vec<InvocationId>,
    held: InvocationId,
    run: RunId,
}

async fn begin(engine: &Engine) -> Begun {
    let client = engine.local();
    let held = client.send(HOLD.on("w"), ()).await.unwrap();
    client.send_signal(HOLD.on("kept"), GO, 5).await.unwrap();
    client.call(LATER.on("w2"), ()).await.unwrap();
    let run = client.start("sums", json!({ "numbers": [1, 2, 3] })).await.unwrap().id();
    let mut counts = Vec::new();
    for sender in 0..SENDERS {
        counts.push(client.send(COUNT.on(format!("s{sender}")), NOTES).await.unwrap());
    }
    let mut moves = Vec::new();
    for n in 0..MOVES {
        // Never in a ring: a call goes to an account with a higher number.
        let (from, to) = (n % (ACCOUNTS - 1), n % (ACCOUNTS - 1) + 1);
        moves.push(client.send(MOVE.on(format!("a{from}")), format!("a{to}")).await.unwrap());
    }
    Begun { counts, moves, held, run }
}

/// Lets a copy come to its end, and looks at all of it.
async fn audit(data: &Path, begun: &Begun) {
    let engine = Engine::open(data, app()).await.unwrap();
    let client = engine.local();
    for id in &begun.counts {
        assert_eq!(client.result::<u32>(*id).await.unwrap(), NOTES);
    }
    for id in &begun.moves {
        client.result::<i64>(*id).await.unwrap();
    }
    let expected: BTreeMap<String, Value> = (0..SENDERS).map(|n| (format!("s{n}"), json!(NOTES))).collect();
    let until = Instant::now() + Duration::from_secs(60);
    for log in (0..LOGS).map(|n| format!("l{n}")).chain(["later".to_owned()]) {
        let expected = if log == "later" { BTreeMap::from([("later".to_owned(), json!(1))]) } else { expected.clone() };
        loop {
            let taken = client.call(TAKEN.on(&log), ()).await.unwrap();
            assert!(taken.keys().all(|name| !name.starts_with("wrong")), "{log}: {taken:?}");
            if taken == expected {
                break;
            }
            assert!(Instant::now() < until, "{log}: {taken:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let mut sum = 0;
    for n in 0..ACCOUNTS {
        sum += client.call(BALANCE.on(format!("a{n}")), ()).await.unwrap();
    }
    assert_eq!(sum, 0);
    assert_eq!(client.call(HOLD.on("kept"), ()).await.unwrap(), Some(5));
    client.send_signal(HOLD.on("w"), GO, 9).await.unwrap();
    assert_eq!(client.result::<Option<u64>>(begun.held).await.unwrap(), Some(9));
    client.run(begun.run).signal(GO, 1).await.unwrap();
    assert_eq!(client.run(begun.run).result::<Vec<u64>>().await.unwrap(), [2, 4, 6]);
    for shard in client.verify().await.unwrap() {
        assert!(shard.faults.is_empty(), "{:?}", shard.faults);
    }
    engine.close().await.unwrap();
}

fn empty(data: &Path, shards: u16) {
    drop(EmbeddedStore::open(data, Options { shards, ..Options::default() }).unwrap());
}

fn lines(file: &Path) -> Vec<Line> {
    std::fs::read_to_string(file).unwrap().lines().map(|line| portable::read(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_taken_while_messages_are_on_their_way_is_whole_with_another_number_of_shards() {
    let folder = Folder::new();
    let data = folder.join("data");
    empty(&data, 8);
    let engine = Engine::open(data.as_path(), app()).await.unwrap();
    let begun = begin(&engine).await;
    let mut files = Vec::new();
    let mut on_their_way = 0;
    while on_their_way == 0 || files.len() < 2 {
        let name = format!("e{}.jsonl", files.len());
        let done = folder.json(&["export", "--to", &name, "--data", "data"]);
        on_their_way += done["envelopes"].as_u64().unwrap();
        files.push(name);
        assert!(files.len() < 30, "no export met a message on its way");
    }
    let ended = engine.local();
    for id in &begun.counts {
        ended.result::<u32>(*id).await.unwrap();
    }
    engine.close().await.unwrap();
    for (n, name) in files.iter().enumerate().rev().take(3) {
        let shards = [3, 64, 1][n % 3];
        let copy = format!("copy{n}");
        let done = folder.json(&["import", name, "--data", &copy, "--shards", &shards.to_string()]);
        assert_eq!((&done["shards"], &done["shards_before"]), (&json!(shards), &json!(8)));
        audit(&folder.join(&copy), &begun).await;
    }
    audit(&data, &begun).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binary_without_the_handlers_that_looks_at_a_directory_leaves_what_is_on_its_way_to_those_who_have_them() {
    let folder = Folder::new();
    let data = folder.join("data");
    let engine = Engine::open(data.as_path(), app()).await.unwrap();
    engine.local().call(LATER.on("w2"), ()).await.unwrap();
    let sender = engine.local().send(COUNT.on("s0"), NOTES).await.unwrap();
    engine.local().result::<u32>(sender).await.unwrap();
    // Some of it is still on its way when the engine closes, and the delayed message comes due while nobody has it.
    engine.close().await.unwrap();
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    for _ in 0..3 {
        assert_eq!(folder.selvedge(&["runs", "list", "--data", "data"]).code, 0);
    }
    let letters = folder.json(&["dead-letters", "list", "--data", "data"]);
    assert_eq!(letters.as_array().map(Vec::len), Some(1), "only the one to nobody: {letters}");
    let engine = Engine::open(data.as_path(), app()).await.unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    for (log, name, count) in [("l0", "s0", NOTES), ("l1", "s0", NOTES), ("l2", "s0", NOTES), ("later", "later", 1)] {
        let expected = BTreeMap::from([(name.to_owned(), json!(count))]);
        while engine.local().call(TAKEN.on(log), ()).await.unwrap() != expected {
            assert!(Instant::now() < until, "{log}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    engine.close().await.unwrap();
}

/// What an export says, without what is numbered anew.
fn content(file: &Path) -> (Vec<String>, Vec<String>) {
    let (mut rows, mut ledger) = (Vec::new(), Vec::new());
    for line in lines(file) {
        match line {
            // Dead letters and signals name nothing that is numbered anew; timers do where two met.
            Line::Row(row) => rows.push(format!("{:?} {:?} {:?} {:?}", row.kind, row.key, row.value, row.until)),
            Line::Timer(timer) => rows.push(format!("timer {:?} {:?}", timer.due, timer.value)),
            Line::Ready(ready) => rows.push(format!("ready {:?}", ready.value)),
            Line::Ledger(line) => {
                let said: selvedge_kernel::record::shard::LedgerLine = wire::decode("ledger line", &line.value).unwrap();
                ledger.push(format!("{:?} {:?} {:?} {} {:?} {:?}", said.id, said.state, said.last, said.count, said.at, line.until));
            }
            Line::Envelope(envelope) => rows.push(format!("envelope {:?}", envelope.value)),
            Line::Head(_) | Line::End(_) => {}
        }
    }
    rows.sort();
    ledger.sort();
    (rows, ledger)
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_shards_become_three_and_eight_again_and_hold_what_they_held() {
    let folder = Folder::new();
    empty(&folder.join("d8"), 8);
    let engine = Engine::open(folder.join("d8"), app()).await.unwrap();
    let begun = begin(&engine).await;
    for id in &begun.moves {
        engine.local().result::<i64>(*id).await.unwrap();
    }
    engine.close().await.unwrap();
    folder.json(&["export", "--to", "e8.jsonl", "--data", "d8"]);
    folder.json(&["import", "e8.jsonl", "--data", "d3", "--shards", "3"]);
    // Looked at without an engine that would go on with it.
    let file = |name: &str| folder.join(name);
    let still = |data: &str, to: &str| {
        let store = EmbeddedStore::open(&file(data), Options::default()).unwrap();
        selvedge_store::export(&store, &file(to), None).unwrap();
    };
    still("d3", "e3.jsonl");
    folder.json(&["import", "e3.jsonl", "--data", "d8b", "--shards", "8"]);
    still("d8b", "e8b.jsonl");
    let before = content(&file("e8.jsonl"));
    assert_eq!(content(&file("e3.jsonl")), before);
    assert_eq!(content(&file("e8b.jsonl")), before);
    let kinds: Vec<Kind> = lines(&file("e8.jsonl")).into_iter().filter_map(|line| if let Line::Row(row) = line { Some(row.kind) } else { None }).collect();
    for kind in [Kind::Invocation, Kind::State, Kind::DeadLetter, Kind::ActorSignal, Kind::Schedule, Kind::Run, Kind::RunTask, Kind::Index, Kind::Begun] {
        assert!(kinds.contains(&kind), "no row of the kind {kind:?} was there");
    }
    audit(&folder.join("d3"), &begun).await;
}

#[test]
fn an_import_is_refused_into_what_is_not_empty_and_of_what_was_changed_and_says_where() {
    let folder = Folder::new();
    folder.write("p.yaml", "selvedge: 1\nname: nap\nstages: [{ name: rest, mode: sleep, for: 1ms }]\n");
    assert_eq!(folder.selvedge(&["run", "p.yaml"]).code, 0);
    assert_eq!(folder.selvedge(&["export", "--to", "e.jsonl"]).code, 0);
    let again = folder.selvedge(&["export", "--to", "e.jsonl"]);
    assert!(again.code != 0 && again.err.contains("is there already: nothing was written; name a new file"), "{}", again.err);
    let full = folder.selvedge(&["import", "e.jsonl", "--data", ".selvedge"]);
    assert!(full.code != 0 && full.err.contains("is not empty: nothing was written"), "{}", full.err);
    let none = folder.selvedge(&["import", "e.jsonl", "--data", "x", "--shards", "0"]);
    assert!(none.code != 0 && none.err.contains("a store has 1 to 1024 shards, not 0"), "{}", none.err);
    let whole = std::fs::read_to_string(folder.join("e.jsonl")).unwrap();
    let count = whole.lines().count();
    let changed = [
        (whole.replacen("\"due\":", "\"due\":1", 1), "count or hash do not fit"),
        (whole.lines().take(count - 1).map(|line| format!("{line}\n")).collect(), "it ends too early"),
        (format!("{whole}{{}}\n"), "something stands behind the end"),
        (whole.replacen("\"selvedge_export\":1", "\"selvedge_export\":2", 1), "it has format 2, this binary knows formats up to 1"),
        ("not an export\n".to_owned(), "line 1 of the export"),
    ];
    for (text, says) in changed {
        folder.write("changed.jsonl", &text);
        let said = folder.selvedge(&["import", "changed.jsonl", "--data", "y"]);
        assert!(said.code != 0 && said.err.contains(says) && said.err.contains("Nothing was imported"), "{says}: {}", said.err);
    }
    // The command that started the run goes on with it, in the copy too.
    assert_eq!(folder.selvedge(&["import", "e.jsonl", "--data", "copy", "--shards", "2"]).code, 0);
    assert_eq!(folder.json(&["runs", "list", "--data", "copy"])[0]["pipeline"], "nap");
}

#[test]
fn an_import_that_is_killed_leaves_a_directory_that_says_so_and_is_made_again_elsewhere_or_after_its_removal() {
    let folder = Folder::new();
    folder.write("p.yaml", "selvedge: 1\nname: nap\nstages: [{ name: rest, mode: sleep, for: 1ms }]\n");
    assert_eq!(folder.selvedge(&["run", "p.yaml"]).code, 0);
    assert_eq!(folder.selvedge(&["export", "--to", "e.jsonl"]).code, 0);
    large(&folder.join("e.jsonl"), &folder.join("large.jsonl"));
    let importing = folder.start(&["import", "large.jsonl", "--data", "copy"]);
    folder.until("the import to write", |folder| folder.join("copy/import-is-incomplete").exists());
    importing.signal("KILL");
    folder.end(importing);
    for verb in [&["runs", "list", "--data", "copy"][..], &["verify", "--data", "copy"], &["run", "p.yaml", "--data", "copy"]] {
        let said = folder.selvedge(verb);
        assert!(
            said.code == 78 && said.err.contains("is incomplete: an import into it") && said.err.contains("remove the directory, and import again"),
            "{}",
            said.err
        );
    }
    let again = folder.selvedge(&["import", "large.jsonl", "--data", "copy"]);
    assert!(again.err.contains("is not empty"), "{}", again.err);
    std::fs::remove_dir_all(folder.join("copy")).unwrap();
    assert_eq!(folder.selvedge(&["import", "e.jsonl", "--data", "copy"]).code, 0);
    assert!(folder.selvedge(&["verify", "--data", "copy"]).out.contains("sound"));
}

/// The same with so many more rows that importing them takes a while.
fn large(from: &Path, to: &PathBuf) {
    let mut text = String::new();
    for line in lines(from) {
        if matches!(line, Line::End(_)) {
            break;
        }
        text += &(portable::print(&line) + "\n");
    }
    for n in 0..40_000 {
        let actor = ActorId { tenant: "default".to_owned(), kind: "filler".to_owned(), key: n.to_string() };
        let key = selvedge_kernel::record::key::state(&actor, "n");
        let row = portable::Row { kind: Kind::State, until: None, key, value: vec![1; 800].into() };
        text += &(portable::print(&Line::Row(row)) + "\n");
    }
    let end = portable::End { lines: text.lines().count() as u64, blake3: hash(text.as_bytes()) };
    text += &(portable::print(&Line::End(end)) + "\n");
    std::fs::write(to, text).unwrap();
}

fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

const LAST: Handler<u32, ()> = Handler::new("sender", "last");
const SEEN: SharedHandler<(), Vec<u32>> = SharedHandler::new("log", "seen");
const WRITE: Handler<u32, ()> = Handler::new("log", "write");

fn one_log() -> App {
    App::new()
        .handler(LAST, async |ctx: Ctx, n: u32| {
            let _ = ctx.send(WRITE.on("l"), n);
            Ok(())
        })
        .handler(WRITE, async |ctx: Ctx, n: u32| {
            let mut seen = ctx.state().get::<Vec<u32>>("seen").await?.unwrap_or_default();
            seen.push(n);
            ctx.state().set("seen", &seen)?;
            Ok(())
        })
        .shared(SEEN, async |view: View, ()| Ok(view.get::<Vec<u32>>("seen").await?.unwrap_or_default()))
}

/// A message that was on its way when its store was exported, in the place where an import puts it.
async fn imported_into(model: &Model, n: u32) {
    let log = ActorId { tenant: "default".to_owned(), kind: "log".to_owned(), key: "l".to_owned() };
    let id = InvocationId(RawId::at(log.hash16(), Millis(1), [n as u8; 10]));
    let message = Message::new(id, log, "write", n.to_string().into(), local("default", Millis(1)));
    let line = portable::Envelope { owner: id.0.to_bytes().to_vec().into(), value: wire::encode(&Envelope::Invoke(message)) };
    let head = portable::Head {
        selvedge_export: 1,
        store: String::new(),
        group: 0,
        time: Millis(1),
        next: 0,
        clean: true,
        epoch: 0,
        ledgers: Vec::new(),
        notes: None,
    };
    for row in Dealer::new(&head, SHARDS).deal(Line::Envelope(line)).unwrap() {
        let claim = model.claim(row.shard, Owner([7; 16])).await.unwrap();
        let put = Put { key: row.key, value: row.value, expires: None };
        let commit = Commit { shard: row.shard, epoch: claim.epoch, number: claim.last + 1, puts: vec![put], deletes: Vec::new(), folds: Vec::new() };
        assert_eq!(model.commit(vec![commit]).await, [CommitOutcome::Done]);
    }
}

#[tokio::test]
async fn what_was_on_its_way_at_an_export_arrives_before_what_its_sender_sends_afterwards() {
    let shard = |kind: &str, key: &str| ActorId { tenant: "default".to_owned(), kind: kind.to_owned(), key: key.to_owned() }.hash16().shard(SHARDS).0;
    let sender = (0..).map(|n| format!("s{n}")).find(|key| shard("sender", key) % 2 != shard("log", "l") % 2).unwrap();
    let model = Model::new();
    imported_into(&model, 1).await;
    let draws = AtomicU64::new(1);
    let env = Environment {
        clock: Clock::Hands { wall: Arc::new(AtomicU64::new(1_767_225_600_000)), monotonic: Arc::default() },
        random: Arc::new(move |buffer| buffer.chunks_mut(8).for_each(|bytes| bytes.copy_from_slice(&draws.fetch_add(1, SeqCst).to_be_bytes()[..bytes.len()]))),
        observer: None,
    };
    let settings = Settings { workers: 2, ..Settings::default() };
    let by_hand = ByHand::open(&one_log(), Arc::new(model), env, settings, tokio::runtime::Handle::current());
    let client = by_hand.local();
    let mut workers: Vec<_> = by_hand.workers.into_iter().map(Some).collect();
    let of = |shard: u16| usize::from(shard) % 2;
    tokio::task::LocalSet::new()
        .run_until(async {
            // The sender's worker is fast: its message lies in the mailbox before the other one has opened its shards.
            tokio::task::spawn_local(workers[of(shard("sender", &sender))].take().unwrap());
            client.call(LAST.on(&sender), 2).await.unwrap();
            tokio::task::spawn_local(workers[of(shard("log", "l"))].take().unwrap());
            loop {
                let seen = client.call(SEEN.on("l"), ()).await.unwrap();
                if seen.len() == 2 {
                    assert_eq!(seen, [1, 2]);
                    break;
                }
            }
        })
        .await;
}
