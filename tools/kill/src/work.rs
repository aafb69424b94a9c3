//! The audit of the killed pipeline: what its workers noted, against what its runs gave.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::audit::Audit;

/// Items of one run.
pub const ITEMS: i64 = 60;

/// A task that a worker began, as it noted it outside.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Task {
    /// The idempotency key that it was given.
    pub key: String,
    /// The attempt's number, from 1.
    pub attempt: u32,
    /// The activity.
    pub activity: String,
    /// Which run.
    pub round: u64,
    /// Which item; -1 for the gathered task.
    pub item: i64,
    /// The worker's process.
    pub worker: u32,
    /// The process that started the worker.
    pub engine: u32,
}

/// The input of a run.
#[must_use]
pub fn input(round: u64) -> Value {
    json!({"round": round, "items": items(round).collect::<Vec<_>>()})
}

/// The output that an undisturbed run gives.
#[must_use]
pub fn output(round: u64) -> Value {
    let squares: Vec<i64> = items(round).map(|item| item * item).collect();
    json!({"sum": squares.iter().sum::<i64>(), "squares": squares})
}

fn items(round: u64) -> impl Iterator<Item = i64> {
    let first = round as i64;
    first..first + ITEMS
}

/// Audits the runs. A worker has one task at a time, so only its last one can have been cut by a kill; and the workers of a
/// killed engine note nothing any more once the next engine's workers do (case 50).
#[must_use]
pub fn pipeline(tasks: &[Task], outputs: &BTreeMap<u64, Value>) -> Audit {
    let mut audit = Audit { tried: outputs.len(), ..Audit::default() };
    let mut last_of_worker: BTreeMap<(u32, u32), usize> = BTreeMap::new();
    for (at, task) in tasks.iter().enumerate() {
        last_of_worker.insert((task.engine, task.worker), at);
    }
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let mut keys: BTreeMap<(u64, &str, i64), &str> = BTreeMap::new();
    let mut gone: BTreeSet<u32> = BTreeSet::new();
    let mut engine = tasks.first().map(|task| task.engine);
    let mut repeated = BTreeSet::new();
    for (at, task) in tasks.iter().enumerate() {
        let name = format!("{} {} of round {}", task.activity, task.item, task.round);
        if let Some(earlier) = seen.insert(&task.key, at) {
            repeated.insert(&task.key);
            let before = &tasks[earlier];
            if before.engine == task.engine {
                audit.broken.push(format!("{name} ran twice in one life of the engine (attempts {} and {})", before.attempt, task.attempt));
            } else if last_of_worker.get(&(before.engine, before.worker)) != Some(&earlier) {
                audit.broken.push(format!("{name} ran again although its worker had gone on to other tasks"));
            }
        }
        if *keys.entry((task.round, &task.activity, task.item)).or_insert(&task.key) != task.key {
            audit.broken.push(format!("{name} ran under a second key, {}", task.key));
        }
        if engine != Some(task.engine) {
            gone.extend(engine);
            engine = Some(task.engine);
        }
        if gone.contains(&task.engine) {
            audit.broken.push(format!("{name} was done by a worker of a dead engine (process {})", task.engine));
        }
    }
    for (round, given) in outputs {
        let expected = output(*round);
        if *given != expected {
            audit.broken.push(format!("round {round} gave {given} and not {expected}"));
        }
        for item in items(*round).filter(|item| !keys.contains_key(&(*round, "square", *item))) {
            audit.broken.push(format!("round {round} ended without a task for item {item}"));
        }
    }
    audit.acknowledged = outputs.len();
    audit.finished = keys.len();
    audit.repeated = repeated.len();
    audit
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(item: i64, worker: u32, engine: u32) -> Task {
        let activity = if item < 0 { "total" } else { "square" }.to_owned();
        Task { key: format!("k{item}"), attempt: 1, activity, round: 1, item, worker, engine }
    }

    fn world() -> (Vec<Task>, BTreeMap<u64, Value>) {
        let tasks = items(1).chain([-1]).map(|item| task(item, 10, 1)).collect();
        (tasks, BTreeMap::from([(1, output(1))]))
    }

    fn broken(change: impl FnOnce(&mut Vec<Task>, &mut BTreeMap<u64, Value>)) -> Vec<String> {
        let (mut tasks, mut outputs) = world();
        change(&mut tasks, &mut outputs);
        pipeline(&tasks, &outputs).broken
    }

    #[test]
    fn a_sound_run_passes_and_a_task_cut_by_a_kill_is_counted() {
        let (mut tasks, outputs) = world();
        tasks.insert(0, task(1, 9, 0));
        let audit = pipeline(&tasks, &outputs);
        assert_eq!((audit.broken.len(), audit.repeated), (0, 1));
    }

    #[test]
    fn a_task_that_runs_again_after_its_worker_went_on_is_found() {
        let again = |tasks: &mut Vec<Task>| tasks.splice(0..0, [task(1, 9, 0), task(2, 9, 0)]).for_each(drop);
        assert!(broken(|tasks, _| again(tasks))[0].contains("gone on to other tasks"));
        assert!(broken(|tasks, _| tasks.push(task(1, 10, 1)))[0].contains("twice in one life"));
    }

    #[test]
    fn a_worker_that_outlives_its_engine_is_found() {
        assert!(broken(|tasks, _| tasks.splice(2..2, [task(-2, 9, 0)]).for_each(drop)).iter().any(|line| line.contains("dead engine")));
    }

    #[test]
    fn a_wrong_output_a_missing_task_and_a_second_key_are_found() {
        assert!(broken(|_, outputs| drop(outputs.insert(1, json!(null))))[0].contains("gave null"));
        assert!(broken(|tasks, _| drop(tasks.remove(3)))[0].contains("without a task"));
        assert!(broken(|tasks, _| tasks.push(Task { key: "new".to_owned(), ..task(1, 10, 1) }))[0].contains("second key"));
    }
}
