//! How the engine is.

use selvedge_engine::desk::{Asker, Problem, definition_of};
use selvedge_engine::exec::Standing;
use selvedge_kernel::auth::{Action, Resource};
use selvedge_kernel::pipeline::definition::{Definition, Exec, Executor};
use serde_json::{Value, json};

use crate::program;

/// The programs that work is done in, by activity: those declared for all, and those that a pipeline which is registered,
/// stored or running declares for itself, as PIPELINE.ACTIVITY.
async fn programs(asker: Asker<'_>) -> Result<Vec<(String, Exec)>, Problem> {
    let mut found: Vec<(String, Exec)> = asker.engine.programs().into_iter().collect();
    let named = Resource::Pipeline { tenant: asker.tenant(), name: String::new() };
    let mut definitions: Vec<Definition> = asker.engine.pipelines().into_values().collect();
    for stored in asker.engine.stored_definitions(asker.permit(Action::Read, named)?).await? {
        definitions.push(definition_of(&stored)?);
    }
    definitions.extend(asker.engine.open_definitions(asker.permit(Action::Read, Resource::Store)?).await?);
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

pub(super) async fn health(asker: Asker<'_>) -> Result<Value, Problem> {
    let letters = asker.engine.dead_letters(asker.permit(Action::Read, Resource::Store)?).await?.len();
    let failing: Vec<Value> = asker
        .engine
        .failing_invocations(asker.permit(Action::Read, Resource::Store)?)
        .await?
        .iter()
        .map(|line| json!({ "id": line.id.to_string(), "attempt": line.attempt }))
        .collect();
    let programs = programs(asker).await?;
    let missing: Vec<String> = programs
        .iter()
        .filter_map(|(name, exec)| {
            let missing = program::missing(&exec.command, std::path::Path::new(&exec.folder));
            missing.or_else(|| program::not_on_path(exec)).map(|(what, _)| format!("`{name}`: {what}"))
        })
        .collect();
    let census = asker.engine.census(asker.permit(Action::Operate, Resource::Store)?).await?;
    let kept = asker.engine.kept_bytes(&asker.permit(Action::Operate, Resource::Store)?)?;
    let kept: Vec<Value> = kept.iter().map(|(tenant, bytes)| json!({ "tenant": tenant, "bytes": bytes })).collect();
    let refused: Vec<Value> = asker.engine.faults().iter().map(|(which, fault)| json!({ "which": which, "fault": fault })).collect();
    Ok(json!({
        "refused": refused, "stopped": asker.engine.stopped(), "now_ms": asker.engine.now(), "dead_letters": letters, "failing": failing, "programs": programs.len(),
        "missing": missing, "limits": asker.engine.limits(), "in_memory": census, "kept": kept,
        "data_directory": data_directory(&asker.engine.data_directory()),
    }))
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
