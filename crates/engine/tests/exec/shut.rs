//! A data directory that programs are kept out of, and what they can do all the same.
//!
//! Where the kernel has no Landlock these tests look at what is said instead.

use selvedge_engine::exec::{Reason, Shut, Standing};
use selvedge_kernel::config::Landlock;
use serde_json::{Value, json};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::rig::{Folder, needs, open, python_worker, run, shim, task};

/// Tries everything that it is told to, and says of each whether it could.
const TRIES: &str = r#"
import shutil, socket, subprocess, tempfile
say({"hello": 1, "activities": ["work"]})
def attempt(code):
    try:
        exec(code, globals())
        return True
    except PermissionError:
        return False
for line in sys.stdin:
    t = json.loads(line)
    say({"id": t["id"], "result": {code: attempt(code) for code in t["input"]}})
"#;

/// A data directory in a folder beside that of the program.
fn directory(folder: &Folder) -> (Shut, UnixListener) {
    for path in ["home/data/log", "home/data/scratch", "home/beside", "work"] {
        std::fs::create_dir_all(folder.0.join(path)).unwrap();
    }
    for path in ["home/data/meta", "home/data/log/1", "home/data/scratch/input", "home/beside/file", "home/file"] {
        folder.write(path, "some text");
    }
    let socket = UnixListener::bind(folder.0.join("home/data/control.sock")).unwrap();
    std::os::unix::fs::symlink(folder.0.join("home/data"), folder.0.join("home/also")).unwrap();
    let data = folder.0.join("home/data");
    (Shut { scratch: data.join("scratch"), data, landlock: Landlock::Always }, socket)
}

/// Whether this kernel has it; what it says where it has not.
fn here(shut: &Shut) -> bool {
    match shut.standing() {
        Standing::Shut | Standing::Truncatable => true,
        Standing::Open(reason @ Reason::Kernel(_)) => {
            assert!(reason.to_string().contains("it takes Linux 5.19 or a later one"), "{reason}");
            eprintln!("this kernel has no Landlock: only what is said of it was tested");
            false
        }
        other => panic!("{other:?}"),
    }
}

async fn tried(folder: &Folder, shut: Shut, codes: &[String]) -> Value {
    let mut spec = python_worker(folder, TRIES);
    spec.shim = Some(selvedge_engine::exec::Shim { shut: Some(shut), ..shim(None) });
    run(&open(spec), task(&json!(codes))).await.result.unwrap()
}

#[tokio::test]
async fn a_program_cannot_read_or_change_a_data_directory_that_is_shut() {
    let folder = Folder::new("shut");
    let (shut, _listens) = directory(&folder);
    if !here(&shut) {
        return;
    }
    let home = folder.0.join("home");
    let home = home.display();
    let mut forbidden = vec![
        format!("open('{home}/data/meta').read()"),
        format!("open('{home}/also/meta').read()"),
        format!("open('/proc/self/root{home}/data/log/1').read()"),
        format!("open('{home}/data/log/1', 'r+b').write(b'x')"),
        format!("open('{home}/data/new', 'w')"),
        format!("os.remove('{home}/data/log/1')"),
        format!("os.mkdir('{home}/data/folder')"),
        format!("os.rename('{home}/data/log', '{home}/beside/log')"),
        format!("os.rename('{home}/data', '{home}/beside/data')"),
        format!("subprocess.run(['rm', '{home}/data/log/1'], stderr=subprocess.DEVNULL, check=False).returncode and open('{home}/data/log/1')"),
    ];
    if shut.standing() == Standing::Shut {
        forbidden.push(format!("os.truncate('{home}/data/log/1', 0)"));
    }
    let could = tried(&folder, shut, &forbidden).await;
    let could: Vec<&String> = could.as_object().unwrap().iter().filter(|(_, could)| **could == true).map(|(code, _)| code).collect();
    assert!(could.is_empty(), "{could:?}");
    assert_eq!(folder.read("home/data/log/1"), "some text");
}

#[tokio::test]
async fn a_program_that_is_kept_out_of_the_data_directory_does_its_ordinary_work() {
    let folder = Folder::new("works");
    let (shut, _listens) = directory(&folder);
    if !here(&shut) {
        return;
    }
    let home = folder.0.join("home");
    let home = home.display();
    let allowed = vec![
        "open('work/out', 'w').write('x'); open('work/out').read(); os.truncate('work/out', 0)".to_owned(),
        "os.mkdir('work/folder'); os.rename('work/out', 'work/folder/out'); shutil.rmtree('work/folder')".to_owned(),
        "f = tempfile.NamedTemporaryFile(); f.write(b'x'); f.flush(); open(f.name).read()".to_owned(),
        "assert subprocess.run(['sh', '-c', 'echo x > work/of-a-child; cat < work/of-a-child; ls / > /dev/null'], capture_output=True, check=True).stdout == b'x\\n'".to_owned(),
        "s = socket.socket(socket.AF_UNIX); s.bind('work/sock'); s.listen(); c = socket.socket(socket.AF_UNIX); c.connect('work/sock')".to_owned(),
        "open('/etc/passwd').read(); open('/proc/self/status').read(); open('/dev/null', 'w').write('x'); os.symlink('out', 'work/link')".to_owned(),
        format!("open('{home}/file', 'a').write('more'); open('{home}/beside/file').read(); open('{home}/beside/new', 'w')"),
        format!("assert 'data' in os.listdir('{home}') and 'meta' in os.listdir('{home}/data')"),
        format!("open('{home}/data/scratch/input').read()"),
        format!("socket.socket(socket.AF_UNIX).connect('{home}/data/control.sock')"),
    ];
    let could = tried(&folder, shut, &allowed).await;
    let could_not: Vec<&String> = could.as_object().unwrap().iter().filter(|(_, could)| **could == false).map(|(code, _)| code).collect();
    assert!(could_not.is_empty(), "{could_not:?}");
}

#[tokio::test]
async fn what_is_to_be_shut_always_and_cannot_be_keeps_the_program_from_starting_and_says_why() {
    let folder = Folder::new("always");
    let shut = Shut { data: folder.0.join("nowhere"), scratch: folder.0.clone(), landlock: Landlock::Always };
    let mut spec = python_worker(&folder, TRIES);
    spec.shim = Some(selvedge_engine::exec::Shim { shut: Some(shut.clone()), ..shim(None) });
    let told = run(&open(spec), task(&json!([]))).await;
    assert_eq!((told.error().error.code.as_str(), told.error().retryable), ("exec_start", false));
    for words in ["`landlock: always` cannot keep the data directory shut to it", "nowhere cannot be shut: No such file"] {
        assert!(told.error().error.message.contains(words), "{}", told.error().error.message);
    }
    let shut = Shut { landlock: Landlock::Auto, ..shut };
    assert_eq!(tried(&folder, shut, &["1".to_owned()]).await, json!({"1": true}), "where it is not asked for, the program runs");
}

/// A folder of the system, below folders in which only root makes entries, with a file that all may read.
fn of_the_system() -> (&'static Path, &'static str) {
    let found = [("/usr/share/zoneinfo", "UTC"), ("/usr/share/perl5", "strict.pm"), ("/usr/share/common-licenses", "GPL-3"), ("/usr/include", "stdio.h")];
    let there = found.into_iter().find(|(folder, file)| Path::new(folder).join(file).is_file());
    let (folder, file) = there.expect("none of these is on this system: add a folder of its own that all may read");
    (Path::new(folder), file)
}

/// Runs one program as a user who is not root: as nobody where the tests are root's.
fn as_a_user(folder: &Folder, shut: &Path, script: &str) -> std::process::Output {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    std::fs::set_permissions(&folder.0, std::fs::Permissions::from_mode(0o777)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_exec-host"));
    command.arg(folder.0.join("exec.lock")).arg("false").arg(&folder.0).args(["sh", "-c", script]).env("EXEC_HOST_SHUT", shut);
    if std::fs::metadata(&folder.0).unwrap().uid() == 0 {
        command.uid(65_534).gid(65_534);
    }
    command.output().unwrap()
}

#[tokio::test]
async fn below_folders_of_another_user_it_is_shut_without_being_asked_for_and_nothing_else_is() {
    needs("sh");
    let folder = Folder::new("auto");
    let (data, file) = of_the_system();
    let shut = Shut { data: data.to_owned(), scratch: data.join("scratch"), landlock: Landlock::Always };
    let readable = format!("cat {}/{file} > /dev/null 2>&1 && echo 1 || echo 0", data.display());
    let ordinary = "sh -c 'echo x > made' && test -r /etc/passwd && ls /usr > /dev/null && cat made > /dev/null";
    let said = as_a_user(&folder, data, &format!("{ordinary} || exit 9; {readable}"));
    let told = String::from_utf8_lossy(&said.stdout).trim().to_owned();
    assert_eq!(told, if here(&shut) { "0" } else { "1" }, "{said:?}");
    // Beside a file of the user's own it is open, as it was: there the user may make other ones.
    let own = folder.0.join("own");
    std::fs::create_dir(&own).unwrap();
    folder.write("own/file", "x");
    let said = as_a_user(&folder, &own, "cat own/file > /dev/null && echo 1");
    assert_eq!(String::from_utf8_lossy(&said.stdout).trim(), "1", "{said:?}");
}
