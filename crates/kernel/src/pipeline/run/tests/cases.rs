//! The failure cases that a run alone can show; each test names its number in `reference/failure-cases.md`.

use bytes::Bytes;
use serde_json::{Value, json};

use super::world::{World, echo, graph, json_bytes, permanent, pipeline, scatter, seconds, stage};
use crate::machine::{RunState, StageState};
use crate::pipeline::compiled::Compiled;
use crate::pipeline::definition::{Combine, Mode, OnFailure, Quorum, Rest};
use crate::pipeline::run::{Dispatch, RunInput};
use crate::policy::{Rate, Throttle};
use crate::record::run::task_key;

fn gather(name: &str, stages: &[&str]) -> crate::pipeline::definition::Stage {
    let stages = stages.iter().map(|stage| (*stage).to_owned()).collect();
    stage(name, Mode::Gather { stages, keep: None, group_by: None, combine: Combine::Concat, wait: Quorum::All, rest: Rest::Cancel })
}

#[test]
fn case_12_a_gather_sees_two_hundred_outputs_in_item_order_however_tasks_return() {
    for seed in 1..6 {
        let mut definition = pipeline(vec![scatter("each", "input.list"), gather("all", &["each"])]);
        definition.output = json!("${stages.all.output}");
        let list: Vec<u32> = (0..200).collect();
        let mut world = World::new(definition, json!({ "list": list }));
        world.dice.0 = seed * 77;
        assert_eq!(world.finish(&mut echo), RunState::Completed);
        let expected: Vec<Value> = list.iter().map(|n| json!({ "got": n })).collect();
        assert_eq!(world.output(), Value::Array(expected));
        assert_eq!(world.started.len(), 200);
    }
}

#[test]
fn case_13_an_empty_scatter_gives_an_empty_output_and_the_run_goes_on() {
    let mut after = stage("after", Mode::Single);
    after.input = json!({ "n": "${stages.each.output}", "f": "${stages.each.failures}", "s": "${stages.each.status}" });
    let mut definition = pipeline(vec![scatter("each", "input.list"), after]);
    definition.output = json!("${stages.after.output.got}");
    let mut world = World::new(definition, json!({ "list": [] }));
    assert_eq!(world.finish(&mut echo), RunState::Completed);
    assert_eq!(world.output(), json!({ "n": [], "f": [], "s": "completed" }));
    assert_eq!(world.started.len(), 1);
}

#[test]
fn case_14_kills_in_a_throttled_scatter_finish_every_item_and_start_no_ended_one_again() {
    for seed in 1..20 {
        let mut each = scatter("each", "input.list");
        each.throttle = Some(Throttle { concurrency: Some(7), rate: Some(Rate { count: 5, per: seconds(1) }), key: None });
        each.output = json!("${result.got}");
        let mut definition = pipeline(vec![each]);
        definition.output = json!("${stages.each.output}");
        let list: Vec<u32> = (0..60).collect();
        let mut world = World::new(definition, json!({ "list": list }));
        world.dice.0 = seed * 1_234_567;
        world.kill_one_in = 6;
        let mut starts: Vec<u64> = Vec::new();
        while !world.state().ended() {
            world.settle();
            let before = world.started.len();
            if world.running.is_empty() {
                world.pass();
            } else {
                let dispatch = world.running.swap_remove(0);
                world.end(&dispatch.clone(), echo(&dispatch));
            }
            starts.extend(world.started[before..].iter().map(|_| world.now.0));
        }
        assert!(world.kills > 0);
        assert_eq!(world.output(), json!(list));
        world.verify();
    }
}

#[test]
fn case_14_the_rate_of_a_stage_holds_over_kills() {
    let mut each = scatter("each", "input.list");
    each.throttle = Some(Throttle { concurrency: None, rate: Some(Rate { count: 4, per: seconds(10) }), key: None });
    let mut world = World::new(pipeline(vec![each]), json!({ "list": (0..20).collect::<Vec<u32>>() }));
    world.settle();
    let mut starts: Vec<u64> = vec![world.now.0; world.started.len()];
    for step in 0..600 {
        let before = world.started.len();
        if step % 29 == 0 {
            world.kill();
        }
        world.settle();
        if let Some(dispatch) = world.running.pop() {
            world.end(&dispatch.clone(), echo(&dispatch));
        } else {
            world.later(500);
        }
        starts.extend((before..world.started.len()).map(|_| world.now.0));
        let within = starts.iter().filter(|at| **at + 10_000 > world.now.0).count();
        assert!(within <= 4, "{within} starts within ten seconds");
    }
    assert!(world.state().ended());
}

#[test]
fn case_19_a_path_that_finds_nothing_is_null_and_a_when_that_is_no_boolean_fails_the_run() {
    let mut first = stage("first", Mode::Single);
    first.input = json!({ "x": "${input.nothing.there}" });
    let mut definition = pipeline(vec![first.clone()]);
    definition.output = json!("${stages.first.output.got.x}");
    let mut world = World::new(definition, json!({}));
    assert_eq!(world.finish(&mut echo), RunState::Completed);
    assert_eq!(world.output(), Value::Null);

    let mut second = stage("second", Mode::Single);
    second.when = Some("input.n".to_owned());
    let mut world = World::new(pipeline(vec![first, second]), json!({ "n": 3 }));
    assert_eq!(world.finish(&mut echo), RunState::Failed);
    assert_eq!(world.error_code(), "expression");
    assert!(world.error_text().contains("`second`") && world.error_text().contains("`when`"), "{}", world.error_text());
}

#[test]
fn case_19_a_malformed_expression_is_refused_before_anything_runs() {
    let mut broken = stage("broken", Mode::Single);
    broken.when = Some("input.[".to_owned());
    assert!(Compiled::new(pipeline(vec![broken]), String::new()).unwrap_err().to_string().contains("stage `broken`, `when`"));
}

#[test]
fn case_21_a_late_or_duplicate_result_does_not_count_twice() {
    let mut definition = pipeline(vec![scatter("each", "input.list")]);
    definition.output = json!("${stages.each.output}");
    let mut world = World::new(definition, json!({ "list": [1, 2, 3] }));
    world.settle();
    let first = world.running[0].clone();
    let ended = |value: Value| RunInput::TaskEnded { stage: first.stage, item: first.item, attempt: first.attempt, result: Ok(json_bytes(&value)) };
    world.tell(ended(json!("first"))).unwrap();
    world.tell(ended(json!("second"))).unwrap();
    world.tell(RunInput::TaskEnded { stage: first.stage, item: 1, attempt: 7, result: Ok(Bytes::from_static(b"1")) }).unwrap();
    world.tell(RunInput::TaskEnded { stage: 99, item: 1, attempt: 1, result: Ok(Bytes::from_static(b"1")) }).unwrap();
    assert_eq!(world.run.header().stages[0].done, 1);
    world.running.retain(|dispatch| dispatch.item != 0);
    world.kill();
    world.tell(ended(json!("third"))).unwrap();
    assert_eq!(world.run.header().stages[0].done, 1);
    world.finish(&mut echo);
    assert_eq!(world.output(), json!(["first", { "got": 2 }, { "got": 3 }]));
    let commits = world.commits;
    world.tell(ended(json!("fourth"))).unwrap();
    assert_eq!(world.commits, commits, "nothing is written for a late end");
}

#[test]
fn case_22_cancel_ends_as_cancelled_and_starts_nothing_more() {
    let mut world = World::new(pipeline(vec![scatter("each", "input.list"), stage("after", Mode::Single)]), json!({ "list": (0..300).collect::<Vec<u32>>() }));
    world.settle();
    let dispatch = world.running[0].clone();
    world.tell(RunInput::Cancel { by: "ada".to_owned() }).unwrap();
    assert_eq!(world.state(), RunState::Cancelled);
    assert!(world.running.is_empty(), "running tasks are aborted");
    let started = world.started.len();
    world.end(&dispatch, echo(&dispatch));
    world.later(1_000_000);
    assert_eq!(world.started.len(), started);
    assert!(world.run.header().stages.iter().all(|stage| stage.state == StageState::Cancelled));
    world.tell(RunInput::Cancel { by: "ada".to_owned() }).unwrap_err();
}

#[test]
fn case_25_items_around_the_bounds_of_a_commit_and_a_piece_all_run() {
    for count in [1, 99, 100, 101, 999, 1_000, 1_001] {
        let mut definition = pipeline(vec![scatter("each", "input.list")]);
        definition.output = json!("${length(stages.each.output)}");
        let mut world = World::new(definition, json!({ "list": (0..count).collect::<Vec<u32>>() }));
        assert_eq!(world.finish(&mut echo), RunState::Completed);
        assert_eq!(world.output(), json!(count));
    }
}

#[test]
fn case_28_large_outputs_are_written_once_and_reach_those_who_read_them() {
    let big = |n: u32| Value::String(format!("{n}").repeat(600_000 / format!("{n}").len()));
    let mut sum = stage("sum", Mode::Single);
    sum.input = json!({ "sizes": "${stages.each.output[].length(@)}" });
    let mut definition = pipeline(vec![scatter("each", "input.list"), gather("all", &["each"]), sum]);
    definition.output = json!("${stages.sum.output.got.sizes}");
    let mut world = World::new(definition, json!({ "list": (1..=50).collect::<Vec<u32>>() }));
    world.kill_one_in = 9;
    let mut work = |dispatch: &Dispatch| {
        let input: Value = serde_json::from_slice(&dispatch.input).unwrap();
        match input.as_u64() {
            Some(n) => Ok(json_bytes(&big(n as u32))),
            None => echo(dispatch),
        }
    };
    assert_eq!(world.finish(&mut work), RunState::Completed);
    assert_eq!(world.output().as_array().unwrap().len(), 50);
    assert!(world.chunks.len() <= 51 && world.written_bytes < 1_000_000, "{} bytes in rows", world.written_bytes);
}

#[test]
fn case_28_outputs_beyond_what_an_expression_may_read_name_the_limit() {
    let mut sum = stage("sum", Mode::Single);
    sum.input = json!({ "all": "${stages.each.output}" });
    let mut world = World::new(pipeline(vec![scatter("each", "input.list"), sum]), json!({ "list": (0..9).collect::<Vec<u32>>() }));
    let text = json_bytes(&Value::String("x".repeat(7_900_000)));
    assert_eq!(world.finish(&mut |_: &Dispatch| Ok(text.clone())), RunState::Failed);
    assert_eq!(world.error_code(), "limit");
    let said = world.error_text();
    assert!(said.contains("expression_input") && said.contains("`each`") && said.contains("71100018"), "{said}");
}

#[test]
fn case_56_a_cancel_and_a_completion_have_one_outcome_which_the_events_show() {
    for cancel_first in [true, false] {
        let mut world = World::new(pipeline(vec![stage("only", Mode::Single)]), json!({}));
        world.settle();
        let dispatch = world.running[0].clone();
        let ended = RunInput::TaskEnded { stage: 0, item: 0, attempt: dispatch.attempt, result: Ok(Bytes::from_static(b"1")) };
        let cancel = RunInput::Cancel { by: "ada".to_owned() };
        if cancel_first {
            world.tell(cancel).unwrap();
            world.tell(ended).unwrap();
            assert_eq!(world.state(), RunState::Cancelled);
            assert_eq!(world.task(0, 0), None);
        } else {
            world.tell(ended).unwrap();
            world.tell(cancel).unwrap_err();
            assert_eq!(world.state(), RunState::Completed);
        }
        assert_eq!(world.events().last().unwrap().state, world.state());
        world.verify();
    }
}

#[test]
fn case_56_a_retry_and_a_kill_have_one_outcome() {
    let mut world = World::new(pipeline(vec![stage("only", Mode::Single)]), json!({}));
    world.settle();
    let dispatch = world.running[0].clone();
    world.end(&dispatch, Err(super::world::passing("busy")));
    world.kill();
    world.settle();
    assert!(world.running.is_empty(), "the delay holds over a kill");
    assert_eq!(world.state(), RunState::Waiting);
    assert!(world.pass());
    assert_eq!(world.running[0].attempt, 2);
    world.kill();
    world.settle();
    assert_eq!(world.running[0].attempt, 2, "an attempt that was lost is the same attempt");
    assert_eq!(world.running[0].key, dispatch.key);
    world.finish(&mut echo);
    assert_eq!(world.task(0, 0).unwrap().attempts, 2);
}

#[test]
fn a_changed_missing_or_moved_row_is_found_and_named() {
    let mut world = World::new(pipeline(vec![scatter("each", "input.list")]), json!({ "list": [1, 2, 3, 4] }));
    world.finish(&mut echo);
    let rows = world.rows.clone();
    for key in rows.keys() {
        if key[2] == crate::record::kind::Kind::Run as u8 {
            continue;
        }
        let mut changed = rows.clone();
        changed.remove(key);
        world.rows = changed;
        assert!(world.try_verify().is_err(), "a missing row is found");
    }
    let (one, two) = (task_key(world.run.id(), 0, 1), task_key(world.run.id(), 0, 2));
    let mut moved = rows.clone();
    let (first, second) = (moved[&one].clone(), moved[&two].clone());
    moved.insert(one, second);
    moved.insert(two, first);
    world.rows = moved;
    assert!(world.try_verify().unwrap_err().to_string().contains("row 230000"));
    world.rows = rows;
    world.verify();
}

#[test]
fn a_failed_run_is_retried_with_what_failed_alone() {
    let mut each = scatter("each", "input.list");
    each.on_failure = OnFailure::Fail;
    each.throttle = Some(Throttle { concurrency: Some(40), ..Throttle::default() });
    let mut definition = pipeline(vec![stage("before", Mode::Single), each, stage("after", Mode::Single)]);
    definition.output = json!("${stages.each.output}");
    let list: Vec<u32> = (0..700).collect();
    let mut world = World::new(definition, json!({ "list": list }));
    let mut broken = |dispatch: &Dispatch| if dispatch.stage == 1 && dispatch.item == 650 { Err(permanent("bad")) } else { echo(dispatch) };
    assert_eq!(world.finish(&mut broken), RunState::Failed);
    let ended: Vec<u32> = (0..700).filter(|item| world.task(1, *item).is_some() && *item != 650).collect();
    assert!(ended.len() > 300);
    world.kill_one_in = 10;
    let started = world.started.len();
    world.tell(RunInput::RetryFailed).unwrap();
    assert_eq!(world.finish(&mut echo), RunState::Completed);
    assert!(world.started[started..].iter().all(|dispatch| dispatch.stage != 0 && !(dispatch.stage == 1 && ended.contains(&dispatch.item))));
    let expected: Vec<Value> = list.iter().map(|n| json!({ "got": n })).collect();
    assert_eq!(world.output(), Value::Array(expected));
    assert_eq!(world.run.header().stages[1].done, 700);
    world.tell(RunInput::RetryFailed).unwrap_err();
}

#[test]
fn a_task_of_a_stage_never_starts_before_the_stages_it_depends_on() {
    let mut last = stage("last", Mode::Single);
    last.depends_on = vec!["left".to_owned(), "right".to_owned()];
    let mut world = World::new(graph(vec![stage("left", Mode::Single), stage("right", Mode::Single), last]), json!({}));
    world.settle();
    assert_eq!(world.running.len(), 2);
    let dispatch = world.running[0].clone();
    world.end(&dispatch, echo(&dispatch));
    assert_eq!(world.running.len(), 1);
    world.finish(&mut echo);
    assert_eq!(world.started.len(), 3);
}

const AUDIT: &str = r#"
selvedge: 1
name: audit
input:
  pages: { type: array, items: { type: string } }
  limit: { type: integer, default: 2 }
timeout: 1h
activities:
  fetch: { exec: [python3, fetch.py], processes: 2, retry: { max_attempts: 3, initial: 1s } }
  report: { exec: [python3, report.py], persistent: false }
stages:
  - name: links
    mode: scatter
    over: input.pages
    as: page
    call: fetch
    input: { url: "${page}" }
    output: { url: "${page}", kind: "${result.got.url}" }
    throttle: { concurrency: 2 }
    on_failure: { continue: { max_failed: 50% } }
  - name: by_kind
    mode: gather
    stages: [links]
    group_by: item.kind
  - name: review
    mode: approval
    when: length(stages.links.failures) > `0`
    assignees: ["user:ada"]
    show: { failures: "${stages.links.failures[].item}" }
    expires: 30s
    fallback: approve
  - name: count
    mode: scatter
    over: stages.by_kind.output
    call: { actor: kind, key: "${item.key}", handler: add }
    input: { n: "${length(item.items)}", limit: "${input.limit}" }
  - name: write
    call: report
    input: { kinds: "${stages.count.output[].got.n}", decided: "${stages.review.output.decision}" }
output: ${stages.write.output.got}
"#;

#[test]
fn a_pipeline_as_it_is_written_runs_to_its_end_through_kills() {
    let (definition, warnings) = crate::pipeline::parse::parse_pipeline("audit.yaml", AUDIT).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    let input = json!({ "pages": ["a", "b", "a", "c", "b", "a", "bad"] });
    let input = crate::pipeline::schema::validate_input(&definition, input).unwrap();
    for kill_one_in in [0, 3, 8] {
        let mut world = World::new(definition.clone(), input.clone());
        world.kill_one_in = kill_one_in;
        let mut work = |dispatch: &Dispatch| match &dispatch.input[..] {
            br#"{"url":"bad"}"# => Err(permanent("http_404")),
            _ => echo(dispatch),
        };
        assert_eq!(world.finish(&mut work), RunState::Completed, "{}", world.error_text());
        assert_eq!(world.output(), json!({ "kinds": [3, 2, 1], "decided": "approved" }));
    }
}
