//! What is there, and how the engine is.

use selvedge_engine::exec::Standing;
use selvedge_engine::listing::{Listed, row};
use selvedge_kernel::auth::{Action, Resource};
use selvedge_kernel::filter::List;
use selvedge_kernel::pipeline::definition::{Definition, Exec, Executor};
use serde_json::{Value, json};

use super::Problem;
use super::perform::{Asker, value};
use crate::program;

impl Asker<'_> {
    /// Actors, by type and key.
    pub(super) async fn actors(&self, filter: &str) -> Result<Value, Problem> {
        let filter = row::filter(List::Actors, filter)?;
        value(&self.engine.find_actors(self.permit(Action::Read, Resource::Store)?, &filter).await?)
    }

    pub(super) async fn invocations(&self, listed: Listed, filter: &str) -> Result<Value, Problem> {
        let filter = row::filter(List::Invocations, filter)?;
        let lines = self.engine.find_invocations(self.permit(Action::Read, Resource::Store)?, listed, &filter).await?;
        let shown = lines.iter().map(|line| {
            json!({
                "id": line.id.to_string(), "actor": line.actor, "handler": line.handler, "status": line.status,
                "attempt": line.attempt, "accepted_at": line.accepted_at.to_string(), "accepted_at_ms": line.accepted_at,
            })
        });
        Ok(Value::Array(shown.collect()))
    }

    /// The programs that work is done in, by activity: those declared for all, and those that a pipeline which is registered,
    /// stored or running declares for itself, as PIPELINE.ACTIVITY.
    async fn programs(&self) -> Result<Vec<(String, Exec)>, Problem> {
        let mut found: Vec<(String, Exec)> = self.engine.programs().into_iter().collect();
        let named = Resource::Pipeline { tenant: self.tenant.to_owned(), name: String::new() };
        let mut definitions: Vec<Definition> = self.engine.pipelines().into_values().cloned().collect();
        for stored in self.engine.stored_definitions(self.permit(Action::Read, named)?).await? {
            definitions.push(super::pipelines::definition_of(&stored)?);
        }
        definitions.extend(self.engine.open_definitions(self.permit(Action::Read, Resource::Store)?).await?);
        for definition in definitions {
            for (activity, declared) in definition.activities {
                let Executor::Exec(exec) = declared.executor else { continue };
                let program = (format!("{}.{activity}", definition.name), exec);
                if !found.contains(&program) {
                    found.push(program);
                }
            }
        }
        Ok(found)
    }

    pub(super) async fn health(&self) -> Result<Value, Problem> {
        let letters = self.engine.dead_letters(self.permit(Action::Read, Resource::Store)?).await?.len();
        let failing: Vec<Value> = self
            .engine
            .failing_invocations(self.permit(Action::Read, Resource::Store)?)
            .await?
            .iter()
            .map(|line| json!({ "id": line.id.to_string(), "attempt": line.attempt }))
            .collect();
        let programs = self.programs().await?;
        let missing: Vec<String> = programs
            .iter()
            .filter_map(|(name, exec)| {
                let missing = program::missing(&exec.command, std::path::Path::new(&exec.folder));
                missing.or_else(|| program::not_on_path(exec)).map(|(what, _)| format!("`{name}`: {what}"))
            })
            .collect();
        let census = self.engine.census(self.permit(Action::Operate, Resource::Store)?).await?;
        Ok(json!({
            "stopped": self.engine.stopped(), "now_ms": self.engine.now(), "dead_letters": letters, "failing": failing, "programs": programs.len(),
            "missing": missing, "limits": self.engine.limits(), "in_memory": census, "data_directory": data_directory(&self.engine.data_directory()),
        }))
    }
}

/// Whether programs are kept out of it, and the sentence that says so.
fn data_directory(standing: &Standing) -> Value {
    let seen = match standing {
        Standing::Shut => "programs can neither read nor change what is in it; its control socket answers them".to_owned(),
        Standing::Truncatable => "programs can neither read nor change what is in it, but cut files to nothing (Linux 6.2 keeps that too)".to_owned(),
        Standing::Open(reason) => format!("programs can do in it what this user can: {reason}"),
    };
    json!({ "shut": !matches!(standing, Standing::Open(_)), "seen": seen })
}
