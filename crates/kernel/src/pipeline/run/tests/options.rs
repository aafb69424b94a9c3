//! Failure case 20: every option of a stage has a test that fails when the option is ignored.

use bytes::Bytes;
use serde_json::{Value, json};
use std::time::Duration;

use super::world::{World, actor_of, echo, graph, json_bytes, passing, permanent, pipeline, scatter, seconds, stage};
use crate::error::AttemptError;
use crate::limit::Limits;
use crate::machine::{RunState, StageState};
use crate::pipeline::definition::{Call, Combine, MaxFailed, Mode, OnFailure, Quorum, Rest, Stage};
use crate::pipeline::run::{Dispatch, Work};
use crate::policy::{Backoff, Rate, Retry, Throttle, Timeout};

fn input_of(dispatch: &Dispatch) -> Value {
    serde_json::from_slice(&dispatch.input).unwrap()
}

fn gather(stages: &[&str], keep: Option<&str>, group_by: Option<&str>, combine: Combine) -> Stage {
    let stages = stages.iter().map(|stage| (*stage).to_owned()).collect();
    stage("all", Mode::Gather { stages, keep: keep.map(str::to_owned), group_by: group_by.map(str::to_owned), combine, wait: Quorum::All, rest: Rest::Cancel })
}

fn result_of(definition: crate::pipeline::definition::Definition, input: Value) -> Value {
    let mut world = World::new(definition, input);
    world.kill_one_in = 7;
    assert_eq!(world.finish(&mut echo), RunState::Completed, "{}", world.error_text());
    world.output()
}

#[test]
fn case_20_when_false_skips_and_dependants_run_on_null() {
    let mut first = stage("first", Mode::Single);
    first.when = Some("input.go".to_owned());
    let mut second = stage("second", Mode::Single);
    second.input = json!({ "first": "${stages.first}" });
    let mut definition = pipeline(vec![first, second]);
    definition.output = json!("${stages.second.output.got.first}");
    let skipped = json!({ "status": "skipped", "output": null, "failures": [], "attempts": 0 });
    assert_eq!(result_of(definition.clone(), json!({ "go": false })), skipped);
    assert_eq!(result_of(definition, json!({ "go": true }))["status"], json!("completed"));
}

#[test]
fn case_20_input_and_output_templates_are_applied() {
    let mut only = stage("only", Mode::Single);
    only.input = json!({ "name": "run of ${run.pipeline}", "n": "${input.n}" });
    only.output = json!({ "was": "${result.got.n}", "of": "${input.n}" });
    let mut definition = pipeline(vec![only]);
    definition.output = json!({ "x": "${stages.only.output}" });
    assert_eq!(result_of(definition, json!({ "n": 4 })), json!({ "x": { "was": 4, "of": 4 } }));
}

#[test]
fn case_20_scatter_gives_item_its_second_name_and_its_index() {
    let mut each = stage("each", Mode::Scatter { over: "input.list".to_owned(), item_as: Some("page".to_owned()), keep: None });
    each.input = json!({ "a": "${item}", "b": "${page}", "i": "${index}" });
    each.output = json!({ "r": "${result.got}", "p": "${page}" });
    let mut definition = pipeline(vec![each]);
    definition.output = json!("${stages.each.output}");
    let of = |x: &str, i: u32| json!({ "r": { "a": x, "b": x, "i": i }, "p": x });
    assert_eq!(result_of(definition, json!({ "list": ["x", "y"] })), json!([of("x", 0), of("y", 1)]));
}

#[test]
fn case_20_where_of_a_scatter_leaves_items_out_without_a_place() {
    let each = stage("each", Mode::Scatter { over: "input.list".to_owned(), item_as: None, keep: Some("item.ok".to_owned()) });
    let mut definition = pipeline(vec![each]);
    definition.output = json!("${stages.each.output[].got.n}");
    let list = json!([{ "n": 1, "ok": true }, { "n": 2, "ok": false }, { "n": 3 }, { "n": 4, "ok": true }]);
    assert_eq!(result_of(definition.clone(), json!({ "list": list })), json!([1, 4]));
    let mut world = World::new(definition, json!({ "list": [{ "ok": "yes" }] }));
    assert_eq!(world.finish(&mut echo), RunState::Failed);
    assert!(world.error_text().contains("`where`") && world.error_text().contains("item 0"), "{}", world.error_text());
}

#[test]
fn case_20_over_must_be_a_list_within_its_limit() {
    let mut world = World::new(pipeline(vec![scatter("each", "input.list")]), json!({ "list": "abc" }));
    assert_eq!(world.finish(&mut echo), RunState::Failed);
    assert!(world.error_text().contains("gives string where a list is needed"), "{}", world.error_text());
    let limits = Limits { scatter_items: 2, ..Limits::default() };
    let mut world = World::with_limits(pipeline(vec![scatter("each", "input.list")]), json!({ "list": [1, 2, 3] }), limits);
    assert_eq!(world.finish(&mut echo), RunState::Failed);
    assert!(world.error_text().contains("scatter_items = 2"));
}

#[test]
fn case_20_gather_combines_where_and_group_by_as_written() {
    let two = || vec![scatter("left", "input.left"), Stage { depends_on: Vec::new(), ..scatter("right", "input.right") }];
    let input = json!({ "left": [{ "k": "b", "n": 1 }, { "k": "a", "n": 2 }, { "k": "b", "n": 3 }], "right": [{ "k": "a", "n": 4 }, { "k": 10, "n": 5 }] });
    let run = |all: Stage| {
        let mut stages = two();
        stages.push(all);
        let mut definition = graph(stages);
        definition.output = json!("${stages.all.output}");
        result_of(definition, input.clone())
    };
    let item = |k: Value, n: u32| json!({ "got": { "k": k, "n": n } });
    let (b1, a2, b3, a4, ten) = (item(json!("b"), 1), item(json!("a"), 2), item(json!("b"), 3), item(json!("a"), 4), item(json!(10), 5));
    let both = &["left", "right"];
    assert_eq!(run(gather(both, None, None, Combine::Concat)), json!([b1, a2, b3, a4, ten]));
    assert_eq!(run(gather(both, None, None, Combine::Object)), json!({ "left": [b1, a2, b3], "right": [a4, ten] }));
    assert_eq!(run(gather(both, Some("item.got.n > `2`"), None, Combine::Concat)), json!([b3, a4, ten]));
    let groups = json!([{ "key": "a", "items": [a2, a4] }, { "key": "b", "items": [b1, b3] }, { "key": 10, "items": [ten] }]);
    assert_eq!(run(gather(both, None, Some("item.got.k"), Combine::Concat)), groups);
    let object = json!({ "a": [a2, a4], "b": [b1, b3], "10": [ten] });
    assert_eq!(run(gather(both, None, Some("item.got.k"), Combine::Object)), object);
    assert_eq!(run(gather(both, Some("item.got.n < `3`"), Some("item.got.k"), Combine::Object)), json!({ "a": [a2], "b": [b1] }));
}

#[test]
fn case_20_a_grouped_gather_with_a_call_runs_one_task_a_group() {
    for combine in [Combine::Concat, Combine::Object] {
        let mut all = gather(&["each"], None, Some("item.got.k"), combine);
        all.call = Some(Call::Activity("work".to_owned()));
        all.input = json!({ "key": "${group.key}", "sum": "${sum(group.items[].got.n)}" });
        all.output = json!({ "k": "${group.key}", "n": "${length(group.items)}", "sum": "${result.got.sum}" });
        let mut definition = pipeline(vec![scatter("each", "input.list"), all]);
        definition.output = json!("${stages.all.output}");
        let list: Vec<Value> = (0..500).map(|n| json!({ "k": format!("k{}", n % 3), "n": n })).collect();
        let of = |k: u64| json!({ "k": format!("k{k}"), "n": (500 - k).div_ceil(3), "sum": (0..500u64).filter(|n| n % 3 == k).sum::<u64>() });
        let expected = match combine {
            Combine::Concat => json!([of(0), of(1), of(2)]),
            Combine::Object => json!({ "k0": of(0), "k1": of(1), "k2": of(2) }),
        };
        assert_eq!(result_of(definition, json!({ "list": list })), expected);
    }
}

#[test]
fn case_20_a_gather_with_a_call_and_no_input_runs_on_what_was_gathered() {
    let mut all = gather(&["each"], Some("item.got > `1`"), None, Combine::Concat);
    all.call = Some(Call::Activity("work".to_owned()));
    let mut definition = pipeline(vec![scatter("each", "input.list"), all]);
    definition.output = json!("${stages.all.output.got[].got}");
    assert_eq!(result_of(definition, json!({ "list": [1, 2, 3] })), json!([2, 3]));
}

#[test]
fn case_20_a_group_key_that_is_null_fails_the_gather_and_names_the_item() {
    let mut world = World::new(
        pipeline(vec![scatter("each", "input.list"), gather(&["each"], None, Some("item.got.k"), Combine::Concat)]),
        json!({ "list": [{ "k": 1 }, {}] }),
    );
    assert_eq!(world.finish(&mut echo), RunState::Failed);
    assert!(world.error_text().contains("item 1") && world.error_text().contains("`all`"), "{}", world.error_text());
}

fn every_third_fails(dispatch: &Dispatch) -> Result<Bytes, AttemptError> {
    match input_of(dispatch).as_u64() {
        Some(n) if n % 3 == 0 => Err(permanent("third")),
        _ => echo(dispatch),
    }
}

#[test]
fn case_20_on_failure_fail_stops_the_run_and_names_stage_and_error() {
    let mut world = World::new(pipeline(vec![scatter("each", "input.list"), stage("after", Mode::Single)]), json!({ "list": [1, 2, 3] }));
    assert_eq!(world.finish(&mut every_third_fails), RunState::Failed);
    assert_eq!(world.error_code(), "third");
    assert!(world.error_text().contains("`each`"));
    assert!(world.running.is_empty());
    let states: Vec<StageState> = world.run.header().stages.iter().map(|stage| stage.state).collect();
    assert_eq!(states, [StageState::Failed, StageState::Cancelled]);
}

#[test]
fn case_20_on_failure_continue_puts_null_in_place_and_lists_failures() {
    let mut each = scatter("each", "input.list");
    each.on_failure = OnFailure::Continue { max_failed: None };
    let mut definition = pipeline(vec![each, gather(&["each"], None, None, Combine::Concat)]);
    definition.output = json!({ "each": "${stages.each}", "all": "${stages.all.output}", "f": "${stages.all.failures[].item}" });
    let mut world = World::new(definition, json!({ "list": [1, 2, 3, 4] }));
    world.kill_one_in = 5;
    assert_eq!(world.finish(&mut every_third_fails), RunState::Completed);
    let failure = json!({ "index": 2, "item": 3, "error": { "code": "third", "message": "it cannot be" }, "attempts": 1 });
    let got = |n: u32| json!({ "got": n });
    let output = world.output();
    assert_eq!(output["each"], json!({ "status": "completed", "output": [got(1), got(2), null, got(4)], "failures": [failure], "attempts": 4 }));
    assert_eq!((&output["all"], &output["f"]), (&json!([got(1), got(2), got(4)]), &json!([3])));
}

#[test]
fn case_20_max_failed_bears_so_many_and_no_more() {
    let run = |max_failed: MaxFailed, list: Vec<u32>| {
        let mut each = scatter("each", "input.list");
        each.on_failure = OnFailure::Continue { max_failed: Some(max_failed) };
        let mut world = World::new(pipeline(vec![each]), json!({ "list": list }));
        (world.finish(&mut every_third_fails), world.error_code())
    };
    assert_eq!(run(MaxFailed::Count(2), vec![3, 6, 1]).0, RunState::Completed);
    assert_eq!(run(MaxFailed::Count(2), vec![3, 6, 9, 1]), (RunState::Failed, "max_failed".to_owned()));
    assert_eq!(run(MaxFailed::Percent(50.0), vec![3, 6, 1, 2]).0, RunState::Completed);
    assert_eq!(run(MaxFailed::Percent(50.0), vec![3, 6, 9, 1, 2]).0, RunState::Failed);
}

#[test]
fn case_20_on_failure_call_gives_the_output_with_the_error_in_scope() {
    for kills in [0, 4] {
        let mut each = scatter("each", "input.list");
        each.on_failure = OnFailure::Call { call: Call::Activity("rescue".to_owned()), input: json!({ "why": "${error.code}", "n": "${input.n}" }) };
        let mut definition = pipeline(vec![each, gather(&["each"], Some("item.got.why == 'third'"), None, Combine::Concat)]);
        definition.output = json!({ "each": "${stages.each.output}", "all": "${stages.all.output}" });
        let mut world = World::new(definition, json!({ "list": [1, 3, 2, 4, 5], "n": 8 }));
        world.kill_one_in = kills;
        assert_eq!(world.finish(&mut every_third_fails), RunState::Completed);
        let rescued = json!({ "got": { "why": "third", "n": 8 } });
        assert_eq!(world.output(), json!({ "each": rescued, "all": [rescued] }));
        let rescues = world.started.iter().filter(|dispatch| dispatch.work == Work::Activity { name: "rescue".to_owned() });
        assert!(kills > 0 || rescues.count() == 1);
    }
}

#[test]
fn case_20_a_failing_fallback_fails_the_run_after_its_own_attempts() {
    let mut only = stage("only", Mode::Single);
    only.on_failure = OnFailure::Call { call: Call::Activity("work".to_owned()), input: Value::Null };
    let mut world = World::new(pipeline(vec![only]), json!({}));
    let mut tries = 0;
    let mut work = |dispatch: &Dispatch| {
        tries += u32::from(input_of(dispatch)["code"] == json!("bad"));
        Err(if input_of(dispatch).is_null() { permanent("bad") } else { passing("worse") })
    };
    assert_eq!(world.finish(&mut work), RunState::Failed);
    assert_eq!((tries, world.error_code().as_str()), (3, "attempts_exhausted"));
}

#[test]
fn case_20_an_actor_call_addresses_the_actor_by_its_evaluated_key() {
    let mut each = stage("each", Mode::Scatter { over: "input.items".to_owned(), item_as: None, keep: None });
    each.call = Some(Call::Actor { actor: "stock".to_owned(), key: "${item.sku}".to_owned(), handler: "reserve".to_owned() });
    each.input = json!({ "count": "${item.count}" });
    let mut world = World::new(pipeline(vec![each]), json!({ "items": [{ "sku": "loom", "count": 2 }] }));
    world.settle();
    let target = actor_of(&world.running[0]).unwrap();
    assert_eq!((target.kind.as_str(), target.key.as_str(), target.tenant.as_str()), ("stock", "loom", "default"));
    assert_eq!(input_of(&world.running[0]), json!({ "count": 2 }));
    let dispatch = world.running[0].clone();
    world.end(&dispatch, Err(passing("refused")));
    assert_eq!(world.state(), RunState::Failed, "the answer of an actor is final unless the stage says `retry`");
}

#[test]
fn case_20_retry_counts_attempts_and_waits_between_them() {
    let cases = [(Backoff::Fixed, [1, 1, 1]), (Backoff::Linear, [1, 2, 3]), (Backoff::Exponential, [1, 2, 4])];
    for (backoff, waits) in cases {
        let mut only = stage("only", Mode::Single);
        only.retry = Some(Retry { backoff, initial: seconds(1), jitter: 0.0, ..Retry::exponential(4) });
        let mut world = World::new(pipeline(vec![only]), json!({}));
        world.settle();
        for wait in waits {
            let dispatch = world.running[0].clone();
            world.end(&dispatch, Err(passing("busy")));
            world.later(wait * 1_000 - 1);
            assert!(world.running.is_empty());
            world.kill();
            world.settle();
            assert!(world.running.is_empty(), "the wait holds over a restart");
            world.later(1);
            assert_eq!(world.running[0].attempt, dispatch.attempt + 1);
        }
        let dispatch = world.running[0].clone();
        world.end(&dispatch, Err(passing("busy")));
        assert_eq!((world.state(), world.error_code().as_str()), (RunState::Failed, "attempts_exhausted"));
        assert_eq!(world.task(0, 0).unwrap().failures.len(), 4, "every attempt is recorded");
    }
}

#[test]
fn case_20_give_up_on_and_retry_on_choose_which_errors_are_tried_again() {
    let run = |retry: Retry, code: &str| {
        let mut only = stage("only", Mode::Single);
        only.retry = Some(retry);
        let mut world = World::new(pipeline(vec![only]), json!({}));
        world.finish(&mut |_: &Dispatch| Err(passing(code)));
        (world.started.len(), world.error_code())
    };
    let fixed = || Retry::fixed(3, Duration::from_secs(1));
    assert_eq!(run(fixed(), "busy"), (3, "attempts_exhausted".to_owned()));
    assert_eq!(run(Retry { give_up_on: vec!["busy".to_owned()], ..fixed() }, "busy"), (1, "busy".to_owned()));
    assert_eq!(run(Retry { retry_on: vec!["other".to_owned()], ..fixed() }, "busy"), (1, "busy".to_owned()));
    assert_eq!(run(Retry { retry_on: vec!["busy".to_owned()], ..fixed() }, "busy").0, 3);
    assert_eq!(run(Retry::none(), "busy"), (1, "busy".to_owned()));
}

#[test]
fn case_20_the_retry_of_a_stage_replaces_the_one_of_its_activity() {
    let mut only = stage("only", Mode::Single);
    let mut world = World::new(pipeline(vec![only.clone()]), json!({}));
    world.finish(&mut |_: &Dispatch| Err(passing("busy")));
    assert_eq!(world.started.len(), 3, "the activity's own");
    only.retry = Some(Retry::fixed(5, Duration::from_secs(1)));
    let mut world = World::new(pipeline(vec![only]), json!({}));
    world.finish(&mut |_: &Dispatch| Err(passing("busy")));
    assert_eq!(world.started.len(), 5);
}

#[test]
fn case_20_timeouts_bound_an_attempt_and_all_of_them() {
    let mut only = stage("only", Mode::Single);
    only.retry = Some(Retry::fixed(100, Duration::from_secs(4)));
    only.timeout = Some(Timeout { attempt: Some(seconds(7)), total: Some(seconds(10)) });
    let mut world = World::new(pipeline(vec![only]), json!({}));
    world.settle();
    assert_eq!(world.running[0].timeout_ms, Some(7_000));
    let dispatch = world.running[0].clone();
    world.end(&dispatch, Err(passing("busy")));
    world.later(4_000);
    assert_eq!(world.running[0].timeout_ms, Some(6_000), "what is left of the total");
    let dispatch = world.running[0].clone();
    world.kill();
    world.later(3_000);
    assert_eq!(world.running[0].timeout_ms, Some(3_000), "also after a restart");
    world.end(&dispatch, Err(passing("busy")));
    assert_eq!((world.state(), world.error_code().as_str()), (RunState::Failed, "deadline"));
}

#[test]
fn case_20_the_time_of_all_attempts_begins_with_the_first_also_when_a_kill_comes_before_one_has_failed() {
    let mut only = stage("only", Mode::Single);
    only.retry = Some(Retry::fixed(100, Duration::from_secs(1)));
    only.timeout = Some(Timeout { attempt: None, total: Some(seconds(10)) });
    let mut world = World::new(pipeline(vec![only.clone()]), json!({}));
    world.settle();
    for (span, left) in [(4_000, 6_000), (5_000, 1_000)] {
        world.kill();
        world.later(span);
        assert_eq!((world.running[0].attempt, world.running[0].timeout_ms), (1, Some(left)), "what is left of the total");
    }
    world.kill();
    world.later(3_000);
    assert_eq!(world.running[0].timeout_ms, Some(1), "nothing is left");
    let dispatch = world.running[0].clone();
    world.end(&dispatch, Err(passing("timeout")));
    assert_eq!((world.state(), world.error_code().as_str()), (RunState::Failed, "deadline"));
    only.timeout = Some(Timeout { attempt: Some(seconds(10)), total: None });
    let mut world = World::new(pipeline(vec![only]), json!({}));
    world.settle();
    assert_eq!((world.running.len(), world.task(0, 0)), (1, None), "without a total nothing is written at the start");
}

#[test]
fn case_20_throttle_bounds_starts_at_once_and_in_a_time() {
    let run = |throttle: Throttle| {
        let mut each = scatter("each", "input.list");
        each.throttle = Some(throttle);
        let mut world = World::new(pipeline(vec![each]), json!({ "list": (0..10).collect::<Vec<u32>>() }));
        world.settle();
        world
    };
    assert_eq!(run(Throttle { concurrency: Some(3), ..Throttle::default() }).running.len(), 3);
    let mut world = run(Throttle { rate: Some(Rate { count: 4, per: seconds(2) }), ..Throttle::default() });
    assert_eq!(world.running.len(), 4);
    assert!(world.run.waiting().iter().any(|waiting| matches!(waiting, crate::waiting::Waiting::Throttle { position: 6, .. })));
    let wake = world.run.wake_at().unwrap();
    assert!(wake.0 >= world.now.0 + 2_000 && wake.0 <= world.now.0 + 2_010);
    world.later(2_010);
    assert_eq!(world.running.len(), 8);
}

#[test]
fn case_20_the_timeout_of_a_run_fails_it() {
    let mut definition = pipeline(vec![stage("only", Mode::Single)]);
    definition.timeout = Some(seconds(60));
    let mut world = World::new(definition, json!({}));
    world.settle();
    assert_eq!(world.timer.unwrap().0, world.now.0 + 60_000);
    world.kill();
    world.later(59_999);
    assert_eq!(world.state(), RunState::Running);
    world.later(1);
    assert_eq!((world.state(), world.error_code().as_str()), (RunState::Failed, "deadline"));
    assert!(world.running.is_empty());
}

#[test]
fn case_20_depends_on_orders_and_its_absence_does_not() {
    let mut world = World::new(graph(vec![stage("a", Mode::Single), stage("b", Mode::Single)]), json!({}));
    world.settle();
    assert_eq!(world.running.len(), 2);
    let mut world = World::new(pipeline(vec![stage("a", Mode::Single), stage("b", Mode::Single)]), json!({}));
    world.settle();
    assert_eq!(world.starts_of("a").len(), 1);
    assert!(world.starts_of("b").is_empty());
}

#[test]
fn case_20_tasks_of_a_run_at_once_are_bounded() {
    let limits = Limits { run_tasks: 12, ..Limits::default() };
    let list: Vec<u32> = (0..50).collect();
    let stages = vec![scatter("one", "input.list"), scatter("two", "input.list")];
    let mut world = World::with_limits(graph(stages), json!({ "list": list }), limits);
    world.settle();
    assert_eq!(world.running.len(), 12);
    assert_eq!(world.finish(&mut echo), RunState::Completed);
}

#[test]
fn case_20_inputs_of_running_tasks_are_bounded_in_sum() {
    let mut each = scatter("each", "input.list");
    each.input = json!({ "text": "${input.text}", "n": "${item}" });
    let mut world = World::new(pipeline(vec![each]), json!({ "list": (0..7).collect::<Vec<u32>>(), "text": "x".repeat(7_000_000) }));
    world.settle();
    assert_eq!(world.running.len(), 4, "32 MiB at once");
    let dispatch = world.running[0].clone();
    world.end(&dispatch, Ok(Bytes::from_static(b"1")));
    assert_eq!((world.running.len(), world.started.len()), (4, 5));
    world.kill();
    assert_eq!(world.finish(&mut |_: &Dispatch| Ok(Bytes::from_static(b"1"))), RunState::Completed);
}

#[test]
fn case_20_an_input_over_its_limit_fails_the_task_and_names_the_limit() {
    let mut only = stage("only", Mode::Single);
    only.input = json!({ "a": "${input.text}", "b": "${input.text}" });
    let text = "x".repeat(5_000_000);
    let mut world = World::new(pipeline(vec![only]), json!({ "text": text }));
    assert_eq!(world.finish(&mut echo), RunState::Failed);
    assert!(world.error_text().contains("task_input"), "{}", world.error_text());
    assert_eq!(world.started.len(), 0);
}

#[test]
fn an_input_template_that_fails_is_a_failed_task_under_on_failure() {
    let mut each = scatter("each", "input.list");
    each.input = json!({ "n": "${abs(item)}" });
    each.on_failure = OnFailure::Continue { max_failed: None };
    let mut definition = pipeline(vec![each]);
    definition.output = json!("${stages.each.failures[].error.code}");
    assert_eq!(result_of(definition, json!({ "list": [1, "x", -2] })), json!(["expression"]));
}

#[test]
fn a_large_input_of_a_run_survives_a_restart() {
    let text = "y".repeat(300_000);
    let mut definition = pipeline(vec![stage("only", Mode::Single)]);
    definition.output = json!("${input.text}");
    let mut world = World::new(definition, json!({ "text": text.clone() }));
    world.kill();
    assert_eq!(world.finish(&mut |_: &Dispatch| Ok(json_bytes(&json!(1)))), RunState::Completed);
    assert_eq!(world.output(), json!(text));
}
