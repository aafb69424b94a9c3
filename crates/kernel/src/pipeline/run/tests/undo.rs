//! What was done is undone: in reverse order, once each, through kills, and what could not be undone is told.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::world::{World, echo, graph, json_bytes, passing, permanent, pipeline, scatter, seconds, stage};
use crate::id::ActorId;
use crate::machine::{RunEvent, RunState, StageState};
use crate::pipeline::definition::{Call, Compensate, Definition, Mode, OnFailure, SleepTime, Stage};
use crate::pipeline::run::{Again, Command, Dispatch, Retry as RunRetry, Room, RunInput, RunRefused, Work};
use crate::policy::{Retry, Throttle, Timeout};
use crate::record::run::TaskEnd;
use std::time::Duration;

fn undone_by(mut stage: Stage, input: Value) -> Stage {
    let retry = Some(Retry::fixed(3, Duration::from_secs(1)));
    stage.compensate = Some(Compensate { call: Call::Activity("undo".to_owned()), input, retry, timeout: None });
    stage
}

fn is_undo(dispatch: &Dispatch) -> bool {
    matches!(&dispatch.work, Work::Activity { name } if name == "undo")
}

fn inputs(world: &World) -> Vec<Value> {
    let mut seen = std::collections::BTreeSet::new();
    let undone = world.started.iter().filter(|dispatch| is_undo(dispatch) && seen.insert((dispatch.stage, dispatch.item)));
    undone.map(|dispatch| serde_json::from_slice(&dispatch.input).unwrap()).collect()
}

/// charge, then reserve each, then ship, which fails.
fn order() -> Definition {
    let charge = undone_by(stage("charge", Mode::Single), json!({ "charge": "${output.got}", "item": "${item}", "by": "${input.by}" }));
    let reserve = undone_by(scatter("reserve", "input.list"), json!({ "sku": "${item}", "was": "${output.got}" }));
    pipeline(vec![charge, reserve, stage("ship", Mode::Single)])
}

fn ship_fails(dispatch: &Dispatch) -> Result<bytes::Bytes, crate::error::AttemptError> {
    if dispatch.stage == 2 { Err(permanent("lost")) } else { echo(dispatch) }
}

#[test]
fn finished_stages_are_undone_in_reverse_order_each_with_its_own_outputs() {
    for kill_one_in in [0, 2, 3, 5] {
        let mut definition = order();
        definition.stages[1].throttle = Some(Throttle { concurrency: Some(1), ..Throttle::default() });
        let mut world = World::new(definition, json!({ "list": ["a", "b", "c"], "by": "ada" }));
        world.kill_one_in = kill_one_in;
        assert_eq!(world.finish(&mut ship_fails), RunState::Failed);
        assert_eq!(world.error_code(), "lost");
        let of = |sku: &str| json!({ "sku": sku, "was": sku });
        assert_eq!(inputs(&world), [of("c"), of("b"), of("a"), json!({ "charge": null, "item": null, "by": "ada" })]);
        assert_eq!(world.run.header().stages[3].state, StageState::Completed);
    }
}

/// Four tasks of which two have ended well, one runs, and the last one fails or somebody cancels the run.
fn one_of_four_runs_on(call: Option<Call>, cancelled: bool) -> (World, Dispatch) {
    let mut reserve = undone_by(scatter("reserve", "input.list"), json!("${item}"));
    let calls = call.is_some();
    reserve.call = call.or(reserve.call);
    let mut world = World::new(pipeline(vec![reserve]), json!({ "list": [0, 1, 2, 3] }));
    world.settle();
    let all = world.running.clone();
    world.end(&all[2], Ok(json_bytes(&json!(1))));
    world.end(&all[0], Ok(json_bytes(&json!(1))));
    let fourth = match (cancelled, calls) {
        (false, _) => Err(permanent("none_left")),
        (true, false) => Err(passing("busy")),
        // A call is not tried again.
        (true, true) => Ok(json_bytes(&json!(1))),
    };
    world.end(&all[3], fourth);
    if cancelled {
        world.tell(RunInput::Cancel { by: "ada".to_owned() }).unwrap();
    }
    assert_eq!((world.state(), world.run.header().stages[0].state), (RunState::Running, StageState::Running));
    assert_eq!(world.running.iter().map(|dispatch| dispatch.item).collect::<Vec<_>>(), [1], "nothing is undone, and nothing tried again");
    (world, all[1].clone())
}

#[test]
fn what_runs_when_its_stage_fails_or_its_run_is_cancelled_ends_first_and_is_undone_with_the_finished_ones() {
    for cancelled in [false, true] {
        for (ends_well, killed) in [(true, false), (true, true), (false, false), (false, true)] {
            let (mut world, mut last) = one_of_four_runs_on(None, cancelled);
            if killed {
                // Nobody knows whether it has ended: it is asked again, under its key.
                world.kill();
                world.settle();
                let again = world.running.iter().find(|dispatch| dispatch.item == 1).cloned().unwrap();
                assert_eq!((&again.key, again.attempt), (&last.key, last.attempt));
                last = again;
            }
            let failure = if killed { permanent("declined") } else { passing("busy") };
            world.end(&last, if ends_well { Ok(json_bytes(&json!(1))) } else { Err(failure) });
            if killed && cancelled {
                // What waited for its next attempt may have started when the process died.
                world.later(2_000);
            }
            for other in world.running.clone().iter().filter(|dispatch| !is_undo(dispatch)) {
                assert!(killed && cancelled && other.item == 3);
                world.end(other, Err(permanent("declined")));
            }
            let stage = if cancelled { StageState::Cancelled } else { StageState::Failed };
            assert_eq!(world.run.header().stages[0].state, stage);
            world.finish(&mut echo);
            let undone = if ends_well { vec![json!(2), json!(1), json!(0)] } else { vec![json!(2), json!(0)] };
            assert_eq!((world.state(), inputs(&world)), (if cancelled { RunState::Cancelled } else { RunState::Failed }, undone));
            assert_eq!(world.run.header().error.as_ref().map(|error| error.code.as_str()), (!cancelled).then_some("none_left"));
            world.verify();
        }
    }
}

#[test]
fn whom_a_task_has_called_is_asked_to_end_and_its_answer_says_what_is_undone() {
    let call = Call::Actor { actor: "stock".to_owned(), key: "k${item}".to_owned(), handler: "reserve".to_owned() };
    for (cancelled, too_late) in [(false, false), (false, true), (true, false), (true, true)] {
        let (mut world, mut last) = one_of_four_runs_on(Some(call.clone()), cancelled);
        assert_eq!(world.told_to_end, std::slice::from_ref(&last));
        if too_late {
            world.kill();
            world.settle();
            last = world.running.iter().find(|dispatch| dispatch.item == 1).cloned().unwrap();
            assert_eq!(world.told_to_end.last(), Some(&last), "after it was called again");
        }
        // One that had ended when it was asked to is undone.
        world.end(&last, if too_late { Ok(json_bytes(&json!(1))) } else { Err(permanent("cancelled")) });
        world.finish(&mut echo);
        let done = [(3, cancelled), (2, true), (1, too_late), (0, true)];
        assert_eq!(inputs(&world), done.into_iter().filter(|(_, done)| *done).map(|(item, _)| json!(item)).collect::<Vec<_>>());
    }
}

#[test]
fn a_fallback_that_runs_when_its_run_is_cancelled_ends_first_and_is_undone() {
    for killed in [false, true] {
        let mut charge = undone_by(stage("charge", Mode::Single), json!({ "charge": "${output.got}" }));
        charge.on_failure = OnFailure::Call { call: Call::Activity("other_bank".to_owned()), input: Value::Null };
        let mut world = World::new(pipeline(vec![charge]), json!({}));
        world.settle();
        let first = world.running[0].clone();
        world.end(&first, Err(permanent("down")));
        world.tell(RunInput::Cancel { by: "ada".to_owned() }).unwrap();
        if killed {
            world.kill();
            world.settle();
        }
        assert_eq!(world.running.iter().map(is_undo).collect::<Vec<_>>(), [false]);
        assert_eq!(world.finish(&mut echo), RunState::Cancelled);
        assert_eq!((inputs(&world).len(), world.run.header().stages[0].state), (1, StageState::Completed));
    }
}

#[test]
fn nobody_waits_for_what_cannot_be_undone_nor_for_what_was_never_begun() {
    let mut world = World::new(pipeline(vec![stage("plan", Mode::Single)]), json!({}));
    world.settle();
    world.tell(RunInput::Cancel { by: "ada".to_owned() }).unwrap();
    assert_eq!(world.state(), RunState::Cancelled);
    for killed in [false, true] {
        let (mut world, _) = blocked_by(&order(), killed);
        world.tell(RunInput::Cancel { by: "ada".to_owned() }).unwrap();
        assert_eq!((world.state(), world.started.len()), (RunState::Cancelled, 1));
    }
}

/// A run whose first task nothing here can run; nor after a kill.
fn blocked_by(definition: &Definition, killed: bool) -> (World, Dispatch) {
    let mut world = World::new(definition.clone(), json!({ "list": ["a"] }));
    world.settle();
    let first = world.running.remove(0);
    world.tell(none_here(&first)).unwrap();
    assert_eq!(world.state(), RunState::Blocked);
    if killed {
        world.kill();
        world.settle();
    }
    (world, first)
}

fn none_here(dispatch: &Dispatch) -> RunInput {
    RunInput::NoExecutor { stage: dispatch.stage, item: dispatch.item, attempt: dispatch.attempt, reason: "no such activity".to_owned() }
}

#[test]
fn what_may_have_been_done_before_a_kill_is_asked_until_somebody_knows_whoever_is_away_meanwhile() {
    let charge = || pipeline(vec![undone_by(stage("charge", Mode::Single), json!({ "charge": "${output.got}" }))]);
    let begun = |pauses: bool| {
        let mut world = World::new(charge(), json!({}));
        world.settle();
        let first = world.running[0].clone();
        if pauses {
            world.tell(RunInput::Pause { by: "ada".to_owned() }).unwrap();
        } else {
            world.tell(RunInput::Cancel { by: "ada".to_owned() }).unwrap();
        }
        world.kill();
        world.settle();
        if pauses {
            world.settle();
            world.tell(RunInput::Cancel { by: "ada".to_owned() }).unwrap();
        }
        assert_eq!(world.running.iter().map(|dispatch| &dispatch.key).collect::<Vec<_>>(), [&first.key], "pauses: {pauses}");
        world
    };
    for pauses in [false, true] {
        // The bank is away for a while: that says nothing of what it has done before.
        let mut world = begun(pauses);
        let mut away = 3;
        let state = world.finish(&mut |dispatch| {
            away -= i32::from(!is_undo(dispatch));
            if !is_undo(dispatch) && away > 0 { Err(passing("unavailable")) } else { echo(dispatch) }
        });
        assert_eq!((state, inputs(&world).len()), (RunState::Cancelled, 1));
        // Nothing here knows the activity: the run is blocked, and goes on when something does.
        let mut world = begun(pauses);
        let first = world.running.remove(0);
        world.tell(none_here(&first)).unwrap();
        assert_eq!(world.state(), RunState::Blocked);
        world.kill();
        world.settle();
        world.tell(RunInput::Unblock).unwrap();
        assert_eq!((world.finish(&mut echo), inputs(&world).len()), (RunState::Cancelled, 1));
    }
}

#[test]
fn what_stood_in_line_for_a_shared_limit_is_not_begun_by_the_cancel_of_a_run_that_was_reopened() {
    let mut reserve = undone_by(scatter("reserve", "input.list"), json!("${item}"));
    reserve.throttle = Some(Throttle { concurrency: Some(2), key: Some("'all'".to_owned()), ..Throttle::default() });
    let list: Vec<u32> = (0..500).collect();
    let mut world = World::new(pipeline(vec![reserve]), json!({ "list": list }));
    world.settle();
    let admit = |world: &mut World, many: usize| {
        for _ in 0..many {
            let asked = world.borrows.iter().find_map(|command| match command {
                Command::Borrow { stage, item, number, .. } => Some((*stage, *item, *number)),
                _ => None,
            });
            let Some((stage, item, number)) = asked else { return };
            world.borrows.retain(|command| !matches!(command, Command::Borrow { item: of, .. } if *of == item));
            world.tell(RunInput::Admitted { stage, item, number }).unwrap();
        }
    };
    admit(&mut world, 2);
    let first: Vec<u32> = world.running.iter().map(|dispatch| dispatch.item).collect();
    assert_eq!(first.len(), 2);
    world.borrows.clear();
    world.kill();
    world.settle();
    world.borrows.clear();
    world.tell(RunInput::Cancel { by: "ada".to_owned() }).unwrap();
    for _ in 0..20 {
        admit(&mut world, 10);
        for dispatch in world.running.clone() {
            world.end(&dispatch, echo(&dispatch));
        }
    }
    assert_eq!((world.state(), inputs(&world)), (RunState::Cancelled, vec![json!(1), json!(0)]));
    assert!(world.started.iter().filter(|dispatch| !is_undo(dispatch)).all(|dispatch| first.contains(&dispatch.item)));
}

#[test]
fn a_downtime_longer_than_the_time_of_all_attempts_does_not_cut_off_what_may_have_been_done() {
    let mut charge = undone_by(stage("charge", Mode::Single), json!({ "charge": "${output.got}" }));
    charge.timeout = Some(Timeout { attempt: Some(seconds(20)), total: Some(seconds(60)) });
    let mut world = World::new(pipeline(vec![charge, stage("ship", Mode::Single)]), json!({}));
    world.settle();
    world.kill();
    world.later(120_000);
    assert_eq!(world.running[0].timeout_ms, Some(20_000));
    let state = world.finish(&mut |dispatch| if dispatch.stage == 1 { Err(permanent("lost")) } else { echo(dispatch) });
    assert_eq!((state, world.error_code().as_str(), inputs(&world).len()), (RunState::Failed, "lost", 1));
}

#[test]
fn a_cancelled_run_is_undone_and_ends_as_cancelled() {
    let mut definition = order();
    definition.stages[2] = Stage { depends_on: vec!["reserve".to_owned()], ..stage("ship", Mode::Sleep(SleepTime::For(seconds(60)))) };
    let mut world = World::new(definition, json!({ "list": ["a"] }));
    world.kill_one_in = 4;
    world.settle();
    while world.state() != RunState::Waiting {
        match world.running.first().cloned() {
            Some(next) => world.end(&next, echo(&next)),
            None => world.settle(),
        }
    }
    world.tell(RunInput::Pause { by: "ada".to_owned() }).ok();
    while world.run.header().stages[2].state != StageState::Cancelled {
        world.tell(RunInput::Cancel { by: "ada".to_owned() }).unwrap();
    }
    // Saying it twice changes nothing.
    world.tell(RunInput::Cancel { by: "ada".to_owned() }).unwrap();
    assert_eq!(world.finish(&mut echo), RunState::Cancelled);
    assert_eq!(inputs(&world).len(), 2);
    assert!(world.run.header().error.is_none());
}

#[test]
fn a_run_whose_time_is_up_is_undone_without_a_new_deadline() {
    let mut definition = order();
    definition.timeout = Some(seconds(30));
    definition.stages[2] = Stage { depends_on: vec!["reserve".to_owned()], ..stage("ship", Mode::Sleep(SleepTime::For(seconds(60)))) };
    let mut world = World::new(definition, json!({ "list": ["a"] }));
    let mut tries = 0;
    let mut work = |dispatch: &Dispatch| {
        tries += u32::from(is_undo(dispatch));
        if is_undo(dispatch) && tries < 3 { Err(passing("busy")) } else { echo(dispatch) }
    };
    assert_eq!(world.finish(&mut work), RunState::Failed);
    assert_eq!((world.error_code().as_str(), inputs(&world).len(), tries), ("deadline", 2, 4));
}

#[test]
fn what_cannot_be_undone_is_retried_then_told_and_the_rest_is_undone_all_the_same() {
    let mut world = World::new(order(), json!({ "list": ["a", "b"], "by": "ada" }));
    world.kill_one_in = 6;
    world.finish(&mut |dispatch| match serde_json::from_slice::<Value>(&dispatch.input) {
        Ok(input) if is_undo(dispatch) && input["sku"] == "a" => Err(passing("down")),
        _ => ship_fails(dispatch),
    });
    assert_eq!((world.state(), inputs(&world).len()), (RunState::Failed, 3));
    let text = world.error_text();
    assert!(text.contains("1 of what it did could not be undone") && text.contains("stage `reserve`, item 0") && text.contains("3 attempts failed"), "{text}");
    let status = world.run.status();
    let undo = status.stages.iter().find(|stage| stage.name == "reserve.compensate").unwrap();
    assert_eq!((undo.total, undo.failed), (2, 1));
    // What stands cannot be told from what was undone: it is not done again.
    for retry in [RunInput::RetryFailed, RunInput::Retry(RunRetry { from: Some("ship".to_owned()), tasks: Again::All })] {
        assert_eq!(world.tell(retry).unwrap_err(), RunRefused::NotUndone { failed: 1 });
    }
    assert!(status.error.unwrap().message.starts_with("stage `ship`"));
}

#[test]
fn a_failed_run_that_undoes_takes_no_cancel_and_says_how_far_it_is() {
    let mut world = World::new(order(), json!({ "list": ["a"] }));
    world.settle();
    while world.running.iter().all(|dispatch| !is_undo(dispatch)) {
        let next = world.running[0].clone();
        world.end(&next, ship_fails(&next));
    }
    let refused = world.tell(RunInput::Cancel { by: "ada".to_owned() }).unwrap_err();
    assert_eq!(refused, RunRefused::Compensating { done: 0, all: 2 });
    // It can be paused.
    world.tell(RunInput::Pause { by: "ada".to_owned() }).unwrap();
    let next = world.running[0].clone();
    world.end(&next, echo(&next));
    assert!(world.running.is_empty() && world.state() == RunState::Paused);
    world.tell(RunInput::Resume).unwrap();
    assert_eq!(world.finish(&mut echo), RunState::Failed);
}

#[test]
fn a_run_with_nothing_finished_ends_at_once() {
    let mut world = World::new(order(), json!({ "list": ["a"] }));
    world.finish(&mut |_| Err(permanent("bad")));
    assert_eq!((world.state(), inputs(&world).len()), (RunState::Failed, 0));
}

#[test]
fn a_cancelled_paused_run_that_was_reopened_asks_for_the_end_of_the_calls_that_it_made_before() {
    let mut call = stage("call", Mode::Scatter { over: "input.list".to_owned(), item_as: None, keep: None });
    call.call = Some(Call::Actor { actor: "stock".to_owned(), key: "k${item}".to_owned(), handler: "reserve".to_owned() });
    let mut world = World::new(graph(vec![call, stage("work", Mode::Single)]), json!({ "list": [1, 2, 3] }));
    world.settle();
    let second = world.running.iter().find(|dispatch| dispatch.stage == 0 && dispatch.item == 1).unwrap().clone();
    world.end(&second, echo(&second));
    world.tell(RunInput::Pause { by: "ada".to_owned() }).unwrap();
    world.kill();
    world.settle();
    assert!(world.running.is_empty());
    world.tell(RunInput::Cancel { by: "ada".to_owned() }).unwrap();
    let stock = |n: u32| Work::Actor {
        target: ActorId { tenant: "default".to_owned(), kind: "stock".to_owned(), key: format!("k{n}") },
        handler: "reserve".to_owned(),
    };
    assert_eq!((world.state(), world.cancelled.clone()), (RunState::Cancelled, vec![(0, 0, 1, stock(1)), (0, 2, 1, stock(3))]));
}

#[test]
fn no_task_begins_once_its_run_is_to_undo_what_it_did() {
    let mut reserve = undone_by(scatter("reserve", "input.list"), json!("${item}"));
    reserve.throttle = Some(Throttle { concurrency: Some(2), ..Throttle::default() });
    let mut world = World::new(pipeline(vec![reserve.clone()]), json!({ "list": [0, 1, 2, 3] }));
    world.settle();
    world.tell(RunInput::Cancel { by: "ada".to_owned() }).unwrap();
    let first = world.running[0].clone();
    world.end(&first, echo(&first));
    assert_eq!(world.running.iter().map(|dispatch| dispatch.item).collect::<Vec<_>>(), [1], "a place is free, and nobody takes it");
    assert_eq!((world.finish(&mut echo), inputs(&world)), (RunState::Cancelled, vec![json!(1), json!(0)]));
    // Nor one that has a permit already, in the turn in which one before it fails.
    reserve.throttle = Some(Throttle { concurrency: Some(9), key: Some("'all'".to_owned()), ..Throttle::default() });
    reserve.input = json!("to ${item.shops[0]}");
    let shop = json!({ "shops": ["a"] });
    let mut world = World::new(pipeline(vec![reserve]), json!({ "list": [shop, { "shops": [] }, shop, shop] }));
    world.settle();
    for command in std::mem::take(&mut world.borrows) {
        let Command::Borrow { stage, item, number, .. } = command else { continue };
        let effects = world.run.apply(RunInput::Admitted { stage, item, number }, world.now).unwrap();
        assert_eq!(effects.ops(), 0);
    }
    world.settle();
    assert_eq!(world.started.iter().map(|dispatch| dispatch.item).collect::<Vec<_>>(), [0]);
}

#[test]
fn a_fallback_that_fails_while_its_run_is_cancelled_has_failed() {
    let mut charge = undone_by(stage("charge", Mode::Single), json!({ "charge": "${output.got}" }));
    charge.on_failure = OnFailure::Call { call: Call::Activity("other_bank".to_owned()), input: Value::Null };
    let mut world = World::new(pipeline(vec![charge]), json!({}));
    world.settle();
    let first = world.running[0].clone();
    world.end(&first, Err(permanent("down")));
    world.tell(RunInput::Cancel { by: "ada".to_owned() }).unwrap();
    let second = world.running[0].clone();
    world.end(&second, Err(permanent("down_too")));
    assert_eq!((world.finish(&mut echo), inputs(&world).len()), (RunState::Cancelled, 0));
    assert_eq!(world.run.header().stages[0].state, StageState::Failed);
}

/// Whatever fails and whenever somebody cancels: of every started task of a stage that can be undone the end is known, every
/// finished one is undone once or told, nothing else is, and a stage is undone whole before one that finished earlier.
fn check(world: &World, definition: &Definition) {
    let mut undo = definition.stages.len();
    for (index, stage) in definition.stages.iter().enumerate() {
        if stage.compensate.is_none() {
            continue;
        }
        let total = world.run.header().stages[undo].total;
        for begun in world.started.iter().filter(|dispatch| usize::from(dispatch.stage) == index) {
            let ended = world.task(index, begun.item).is_some_and(|row| row.attempts > 0);
            assert!(ended, "item {} of {} was started, and nobody knows how it ended", begun.item, stage.name);
        }
        let finished: Vec<u32> = (0..100).filter(|item| matches!(world.task(index, *item).map(|row| row.end), Some(TaskEnd::Completed { .. }))).collect();
        let undone: Vec<u32> = (0..100).filter(|item| world.task(undo, *item).is_some()).map(|item| total - 1 - item).collect();
        let undone: Vec<u32> = undone.into_iter().rev().collect();
        assert_eq!(undone, finished, "of {}", stage.name);
        undo += 1;
    }
    let undone: Vec<u16> = world.started.iter().filter(|dispatch| is_undo(dispatch)).map(|dispatch| dispatch.stage).collect();
    let mut blocks = undone.clone();
    blocks.dedup();
    let mut distinct = blocks.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(blocks.len(), distinct.len(), "one after the other: {undone:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn every_finished_task_is_undone_exactly_once_whatever_fails_and_whenever_it_is_killed(
        shape in prop::collection::vec((any::<bool>(), any::<bool>(), any::<u8>()), 1..7), list in 0u32..6,
        bad in prop::collection::btree_set((0u16..7, 0u32..6), 0..4), cancel_after in 0u64..40, seed in any::<u64>(), kill_one_in in 0u64..12
    ) {
        let stages: Vec<Stage> = shape.iter().enumerate().map(|(index, (wide, undo, bits))| {
            let name = format!("s{index}");
            let mut one = if *wide { scatter(&name, "input.list") } else { stage(&name, Mode::Single) };
            if index > 0 && bits % 3 > 0 {
                one.depends_on = vec![format!("s{}", usize::from(*bits) % index)];
            }
            if bits % 2 == 0 {
                // A time that is never up: its tasks have a row from their start on.
                one.timeout = Some(Timeout { attempt: None, total: Some(seconds(86_400)) });
            }
            if bits % 5 == 0 {
                one.on_failure = OnFailure::Continue { max_failed: None };
            }
            if *undo { undone_by(one, Value::Null) } else { one }
        }).collect();
        let definition = graph(stages);
        let mut world = World::new(definition.clone(), json!({ "list": (0..list).collect::<Vec<_>>() }));
        world.dice.0 = seed | 1;
        world.kill_one_in = if kill_one_in < 2 { 0 } else { kill_one_in };
        world.settle();
        let mut turns = 0;
        while !world.state().ended() {
            turns += 1;
            if turns == cancel_after {
                drop(world.tell(RunInput::Cancel { by: "ada".to_owned() }));
            } else if world.running.is_empty() {
                world.pass();
            } else {
                let which = world.dice.roll(world.running.len() as u64) as usize;
                let dispatch = world.running[which].clone();
                let fails = bad.contains(&(dispatch.stage, dispatch.item)) && !is_undo(&dispatch);
                let busy = is_undo(&dispatch) && world.dice.roll(4) == 0;
                let result = if fails { Err(permanent("bad")) } else if busy { Err(passing("busy")) } else { echo(&dispatch) };
                world.end(&dispatch, result);
            }
        }
        world.verify();
        if world.state() == RunState::Completed {
            prop_assert!(world.started.iter().all(|dispatch| !is_undo(dispatch)));
        } else {
            check(&world, &definition);
        }
        prop_assert!(crate::machine::RUN.next(world.state(), RunEvent::Cancel).is_err());
    }
}

#[test]
fn a_stage_that_failed_before_anything_was_done_has_nothing_to_undo_and_the_run_ends() {
    let mut world = World::new(pipeline(vec![undone_by(stage("charge", Mode::Single), json!({})), stage("ship", Mode::Single)]), json!({}));
    world.settle();
    let charge = world.running[0].clone();
    world.end(&charge, Err(permanent("declined")));
    assert_eq!((world.state(), world.error_code().as_str(), inputs(&world).len()), (RunState::Failed, "declined", 0));
}

#[test]
fn a_task_that_fails_before_its_first_attempt_moves_its_stage_and_the_undoing_on() {
    let mut broken = stage("ship", Mode::Single);
    broken.input = json!("to ${input.nobody[9]}");
    for on_failure in [OnFailure::Fail, OnFailure::Continue { max_failed: None }] {
        broken.on_failure = on_failure.clone();
        let mut world = World::new(pipeline(vec![undone_by(stage("charge", Mode::Single), json!({})), broken.clone()]), json!({ "nobody": [] }));
        world.settle();
        for _ in 0..2 {
            if let Some(next) = world.running.first().cloned() {
                world.end(&next, echo(&next));
            }
        }
        let (ended, undone) = if matches!(on_failure, OnFailure::Fail) { (RunState::Failed, 1) } else { (RunState::Completed, 0) };
        assert_eq!((world.state(), inputs(&world).len()), (ended, undone));
    }
}

#[test]
fn what_was_undone_is_done_again_by_a_retry_under_other_keys_and_undone_again_if_it_fails_again() {
    let inputs_of_retry = [
        RunInput::RetryFailed,
        RunInput::Retry(RunRetry { from: Some("ship".to_owned()), tasks: Again::All }),
        RunInput::Retry(RunRetry { from: Some("reserve".to_owned()), tasks: Again::Failed }),
    ];
    for (retry, kill_one_in) in inputs_of_retry.into_iter().flat_map(|retry| [0, 3, 5].map(|kills| (retry.clone(), kills))) {
        let mut definition = order();
        let plan = Stage { depends_on: Vec::new(), ..stage("plan", Mode::Single) };
        definition.stages.insert(0, plan);
        definition.stages[1].depends_on = vec!["plan".to_owned()];
        let mut world = World::new(definition, json!({ "list": ["a", "b"], "by": "ada" }));
        world.kill_one_in = kill_one_in;
        let mut work = |dispatch: &Dispatch| if dispatch.stage == 3 { Err(permanent("lost")) } else { echo(dispatch) };
        let mut done = Vec::new();
        for round in 0..3 {
            world.started.clear();
            if round > 0 {
                while world.state() == RunState::Failed {
                    world.tell(retry.clone()).unwrap();
                }
            }
            assert_eq!(world.finish(&mut work), RunState::Failed);
            let of = |sku: &str| json!({ "sku": sku, "was": sku });
            assert_eq!(inputs(&world), [of("b"), of("a"), json!({ "charge": null, "item": null, "by": "ada" })], "round {round}");
            // What cannot be undone and ended well stays.
            assert_eq!(world.starts_of("plan").is_empty(), round > 0);
            let mut keys: Vec<_> = world.started.iter().filter(|dispatch| dispatch.stage != 0).map(|dispatch| dispatch.key.clone()).collect();
            keys.sort();
            keys.dedup();
            assert!(keys.len() >= 6 && keys.iter().all(|key| !done.contains(key)), "round {round}");
            done.extend(keys);
        }
        while world.state() == RunState::Failed {
            world.tell(retry.clone()).unwrap();
        }
        assert_eq!(world.finish(&mut echo), RunState::Completed);
        world.verify();
    }
}

#[test]
fn what_was_undone_before_a_retry_is_not_undone_again_for_a_task_that_did_not_finish_since() {
    let mut world = World::new(pipeline(vec![undone_by(scatter("reserve", "input.list"), json!("${item}"))]), json!({ "list": [0, 1, 2] }));
    for finished in [vec![0, 1], vec![0]] {
        world.settle();
        world.started.clear();
        let all = world.running.clone();
        for item in [0, 1] {
            world.end(&all[item], if finished.contains(&item) { echo(&all[item]) } else { Err(permanent("none_left")) });
        }
        world.end(&all[2], Err(permanent("none_left")));
        assert_eq!(world.finish(&mut echo), RunState::Failed);
        assert_eq!(inputs(&world), finished.iter().rev().map(|item| json!(item)).collect::<Vec<_>>());
        world.tell(RunInput::RetryFailed).unwrap();
    }
}

/// A run that waits is looked at again when its timer fires: one that has something to undo has none.
#[test]
fn a_run_that_is_to_undo_what_it_did_does_not_wait_from_the_commit_on_that_decides_it() {
    for by_output in [false, true] {
        let charge = undone_by(stage("charge", Mode::Single), json!({ "charge": "${output.got}" }));
        let mut definition = pipeline(vec![charge, stage("nap", Mode::Sleep(SleepTime::For(seconds(60))))]);
        if by_output {
            definition.output = json!("no ${stages.charge.output.nothing}");
        } else {
            definition.timeout = Some(seconds(60));
        }
        let mut world = World::new(definition, json!({}));
        world.settle();
        let charged = world.running[0].clone();
        world.end(&charged, echo(&charged));
        world.settle();
        assert_eq!(world.state(), RunState::Waiting);
        world.now = world.now.after(Duration::from_secs(60));
        while world.run.header().error.is_none() {
            let effects = world.run.advance(world.now, Room::WHOLE);
            let more = effects.more;
            world.commit(effects);
            assert!(more || world.run.header().error.is_none(), "nothing else gives it a turn");
        }
        assert_eq!((world.state(), world.timer), (RunState::Running, None));
        world.kill();
        assert_eq!(world.finish(&mut echo), RunState::Failed);
        assert_eq!(inputs(&world).len(), 1);
    }
}
