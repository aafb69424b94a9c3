//! A data directory that may only be read.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::rig::Folder;

const ONE: &str = "
selvedge: 1
name: one
activities: { note: { exec: [cat], persistent: false } }
stages: [{ name: a, call: note }]
";
const NOBODY: u32 = 65_534;

fn allow(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn below(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![folder.to_path_buf()];
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(below(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// A folder in which this user, or nobody where this one is root and may write everywhere, may write into `tmp` alone.
fn read_only(folder: &Folder) -> impl Fn(&[&str]) -> Command {
    std::fs::create_dir(folder.join("tmp")).unwrap();
    let program = folder.join("selvedge");
    if std::fs::hard_link(env!("CARGO_BIN_EXE_selvedge"), &program).is_err() {
        std::fs::copy(env!("CARGO_BIN_EXE_selvedge"), &program).unwrap();
    }
    for path in below(&folder.join(".selvedge")) {
        allow(&path, if path.is_dir() { 0o555 } else { 0o444 });
    }
    allow(folder.path(), 0o755);
    allow(&folder.join("tmp"), 0o777);
    let (path, root) = (folder.path().to_path_buf(), std::fs::metadata("/proc/self").unwrap().uid() == 0);
    move |words| {
        let mut command = Command::new(&program);
        command.args(words).current_dir(&path).env("TMPDIR", path.join("tmp")).env("USER", "ada");
        if root {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }
}

#[test]
fn verify_walks_what_may_only_be_read_and_leaves_it_as_it_is() {
    let folder = Folder::new();
    folder.write("p.yaml", ONE);
    assert_eq!(folder.selvedge(&["run", "p.yaml"]).code, 0);
    let heads = folder.selvedge(&["verify", "--heads"]).out;
    folder.write("heads", &heads);
    allow(&folder.join("heads"), 0o644);
    let command = read_only(&folder);
    let data = folder.join(".selvedge");
    let kept = || below(&data).into_iter().filter(|path| path.is_file()).map(|path| (std::fs::read(&path).unwrap(), path)).collect::<Vec<_>>();
    let before = kept();
    let said = |words: &[&str]| {
        let output = command(words).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    for words in [&["verify"][..], &["verify", "--quick"], &["verify", "--against", "heads"]] {
        let (code, out, err) = said(words);
        assert!(code == Some(0) && out.starts_with("sound: "), "{words:?}: {out}{err}");
        assert!(err.contains(".selvedge may only be read: a copy of it in ") && err.contains("/tmp/selvedge-check-"), "{err}");
    }
    assert_eq!(said(&["verify", "--heads"]).1, heads);
    // What would write is refused, and says where.
    let (code, _, err) = said(&["actors", "send", "a/b", "c"]);
    assert!(code == Some(77) && err.contains("cannot open") && err.contains("every verb but `verify` writes"), "{code:?} {err}");
    assert_eq!(kept(), before);
    assert_eq!(below(&folder.join("tmp")), [folder.join("tmp")], "no copy is left behind");
    for path in below(&data) {
        allow(&path, 0o755);
    }
}
