//! One approval, as whoever is asked wants to see it before the answer.

use selvedge_kernel::auth::Action;
use selvedge_kernel::error::Consequence;
use selvedge_kernel::pipeline::run::{RunStatus, StageStatus};
use selvedge_kernel::waiting::Waiting;
use serde_json::{Value, json};

use super::Problem;
use super::json::of_bytes;
use super::runs::{Runs, decided, run_id, sentence};

impl Runs<'_> {
    /// The approval of a stage: whom it asks, what it shows, and how it was answered.
    pub async fn approval(&self, id: &str, stage: Option<String>) -> Result<Value, Problem> {
        let status = self.status(id).await?;
        let stage = of_stage(&status, stage.as_deref())?;
        let show = self.0.engine.run_shown(self.0.work(Action::Read, id)?, run_id(id)?, &stage.name).await?;
        let mut shown = json!({
            "id": stage.approval, "run": id, "pipeline": status.pipeline, "stage": stage.name, "status": "closed", "asked_at": stage.since.to_string(),
            "show": show.map_or(Value::Null, |show| of_bytes(&show)),
        });
        let asked = status.waiting.iter().find_map(|waits| match waits {
            Waiting::Approval { stage: asks, assignees, expires } if *asks == stage.name => Some((assignees, expires)),
            _ => None,
        });
        if let Some(decision) = &stage.decision {
            for (name, value) in decided(decision)?.as_object().into_iter().flatten() {
                shown[name.as_str()] = value.clone();
            }
        } else if let Some((assignees, expires)) = asked {
            shown["status"] = "open".into();
            shown["assignees"] = json!(assignees);
            shown["expires"] = expires.to_string().into();
        }
        Ok(shown)
    }
}

/// The stage that is meant: the one that is named, else the only one that asks, else the only one that asked.
fn of_stage<'a>(status: &'a RunStatus, stage: Option<&str>) -> Result<&'a StageStatus, Problem> {
    let approvals: Vec<&StageStatus> = status.stages.iter().filter(|stage| stage.approval.is_some()).collect();
    let none = |text: String| Problem::new(Consequence::Conflict, "no_approval", text);
    let names = |stages: &[&StageStatus]| stages.iter().map(|stage| format!("--stage {}", stage.name)).collect::<Vec<_>>().join(" or ");
    if let Some(stage) = stage {
        return approvals.iter().copied().find(|other| other.name == stage).ok_or_else(|| match approvals.is_empty() {
            true => none(format!("`{stage}` asks nobody, and no other stage does: {}", sentence(status))),
            false => none(format!("`{stage}` asks nobody: {} does or did", names(&approvals))),
        });
    }
    let open: Vec<&StageStatus> = approvals.iter().copied().filter(|stage| stage.decision.is_none()).collect();
    match (open[..].as_ref(), approvals[..].as_ref()) {
        ([only], _) | ([], [only]) => Ok(only),
        (_, []) => Err(none(format!("nobody is asked in it: {}", sentence(status)))),
        ([], _) => Err(Problem::new(Consequence::FixInput, "which_approval", format!("more than one stage asked: add {}", names(&approvals)))),
        _ => Err(Problem::new(Consequence::FixInput, "which_approval", format!("more than one stage asks: add {}", names(&open)))),
    }
}
