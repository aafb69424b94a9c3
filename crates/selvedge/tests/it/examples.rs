//! The examples that are programs of other languages, executed as their pages say.

use std::path::{Path, PathBuf};
use std::process::Command;

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name)
}

/// Runs the script that a newcomer runs, with the binary that is tested, in a folder that goes with the test.
fn tried(name: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let script = example(name).join("try.py");
    let done = Command::new("python3").arg(script).arg(env!("CARGO_BIN_EXE_selvedge")).arg(folder.path().join("work")).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&done.stdout).into_owned(), String::from_utf8_lossy(&done.stderr).into_owned());
    assert!(done.status.success() && out.contains("claims hold"), "{out}\n{err}");
    out
}

#[test]
fn orders_of_the_example_are_shipped_approved_declined_and_undone_and_one_survives_two_kills() {
    let out = tried("order");
    assert!(!out.contains('✗') && out.contains("the card was charged once"), "{out}");
}

/// The pipeline of an example, behind the line for editors.
fn pipeline_of(name: &str) -> String {
    let text = std::fs::read_to_string(example(name).join("pipeline.yaml")).unwrap();
    text.split_once("pipeline.schema.json\n").unwrap().1.to_owned()
}

#[test]
fn the_order_is_the_one_of_the_kernels_whole_programs_word_for_word() {
    let whole = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernel/tests/data/whole/order.yaml")).unwrap();
    assert_eq!(pipeline_of("order"), whole);
}

#[test]
fn documents_of_the_example_go_through_a_kill_an_approval_an_escalation_and_their_schedule() {
    let out = tried("document-intake");
    assert!(!out.contains('✗') && out.contains("role:records is asked"), "{out}");
}

#[test]
fn the_document_intake_is_the_one_of_the_kernels_whole_programs_word_for_word() {
    let whole = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernel/tests/data/whole/document_intake.yaml")).unwrap();
    assert_eq!(pipeline_of("document-intake"), whole);
}

#[test]
fn workers_of_the_example_are_killed_stalled_left_alone_and_sent_away_and_each_task_is_done_once() {
    let out = tried("workers");
    assert!(!out.contains('✗') && out.contains("comes too late, is refused, and it says so") && out.contains("revoked"), "{out}");
}
