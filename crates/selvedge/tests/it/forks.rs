//! Forks: a new invocation that goes on from what another one has recorded.

use std::time::Duration;

use selvedge::{App, Ctx, Failure, Handler, Outcome, test};
use selvedge_kernel::auth::Action;
use selvedge_kernel::record::kind::Kind;

use crate::by_hand::{self, fork, forked, gives, lines, page, resolve};
use crate::kit::{self, Notes};

const GO: Handler<String, String> = Handler::new("subject", "go");
const HOUR: Duration = Duration::from_secs(3_600);

/// Two steps whose names are given, a random number between them, and a sleep.
fn program(first: &'static str, second: &'static str, notes: &Notes) -> App {
    let notes = notes.clone();
    App::new().handler(GO, async move |ctx: Ctx, how: String| {
        let large: String = noted(&ctx, first, &notes, 100_000).await?;
        let drawn = ctx.uuid().to_string();
        ctx.state().set("drawn", &drawn)?;
        let at = ctx.now();
        let small: String = noted(&ctx, second, &notes, 1).await?;
        if how == "waits" {
            ctx.sleep(HOUR).await?;
        }
        if how == "fails" && notes.count("mended") == 0 {
            return Err(Failure::terminal("broken", "as asked"));
        }
        Ok(format!("{} {small} {drawn} {at}", large.len()))
    })
}

async fn noted(ctx: &Ctx, name: &'static str, notes: &Notes, bytes: usize) -> Outcome<String> {
    let notes = notes.clone();
    ctx.step(name, async move |attempt| {
        notes.add(format!("{name} {}", attempt.key()));
        Ok(name.repeat(bytes))
    })
    .await
}

fn names(notes: &Notes) -> Vec<String> {
    notes.all().iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_fork_of_a_failed_one_takes_over_its_results_and_does_none_of_it_again() {
    let notes = Notes::default();
    let mut engine = test::Engine::new(program("a", "b", &notes)).await.unwrap();
    let id = engine.local().send(GO.on("x"), "fails".to_owned()).await.unwrap();
    engine.settle().await;
    assert_eq!(kit::status(&engine, id).await, "Failed");
    let drawn = kit::state(&engine, "subject", "x").await["drawn"].clone();
    engine.advance(HOUR).await;
    notes.add("mended");
    let done = forked(engine.engine().clone(), fork(id)).await.unwrap();
    assert_eq!(done.entries, Some(3));
    engine.settle().await;
    engine.kill_and_reopen().await.unwrap();
    let said = engine.local().result::<String>(done.id).await.unwrap();
    assert!(said.starts_with("100000 b ") && drawn.contains(said.split(' ').nth(2).unwrap()), "{said}: what was random or read from the clock stays");
    assert_eq!(names(&notes), ["a", "b", "mended"]);
    // Both know of the other, and both verify.
    let (old, new) = (engine.local().why(id).await.unwrap().forks, engine.local().why(done.id).await.unwrap().forks);
    assert_eq!((old.into, old.from, new.into, new.from), (vec![done.id], None, vec![], Some(id)));
    let told = lines(engine.engine(), done.id).await;
    assert_eq!(told, ["- forked: copied", "#0 step a: value", "#2 state.set drawn: recorded", "#3 step b: value"]);
    let origin = page(engine.engine(), done.id, 0).await.entries[0].by_hand.clone().unwrap();
    assert_eq!((origin.from, origin.by.as_str(), origin.reason.as_str()), (Some(id), "local", "to go on"));
    kit::sound(&engine).await;
    engine.advance(Duration::from_secs(9 * 86_400)).await;
    assert_eq!((kit::rows(&engine, Kind::Chunk), engine.engine().stopped()), (0, None));
}

#[tokio::test]
async fn a_fork_from_an_operation_does_that_one_and_what_follows_anew_under_keys_of_its_own() {
    let notes = Notes::default();
    let engine = test::Engine::new(program("a", "b", &notes)).await.unwrap();
    let id = engine.local().send(GO.on("x"), "ends".to_owned()).await.unwrap();
    engine.local().result::<String>(id).await.unwrap();
    let done = forked(engine.engine().clone(), by_hand_from(fork(id), 3)).await.unwrap();
    assert_eq!(done.entries, Some(2));
    engine.local().result::<String>(done.id).await.unwrap();
    assert_eq!(names(&notes), ["a", "b", "b"]);
    let all = notes.all();
    assert_ne!(all[1], all[2], "the same effect of another invocation has another key");
    // Asked again under its key it is the same; under another key it is another.
    let again = forked(engine.engine().clone(), by_hand_from(fork(id), 3)).await.unwrap();
    assert_eq!((again.id, again.entries), (done.id, None));
    let mut other = by_hand_from(fork(id), 0);
    other.key = "other".to_owned();
    let other = forked(engine.engine().clone(), other).await.unwrap();
    assert!(other.id != done.id && other.entries == Some(0));
    engine.local().result::<String>(other.id).await.unwrap();
    // A fork is forked, too.
    let of_fork = forked(engine.engine().clone(), fork(done.id)).await.unwrap();
    engine.local().result::<String>(of_fork.id).await.unwrap();
    assert_eq!(names(&notes).len(), 5);
    assert_eq!(engine.local().why(done.id).await.unwrap().forks.into, [of_fork.id]);
    kit::sound(&engine).await;
}

fn by_hand_from(mut fork: selvedge_engine::hand::Fork, operation: u32) -> selvedge_engine::hand::Fork {
    fork.from = Some(operation);
    fork
}

/// One that waits, and is blocked by other code.
async fn blocked(notes: &Notes) -> (test::Engine, selvedge::InvocationId) {
    let mut engine = test::Engine::new(program("a", "b", notes)).await.unwrap();
    let id = engine.local().send(GO.on("x"), "waits".to_owned()).await.unwrap();
    engine.settle().await;
    engine.deploy(program("a", "c", notes)).await.unwrap();
    engine.advance(HOUR).await;
    assert_eq!(kit::status(&engine, id).await, "Blocked");
    (engine, id)
}

#[tokio::test]
async fn a_blocked_one_holds_its_actor_so_it_is_killed_first_and_its_fork_goes_on_with_the_code_at_hand() {
    let notes = Notes::default();
    let (engine, id) = blocked(&notes).await;
    let held = forked(engine.engine().clone(), fork(id)).await.unwrap_err();
    assert!(held.code == "holds_actor" && held.message.contains("--kill-original"), "{held}");
    assert_eq!(kit::status(&engine, id).await, "Blocked");
    let behind = engine.local().send(GO.on("x"), "ends".to_owned()).await.unwrap();
    engine.settle().await;
    let mut asked = fork(id);
    asked.kill_original = true;
    let done = forked(engine.engine().clone(), asked).await.unwrap();
    assert_eq!(done.entries, Some(2), "up to what does not fit");
    engine.advance(2 * HOUR).await;
    engine.local().result::<String>(behind).await.unwrap();
    let said = engine.local().result::<String>(done.id).await.unwrap();
    assert!(said.starts_with("100000 c "), "{said}");
    assert_eq!(kit::status(&engine, id).await, "Killed");
    assert!(kit::sentence(&engine, id).await.contains(&format!("forked as {}: to go on", done.id)));
    kit::sound(&engine).await;
}

#[tokio::test]
async fn a_fork_that_is_killed_at_any_commit_and_asked_again_is_one() {
    for batches in 0..6 {
        let notes = Notes::default();
        let (mut engine, id) = blocked(&notes).await;
        let mut asked = fork(id);
        asked.kill_original = true;
        let verb = forked(engine.engine().clone(), asked.clone());
        by_hand::killed_after(&mut engine, batches, verb).await;
        let done = forked(engine.engine().clone(), asked).await.unwrap();
        engine.advance(2 * HOUR).await;
        assert!(engine.local().result::<String>(done.id).await.unwrap().starts_with("100000 c "), "killed after {batches}");
        assert_eq!(names(&notes)[..2], ["a", "b"], "killed after {batches}");
        assert!(names(&notes)[2..].iter().all(|name| name == "c"), "killed after {batches}");
        assert_eq!(kit::rows(&engine, Kind::Invocation), 2, "killed after {batches}");
        kit::sound(&engine).await;
    }
}

#[tokio::test]
async fn what_was_decided_by_hand_is_taken_over_with_who_and_why() {
    let notes = Notes::default();
    let (engine, id) = blocked(&notes).await;
    resolve(engine.engine().clone(), id, 3, gives("\"by hand\"")).await.unwrap();
    engine.settle().await;
    let first = engine.local().result::<String>(id).await.unwrap();
    assert!(first.contains(" by hand "), "{first}");
    let done = forked(engine.engine().clone(), fork(id)).await.unwrap();
    let second = engine.local().result::<String>(done.id).await.unwrap();
    assert_eq!(first, second);
    let told = page(engine.engine(), done.id, 0).await.entries[3].by_hand.clone().unwrap();
    assert_eq!((told.reason.as_str(), told.supersedes, told.stands_for.as_deref()), ("the bank says so", None, Some("#3 step `c`")));
    assert_eq!(engine.local().rehearse(None, 9 * HOUR).await.unwrap().misfits, []);
    kit::sound(&engine).await;
}

#[tokio::test]
async fn a_fork_takes_over_no_cancel_and_no_child_that_answers_the_old_one_alone() {
    const PARENT: Handler<bool, u64> = Handler::new("subject", "parent");
    const CHILD: Handler<(), u64> = Handler::new("child", "go");
    let app = App::new()
        .handler(PARENT, async |ctx: Ctx, waits: bool| {
            ctx.step("a", async |_| Ok(())).await?;
            let child = ctx.spawn(CHILD.on("c"), ());
            ctx.step("b", async |_| Ok(())).await?;
            if waits {
                ctx.sleep(HOUR).await?;
            }
            child.join().await
        })
        .handler(CHILD, async |_: Ctx, ()| Ok(7));
    let engine = test::Engine::new(app).await.unwrap();
    let joined = engine.local().send(PARENT.on("x"), false).await.unwrap();
    assert_eq!(engine.local().result::<u64>(joined).await.unwrap(), 7);
    let whole = forked(engine.engine().clone(), fork(joined)).await.unwrap();
    assert_eq!(whole.entries, Some(4));
    assert_eq!(engine.local().result::<u64>(whole.id).await.unwrap(), 7);
    let refused = forked(engine.engine().clone(), by_hand_from(fork(joined), 3)).await;
    assert_eq!(refused.unwrap().entries, None, "the key is taken");
    let mut late = by_hand_from(fork(joined), 3);
    late.key = "late".to_owned();
    let refused = forked(engine.engine().clone(), late).await.unwrap_err();
    assert!(refused.code == "not_forkable" && refused.message.contains("#1 spawn to child/c.go"), "{refused}");

    let cancelled = engine.local().send(PARENT.on("y"), true).await.unwrap();
    engine.settle().await;
    engine.local().cancel(cancelled).await.unwrap();
    engine.settle().await;
    assert_eq!(kit::status(&engine, cancelled).await, "Cancelled");
    let early = forked(engine.engine().clone(), fork(cancelled)).await.unwrap();
    assert_eq!(early.entries, Some(1), "before the child");
    engine.advance(2 * HOUR).await;
    assert_eq!(engine.local().result::<u64>(early.id).await.unwrap(), 7);
    kit::sound(&engine).await;
}

#[tokio::test]
async fn a_fork_needs_a_right_of_its_own_and_something_that_has_ended_and_was_not_erased() {
    let notes = Notes::default();
    let engine = test::Engine::new(program("a", "b", &notes)).await.unwrap();
    let open = engine.local().send(GO.on("x"), "waits".to_owned()).await.unwrap();
    engine.settle().await;
    assert_eq!(forked(engine.engine().clone(), fork(open)).await.unwrap_err().code, "open");
    engine.advance(HOUR).await;
    let permit = by_hand::permit(engine.engine(), Action::Control, open);
    assert_eq!(engine.engine().fork(permit, fork(open)).await.unwrap_err().code, "wrong_permit");
    let unknown = forked(engine.engine().clone(), by_hand_from(fork(open), 99)).await.unwrap_err();
    assert!(unknown.code == "unknown_operation" && unknown.message.contains("invocations journal"), "{unknown}");
    engine.local().erase(open).await.unwrap();
    assert_eq!(forked(engine.engine().clone(), fork(open)).await.unwrap_err().code, "erased");
}

#[tokio::test]
async fn a_fork_takes_over_so_many_entries_at_most_and_can_be_made_from_an_earlier_operation() {
    const MANY: Handler<u32, ()> = Handler::new("subject", "many");
    let app = App::new().handler(MANY, async |ctx: Ctx, count: u32| {
        for n in 0..count {
            ctx.state().set("n", &n)?;
            if n % 50 == 0 {
                ctx.step("look", async |_| Ok(())).await?;
            }
        }
        Ok(())
    });
    let engine = test::Engine::new(app).await.unwrap();
    let id = engine.local().send(MANY.on("x"), 4_001).await.unwrap();
    engine.local().result::<()>(id).await.unwrap();
    let refused = forked(engine.engine().clone(), fork(id)).await.unwrap_err();
    assert!(refused.code == "limit: fork" && refused.message.contains("the limit of a fork is 4000"), "{refused}");
    let early = forked(engine.engine().clone(), by_hand_from(fork(id), 10)).await.unwrap();
    assert_eq!(early.entries, Some(10));
    engine.local().result::<()>(early.id).await.unwrap();
}
