//! Policies in files: asked offline, read at the start, read again when they change.

use std::path::Path;

use crate::rig::Folder;

const WAITS: &str = "selvedge: 1\nname: p\nstages: [{ name: hold, mode: wait_signal, signal: go }]\n";
const CONFIGURED: &str = "authorization: { policies: ./rules }\n";

fn page() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/policies.md")).unwrap()
}

/// The fenced blocks of a text, each with its language.
fn blocks(text: &str) -> Vec<(&str, &str)> {
    let parts: Vec<&str> = text.split("```").collect();
    parts.iter().skip(1).step_by(2).filter_map(|block| block.split_once('\n')).collect()
}

#[test]
fn each_cedar_twin_of_a_rego_rule_answers_as_the_page_says() {
    let page = page();
    let rules: Vec<&str> = page.split("\n### ").skip(1).collect();
    assert_eq!(rules.len(), 6);
    for rule in rules {
        let blocks = blocks(rule);
        let [("rego", _), ("cedar", policies), ("console", console)] = blocks[..] else { panic!("{rule}") };
        let folder = Folder::new();
        std::fs::create_dir(folder.join("policies")).unwrap();
        folder.write("policies/rule.cedar", policies);
        let mut asked = 0;
        for example in console.split("$ selvedge ").skip(1) {
            let (words, expected) = example.split_once('\n').unwrap();
            let said = folder.selvedge(&words.split(' ').collect::<Vec<_>>());
            assert_eq!(said.out, expected, "{words}: {}", said.err);
            assert_eq!(said.code, if expected.starts_with("allowed") { 0 } else { 77 }, "{words}");
            asked += 1;
        }
        assert_eq!(asked, 2, "one that is allowed and one that is denied: {console}");
    }
}

#[test]
fn page_names_every_action_with_what_it_is_asked_of() {
    let page = page();
    for action in selvedge_kernel::auth::Action::ALL {
        let declared = selvedge_adapters::cedar::SCHEMA.lines().find_map(|line| line.strip_prefix(&format!("action {action} appliesTo"))).unwrap();
        let of = declared.split_once('[').unwrap().1.split_once(']').unwrap().0;
        let of = of.split(", ").map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        assert!(page.contains(&format!("| `{action}` | {of} |")), "{action} is asked of {of}");
    }
}

#[test]
fn the_line_of_the_page_keeps_the_role_owner_what_the_built_in_rule_gave_it() {
    let page = page();
    let line = page.lines().find_map(|line| line.strip_prefix('`')?.split_once('`').map(|(line, _)| line).filter(|line| line.starts_with("permit("))).unwrap();
    let (built_in, folder) = (Folder::new(), Folder::new());
    std::fs::create_dir(folder.join("policies")).unwrap();
    folder.write("policies/owner.cedar", line);
    let asked = [["start", "pipeline:bill"], ["rewrite", "work:run_1"], ["administer", "tenant"], ["read", "store"], ["operate", "store"]];
    for (role, words) in ["owner", "clerk"].into_iter().flat_map(|role| asked.map(|words| (role, words))) {
        let codes = [&built_in, &folder].map(|folder| folder.selvedge(&[&["policy", "test", "--role", role], &words[..]].concat()).code);
        let expected = if role == "owner" && words[0] != "operate" { 0 } else { 77 };
        assert_eq!(codes, [expected, expected], "{role} {words:?}");
    }
}

#[test]
fn policies_are_asked_offline_and_their_faults_named_with_file_and_line() {
    let folder = Folder::new();
    let ask = ["policy", "test", "--role", "clerk", "start", "pipeline:bill"];
    let built_in = folder.selvedge(&ask);
    assert!(built_in.code == 77 && built_in.out.contains("wants the role `owner`") && built_in.err.contains("built in"), "{built_in:?}");
    assert_eq!(folder.selvedge(&["policy", "test", "--role", "owner", "administer", "tenant"]).code, 0);
    std::fs::create_dir_all(folder.join("rules/acme")).unwrap();
    folder.write("rules/p.cedar", "@id(\"late\")\npermit(principal, action == Action::\"start\", resource) when { context.now > datetime(\"2030-01-01\") };\n");
    folder.write("rules/acme/p.cedar", "permit(principal, action, resource);");
    folder.write("selvedge.yaml", CONFIGURED);
    let allowed = folder.json(&["policy", "test", "start", "pipeline:bill", "--at", "2031-01-01T00:00:00Z"]);
    assert_eq!(allowed, serde_json::json!({ "allowed": true, "policies": ["late"], "reason": "a policy allows it" }));
    assert_eq!(folder.selvedge(&["policy", "test", "start", "pipeline:bill", "--at", "2029-01-01T00:00:00Z"]).code, 77);
    assert_eq!(folder.selvedge(&["policy", "test", "control", "work:run_1", "--tenant", "acme"]).code, 0);
    for wrong in [["strat", "pipeline:bill"], ["start", "bill"]] {
        assert_eq!(folder.selvedge(&[&["policy", "test"], &wrong[..]].concat()).code, 64);
    }
    folder.write("rules/q.cedar", "permit(principal, action, resource);\npermit(principal, action == Action::\"strat\", resource);\n");
    let faulty = folder.selvedge(&ask);
    assert!(faulty.code == 78 && faulty.err.contains("q.cedar:2: ") && faulty.err.contains("strat"), "{faulty:?}");
    assert!(folder.selvedge(&["policy", "test", "--policies", "nowhere", "start", "pipeline:bill"]).err.contains("cannot be read"));
}

#[test]
fn a_faulty_set_starts_nothing_and_a_changed_one_is_taken_or_refused_while_it_runs() {
    let folder = Folder::new();
    std::fs::create_dir(folder.join("rules")).unwrap();
    folder.write("rules/p.cedar", "permit(");
    folder.write("selvedge.yaml", CONFIGURED);
    folder.write("p.yaml", WAITS);
    let refused = folder.selvedge(&["run", "p.yaml"]);
    assert!(refused.code == 78 && refused.err.contains("p.cedar:1: "), "{refused:?}");
    assert!(!folder.join(".selvedge").exists(), "nothing was opened");
    folder.write("rules/p.cedar", "permit(principal, action, resource);");
    let mut command = folder.command(&["run", "p.yaml"]);
    let said = std::fs::File::create(folder.join("said")).unwrap();
    let mut running = command.stderr(said).spawn().unwrap();
    folder.until_run("for the signal `go`");
    let until = |words: &str| folder.until(words, |folder| folder.lines("said").iter().any(|line| line.contains(words)));
    folder.write("rules/q.cedar", "\nforbid(principal, action, resource");
    until("the changed policies are refused, and those before them stay in force");
    until("q.cedar:2: ");
    folder.write("rules/q.cedar", "forbid(principal, action, resource);");
    until("2 policies of ");
    rustix::process::kill_process(rustix::process::Pid::from_child(&running), rustix::process::Signal::TERM).unwrap();
    running.wait().unwrap();
    let lines = folder.lines("said");
    assert_eq!(lines.iter().filter(|line| line.contains("are refused")).count(), 1, "a fault is told once: {lines:?}");
}
