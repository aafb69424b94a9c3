//! Runs whose work is done by programs: activities declared in the pipeline, and actors that are scripts.

use bytes::Bytes;
use selvedge_engine::RunStart;
use selvedge_engine::engine::{Engine, ExecSettings};
use selvedge_engine::env::{Clock, Environment};
use selvedge_engine::registry::{ActorType, Handler, Registry, Transition};
use selvedge_engine::wiring::Settings;
use selvedge_kernel::auth::{Action, Permit, Resource, authorize, local};
use selvedge_kernel::id::{ActorId, RunId};
use selvedge_kernel::machine::RunState;
use selvedge_kernel::manifest::Performer;
use selvedge_kernel::model::Model;
use selvedge_kernel::pipeline::definition::{Definition, Exec, Executor};
use selvedge_kernel::pipeline::parse::parse_pipeline;
use selvedge_kernel::policy::Timeout;
use selvedge_kernel::time::Millis;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::rig::{Folder, needs, shim};

const PIPELINE: &str = r#"
selvedge: 1
name: audit
input: { names: { type: array } }
activities:
  look: { exec: [python3, worker.py], processes: 2 }
  report: { exec: [python3, report.py], persistent: false }
stages:
  - { name: looked, mode: scatter, over: input.names, call: look, throttle: { concurrency: 4 } }
  - { name: counted, mode: scatter, over: "stages.looked.output", call: { actor: tally, key: "${item.kind}", handler: add }, input: "${item.name}" }
  - { name: report, call: report, input: "${stages.counted.output}" }
output: { report: "${stages.report.output}", looked: "${stages.looked.output[].name}" }
"#;

const WORKER: &str = r#"
import os, time
from selvedge import activity, run

@activity("look")
def look(name, attempt):
    with open("effects.log", "a") as log:
        log.write(attempt.key + "\n")
    time.sleep(0.005)
    return {"name": name, "kind": name[0]}

run()
"#;

const TALLY: &str = r#"
from selvedge import handler, run

@handler("tally", "add")
def add(actor, name):
    actor.state["names"] = actor.state.get("names", []) + [name]
    return len(actor.state["names"])

run()
"#;

const REPORT: &str = "import json, sys; print(len(json.load(sys.stdin)))";

fn exec(folder: &Folder, command: &[&str], persistent: bool) -> Exec {
    let command = command.iter().map(|word| (*word).to_owned()).collect();
    Exec { command, persistent, processes: 1, environment: BTreeMap::new(), folder: folder.0.to_string_lossy().into_owned(), as_file: false }
}

fn definition(folder: &Folder) -> Definition {
    let (mut definition, _) = parse_pipeline("audit.yaml", PIPELINE).unwrap();
    for activity in definition.activities.values_mut() {
        if let Executor::Exec(exec) = &mut activity.executor {
            exec.folder = folder.0.to_string_lossy().into_owned();
        }
    }
    definition
}

pub fn permit(action: Action, resource: Resource) -> Permit {
    authorize(local("default", Millis(1)), action, resource, Millis(1)).unwrap()
}

pub fn work(id: RunId, action: Action) -> Permit {
    permit(action, Resource::Work { tenant: "default".to_owned(), id: id.to_string() })
}

async fn open(model: &Model, folder: &Folder) -> Engine {
    open_with(model, folder, Registry::default()).await
}

pub async fn open_with(model: &Model, folder: &Folder, mut registry: Registry) -> Engine {
    let env = Environment {
        clock: Clock::Wall(Arc::new(|| Millis(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()))),
        random: Arc::new(|buffer| {
            let file = std::fs::File::open("/dev/urandom").unwrap();
            std::io::Read::read_exact(&mut { file }, buffer).unwrap();
        }),
        observer: None,
    };
    let tally = Transition {
        activity: "tally.add".to_owned(),
        retry: None,
        run: Performer::Exec(exec(folder, &["python3", "tally.py"], true)),
        timeout: Timeout::default(),
        build: None,
    };
    let handlers = BTreeMap::from([("add".to_owned(), Handler::Transition(tally))]);
    registry.actors.insert("tally".to_owned(), ActorType { handlers, ..ActorType::default() });
    let settings = ExecSettings { environment: std::env::vars().collect(), scratch: folder.0.clone(), shim: Some(shim(None)), ..ExecSettings::default() };
    Engine::open(Arc::new(model.clone()), env, registry, Settings::default(), settings).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_run_over_programs_and_script_actors_ends_whole_though_the_engine_dies_in_its_middle() {
    needs("python3");
    let folder = Folder::new("runs");
    let client = concat!(env!("CARGO_MANIFEST_DIR"), "/../../clients/python/selvedge.py");
    folder.write("selvedge.py", &std::fs::read_to_string(client).unwrap());
    folder.write("worker.py", WORKER);
    folder.write("tally.py", TALLY);
    folder.write("report.py", REPORT);
    let model = Model::new();
    let names: Vec<String> = (0..60).map(|n| format!("{}{n}", ["a", "b", "c"][n % 3])).collect();
    let input = Bytes::from(json!({ "names": names }).to_string());
    let mut engine = open(&model, &folder).await;
    let start = permit(Action::Start, Resource::Pipeline { tenant: "default".to_owned(), name: "audit".to_owned() });
    let id = engine.start_run(start, definition(&folder), input, RunStart { key: Some("once".to_owned()), trace: None }).await.unwrap();
    let mut kills = 0;
    for step in [15u32, 40, 60] {
        loop {
            let status = engine.run_status(work(id, Action::Read), id).await.unwrap();
            if status.stages[0].done >= step || status.state.ended() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        engine.die().await;
        engine = open(&model, &folder).await;
        kills += 1;
    }
    let end = engine.run_wait(work(id, Action::Read), id).await.unwrap();
    assert_eq!((end.state, &end.error), (RunState::Completed, &None));
    let output: Value = serde_json::from_slice(&end.output.unwrap()).unwrap();
    assert_eq!(output, json!({ "report": 60, "looked": names }));
    let mut counted = 0;
    for kind in ["a", "b", "c"] {
        let actor = ActorId { tenant: "default".to_owned(), kind: "tally".to_owned(), key: kind.to_owned() };
        let state = engine.state(permit(Action::Read, Resource::Handler { actor, handler: "add".to_owned() })).await.unwrap();
        counted += serde_json::from_slice::<Vec<String>>(&state[0].1).unwrap().len();
    }
    assert_eq!(counted, 60, "each call was handled once");
    let effects = folder.read("effects.log");
    let mut keys: Vec<&str> = effects.lines().collect();
    let all = keys.len();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 60);
    assert!(all <= 60 + kills * 4, "{all} effects of 60 tasks: more than those in flight were repeated");
    let faults: Vec<String> = engine.verify(permit(Action::Operate, Resource::Store)).await.unwrap().into_iter().flat_map(|report| report.faults).collect();
    assert!(faults.is_empty(), "{faults:?}");
    engine.close().await.unwrap();
}
