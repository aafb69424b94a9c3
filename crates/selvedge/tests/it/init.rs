//! The folder that `init` makes, through a kill; and what shells and manuals know of the command line.

use crate::rig::Folder;

#[test]
fn the_run_of_a_new_folder_is_killed_and_the_same_command_goes_on_with_it() {
    let folder = Folder::new();
    assert_eq!(folder.selvedge(&["init", "."]).code, 0);
    // One word takes until there is a gate; the others are measured at once.
    let measure = std::fs::read_to_string(folder.join("measure.py")).unwrap();
    let waiting = "    import os, time\n    open('seen-' + input['word'], 'a').write('x')\n    while input['word'] == 'weft' and not os.path.exists('gate'):\n        time.sleep(0.01)\n";
    let (head, tail) = measure.split_once("    # attempt.key").unwrap();
    folder.write("measure.py", &format!("{head}{waiting}    # attempt.key{tail}"));
    let killed = folder.start(&["run", "pipeline.yaml"]);
    folder.until("two of three are measured", |folder| {
        let list = folder.selvedge(&["runs", "list", "-o", "json"]);
        let runs: serde_json::Value = serde_json::from_str(&list.out).unwrap_or_default();
        runs[0]["id"].as_str().is_some_and(|run| folder.json(&["runs", "show", run])["stages"][0]["done"] == 2)
    });
    drop(killed);
    folder.write("gate", "");
    let again = folder.selvedge(&["run", "pipeline.yaml"]);
    assert!(again.code == 0 && again.err.contains("going on with run_"), "{again:?}");
    let seen = |word: &str| std::fs::read_to_string(folder.join(&format!("seen-{word}"))).unwrap().len();
    assert_eq!((seen("warp"), seen("weft"), seen("selvedge")), (1, 2, 1), "what was finished is not done again");
    assert_eq!(folder.json(&["runs", "list"]).as_array().unwrap().len(), 1);
}

#[test]
fn completions_and_the_manual_know_every_noun() {
    let folder = Folder::new();
    let nouns = ["run", "pipelines", "runs", "schedules", "actors", "invocations", "approvals", "stuck", "dead-letters", "explain", "init"];
    for shell in ["bash", "zsh", "fish"] {
        let script = folder.selvedge(&["completions", shell]);
        assert_eq!(script.code, 0, "{shell}");
        for word in nouns.iter().chain(&["where"]) {
            assert!(script.out.contains(word), "{shell}: {word}");
        }
    }
    let page = folder.selvedge(&["man"]).out.replace("\\-", "-");
    for noun in nouns {
        assert!(page.contains(&format!("selvedge-{noun}(1)")), "{noun}");
    }
    let meant = folder.selvedge(&["start", "order"]);
    assert!(meant.code == 64 && meant.err.contains("`selvedge pipelines start NAME`"), "{meant:?}");
}
