//! `dev` takes in what is saved: pipelines, the manifest, policies. What is wrong is said, and what was before stays.

use std::io::BufRead;
use std::net::SocketAddr;
use std::process::Child;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::client::Ask;
use crate::rig::Folder;

/// A pipeline that waits for a signal, and then gives this number.
fn pipeline(name: &str, gives: u32) -> String {
    format!("selvedge: 1\nname: {name}\nstages: [{{ name: hold, mode: wait_signal, signal: go }}]\noutput: {gives}\n")
}

const REFUSED: &str = "what was saved is refused, and what was before stays in force";
const AGAIN: &str = "the engine runs again, with what was saved";

struct Dev {
    folder: Folder,
    child: Child,
    address: SocketAddr,
}

impl Dev {
    fn start(folder: Folder) -> Dev {
        let mut command = folder.command(&["dev", "--listen", "127.0.0.1:0"]);
        let mut child = command.stderr(std::fs::File::create(folder.join("said")).unwrap()).spawn().unwrap();
        let mut line = String::new();
        std::io::BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit("http://").next().unwrap().parse().unwrap_or_else(|_| panic!("{line:?}"));
        Dev { folder, child, address }
    }

    fn ask(&self) -> Ask {
        let key = std::fs::read_to_string(self.folder.join(".selvedge/dev.key")).unwrap();
        Ask::of(self.address, key.trim())
    }

    /// Waits until it has said this so many times.
    fn until(&self, words: &str, times: usize) {
        self.folder.until(words, |folder| folder.lines("said").iter().filter(|line| line.contains(words)).count() >= times);
    }

    async fn run(&self, name: &str) -> String {
        let started = self.ask().post(&format!("/v1/pipelines/{name}/runs"), "{}").await;
        assert!(started.status < 300, "{started:?}");
        started.json()["run"].as_str().unwrap().to_owned()
    }

    async fn shown(&self, run: &str) -> Value {
        self.ask().get(&format!("/v1/runs/{run}")).await.json()
    }

    /// Lets a run go on, and gives what it came to.
    async fn output(&self, run: &str) -> Value {
        let told = self.ask().post(&format!("/v1/runs/{run}/signals/go"), "null").await;
        assert!(told.status < 300, "{told:?}");
        loop {
            let shown = self.shown(run).await;
            match shown["status"].as_str() {
                Some("completed") => return shown["output"].clone(),
                Some("failed" | "cancelled") => panic!("{shown}"),
                _ => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            }
        }
    }

    fn end(mut self) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), rustix::process::Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success(), "{:?}", self.folder.lines("said"));
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_saved_pipeline_is_in_force_for_new_runs_and_open_ones_keep_theirs() {
    let folder = Folder::new();
    folder.write("app.yaml", "pipelines: [p.yaml]\n");
    folder.write("p.yaml", &pipeline("p", 1));
    let dev = Dev::start(folder);
    let first = dev.run("p").await;
    // A connection that was there before is not cut by a pipeline.
    let mut kept = TcpStream::connect(dev.address).await.unwrap();
    let mut alive = async || {
        kept.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut head = [0; 15];
        kept.read_exact(&mut head).await.unwrap();
        let mut rest = [0; 4096];
        let _ = kept.read(&mut rest).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 200 OK");
    };
    alive().await;
    dev.folder.write("p.yaml", &pipeline("p", 2));
    dev.until("the pipeline `p` has changed, version", 1);
    let second = dev.run("p").await;
    let (old, new) = (dev.shown(&first).await["version"].clone(), dev.shown(&second).await["version"].clone());
    assert!(old != new && dev.folder.lines("said").iter().any(|line| line.contains(new.as_str().unwrap())), "{old} {new}");
    // What is wrong is said as `check` says it, once, and the one before stays in force.
    dev.folder.write("p.yaml", &pipeline("p", 3).replace("wait_signal", "wait_singal"));
    dev.until(REFUSED, 1);
    dev.until("p.yaml:3:30: ", 1);
    let checked = dev.folder.selvedge(&["pipelines", "check", "p.yaml"]);
    let wrong = checked.err.lines().find(|line| line.starts_with("p.yaml:3:30: ")).unwrap().to_owned();
    assert!(dev.folder.lines("said").iter().any(|line| line.contains(&wrong)), "{wrong}");
    let third = dev.run("p").await;
    assert_eq!(dev.shown(&third).await["version"], new);
    alive().await;
    // A second one is named, and one is taken out.
    dev.folder.write("p.yaml", &pipeline("p", 2));
    dev.folder.write("q.yaml", &pipeline("q", 4));
    dev.folder.write("app.yaml", "pipelines: [q.yaml]\n");
    dev.until("the pipeline `q` is new, version", 1);
    dev.until("the pipeline `p` is gone", 1);
    assert_eq!(dev.ask().post("/v1/pipelines/p/runs", "{}").await.status, 404);
    let fourth = dev.run("q").await;
    for (run, gives) in [(first, 1), (second, 2), (third, 2), (fourth, 4)] {
        assert_eq!(dev.output(&run).await, gives);
    }
    assert_eq!(dev.folder.lines("said").iter().filter(|line| line.contains(REFUSED)).count(), 1);
    dev.end();
}

#[tokio::test]
async fn a_saved_manifest_starts_the_engine_again_on_the_same_port_and_what_was_under_way_goes_on() {
    let folder = Folder::new();
    let activity = |gives: u32| format!("activities:\n  give: {{ exec: [sh, -c, 'echo {gives}'], persistent: false }}\npipelines: [p.yaml]\n");
    folder.write("app.yaml", &activity(1));
    folder.write(
        "p.yaml",
        "selvedge: 1\nname: p\nstages: [{ name: hold, mode: wait_signal, signal: go }, { name: give, call: give }]\noutput: ${stages.give.output}\n",
    );
    let dev = Dev::start(folder);
    let waiting = dev.run("p").await;
    dev.folder.write("app.yaml", &activity(2));
    dev.until("app.yaml changed; the engine starts again with it", 1);
    dev.until(AGAIN, 1);
    // The same port, the same key, the same run; what it calls is what the manifest says now.
    assert_eq!(dev.output(&waiting).await, 2);
    dev.folder.write("app.yaml", "activities:\n  give: { exce: [sh] }\npipelines: [p.yaml]\n");
    dev.until(REFUSED, 1);
    dev.until("app.yaml:2:11: the activity `give` has no field `exce`", 1);
    let more = dev.run("p").await;
    assert_eq!(dev.output(&more).await, 2);
    dev.folder.write("app.yaml", &activity(3));
    dev.until(AGAIN, 2);
    let last = dev.run("p").await;
    assert_eq!(dev.output(&last).await, 3);
    dev.end();
}

#[tokio::test]
async fn saved_policies_are_in_force_and_a_faulty_set_is_not() {
    let folder = Folder::new();
    std::fs::create_dir(folder.join("rules")).unwrap();
    folder.write("selvedge.yaml", "authorization: { policies: ./rules }\n");
    folder.write("rules/p.cedar", "permit(principal, action, resource);\n");
    let dev = Dev::start(folder);
    assert_eq!(dev.ask().get("/v1/runs").await.status, 200);
    dev.folder.write("rules/p.cedar", "permit(principal, action, resource\n");
    dev.until("are refused", 1);
    assert_eq!(dev.ask().get("/v1/runs").await.status, 200);
    // No engine starts with these, so the one that runs is not ended for what else is saved beside them.
    dev.folder.write("app.yaml", "activities:\n  give: { exec: [echo, '1'], persistent: false }\n");
    dev.until("what was saved is not taken in while the policies have faults", 1);
    assert_eq!(dev.ask().get("/v1/runs").await.status, 200);
    assert!(dev.folder.lines("said").iter().all(|line| !line.contains("the engine starts again with it")));
    dev.folder.write("rules/p.cedar", "forbid(principal, action, resource);\n");
    dev.until("1 policies of ", 1);
    assert_eq!(dev.ask().get("/v1/runs").await.status, 403);
    dev.end();
}

#[tokio::test]
async fn a_pipeline_that_was_saved_meanwhile_is_not_the_one_that_if_match_names() {
    let folder = Folder::new();
    folder.write("app.yaml", "pipelines: [p.yaml]\n");
    folder.write("p.yaml", &pipeline("p", 1));
    let dev = Dev::start(folder);
    let tag = async || dev.ask().get("/v1/pipelines/p").await.header("etag").unwrap().to_owned();
    let first = tag().await;
    dev.folder.write("p.yaml", &pipeline("p", 2));
    dev.until("the pipeline `p` has changed, version", 1);
    let second = tag().await;
    assert_ne!(first, second);
    for (tag, status) in [(first, 412), (second, 201)] {
        let put = dev.ask().send("PUT", "/v1/pipelines/p", &[("If-Match", &tag)], Some(&pipeline("p", 3))).await;
        assert_eq!(put.status, status, "{put:?}");
    }
    let run = dev.run("p").await;
    assert_eq!(dev.output(&run).await, 3);
    dev.end();
}
