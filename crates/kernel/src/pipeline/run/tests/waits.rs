//! Approvals, sleeps, signals; pause, resume, blocked; the time of a run.

use bytes::Bytes;
use serde_json::{Value, json};

use super::world::{World, echo, json_bytes, pipeline, seconds, stage};
use crate::id::{ApprovalId, RunId};
use crate::machine::{ApprovalState, RunState};
use crate::pipeline::definition::{Concurrency, Fallback, Mode, OnFailure, SleepTime, Stage, WhenFull};
use crate::pipeline::run::{Answer, ApprovalChange, Decider, RunInput, RunRefused};
use crate::policy::Timeout;
use crate::record::line::{LineId, LineSays};
use crate::waiting::Waiting;

fn review(fallback: Fallback) -> Stage {
    let show = json!({ "cents": "${input.cents}" });
    let assignees = vec!["user:ada".to_owned(), "role:finance".to_owned()];
    stage("review", Mode::Approval { assignees, show, expires: seconds(100), fallback, escalate_to: vec!["role:board".to_owned()] })
}

fn after_review(fallback: Fallback) -> World {
    let mut definition = pipeline(vec![review(fallback), stage("after", Mode::Single)]);
    definition.output = json!("${stages.review}");
    let mut world = World::new(definition, json!({ "cents": 70_000 }));
    world.settle();
    world
}

fn approval(world: &World) -> ApprovalId {
    world.run.status().stages[0].approval.as_ref().unwrap().parse().unwrap()
}

fn by(id: &str, roles: &[&str]) -> Decider {
    Decider { id: id.to_owned(), roles: roles.iter().map(|role| (*role).to_owned()).collect() }
}

fn answer(world: &mut World, decider: Decider, answer: Answer) -> Result<(), RunRefused> {
    let approval = approval(world);
    world.tell(RunInput::Decision { approval, decider, answer, comment: Some("seen".to_owned()) })
}

#[test]
fn case_18_an_approval_is_answered_by_a_person_or_a_role_and_survives_a_restart() {
    for decider in [by("ada", &[]), by("bob", &["finance"])] {
        let mut world = after_review(Fallback::Reject);
        assert!(matches!(&world.approvals[0], ApprovalChange::Open { show, .. } if show == &Bytes::from_static(b"{\"cents\":70000}")));
        assert_eq!(world.state(), RunState::Waiting);
        assert!(matches!(&world.run.waiting()[..], [Waiting::Approval { stage, .. }] if stage == "review"));
        let id = approval(&world);
        world.kill();
        world.settle();
        assert_eq!(approval(&world), id);
        answer(&mut world, decider.clone(), Answer::Approve).unwrap();
        world.finish(&mut echo);
        let output = &world.output()["output"];
        assert_eq!((&output["decision"], &output["by"], &output["comment"]), (&json!("approved"), &json!(decider.id), &json!("seen")));
        assert!(matches!(world.approvals.last(), Some(ApprovalChange::Closed { .. })));
    }
}

#[test]
fn case_18_a_decider_who_is_not_assigned_is_refused_and_changes_nothing() {
    let mut world = after_review(Fallback::Reject);
    let refused = answer(&mut world, by("eve", &["sales"]), Answer::Approve).unwrap_err();
    assert!(matches!(refused, RunRefused::NotAssigned { .. }), "{refused}");
    assert_eq!(world.state(), RunState::Waiting);
    let stranger = RunInput::Decision { approval: ApprovalId(world.run.id().0), decider: by("ada", &[]), answer: Answer::Approve, comment: None };
    assert!(matches!(world.tell(stranger).unwrap_err(), RunRefused::NoApproval { .. }));
}

#[test]
fn case_18_a_second_answer_is_refused_also_after_a_restart() {
    let mut world = after_review(Fallback::Reject);
    answer(&mut world, by("ada", &[]), Answer::Approve).unwrap();
    world.kill();
    let refused = answer(&mut world, by("bob", &["finance"]), Answer::Reject).unwrap_err();
    assert!(matches!(&refused, RunRefused::Answered { by, state: ApprovalState::Approved, .. } if by == "ada"), "{refused}");
    world.finish(&mut echo);
    assert_eq!(world.state(), RunState::Completed);
}

#[test]
fn case_18_an_approval_expires_by_its_fallback() {
    let mut world = after_review(Fallback::Approve);
    world.later(99_000);
    assert_eq!(world.state(), RunState::Waiting);
    assert_eq!(world.finish(&mut echo), RunState::Completed);
    assert_eq!(world.output()["output"]["by"], json!("expiry"));

    let mut world = after_review(Fallback::Reject);
    world.kill();
    assert_eq!(world.finish(&mut echo), RunState::Failed);
    assert_eq!(world.error_code(), "rejected");
    assert!(world.started.is_empty());
}

#[test]
fn case_18_an_escalated_approval_asks_others_once_and_then_rejects() {
    let mut world = after_review(Fallback::Escalate);
    world.later(100_000);
    assert!(matches!(world.approvals.last(), Some(ApprovalChange::Escalated { assignees, .. }) if assignees == &["role:board"]));
    assert!(matches!(answer(&mut world, by("ada", &[]), Answer::Approve), Err(RunRefused::NotAssigned { .. })));
    world.kill();
    world.settle();
    world.later(99_000);
    assert_eq!(world.state(), RunState::Waiting);
    world.later(1_000);
    assert_eq!(world.error_code(), "rejected");

    let mut world = after_review(Fallback::Escalate);
    world.later(100_000);
    answer(&mut world, by("eve", &["board"]), Answer::Approve).unwrap();
    assert_eq!(world.finish(&mut echo), RunState::Completed);
}

#[test]
fn a_rejected_approval_with_continue_gives_the_decision_as_output() {
    let mut review = review(Fallback::Reject);
    review.on_failure = OnFailure::Continue { max_failed: None };
    let mut definition = pipeline(vec![review, stage("after", Mode::Single)]);
    definition.output = json!("${stages.review.output}");
    let mut world = World::new(definition, json!({ "cents": 1 }));
    world.settle();
    answer(&mut world, by("ada", &[]), Answer::Reject).unwrap();
    assert_eq!(world.finish(&mut echo), RunState::Completed);
    let output = world.output();
    assert_eq!((&output["decision"], &output["by"]), (&json!("rejected"), &json!("ada")));
    assert!(output["at"].as_str().unwrap().starts_with("2027-01-15T08:00:00"));
}

#[test]
fn cancel_withdraws_an_open_approval() {
    let mut world = after_review(Fallback::Approve);
    world.tell(RunInput::Cancel { by: "ada".to_owned() }).unwrap();
    assert!(matches!(world.approvals.last(), Some(ApprovalChange::Closed { .. })));
    assert!(matches!(answer(&mut world, by("ada", &[]), Answer::Approve), Err(RunRefused::Answered { state: ApprovalState::Withdrawn, .. })));
    assert_eq!(world.timer, None);
}

#[test]
fn the_end_of_a_run_with_hundreds_of_open_approvals_stays_within_commits() {
    let stages = (0..300).map(|n| Stage { name: format!("s{n}"), ..review(Fallback::Reject) }).collect();
    let mut world = World::new(super::world::graph(stages), json!({ "cents": 1 }));
    world.settle();
    assert_eq!(world.approvals.len(), 300);
    world.tell(RunInput::Cancel { by: "ada".to_owned() }).unwrap();
    assert_eq!(world.approvals.iter().filter(|change| matches!(change, ApprovalChange::Closed { .. })).count(), 300);
    world.verify();

    let stages = (0..300).map(|n| stage(&format!("s{n}"), Mode::Sleep(SleepTime::For(seconds(5))))).collect();
    let mut world = World::new(super::world::graph(stages), json!({}));
    assert_eq!(world.finish(&mut echo), RunState::Completed, "waits that end at once");
}

#[test]
fn a_sleep_ends_at_its_time_also_after_a_restart() {
    for until in [SleepTime::For(seconds(3_600)), SleepTime::Until("${input.at}".to_owned())] {
        let mut world = World::new(pipeline(vec![stage("nap", Mode::Sleep(until))]), json!({ "at": "2027-01-15T09:00:00Z" }));
        world.settle();
        assert_eq!(world.timer, Some(crate::time::Millis(1_800_003_600_000)));
        world.kill();
        world.settle();
        world.later(3_599_999);
        assert_eq!(world.state(), RunState::Waiting);
        world.later(1);
        assert_eq!(world.state(), RunState::Completed);
        assert_eq!(world.timer, None);
    }
}

#[test]
fn a_retry_found_in_the_rows_after_a_kill_gets_its_timer_although_another_task_runs() {
    let (mut slow, nap) = (stage("slow", Mode::Single), stage("nap", Mode::Sleep(SleepTime::For(seconds(10)))));
    slow.retry = Some(crate::policy::Retry::fixed(2, std::time::Duration::from_secs(100)));
    let mut world = World::new(super::world::graph(vec![slow, nap, stage("busy", Mode::Single)]), json!({}));
    world.settle();
    let dispatch = world.running[0].clone();
    world.end(&dispatch, Err(super::world::passing("busy")));
    world.kill();
    world.later(10_000);
    assert_eq!(world.running.len(), 1, "the busy one runs again");
    assert_eq!(world.armed, Some(crate::time::Millis(1_800_000_100_000)));
    world.later(90_000);
    assert_eq!(world.running.len(), 2);
}

#[test]
fn a_sleep_until_something_that_is_no_time_fails_and_says_what_is_needed() {
    let mut world = World::new(pipeline(vec![stage("nap", Mode::Sleep(SleepTime::Until("${input.at}".to_owned())))]), json!({ "at": "soon" }));
    assert_eq!(world.finish(&mut echo), RunState::Failed);
    assert!(world.error_text().contains("`soon`") && world.error_text().contains("RFC 3339"));
}

fn paid() -> Stage {
    let mut paid = stage("paid", Mode::WaitSignal { signal: "settled".to_owned() });
    paid.timeout = Some(Timeout { attempt: None, total: Some(seconds(100)) });
    paid
}

fn settled(payload: &Value) -> RunInput {
    RunInput::Signal { name: "settled".to_owned(), payload: json_bytes(payload) }
}

#[test]
fn a_signal_reaches_the_stage_that_waits_for_it() {
    let mut paid = paid();
    paid.output = json!("${result.cents}");
    let mut definition = pipeline(vec![paid]);
    definition.output = json!("${stages.paid.output}");
    let mut world = World::new(definition, json!({}));
    world.settle();
    world.tell(RunInput::Signal { name: "other".to_owned(), payload: Bytes::from_static(b"1") }).unwrap();
    assert!(matches!(&world.run.waiting()[..], [Waiting::Signal { name, until: Some(_) }] if name == "settled"));
    world.kill();
    world.tell(settled(&json!({ "cents": 5 }))).unwrap();
    assert_eq!(world.state(), RunState::Completed);
    assert_eq!(world.output(), json!(5));
    world.verify();
}

#[test]
fn signals_that_come_early_are_kept_in_order_over_restarts_and_taken_once() {
    let mut second = paid();
    second.name = "again".to_owned();
    let mut definition = pipeline(vec![stage("first", Mode::Single), paid(), second]);
    definition.output = json!(["${stages.paid.output}", "${stages.again.output}"]);
    let big = "x".repeat(100_000);
    let mut world = World::new(definition, json!({}));
    world.settle();
    world.tell(settled(&json!(big))).unwrap();
    world.tell(settled(&json!(2))).unwrap();
    world.tell(settled(&json!(3))).unwrap();
    world.kill();
    assert_eq!(world.finish(&mut echo), RunState::Completed);
    assert_eq!(world.output(), json!([big, 2]));
    assert_eq!(world.run.header().signals["settled"].len(), 1);
    assert!(world.tell(settled(&json!(4))).is_err(), "an ended run takes no signal");
}

#[test]
fn what_came_before_a_kill_and_was_not_looked_at_does_not_wait_for_a_timer() {
    let mut world = World::new(pipeline(vec![paid()]), json!({}));
    world.settle();
    assert_eq!(world.state(), RunState::Waiting);
    let effects = world.run.apply(settled(&json!(1)), world.now).unwrap();
    world.commit(effects);
    world.kill();
    assert_eq!(world.state(), RunState::Running, "so a restart activates it");
    world.settle();
    assert_eq!(world.state(), RunState::Completed);

    let mut world = after_review(Fallback::Reject);
    let decision = RunInput::Decision { approval: approval(&world), decider: by("ada", &[]), answer: Answer::Approve, comment: None };
    let effects = world.run.apply(decision, world.now).unwrap();
    world.commit(effects);
    world.kill();
    assert_eq!(world.state(), RunState::Running);
    assert_eq!(world.finish(&mut echo), RunState::Completed);
}

#[test]
fn kept_signals_are_bounded() {
    let mut world = World::new(pipeline(vec![stage("first", Mode::Single)]), json!({}));
    world.settle();
    for n in 0..1_000 {
        world.tell(settled(&json!(n))).unwrap();
    }
    assert!(world.tell(settled(&json!(0))).unwrap_err().to_string().contains("limit: signals"));
}

#[test]
fn case_56_a_signal_and_its_timeout_have_one_outcome() {
    let mut world = World::new(pipeline(vec![paid()]), json!({}));
    world.settle();
    world.later(100_000);
    assert_eq!((world.state(), world.error_code().as_str()), (RunState::Failed, "deadline"));
    world.tell(settled(&json!(1))).unwrap_err();

    let mut world = World::new(pipeline(vec![paid()]), json!({}));
    world.settle();
    world.now = crate::time::Millis(world.now.0 + 100_000);
    world.tell(settled(&json!(1))).unwrap();
    assert_eq!(world.state(), RunState::Completed, "a signal that was accepted before the timeout was seen counts");
}

#[test]
fn a_paused_run_starts_nothing_lets_running_tasks_end_and_goes_on_when_resumed() {
    let mut world = World::new(pipeline(vec![stage("first", Mode::Single), stage("second", Mode::Single)]), json!({}));
    world.settle();
    world.tell(RunInput::Pause { by: "ada".to_owned() }).unwrap();
    let dispatch = world.running[0].clone();
    world.end(&dispatch, echo(&dispatch));
    assert!(world.running.is_empty());
    assert_eq!(world.state(), RunState::Paused);
    assert!(matches!(&world.run.waiting()[0], Waiting::Paused { by, .. } if by == "ada"));
    world.kill();
    world.settle();
    assert!(world.running.is_empty());
    world.tell(RunInput::Resume).unwrap();
    assert_eq!(world.running.len(), 1);
    assert_eq!(world.finish(&mut echo), RunState::Completed);
}

#[test]
fn a_run_whose_last_task_ends_while_it_is_paused_completes_when_resumed() {
    let mut world = World::new(pipeline(vec![stage("only", Mode::Single)]), json!({}));
    world.settle();
    world.tell(RunInput::Pause { by: "ada".to_owned() }).unwrap();
    let dispatch = world.running[0].clone();
    world.end(&dispatch, echo(&dispatch));
    assert_eq!(world.state(), RunState::Paused);
    world.tell(RunInput::Resume).unwrap();
    assert_eq!(world.state(), RunState::Completed);
}

#[test]
fn a_run_whose_activity_is_gone_is_blocked_and_goes_on_when_it_is_back() {
    let mut world = World::new(pipeline(vec![stage("only", Mode::Single)]), json!({}));
    world.settle();
    let dispatch = world.running.pop().unwrap();
    let reason = "nothing here runs the activity `work`".to_owned();
    world.tell(RunInput::NoExecutor { stage: dispatch.stage, item: dispatch.item, attempt: dispatch.attempt, reason }).unwrap();
    assert_eq!(world.state(), RunState::Blocked);
    assert!(matches!(&world.run.waiting()[0], Waiting::Blocked { reason } if reason.contains("`work`")));
    world.kill();
    world.settle();
    assert!(world.running.is_empty());
    world.tell(RunInput::Unblock).unwrap();
    assert_eq!(world.running[0].attempt, 1);
    assert_eq!(world.finish(&mut echo), RunState::Completed);
}

#[test]
fn an_answer_to_a_call_that_was_sent_before_a_kill_ends_its_task_once_also_while_the_run_is_paused() {
    let mut world = World::new(pipeline(vec![super::world::scatter("calls", "input.items")]), json!({ "items": [1, 2, 3] }));
    world.settle();
    world.tell(RunInput::Pause { by: "ada".to_owned() }).unwrap();
    world.kill();
    world.settle();
    assert!(world.running.is_empty());
    let answer = |item: u32, attempt: u32| RunInput::Answered { stage: 0, item, attempt, result: Ok(json_bytes(&json!(item))) };
    world.tell(answer(1, 1)).unwrap();
    world.tell(answer(1, 1)).unwrap();
    // An answer to an attempt that was never made is nobody's.
    world.tell(answer(2, 7)).unwrap();
    let status = world.run.status();
    assert_eq!((status.state, status.stages[0].done, status.stages[0].running), (RunState::Paused, 1, 0));
    world.tell(RunInput::Resume).unwrap();
    assert_eq!(world.running.iter().map(|dispatch| dispatch.item).collect::<Vec<_>>(), [0, 2]);
    assert_eq!(world.finish(&mut echo), RunState::Completed);
    assert_eq!(world.run.status().stages[0].done, 3);
}

#[test]
fn a_line_that_was_left_behind_says_nothing_any_more_and_is_left_for_good() {
    let mut definition = pipeline(vec![stage("a", Mode::Single)]);
    definition.concurrency = Some(Concurrency { limit: 3, key: Some("input".to_owned()), when_full: WhenFull::Wait });
    let mut world = World::new(definition, json!("ada"));
    world.settle();
    let below = |n: u8, key: &str| LineId::key_below(RunId::of("default", [n; 16]), key);
    let told = |world: &mut World, asked: &str, n: u8| {
        let says = LineSays::Below { asked: asked.to_owned(), holder: RunId::of("default", [n; 16]) };
        world.tell(RunInput::Line(says)).unwrap();
        world.settle();
    };
    told(&mut world, "ada", 1);
    told(&mut world, &below(1, "ada"), 2);
    // The first line is asked twice when its answer comes only after a restart.
    told(&mut world, "ada", 1);
    let asked: Vec<(String, u32)> = world.entering.iter().map(|entering| (entering.line.key.clone(), entering.limit)).collect();
    let last = below(2, "ada");
    assert_eq!(asked, [("ada".to_owned(), 3), (below(1, "ada"), 1), (last.clone(), 1)]);
    world.kill();
    world.settle();
    assert_eq!(world.entering.last().unwrap().line.key, last, "after a kill it asks where it was sent");
    assert!(world.running.is_empty());
    world.tell(RunInput::Line(LineSays::Admitted)).unwrap();
    world.settle();
    assert_eq!(world.running.len(), 1);
    assert_eq!(world.left, ["ada"], "whoever asked it twice stands in it no more");
    assert_eq!(world.run.entering().unwrap().line.key, last, "what it leaves at its end");
}

#[test]
fn a_key_of_a_line_does_not_begin_as_those_do_that_stand_below_a_run() {
    let mut definition = pipeline(vec![stage("a", Mode::Single)]);
    definition.concurrency = Some(Concurrency { limit: 3, key: Some("input".to_owned()), when_full: WhenFull::Wait });
    let mut world = World::new(definition, json!(LineId::key_below(RunId::of("default", [1; 16]), "ada")));
    world.settle();
    assert_eq!(world.state(), RunState::Failed);
    assert!(world.error_text().contains("begins with NUL"), "{}", world.error_text());
}
