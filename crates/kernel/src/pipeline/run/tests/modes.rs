//! Failure case 20 for `broadcast`, `fork_join`, `map_reduce` and gathers that wait for a part: each option has a test
//! that fails when the option is ignored.

use serde_json::{Value, json};

use super::world::{World, echo, graph, json_bytes, permanent, pipeline, scatter, seconds, stage};
use crate::machine::{RunState, StageState};
use crate::pipeline::definition::{Branch, Call, Combine, Definition, Mode, OnFailure, Quorum, Rest, SleepTime, Stage, Task};
use crate::pipeline::run::{Dispatch, RunInput};

fn branch(name: &str, input: Value) -> Branch {
    Branch { item: json!(name), call: Call::Activity(name.to_owned()), input }
}

fn fork(name: &str, by_name: bool, first: bool, rest: Rest) -> Stage {
    let branches = vec![branch("mail", json!({ "to": "mail", "n": "${input.n}" })), branch("slack", json!({ "to": "slack" })), branch("sms", Value::Null)];
    stage(name, Mode::Fork { branches, by_name, first, rest })
}

fn name_of(dispatch: &Dispatch) -> String {
    match &dispatch.work {
        crate::pipeline::run::Work::Activity { name } => name.clone(),
        other => panic!("{other:?}"),
    }
}

fn gather(stages: &[&str], wait: Quorum, rest: Rest) -> Stage {
    let stages = stages.iter().map(|stage| (*stage).to_owned()).collect();
    stage("all", Mode::Gather { stages, keep: None, group_by: None, combine: Combine::Object, wait, rest })
}

fn with_output(mut definition: Definition, output: Value) -> Definition {
    definition.output = output;
    definition
}

#[test]
fn case_20_branches_run_what_each_calls_and_give_an_object_by_name_or_a_list() {
    for by_name in [true, false] {
        let definition = with_output(pipeline(vec![fork("checks", by_name, false, Rest::Cancel)]), json!("${stages.checks.output}"));
        let mut world = World::new(definition, json!({ "n": 4 }));
        world.kill_one_in = 4;
        let work = |dispatch: &Dispatch| Ok(json_bytes(&json!([name_of(dispatch), serde_json::from_slice::<Value>(&dispatch.input).unwrap()])));
        assert_eq!(world.finish(&mut { work }), RunState::Completed, "{}", world.error_text());
        let (mail, slack, sms) = (json!(["mail", { "to": "mail", "n": 4 }]), json!(["slack", { "to": "slack" }]), json!(["sms", null]));
        let expected = if by_name { json!({ "mail": mail, "slack": slack, "sms": sms }) } else { json!([mail, slack, sms]) };
        assert_eq!(world.output(), expected);
    }
}

#[test]
fn case_20_a_failed_branch_is_named_in_the_failures_and_null_in_its_place() {
    let mut checks = fork("checks", true, false, Rest::Cancel);
    checks.on_failure = OnFailure::Continue { max_failed: None };
    let definition = with_output(pipeline(vec![checks]), json!({ "out": "${stages.checks.output}", "failed": "${stages.checks.failures[].item}" }));
    let mut world = World::new(definition, json!({ "n": 1 }));
    world.finish(&mut |dispatch| if name_of(dispatch) == "slack" { Err(permanent("bad")) } else { Ok(json_bytes(&json!(1))) });
    assert_eq!(world.output(), json!({ "out": { "mail": 1, "slack": null, "sms": 1 }, "failed": ["slack"] }));
}

#[test]
fn case_20_the_first_output_is_the_stages_and_the_others_are_cancelled_or_run_to_their_end() {
    for rest in [Rest::Cancel, Rest::Run] {
        let mut after = stage("after", Mode::Single);
        after.input = json!("${stages.any.output}");
        let definition = with_output(pipeline(vec![fork("any", false, true, rest), after]), json!("${stages.after.output.got}"));
        let mut world = World::new(definition, json!({ "n": 1 }));
        world.settle();
        assert_eq!(world.running.len(), 3);
        let (failing, winner) = (world.running[0].clone(), world.running[1].clone());
        world.end(&failing, Err(permanent("bad")));
        assert_eq!(world.run.header().stages[0].state, StageState::Running, "one failure of several is none of the stage");
        world.end(&winner, Ok(json_bytes(&json!("won"))));
        assert_eq!(world.run.header().stages[0].state, StageState::Completed);
        let left = world.running.iter().filter(|dispatch| dispatch.stage == 0).count();
        assert_eq!(left, if rest == Rest::Run { 1 } else { 0 });
        // A second one comes too late, whoever let it run.
        world.tell(RunInput::TaskEnded { stage: 0, item: 2, attempt: 1, result: Ok(json_bytes(&json!("late"))) }).unwrap();
        world.kill();
        world.finish(&mut echo);
        assert_eq!(world.output(), json!("won"));
    }
}

#[test]
fn case_20_first_fails_when_the_last_target_has_failed() {
    let mut world = World::new(pipeline(vec![fork("any", false, true, Rest::Cancel)]), json!({ "n": 1 }));
    world.kill_one_in = 3;
    let mut failed = std::collections::BTreeSet::new();
    world.finish(&mut |dispatch| {
        failed.insert(dispatch.item);
        Err(permanent("bad"))
    });
    assert_eq!((world.state(), failed.len()), (RunState::Failed, 3));
    let mut lenient = fork("any", false, true, Rest::Cancel);
    lenient.on_failure = OnFailure::Continue { max_failed: None };
    let mut world = World::new(with_output(pipeline(vec![lenient]), json!(["${stages.any.output}", "${length(stages.any.failures)}"])), json!({ "n": 1 }));
    world.finish(&mut |_| Err(permanent("bad")));
    assert_eq!(world.output(), json!([null, 3]));
}

fn sums() -> Definition {
    let activity = |name: &str, input: Value| Task { call: Call::Activity(name.to_owned()), input };
    let map = activity("double", json!({ "x": "${n}", "at": "${index}" }));
    let mode = Mode::MapReduce { over: "input.list".to_owned(), item_as: Some("n".to_owned()), map, reduce: activity("sum", Value::Null) };
    let mut sums = stage("sums", mode);
    sums.output = json!({ "sum": "${result}" });
    with_output(pipeline(vec![sums]), json!("${stages.sums.output}"))
}

fn do_sums(dispatch: &Dispatch) -> Result<bytes::Bytes, crate::error::AttemptError> {
    let input: Value = serde_json::from_slice(&dispatch.input).unwrap();
    Ok(match name_of(dispatch).as_str() {
        "double" => {
            assert_eq!(input["at"], json!(dispatch.item));
            json_bytes(&json!(2 * input["x"].as_u64().unwrap()))
        }
        _ => {
            let items = input.as_array().unwrap();
            assert!(items.len() <= 100);
            json_bytes(&json!(items.iter().map(|n| n.as_u64().unwrap()).sum::<u64>()))
        }
    })
}

#[test]
fn case_20_map_reduce_reduces_in_a_tree_of_a_hundred_fixed_by_item_number() {
    for (count, tasks) in [(0u64, 0), (1, 2), (100, 101), (101, 104), (10_050, 10_050 + 101 + 2 + 1)] {
        let mut world = World::new(sums(), json!({ "list": (0..count).collect::<Vec<_>>() }));
        world.kill_one_in = if count > 1_000 { 40 } else { 5 };
        assert_eq!(world.finish(&mut do_sums), RunState::Completed, "{}", world.error_text());
        let expected = if count == 0 { Value::Null } else { json!({ "sum": count * count.saturating_sub(1) }) };
        assert_eq!(world.output(), expected);
        assert_eq!(world.run.header().stages[0].total, tasks);
        // Level 1 takes the first hundred together, whatever ended first.
        if count == 101 {
            let end = world.task(0, 101).unwrap().end;
            let crate::record::run::TaskEnd::Completed { output } = end else { panic!("{end:?}") };
            assert_eq!(world.stored(&output), json!((0..100u64).map(|n| 2 * n).sum::<u64>()));
        }
    }
}

#[test]
fn case_20_what_failed_to_be_mapped_is_left_out_and_a_retry_reduces_again() {
    let mut lenient = sums();
    lenient.stages[0].on_failure = OnFailure::Continue { max_failed: None };
    lenient.output = json!(["${stages.sums.output.sum}", "${stages.sums.failures[].item}"]);
    let mut world = World::new(lenient, json!({ "list": [1, 2, 3] }));
    world.finish(&mut |dispatch| if dispatch.item == 1 { Err(permanent("bad")) } else { do_sums(dispatch) });
    assert_eq!(world.output(), json!([8, [2]]));
    // The last level fails: its retry does not map again.
    let mut world = World::new(sums(), json!({ "list": [1, 2, 3] }));
    world.finish(&mut |dispatch| if dispatch.item == 3 { Err(permanent("bad")) } else { do_sums(dispatch) });
    assert_eq!(world.state(), RunState::Failed);
    world.started.clear();
    world.tell(RunInput::RetryFailed).unwrap();
    world.finish(&mut do_sums);
    assert_eq!((world.output(), world.starts_of("sums")), (json!({ "sum": 12 }), vec![(3, 2)]));
}

fn race(wait: Quorum, rest: Rest) -> World {
    let slow = Stage { depends_on: Vec::new(), ..stage("slow", Mode::Sleep(SleepTime::For(seconds(60)))) };
    let mut after = stage("after", Mode::Single);
    after.input = json!("${stages.all.output}");
    after.depends_on = vec!["all".to_owned()];
    let stages = vec![stage("one", Mode::Single), scatter("two", "input.list"), slow, gather(&["one", "two", "slow"], wait, rest), after];
    let mut world = World::new(with_output(graph(stages), json!("${stages.after.output.got}")), json!({ "list": [7] }));
    world.settle();
    world
}

#[test]
fn case_20_a_gather_goes_on_with_the_first_and_cancels_the_others() {
    let mut world = race(Quorum::Count(1), Rest::Cancel);
    let one = world.running.iter().find(|dispatch| dispatch.stage == 0).unwrap().clone();
    world.end(&one, Ok(json_bytes(&json!("first"))));
    let states: Vec<StageState> = world.run.header().stages.iter().map(|at| at.state).collect();
    assert_eq!(states[..4], [StageState::Completed, StageState::Cancelled, StageState::Cancelled, StageState::Completed]);
    assert!(world.running.iter().all(|dispatch| dispatch.stage == 4), "the attempts of the losers are aborted");
    world.kill();
    world.finish(&mut echo);
    assert_eq!(world.output(), json!({ "one": "first" }));
}

#[test]
fn case_20_a_gather_that_counts_waits_for_so_many() {
    let mut world = race(Quorum::Count(2), Rest::Cancel);
    world.kill_one_in = 3;
    while world.run.header().stages[2].state == StageState::Running {
        let Some(next) = world.running.first().cloned() else {
            world.settle();
            continue;
        };
        assert_ne!(world.run.header().stages[3].state, StageState::Completed);
        world.end(&next, Ok(json_bytes(&json!(next.stage))));
    }
    world.finish(&mut echo);
    assert_eq!(world.output(), json!({ "one": 0, "two": [1] }));
}

#[test]
fn case_20_the_rest_runs_to_its_end_and_nobody_reads_it_even_if_it_fails() {
    for fails in [false, true] {
        let mut world = race(Quorum::Count(1), Rest::Run);
        let one = world.running.iter().find(|dispatch| dispatch.stage == 0).unwrap().clone();
        world.end(&one, Ok(json_bytes(&json!("first"))));
        assert_eq!(world.run.header().stages[1].state, StageState::Running);
        let two = world.running.iter().find(|dispatch| dispatch.stage == 1).unwrap().clone();
        let result = if fails { Err(permanent("bad")) } else { Ok(json_bytes(&json!("late"))) };
        world.end(&two, result);
        world.kill();
        assert_eq!(world.finish(&mut echo), RunState::Completed, "{}", world.error_text());
        assert_eq!(world.output(), json!({ "one": "first" }));
        assert_eq!(world.run.header().stages[1].state, if fails { StageState::Failed } else { StageState::Completed });
        assert_eq!(world.run.header().stages[2].state, StageState::Completed);
    }
}

#[test]
fn case_20_a_gather_of_which_too_few_gave_an_output_fails() {
    let lenient = |name: &str| Stage { on_failure: OnFailure::Continue { max_failed: None }, ..stage(name, Mode::Single) };
    let stages = vec![lenient("one"), lenient("two"), gather(&["one", "two"], Quorum::Count(1), Rest::Cancel)];
    let mut world = World::new(graph(stages), Value::Null);
    world.kill_one_in = 3;
    world.finish(&mut |_| Err(permanent("bad")));
    assert_eq!(world.error_code(), "too_few", "{}", world.error_text());
}

#[test]
fn a_stage_that_may_be_cancelled_has_no_other_dependants() {
    let after = Stage { depends_on: vec!["one".to_owned()], ..stage("after", Mode::Single) };
    let stages = |rest| vec![stage("one", Mode::Single), stage("two", Mode::Single), gather(&["one", "two"], Quorum::Count(1), rest), after.clone()];
    let compile = |stages| crate::pipeline::compiled::Compiled::new(graph(stages), String::new());
    let error = compile(stages(Rest::Cancel)).unwrap_err().to_string();
    assert!(error.contains("`after` depends on `one`"), "{error}");
    assert!(compile(stages(Rest::Run)).is_ok());
    let three = vec![stage("one", Mode::Single), gather(&["one"], Quorum::Count(3), Rest::Cancel)];
    assert!(compile(three).unwrap_err().to_string().contains("gathers 1 stages"));
}
