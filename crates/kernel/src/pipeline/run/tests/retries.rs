//! Runs that are taken up again: what goes on, what starts over.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::world::{World, echo, graph, json_bytes, permanent, pipeline, scatter, stage};
use crate::machine::RunState;
use crate::pipeline::definition::{Combine, Definition, Mode, OnFailure, Quorum, Rest, Stage};
use crate::pipeline::run::{Again, Dispatch, Retry, RunInput, RunRefused};

fn from(stage: &str, tasks: Again) -> RunInput {
    RunInput::Retry(Retry { from: Some(stage.to_owned()), tasks })
}

/// each → sum → last, which fails the first time.
fn three() -> Definition {
    let lenient = Stage { on_failure: OnFailure::Continue { max_failed: None }, ..scatter("each", "input.list") };
    let mut sum = stage("sum", Mode::Single);
    sum.input = json!("${stages.each.output}");
    let mut last = stage("last", Mode::Single);
    last.input = json!("${stages.sum.output.got}");
    let mut definition = pipeline(vec![lenient, sum, last]);
    definition.output = json!("${stages.last.output.got}");
    definition
}

/// Fails the last stage, and item 1 of the first.
fn failed(kill_one_in: u64) -> World {
    let mut world = World::new(three(), json!({ "list": [1, 2, 3] }));
    world.kill_one_in = kill_one_in;
    world.finish(&mut |dispatch| if (dispatch.stage, dispatch.item) == (0, 1) || dispatch.stage == 2 { Err(permanent("bad")) } else { answer(0)(dispatch) });
    assert_eq!(world.state(), RunState::Failed);
    world.started.clear();
    world
}

/// What a task gives in a round.
fn answer(round: u64) -> impl FnMut(&Dispatch) -> Result<bytes::Bytes, crate::error::AttemptError> {
    move |dispatch| match dispatch.stage {
        0 => Ok(json_bytes(&json!([round, dispatch.item]))),
        _ => echo(dispatch),
    }
}

fn again(world: &mut World, input: RunInput) -> Value {
    // A kill before its commit loses the word; it is sent again.
    while world.state() == RunState::Failed {
        world.tell(input.clone()).unwrap();
    }
    assert_eq!(world.finish(&mut answer(1)), RunState::Completed, "{}", world.error_text());
    world.output()
}

#[test]
fn a_retry_goes_on_where_the_run_failed() {
    for kill_one_in in [0, 3] {
        let mut world = failed(kill_one_in);
        assert_eq!(again(&mut world, RunInput::RetryFailed), json!([[0, 0], null, [0, 2]]));
        assert!(world.starts_of("each").is_empty() && world.starts_of("sum").is_empty());
    }
}

#[test]
fn a_retry_from_a_stage_starts_it_over_with_all_that_depends_on_it() {
    for kill_one_in in [0, 3] {
        let mut world = failed(kill_one_in);
        let key_before = world.run.header().stages[0].round;
        assert_eq!(again(&mut world, from("each", Again::All)), json!([[1, 0], [1, 1], [1, 2]]));
        let items: std::collections::BTreeSet<u32> = world.starts_of("each").into_iter().map(|(item, _)| item).collect();
        assert_eq!(items.len(), 3);
        assert!(!world.starts_of("sum").is_empty() && world.run.header().stages[0].round > key_before);
    }
    let mut world = failed(0);
    assert_eq!(again(&mut world, from("sum", Again::All)), json!([[0, 0], null, [0, 2]]));
    assert!(world.starts_of("each").is_empty() && world.starts_of("sum") == [(0, 1)]);
}

#[test]
fn only_failed_tasks_run_again_where_that_is_said_and_what_depends_on_them_starts_over() {
    for input in [from("each", Again::Failed), RunInput::Retry(Retry { from: None, tasks: Again::Failed })] {
        for kill_one_in in [0, 3] {
            let mut world = failed(kill_one_in);
            assert_eq!(again(&mut world, input.clone()), json!([[0, 0], [1, 1], [0, 2]]));
            assert!(world.starts_of("each").iter().all(|(item, _)| *item == 1) && !world.starts_of("sum").is_empty());
        }
    }
}

#[test]
fn what_is_started_over_has_another_idempotency_key_and_what_goes_on_has_the_same() {
    let mut world = World::new(pipeline(vec![stage("one", Mode::Single), stage("two", Mode::Single)]), Value::Null);
    world.finish(&mut |dispatch| if dispatch.stage == 1 { Err(permanent("bad")) } else { echo(dispatch) });
    let keys = |world: &World| world.started.iter().map(|dispatch| dispatch.key.clone()).collect::<Vec<_>>();
    let before = keys(&world);
    world.started.clear();
    world.tell(from("one", Again::All)).unwrap();
    world.finish(&mut |dispatch| if dispatch.stage == 1 { Err(permanent("bad")) } else { echo(dispatch) });
    let over = keys(&world);
    assert!(before.iter().all(|key| !over.contains(key)), "{before:?} {over:?}");
    world.started.clear();
    world.tell(RunInput::RetryFailed).unwrap();
    world.finish(&mut echo);
    assert_eq!(keys(&world), over[1..]);
}

#[test]
fn an_unknown_stage_is_refused_with_those_there_are() {
    let mut world = failed(0);
    let refused = world.tell(from("eech", Again::All)).unwrap_err();
    assert!(matches!(&refused, RunRefused::NoStage { .. }) && refused.to_string().contains("each, sum, last"), "{refused}");
    assert_eq!(world.state(), RunState::Failed);
}

#[test]
fn groups_of_what_was_started_over_are_those_of_its_new_outputs() {
    let stages = vec!["each".to_owned()];
    let mode = Mode::Gather { stages, keep: None, group_by: Some("item.k".to_owned()), combine: Combine::Object, wait: Quorum::All, rest: Rest::Cancel };
    let mut definition =
        graph(vec![scatter("each", "input.list"), stage("groups", mode), Stage { depends_on: vec!["groups".to_owned()], ..stage("last", Mode::Single) }]);
    definition.output = json!("${stages.groups.output}");
    for kill_one_in in [0, 3] {
        let mut world = World::new(definition.clone(), json!({ "list": [0, 1, 2] }));
        world.kill_one_in = kill_one_in;
        let give = |round: u32| {
            move |dispatch: &Dispatch| match dispatch.stage {
                0 => Ok(json_bytes(&json!({ "k": format!("{}", (dispatch.item + round) % 2), "n": dispatch.item }))),
                _ if round == 0 => Err(permanent("bad")),
                _ => echo(dispatch),
            }
        };
        world.finish(&mut give(0));
        while world.state() == RunState::Failed {
            world.tell(from("each", Again::All)).unwrap();
        }
        world.finish(&mut give(1));
        let of = |k: &str, n: u32| json!({ "k": k, "n": n });
        assert_eq!(world.output(), json!({ "0": [of("0", 1)], "1": [of("1", 0), of("1", 2)] }));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn a_run_started_over_with_a_shorter_list_reads_nothing_of_the_longer_one(long in 0u32..300, short in 0u32..300, kill_one_in in 2u64..20, seed in any::<u64>()) {
        let lenient = |name: &str, over: &str| Stage { on_failure: OnFailure::Continue { max_failed: None }, ..scatter(name, over) };
        let first = stage("first", Mode::Single);
        let mut definition = pipeline(vec![first, lenient("each", "stages.first.output"), stage("last", Mode::Single)]);
        definition.output = json!({ "out": "${stages.each.output}", "failed": "${stages.each.failures[].index}" });
        let mut world = World::new(definition, Value::Null);
        world.dice.0 = seed | 1;
        world.kill_one_in = kill_one_in;
        let give = |count: u32, round: u32| move |dispatch: &Dispatch| match dispatch.stage {
            0 => Ok(json_bytes(&json!((0..count).collect::<Vec<_>>()))),
            1 if dispatch.item % 7 == round => Err(permanent("bad")),
            1 => Ok(json_bytes(&json!([round, dispatch.item]))),
            _ if round == 0 => Err(permanent("bad")),
            _ => echo(dispatch),
        };
        world.finish(&mut give(long, 0));
        while world.state() == RunState::Failed {
            world.tell(from("first", Again::All)).unwrap();
        }
        prop_assert_eq!(world.finish(&mut give(short, 1)), RunState::Completed);
        let out: Vec<Value> = (0..short).map(|item| if item % 7 == 1 { Value::Null } else { json!([1, item]) }).collect();
        let failed: Vec<u32> = (0..short).filter(|item| item % 7 == 1).collect();
        prop_assert_eq!(world.output(), json!({ "out": out, "failed": failed }));
    }
}
