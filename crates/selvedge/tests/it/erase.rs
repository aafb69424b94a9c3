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

/// The faults that `verify` finds.
async fn faults(engine: &test::Engine) -> Vec<String> {
    verify(engine).await.into_iter().flat_map(|report| report.faults).collect()
}

fn of_kind(engine: &test::Engine, kind: Kind) -> Vec<(ShardId, selvedge_kernel::id::Key, Vec<u8>)> {
    rows(engine).into_iter().filter(|(_, row, _)| row.get(2) == Some(&(kind as u8))).collect()
}

#[tokio::test]
async fn a_ledger_that_lost_its_first_lines_or_all_of_them_is_found_until_its_retention_has_passed() {
    let (engine, _) = told().await;
    engine.local().call(TELL.on("ada"), "again".to_owned()).await.unwrap();
    let lines = of_kind(&engine, Kind::Ledger);
    assert!(lines.len() >= 3, "{}", lines.len());
    let (shard, first, _) = lines[0].clone();
    engine.model().remove(shard, &first);
    let found = faults(&engine).await;
    assert!(found.iter().any(|fault| fault.contains("line 0 is missing, line 1 stands in its place")), "{found:?}");

    for (shard, row, _) in &lines {
        engine.model().remove(*shard, row);
    }
    let found = faults(&engine).await;
    assert!(found.iter().any(|fault| fault.contains(&format!("it is empty, its head says {} lines", lines.len()))), "{found:?}");

    // A line of the second year stands alone: what was before it may have left by then.
    for (shard, row, value) in lines {
        engine.model().overwrite(shard, row, value.into());
    }
    let year = std::time::Duration::from_secs(367 * 86_400);
    engine.advance(year).await;
    engine.local().call(TELL.on("ada"), "next year".to_owned()).await.unwrap();
    engine.model().remove(shard, &first);
    let found = faults(&engine).await;
    assert!(!found.iter().any(|fault| fault.contains("line 0 is missing")), "{found:?}");
}

#[tokio::test]
async fn a_changed_chunk_of_a_large_input_or_result_is_found() {
    const ECHO: Handler<String, String> = Handler::new("diary", "echo");
    let app = App::new().handler(ECHO, async |ctx: Ctx, text: String| {
        ctx.step("look", async |_| Ok(1)).await?;
        Ok(text)
    });
    let engine = test::Engine::new(app).await.unwrap();
    engine.local().call(ECHO.on("ada"), "large ".repeat(30_000)).await.unwrap();
    assert_eq!(faults(&engine).await, Vec::<String>::new());
    let chunks = of_kind(&engine, Kind::Chunk);
    assert!(!chunks.is_empty());
    for (shard, row, value) in chunks {
        let mut changed = value.clone();
        *changed.last_mut().unwrap() ^= 1;
        engine.model().overwrite(shard, row.clone(), changed.into());
        let found = faults(&engine).await;
        assert!(found.iter().any(|fault| fault.contains("is not the one that was recorded") || fault.contains("cannot be read")), "{found:?}");
        engine.model().overwrite(shard, row, value.into());
    }
}

#[tokio::test]
async fn a_large_verify_lets_other_work_through() {
    const NOTE: Handler<u64, u64> = Handler::new("diary", "note");
    let app = App::new().handler(NOTE, async |_: Ctx, n: u64| Ok(n));
    let model = selvedge_kernel::model::Model::new();
    let clock = selvedge_engine::env::Clock::Manual(std::sync::Arc::new(std::sync::atomic::AtomicU64::new(1_767_225_600_000)));
    let random = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let fill = move |buffer: &mut [u8]| {
        buffer.chunks_mut(8).for_each(|bytes| bytes.copy_from_slice(&random.fetch_add(1, std::sync::atomic::Ordering::SeqCst).to_be_bytes()[..bytes.len()]));
    };
    let env = selvedge_engine::env::Environment { clock, random: std::sync::Arc::new(fill), observer: None };
    let by_hand = test::ByHand::open(&app, std::sync::Arc::new(model), env, selvedge::Settings::default(), tokio::runtime::Handle::current());
    let local = tokio::task::LocalSet::new();
    for worker in by_hand.workers.into_iter() {
        local.spawn_local(worker);
    }
    let client = test::ByHand { engine: by_hand.engine.clone(), workers: Vec::new() }.local();
    let engine = by_hand.engine;
    local
        .run_until(async move {
            for n in 0..2_000 {
                client.call(NOTE.on("ada"), n).await.unwrap();
            }
            let context = selvedge_kernel::auth::local("default", engine.now());
            let permit =
                selvedge_kernel::auth::authorize(context, selvedge_kernel::auth::Action::Operate, selvedge_kernel::auth::Resource::Store, engine.now())
                    .unwrap();
            let verify = tokio::task::spawn_local(async move { engine.verify(permit).await.unwrap() });
            let mut answered = 0;
            while !verify.is_finished() {
                assert_eq!(client.call(NOTE.on("ada"), answered).await.unwrap(), answered);
                answered += 1;
            }
            let reports = verify.await.unwrap();
            assert!(reports.iter().all(|report| report.faults.is_empty()), "{reports:?}");
            assert!(reports.iter().map(|report| report.ledger_lines).sum::<u64>() >= 2_000);
            // 2 000 lines are more than thirty slices, and a call is answered between any two of them.
            assert!(answered > 15, "{answered} calls were answered while verify ran");
        })
        .await;
}
