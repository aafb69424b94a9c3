//! The bytes that a tenant keeps: counted to the last one, given back where they go, and bounded for new work alone.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use selvedge::{App, Ctx, Failure, Handler, Outcome, Settings, Signal, test};
use selvedge_engine::engine::Ask;
use selvedge_engine::{RunStart, VerbError};
use selvedge_kernel::auth::{Action, Resource};
use selvedge_kernel::id::InvocationId;
use selvedge_kernel::limit::Limits;
use selvedge_kernel::record::kind::Kind;

use crate::kit;
use crate::rig::Folder;

const ACT: Handler<Vec<Act>, String> = Handler::new("place", "act");
const GO: Signal<String> = Signal::new("go");
const DAY: Duration = Duration::from_secs(86_400);

/// What a handler does.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
enum Act {
    Set(u8, usize),
    Delete(u8),
    Clear,
    Emit(usize),
    Step(usize),
    Read(u8),
    Wait,
    Nap,
    Send(u8, bool),
    Restart,
    Fail,
}

async fn act(ctx: Ctx, acts: Vec<Act>) -> Outcome<String> {
    let mut said = String::new();
    for act in acts {
        match act {
            Act::Set(name, bytes) => ctx.state().set(&format!("n{name}"), &"s".repeat(bytes))?,
            Act::Delete(name) => ctx.state().delete(&format!("n{name}"))?,
            Act::Clear => ctx.state().clear()?,
            Act::Emit(bytes) => ctx.emit(&"e".repeat(bytes))?,
            Act::Step(bytes) => said.push_str(&ctx.step("step", async |_| Ok("v".repeat(bytes))).await?[..1.min(bytes)]),
            Act::Read(name) => drop(ctx.state().get::<String>(&format!("n{name}")).await?),
            Act::Wait => said.push_str(&ctx.signal(GO).await?),
            Act::Nap => ctx.sleep(Duration::from_secs(5)).await?,
            Act::Send(key, late) => {
                let sent = ctx.send(ACT.on(format!("k{key}")), vec![Act::Step(10)]);
                if late {
                    let _ = sent.delay(Duration::from_secs(9));
                }
            }
            Act::Restart => return Err(ctx.restart(vec![Act::Step(3)])),
            Act::Fail => return Err(Failure::retryable("no", "not today")),
        }
    }
    Ok(said)
}

const PIECES: &str = r#"
selvedge: 1
name: pieces
input: { words: { type: array } }
stages:
  - { name: each, mode: scatter, over: input.words, call: { actor: place, key: "r${item}", handler: act }, input: [{ Step: 40 }], on_failure: continue }
  - { name: hold, mode: wait_signal, signal: go, depends_on: [] }
  - { name: gathered, mode: gather, stages: [each, hold] }
output: "${stages.gathered.output}"
"#;

fn app() -> App {
    let retry = selvedge::Retry { max_attempts: 2, ..selvedge::Retry::default() };
    App::new().actor("place", selvedge::ActorOptions { retry, ..selvedge::ActorOptions::default() }).handler(ACT, act).pipeline(crate::runs::parse(PIECES))
}

async fn with(limits: Limits) -> test::Engine {
    test::Engine::with(app(), Settings { limits, ..Settings::default() }).await.unwrap()
}

async fn send(engine: &test::Engine, key: &str, acts: &[Act], delay: Option<Duration>) -> Result<InvocationId, VerbError> {
    let resource = Resource::Handler { actor: kit::actor("place", key), handler: "act".to_owned() };
    let input = Bytes::from(serde_json::to_vec(acts).unwrap());
    let asked = Ask { delay, ..Ask::default() };
    Ok(engine.engine().invoke(kit::permit(engine, Action::Invoke, resource), input, asked).await?.id.unwrap())
}

/// What the process has summed up is what the rows say.
async fn summed(engine: &test::Engine) -> u64 {
    engine.settle().await;
    let kept = kit::kept(engine);
    let known = engine.engine().kept_bytes(&kit::permit(engine, Action::Operate, Resource::Store)).unwrap();
    assert_eq!(known.into_iter().collect::<std::collections::BTreeMap<_, _>>(), kept.into_iter().filter(|(_, bytes)| *bytes > 0).collect());
    kit::kept(engine).get("default").copied().unwrap_or(0)
}

#[tokio::test]
async fn a_tenant_that_keeps_all_that_it_may_starts_nothing_new_and_what_it_has_goes_on_to_its_end() {
    let mut engine = with(Limits { tenant_bytes: 5_000, ..Limits::default() }).await;
    let open = send(&engine, "open", &[Act::Wait, Act::Set(0, 3_000), Act::Step(50), Act::Send(9, false), Act::Send(8, true)], None).await.unwrap();
    let late = send(&engine, "late", &[Act::Set(0, 10)], Some(Duration::from_secs(60))).await.unwrap();
    let run = crate::runs::start(&engine, "pieces", serde_json::json!({ "words": ["a"] })).await.id();
    engine.settle().await;
    engine.local().send_signal_to(open, GO, "w".to_owned()).await.unwrap();
    engine.local().result::<String>(open).await.unwrap();
    let full = send(&engine, "full", &[Act::Set(1, 4_000)], None).await.unwrap();
    engine.settle().await;
    for _ in 0..2 {
        let bytes = summed(&engine).await;
        assert!(bytes > 5_000, "{bytes}");
        let refused = send(&engine, "more", &[], None).await.unwrap_err();
        assert_eq!(refused.code, "limit: stored_bytes");
        let says = format!("the tenant `default` keeps {bytes} bytes, the limit is 5000: what was accepted goes on");
        assert!(refused.message.starts_with(&says) && refused.message.contains("`limits.tenant_bytes`"), "{refused}");
        assert_eq!(send(&engine, "more", &[], Some(Duration::from_secs(1))).await.unwrap_err().code, "limit: stored_bytes");
        let permit = kit::permit(&engine, Action::Start, Resource::Pipeline { tenant: "default".to_owned(), name: "pieces".to_owned() });
        let refused = engine.engine().start_named(permit, Bytes::from_static(b"{\"words\":[]}"), RunStart::default()).await.unwrap_err();
        assert_eq!(refused.code, "limit: stored_bytes");
        let actor = kit::permit(&engine, Action::Signal, Resource::Handler { actor: kit::actor("place", "x"), handler: "go".to_owned() });
        let target = selvedge_engine::SignalTarget::Actor(kit::actor("place", "x"));
        let refused = engine.engine().signal(actor, target, "go", Bytes::from_static(b"\"x\""), None).await.unwrap_err();
        assert_eq!(refused.code, "limit: stored_bytes");
        let refused =
            engine.engine().run_signal(kit::permit(&engine, Action::Signal, of_run(run)), run, "go", Bytes::from_static(b"1"), None).await.unwrap_err();
        assert_eq!(refused.code, "limit: stored_bytes");
        let define = kit::permit(&engine, Action::Define, Resource::Pipeline { tenant: "default".to_owned(), name: "pieces".to_owned() });
        assert_eq!(engine.engine().put_definition(define, crate::runs::parse(PIECES)).await.unwrap_err().code, "limit: stored_bytes");
        engine.kill_and_reopen().await.unwrap();
    }
    // Nothing of what was accepted is refused: what it sends, what is due later.
    engine.advance(Duration::from_secs(61)).await;
    assert_eq!(kit::status(&engine, late).await, "Completed");
    assert_eq!(kit::rows(&engine, Kind::DeadLetter), 0);
    assert!(kit::state(&engine, "place", "late").await.contains_key("n0"));
    // What is erased makes room.
    engine.local().erase(full).await.unwrap();
    engine.local().erase(open).await.unwrap();
    summed(&engine).await;
    assert_eq!(send(&engine, "more", &[], None).await.unwrap_err().code, "limit: stored_bytes", "the state is still there");
    engine.kill_and_reopen_with(Settings { limits: Limits { tenant_bytes: 100_000, ..Limits::default() }, ..Settings::default() }).await.unwrap();
    send(&engine, "full", &[Act::Clear], None).await.unwrap();
    send(&engine, "open", &[Act::Delete(0)], None).await.unwrap();
    engine.settle().await;
    engine.kill_and_reopen_with(Settings { limits: Limits { tenant_bytes: 5_000, ..Limits::default() }, ..Settings::default() }).await.unwrap();
    send(&engine, "more", &[], None).await.unwrap();
    kit::sound(&engine).await;
}

fn of_run(run: selvedge::RunId) -> Resource {
    Resource::Work { tenant: "default".to_owned(), id: run.to_string() }
}

#[tokio::test]
async fn bytes_of_what_has_ended_are_given_back_on_the_day_on_which_it_leaves_and_state_stays() {
    let mut engine = with(Limits::default()).await;
    send(&engine, "a", &[Act::Set(0, 98), Act::Emit(500), Act::Step(700)], None).await.unwrap();
    let run = crate::runs::start(&engine, "pieces", serde_json::json!({ "words": ["a", "b"] })).await.id();
    engine.settle().await;
    engine.engine().run_signal(kit::permit(&engine, Action::Signal, of_run(run)), run, "go", Bytes::from_static(b"1"), None).await.unwrap();
    engine.settle().await;
    assert!(summed(&engine).await > 2_000);
    engine.advance(9 * DAY).await;
    assert_eq!(summed(&engine).await, 100, "the state, and nothing else");
    engine.kill_and_reopen().await.unwrap();
    assert_eq!(summed(&engine).await, 100);
    send(&engine, "a", &[Act::Delete(0)], None).await.unwrap();
    engine.settle().await;
    engine.advance(9 * DAY).await;
    assert_eq!(summed(&engine).await, 0);
}

#[tokio::test]
async fn a_day_on_which_nothing_is_left_to_leave_passes() {
    let engine = with(Limits::default()).await;
    let id = send(&engine, "a", &[Act::Step(700)], None).await.unwrap();
    engine.settle().await;
    engine.local().erase(id).await.unwrap();
    assert_eq!(summed(&engine).await, 0);
    engine.advance(9 * DAY).await;
    assert_eq!(summed(&engine).await, 0);
}

#[tokio::test]
async fn a_store_from_before_they_were_counted_is_counted_when_it_is_opened() {
    let mut engine = with(Limits::default()).await;
    send(&engine, "a", &[Act::Set(0, 1_000), Act::Emit(500), Act::Step(70_000), Act::Wait], None).await.unwrap();
    send(&engine, "b", &[Act::Emit(300), Act::Step(200)], None).await.unwrap();
    send(&engine, "c", &[Act::Fail], None).await.unwrap();
    send(&engine, "d", &[], Some(DAY)).await.unwrap();
    let run = crate::runs::start(&engine, "pieces", serde_json::json!({ "words": ["a", "b", "c"] })).await.id();
    engine.engine().run_signal(kit::permit(&engine, Action::Signal, of_run(run)), run, "go", Bytes::from_static(b"\"kept\""), None).await.unwrap();
    crate::runs::start(&engine, "pieces", serde_json::json!({ "words": [] })).await;
    let actor = kit::permit(&engine, Action::Signal, Resource::Handler { actor: kit::actor("place", "x"), handler: "go".to_owned() });
    let target = selvedge_engine::SignalTarget::Actor(kit::actor("place", "x"));
    engine.engine().signal(actor, target, "go", Bytes::from_static(b"\"kept\""), Some("k".to_owned())).await.unwrap();
    engine.advance(Duration::from_secs(5)).await;
    let before = summed(&engine).await;
    assert!(before > 72_000 && kit::rows(&engine, Kind::DeadLetter) == 1, "{before}");
    engine.model().before_there_were(Kind::Kept);
    engine.kill_and_reopen().await.unwrap();
    assert_eq!(summed(&engine).await, before);
    // It was written down: the next opening reads it.
    assert!(kit::rows(&engine, Kind::Kept) > 3);
    engine.kill_and_reopen().await.unwrap();
    assert_eq!(summed(&engine).await, before);
    kit::sound(&engine).await;
}

/// What happens to a store.
#[derive(Clone, Debug)]
enum Happens {
    Send(u8, Vec<Act>, bool),
    Signal(u8),
    SignalRun,
    Run(u8),
    Cancel(u8),
    Kill(u8),
    Erase(u8),
    Redrive,
    Put(u8),
    Pass(u32),
    Dies(u64),
    Uncounted,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let bytes = prop_oneof![8 => 0usize..300, 1 => 60_000usize..200_000];
    let one = prop_oneof![
        4 => (0u8..4, bytes.clone()).prop_map(|(name, bytes)| Act::Set(name, bytes)),
        1 => (0u8..4).prop_map(Act::Delete),
        1 => Just(Act::Clear),
        2 => bytes.clone().prop_map(Act::Emit),
        3 => bytes.prop_map(Act::Step),
        1 => (0u8..4).prop_map(Act::Read),
        1 => Just(Act::Wait),
        1 => Just(Act::Nap),
        1 => (0u8..4, any::<bool>()).prop_map(|(key, late)| Act::Send(key, late)),
        1 => Just(Act::Restart),
        1 => Just(Act::Fail),
    ];
    proptest::collection::vec(one, 0..7)
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        8 => (0u8..4, acts(), any::<bool>()).prop_map(|(key, acts, late)| Happens::Send(key, acts, late)),
        2 => (0u8..4).prop_map(Happens::Signal),
        1 => Just(Happens::SignalRun),
        2 => (0u8..5).prop_map(Happens::Run),
        1 => any::<u8>().prop_map(Happens::Cancel),
        1 => any::<u8>().prop_map(Happens::Kill),
        2 => any::<u8>().prop_map(Happens::Erase),
        1 => Just(Happens::Redrive),
        1 => (0u8..3).prop_map(Happens::Put),
        2 => prop_oneof![Just(1u32), Just(20), Just(86_400), Just(9 * 86_400)].prop_map(Happens::Pass),
        3 => (0u64..12).prop_map(Happens::Dies),
        1 => Just(Happens::Uncounted),
    ]
}

/// Does it; whether it is refused or not is no matter here.
async fn happen(engine: &test::Engine, what: &Happens, sent: &mut Vec<InvocationId>, runs: &mut Vec<selvedge::RunId>) {
    let chosen = |n: &u8| sent.get(usize::from(*n) % sent.len().max(1)).copied();
    match what {
        Happens::Send(key, acts, late) => sent.extend(send(engine, &format!("k{key}"), acts, late.then_some(Duration::from_secs(30))).await),
        Happens::Signal(key) => {
            let actor = kit::actor("place", &format!("k{key}"));
            let permit = kit::permit(engine, Action::Signal, Resource::Handler { actor: actor.clone(), handler: "go".to_owned() });
            let target = selvedge_engine::SignalTarget::Actor(actor);
            let _ = engine.engine().signal(permit, target, "go", Bytes::from_static(b"\"come\""), Some(format!("once {}", sent.len()))).await;
        }
        Happens::SignalRun => {
            if let Some(run) = runs.last() {
                let _ = engine.engine().run_signal(kit::permit(engine, Action::Signal, of_run(*run)), *run, "go", Bytes::from_static(b"[1,2]"), None).await;
            }
        }
        Happens::Run(words) => {
            let words: Vec<String> = (0..*words).map(|n| format!("{n}")).collect();
            runs.extend(engine.local().start("pieces", serde_json::json!({ "words": words })).await.map(|run| run.id()));
        }
        Happens::Cancel(n) => {
            if let Some(id) = chosen(n) {
                let _ = engine.local().cancel(id).await;
            }
        }
        Happens::Kill(n) => {
            if let Some(id) = chosen(n) {
                let _ = engine.engine().kill(kit::permit(engine, Action::Rewrite, kit::work(id)), id, "enough").await;
            }
        }
        Happens::Erase(n) => {
            if let Some(id) = chosen(n) {
                let _ = engine.local().erase(id).await;
            }
        }
        Happens::Redrive => {
            if let Some(letter) = kit::dead_letters(engine).await.first() {
                let id = letter.message.id;
                let _ = engine.engine().redrive(kit::permit(engine, Action::Control, kit::work(id)), id, None).await;
            }
        }
        Happens::Put(n) => {
            let permit = kit::permit(engine, Action::Define, Resource::Pipeline { tenant: "default".to_owned(), name: "pieces".to_owned() });
            let text = PIECES.replace("Step: 40", &format!("Step: 4{n}"));
            let _ = engine.engine().put_definition(permit, crate::runs::parse(&text)).await;
        }
        Happens::Pass(seconds) => {
            engine.advance(Duration::from_secs(u64::from(*seconds))).await;
            engine.model().set_today(engine.engine().now().day());
        }
        Happens::Dies(_) | Happens::Uncounted => {}
    }
}

async fn counted_after_each(steps: &[Happens]) {
    let mut engine = with(Limits::default()).await;
    let (mut sent, mut runs) = (Vec::new(), Vec::new());
    let mut commits = None;
    for step in steps {
        match step {
            Happens::Dies(after) => commits = Some(*after),
            Happens::Uncounted => {
                engine.settle().await;
                engine.model().before_there_were(Kind::Kept);
                engine.kill_and_reopen().await.unwrap();
                engine.settle().await;
            }
            // What comes next is killed in its middle.
            _ => match commits.take() {
                Some(after) => {
                    let (mut some, mut others) = (sent.clone(), runs.clone());
                    let whole = async |engine: &test::Engine| {
                        happen(engine, step, &mut some, &mut others).await;
                        engine.settle().await;
                    };
                    let done = engine.kill_after(after, whole).await.unwrap();
                    if done.is_some() {
                        (sent, runs) = (some, others);
                    }
                }
                None => happen(&engine, step, &mut sent, &mut runs).await,
            },
        }
        kit::kept(&engine);
        summed(&engine).await;
    }
    kit::sound(&engine).await;
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 40, ..ProptestConfig::with_cases(24) })]
    #[test]
    fn what_is_counted_is_what_the_rows_say_whatever_happens_and_whenever_it_is_killed(steps in proptest::collection::vec(happens(), 1..25)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(counted_after_each(&steps));
    }
}

#[test]
fn an_import_into_another_number_of_shards_keeps_as_many_bytes_and_doctor_says_how_many() {
    let folder = Folder::new();
    folder.write("p.yaml", "selvedge: 1\nname: p\nstages: [{ name: hold, mode: wait_signal, signal: go }, { name: b, mode: wait_signal, signal: never }]\n");
    folder.write("nap.yaml", "selvedge: 1\nname: nap\nstages: [{ name: a, mode: sleep, for: 1ms }]\n");
    assert_eq!(folder.selvedge(&["run", "nap.yaml"]).code, 0);
    assert_eq!(folder.selvedge(&["pipelines", "put", "p.yaml"]).code, 0);
    let run = folder.json(&["pipelines", "start", "p", "--key", "k"])["run"].as_str().unwrap().to_owned();
    let said = folder.selvedge(&["runs", "signal", &run, "never", "--data-json", "\"kept until then\""]);
    assert_eq!(said.code, 0, "{said:?}");
    let seen = |data: &str| {
        let parts = folder.json(&["doctor", "--data", data]);
        parts.as_array().unwrap().iter().find(|part| part["part"] == "stored bytes").unwrap()["seen"].as_str().unwrap().to_owned()
    };
    let before = seen(".selvedge");
    assert!(before.starts_with("the tenant `default` keeps ") && before.ends_with(", the limit of each is 10737418240"), "{before}");
    assert_eq!(folder.selvedge(&["export", "--to", "all.jsonl"]).code, 0);
    let imported = folder.selvedge(&["import", "all.jsonl", "--data", "other", "--shards", "3"]);
    assert_eq!(imported.code, 0, "{imported:?}");
    assert_eq!(seen("other"), before);
    assert_eq!(seen("other"), before, "the second time it is read");
    folder.write("selvedge.yaml", "limits: { tenant_bytes: 100 }\n");
    let refused = folder.selvedge(&["pipelines", "start", "p", "--key", "l"]);
    assert!(refused.code != 0 && refused.err.contains("keeps ") && refused.err.contains("the limit is 100: what was accepted goes on"), "{refused:?}");
    assert_eq!(folder.json(&["pipelines", "start", "p", "--key", "k"])["run"], run.as_str(), "what is there already is found");
    let doctor = folder.selvedge(&["doctor"]);
    assert!(doctor.code == 1 && doctor.out.contains("LOOK  stored bytes: the tenant `default` keeps "), "{doctor:?}");
}
