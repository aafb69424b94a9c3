//! Runs that wait for somebody: approvals and signals.

use std::time::Duration;

use selvedge::{App, Definition, Signal, test};
use selvedge_kernel::machine::RunState;
use serde_json::{Value, json};

use crate::kit;
use crate::runs::{Started, doubler, end, parse, sound, start, state, until};

const SETTLED: Signal<Value> = Signal::new("settled");

fn approval(fallback: &str) -> Definition {
    parse(&format!(
        r#"
selvedge: 1
name: ask
input: {{ n: {{ type: integer }} }}
stages:
  - {{ name: review, mode: approval, assignees: ["role:finance", "user:ada"], show: "${{input.n}}", expires: 1h, fallback: {fallback}, on_failure: continue }}
  - {{ name: after, call: double, input: "${{input.n}}" }}
output: {{ review: "${{stages.review.output}}", after: "${{stages.after.output}}" }}
"#
    ))
}

#[tokio::test]
async fn an_approval_is_answered_once_by_an_assignee_also_after_a_restart() {
    let app = doubler(&Started::default(), "").pipeline(approval("reject"));
    let mut engine = test::Engine::new(app).await.unwrap();
    let id = start(&engine, "ask", json!({ "n": 4 })).await.id();
    until(&engine, id, "waiting", |status| status.state == RunState::Waiting).await;
    engine.kill_and_reopen().await.unwrap();
    let run = engine.local().run(id);
    let none = run.decide("after", true, "ada", None).await.unwrap_err().to_string();
    assert!(none.contains("asks nobody"), "{none}");
    run.decide("review", true, "ada", Some("fine")).await.unwrap();
    let second = run.decide("review", false, "ada", None).await.unwrap_err().to_string();
    assert!(second.contains("answered already: approved by ada"), "{second}");
    let output: Value = run.result().await.unwrap();
    assert_eq!(output["review"]["decision"], "approved");
    assert_eq!(output["review"]["comment"], "fine");
    assert_eq!(output["after"], 8);
    sound(&engine).await;
}

#[tokio::test]
async fn an_approval_refuses_who_is_not_assigned() {
    let text = r#"
selvedge: 1
name: ask
stages: [{ name: review, mode: approval, assignees: ["user:ada"], expires: 1h, fallback: reject }]
"#;
    let engine = test::Engine::new(App::new().pipeline(parse(text))).await.unwrap();
    let run = start(&engine, "ask", json!({})).await;
    until(&engine, run.id(), "waiting", |status| status.state == RunState::Waiting).await;
    let refused = run.decide("review", true, "eve", None).await.unwrap_err().to_string();
    assert!(refused.contains("eve may not answer") && refused.contains("user:ada"), "{refused}");
    assert_eq!(state(&engine, run.id()).await, RunState::Waiting);
}

#[tokio::test]
async fn an_approval_expires_by_its_fallback() {
    for (fallback, decision) in [("reject", "rejected"), ("approve", "approved")] {
        let mut engine = test::Engine::new(doubler(&Started::default(), "").pipeline(approval(fallback))).await.unwrap();
        let id = start(&engine, "ask", json!({ "n": 1 })).await.id();
        until(&engine, id, "waiting", |status| status.state == RunState::Waiting).await;
        engine.kill_and_reopen().await.unwrap();
        engine.advance(Duration::from_secs(3_599)).await;
        assert_eq!(state(&engine, id).await, RunState::Waiting);
        engine.advance(Duration::from_secs(2)).await;
        let output = end(&engine, id).await.unwrap();
        assert_eq!(output["review"]["decision"], decision);
        assert_eq!(output["review"]["by"], "expiry");
    }
}

#[tokio::test]
async fn a_timeout_that_races_with_a_signal_has_one_outcome_that_a_restart_keeps() {
    let text = r#"
selvedge: 1
name: race
stages: [{ name: paid, mode: wait_signal, signal: settled, timeout: { total: 10s }, on_failure: continue }]
output: { value: "${stages.paid.output}", failures: "${stages.paid.failures[].error.code}" }
"#;
    for round in 0..20u64 {
        let mut engine = test::Engine::new(App::new().pipeline(parse(text))).await.unwrap();
        let id = start(&engine, "race", json!({})).await.id();
        until(&engine, id, "waiting", |status| status.state == RunState::Waiting).await;
        engine.advance(Duration::from_millis(9_999)).await;
        let client = engine.local();
        let signal = async {
            tokio::time::sleep(Duration::from_micros(round * 37)).await;
            client.run(id).signal(SETTLED, json!("paid")).await.is_ok()
        };
        let (_, taken) = tokio::join!(engine.advance(Duration::from_millis(1)), signal);
        let output = end(&engine, id).await.unwrap();
        let (paid, late) = (json!({ "value": "paid", "failures": [] }), json!({ "value": null, "failures": ["deadline"] }));
        assert!(output == paid || output == late, "{output}");
        assert!(taken || output == late);
        engine.kill_and_reopen().await.unwrap();
        assert_eq!(engine.local().run(id).result::<Value>().await.unwrap(), output);
        sound(&engine).await;
    }
}

#[tokio::test]
async fn a_signal_that_came_early_is_kept_for_the_stage_that_waits_for_it() {
    let text = r#"
selvedge: 1
name: early
stages:
  - { name: nap, mode: sleep, for: 1h }
  - { name: paid, mode: wait_signal, signal: settled }
output: "${stages.paid.output}"
"#;
    let mut engine = test::Engine::new(App::new().pipeline(parse(text))).await.unwrap();
    let id = start(&engine, "early", json!({})).await.id();
    engine.local().run(id).signal(SETTLED, json!({ "cents": 7 })).await.unwrap();
    engine.kill_and_reopen().await.unwrap();
    engine.advance(Duration::from_secs(3_601)).await;
    assert_eq!(end(&engine, id).await.unwrap(), json!({ "cents": 7 }));
    let late = engine.local().run(id).signal(SETTLED, json!(1)).await.unwrap_err().to_string();
    assert!(late.contains("completed"), "{late}");
}

#[tokio::test]
async fn a_remark_that_is_longer_than_its_limit_is_refused_by_name_before_anything_is_decided() {
    let engine = test::Engine::new(App::new()).await.unwrap();
    let run = engine.local().run(selvedge::RunId::keyed("default", "asks", "k"));
    let said = run.decide("ask", true, "ada", Some(&"x".repeat(100_000))).await.unwrap_err().to_string();
    assert!(said.contains("the comment on `ask` has 100000 bytes, the limit is"), "{said}");
}

#[tokio::test]
async fn a_run_that_was_killed_while_it_tidied_up_after_its_end_is_tidied_up_and_leaves_after_its_retention() {
    let mut text = "selvedge: 1\nname: many\nstages:\n".to_owned();
    for n in 0..200 {
        text.push_str(&format!("  - {{ name: ask{n}, mode: approval, depends_on: [], assignees: [\"user:ada\"], expires: 1h }}\n"));
    }
    let mut engine = test::Engine::new(App::new().pipeline(parse(&text))).await.unwrap();
    let run = start(&engine, "many", json!({})).await;
    let id = run.id();
    until(&engine, id, "asking", |status| status.waiting.len() == 200).await;
    engine.settle().await;
    engine.model().hold();
    let first = async {
        while engine.model().held() == 0 {
            tokio::task::yield_now().await;
        }
        // The end is durable; the lists still have its questions.
        engine.model().release_one();
    };
    let (asked, ()) = tokio::join!(run.cancel(), first);
    asked.unwrap();
    engine.model().set_stopped(Some("the power is gone"));
    engine.model().drop_held();
    engine.settle().await;
    engine.model().set_stopped(None);
    engine.kill_and_reopen().await.unwrap();
    engine.settle().await;
    assert_eq!(state(&engine, id).await, RunState::Cancelled);
    assert_eq!(kit::rows(&engine, selvedge_kernel::record::kind::Kind::Ready), 0, "nothing of it is left to do");
    sound(&engine).await;
    engine.advance(Duration::from_secs(9 * 86_400)).await;
    engine.settle().await;
    assert!(engine.local().run(id).status().await.is_err(), "it has left");
    assert_eq!(kit::rows(&engine, selvedge_kernel::record::kind::Kind::Run), 0);
}
