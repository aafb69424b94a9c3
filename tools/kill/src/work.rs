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
    pub run: String,
    /// With which input.
    pub round: u64,
    /// Which item; -1 for the gathered task.
    pub item: i64,
    /// The worker's process.
    pub worker: u32,
}

/// A line of what happened outside.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub enum Note {
    /// The driver is about to start the engine; the one before is dead.
    Life {
        /// Counted from 1.
        number: u64,
    },
    /// A worker began a task.
    Task(Task),
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

/// Audits the runs. A worker has one task at a time, and results are written in the order in which they came: so what a kill
/// cut is the end of each worker's list, its last task and those whose results were not on disk yet. And the workers of a
/// killed engine note nothing any more once a worker of the next engine does (case 50).
#[must_use]
pub fn pipeline(notes: &[Note], outputs: &BTreeMap<u64, Value>) -> Audit {
    let mut audit = Audit { tried: outputs.len(), acknowledged: outputs.len(), ..Audit::default() };
    let tasks = by_life(notes, &mut audit);
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let mut keys: BTreeMap<(&str, &str, i64), &str> = BTreeMap::new();
    let mut worked = BTreeSet::new();
    let mut repeated = BTreeSet::new();
    for (at, (life, task)) in tasks.iter().enumerate() {
        if let Some(earlier) = seen.insert(&task.key, at) {
            repeated.insert(&task.key);
            let (life_before, before) = tasks[earlier];
            if life_before == *life {
                audit.broken.push(format!("{} ran twice in one life of the engine (attempts {} and {})", name(task), before.attempt, task.attempt));
            }
        }
        if *keys.entry((&task.run, &task.activity, task.item)).or_insert(&task.key) != task.key {
            audit.broken.push(format!("{} ran under a second key, {}", name(task), task.key));
        }
        worked.insert((task.round, task.item));
    }
    cut_at_the_end(&tasks, &mut audit);
    for (round, given) in outputs {
        let expected = output(*round);
        if *given != expected {
            audit.broken.push(format!("round {round} gave {given} and not {expected}"));
        }
        for item in items(*round).filter(|item| !worked.contains(&(*round, *item))) {
            audit.broken.push(format!("round {round} ended without a task for item {item}"));
        }
    }
    audit.finished = keys.len();
    audit.repeated = repeated.len();
    audit
}

/// Finds tasks that came again although the same worker did another one after them that did not.
fn cut_at_the_end(tasks: &[(u64, &Task)], audit: &mut Audit) {
    let mut later: BTreeSet<&str> = BTreeSet::new();
    let mut kept: BTreeMap<u32, &Task> = BTreeMap::new();
    for (_, task) in tasks.iter().rev() {
        if later.insert(&task.key) {
            kept.insert(task.worker, task);
        } else if let Some(kept) = kept.get(&task.worker) {
            audit.broken.push(format!("{} ran again although its worker had finished {} after it", name(task), name(kept)));
        }
    }
}

/// The tasks, each with the life of the engine whose worker did it: the one in which that worker first spoke.
fn by_life<'a>(notes: &'a [Note], audit: &mut Audit) -> Vec<(u64, &'a Task)> {
    let (mut now, mut newest) = (0, 0);
    let mut born: BTreeMap<u32, u64> = BTreeMap::new();
    let mut tasks = Vec::new();
    for note in notes {
        match note {
            Note::Life { number } => now = *number,
            Note::Task(task) => {
                let life = *born.entry(task.worker).or_insert(now);
                if life < newest {
                    audit.broken.push(format!("{} was done by a worker of a dead engine (process {})", name(task), task.worker));
                }
                newest = newest.max(life);
                tasks.push((life, task));
            }
        }
    }
    tasks
}

fn name(task: &Task) -> String {
    format!("{} {} of round {}", task.activity, task.item, task.round)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(item: i64, worker: u32) -> Note {
        let activity = if item < 0 { "total" } else { "square" }.to_owned();
        Note::Task(Task { key: format!("k{item}"), attempt: 1, activity, run: "run_1".to_owned(), round: 1, item, worker })
    }

    fn world() -> (Vec<Note>, BTreeMap<u64, Value>) {
        let tasks = items(1).chain([-1]).map(|item| task(item, 10));
        ([Note::Life { number: 2 }].into_iter().chain(tasks).collect(), BTreeMap::from([(1, output(1))]))
    }

    fn broken(change: impl FnOnce(&mut Vec<Note>, &mut BTreeMap<u64, Value>)) -> Vec<String> {
        let (mut notes, mut outputs) = world();
        change(&mut notes, &mut outputs);
        pipeline(&notes, &outputs).broken
    }

    #[test]
    fn a_sound_run_passes_and_a_task_cut_by_a_kill_is_counted() {
        let (mut notes, outputs) = world();
        notes.splice(0..0, [Note::Life { number: 1 }, task(1, 9)]);
        let audit = pipeline(&notes, &outputs);
        assert_eq!((audit.broken.len(), audit.repeated), (0, 1));
    }

    #[test]
    fn a_task_that_runs_again_after_its_worker_went_on_is_found() {
        let again = |notes: &mut Vec<Note>| {
            notes.splice(0..0, [Note::Life { number: 1 }, task(1, 9), task(2, 9), task(3, 9)]);
            notes.retain(|note| !matches!(note, Note::Task(task) if task.item == 2 && task.worker == 10));
        };
        assert_eq!(broken(|notes, _| again(notes)), ["square 1 of round 1 ran again although its worker had finished square 2 of round 1 after it"]);
        assert!(broken(|notes, _| notes.push(task(1, 10)))[0].contains("twice in one life"));
    }

    #[test]
    fn a_worker_that_outlives_its_engine_is_found() {
        let late = |notes: &mut Vec<Note>| {
            notes.splice(0..0, [Note::Life { number: 1 }, task(-2, 9)]);
            notes.push(task(-3, 9));
        };
        assert!(broken(|notes, _| late(notes)).iter().any(|line| line.contains("dead engine")));
    }

    #[test]
    fn a_wrong_output_a_missing_task_and_a_second_key_are_found() {
        assert!(broken(|_, outputs| drop(outputs.insert(1, json!(null))))[0].contains("gave null"));
        assert!(broken(|notes, _| drop(notes.remove(3)))[0].contains("without a task"));
        let second = |notes: &mut Vec<Note>| {
            if let Note::Task(task) = task(1, 10) {
                notes.push(Note::Task(Task { key: "new".to_owned(), ..task }));
            }
        };
        assert!(broken(|notes, _| second(notes))[0].contains("second key"));
    }
}
