//! The tasks of a run, one by one, a page at a time.

use selvedge_kernel::auth::{Action, Permit};
use selvedge_kernel::error::Consequence;
use selvedge_kernel::id::RunId;
use selvedge_kernel::limit::PAGE;
use selvedge_kernel::pipeline::run::{Run, TaskPlace, TaskStatus};
use selvedge_kernel::record::run::{FALLBACK_ITEM, TaskRow, item_of_task_key, task_key};
use selvedge_kernel::record::shard::Called;
use selvedge_kernel::waiting::Waiting;
use selvedge_kernel::wire;
use std::collections::BTreeMap;

use super::{Active, RunCommand};
use crate::door::tenant_for;
use crate::engine::Engine;
use crate::shard::{Shard, VerbError};
use crate::tasks::Owner;

/// Rows read at once: one may hold 64 KiB.
const ROWS: u32 = 128;

/// Which tasks of a run are wanted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TasksAsked {
    /// Of this stage alone.
    pub stage: Option<String>,
    /// From this one on.
    pub from: TaskNumber,
    /// At most so many, and never more than a page.
    pub most: usize,
}

/// Where a task stands among all of its run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct TaskNumber {
    /// Its stage, in the order of the plan.
    pub stage: u16,
    /// Its number in that stage.
    pub item: u32,
}

/// Tasks of a run, in the order of its stages.
#[derive(Clone, PartialEq, Debug)]
pub struct TaskPage {
    /// Each as it is now.
    pub tasks: Vec<TaskStatus>,
    /// The first one that is not in it; none: there are no more.
    pub next: Option<TaskNumber>,
}

impl Engine {
    /// Tasks of a run, a page at most.
    ///
    /// # Errors
    /// A run, or a stage, that there is not.
    pub async fn run_tasks(&self, permit: Permit, id: RunId, asked: TasksAsked) -> Result<TaskPage, VerbError> {
        let tenant = tenant_for(&permit, Action::Read)?;
        self.ask_run(id, |reply| RunCommand::Tasks { id, tenant, asked, reply }).await
    }
}

impl Shard {
    pub(super) async fn run_tasks(&mut self, id: RunId, tenant: &str, asked: TasksAsked) -> Result<TaskPage, VerbError> {
        let active = self.take_run(id, tenant).await?;
        let page = match only(&active.run, asked.stage.as_deref()) {
            Ok(only) => self.tasks_from(&active, only, asked.from, asked.most.min(PAGE)).await,
            Err(error) => Err(error),
        };
        self.keep(active);
        let mut page = page?;
        let own = |owner| matches!(owner, Owner::Run { run, .. } if run == id);
        let mut untaken: BTreeMap<TaskNumber, String> = BTreeMap::new();
        for (owner, activity) in self.wiring.offers.untaken(own) {
            if let Owner::Run { stage, item, .. } = owner {
                untaken.insert(TaskNumber { stage, item }, activity);
            }
        }
        for (number, task) in &mut page.tasks {
            if let Some(activity) = untaken.remove(number).filter(|_| task.status == TaskPlace::Running) {
                task.waiting.push(Waiting::NoExecutor { activity });
            }
            self.placed(id, tenant, &mut task.waiting);
        }
        Ok(TaskPage { tasks: page.tasks.into_iter().map(|(_, task)| task).collect(), next: page.next })
    }

    async fn tasks_from(&self, active: &Active, only: Option<u16>, from: TaskNumber, most: usize) -> Result<Numbered, VerbError> {
        let run = &active.run;
        let mut tasks = Vec::new();
        for stage in only.map_or(from.stage..run.planned(), |only| only.max(from.stage)..only + 1) {
            let mut item = if stage == from.stage { from.item } else { 0 };
            while item < run.tasks_of(stage) {
                if tasks.len() == most {
                    return Ok(Numbered { tasks, next: Some(TaskNumber { stage, item }) });
                }
                let room = u32::try_from(most - tasks.len()).unwrap_or(ROWS);
                let end = item.saturating_add(room.min(ROWS)).min(run.tasks_of(stage));
                let mut rows: BTreeMap<u32, TaskRow> = BTreeMap::new();
                for (key, value) in self.scan(task_key(run.id(), stage, item)..task_key(run.id(), stage, end), ROWS as usize).await? {
                    if let Some(of) = item_of_task_key(&key) {
                        rows.insert(of, wire::decode("task", &value)?);
                    }
                }
                tasks.extend((item..end).filter_map(|item| shown(active, TaskNumber { stage, item }, rows.get(&item))));
                item = end;
            }
            let fallback = TaskNumber { stage, item: FALLBACK_ITEM };
            let row = self.get(task_key(run.id(), stage, FALLBACK_ITEM)).await?;
            let row = row.map(|row| wire::decode::<TaskRow>("task", &row)).transpose()?;
            match shown(active, fallback, row.as_ref()) {
                Some(_) if tasks.len() == most => return Ok(Numbered { tasks, next: Some(fallback) }),
                task => tasks.extend(task),
            }
        }
        Ok(Numbered { tasks, next: None })
    }
}

/// A page whose tasks have their numbers.
struct Numbered {
    tasks: Vec<(TaskNumber, TaskStatus)>,
    next: Option<TaskNumber>,
}

/// A task, and the call that it waits for.
fn shown(active: &Active, number: TaskNumber, row: Option<&TaskRow>) -> Option<(TaskNumber, TaskStatus)> {
    let mut task = active.run.task_status(number.stage, number.item, row)?;
    if let Some(open) = active.called.get(&(number.stage, number.item)).filter(|_| task.status == TaskPlace::Running)
        && let (Called::Actor(invocation), Some((target, handler))) = (&open.called, &open.handler)
    {
        task.waiting.push(Waiting::Call { target: target.clone(), handler: handler.clone(), invocation: *invocation });
    }
    Some((number, task))
}

/// The number of the stage that is asked for.
fn only(run: &Run, stage: Option<&str>) -> Result<Option<u16>, VerbError> {
    let Some(stage) = stage else { return Ok(None) };
    let names: Vec<&str> = run.compiled().plan.iter().map(|stage| stage.name.as_str()).collect();
    match names.iter().position(|name| *name == stage) {
        Some(place) => Ok(u16::try_from(place).ok()),
        None => {
            let text = format!("{} has no stage `{stage}`; it has {}", run.id(), names.join(", "));
            Err(VerbError::new(Consequence::NotFound, "unknown_stage", text))
        }
    }
}
