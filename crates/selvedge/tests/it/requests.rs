//! Requests as a program loads them: what they may reach is checked with the file.

use selvedge::App;

fn written(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

const APP: &str =
    "egress: [api.example.org]\nactivities:\n  fetch: { http: { url: \"https://api.example.org/${input.id}\", headers: { x: { secret: \"file:token\" } } } }\n";

#[test]
fn a_pipeline_reaches_what_its_manifest_and_its_own_file_name() {
    let pipeline = |egress: &str| {
        format!(
            "selvedge: 1\nname: p\n{egress}activities:\n  a: {{ http: {{ url: \"https://api.example.org/x\" }} }}\n  b: {{ http: {{ url: \"https://b.example.org/x\" }} }}\nstages:\n  - {{ name: one, call: fetch }}\n  - {{ name: two, call: a }}\n  - {{ name: three, call: b }}\n"
        )
    };
    let folder = written(&[("app.yaml", APP), ("good.yaml", &pipeline("egress: [b.example.org]\n")), ("bad.yaml", &pipeline(""))]);
    let app = App::new().manifest(folder.path().join("app.yaml")).unwrap();
    app.load_pipeline(folder.path().join("good.yaml")).unwrap();
    let error = app.load_pipeline(folder.path().join("bad.yaml")).unwrap_err().to_string();
    assert!(error.contains("bad.yaml:5:21: `url`: `b.example.org` port 443 is not named by `egress`") && !error.contains("api.example.org"), "{error}");
    assert!(error.contains("add it: egress: [\"b.example.org\"]"), "{error}");
}

#[test]
fn the_secrets_of_a_request_are_looked_for_beside_the_file_that_declares_it() {
    let pipeline = "selvedge: 1\nname: p\nactivities:\n  a: { http: { url: \"${input}\", headers: { x: { secret: \"file:token\" } } } }\nstages:\n  - { name: one, call: a }\n";
    let folder = written(&[("p.yaml", pipeline)]);
    let loaded = App::new().load_pipeline(folder.path().join("p.yaml")).unwrap();
    let json = serde_json::to_value(&loaded.definition.activities["a"].executor).unwrap();
    assert_eq!(json["http"]["folder"].as_str().map(std::path::Path::new), Some(folder.path().canonicalize().unwrap().as_path()));
}
