//! A shell that stays, as the one that somebody types a page into.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::rig::Folder;

/// What it prints after each command, with the exit code.
const END: &str = "### the end of a command:";

/// A shell in a folder, with the real binary first on its path. What it has started ends with it.
pub struct Shell {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

/// What a command said, on both outputs.
#[derive(Debug)]
pub struct Typed {
    pub code: i32,
    pub text: String,
}

impl Shell {
    /// In a folder; its binary is a copy of its own, so that a test may put another one in its place.
    pub fn new(folder: &Folder) -> Shell {
        let bin = folder.join("bin");
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::copy(env!("CARGO_BIN_EXE_selvedge"), bin.join("selvedge")).unwrap();
        Shell::of(Command::new("bash"), folder.path(), &bin)
    }

    /// With another command in front of it.
    pub fn of(mut command: Command, folder: &Path, bin: &Path) -> Shell {
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
        command.current_dir(folder).env("PATH", path).env_remove("SELVEDGE_SERVER").env_remove("SELVEDGE_KEY");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut shell = Shell { child, stdin, stdout };
        // What is started in the background ends with the shell, however that ends.
        assert_eq!(shell.types("exec 2>&1; trap 'kill $(jobs -p) 2> /dev/null; wait' EXIT").code, 0);
        shell
    }

    /// Types a command and waits for its end.
    pub fn types(&mut self, command: &str) -> Typed {
        writeln!(self.stdin, "{command}\necho \"{END} $?\"").unwrap();
        let mut text = String::new();
        loop {
            let mut line = String::new();
            assert_ne!(self.stdout.read_line(&mut line).unwrap(), 0, "the shell ended at `{command}`, which said {text}");
            match line.trim_end().split_once(END) {
                // A command may end without the end of its line.
                Some((before, code)) => return Typed { code: code.trim().parse().unwrap(), text: text + before },
                None => text += &line,
            }
        }
    }

    /// Types a command that must do what it is to.
    pub fn does(&mut self, command: &str) -> String {
        let typed = self.types(command);
        assert_eq!(typed.code, 0, "`{command}` said {}", typed.text);
        typed.text
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = writeln!(self.stdin, "exit");
        let _ = self.child.wait();
    }
}

/// The commands of a page, in order; a block that only shows what a variable is set to is none.
pub fn steps(page: &str) -> Vec<String> {
    let text = std::fs::read_to_string(format!("{}/../../docs/runbooks/{page}.md", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let blocks = text.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap().trim().to_owned());
    let shows = |block: &String| block.split_once('=').is_some_and(|(name, value)| name.bytes().all(|byte| byte.is_ascii_uppercase()) && !value.contains(' '));
    blocks.filter(|block| !shows(block)).collect()
}
