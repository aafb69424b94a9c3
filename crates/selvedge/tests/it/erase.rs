//! Chains, ledgers, and what is left after an erasure.

use selvedge::{App, Ctx, Handler, Outcome, test};
use selvedge_kernel::id::ShardId;
use selvedge_kernel::record::key;
use selvedge_kernel::record::kind::Kind;

const TELL: Handler<String, String> = Handler::new("diary", "tell");
const SECRET: &str = "the-secret-of-ada";

async fn tell(ctx: Ctx, text: String) -> Outcome<String> {
    let kept: String = ctx.step("keep", async |_| Ok(text.clone())).await?;
    ctx.emit(&kept)?;
    let large: String = ctx.step("copy", async |_| Ok(text.repeat(8_000))).await?;
    Ok(format!("{kept} {}", large.len()))
}

async fn told() -> (test::Engine, selvedge::InvocationId) {
    let engine = test::Engine::new(App::new().handler(TELL, tell)).await.unwrap();
    let id = engine.local().send(TELL.on("ada"), SECRET.to_owned()).await.unwrap();
    engine.settle().await;
    engine.local().result::<String>(id).await.unwrap();
    (engine, id)
}

fn rows(engine: &test::Engine) -> Vec<(ShardId, selvedge_kernel::id::Key, Vec<u8>)> {
    (0..64).map(ShardId).flat_map(|shard| engine.model().rows(shard).into_iter().map(move |(row, value)| (shard, row, value.to_vec()))).collect()
}

async fn verify(engine: &test::Engine) -> Vec<selvedge_engine::verify::ShardReport> {
    let context = selvedge_kernel::auth::local("default", engine.engine().now());
    let (action, resource) = (selvedge_kernel::auth::Action::Operate, selvedge_kernel::auth::Resource::Store);
    let permit = selvedge_kernel::auth::authorize(context, action, resource, engine.engine().now()).unwrap();
    engine.engine().verify(permit).await.unwrap()
}

fn holds_secret(engine: &test::Engine) -> usize {
    rows(engine).iter().filter(|(_, _, value)| value.windows(SECRET.len()).any(|window| window == SECRET.as_bytes())).count()
}

#[tokio::test]
async fn an_erased_payload_is_gone_everywhere_and_chain_and_ledger_still_verify() {
    let (engine, id) = told().await;
    assert!(holds_secret(&engine) > 3);
    let before = verify(&engine).await;
    assert!(before.iter().all(|report| report.faults.is_empty()), "{before:?}");
    engine.local().erase(id).await.unwrap();
    assert_eq!(holds_secret(&engine), 0);
    // The key of the seals is gone with them: a seal cannot be compared with a guess.
    assert!(!rows(&engine).iter().any(|(_, row, _)| *row == key::seal_key(id.0)));
    let after = verify(&engine).await;
    assert!(after.iter().all(|report| report.faults.is_empty()), "{after:?}");
    assert_eq!(after.iter().map(|report| report.erased).sum::<u64>(), after.iter().map(|report| report.entries).sum::<u64>());
    engine.local().erase(id).await.unwrap();
}

#[tokio::test]
async fn an_open_invocation_is_not_erased() {
    const WAIT: Handler<(), ()> = Handler::new("diary", "wait");
    let app = App::new().handler(WAIT, async |ctx: Ctx, ()| ctx.sleep(std::time::Duration::from_secs(60)).await);
    let engine = test::Engine::new(app).await.unwrap();
    let id = engine.local().send(WAIT.on("ada"), ()).await.unwrap();
    engine.settle().await;
    let error = engine.local().erase(id).await.unwrap_err().to_string();
    assert!(error.contains("cancel or kill it first"), "{error}");
}

#[tokio::test]
async fn a_missing_tail_entry_a_missing_invocation_and_a_changed_ledger_line_are_found_and_named() {
    let faults = |reports: Vec<selvedge_engine::verify::ShardReport>| reports.into_iter().flat_map(|report| report.faults).collect::<Vec<_>>();
    let (engine, id) = told().await;
    let is = |kind: Kind| move |row: &selvedge_kernel::id::Key| row.get(2) == Some(&(kind as u8));
    let of = |engine: &test::Engine, kind: Kind| rows(engine).into_iter().find(|(_, row, _)| is(kind)(row)).unwrap();

    let (shard, row, value) = of(&engine, Kind::FoldedJournal);
    // The folded row without its last pair: the tail of the journal.
    let first = 8 + [0, 1].iter().fold(0usize, |at, part| {
        let at = at + part * 4;
        at + u32::from_be_bytes(value[at..at + 4].try_into().unwrap()) as usize
    });
    engine.model().overwrite(shard, row.clone(), value[..first].to_vec().into());
    let found = faults(verify(&engine).await);
    assert!(found.iter().any(|fault| fault.contains(&id.to_string()) && fault.contains("entries")), "{found:?}");
    engine.model().overwrite(shard, row, value.into());
    assert_eq!(faults(verify(&engine).await), Vec::<String>::new());

    let (shard, row, value) = of(&engine, Kind::Ledger);
    let mut changed = value.clone();
    changed[8] ^= 1;
    engine.model().overwrite(shard, row.clone(), changed.into());
    let found = faults(verify(&engine).await);
    assert!(found.iter().any(|fault| fault.contains("ledger of shard") && fault.contains("line 0")), "{found:?}");
    engine.model().overwrite(shard, row, value.into());

    let (shard, row, _) = of(&engine, Kind::Invocation);
    engine.model().remove(shard, &row);
    let found = faults(verify(&engine).await);
    assert!(found.iter().any(|fault| fault.contains(&id.to_string()) && fault.contains("missing")), "{found:?}");
}

fn faults(reports: Vec<selvedge_engine::verify::ShardReport>) -> Vec<String> {
    reports.into_iter().flat_map(|report| report.faults).collect()
}

fn ledger(engine: &test::Engine) -> Vec<(ShardId, selvedge_kernel::id::Key)> {
    rows(engine).into_iter().filter(|(_, row, _)| row.get(2) == Some(&(Kind::Ledger as u8))).map(|(shard, row, _)| (shard, row)).collect()
}

#[tokio::test]
async fn a_ledger_without_lines_or_without_its_first_ones_is_found_unless_retention_has_removed_them() {
    let (mut engine, _) = told().await;
    engine.local().send(TELL.on("ada"), "more".to_owned()).await.unwrap();
    engine.settle().await;
    let lines = ledger(&engine);
    assert!(lines.len() > 2 && lines.iter().all(|line| line.0 == lines[0].0), "{lines:?}");
    engine.model().remove(lines[0].0, &lines[0].1);
    let found = faults(verify(&engine).await);
    assert!(found.iter().any(|fault| fault.contains("missing at its front: it begins with line 1, and line 0")), "{found:?}");
    lines.iter().for_each(|line| engine.model().remove(line.0, &line.1));
    engine.kill_and_reopen().await.unwrap();
    let found = faults(verify(&engine).await);
    let all = format!("all of its lines are missing: its head says that there are {}", lines.len());
    assert!(found.iter().any(|fault| fault.contains(&all)), "{found:?}");
    // After a year they are gone by right.
    engine.advance(std::time::Duration::from_secs(400 * 86_400)).await;
    assert_eq!(faults(verify(&engine).await), Vec::<String>::new());
    engine.local().send(TELL.on("ada"), "anew".to_owned()).await.unwrap();
    engine.settle().await;
    assert_eq!(faults(verify(&engine).await), Vec::<String>::new());
}

#[tokio::test]
async fn a_changed_or_lost_piece_of_a_large_payload_is_found() {
    const WAIT: Handler<String, String> = Handler::new("diary", "wait");
    let app = App::new().handler(WAIT, async |ctx: Ctx, text: String| {
        let copy: String = ctx.step("copy", async |_| Ok(text.replace('x', "y"))).await?;
        Ok(copy.replace('y', "z"))
    });
    let engine = test::Engine::new(app).await.unwrap();
    let id = engine.local().send(WAIT.on("ada"), "x".repeat(300 << 10)).await.unwrap();
    engine.settle().await;
    let chunks: Vec<_> = rows(&engine).into_iter().filter(|(_, row, _)| row.get(2) == Some(&(Kind::Chunk as u8))).collect();
    assert!(chunks.len() >= 6, "{}", chunks.len());
    for (shard, row, value) in chunks {
        let mut changed = value.clone();
        changed[100] ^= 1;
        engine.model().overwrite(shard, row.clone(), changed.into());
        let found = faults(verify(&engine).await);
        assert!(!found.is_empty() && found.iter().all(|fault| fault.contains(&id.to_string())), "{found:?}");
        engine.model().remove(shard, &row);
        let found = faults(verify(&engine).await);
        assert!(!found.is_empty() && found.iter().all(|fault| fault.contains(&id.to_string())), "{found:?}");
        engine.model().overwrite(shard, row, value.into());
    }
    assert_eq!(faults(verify(&engine).await), Vec::<String>::new());
}
