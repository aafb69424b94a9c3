//! Whatever work waits for has a schema in the document.

use selvedge_kernel::id::{ActorId, InvocationId, RunId, ShardId};
use selvedge_kernel::machine::BreakerState;
use selvedge_kernel::policy::{Rate, Span, Throttle};
use selvedge_kernel::time::Millis;
use selvedge_kernel::waiting::{Lending, Waiting};
use serde_json::json;

use super::shapes::Document;

/// One of each, the one after the other: a new one has no place here until somebody gives it one.
fn after(waiting: &Waiting, invocation: InvocationId, run: RunId) -> Option<Waiting> {
    let (name, at) = (|| "a".to_owned(), Millis(1));
    let throttle = Throttle { concurrency: Some(1), rate: Some(Rate { count: 1, per: Span(std::time::Duration::from_secs(1)) }), key: Some(name()) };
    Some(match waiting {
        Waiting::Timer { .. } => Waiting::Signal { name: name(), until: None },
        Waiting::Signal { .. } => Waiting::Call { target: ActorId { tenant: name(), kind: name(), key: name() }, handler: name(), invocation },
        Waiting::Call { .. } => Waiting::Step { name: name(), attempt: 1, since: at },
        Waiting::Step { .. } => Waiting::RetryAt { name: name(), attempt: 1, at, last_error: name(), of: Some(3) },
        Waiting::RetryAt { .. } => {
            let lending = Lending { throttle, borrowers: vec![(ShardId(1), 2)], waiting: 3 };
            Waiting::Throttle { limit: name(), position: 1, lending: Some(lending) }
        }
        Waiting::Throttle { .. } => Waiting::Breaker { target: name(), state: BreakerState::HalfOpen, since: Some(at), until: None },
        Waiting::Breaker { .. } => Waiting::Approval { stage: name(), assignees: vec![name()], expires: at },
        Waiting::Approval { .. } => Waiting::Behind { invocation },
        Waiting::Behind { .. } => Waiting::Lease { node: name() },
        Waiting::Lease { .. } => Waiting::Blocked { reason: name() },
        Waiting::Blocked { .. } => Waiting::NoExecutor { activity: name() },
        Waiting::NoExecutor { .. } => Waiting::Paused { by: name(), since: at },
        Waiting::Paused { .. } => Waiting::StoreBehind,
        Waiting::StoreBehind => Waiting::Turn { position: 1 },
        Waiting::Turn { .. } => Waiting::Commit,
        Waiting::Commit => Waiting::Tasks { stage: name(), done: 1, total: 2 },
        Waiting::Tasks { .. } => Waiting::RunLimit { key: name(), holder: run },
        Waiting::RunLimit { .. } => Waiting::Child { invocation },
        Waiting::Child { .. } => Waiting::ChildRun { stage: name(), run },
        Waiting::ChildRun { .. } => return None,
    })
}

#[test]
fn whatever_work_waits_for_has_a_schema() {
    let document = Document::new();
    let run = RunId::of("default", [7; 16]);
    let invocation = InvocationId(run.0);
    let (mut seen, mut next) = (0, Some(Waiting::Timer { until: Millis(1) }));
    while let Some(waiting) = next {
        document.fits(document.schema("Waiting"), &json!(waiting), "$").unwrap_or_else(|misfit| panic!("{waiting:?}: {misfit}"));
        next = after(&waiting, invocation, run);
        seen += 1;
    }
    assert_eq!(document.schema("Waiting")["oneOf"].as_array().unwrap().len(), seen);
}
