//! `selvedge explain`, and the errors that end with it.

use crate::rig::Folder;

#[test]
fn explain_prints_the_page_of_a_code_and_lists_all_of_them() {
    let folder = Folder::new();
    let page = folder.selvedge(&["explain", "call_cycle"]);
    assert_eq!(page.code, 0, "{}", page.err);
    assert!(page.out.starts_with("# `call_cycle`\n\nA handler called an actor that waits for this very call"), "{}", page.out);
    assert_eq!(folder.json(&["explain", "limit: body"])["code"], "limit: body");
    assert_eq!(folder.json(&["explain", "http_404"])["code"], "http_N");
    let all = folder.selvedge(&["explain"]);
    assert!(all.out.lines().count() > 90 && all.out.lines().any(|line| line.starts_with("deadlock ") && line.contains("waited for each other in a ring")));
    let said = folder.selvedge(&["explain", "call_cicle"]);
    assert_eq!(said.code, 64);
    insta::assert_snapshot!(said.err, @"selvedge: no error of ours has the code `call_cicle`: did you mean `call_cycle`? `selvedge explain` lists all; a code that an activity of yours has made up is not among them");
    assert_eq!(folder.selvedge(&["explain", "card_declined"]).code, 64);
}

#[test]
fn a_run_that_fails_with_a_code_of_ours_ends_with_where_more_is_said() {
    let folder = Folder::new();
    folder.write(
        "p.yaml",
        "selvedge: 1\nname: p\nactivities:\n  no: { exec: [sh, -c, 'exit 3'], persistent: false, retry: { max_attempts: 1 } }\nstages:\n  - { name: a, call: no }\n",
    );
    let said = folder.selvedge(&["run", "p.yaml"]);
    assert_eq!(said.code, 1);
    let last = said.err.lines().last().unwrap_or_default().to_owned();
    let code = last.strip_prefix("  more: selvedge explain ").unwrap_or_else(|| panic!("{}", said.err));
    assert_eq!(folder.selvedge(&["explain", code]).code, 0);
}
