//! `explain CODE`: what an error means, and what to do about it.

use selvedge_kernel::nearest::nearest;
use serde_json::json;

use super::args::Common;
use super::exit::{Code, Stop};
use super::print;

/// The pages of docs/errors, by their codes.
pub const PAGES: [(&str, &str); 75] = [
    ("attempts_exhausted", include_str!("../../../../docs/errors/attempts_exhausted.md")),
    ("backup_failed", include_str!("../../../../docs/errors/backup_failed.md")),
    ("bad_id", include_str!("../../../../docs/errors/bad_id.md")),
    ("bad_output", include_str!("../../../../docs/errors/bad_output.md")),
    ("bad_request", include_str!("../../../../docs/errors/bad_request.md")),
    ("bad_transition", include_str!("../../../../docs/errors/bad_transition.md")),
    ("call_cycle", include_str!("../../../../docs/errors/call_cycle.md")),
    ("cancelled", include_str!("../../../../docs/errors/cancelled.md")),
    ("closed", include_str!("../../../../docs/errors/closed.md")),
    ("compensation", include_str!("../../../../docs/errors/compensation.md")),
    ("consumed", include_str!("../../../../docs/errors/consumed.md")),
    ("deadline", include_str!("../../../../docs/errors/deadline.md")),
    ("deadlock", include_str!("../../../../docs/errors/deadlock.md")),
    ("definition", include_str!("../../../../docs/errors/definition.md")),
    ("denied", include_str!("../../../../docs/errors/denied.md")),
    ("empty", include_str!("../../../../docs/errors/empty.md")),
    ("ended", include_str!("../../../../docs/errors/ended.md")),
    ("erased", include_str!("../../../../docs/errors/erased.md")),
    ("exec_input", include_str!("../../../../docs/errors/exec_input.md")),
    ("exec_start", include_str!("../../../../docs/errors/exec_start.md")),
    ("exit_N", include_str!("../../../../docs/errors/exit_N.md")),
    ("expression", include_str!("../../../../docs/errors/expression.md")),
    ("foreign_wait", include_str!("../../../../docs/errors/foreign_wait.md")),
    ("holder_gone", include_str!("../../../../docs/errors/holder_gone.md")),
    ("http_N", include_str!("../../../../docs/errors/http_N.md")),
    ("http_body", include_str!("../../../../docs/errors/http_body.md")),
    ("http_transport", include_str!("../../../../docs/errors/http_transport.md")),
    ("idempotency_mismatch", include_str!("../../../../docs/errors/idempotency_mismatch.md")),
    ("input", include_str!("../../../../docs/errors/input.md")),
    ("joined", include_str!("../../../../docs/errors/joined.md")),
    ("json", include_str!("../../../../docs/errors/json.md")),
    ("killed", include_str!("../../../../docs/errors/killed.md")),
    ("limit", include_str!("../../../../docs/errors/limit.md")),
    ("max_failed", include_str!("../../../../docs/errors/max_failed.md")),
    ("nested_operation", include_str!("../../../../docs/errors/nested_operation.md")),
    ("no_approval", include_str!("../../../../docs/errors/no_approval.md")),
    ("no_executor", include_str!("../../../../docs/errors/no_executor.md")),
    ("no_schedule", include_str!("../../../../docs/errors/no_schedule.md")),
    ("not_assigned", include_str!("../../../../docs/errors/not_assigned.md")),
    ("not_blocked", include_str!("../../../../docs/errors/not_blocked.md")),
    ("not_json", include_str!("../../../../docs/errors/not_json.md")),
    ("not_reachable", include_str!("../../../../docs/errors/not_reachable.md")),
    ("not_started", include_str!("../../../../docs/errors/not_started.md")),
    ("open", include_str!("../../../../docs/errors/open.md")),
    ("panic", include_str!("../../../../docs/errors/panic.md")),
    ("refused", include_str!("../../../../docs/errors/refused.md")),
    ("rejected", include_str!("../../../../docs/errors/rejected.md")),
    ("restart", include_str!("../../../../docs/errors/restart.md")),
    ("run_limit", include_str!("../../../../docs/errors/run_limit.md")),
    ("schedule", include_str!("../../../../docs/errors/schedule.md")),
    ("secret_missing", include_str!("../../../../docs/errors/secret_missing.md")),
    ("shared_handler", include_str!("../../../../docs/errors/shared_handler.md")),
    ("signal_expired", include_str!("../../../../docs/errors/signal_expired.md")),
    ("start", include_str!("../../../../docs/errors/start.md")),
    ("stopped", include_str!("../../../../docs/errors/stopped.md")),
    ("store_behind", include_str!("../../../../docs/errors/store_behind.md")),
    ("store_damaged", include_str!("../../../../docs/errors/store_damaged.md")),
    ("store_stopped", include_str!("../../../../docs/errors/store_stopped.md")),
    ("timeout", include_str!("../../../../docs/errors/timeout.md")),
    ("too_few", include_str!("../../../../docs/errors/too_few.md")),
    ("unknown", include_str!("../../../../docs/errors/unknown.md")),
    ("unknown_actor_type", include_str!("../../../../docs/errors/unknown_actor_type.md")),
    ("unknown_dead_letter", include_str!("../../../../docs/errors/unknown_dead_letter.md")),
    ("unknown_handler", include_str!("../../../../docs/errors/unknown_handler.md")),
    ("unknown_invocation", include_str!("../../../../docs/errors/unknown_invocation.md")),
    ("unknown_pipeline", include_str!("../../../../docs/errors/unknown_pipeline.md")),
    ("unknown_run", include_str!("../../../../docs/errors/unknown_run.md")),
    ("unknown_schedule", include_str!("../../../../docs/errors/unknown_schedule.md")),
    ("unknown_signal", include_str!("../../../../docs/errors/unknown_signal.md")),
    ("unknown_stage", include_str!("../../../../docs/errors/unknown_stage.md")),
    ("which_approval", include_str!("../../../../docs/errors/which_approval.md")),
    ("worker_died", include_str!("../../../../docs/errors/worker_died.md")),
    ("wrong_permit", include_str!("../../../../docs/errors/wrong_permit.md")),
    ("wrong_state", include_str!("../../../../docs/errors/wrong_state.md")),
    ("wrong_type", include_str!("../../../../docs/errors/wrong_type.md")),
];

/// The page of a code: one that ends with a number or names a limit has the page of its kind.
fn page(code: &str) -> Option<(&'static str, &'static str)> {
    let code = code.trim().trim_end_matches(':');
    let kind = match code.split_once(':') {
        Some((kind, _)) => kind,
        None => code,
    };
    let numbered =
        ["http", "exit"].into_iter().find(|kind| code.strip_prefix(kind).and_then(|rest| rest.strip_prefix('_')).is_some_and(|n| n.parse::<u16>().is_ok()));
    let name = numbered.map_or_else(|| kind.to_owned(), |kind| format!("{kind}_N"));
    PAGES.into_iter().find(|(known, _)| *known == name)
}

/// What a page says first.
fn first_line(page: &str) -> &str {
    page.lines().nth(2).unwrap_or_default()
}

/// `explain [CODE]`
///
/// # Errors
/// A code that no error has.
pub fn explain(common: &Common, code: Option<&str>) -> Result<Code, Stop> {
    let Some(code) = code else {
        let all: Vec<_> = PAGES.iter().map(|(code, page)| json!({ "code": code, "what": first_line(page) })).collect();
        print::result(common.output, &json!(all), || {
            let lines: Vec<String> = PAGES.iter().map(|(code, page)| format!("{code:22}{}", first_line(page))).collect();
            lines.join("\n")
        })?;
        return Ok(Code::Done);
    };
    match page(code) {
        Some((code, page)) => print::result(common.output, &json!({ "code": code, "page": page }), || page.trim_end().to_owned())?,
        None => {
            let known = PAGES.iter().map(|(code, _)| *code);
            let near = nearest(code, known).map(|near| format!("did you mean `{near}`? ")).unwrap_or_default();
            let rest = "`selvedge explain` lists all; a code that an activity of yours has made up is not among them";
            return Err(Stop::usage(format!("no error of ours has the code `{code}`: {near}{rest}")));
        }
    }
    Ok(Code::Done)
}
