//! Configurations that are wrong: each names the key, the place and the remedy, and nothing is bound or opened.

use crate::certified::Authority;
use crate::rig::{Folder, Said};

/// One that is wrong.
struct Case {
    name: &'static str,
    files: &'static [(&'static str, &'static str)],
    variables: &'static [(&'static str, &'static str)],
    words: &'static [&'static str],
}

const CHECK: &[&str] = &["config", "check"];

/// In the file.
const fn file(name: &'static str, text: &'static [(&'static str, &'static str)]) -> Case {
    Case { name, files: text, variables: &[], words: CHECK }
}

/// In a variable.
const fn variable(name: &'static str, variables: &'static [(&'static str, &'static str)]) -> Case {
    Case { name, files: &[("selvedge.yaml", "workers: 2\n")], variables, words: CHECK }
}

/// By a flag.
const fn flag(name: &'static str, files: &'static [(&'static str, &'static str)], words: &'static [&'static str]) -> Case {
    Case { name, files, variables: &[], words }
}

const CASES: [Case; 50] = [
    file("unknown_key", &[("selvedge.yaml", "data: ./store\nworker: 3\n")]),
    file("unknown_section", &[("selvedge.yaml", "server: { port: 80 }\n")]),
    file("unknown_limit", &[("selvedge.yaml", "limits:\n  inboxes: 5\n")]),
    file("workers_of_another_type", &[("selvedge.yaml", "workers: many\n")]),
    file("workers_beyond", &[("selvedge.yaml", "workers: 5000\n")]),
    file("limit_beyond_its_maximum", &[("selvedge.yaml", "limits: { scatter_items: 100000000 }\n")]),
    file("limit_of_nothing", &[("selvedge.yaml", "limits: { inbox: 0 }\n")]),
    file("limit_in_quotes", &[("selvedge.yaml", "limits: { state_names: \"10\" }\n")]),
    file("duration_without_a_unit", &[("selvedge.yaml", "suspend_after: 10\n")]),
    file("duration_below_zero", &[("selvedge.yaml", "retention: { finished: -3d }\n")]),
    file("duration_in_months", &[("selvedge.yaml", "retention: { ledger: 1 month }\n")]),
    file("key_twice", &[("selvedge.yaml", "data: a\ndata: b\n")]),
    file("alias", &[("selvedge.yaml", "data: *d\n")]),
    file("tag", &[("selvedge.yaml", "data: !env DATA\n")]),
    file("not_yaml", &[("selvedge.yaml", "log: { level: info\n")]),
    file("a_list", &[("selvedge.yaml", "- data: a\n")]),
    file("section_of_another_type", &[("selvedge.yaml", "retention: 7d\n")]),
    file("profile_unknown", &[("selvedge.yaml", "profile: prod\n")]),
    file("test_double", &[("selvedge.yaml", "profile: production\nllm: { provider: canned }\n")]),
    file("test_double_that_allows_all", &[("selvedge.yaml", "authorization: accept_all\n")]),
    file("data_of_no_folder", &[("selvedge.yaml", "data: \"\"\n")]),
    file("listen_without_a_port", &[("selvedge.yaml", "listen: here\n")]),
    file("listen_to_others_in_the_clear", &[("selvedge.yaml", "workers: 2\nlisten: 0.0.0.0:7420\n")]),
    file("log_level", &[("selvedge.yaml", "log: { level: loud }\n")]),
    file("log_format", &[("selvedge.yaml", "log:\n  format: text\n")]),
    file("landlock", &[("selvedge.yaml", "landlock: maybe\n")]),
    file("replay_always", &[("selvedge.yaml", "replay_always: yes\n")]),
    variable("variable_of_an_unknown_section", &[("SELVEDGE__LIMIT__INBOX", "5")]),
    variable("variable_of_another_type", &[("SELVEDGE__LIMITS__INBOX", "lots")]),
    variable("variable_with_an_empty_part", &[("SELVEDGE__LIMITS____INBOX", "5")]),
    variable("variable_with_a_word_that_is_none", &[("SELVEDGE__TLS", "on")]),
    variable("two_variables", &[("SELVEDGE__WORKERS", "007"), ("SELVEDGE__LOG__LEVEL", "quiet")]),
    flag("config_that_is_not_there", &[], &["config", "check", "--config", "nowhere.yaml"]),
    flag("flag_listen", &[], &["serve", "--listen", "7420"]),
    flag("flag_listen_to_others_in_the_clear", &[], &["serve", "--listen", "0.0.0.0:7420"]),
    flag("dev_in_production", &[("selvedge.yaml", "workers: 2\nprofile: production\n")], &["dev", "--listen", "127.0.0.1:0"]),
    file("tls_of_one_file", &[("selvedge.yaml", "tls: { certificate: good.pem }\n")]),
    file("tls_of_a_file_that_is_not_there", &[("selvedge.yaml", "tls:\n  certificate: good.pem\n  key: nowhere.key\n")]),
    file("tls_that_has_ended", &[("selvedge.yaml", "tls: { certificate: old.pem, key: old.key }\n")]),
    file("tls_that_has_not_begun", &[("selvedge.yaml", "tls: { certificate: young.pem, key: young.key }\n")]),
    file("tls_of_two_pairs", &[("selvedge.yaml", "tls: { certificate: good.pem, key: other.key }\n")]),
    file("tls_the_wrong_way_round", &[("selvedge.yaml", "tls: { certificate: good.key, key: good.pem }\n")]),
    file("policies_that_are_not_there", &[("selvedge.yaml", "authorization:\n  policies: ./nowhere\n")]),
    file(
        "policies_that_cannot_be_read",
        &[("selvedge.yaml", "authorization: { policies: ./rules }\n"), ("rules/p.cedar", "\npermit(principal, action, resource\n")],
    ),
    file(
        "policies_of_an_action_that_is_none",
        &[("selvedge.yaml", "authorization: { policies: ./rules }\n"), ("rules/p.cedar", "permit(principal, action == Action::\"strat\", resource);\n")],
    ),
    file("manifest_with_an_unknown_field", &[("app.yaml", "activities:\n  head: { exec: [sh], proceses: 2 }\n")]),
    file("manifest_with_a_script_that_is_not_there", &[("app.yaml", "activities:\n  head: { exec: [python3, head.py] }\n")]),
    file(
        "manifest_with_secrets_that_are_not_there",
        &[(
            "app.yaml",
            "activities:\n  head: { exec: [sh], environment: { TOKEN: { secret: \"env:NO_SUCH_TOKEN\" } } }\n  call:\n    http:\n      url: \"https://api.example.org/\"\n      headers: { authorization: { secret: \"file:no.token\" } }\negress: [api.example.org]\n",
        )],
    ),
    file(
        "manifest_with_pipelines_that_are_wrong",
        &[("app.yaml", "pipelines: [a.yaml, b.yaml]\n"), ("a.yaml", "selvedge: 1\nname: a\nstages:\n  - { name: s, call: nothing, modee: single }\n")],
    ),
    Case {
        name: "everything_at_once",
        files: &[
            ("selvedge.yaml", "workers: many\nauthorization: { policies: ./rules }\ntls: { certificate: old.pem, key: old.key }\n"),
            ("rules/p.cedar", "permit("),
            ("app.yaml", "activities:\n  head: { exec: [python3, head.py] }\n"),
        ],
        variables: &[("SELVEDGE__LOG__LEVEL", "quiet")],
        words: &["serve", "--listen", "7420"],
    },
];

/// A folder with what the cases name, besides their own files.
fn folder(authority: &Authority) -> Folder {
    let folder = Folder::new();
    authority.sign(2020, 4000).write(folder.path(), "good");
    authority.sign(2020, 4000).write(folder.path(), "other");
    authority.sign(2019, 2020).write(folder.path(), "old");
    authority.sign(3999, 4000).write(folder.path(), "young");
    folder
}

fn said(folder: &Folder, case: &Case) -> Said {
    for (name, text) in case.files {
        if let Some((inner, _)) = name.rsplit_once('/') {
            std::fs::create_dir_all(folder.join(inner)).unwrap();
        }
        folder.write(name, text);
    }
    let output = folder.command(case.words).envs(case.variables.iter().copied()).output().unwrap();
    folder.said(output)
}

#[test]
fn fifty_broken_configurations_name_the_key_the_place_and_the_remedy_and_nothing_is_opened() {
    let authority = Authority::new();
    for case in CASES {
        let folder = folder(&authority);
        let said = said(&folder, &case);
        assert_eq!((said.code, said.out.as_str()), (78, ""), "{}: {said:?}", case.name);
        assert!(!folder.join(".selvedge").exists(), "{}: a data directory was made", case.name);
        let (errors, hints) =
            (said.err.lines().filter(|line| line.contains(": ") && !line.starts_with("  hint: ")).count(), said.err.matches("\n  hint: ").count());
        // The first line of `config check` counts them.
        let counted = usize::from(said.err.lines().next().is_some_and(|line| line.ends_with(" error") || line.ends_with(" errors")));
        assert_eq!(errors - counted, hints, "{}: each says what to do\n{}", case.name, said.err);
        insta::assert_snapshot!(format!("broken_{}", case.name), said.err);
    }
}

#[test]
fn a_server_binds_no_port_and_opens_no_store_before_all_is_right() {
    let authority = Authority::new();
    for verb in ["serve", "dev"] {
        let folder = folder(&authority);
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        folder.write("app.yaml", "activities:\n  head: { exec: [python3, head.py] }\n");
        folder.write("selvedge.yaml", "tls: { certificate: good.pem, key: other.key }\n");
        let said = folder.selvedge(&[verb, "--listen", &address]);
        assert!(said.code == 78 && said.err.contains("tls.key") && said.err.contains("head.py") && !said.err.contains(&address), "{said:?}");
        assert!(!folder.join(".selvedge").exists());
    }
}

#[test]
fn the_keys_are_looked_for_before_the_port_is_bound_and_no_work_is_done_meanwhile() {
    let folder = Folder::new();
    folder.write(
        "p.yaml",
        "selvedge: 1\nname: p\nactivities: { note: { exec: [sh, -c, 'echo ran >> ran; echo 1'], persistent: false } }\nschedule: { every: 1h }\nstages: [{ name: note, call: note }]\n",
    );
    folder.write("app.yaml", "pipelines: [p.yaml]\n");
    // Accepted by a process that does no work.
    assert_eq!(folder.selvedge(&["keys", "create", "--role", "owner"]).code, 0);
    assert_eq!(folder.selvedge(&["pipelines", "start", "p"]).code, 0);
    let id = folder.json(&["keys", "list"])[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(folder.selvedge(&["keys", "revoke", &id, "--reason", "lost"]).code, 0);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let said = folder.selvedge(&["serve", "--listen", &taken.local_addr().unwrap().to_string()]);
    assert!(said.code == 78 && said.err.contains("keys create"), "{said:?}");
    assert!(folder.lines("ran").is_empty(), "the look for keys started work");
    // Whoever does the work stores the schedules first.
    assert_eq!(folder.json(&["schedules", "list"]), serde_json::json!([]));
}

#[test]
fn what_is_right_is_said_and_secrets_that_are_missing_are_a_warning_in_development() {
    let folder = folder(&Authority::new());
    folder.write("app.yaml", "activities:\n  head: { exec: [sh], environment: { TOKEN: { secret: \"env:NO_SUCH_TOKEN\" } } }\n");
    folder.write("selvedge.yaml", "profile: development\ntls: { certificate: good.pem, key: good.key }\n");
    let found = folder.json(&["config", "check"]);
    assert_eq!((found["ok"].clone(), found["errors"].as_array().unwrap().len()), (true.into(), 0), "{found}");
    assert!(found["warnings"][0]["message"].as_str().unwrap().contains("env:NO_SUCH_TOKEN") && found["warnings"][0]["line"] == 2, "{found}");
    folder.write("selvedge.yaml", "profile: production\n");
    let said = folder.selvedge(&["config", "check", "-o", "json"]);
    assert!(said.code == 78 && said.out.contains("\"ok\": false") && said.out.contains("NO_SUCH_TOKEN"), "{said:?}");
    let there = folder.command(&["config", "check"]).env("NO_SUCH_TOKEN", "x").output().unwrap();
    assert!(there.status.success(), "{there:?}");
}
