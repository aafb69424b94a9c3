//! The command line, asking a server: the same verbs, the same output, the same codes.

use serde_json::Value;

use crate::rig::{Folder, Running, Said};

const PIPELINE: &str = "selvedge: 1
name: asked
input:
  n: { type: integer, default: 1 }
stages:
  - name: ask
    mode: approval
    assignees: [role:somebody]
    expires: 1d
    fallback: reject
output: ${input.n}
";

struct Both {
    folder: Folder,
    server: Running,
    address: String,
    key: String,
}

impl Both {
    fn new() -> Both {
        let folder = Folder::new();
        folder.write("pipeline.yaml", PIPELINE);
        let mut server = folder.start(&["dev", "--listen", "127.0.0.1:0"]);
        let line = server.line();
        let address = format!("http://{}", line.rsplit("http://").next().unwrap());
        let key = std::fs::read_to_string(folder.join(".selvedge/dev.key")).unwrap().trim().to_owned();
        Both { folder, server, address, key }
    }

    /// Asks the server.
    fn remote(&self, words: &[&str]) -> Said {
        let away = Folder::new();
        let mut command = away.command(words);
        std::fs::copy(self.folder.join("pipeline.yaml"), away.join("pipeline.yaml")).unwrap();
        let output = command.env("SELVEDGE_SERVER", &self.address).env("SELVEDGE_KEY", &self.key).output().unwrap();
        assert!(!away.join(".selvedge").exists(), "{words:?} made a data directory where a server was asked");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Said { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }

    fn json(&self, words: &[&str]) -> Value {
        let said = self.remote(&[words, &["-o", "json"]].concat());
        assert_eq!(said.code, 0, "{words:?}: {said:?}");
        serde_json::from_str(&said.out).unwrap()
    }
}

/// Without the ages, which go on between two questions.
fn steady(text: &str) -> Vec<String> {
    text.split_whitespace().map(|word| if word.parse::<f64>().is_ok() { "N".to_owned() } else { word.to_owned() }).collect()
}

#[test]
fn verbs_on_a_server_print_what_they_print_on_its_data_directory() {
    let both = Both::new();
    assert_eq!(both.json(&["pipelines", "put", "pipeline.yaml"])["status"], "new");
    let run = both.json(&["pipelines", "start", "asked", "--input", "{\"n\": 3}", "--key", "k"])["run"].as_str().unwrap().to_owned();
    both.folder.until_run("approval");
    for words in [
        &["runs", "list"][..],
        &["runs", "list", "--where", "status:waiting pipeline:asked"],
        &["runs", "show", &run],
        &["runs", "journal", &run],
        &["why", &run],
        &["approvals", "list"],
        &["approvals", "show", &run],
        &["pipelines", "list"],
        &["pipelines", "show", "asked"],
        &["schedules", "list"],
        &["dead-letters", "list"],
        &["invocations", "list"],
        &["actors", "list"],
        &["stuck", "--longer-than", "1d"],
        &["keys", "list"],
        &["policy", "decisions"],
        &["policy", "decisions", "--shadow"],
    ] {
        for form in ["text", "json"] {
            let words = [words, &["-o", form]].concat();
            let (there, here) = (both.remote(&words), both.folder.selvedge(&words));
            assert_eq!((there.code, steady(&there.out)), (here.code, steady(&here.out)), "{words:?}");
        }
    }
    // What is refused ends with the same code and the same words.
    for words in [
        &["runs", "show", "run_nosuch"][..],
        &["runs", "resume", &run],
        &["runs", "list", "--where", "nosuch:1"],
        &["pipelines", "show", "nosuch"],
        &["actors", "call", "nosuch/a", "add"],
        &["schedules", "fire", "asked"],
    ] {
        let (there, here) = (both.remote(words), both.folder.selvedge(words));
        assert_eq!((there.code, there.err), (here.code, here.err), "{words:?}");
    }
    assert_eq!(both.remote(&["runs", "pause", &run]).code, 0);
    assert_eq!(both.remote(&["runs", "resume", &run]).code, 0);
    let followed = both.folder.start(&["runs", "follow", &run, "--server", &both.address]);
    drop(followed);
    assert_eq!(both.remote(&["runs", "cancel", &run]).code, 0);
    let followed = both.remote(&["runs", "follow", &run]);
    assert!(followed.out.contains("cancelled") || followed.err.contains("cancelled"), "{followed:?}");
    both.server.signal("TERM");
}

#[test]
fn a_server_is_not_asked_without_a_key_and_what_is_done_beside_the_data_says_so() {
    let mut both = Both::new();
    let said = both.folder.selvedge(&["runs", "list", "--server", &both.address]);
    assert!(said.code == 77 && said.err.contains("SELVEDGE_KEY"), "{said:?}");
    let backup = both.remote(&["backup", "--to", "copy"]);
    assert!(backup.code == 64 && backup.err.contains("where the data directory is"), "{backup:?}");
    let doctor = both.remote(&["doctor"]);
    assert!(doctor.code != 0 && doctor.err.contains("where the data directory is"), "{doctor:?}");
    both.key = "slv_nobody".to_owned();
    let unknown = both.remote(&["runs", "list"]);
    assert!(unknown.code == 77 && unknown.err.contains("no valid credential"), "{unknown:?}");
    both.address = "ftp://127.0.0.1".to_owned();
    let other = both.remote(&["runs", "list"]);
    assert!(other.code == 64 && other.err.contains("https://HOST:PORT"), "{other:?}");
    both.address = "http://127.0.0.1:1".to_owned();
    let gone = both.remote(&["runs", "list"]);
    assert!(gone.code == 69 && gone.err.contains("selvedge serve"), "{gone:?}");
}
