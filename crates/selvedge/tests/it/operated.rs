//! The pages of `docs/runbooks` for whoever operates a server: their commands, typed into one shell, one after the other.

use std::net::TcpListener;
use std::process::Command;

use crate::certified::Authority;
use crate::rig::Folder;
use crate::shell::{Shell, steps};

/// A folder whose server listens on a port of its own, and the pages' commands with that port.
struct Server {
    folder: Folder,
    port: String,
}

impl Server {
    fn new() -> Server {
        let folder = Folder::new();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
        folder.write("selvedge.yaml", &format!("listen: 127.0.0.1:{port}\n"));
        Server { folder, port }
    }

    fn steps(&self, page: &str) -> Vec<String> {
        steps(page).into_iter().map(|step| step.replace("7420", &self.port)).collect()
    }

    /// A shell in which a server works; its key is in `owner.key`.
    fn served(&self) -> Shell {
        let mut shell = Shell::new(&self.folder);
        shell.does("selvedge keys create --role owner > owner.key");
        self.serve(&mut shell);
        shell
    }

    fn serve(&self, shell: &mut Shell) {
        shell.does("selvedge serve > serve.log 2>&1 & until selvedge health; do sleep 0.05; done");
    }

    /// What makes the next commands ask the server with a key.
    fn with(&self, key: &str) -> String {
        format!("SELVEDGE_SERVER=http://127.0.0.1:{} SELVEDGE_KEY=\"$(cat {key})\"", self.port)
    }
}

/// Asks, and then is done.
const ASKS: &str = "selvedge: 1\nname: asks\nstages: [{ name: hold, mode: wait_signal, signal: go }]\n";

/// Stores a pipeline and starts a run of it.
fn started(server: &Server, shell: &mut Shell, name: &str, text: &str) -> String {
    server.folder.write("pipeline.yaml", text);
    let with = server.with("owner.key");
    shell.does(&format!("{with} selvedge pipelines put pipeline.yaml"));
    let said = shell.does(&format!("{with} selvedge pipelines start {name}"));
    let run = said.split_whitespace().find(|word| word.starts_with("run_")).unwrap_or_else(|| panic!("no run in {said}"));
    run.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned()
}

/// Types a command until it says something.
fn until(shell: &mut Shell, command: &str, says: &str) {
    let began = std::time::Instant::now();
    while !shell.types(command).text.contains(says) {
        assert!(began.elapsed().as_secs() < 60, "waited a minute for `{command}` to say {says}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

#[test]
fn the_commands_of_the_first_start_lead_to_a_server_that_answers() {
    let server = Server::new();
    let mut shell = Shell::new(&server.folder);
    for step in server.steps("start") {
        let typed = shell.types(&step);
        match step.as_str() {
            // A machine of tests may have less room than a server should.
            "selvedge doctor" => assert!(typed.text.contains("another process holds it and answers"), "{typed:?}"),
            _ => assert_eq!(typed.code, 0, "`{step}` said {}", typed.text),
        }
    }
    assert_eq!(shell.does("stat -c %a owner.key").trim(), "600");
}

#[test]
fn a_run_in_flight_goes_on_under_the_next_version_as_the_page_says() {
    let server = Server::new();
    let mut shell = server.served();
    let run = started(&server, &mut shell, "asks", ASKS);
    until(&mut shell, &format!("selvedge why {run}"), "the signal `go`");
    shell.does("mkdir next && cp bin/selvedge next/ && export NEW=$PWD/next/selvedge BACKUP=$PWD/backup COPY=$PWD/copy");
    let steps = server.steps("upgrade");
    for step in &steps {
        let said = shell.does(step);
        match step.as_str() {
            step if step.contains("replay") => assert!(said.contains("all fit"), "{said}"),
            step if step.contains("--against") => assert!(said.contains("64 are still there, 0 differ"), "{said}"),
            step if step.starts_with("while") => {
                let log = shell.does("cat serve.log");
                assert!(log.contains("what is accepted is on disk"), "{log}");
            }
            _ => {}
        }
    }
    assert!(steps.iter().any(|step| step.starts_with("kill -TERM")) && !server.folder.join("copy").exists());
    assert!(shell.does(&format!("selvedge why {run}")).contains("the signal `go`"));
    shell.does(&format!("selvedge runs signal {run} go"));
    until(&mut shell, &format!("selvedge runs show {run}"), "completed");
}

#[test]
fn a_lost_directory_is_made_anew_of_its_backup_with_nothing_open_that_was_closed() {
    let server = Server::new();
    let mut shell = server.served();
    shell.does("selvedge keys create --role owner --name lost > lost.key");
    let run = started(&server, &mut shell, "asks", ASKS);
    until(&mut shell, &format!("selvedge why {run}"), "the signal `go`");
    shell.does("export BACKUP=$PWD/backup; selvedge backup --to \"$BACKUP\" && selvedge verify --heads > heads");
    shell.does("export KEY=$(cut -d _ -f 1,2 lost.key); selvedge keys revoke \"$KEY\" --reason lost");
    shell.does("kill -KILL %1; wait %1; rm .selvedge/log/*; test -d .selvedge");
    let lost = format!("{} selvedge runs list", server.with("lost.key"));
    let mut seen = Vec::new();
    for step in server.steps("restore") {
        let said = shell.does(&step);
        let verb = step.split_whitespace().skip(1).take(2).collect::<Vec<_>>().join(" ");
        match verb.as_str() {
            "keys list" => assert!(!said.contains("revoked"), "the key opens again: {said}"),
            "runs list" => assert!(said.contains(&run), "{said}"),
            "verify --against" => assert!(said.contains("64 are still there, 0 differ"), "{said}"),
            _ => {}
        }
        seen.push(verb);
    }
    let order = |verb: &str| seen.iter().position(|other| other == verb).unwrap_or_else(|| panic!("no `{verb}` in {seen:?}"));
    assert!(order("keys revoke") < order("serve >>"), "what was closed is closed before anybody can come in");
    let refused = shell.types(&lost);
    assert!(refused.code == 77, "{refused:?}");
    assert!(shell.does(&format!("{} selvedge runs list", server.with("owner.key"))).contains(&run));
    shell.does(&format!("selvedge runs signal {run} go"));
    until(&mut shell, &format!("selvedge runs show {run}"), "completed");
}

/// Fires each second; its activity says how long its secret is.
const ROTATED: &str = "
selvedge: 1
name: rotated
schedule: { every: 1s }
stages: [{ name: length, call: length }]
output: ${stages.length.output}
";

#[test]
fn keys_and_secrets_are_changed_while_a_server_works_and_a_schedule_goes_on_for_the_new_key() {
    let server = Server::new();
    server.folder.write(
        "app.yaml",
        "activities:\n  length: { exec: [sh, -c, 'cat > /dev/null; printf %s \"$TOKEN\" | wc -c'], persistent: false, environment: { TOKEN: { secret: file:token } } }\n",
    );
    server.folder.write("token", "the old token");
    let mut shell = server.served();
    let run = started(&server, &mut shell, "rotated", ROTATED);
    until(&mut shell, &format!("selvedge runs show {run}"), "13");
    shell.does("export OLD=$(cut -d _ -f 1,2 owner.key) TOKEN='the new token, which is longer'");
    for step in server.steps("key-rotation") {
        shell.does(&step);
    }
    let old = shell.types(&format!("{} selvedge runs list", server.with("owner.key")));
    assert_eq!(old.code, 77, "{old:?}");
    shell.does("cp new.key owner.key");
    let run = started(&server, &mut shell, "rotated", ROTATED);
    until(&mut shell, &format!("selvedge runs show {run}"), "30");
    // Those that fire from now on are fired for the new key.
    let before = shell.does("selvedge runs list --where 'status:completed' | wc -l").trim().parse::<u32>().unwrap();
    until(&mut shell, &format!("test $(selvedge runs list --where 'status:completed' | wc -l) -gt {} && echo more", before + 2), "more");
    assert_eq!(shell.does("selvedge runs list --where 'status:failed' | grep -c denied || true").trim(), "0");
    assert_eq!(shell.does("stat -c %a new.key token").trim(), "600\n600");
}

#[test]
fn a_certificate_is_changed_while_the_server_works_and_one_that_does_not_fit_is_not_in_force() {
    let server = Server::new();
    let (old, new) = (Authority::new(), Authority::new());
    let (before, after) = (old.sign(2020, 4000), new.sign(2020, 4000));
    for (name, text) in [("ca.old.pem", old.pem()), ("ca.pem", new.pem()), ("certificate.pem", before.certificate), ("key.pem", before.key)] {
        server.folder.write(name, &text);
    }
    server.folder.write("selvedge.yaml", &format!("listen: 127.0.0.1:{}\ntls: {{ certificate: certificate.pem, key: key.pem }}\n", server.port));
    let mut shell = Shell::new(&server.folder);
    shell.does("export SELVEDGE_CACERT=ca.old.pem; selvedge keys create --role owner > owner.key");
    server.serve(&mut shell);
    let steps = server.steps("certificates");
    let asks = steps.last().unwrap();
    assert_eq!(shell.types(asks).code, 69, "the old one is not trusted by those who know the new one alone");
    server.folder.write("certificate.new.pem", &after.certificate);
    server.folder.write("key.new.pem", &after.key);
    for step in &steps {
        shell.does(step);
    }
    assert_eq!(shell.types("selvedge health").code, 69, "the old one is in force no more");
}

/// A handler that takes what it is given; each message is a megabyte.
const TAKES: &str = "actors:\n  box:\n    handlers:\n      put: { exec: [sh, -c, 'cat > /dev/null; echo ''{\"result\": 1}'''], persistent: false }\n";

/// A shell whose `.selvedge` lies on a disk of 160 MB, which goes with it; none where this machine gives none.
fn on_a_small_disk(server: &Server) -> Option<Shell> {
    let folder = server.folder.path();
    std::fs::create_dir(folder.join("small")).unwrap();
    std::os::unix::fs::symlink("small/data", folder.join(".selvedge")).unwrap();
    // A mount of its own, which nobody else sees and which ends with the shell; a namespace of users makes it possible for everybody.
    let small = ["-Urm", "sh", "-c", "mount -t tmpfs -o size=160m tmpfs small && mkdir small/data && exec bash"];
    let tried = Command::new("unshare").args(small).current_dir(folder).stdin(std::process::Stdio::null()).output();
    if !tried.is_ok_and(|tried| tried.status.success()) {
        eprintln!("NOT TESTED: what happens on a full disk. This machine gives no small one: `unshare -Urm mount -t tmpfs` fails.");
        return None;
    }
    let mut command = Command::new("unshare");
    command.args(small);
    let bin = std::path::Path::new(env!("CARGO_BIN_EXE_selvedge")).parent().unwrap();
    Some(Shell::of(command, folder, bin))
}

#[test]
fn on_a_full_disk_the_server_says_so_ends_and_goes_on_with_all_it_had_acknowledged_once_there_is_room() {
    let server = Server::new();
    server.folder.write("app.yaml", TAKES);
    let Some(mut shell) = on_a_small_disk(&server) else { return };
    shell.does("selvedge keys create --role owner > owner.key");
    server.serve(&mut shell);
    shell.does("head -c 1000000 /dev/zero | tr '\\0' x | sed 's/.*/\"&\"/' > megabyte");
    shell.does("export BALLAST=small/ballast; ! cat /dev/zero > $BALLAST");
    let with = server.with("owner.key");
    shell.does(&format!(
        "n=0; while {with} selvedge actors send box/$n put --input @megabyte --idempotency-key m$n > last 2>&1 && test $n -lt 500; do n=$((n + 1)); done"
    ));
    let acknowledged: u32 = shell.does("echo $n").trim().parse().unwrap();
    assert!((1..500).contains(&acknowledged), "{acknowledged}: {}", shell.does("cat last"));
    assert_eq!(shell.types("wait %1").code, 1, "it ends as what failed, so that its manager starts it again");
    let again = shell.types("selvedge serve");
    assert!(again.code == 1 && again.text.contains("No space left on device"), "{again:?}");
    for step in server.steps("disk-full") {
        let said = shell.does(&step);
        match step.as_str() {
            "selvedge verify" => assert!(said.starts_with("sound: "), "{said}"),
            step if step.starts_with("selvedge doctor") => assert!(said.contains("make room"), "{said}"),
            _ => {}
        }
    }
    // Asked again, each that was acknowledged is known by its key, and no other was.
    let count = |shell: &mut Shell| shell.does("selvedge invocations list --all -o json | grep -c '\"id\"'").trim().parse::<u32>().unwrap();
    let there = count(&mut shell);
    assert!(there == acknowledged || there == acknowledged + 1, "{there} are there, {acknowledged} were acknowledged");
    shell.does(&format!("for n in 0 1 2; do {with} selvedge actors send box/$n put --input @megabyte --idempotency-key m$n; done"));
    assert_eq!(count(&mut shell), there);
}
