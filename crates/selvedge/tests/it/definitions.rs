//! Pipelines that are stored by name: put, shown, compared, started.

use crate::rig::Folder;

const FIRST: &str = "
selvedge: 1
name: letters
input: { word: { type: string, default: warp } }
activities:
  same: { exec: [cat], persistent: false }
schedule: { every: 1h }
stages:
  - { name: hold, mode: wait_signal, signal: go }
  - { name: out, call: same, input: \"${input.word}\" }
output: ${stages.out.output}
";

/// A folder with a data directory.
fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("nap.yaml", "selvedge: 1\nname: nap\nstages: [{ name: a, mode: sleep, for: 1ms }]\n");
    folder.write("p.yaml", FIRST);
    assert_eq!(folder.selvedge(&["run", "nap.yaml"]).code, 0);
    folder
}

fn put(folder: &Folder, text: &str) -> serde_json::Value {
    folder.write("p.yaml", text);
    folder.json(&["pipelines", "put", "p.yaml"])
}

#[test]
fn put_says_in_words_what_differs_and_the_same_again_changes_nothing() {
    let folder = folder();
    let first = put(&folder, FIRST);
    assert_eq!((first["status"].as_str(), first["before"].as_str()), (Some("new"), None));
    assert_eq!(put(&folder, FIRST)["status"], "unchanged");
    let said = {
        folder.write(
            "p.yaml",
            &FIRST.replace("name: hold, mode: wait_signal, signal: go", "name: rest, mode: sleep, for: 1ms").replace("every: 1h", "every: 2h"),
        );
        folder.selvedge(&["pipelines", "put", "p.yaml"])
    };
    assert_eq!(said.code, 0, "{}", said.err);
    for line in ["stage `hold` is removed", "stage `rest` is added", "`schedule.when.every` \"1h\" → \"2h\"", "before it was "] {
        assert!(said.out.contains(line), "{line}: {}", said.out);
    }
    let shown = folder.json(&["pipelines", "show", "letters"]);
    let versions: Vec<&str> = shown["versions"].as_array().unwrap().iter().map(|one| one["version"].as_str().unwrap()).collect();
    assert_eq!(versions.len(), 2, "the newest first");
    assert_eq!(versions[1], first["version"]);
    let diff = folder.json(&["pipelines", "diff", "letters", &versions[1][..9], &versions[0][..9]]);
    assert!(diff["changes"].as_array().unwrap().iter().any(|line| line == "stage `hold` is removed"), "{diff}");
    let old = folder.json(&["pipelines", "show", &format!("letters@{}", &versions[1][..12])]);
    assert_eq!(old["definition"]["stages"][0]["name"], "hold");
    let none = folder.selvedge(&["pipelines", "show", "letters@zzz"]);
    assert!(none.code == 64 && none.err.contains("no version of `letters` begins with `zzz`; there are "), "{none:?}");
    assert_eq!(folder.json(&["verify"])["sound"], true);
}

#[test]
fn a_file_with_errors_is_not_stored() {
    let folder = folder();
    folder.write("p.yaml", &FIRST.replace("call: same", "call: sane"));
    let said = folder.selvedge(&["pipelines", "put", "p.yaml"]);
    assert_eq!(said.code, 78);
    assert!(said.err.contains("did you mean `same`?"), "{}", said.err);
    assert_eq!(folder.json(&["pipelines", "list"]), serde_json::json!([]));
}

#[test]
fn a_run_is_pinned_to_the_version_it_was_started_with_and_a_key_starts_one_run() {
    let folder = folder();
    put(&folder, FIRST);
    let started = folder.json(&["pipelines", "start", "letters", "--input", r#"{"word":"weft"}"#, "--key", "k"]);
    let run = started["run"].as_str().unwrap();
    assert_eq!(folder.json(&["pipelines", "start", "letters", "--input", r#"{"word":"weft"}"#, "--key", "k"])["run"], run);
    let second = put(&folder, &FIRST.replace("name: hold, mode: wait_signal, signal: go", "name: rest, mode: sleep, for: 1ms"));
    let shown = folder.json(&["pipelines", "show", "letters"]);
    assert_eq!(shown["versions"].as_array().unwrap().iter().map(|one| one["open"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(shown["fires"].as_array().unwrap().len(), 5);
    assert_eq!(folder.json(&["runs", "show", run])["version"], started["version"]);
    assert_eq!(folder.selvedge(&["runs", "signal", run, "go"]).code, 0);
    assert_eq!(folder.selvedge(&["runs", "follow", run]).code, 0);
    assert_eq!(folder.json(&["runs", "show", run])["output"], "weft");
    let followed = folder.selvedge(&["pipelines", "start", "letters", "--follow"]);
    assert_eq!(followed.code, 0, "{}", followed.err);
    assert!(followed.err.contains(second["version"].as_str().unwrap()), "{}", followed.err);
    let old = folder.json(&["pipelines", "start", &format!("letters@{}", &started["version"].as_str().unwrap()[..12])]);
    assert_eq!(old["version"], started["version"]);
    assert_eq!(folder.json(&["pipelines", "list"])[0]["version"], second["version"]);
}

#[test]
fn the_last_32_versions_are_kept() {
    let folder = folder();
    let _holder = {
        folder.write("wait.yaml", "selvedge: 1\nname: wait\nstages: [{ name: a, mode: wait_signal, signal: go }]\n");
        let holder = folder.start(&["run", "wait.yaml"]);
        folder.until_run("for the signal `go`");
        holder
    };
    let mut first = String::new();
    for n in 0..34 {
        let put = put(&folder, &FIRST.replace("default: warp", &format!("default: w{n}")));
        if n == 1 {
            first = put["version"].as_str().unwrap().to_owned();
        }
    }
    let versions = folder.json(&["pipelines", "show", "letters"])["versions"].as_array().unwrap().clone();
    assert_eq!(versions.len(), 32);
    assert!(versions.iter().all(|one| one["version"] != first.as_str()));
}

#[test]
fn a_pipeline_that_app_yaml_names_is_listed_and_started_without_being_stored() {
    let folder = folder();
    folder.write("app.yaml", "pipelines: [p.yaml]\n");
    let listed = folder.json(&["pipelines", "list"]);
    assert_eq!((listed[0]["name"].as_str(), listed[0]["source"].as_str()), (Some("letters"), Some("app.yaml")));
    assert!(folder.json(&["pipelines", "start", "letters"])["run"].as_str().unwrap().starts_with("run_"));
    let unknown = folder.selvedge(&["pipelines", "start", "leters"]);
    assert!(unknown.code == 64 && unknown.err.contains("letters"), "{unknown:?}");
}
