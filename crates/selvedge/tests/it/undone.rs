//! What is under way when a run fails or is cancelled: it ends first, and is undone if it has done something.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use selvedge::run::{RunError, RunStatus};
use selvedge::{Activity, App, Attempt, Ctx, Failure, Handler, SharedHandler, Signal, View, test};
use selvedge_kernel::machine::RunState;
use selvedge_kernel::waiting::Waiting;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::by_hand::killed_after;
use super::runs::{end, parse, sound, start, until};

const RESERVE: Handler<Value, Value> = Handler::new("stock", "reserve");
const RELEASE: Handler<Value, Value> = Handler::new("stock", "release");
const HELD: SharedHandler<(), bool> = SharedHandler::new("stock", "held");
const GO: Signal<Value> = Signal::new("go");
const CHARGE: Activity<Value, Value> = Activity::new("charge");
const REFUND: Activity<Value, Value> = Activity::new("refund");

type Seen = Arc<Mutex<Vec<String>>>;

/// A shop. Of the article `none` there is never any, `asked` is there when somebody says so; a charge ends when the bank answers.
fn shop(told: &Seen, bank: watch::Receiver<bool>) -> App {
    let (charged, refunded, released) = (told.clone(), told.clone(), told.clone());
    App::new()
        .handler(RESERVE, async |ctx: Ctx, _: Value| {
            match ctx.key() {
                "none" => {
                    ctx.sleep(Duration::from_secs(1)).await?;
                    return Err(Failure::terminal("none_left", "there are none of these"));
                }
                "asked" => drop(ctx.signal(GO).await?),
                _ => {}
            }
            ctx.state().set("held", &true)?;
            Ok(Value::Null)
        })
        .handler(RELEASE, async move |ctx: Ctx, _: Value| {
            released.lock().unwrap().push(format!("released {}", ctx.key()));
            ctx.state().delete("held")?;
            Ok(Value::Null)
        })
        .shared(HELD, async |view: View, ()| Ok(view.get::<bool>("held").await?.is_some()))
        .activity(CHARGE, async move |attempt: Attempt, _: Value| {
            let (charged, mut bank) = (charged.clone(), bank.clone());
            charged.lock().unwrap().push(format!("charging {}", attempt.key()));
            bank.wait_for(|answers| *answers).await.map_err(|_| Failure::terminal("bank", "it is gone"))?;
            Ok(json!("ch_1"))
        })
        .activity(REFUND, async move |_: Attempt, value: Value| {
            refunded.lock().unwrap().push(format!("refunded {}", value.as_str().unwrap_or("?")));
            Ok(Value::Null)
        })
}

fn lines(seen: &Seen, of: &str) -> Vec<String> {
    seen.lock().unwrap().iter().filter(|line| line.starts_with(of)).cloned().collect()
}

fn works_on(status: &RunStatus, stage: &str) -> bool {
    status.waiting.iter().any(|waits| matches!(waits, Waiting::Tasks { stage: of, .. } if of == stage))
}

const ORDER: &str = r#"
selvedge: 1
name: order
input: { articles: { type: array } }
stages:
  - { name: charge, call: charge, depends_on: [], compensate: { call: refund, input: "${output}" } }
  - { name: reserve, depends_on: [], mode: scatter, over: input.articles, call: { actor: stock, key: "${item}", handler: reserve }, compensate: { call: { actor: stock, key: "${item}", handler: release } } }
  - { name: paid, mode: wait_signal, signal: paid, depends_on: [] }
"#;

#[tokio::test]
async fn a_call_that_waits_is_asked_to_end_when_another_one_fails_and_a_charge_under_way_ends_and_is_refunded() {
    for batches in 0..9 {
        let (seen, (answer, bank)) = (Seen::default(), watch::channel(false));
        let mut engine = test::Engine::new(shop(&seen, bank).pipeline(parse(ORDER))).await.unwrap();
        let id = start(&engine, "order", json!({ "articles": ["a", "asked", "none"] })).await.id();
        engine.settle().await;
        let running = engine.engine().clone();
        killed_after(&mut engine, batches, async move { running.advance(Duration::from_secs(2)).await }).await;
        until(&engine, id, "letting the charge end", |status| status.error.is_some() && works_on(status, "charge") && !works_on(status, "reserve")).await;
        assert!(lines(&seen, "re").is_empty(), "nothing is undone while something runs that may have to be undone");
        let undoes = engine.local().run(id).status().await.unwrap().undoes.unwrap();
        assert!(undoes.because.starts_with("none_left: ") && (undoes.done, undoes.of) == (0, 2), "{undoes:?}");
        answer.send(true).unwrap();
        assert!(matches!(end(&engine, id).await, Err(RunError::Failed { code, .. }) if code == "none_left"));
        let (mut refunded, mut released) = (lines(&seen, "refunded"), lines(&seen, "released"));
        refunded.dedup();
        released.dedup();
        assert_eq!((refunded, released), (vec!["refunded ch_1".to_owned()], vec!["released a".to_owned()]));
        let mut keys = lines(&seen, "charging");
        keys.dedup();
        assert_eq!(keys.len(), 1, "asked again under its key");
        for article in ["a", "asked", "none"] {
            assert!(!engine.local().call(HELD.on(article), ()).await.unwrap(), "{article} is back on the shelf");
        }
        sound(&engine).await;
    }
}

#[tokio::test]
async fn a_run_that_is_cancelled_ends_when_its_charge_has_ended_and_was_refunded_whenever_it_is_killed() {
    for batches in 0..7 {
        let (seen, (answer, bank)) = (Seen::default(), watch::channel(false));
        let mut engine = test::Engine::new(shop(&seen, bank).pipeline(parse(ORDER))).await.unwrap();
        let run = start(&engine, "order", json!({ "articles": ["asked"] })).await;
        let id = run.id();
        engine.settle().await;
        let cancelling = run.clone();
        killed_after(&mut engine, batches, async move { cancelling.cancel().await }).await;
        let run = engine.local().run(id);
        run.cancel().await.unwrap();
        // Saying it again while something ends changes nothing.
        run.cancel().await.unwrap();
        engine.kill_and_reopen().await.unwrap();
        until(&engine, id, "letting the charge end", |status| works_on(status, "charge") && !works_on(status, "reserve")).await;
        answer.send(true).unwrap();
        assert!(matches!(end(&engine, id).await, Err(RunError::Cancelled { .. })));
        let mut refunded = lines(&seen, "refunded");
        refunded.dedup();
        assert_eq!((refunded.len(), lines(&seen, "released").len()), (1, 0));
        assert!(!engine.local().call(HELD.on("asked"), ()).await.unwrap());
        sound(&engine).await;
    }
}

#[tokio::test]
async fn a_run_that_another_one_calls_undoes_what_it_did_before_the_one_above_it_undoes_the_rest() {
    let above = r#"
selvedge: 1
name: above
stages:
  - { name: first, call: { actor: stock, key: first, handler: reserve }, compensate: { call: { actor: stock, key: first, handler: release } } }
  - { name: below, call: { pipeline: order }, input: { articles: [a, b] }, compensate: { call: { actor: stock, key: wrong, handler: release } } }
"#;
    for batches in 0..9 {
        let (seen, (answer, bank)) = (Seen::default(), watch::channel(true));
        let app = shop(&seen, bank).pipeline(parse(ORDER)).pipeline(parse(above));
        let mut engine = test::Engine::new(app).await.unwrap();
        let run = start(&engine, "above", json!({})).await;
        let id = run.id();
        let child = |status: &RunStatus| status.waiting.iter().find_map(|waits| if let Waiting::ChildRun { run, .. } = waits { Some(*run) } else { None });
        until(&engine, id, "at its child", |status| child(status).is_some()).await;
        let below = child(&run.status().await.unwrap()).unwrap();
        until(&engine, below, "waiting for money", |status| status.state == RunState::Waiting).await;
        let cancelling = run.clone();
        killed_after(&mut engine, batches, async move { cancelling.cancel().await }).await;
        engine.local().run(id).cancel().await.ok();
        assert!(matches!(end(&engine, id).await, Err(RunError::Cancelled { .. })));
        assert!(matches!(end(&engine, below).await, Err(RunError::Cancelled { .. })));
        let mut undone = seen.lock().unwrap().iter().filter(|line| line.starts_with("re")).cloned().collect::<Vec<_>>();
        undone.dedup();
        let refunded = undone.iter().position(|line| line == "refunded ch_1");
        undone.retain(|line| line.starts_with("released"));
        // Those of one stage are released beside each other.
        undone[..2].sort();
        assert_eq!((refunded.is_some(), undone), (true, ["a", "b", "first"].map(|article| format!("released {article}")).to_vec()));
        drop(answer);
        sound(&engine).await;
    }
}

#[tokio::test]
async fn a_run_that_fails_in_the_commit_that_calls_another_one_has_that_one_end_too() {
    let hasty = r#"
selvedge: 1
name: hasty
input: { nobody: { type: array } }
stages:
  - { name: below, depends_on: [], call: { pipeline: order }, input: { articles: [asked] }, compensate: { call: { actor: stock, key: wrong, handler: release } } }
  - { name: asked, depends_on: [], call: { actor: stock, key: asked, handler: reserve }, compensate: { call: { actor: stock, key: wrong, handler: release } } }
  - { name: broken, depends_on: [], call: charge, input: "to ${input.nobody[9]}" }
"#;
    for batches in 0..9 {
        let (seen, (answer, bank)) = (Seen::default(), watch::channel(true));
        let app = shop(&seen, bank).pipeline(parse(ORDER)).pipeline(parse(hasty));
        let mut engine = test::Engine::new(app).await.unwrap();
        let client = engine.local();
        let starting = async move { client.start("hasty", json!({ "nobody": [] })).idempotency_key("one").await };
        killed_after(&mut engine, batches, starting).await;
        let run = engine.local().start("hasty", json!({ "nobody": [] })).idempotency_key("one").await.unwrap();
        assert!(matches!(end(&engine, run.id()).await, Err(RunError::Failed { code, .. }) if code == "expression"));
        engine.settle().await;
        for one in engine.local().runs().await.unwrap() {
            assert!(one.state.ended(), "{one:?}");
        }
        assert!(!engine.local().call(HELD.on("asked"), ()).await.unwrap());
        assert!(lines(&seen, "released").is_empty());
        drop(answer);
        sound(&engine).await;
    }
}
