//! The shape of the repository, as rules that a build can break on: what DESIGN.md draws and nothing else.
//!
//! Each rule is one file with one function from the read tree to findings.

pub mod arrows;
pub mod cases;
pub mod codes;
pub mod factory;
pub mod finding;
pub mod globals;
pub mod manifest;
pub mod traits;
pub mod tree;
pub mod words;

use std::path::Path;

use finding::Finding;

/// What was looked at and what does not fit.
#[derive(Debug)]
pub struct Report {
    /// How many source files were read.
    pub files: usize,
    /// How many crates the workspace has.
    pub crates: usize,
    /// How many words of the design have a row with their test.
    pub words: usize,
    /// What does not fit, in the order of file and line.
    pub findings: Vec<Finding>,
}

/// Reads the workspace at `root` and applies every rule. An error means that the tree could not be read at all.
pub fn check(root: &Path) -> Result<Report, String> {
    let sources = tree::read(root)?;
    let crates = manifest::read(root)?;
    let mut findings = Vec::new();
    findings.extend(globals::check(&sources, globals::ALLOWED));
    findings.extend(traits::check(&sources));
    findings.extend(factory::check(&sources));
    findings.extend(arrows::check(&crates));
    findings.extend(cases::check(root)?);
    findings.extend(codes::check(root, &sources)?);
    findings.extend(words::check(root, &sources)?);
    findings.sort();
    findings.dedup();
    Ok(Report { files: sources.len(), crates: crates.len(), words: words::count(root), findings })
}
