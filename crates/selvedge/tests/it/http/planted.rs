//! Secrets are planted where they come in, and looked for wherever something goes out: log, journal, state, errors, events, and the
//! files of the data directory. What a run carries may stand in its journal, and never in the log.

use std::io::BufRead;
use std::net::SocketAddr;
use std::path::Path;

use serde_json::Value;

use super::client::Ask;
use crate::rig::Folder;

const OF_ENVIRONMENT: &str = "planted-by-the-environment-5f2c9a";
const OF_FILE: &str = "planted-in-a-file-77d01e";
const OF_HEADER: &str = "planted-in-a-header-c4b8f3";
const OF_INPUT: &str = "planted-in-an-input-90ae12";
/// A key that nobody made.
const FORGED: &str = "slv_plantedforged_1b2c3d4e5f";

/// Says its secrets on both outputs, fails once with them, and gives them as its result.
const LEAKS: &str =
    r#"cat > /dev/null; echo "log $TOKEN $FROM_FILE" >&2; if [ ! -e once ]; then touch once; exit 3; fi; printf '{"leaked":"%s %s"}' "$TOKEN" "$FROM_FILE""#;
const KEEPS: &str = r#"cat > /dev/null; printf '{"result":"%s","state":{"set":{"token":"%s"}}}' "$TOKEN" "$TOKEN""#;

fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("selvedge.yaml", "log: { level: trace, format: json }\n");
    folder.write("token", &format!("{OF_FILE}\n"));
    let environment = "environment: { TOKEN: { secret: \"env:PLANTED\" }, FROM_FILE: { secret: \"file:token\" } }";
    let exec = |script: &str| format!("exec: [sh, -c, {}], persistent: false", serde_json::to_string(script).unwrap());
    folder.write(
        "app.yaml",
        &format!(
            "activities:\n  leak: {{ {}, {environment}, retry: {{ initial: 10ms }} }}\n  die: {{ {}, {environment}, retry: none }}\nactors:\n  vault:\n    handlers:\n      keep: {{ {}, {environment} }}\npipelines: [p.yaml, q.yaml]\n",
            exec(LEAKS),
            exec("cat > /dev/null; echo \"$TOKEN $FROM_FILE\" >&2; exit 9"),
            exec(KEEPS),
        ),
    );
    folder.write(
        "p.yaml",
        "selvedge: 1\nname: p\ninput: { said: { type: string } }\nstages: [{ name: leak, call: leak, input: \"${input.said}\" }]\noutput: ${stages.leak.output}\n",
    );
    folder.write("q.yaml", "selvedge: 1\nname: q\nstages: [{ name: die, call: die }]\n");
    folder
}

/// Every file below a folder, and what it holds.
fn files(folder: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if let Ok(mut bytes) = std::fs::read(&path) {
            // Most of a segment is zeros, which no secret has.
            bytes.dedup_by(|a, b| *a == 0 && *b == 0);
            found.push((path.display().to_string(), bytes));
        }
    }
}

fn holds(bytes: &[u8], words: &str) -> bool {
    bytes.windows(words.len()).any(|part| part == words.as_bytes())
}

async fn until_ended(ask: &Ask, run: &str) -> Value {
    loop {
        let shown = ask.get(&format!("/v1/runs/{run}")).await.json();
        if matches!(shown["status"].as_str(), Some("completed" | "failed" | "cancelled")) {
            return shown;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn planted_secrets_are_nowhere_and_no_key_header_or_payload_is_in_the_log() {
    let folder = folder();
    let mut command = folder.command(&["dev", "--listen", "127.0.0.1:0"]);
    let mut child = command.env("PLANTED", OF_ENVIRONMENT).stderr(std::fs::File::create(folder.join("said")).unwrap()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let address: SocketAddr = line.trim().rsplit("http://").next().unwrap().parse().unwrap();
    let owner = std::fs::read_to_string(folder.join(".selvedge/dev.key")).unwrap().trim().to_owned();
    let made = folder.json(&["keys", "create", "--role", "reader"]);
    let reader = made["key"].as_str().unwrap().to_owned();
    let ask = Ask::of(address, &owner);
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let headers = [("x-planted", OF_HEADER), ("cookie", OF_HEADER), ("idempotency-key", "k-1"), ("traceparent", trace)];
    let mut out = Vec::new();
    let mut runs = Vec::new();
    for (pipeline, input) in [("p", format!("{{\"said\": \"{OF_INPUT}\"}}")), ("q", "{}".to_owned())] {
        let started = ask.send("POST", &format!("/v1/pipelines/{pipeline}/runs"), &headers, Some(&input)).await;
        assert!(started.status < 300, "{started:?}");
        let run = started.json()["run"].as_str().unwrap().to_owned();
        out.push(until_ended(&ask, &run).await.to_string());
        runs.push(run);
    }
    let called = ask.send("POST", "/v1/actors/vault/a/call/keep", &headers, Some(&format!("\"{OF_INPUT}\""))).await;
    assert_eq!(called.status, 200, "{called:?}");
    out.push(called.text);
    for path in ["/v1/actors/vault/a/state", "/v1/invocations?all=true", "/v1/runs", "/v1/dead-letters", "/v1/keys"] {
        out.push(ask.get(path).await.text);
    }
    for run in &runs {
        for path in ["journal", "events"] {
            out.push(ask.get(&format!("/v1/runs/{run}/{path}")).await.text);
        }
        for words in [&["why", run.as_str()][..], &["runs", "show", run.as_str()], &["runs", "journal", run.as_str()]] {
            let said = folder.selvedge(words);
            out.push(said.out + &said.err);
        }
    }
    // Refused ones: with a key that nobody made, with one that may nothing, with a body that is none.
    let forged = Ask::of(address, FORGED).send("GET", "/v1/runs", &headers, None).await;
    let denied = Ask::of(address, &reader).send("POST", "/v1/pipelines/p/runs", &headers, Some("{}")).await;
    let broken = ask.send("POST", "/v1/pipelines/p/runs", &headers, Some(&format!("{{\"{OF_INPUT}"))).await;
    assert_eq!((forged.status, denied.status), (401, 403), "{forged:?} {denied:?}");
    assert!((400..500).contains(&broken.status), "{broken:?}");
    let decision = denied.json()["decision_id"].clone();
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());

    let log = std::fs::read_to_string(folder.join("said")).unwrap();
    for secret in [OF_ENVIRONMENT, OF_FILE] {
        // What leaked was seen, and stands there by its reference.
        assert!(out.iter().any(|text| text.contains("[secret env:PLANTED]") && text.contains("[secret file:token]")), "{out:#?}");
        out.iter().for_each(|text| assert!(!text.contains(secret), "{secret} went out: {text}"));
    }
    for secret in [OF_ENVIRONMENT, OF_FILE, OF_HEADER, OF_INPUT, FORGED, &owner, &reader] {
        assert!(!log.contains(secret), "{secret} is in the log:\n{log}");
    }
    let mut kept = Vec::new();
    files(&folder.join(".selvedge"), &mut kept);
    for (file, bytes) in kept.iter().filter(|(file, _)| !file.ends_with("dev.key")) {
        for secret in [OF_ENVIRONMENT, OF_FILE, OF_HEADER, FORGED, &owner, &reader] {
            assert!(!holds(bytes, secret), "{secret} is in {file}");
        }
    }

    // Each line is an object, and says of what it is.
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect();
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/log.md")).unwrap();
    for line in &lines {
        assert!(page.contains(&format!("`{}`", line["event"].as_str().unwrap())), "docs/log.md does not know {line}");
    }
    let of = |event: &str| lines.iter().filter(|line| line["event"] == event).collect::<Vec<_>>();
    for event in ["starting", "ready", "stopping", "stopped", "development_key", "invocation_accepted", "invocation_completed"] {
        assert!(!of(event).is_empty(), "{event} is not in the log:\n{log}");
    }
    let started: Vec<&Value> = of("run_started").into_iter().map(|line| &line["run"]).collect();
    assert_eq!(started, [&runs[0], &runs[1]], "{log}");
    assert_eq!((&of("run_completed")[0]["run"], &of("run_failed")[0]["run"]), (&Value::from(runs[0].clone()), &Value::from(runs[1].clone())), "{log}");
    assert_eq!(of("run_failed")[0]["code"], "exit_9", "{log}");
    let denials = of("request_denied");
    assert_eq!(denials.len(), 1, "{log}");
    assert_eq!((&denials[0]["code"], &denials[0]["decision"], &denials[0]["traceparent"]), (&"denied".into(), &decision, &trace.into()), "{log}");
    assert_eq!(denials[0]["route"], "/v1/pipelines/{name}/runs");
    assert!(of("request_refused").iter().any(|line| line["code"] == "unauthenticated" && line["status"] == 401), "{log}");
    assert!(of("invocation_accepted").iter().any(|line| line["traceparent"] == trace && line["actor"] == "vault/a"), "{log}");
}
