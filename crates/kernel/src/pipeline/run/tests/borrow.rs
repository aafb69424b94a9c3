//! Tasks that share limits with other runs.

use std::collections::BTreeMap;

use serde_json::json;

use super::world::{World, pipeline, scatter, stage};
use crate::pipeline::compiled::Compiled;
use crate::pipeline::definition::{Branch, Call, Compensate, Definition, Executor, Http, Mode, Rest};
use crate::pipeline::run::{Command, RunInput};
use crate::policy::{Breaker, Throttle};
use crate::waiting::Waiting;

/// Ten links over three hosts, two at once for each.
fn links() -> World {
    let mut each = scatter("each", "input.list");
    each.throttle = Some(Throttle { concurrency: Some(2), rate: None, key: Some("host(item)".to_owned()) });
    let list: Vec<String> = (0..10).map(|n| format!("https://h{}.example/{n}", n % 3)).collect();
    let mut world = World::new(pipeline(vec![each]), json!({ "list": list }));
    world.settle();
    world
}

fn asked(world: &World) -> Vec<(u32, u64, String)> {
    let asked = world.borrows.iter().filter_map(|command| match command {
        Command::Borrow { item, number, limit, .. } => Some((*item, *number, limit.key.clone())),
        _ => None,
    });
    asked.collect()
}

#[test]
fn a_task_with_a_keyed_throttle_starts_when_its_permit_comes_and_those_behind_it_do_not_wait_for_it() {
    let mut world = links();
    assert!(world.running.is_empty(), "nothing starts without a permit");
    let asks = asked(&world);
    assert_eq!(asks.iter().map(|ask| ask.0).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
    assert_eq!(asks[1].2, "stage test.each[h1.example]");
    let waits: Vec<_> = world.run.waiting().into_iter().filter(|waiting| matches!(waiting, Waiting::Throttle { .. })).collect();
    assert_eq!(waits.len(), 3, "one for each host: {waits:?}");
    world.tell(RunInput::Admitted { stage: 0, item: 7, number: asks[7].1 }).unwrap();
    world.tell(RunInput::Admitted { stage: 0, item: 8, number: asks[7].1 }).unwrap();
    assert_eq!(world.running.iter().map(|dispatch| dispatch.item).collect::<Vec<_>>(), [7], "a permit under another number is not its own");
}

#[test]
fn a_pause_gives_back_what_was_not_started_and_going_on_asks_again() {
    let mut world = links();
    let first = asked(&world);
    world.tell(RunInput::Admitted { stage: 0, item: 0, number: first[0].1 }).unwrap();
    world.tell(RunInput::Pause { by: "ada".to_owned() }).unwrap();
    assert_eq!(world.borrows.last(), Some(&Command::GiveBack { stage: 0, item: None }));
    world.tell(RunInput::Admitted { stage: 0, item: 1, number: first[1].1 }).unwrap();
    assert_eq!(world.running.len(), 1, "a permit on its way starts nothing in a pause");
    world.tell(RunInput::Resume).unwrap();
    let again: BTreeMap<u32, u64> = asked(&world).into_iter().skip(10).map(|ask| (ask.0, ask.1)).collect();
    assert_eq!(again.keys().copied().collect::<Vec<_>>(), (1..10).collect::<Vec<_>>());
    world.tell(RunInput::Admitted { stage: 0, item: 1, number: first[1].1 }).unwrap();
    assert_eq!(world.running.len(), 1);
    world.tell(RunInput::Admitted { stage: 0, item: 1, number: again[&1] }).unwrap();
    assert_eq!(world.running.len(), 2);
}

/// Found by the simulation (seed 3209): each such permit was held for ever, and those behind it waited as long.
#[test]
fn a_task_whose_call_is_answered_while_it_asks_for_a_permit_gives_it_back() {
    let mut world = links();
    let asks = asked(&world);
    world.tell(RunInput::Answered { stage: 0, item: 1, attempt: 1, result: Ok("1".into()) }).unwrap();
    assert_eq!(world.borrows.last(), Some(&Command::GiveBack { stage: 0, item: Some(1) }), "it was about to ask");
    world.tell(RunInput::Admitted { stage: 0, item: 1, number: asks[1].1 }).unwrap();
    assert!(world.running.is_empty(), "a permit that comes all the same starts nothing");
}

#[test]
fn a_key_that_is_null_fails_the_task_and_says_which_throttle() {
    let mut each = scatter("each", "input.list");
    each.throttle = Some(Throttle { concurrency: Some(2), rate: None, key: Some("item.host".to_owned()) });
    let mut world = World::new(pipeline(vec![each]), json!({ "list": [{}] }));
    world.settle();
    assert_eq!(world.error_code(), "expression");
    assert!(world.run.status().error.unwrap().message.contains("`throttle.key` of stage test.each is null"));
}

#[test]
fn the_throttle_of_an_activity_is_one_for_all_who_call_it_and_the_one_of_a_stage_replaces_it() {
    let mut definition = pipeline(vec![scatter("each", "input.list")]);
    definition.activities.get_mut("work").unwrap().throttle = Some(Throttle { concurrency: Some(2), rate: None, key: Some("input.tenant".to_owned()) });
    let mut world = World::new(definition.clone(), json!({ "list": [{ "tenant": "a" }, { "tenant": "b" }] }));
    world.settle();
    assert_eq!(asked(&world).into_iter().map(|ask| ask.2).collect::<Vec<_>>(), ["activity work[a]", "activity work[b]"]);
    definition.stages[0].throttle = Some(Throttle { concurrency: Some(1), ..Throttle::default() });
    let mut world = World::new(definition, json!({ "list": [{ "tenant": "a" }, { "tenant": "b" }] }));
    world.settle();
    assert_eq!((asked(&world).len(), world.running.len()), (0, 1));
}

#[test]
fn what_undoes_a_stage_with_a_keyed_throttle_keeps_the_rest_of_it_in_its_run() {
    let mut each = scatter("each", "input.list");
    each.throttle = Some(Throttle { concurrency: Some(2), rate: None, key: Some("item".to_owned()) });
    each.compensate = Some(Compensate { call: Call::Activity("work".to_owned()), input: json!(null), retry: None, timeout: None });
    let compiled = Compiled::new(pipeline(vec![each]), "1".to_owned()).unwrap();
    assert_eq!(compiled.plan[1].throttle, Some(Throttle { concurrency: Some(2), ..Throttle::default() }));
    assert!(compiled.stages[0].tasks[0].limit.is_some() && compiled.stages[1].tasks[0].limit.is_none());
}

/// What was asked of breakers.
fn asked_breakers(world: &World) -> Vec<(u32, u64, String)> {
    let asked = world.borrows.iter().filter_map(|command| match command {
        Command::AskBreaker { item, number, limit, .. } => Some((*item, *number, limit.key.clone())),
        _ => None,
    });
    asked.collect()
}

#[test]
fn a_task_asks_its_breaker_first_and_then_its_limit_and_a_stages_breaker_replaces_the_activitys() {
    let mut definition = pipeline(vec![scatter("each", "input.list")]);
    let own = definition.activities.get_mut("work").unwrap();
    own.breaker = Some(Breaker::default());
    own.throttle = Some(Throttle { concurrency: Some(2), ..Throttle::default() });
    let mut world = World::new(definition.clone(), json!({ "list": [1, 2] }));
    world.settle();
    let breakers = asked_breakers(&world);
    assert_eq!(breakers.iter().map(|ask| ask.2.as_str()).collect::<Vec<_>>(), ["breaker of activity work"; 2]);
    assert!(asked(&world).is_empty() && world.running.is_empty(), "who is not let through takes no place");
    assert!(world.run.waiting().iter().any(|waiting| matches!(waiting, Waiting::Breaker { target, .. } if target == "activity work")));
    world.tell(RunInput::Admitted { stage: 0, item: 1, number: breakers[1].1 }).unwrap();
    let limits = asked(&world);
    assert_eq!(limits.iter().map(|ask| (ask.0, ask.2.as_str())).collect::<Vec<_>>(), [(1, "activity work")]);
    world.tell(RunInput::Admitted { stage: 0, item: 1, number: limits[0].1 }).unwrap();
    assert_eq!(world.running.iter().map(|dispatch| dispatch.item).collect::<Vec<_>>(), [1]);
    definition.stages[0].breaker = Some(Breaker { failures: 1, ..Breaker::default() });
    definition.stages[0].throttle = Some(Throttle { concurrency: Some(1), ..Throttle::default() });
    let mut world = World::new(definition, json!({ "list": [1, 2] }));
    world.settle();
    let breakers = asked_breakers(&world);
    assert_eq!(breakers[0].2, "breaker of stage test.each");
    for (item, number, _) in breakers {
        world.tell(RunInput::Admitted { stage: 0, item, number }).unwrap();
    }
    assert_eq!((asked(&world).len(), world.running.len()), (0, 1), "let through, they wait for the run's own throttle");
}

#[test]
fn a_pause_takes_tasks_back_from_their_breaker_and_they_ask_it_again() {
    let mut definition = pipeline(vec![scatter("each", "input.list")]);
    let own = definition.activities.get_mut("work").unwrap();
    own.breaker = Some(Breaker::default());
    own.throttle = Some(Throttle { concurrency: Some(2), ..Throttle::default() });
    let mut world = World::new(definition, json!({ "list": [1] }));
    world.settle();
    let first = asked_breakers(&world)[0].1;
    world.tell(RunInput::Admitted { stage: 0, item: 0, number: first }).unwrap();
    world.tell(RunInput::Pause { by: "ada".to_owned() }).unwrap();
    assert_eq!(world.borrows.last(), Some(&Command::GiveBack { stage: 0, item: None }));
    world.tell(RunInput::Resume).unwrap();
    let again = asked_breakers(&world);
    assert!(again.len() == 2 && asked(&world).len() == 1, "{:?}", world.borrows);
    world.tell(RunInput::Admitted { stage: 0, item: 0, number: again[1].1 }).unwrap();
    let limit = asked(&world)[1].1;
    world.tell(RunInput::Admitted { stage: 0, item: 0, number: limit }).unwrap();
    assert_eq!(world.running.len(), 1);
}

#[test]
fn a_task_whose_breaker_opened_before_it_started_gives_back_what_it_has_and_asks_again() {
    let mut definition = pipeline(vec![scatter("each", "input.list")]);
    let own = definition.activities.get_mut("work").unwrap();
    own.breaker = Some(Breaker::default());
    own.throttle = Some(Throttle { concurrency: Some(2), ..Throttle::default() });
    let mut world = World::new(definition, json!({ "list": [1, 2, 3] }));
    world.settle();
    let passes = asked_breakers(&world);
    for (item, number, _) in &passes {
        world.tell(RunInput::Admitted { stage: 0, item: *item, number: *number }).unwrap();
    }
    let limits = asked(&world);
    world.tell(RunInput::Admitted { stage: 0, item: 0, number: limits[0].1 }).unwrap();
    assert_eq!(world.running.len(), 1);
    for item in 0..3 {
        world.tell(RunInput::Recalled { stage: 0, item }).unwrap();
    }
    let again = asked_breakers(&world).split_off(3);
    assert_eq!(again.iter().map(|ask| ask.0).collect::<Vec<_>>(), [1, 2], "what has started goes on");
    let back = world.borrows.iter().filter(|command| matches!(command, Command::GiveBack { item: Some(1 | 2), .. })).count();
    assert_eq!(back, 2);
    world.tell(RunInput::Admitted { stage: 0, item: 1, number: limits[1].1 }).unwrap();
    assert_eq!(world.running.len(), 1, "a place without a pass starts nothing");
    world.tell(RunInput::Recalled { stage: 9, item: 0 }).unwrap();
}

fn breakers_of(definition: Definition, input: serde_json::Value) -> Vec<String> {
    let mut world = World::new(definition, input);
    world.settle();
    asked_breakers(&world).into_iter().map(|ask| ask.2).collect()
}

#[test]
fn each_host_that_an_http_activity_reaches_and_each_target_of_a_stage_has_a_breaker_of_its_own() {
    let with_url = |url: &str| {
        let mut definition = pipeline(vec![scatter("each", "input.list")]);
        definition.stages[0].input = json!({ "url": "${item}" });
        let http = Http { method: "GET".to_owned(), url: url.to_owned(), headers: BTreeMap::new(), body: None, redirects: 0, folder: String::new() };
        let own = definition.activities.get_mut("work").unwrap();
        (own.executor, own.breaker) = (Executor::Http(http), Some(Breaker::default()));
        definition
    };
    let list = json!({ "list": ["https://A.example:8443/x", "b.example", "https://a.example/y"] });
    let names = |of: [&str; 3]| of.map(|of| format!("breaker of {of}")).to_vec();
    assert_eq!(
        breakers_of(with_url("${input.url}"), list.clone()),
        names(["activity work[a.example]", "activity work", "activity work[a.example]"]),
        "what has no host says so when it is tried"
    );
    assert_eq!(breakers_of(with_url("https://api.example/${input.url}"), list), names(["activity work"; 3]), "a host that is written is the only one");
    let mut staged = with_url("http://${input.url}");
    staged.stages[0].breaker = Some(Breaker::default());
    let hosts = json!({ "list": ["a.example/x", "b.example"] });
    assert_eq!(breakers_of(staged, hosts), ["breaker of stage test.each[a.example]", "breaker of stage test.each[b.example]"]);
    let call = |name: &str| Branch { item: json!(name), call: Call::Activity(name.to_owned()), input: json!(1) };
    let mode = Mode::Fork { branches: vec![call("mail"), call("work")], by_name: true, first: false, rest: Rest::Cancel };
    let mut definition = pipeline(vec![stage("tell", mode)]);
    definition.activities.insert("mail".to_owned(), definition.activities["work"].clone());
    definition.stages[0].breaker = Some(Breaker::default());
    assert_eq!(breakers_of(definition, json!({})), ["breaker of stage test.tell (mail)", "breaker of stage test.tell (work)"]);
}
