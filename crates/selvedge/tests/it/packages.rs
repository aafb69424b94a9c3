//! What `make package` puts together, as far as it takes no build of its own. The rest is proven by `make package` itself.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use selvedge_kernel::limit::HTTP_DRAIN_MS;

use crate::rig::Folder;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn tool(name: &str) -> PathBuf {
    root().join("tools/package").join(name)
}

/// What a program of this machine says; none if it is not here, which is said.
fn asked(program: &str, words: &[&str]) -> Option<Output> {
    let done = Command::new(program).args(words).output();
    if done.is_err() {
        eprintln!("NOT TESTED: `{program} {}`, which is not on this machine", words.join(" "));
    }
    done.ok()
}

fn does(program: &str, words: &[&str]) {
    if let Some(done) = asked(program, words) {
        let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert!(done.status.success(), "{program} {words:?}: {said}");
    }
}

#[test]
fn each_shell_reads_its_completions_and_each_verb_has_a_page_of_the_manual() {
    let folder = Folder::new();
    for (shell, words) in [("bash", &["-n"][..]), ("zsh", &["-n"]), ("fish", &["--no-execute"])] {
        let said = folder.selvedge(&["completions", shell]);
        assert!(said.code == 0 && said.out.contains("dead-letters"), "{shell}: {}", said.err);
        folder.write(shell, &said.out);
        does(shell, &[words, &[folder.join(shell).to_str().unwrap()]].concat());
    }
    assert_eq!(folder.selvedge(&["man", "--to", "man"]).code, 0);
    for page in ["selvedge.1", "selvedge-serve.1", "selvedge-runs.1", "selvedge-runs-list.1", "selvedge-actors-state-set.1"] {
        let text = std::fs::read_to_string(folder.join("man").join(page)).unwrap_or_else(|error| panic!("{page}: {error}"));
        assert!(text.contains(".SH NAME"), "{page}");
    }
    // Each page that one names is there.
    let first = std::fs::read_to_string(folder.join("man/selvedge.1")).unwrap();
    let named: Vec<String> = first.lines().filter(|line| line.starts_with("selvedge\\-")).map(|line| line.replace('\\', "").replace("(1)", ".1")).collect();
    assert!(named.len() > 15, "{named:?}");
    for page in named {
        assert!(folder.join("man").join(page.trim()).exists(), "{page}");
    }
    let refused = folder.selvedge(&["man", "--to", "bash"]);
    assert!(refused.code == 78 && refused.err.contains("the manual cannot be written into bash"), "{refused:?}");
}

/// The value of a line `name=value` of the unit.
fn unit(name: &str) -> String {
    let text = std::fs::read_to_string(tool("selvedge.service")).unwrap();
    let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=').map(str::to_owned));
    found.unwrap_or_else(|| panic!("the unit has no {name}"))
}

#[test]
fn the_unit_waits_longer_than_a_stop_takes_and_starts_what_is_told_to_it() {
    assert_eq!((unit("Type"), unit("StateDirectory")), ("notify".to_owned(), "selvedge".to_owned()));
    let seconds: u64 = unit("TimeoutStopSec").trim_end_matches('s').parse().unwrap();
    assert!(seconds * 1_000 >= 2 * HTTP_DRAIN_MS, "{seconds} s, a server drains for {HTTP_DRAIN_MS} ms");
    // What another start does not mend is not started again; what failed is.
    let never = unit("RestartPreventExitStatus");
    assert_eq!((unit("Restart").as_str(), never.as_str()), ("on-failure", "64 77 78"));
    assert_eq!(unit("ExecReload"), "/bin/sh -c 'kill -HUP $MAINPID'");
    let start = unit("ExecStart");
    assert_eq!(start, "/usr/bin/selvedge serve --config /etc/selvedge/selvedge.yaml");
    let folder = Folder::new();
    let words: Vec<&str> = start.split(' ').skip(1).collect();
    let said = folder.selvedge(&[&words[..], &["--help"]].concat());
    assert_eq!(said.code, 0, "{said:?}");
}

#[test]
fn the_configurations_that_come_with_the_packages_are_right() {
    let folder = Folder::new();
    for (file, listens) in [("selvedge.yaml", "127.0.0.1:7420"), ("image.yaml", "0.0.0.0:7420")] {
        let path = tool(file);
        let said = folder.selvedge(&["config", "check", "--config", path.to_str().unwrap()]);
        assert_eq!(said.code, 0, "{file}: {said:?}");
        let shown = folder.json(&["config", "show", "--config", path.to_str().unwrap()]).to_string();
        assert!(shown.contains(listens) && shown.contains("/var/lib/selvedge"), "{file}: {shown}");
    }
}

#[test]
fn the_debian_package_holds_what_its_page_says_and_nothing_else() {
    let folder = Folder::new();
    if asked("dpkg-deb", &["--version"]).is_none() {
        return;
    }
    // Not compressed: the binary of tests is big.
    let made = Command::new(tool("deb")).arg(env!("CARGO_BIN_EXE_selvedge")).arg(folder.path()).env("COMPRESSION", "none").output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let package = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    let list = String::from_utf8(asked("dpkg-deb", &["--fsys-tarfile", &package]).map(|tar| listed(&tar.stdout)).unwrap()).unwrap();
    let files: Vec<&str> = list.lines().filter(|line| !line.ends_with('/')).map(|line| line.trim_start_matches('.')).collect();
    let page = std::fs::read_to_string(root().join("docs/packages.md")).unwrap();
    let told: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("| `/")?.split('`').next()).collect();
    assert!(told.len() > 8, "{told:?}");
    let covers = |told: &str, file: &str| match told.split_once('*') {
        Some((before, after)) => file.strip_prefix('/').is_some_and(|file| file.starts_with(before) && file.ends_with(after)),
        None => file.strip_prefix('/') == Some(told),
    };
    for file in &files {
        assert!(told.iter().any(|told| covers(told, file)), "{file} is in the package, and docs/packages.md does not say so");
    }
    for told in &told {
        assert!(files.iter().any(|file| covers(told, file)), "docs/packages.md names {told}, which is not in the package");
    }
    let control = String::from_utf8(asked("dpkg-deb", &["--field", &package]).unwrap().stdout).unwrap();
    assert!(control.contains(&format!("Version: {}\n", env!("CARGO_PKG_VERSION"))) && control.contains("Depends: libc6 (>= "), "{control}");
}

/// The names in a tar file.
fn listed(tar: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut lists = Command::new("tar").arg("-t").stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut stdin = lists.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(tar).unwrap());
        lists.wait_with_output().unwrap().stdout
    })
}

#[test]
fn the_scripts_of_the_packages_are_clean() {
    let scripts = ["all", "build", "deb", "image-root", "postinst", "postrm", "prerm", "prove-deb", "prove-image", "prove-inside", "prove-install", "words"];
    let paths: Vec<String> = scripts.iter().map(|script| tool(script).display().to_string()).collect();
    does("shellcheck", &paths.iter().map(String::as_str).collect::<Vec<_>>());
    for entry in std::fs::read_dir(tool("")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(scripts.contains(&name.as_str()) || name.contains('.') || name == "licences", "{name} is not looked at");
    }
}
