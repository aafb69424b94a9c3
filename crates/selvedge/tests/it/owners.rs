//! Two processes on one store that both believe they own it: the older one has been paused, and wakes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use selvedge::test::ByHand;
use selvedge::{App, Client, Ctx, Handler, InvocationId, Millis, Outcome, Settings, SharedHandler, View};
use selvedge_engine::engine::Engine;
use selvedge_engine::env::{Clock, Environment};
use selvedge_kernel::auth::{Action, Resource, authorize, local};
use selvedge_kernel::model::Model;
use tokio::task::{JoinHandle, LocalSet};

use crate::kit;

const DEPOSIT: Handler<u64, u64> = Handler::new("account", "deposit");
const BALANCE: SharedHandler<(), u64> = SharedHandler::new("account", "balance");
const WAIT: Handler<(), ()> = Handler::new("account", "wait");
const HOLD: Handler<(), ()> = Handler::new("account", "hold");

/// Says when it goes.
struct Guard(Arc<AtomicBool>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

async fn deposit(ctx: Ctx, by: u64) -> Outcome<u64> {
    let balance = ctx.state().get::<u64>("balance").await?.unwrap_or(0) + by;
    ctx.state().set("balance", &balance)?;
    Ok(balance)
}

/// `aborted` says whether the step that never ends was dropped.
fn app(aborted: &Arc<AtomicBool>) -> App {
    let aborted = aborted.clone();
    App::new()
        .handler(DEPOSIT, deposit)
        .shared(BALANCE, async |view: View, ()| Ok(view.get("balance").await?.unwrap_or(0)))
        .handler(WAIT, async |ctx: Ctx, ()| ctx.sleep(Duration::from_secs(3_600)).await)
        .handler(HOLD, async move |ctx: Ctx, ()| {
            let guard = Guard(aborted.clone());
            ctx.step("hangs", async |_| {
                let _held = &guard;
                std::future::pending().await
            })
            .await
        })
}

struct Process {
    engine: Arc<Engine>,
    client: Client,
    workers: Vec<JoinHandle<()>>,
}

impl Process {
    fn open(app: &App, model: &Model, draws: &Arc<AtomicU64>) -> Process {
        let draws = draws.clone();
        let env = Environment {
            clock: Clock::Wall(Arc::new(|| Millis(1_767_225_600_000))),
            random: Arc::new(move |buffer| {
                for bytes in buffer.chunks_mut(8) {
                    let word = draws.fetch_add(1, Ordering::SeqCst).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                    bytes.copy_from_slice(&word.to_be_bytes()[..bytes.len()]);
                }
            }),
            observer: None,
        };
        let by_hand = ByHand::open(app, Arc::new(model.clone()), env, Settings { workers: 1, ..Settings::default() }, tokio::runtime::Handle::current());
        let client = by_hand.local();
        let workers = by_hand.workers.into_iter().map(tokio::task::spawn_local).collect();
        Process { engine: by_hand.engine, client, workers }
    }

    fn end(self) {
        self.workers.iter().for_each(JoinHandle::abort);
    }
}

/// Something that is answered from what a process knows, as text.
async fn read(process: &Process, what: &str, waits: InvocationId) -> Result<String, String> {
    let permit = |action, resource| authorize(local("default", Millis(0)), action, resource, Millis(0)).unwrap();
    let handler = Resource::Handler { actor: kit::actor("account", "0"), handler: "state".to_owned() };
    match what {
        "a shared handler" => process.client.call(BALANCE.on("0"), ()).await.map(|balance| balance.to_string()).map_err(|error| error.to_string()),
        "state" => {
            let rows = process.engine.state(permit(Action::Read, handler)).await.map_err(|error| error.to_string())?;
            Ok(rows.into_iter().map(|(_, value)| String::from_utf8_lossy(&value).into_owned()).collect())
        }
        "why" => process.client.why(waits).await.map(|why| format!("{:?}", why.status)).map_err(|error| error.to_string()),
        "journal" => {
            let page = process.engine.journal(permit(Action::Read, kit::work(waits)), waits, 0).await.map_err(|error| error.to_string())?;
            Ok(page.entries.len().to_string())
        }
        other => panic!("{other}"),
    }
}

async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    for _ in 0..10_000 {
        if holds().await {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("never: {what}");
}

#[tokio::test]
async fn case_48_an_owner_that_was_replaced_while_it_paused_answers_no_read_and_its_steps_are_aborted() {
    LocalSet::new()
        .run_until(async {
            for what in ["a shared handler", "state", "why", "journal"] {
                let (model, draws, aborted) = (Model::new(), Arc::default(), Arc::new(AtomicBool::new(false)));
                let old = Process::open(&app(&aborted), &model, &draws);
                assert_eq!(old.client.call(DEPOSIT.on("0"), 5).await.unwrap(), 5);
                let waits = old.client.send(WAIT.on("0"), ()).await.unwrap();
                old.client.send(HOLD.on("1"), ()).await.unwrap();
                until("it waits", async || old.client.why(waits).await.unwrap().sentence().contains("timer")).await;
                // The old one hears of nothing while another one takes over and works.
                let new = Process::open(&app(&Arc::default()), &model, &draws);
                new.client.cancel(waits).await.unwrap();
                until("it is cancelled", async || new.client.why(waits).await.unwrap().sentence().contains("cancelled")).await;
                assert_eq!(new.client.call(DEPOSIT.on("0"), 7).await.unwrap(), 12);
                let said = read(&old, what, waits).await;
                assert!(said.as_ref().is_err_and(|error| error.contains("newer owner")), "{what}: {said:?}");
                until("it has stopped", async || aborted.load(Ordering::SeqCst)).await;
                assert!(old.engine.stopped().is_some_and(|reason| reason.contains("has a newer owner")), "{what}");
                assert!(read(&new, what, waits).await.is_ok(), "{what}");
                old.end();
                new.end();
            }
        })
        .await;
}

#[tokio::test]
async fn case_48_what_an_owner_answers_before_another_one_has_written_is_right() {
    LocalSet::new()
        .run_until(async {
            let (model, draws, app) = (Model::new(), Arc::default(), app(&Arc::default()));
            let old = Process::open(&app, &model, &draws);
            assert_eq!(old.client.call(DEPOSIT.on("0"), 5).await.unwrap(), 5);
            let new = Process::open(&app, &model, &draws);
            assert_eq!(new.client.call(BALANCE.on("0"), ()).await.unwrap(), 5);
            assert_eq!(old.client.call(BALANCE.on("0"), ()).await.unwrap(), 5, "nothing was written since");
            assert_eq!(new.client.call(DEPOSIT.on("0"), 7).await.unwrap(), 12);
            assert!(old.client.call(BALANCE.on("0"), ()).await.is_err());
            old.end();
            new.end();
        })
        .await;
}
