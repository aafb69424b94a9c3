//! The `selvedge` binary: the whole command line, with no handlers of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    selvedge::main(selvedge::App::new())
}
