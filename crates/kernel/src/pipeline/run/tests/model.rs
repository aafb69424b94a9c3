//! Random graphs against a naive model that evaluates them at once, in order, without rows, time or kills.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::world::{World, graph, json_bytes, passing, permanent, seconds, stage};
use crate::error::AttemptError;
use crate::machine::RunState;
use crate::pipeline::definition::{Branch, Call, Combine, Definition, MaxFailed, Mode, OnFailure, Quorum, Rest, SleepTime, Task};
use crate::pipeline::run::{Dispatch, RunInput, Work};
use crate::policy::{Rate, Throttle, Timeout};

#[derive(Clone, Debug)]
enum Kind {
    Single { reads: Option<usize> },
    Scatter { over: Option<usize>, keep: bool },
    Gather { members: Vec<usize>, keep: bool, group: bool, object: bool, call: bool },
    Fork { branches: usize, by_name: bool },
    MapReduce { over: Option<usize> },
    Sleep,
}

#[derive(Clone, Debug)]
struct Spec {
    kind: Kind,
    deps: Vec<usize>,
    when: Option<bool>,
    on_failure: u8,
    throttle: u8,
    reshape: bool,
}

/// What a stage came to.
#[derive(Clone, Debug)]
struct Outcome {
    status: &'static str,
    output: Value,
    failures: Vec<Value>,
    attempts: u64,
    /// What a gather over it sees.
    items: Vec<Value>,
    rescued: bool,
}

fn number(value: &Value) -> u64 {
    let hash = blake3::hash(&serde_json::to_vec(value).unwrap());
    u64::from(hash.as_bytes()[0])
}

/// The work of every activity: what an attempt gives is a function of input and attempt.
fn work(input: &Value, attempt: u32) -> Result<Value, AttemptError> {
    let n = number(input);
    if n.is_multiple_of(9) {
        return Err(permanent("bad"));
    }
    if n % 5 == 1 && attempt == 1 {
        return Err(passing("busy"));
    }
    Ok(json!({ "h": n % 10, "in": number(input) }))
}

fn attempts(input: &Value) -> u64 {
    if number(input) % 5 == 1 && !number(input).is_multiple_of(9) { 2 } else { 1 }
}

fn rescue() -> Value {
    json!({ "h": 7, "rescued": "bad" })
}

fn name(index: usize) -> String {
    format!("s{index}")
}

fn definition(specs: &[Spec]) -> Definition {
    let mut stages = Vec::new();
    for (index, spec) in specs.iter().enumerate() {
        let mut one = match &spec.kind {
            Kind::Single { reads } => {
                let mut one = stage(&name(index), Mode::Single);
                one.input = match reads {
                    Some(other) => json!({ "from": format!("${{stages.{}.output}}", name(*other)), "i": index }),
                    None => json!({ "n": "${input.n}", "i": index }),
                };
                one
            }
            Kind::Scatter { over, keep } => {
                let over = over.map_or("input.list".to_owned(), |other| format!("stages.{}.output", name(other)));
                let keep = keep.then(|| "item.h != `3`".to_owned());
                let mut one = stage(&name(index), Mode::Scatter { over, item_as: None, keep });
                one.input = json!({ "x": "${item}", "at": "${index}", "i": index });
                one
            }
            Kind::Gather { members, keep, group, object, call } => {
                let mode = Mode::Gather {
                    stages: members.iter().map(|member| name(*member)).collect(),
                    keep: keep.then(|| "item.h >= `2`".to_owned()),
                    group_by: group.then(|| "item.h".to_owned()),
                    combine: if *object { Combine::Object } else { Combine::Concat },
                    wait: Quorum::All,
                    rest: Rest::Cancel,
                };
                let mut one = stage(&name(index), mode);
                one.call = call.then(|| Call::Activity("work".to_owned()));
                one
            }
            Kind::Fork { branches, by_name } => {
                let branch = |n: usize| {
                    let input = json!({ "b": n, "n": "${input.n}", "i": index });
                    Branch { item: json!(format!("b{n}")), call: Call::Activity("work".to_owned()), input }
                };
                stage(&name(index), Mode::Fork { branches: (0..*branches).map(branch).collect(), by_name: *by_name, first: false, rest: Rest::Cancel })
            }
            Kind::MapReduce { over } => {
                let over = over.map_or("input.list".to_owned(), |other| format!("stages.{}.output", name(other)));
                let task = |input: Value| Task { call: Call::Activity("work".to_owned()), input };
                let (map, reduce) = (task(json!({ "x": "${item}", "i": index })), task(json!({ "all": "${items}", "i": index })));
                stage(&name(index), Mode::MapReduce { over, item_as: None, map, reduce })
            }
            Kind::Sleep => stage(&name(index), Mode::Sleep(SleepTime::For(seconds(5)))),
        };
        one.depends_on = spec.deps.iter().map(|other| name(*other)).collect();
        one.when = spec.when.map(|value| format!("input.n {} `1`", if value { "==" } else { "!=" }));
        one.on_failure = match spec.on_failure {
            0 => OnFailure::Fail,
            1 => OnFailure::Continue { max_failed: None },
            2 => OnFailure::Continue { max_failed: Some(MaxFailed::Count(1)) },
            _ => OnFailure::Call { call: Call::Activity("rescue".to_owned()), input: json!("${error.code}") },
        };
        one.throttle = match spec.throttle {
            0 => Some(Throttle { concurrency: Some(2), ..Throttle::default() }),
            1 => Some(Throttle { rate: Some(Rate { count: 3, per: seconds(2) }), ..Throttle::default() }),
            _ => None,
        };
        if spec.reshape {
            one.output = json!({ "h": "${result.h}", "of": index });
            if !matches!(spec.kind, Kind::Sleep) {
                // A time that is never up: its tasks have a row from their start on.
                one.timeout = Some(Timeout { attempt: None, total: Some(seconds(86_400)) });
            }
        }
        stages.push(one);
    }
    let mut definition = graph(stages);
    let all: Vec<Value> = specs.iter().enumerate().map(|(index, spec)| view(index, spec)).collect();
    definition.output = json!(all);
    definition
}

/// What of a stage does not depend on the order in which tasks end.
fn view(index: usize, spec: &Spec) -> Value {
    let at = |part: &str| format!("${{stages.{}.{part}}}", name(index));
    if spec.on_failure > 2 {
        json!({ "status": at("status"), "output": at("output") })
    } else {
        json!({ "status": at("status"), "output": at("output"), "failures": at("failures"), "attempts": at("attempts") })
    }
}

fn truthy_h(item: &Value, test: impl Fn(f64) -> bool) -> bool {
    item.get("h").and_then(Value::as_f64).is_some_and(test)
}

/// What stands for the failure of a stage that had no task yet.
const NO_TASK: &str = "no task";

/// What a stage comes to that cannot begin.
fn cannot_begin(index: usize, spec: &Spec) -> Option<Outcome> {
    let outcome = Outcome { status: "completed", output: Value::Null, failures: vec![json!(NO_TASK)], attempts: 0, items: Vec::new(), rescued: false };
    match (spec.on_failure, &spec.kind) {
        (0, _) => None,
        (1 | 2, Kind::Gather { group: true, object: true, call: true, .. }) => Some(Outcome { output: json!({}), ..outcome }),
        (1 | 2, Kind::Scatter { .. } | Kind::Gather { group: true, call: true, .. }) => Some(Outcome { output: json!([]), ..outcome }),
        (1 | 2, _) => Some(outcome),
        _ => Some(rescued(index, spec, outcome)),
    }
}

fn rescued(index: usize, spec: &Spec, outcome: Outcome) -> Outcome {
    let output = if spec.reshape { json!({ "h": rescue()["h"], "of": index }) } else { rescue() };
    Outcome { rescued: true, items: vec![output.clone()], output, ..outcome }
}

/// The naive model: none if the run fails.
fn expect(specs: &[Spec], input: &Value) -> Option<Vec<Outcome>> {
    let mut done: Vec<Outcome> = Vec::new();
    for (index, spec) in specs.iter().enumerate() {
        if spec.when == Some(false) {
            done.push(Outcome { status: "skipped", output: Value::Null, failures: Vec::new(), attempts: 0, items: Vec::new(), rescued: false });
            continue;
        }
        let plain = |output: Value, failures: Vec<Value>| Outcome { status: "completed", output, failures, attempts: 0, items: Vec::new(), rescued: false };
        // (item, input) of each task.
        let mut wide = true;
        let mut keys: Vec<Value> = Vec::new();
        let mut by_key = false;
        let tasks: Vec<(Value, Value)> = match &spec.kind {
            Kind::Sleep => {
                let output = if spec.reshape { json!({ "h": null, "of": index }) } else { Value::Null };
                done.push(Outcome { attempts: 1, items: vec![output.clone()], ..plain(output, Vec::new()) });
                continue;
            }
            Kind::Single { reads } => {
                wide = false;
                let input = match reads {
                    Some(other) => json!({ "from": done[*other].output, "i": index }),
                    None => json!({ "n": input["n"], "i": index }),
                };
                vec![(Value::Null, input)]
            }
            Kind::Scatter { over, keep } => {
                let list = over.map_or(&input["list"], |other| &done[other].output);
                let Some(list) = list.as_array() else {
                    done.push(cannot_begin(index, spec)?);
                    continue;
                };
                let kept = list.iter().filter(|item| !*keep || item.get("h") != Some(&json!(3)));
                kept.enumerate().map(|(at, item)| (item.clone(), json!({ "x": item, "at": at, "i": index }))).collect()
            }
            Kind::Fork { branches, by_name } => {
                by_key = *by_name;
                keys = (0..*branches).map(|n| json!(format!("b{n}"))).collect();
                (0..*branches).map(|n| (json!(format!("b{n}")), json!({ "b": n, "n": input["n"], "i": index }))).collect()
            }
            Kind::MapReduce { over } => {
                wide = false;
                let list = over.map_or(&input["list"], |other| &done[other].output);
                let Some(list) = list.as_array() else {
                    done.push(cannot_begin(index, spec)?);
                    continue;
                };
                list.iter().map(|item| (item.clone(), json!({ "x": item, "i": index }))).collect()
            }
            Kind::Gather { members, keep, group, object, call } => {
                let mut items: Vec<(usize, Value)> = Vec::new();
                for member in members {
                    let kept = done[*member].items.iter().filter(|item| !*keep || truthy_h(item, |h| h >= 2.0));
                    items.extend(kept.map(|item| (*member, item.clone())));
                }
                if *group {
                    let mut groups: Vec<(String, Vec<Value>)> = Vec::new();
                    let no_key = |item: &Value| item.get("h").is_none_or(Value::is_null);
                    if items.iter().any(|(_, item)| no_key(item)) {
                        done.push(cannot_begin(index, spec)?);
                        continue;
                    }
                    for (_, item) in items {
                        let key = item["h"].to_string();
                        match groups.iter_mut().find(|(other, _)| *other == key) {
                            Some((_, list)) => list.push(item),
                            None => groups.push((key, vec![item])),
                        }
                    }
                    groups.sort_by(|one, two| one.0.cmp(&two.0));
                    if *call {
                        by_key = *object;
                        keys = groups.iter().map(|(key, _)| serde_json::from_str(key).unwrap()).collect();
                        let task = |(key, items): (String, Vec<Value>)| {
                            let key: Value = serde_json::from_str(&key).unwrap();
                            (key.clone(), json!({ "key": key, "items": items }))
                        };
                        groups.into_iter().map(task).collect()
                    } else {
                        let output = if *object {
                            Value::Object(groups.into_iter().map(|(key, items)| (key, json!(items))).collect())
                        } else {
                            let key = |key: &str| serde_json::from_str::<Value>(key).unwrap();
                            groups.into_iter().map(|(text, items)| json!({ "key": key(&text), "items": items })).collect()
                        };
                        let failures = members.iter().flat_map(|member| done[*member].failures.clone()).collect();
                        done.push(plain(output, failures));
                        continue;
                    }
                } else {
                    wide = false;
                    let all = if *object {
                        let of = |member: &usize| {
                            let mine: Vec<Value> = items.iter().filter(|(of, _)| of == member).map(|(_, item)| item.clone()).collect();
                            let is_list = is_wide(&specs[*member]) && !done[*member].rescued;
                            (name(*member), if is_list { json!(mine) } else { mine.last().cloned().unwrap_or(Value::Null) })
                        };
                        Value::Object(members.iter().map(of).collect())
                    } else {
                        Value::Array(items.into_iter().map(|(_, item)| item).collect())
                    };
                    if !*call {
                        let failures = members.iter().flat_map(|member| done[*member].failures.clone()).collect();
                        done.push(plain(all, failures));
                        continue;
                    }
                    vec![(Value::Null, all)]
                }
            }
        };
        let mut outcome = plain(Value::Null, Vec::new());
        let mut outputs = Vec::new();
        let mut tasks = tasks;
        let (mapped, reduces) = (tasks.len(), matches!(spec.kind, Kind::MapReduce { .. }));
        let mut at = 0;
        while at < tasks.len() || (reduces && at == mapped && mapped > 0) {
            if reduces && at == mapped {
                let all = std::mem::take(&mut outcome.items);
                outputs.clear();
                tasks.push((json!({ "level": 1, "n": 0 }), json!({ "all": all, "i": index })));
            }
            let (item, input) = &tasks[at];
            at += 1;
            let at = at - 1;
            let gives = !reduces || at == mapped;
            outcome.attempts += attempts(input);
            match work(input, 2) {
                Ok(result) => {
                    let output = if spec.reshape && gives { json!({ "h": result["h"], "of": index }) } else { result };
                    outcome.items.push(output.clone());
                    outputs.push(output);
                }
                Err(failure) => {
                    let error = json!({ "code": failure.error.code, "message": failure.error.message });
                    outcome.failures.push(json!({ "index": at, "item": item, "error": error, "attempts": 1 }));
                    outputs.push(Value::Null);
                }
            }
        }
        let failed = outcome.failures.len();
        outcome.output = if by_key {
            let key = |key: &Value| key.as_str().map_or_else(|| key.to_string(), str::to_owned);
            Value::Object(keys.iter().map(key).zip(outputs).collect())
        } else if wide {
            Value::Array(outputs)
        } else {
            outputs.pop().unwrap_or(Value::Null)
        };
        match spec.on_failure {
            0 if failed > 0 => return None,
            2 if failed > 1 => return None,
            0..=2 => {}
            _ if failed > 0 => outcome = rescued(index, spec, outcome),
            _ => {}
        }
        done.push(outcome);
    }
    Some(done)
}

fn is_wide(spec: &Spec) -> bool {
    matches!(spec.kind, Kind::Scatter { .. } | Kind::Fork { .. } | Kind::Gather { group: true, .. })
}

/// Raw numbers become a graph in which stages refer to earlier ones alone.
fn specs() -> impl Strategy<Value = Vec<Spec>> {
    let raw = (0u8..14, any::<u32>(), any::<[bool; 5]>(), 0u8..6, 0u8..4, 0u8..8);
    prop::collection::vec(raw, 1..8).prop_map(|raw| {
        let mut specs: Vec<Spec> = Vec::new();
        for (index, (kind, bits, flags, on_failure, throttle, when)) in raw.into_iter().enumerate() {
            let pick = |shift: u32| (index > 0).then(|| ((bits >> shift) as usize) % index.max(1));
            let plain = |other: &usize| matches!(specs[*other].kind, Kind::Gather { call: false, .. });
            let mut deps: Vec<usize> = pick(0).into_iter().chain(if flags[0] { pick(5) } else { None }).collect();
            let kind = match kind {
                0..=2 => Kind::Single { reads: if flags[1] { pick(10) } else { None } },
                3..=6 => Kind::Scatter { over: if flags[1] { pick(10) } else { None }, keep: flags[2] },
                7 | 8 => {
                    let mut members: Vec<usize> = pick(10).into_iter().chain(pick(15)).filter(|other| !plain(other)).collect();
                    members.dedup();
                    if members.is_empty() { Kind::Sleep } else { Kind::Gather { members, keep: flags[1], group: flags[2], object: flags[3], call: flags[4] } }
                }
                9 => Kind::Sleep,
                10 | 11 => Kind::Fork { branches: 1 + (bits as usize >> 20) % 4, by_name: flags[1] },
                _ => Kind::MapReduce { over: if flags[1] { pick(10) } else { None } },
            };
            match &kind {
                Kind::Single { reads: Some(other) } | Kind::MapReduce { over: Some(other) } | Kind::Scatter { over: Some(other), .. } => deps.push(*other),
                Kind::Gather { members, .. } => deps.extend(members),
                _ => {}
            }
            deps.sort_unstable();
            deps.dedup();
            // Half of the stages bear failures, so that many runs come to their end.
            let on_failure = [0, 1, 1, 2, 3, 3][usize::from(on_failure)];
            let can_reshape = !matches!(kind, Kind::Gather { call: false, .. });
            let when = match when {
                0 => Some(false),
                1 => Some(true),
                _ => None,
            };
            specs.push(Spec { kind, deps, when, on_failure, throttle, reshape: flags[0] && can_reshape });
        }
        specs
    })
}

fn run(specs: &[Spec], input: &Value, seed: u64, kill_one_in: u64) -> World {
    let mut world = World::new(definition(specs), input.clone());
    world.dice.0 = seed | 1;
    world.kill_one_in = kill_one_in;
    world.finish(&mut do_work);
    world
}

fn do_work(dispatch: &Dispatch) -> Result<Bytes, AttemptError> {
    let input: Value = serde_json::from_slice(&dispatch.input).unwrap();
    match &dispatch.work {
        Work::Activity { name } if name == "rescue" => Ok(json_bytes(&rescue())),
        _ => work(&input, dispatch.attempt).map(|value| json_bytes(&value)),
    }
}

fn agrees(specs: &[Spec], input: &Value, world: &World) {
    match expect(specs, input) {
        None => assert_eq!(world.state(), RunState::Failed),
        Some(outcomes) => {
            assert_eq!(world.state(), RunState::Completed, "{:?}", world.run.header().error);
            let output = world.output();
            for (index, outcome) in outcomes.iter().enumerate() {
                let mut expected = json!({ "status": outcome.status, "output": outcome.output });
                if specs[index].on_failure <= 2 {
                    let plain = matches!(specs[index].kind, Kind::Gather { call: false, .. });
                    let depends_on_order = |spec: &Spec| match &spec.kind {
                        Kind::Gather { members, call: false, .. } => members.iter().any(|member| outcomes[*member].rescued),
                        _ => false,
                    };
                    if plain && depends_on_order(&specs[index]) {
                        assert_eq!(output[index]["output"], outcome.output);
                        continue;
                    }
                    expected["failures"] = json!(outcome.failures);
                    expected["attempts"] = json!(outcome.attempts);
                }
                let mut found = output[index].clone();
                for failure in found.get_mut("failures").and_then(Value::as_array_mut).into_iter().flatten() {
                    if failure["attempts"] == json!(0) {
                        assert_eq!(failure["error"]["code"], json!("expression"));
                        *failure = json!(NO_TASK);
                    }
                }
                assert_eq!(found, expected, "stage {index} of {specs:#?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_run_ends_as_the_naive_model_says_in_whatever_order_tasks_end(
        specs in specs(), list in prop::collection::vec(0u32..50, 0..9), seed in any::<u64>()
    ) {
        let input = json!({ "list": list, "n": 1 });
        agrees(&specs, &input, &run(&specs, &input, seed, 0));
    }

    #[test]
    fn pauses_and_missing_executors_at_any_moment_change_nothing_in_the_outputs(
        specs in specs(), list in prop::collection::vec(0u32..50, 0..9), seed in any::<u64>(), kill_one_in in 5u64..30
    ) {
        let input = json!({ "list": list, "n": 1 });
        let mut world = World::new(definition(&specs), input.clone());
        world.dice.0 = seed | 1;
        world.kill_one_in = kill_one_in;
        world.settle();
        while !world.state().ended() {
            match world.dice.roll(8) {
                // A kill before the commit may have lost the last word: whoever sends it again may be refused.
                0 => drop(world.tell(RunInput::Pause { by: "ada".to_owned() })),
                1 | 2 => drop(world.tell(RunInput::Resume)),
                3 if !world.running.is_empty() => {
                    let lost = world.running.swap_remove(0);
                    let (stage, item, attempt) = (lost.stage, lost.item, lost.attempt);
                    world.tell(RunInput::NoExecutor { stage, item, attempt, reason: "no executor".to_owned() }).unwrap();
                }
                4 => world.tell(RunInput::Unblock).unwrap(),
                _ if world.running.is_empty() => drop(world.pass()),
                _ => {
                    let which = world.dice.roll(world.running.len() as u64) as usize;
                    let dispatch = world.running[which].clone();
                    let result = do_work(&dispatch);
                    world.end(&dispatch, result);
                }
            }
        }
        world.verify();
        agrees(&specs, &input, &world);
    }

    #[test]
    fn a_failed_run_that_is_retried_ends_and_starts_no_finished_task_again(
        specs in specs(), list in prop::collection::vec(0u32..50, 0..9), seed in any::<u64>(), kill_one_in in 2u64..12
    ) {
        let input = json!({ "list": list, "n": 1 });
        let mut world = run(&specs, &input, seed, kill_one_in);
        if world.state() == RunState::Failed {
            // A kill before its commit loses the word; it is sent again.
            while world.state() == RunState::Failed && world.error_code() != "expression" {
                world.tell(RunInput::RetryFailed).unwrap();
            }
            world.finish(&mut |_: &Dispatch| Ok(json_bytes(&json!({ "h": 4, "in": 1 }))));
            let lasting = matches!(world.error_code().as_str(), "" | "expression");
            prop_assert!(lasting, "{}", world.error_text());
        }
    }

    #[test]
    fn a_run_that_is_killed_at_any_commit_gives_the_same_outputs_and_starts_no_ended_task_again(
        specs in specs(), list in prop::collection::vec(0u32..50, 0..9), seed in any::<u64>(), kill_one_in in 2u64..12
    ) {
        let input = json!({ "list": list, "n": 1 });
        agrees(&specs, &input, &run(&specs, &input, seed, kill_one_in));
    }
}
