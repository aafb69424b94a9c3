//! The process is gone at each point of the executors and around each commit of a small run: nothing that was finished is
//! done again, keys stay, nothing outlives it, and the run ends. Each case is a process of its own: this test program, which
//! starts itself with the number of the point and kills itself there.

use bytes::Bytes;
use selvedge_engine::RunStart;
use selvedge_engine::engine::{Engine, ExecSettings};
use selvedge_engine::env::{Clock, Environment, Observer};
use selvedge_engine::exec::{ExecPoint, ShimPoint, orphans_gone};
use selvedge_engine::registry::{ActorType, Handler, Registry, Transition};
use selvedge_engine::wiring::{Settings, Tasks};
use selvedge_kernel::auth::{Action, Permit, Resource, authorize, local};
use selvedge_kernel::id::{ActorId, RunId};
use selvedge_kernel::machine::RunState;
use selvedge_kernel::manifest::Performer;
use selvedge_kernel::pipeline::definition::{Definition, Exec, Executor, Variable};
use selvedge_kernel::pipeline::parse::parse_pipeline;
use selvedge_kernel::policy::{Retry, Timeout};
use selvedge_kernel::ports::Store;
use selvedge_kernel::time::Millis;
use selvedge_store::{EmbeddedStore, OpenError, Options};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::gate::{COMMITTED, COMMITTING, Fuse, Gate};
use crate::rig::{Folder, needs, runs, shim};

const PIPELINE: &str = r#"
selvedge: 1
name: crashing
activities:
  look: { exec: [python3, program.py, look], timeout: { attempt: 5m }, retry: { initial: 10ms, max_attempts: 50 } }
  report: { exec: [python3, program.py, report], persistent: false, timeout: { attempt: 5m }, retry: { initial: 10ms, max_attempts: 50 } }
stages:
  - { name: looked, call: look }
  - { name: counted, call: { actor: tally, key: all, handler: add }, input: "${stages.looked.output}" }
  - { name: report, call: report, input: "${stages.counted.output}" }
output: "${stages.report.output}"
"#;

/// All three programs. Where there is a file `hangs`, each hangs in its first attempt, except the handler, so that it is
/// taken back or killed.
const PROGRAM: &str = r#"
import json, os, sys, time
name = sys.argv[1]
def append(file, text):
    with open(file, "a") as out: out.write(text + "\n")
def first():
    if not os.path.exists("hangs"): return False
    try: os.close(os.open(name + ".first", os.O_CREAT | os.O_EXCL)); return True
    except FileExistsError: return False
def say(value): print(json.dumps(value), flush=True)
append("pids", str(os.getpid()))
if name == "report":
    append("effects", "report " + os.environ["SELVEDGE_KEY"])
    if first(): time.sleep(1000)
    say(["report", json.load(sys.stdin)])
    sys.exit()
say({"hello": 1, "activities": ["tally.add" if name == "tally" else name]})
for line in sys.stdin:
    task = json.loads(line)
    if "cancel" in task: continue
    append("effects", name + " " + task["key"])
    if name == "look" and first():
        sys.stdin.readline()
        say({"id": task["id"], "error": {"code": "cancelled", "message": "it was taken back"}})
    elif name == "look":
        say({"id": task["id"], "result": "seen"})
    else:
        n = task["input"]["state"].get("n", 0) + 1
        say({"id": task["id"], "result": {"result": n, "state": {"set": {"n": n}}}})
"#;

/// Programs and the stages that they serve.
const SERVES: [(&str, usize); 3] = [("look", 0), ("tally", 1), ("report", 2)];

fn permit(action: Action, resource: Resource) -> Permit {
    authorize(local("default", Millis(1)), action, resource, Millis(1)).unwrap()
}

fn work(id: RunId, action: Action) -> Permit {
    permit(action, Resource::Work { tenant: "default".to_owned(), id: id.to_string() })
}

fn tally() -> Resource {
    Resource::Handler { actor: ActorId { tenant: "default".to_owned(), kind: "tally".to_owned(), key: "all".to_owned() }, handler: "add".to_owned() }
}

/// One data directory with its programs. What the shims are told stands in `environment`.
#[derive(Clone)]
struct Place {
    folder: PathBuf,
    environment: BTreeMap<String, Variable>,
}

impl Place {
    fn of(folder: &Path) -> Place {
        let told = ["EXEC_HOST_AT", "EXEC_HOST_MARK", "EXEC_HOST_VICTIM"];
        let environment = told.iter().filter_map(|name| Some(((*name).to_owned(), Variable::Text(std::env::var(name).ok()?)))).collect();
        Place { folder: folder.to_owned(), environment }
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.join(name)).unwrap_or_default()
    }

    fn definition(&self) -> Definition {
        let (mut definition, _) = parse_pipeline("crashing.yaml", PIPELINE).unwrap();
        for activity in definition.activities.values_mut() {
            let Executor::Exec(exec) = &mut activity.executor else { continue };
            exec.folder = self.folder.to_string_lossy().into_owned();
            exec.environment = self.environment.clone();
            if self.folder.join("hangs").exists() {
                activity.timeout.attempt = Some("3s".parse().unwrap());
            }
        }
        definition
    }

    fn registry(&self) -> Registry {
        let exec = Exec {
            command: ["python3", "program.py", "tally"].map(str::to_owned).to_vec(),
            persistent: true,
            processes: 1,
            environment: self.environment.clone(),
            folder: self.folder.to_string_lossy().into_owned(),
            as_file: false,
        };
        let retry = Some(Retry { initial: "10ms".parse().unwrap(), ..Retry::message() });
        let add = Transition { activity: "tally.add".to_owned(), retry, run: Performer::Exec(exec), timeout: Timeout::default(), build: None };
        let handlers = BTreeMap::from([("add".to_owned(), Handler::Transition(add))]);
        let mut registry = Registry::default();
        registry.actors.insert("tally".to_owned(), ActorType { handlers, ..ActorType::default() });
        registry
    }

    /// The store. A process that the killed one had just started has copies of its open files, the lock of the directory
    /// among them, until the very end of its `exec`, a moment after whoever started it goes on: so this waits for the lock.
    fn store(&self) -> Arc<dyn Store> {
        for _ in 0..2_000 {
            match EmbeddedStore::open(&self.folder.join("data"), Options::default()) {
                Ok(store) => return Arc::new(store),
                Err(OpenError::Held { .. }) => std::thread::sleep(Duration::from_millis(5)),
                Err(error) => panic!("{error}"),
            }
        }
        panic!("the directory stays locked");
    }

    async fn open(&self, store: Arc<dyn Store>, tasks: Tasks, observer: Option<Observer>) -> Engine {
        let env = Environment {
            clock: Clock::Wall(Arc::new(|| Millis(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()))),
            random: Arc::new(|buffer| {
                let file = std::fs::File::open("/dev/urandom").unwrap();
                std::io::Read::read_exact(&mut { file }, buffer).unwrap();
            }),
            observer,
        };
        let shim = Some(shim(Some(self.lock())));
        let exec = ExecSettings { environment: std::env::vars().collect(), scratch: self.folder.clone(), shim, ..ExecSettings::default() };
        Engine::open(store, env, self.registry(), Settings { tasks, ..Settings::default() }, exec).await.unwrap()
    }

    fn lock(&self) -> PathBuf {
        self.folder.join("exec.lock")
    }

    async fn start(&self, engine: &Engine) -> RunId {
        let start = permit(Action::Start, Resource::Pipeline { tenant: "default".to_owned(), name: "crashing".to_owned() });
        engine.start_run(start, self.definition(), Bytes::from_static(b"{}"), RunStart { key: Some("once".to_owned()), trace: None }).await.unwrap()
    }

    /// The keys under which each program was run, in order.
    fn effects(&self, program: &str) -> Vec<String> {
        self.read("effects").lines().filter_map(|line| Some(line.strip_prefix(program)?.trim().to_owned())).collect()
    }

    fn left_over(&self) -> Vec<String> {
        self.read("pids").split_whitespace().filter(|pid| runs(pid)).map(str::to_owned).collect()
    }
}

/// The process that is killed: a whole engine that starts the run and waits for its end. `at` is a point and how often it
/// may be passed before.
fn be_killed(folder: &Path, at: &str) {
    let place = Place::of(folder);
    let (point, after) = at.split_once(' ').unwrap();
    let fuse = Arc::new(Fuse { point: point.to_owned(), after: after.parse().unwrap(), passed: AtomicUsize::new(0) });
    std::fs::write(folder.join("engine.pid"), std::process::id().to_string()).unwrap();
    runtime().block_on(async {
        let store = Arc::new(Gate { store: place.store(), fuse: fuse.clone() });
        let engine = place.open(store, Tasks::Start, Some(fuse.observer())).await;
        let id = place.start(&engine).await;
        std::fs::write(place.folder.join("accepted"), id.to_string()).unwrap();
        engine.run_wait(work(id, Action::Read), id).await.unwrap();
        engine.close().await.unwrap();
    });
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// Starts this test program once more, as the process that is killed.
fn kill_at(test: &str, folder: &Path, at: &str, shims: &[(&str, &str)]) -> ExitStatus {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", test, "--nocapture"]).env("SELVEDGE_TEST_FOLDER", folder).env("SELVEDGE_TEST_AT", at);
    child.envs(shims.iter().copied()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit()).status().unwrap()
}

/// Opens what the killed process left, and ends the run.
async fn goes_on(place: &Place, what: &str) {
    assert!(orphans_gone(&place.lock(), Duration::from_secs(30)).await.unwrap(), "{what}: the lock is held");
    assert_eq!(place.left_over(), Vec::<String>::new(), "{what}: outlived the process");
    let accepted = place.read("accepted");
    let before: BTreeMap<&str, Vec<String>> = SERVES.iter().map(|(program, _)| (*program, place.effects(program))).collect();
    let mut finished = Vec::new();
    if !accepted.is_empty() {
        let engine = place.open(place.store(), Tasks::Leave, None).await;
        let id: RunId = accepted.parse().unwrap();
        let status = engine.run_status(work(id, Action::Read), id).await.expect(what);
        finished = SERVES.iter().filter(|(_, stage)| status.stages[*stage].done == 1).map(|(program, _)| *program).collect();
        engine.close().await.unwrap();
    }
    let engine = place.open(place.store(), Tasks::Start, None).await;
    let id = place.start(&engine).await;
    assert!(accepted.is_empty() || accepted == id.to_string(), "{what}: what was acknowledged is gone");
    let end = tokio::time::timeout(Duration::from_secs(200), engine.run_wait(work(id, Action::Read), id)).await.expect(what).unwrap();
    assert_eq!((end.state, &end.error), (RunState::Completed, &None), "{what}");
    assert_eq!(serde_json::from_slice::<Value>(&end.output.unwrap()).unwrap(), json!(["report", 1]), "{what}: the handler's state was written once");
    let state = engine.state(permit(Action::Read, tally())).await.unwrap();
    assert_eq!(state, [("n".to_owned(), Bytes::from_static(b"1"))], "{what}");
    for (program, _) in SERVES {
        let keys = place.effects(program);
        assert!(!keys.is_empty() && keys.iter().all(|key| *key == keys[0]), "{what}: the keys of {program} are {keys:?}");
        assert!(!finished.contains(&program) || keys == before[program], "{what}: {program} was finished and ran again");
    }
    let faults: Vec<String> = engine.verify(permit(Action::Operate, Resource::Store)).await.unwrap().into_iter().flat_map(|report| report.faults).collect();
    assert!(faults.is_empty(), "{what}: {faults:?}");
    engine.close().await.unwrap();
    assert_eq!(place.left_over(), Vec::<String>::new(), "{what}: outlived the engine that closed");
}

#[test]
fn a_kill_at_any_point_of_an_executor_and_around_any_commit_repeats_nothing_finished() {
    if let (Some(folder), Ok(at)) = (std::env::var_os("SELVEDGE_TEST_FOLDER"), std::env::var("SELVEDGE_TEST_AT")) {
        return be_killed(Path::new(&folder), &at);
    }
    needs("python3");
    const TEST: &str = "points::a_kill_at_any_point_of_an_executor_and_around_any_commit_repeats_nothing_finished";
    const AT_ONCE: usize = 4;
    const HANGING: [&str; 4] = ["Written", "TakenBack", "Ending", "Ended"];
    let points = ExecPoint::ALL.iter().map(|point| format!("{point:?}")).chain([COMMITTING, COMMITTED].map(str::to_owned));
    let points = Mutex::new(points.collect::<Vec<_>>());
    std::thread::scope(|threads| {
        for _ in 0..AT_ONCE {
            threads.spawn(|| {
                while let Some(point) = { points.lock().unwrap().pop() } {
                    for after in 0.. {
                        let folder = Folder::new(&format!("{point}-{after}"));
                        folder.write("program.py", PROGRAM);
                        if HANGING.contains(&point.as_str()) {
                            folder.write("hangs", "");
                        }
                        let status = kill_at(TEST, &folder.0, &format!("{point} {after}"), &[]);
                        let what = format!("killed at {point} after {after} others");
                        assert!(status.signal() == Some(9) || status.success(), "{what}: {status}");
                        runtime().block_on(goes_on(&Place::of(&folder.0), &what));
                        if status.success() {
                            assert!(after > 0, "{point} is never passed");
                            break;
                        }
                    }
                }
            });
        }
    });
}

#[test]
fn the_death_of_engine_or_shim_at_any_point_of_a_shim_repeats_nothing_finished() {
    if let (Some(folder), Ok(at)) = (std::env::var_os("SELVEDGE_TEST_FOLDER"), std::env::var("SELVEDGE_TEST_AT")) {
        return be_killed(Path::new(&folder), &at);
    }
    needs("python3");
    const TEST: &str = "points::the_death_of_engine_or_shim_at_any_point_of_a_shim_repeats_nothing_finished";
    let cases: Vec<(ShimPoint, bool)> = ShimPoint::ALL.into_iter().flat_map(|point| [(point, true), (point, false)]).collect();
    std::thread::scope(|threads| {
        for half in cases.chunks(cases.len() / 2) {
            threads.spawn(|| half.iter().for_each(|(point, engine_dies)| one_dies(TEST, *point, *engine_dies)));
        }
    });
}

fn one_dies(test: &str, point: ShimPoint, engine_dies: bool) {
    let folder = Folder::new(&format!("shim-{point:?}-{engine_dies}"));
    folder.write("program.py", PROGRAM);
    let what = format!("{} at {point:?} of a shim", if engine_dies { "engine killed" } else { "shim aborted" });
    let (at, mark, victim) = (format!("{point:?}"), folder.0.join("mark"), folder.0.join("engine.pid"));
    let (mark, victim) = (mark.to_string_lossy(), victim.to_string_lossy());
    let mut told = vec![("EXEC_HOST_AT", at.as_str()), ("EXEC_HOST_MARK", &mark)];
    told.extend(engine_dies.then_some(("EXEC_HOST_VICTIM", &*victim)));
    let status = kill_at(test, &folder.0, "Nowhere 0", &told);
    assert!(Path::new(&*mark).exists(), "{what}: the scenario passes it");
    assert_eq!((status.signal(), status.success()), if engine_dies { (Some(9), false) } else { (None, true) }, "{what}: {status}");
    let text = |(name, value): &(&str, &str)| ((*name).to_owned(), Variable::Text((*value).to_owned()));
    let place = Place { folder: folder.0.clone(), environment: told.iter().map(text).collect() };
    runtime().block_on(goes_on(&place, &what));
}
