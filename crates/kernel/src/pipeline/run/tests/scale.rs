//! Size: time is linear in the number of items, memory is the window's, rows are one for each task.

// Time is only measured here, in a test; nothing is decided by it.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use serde_json::json;
use std::time::Instant;

use super::world::{World, echo, json_bytes, pipeline, scatter, stage};
use crate::error::AttemptError;
use crate::machine::RunState;
use crate::pipeline::definition::Mode;
use crate::pipeline::run::{Dispatch, Effects, RunInput};
use bytes::Bytes;

/// Ends tasks in the order of their starts, 80 to a commit, and looks at nothing else.
fn drain(count: u32) -> (World, f64) {
    let mut world = World::new(pipeline(vec![scatter("each", "input.list")]), json!({ "list": (0..count).collect::<Vec<u32>>() }));
    let began = Instant::now();
    let one: Result<Bytes, AttemptError> = Ok(json_bytes(&json!(1)));
    world.settle();
    while !world.state().ended() {
        let many = world.running.len().min(80);
        let batch: Vec<Dispatch> = world.running.drain(..many).collect();
        let mut effects = Effects::default();
        for dispatch in batch {
            let ended = RunInput::TaskEnded { stage: dispatch.stage, item: dispatch.item, attempt: dispatch.attempt, result: one.clone() };
            effects.append(world.run.apply(ended, world.now).unwrap());
        }
        world.commit(effects);
        world.settle();
    }
    (world, began.elapsed().as_secs_f64())
}

#[test]
fn case_25_time_rows_and_memory_of_a_wide_scatter_are_linear() {
    let (small, small_s) = drain(2_000);
    let (large, large_s) = drain(40_000);
    assert_eq!(large.state(), RunState::Completed);
    assert!(large.most_slots <= 2_000, "{} tasks in memory", large.most_slots);
    let rows = large.rows.len() as f64 / small.rows.len() as f64;
    assert!(rows < 22.0, "rows grow {rows} times");
    let bytes = large.written_bytes as f64 / small.written_bytes as f64;
    assert!(bytes < 26.0, "bytes grow {bytes} times");
    // 20 times the items; quadratic work would take 400 times as long.
    assert!(large_s < small_s * 80.0, "{small_s} s for 2 000 items, {large_s} s for 40 000");
}

#[test]
fn a_chain_of_a_thousand_stages_ends() {
    let stages = (0..1_000).map(|n| stage(&format!("s{n}"), Mode::Single)).collect();
    let mut world = World::new(pipeline(stages), json!({}));
    assert_eq!(world.finish(&mut echo), RunState::Completed);
    assert_eq!(world.started.len(), 1_000);
}

#[test]
fn a_window_that_one_slow_item_holds_back_is_bounded_and_survives_a_kill() {
    let count = 12_000u32;
    let mut world = World::new(pipeline(vec![scatter("each", "input.list")]), json!({ "list": (0..count).collect::<Vec<u32>>() }));
    world.settle();
    let one: Result<Bytes, AttemptError> = Ok(json_bytes(&json!(1)));
    let end_all_but_the_first = |world: &mut World| loop {
        let batch: Vec<Dispatch> = world.running.iter().filter(|dispatch| dispatch.item != 0).take(80).cloned().collect();
        if batch.is_empty() {
            return;
        }
        world.running.retain(|dispatch| !batch.iter().any(|other| other.item == dispatch.item));
        let mut effects = Effects::default();
        for dispatch in batch {
            let ended = RunInput::TaskEnded { stage: dispatch.stage, item: dispatch.item, attempt: dispatch.attempt, result: one.clone() };
            effects.append(world.run.apply(ended, world.now).unwrap());
        }
        world.commit(effects);
        world.settle();
    };
    end_all_but_the_first(&mut world);
    let header = world.run.header();
    assert_eq!((header.stages[0].low, header.stages[0].cursor), (0, 10_000));
    world.kill();
    world.settle();
    let again: Vec<u32> = world.running.iter().map(|dispatch| dispatch.item).collect();
    assert_eq!(again, [0], "what has ended is not started again");
    let first = world.running[0].clone();
    world.end(&first, one.clone());
    end_all_but_the_first(&mut world);
    assert_eq!(world.state(), RunState::Completed);
    assert_eq!(world.run.header().stages[0].done, count);
    assert_eq!(world.started.len() as u32, count + 1);
}

#[test]
fn ten_thousand_events_of_a_run_are_kept_and_its_chain_fits_without_the_older_ones() {
    let mut world = World::new(pipeline(vec![stage("hold", Mode::WaitSignal { signal: "go".to_owned() })]), json!({}));
    world.settle();
    while world.commits < 9_999 {
        world.tell(RunInput::Pause { by: "ada".to_owned() }).unwrap();
        world.tell(RunInput::Resume).unwrap();
    }
    let all = world.commits;
    assert_eq!(world.events().len() as u64, all, "all of them, as long as there are not more");
    while world.commits < 10_005 {
        world.tell(RunInput::Pause { by: "ada".to_owned() }).unwrap();
        world.tell(RunInput::Resume).unwrap();
    }
    let numbers = world.event_numbers();
    assert_eq!((numbers.len(), numbers.first(), numbers.last()), (10_000, Some(&(world.commits - 10_000)), Some(&(world.commits - 1))));
    world.kill();
    world.settle();
    world.verify();
}
