//! The tasks of a run.

use selvedge_kernel::auth::Action;
use selvedge_kernel::error::Consequence;
use selvedge_kernel::limit::PAGE;
use serde_json::{Value, json};

use super::json::value;
use super::runs::run_id;
use super::{Problem, Runs};
use crate::{TaskNumber, TasksAsked};

impl Runs<'_> {
    /// Tasks of a run, one by one, in the order of its stages: `{"tasks": […], "next": …}`. `next` is the cursor of the page behind
    /// this one, null on the last.
    ///
    /// # Errors
    /// A run or a stage that there is not, a cursor that is none of ours, a page of no tasks or of too many.
    pub async fn tasks(&self, id: &str, stage: Option<String>, cursor: Option<&str>, most: Option<usize>) -> Result<Value, Problem> {
        let most = most.unwrap_or(PAGE);
        if most == 0 || most > PAGE {
            return Err(Problem::new(Consequence::FixInput, "bad_request", format!("`limit` is {most}, and a page has 1 to {PAGE} tasks")));
        }
        let from = cursor.map_or(Ok(TaskNumber::default()), number)?;
        let asked = TasksAsked { stage, from, most };
        let page = self.0.engine.run_tasks(self.0.work(Action::Read, id)?, run_id(id)?, asked).await?;
        let next = page.next.map(|next| format!("{}.{}", next.stage, next.item));
        Ok(json!({ "tasks": value(&page.tasks)?, "next": next }))
    }
}

fn number(cursor: &str) -> Result<TaskNumber, Problem> {
    let parts = cursor.split_once('.').and_then(|(stage, item)| Some(TaskNumber { stage: stage.parse().ok()?, item: item.parse().ok()? }));
    parts.ok_or_else(|| Problem::new(Consequence::FixInput, "bad_request", format!("`cursor={cursor}` is no cursor of ours: send what a page gave as `next`")))
}
