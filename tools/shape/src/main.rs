//! `selvedge-shape [ROOT]`: exit 0 if the tree has the shape that DESIGN.md draws, 1 if not, 2 if it cannot be read.

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let root = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("."), PathBuf::from);
    match selvedge_shape::check(&root) {
        Err(reason) => {
            eprintln!("shape: {reason}");
            ExitCode::from(2)
        }
        Ok(report) if report.findings.is_empty() => {
            println!(
                "shape: {} source files and {} crates look as DESIGN.md draws them; each of {} words has its test",
                report.files, report.crates, report.words
            );
            ExitCode::SUCCESS
        }
        Ok(report) => {
            for finding in &report.findings {
                eprintln!("{finding}\n");
            }
            eprintln!("shape: {} places do not fit", report.findings.len());
            ExitCode::FAILURE
        }
    }
}
