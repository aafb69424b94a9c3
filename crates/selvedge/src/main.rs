//! The `selvedge` binary: the whole command line, with no handlers of its own.

use std::process::ExitCode;

// What a program with handlers of its own allocates with is its own choice.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    selvedge::main(selvedge::App::new())
}
