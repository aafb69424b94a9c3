//! The crates of the workspace and what each asks for, as cargo reads their manifests.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// One crate of ours.
#[derive(Clone, Debug)]
pub struct Crate {
    /// Its package name.
    pub name: String,
    /// Its manifest, relative to the root.
    pub manifest: String,
    /// The manifest's text.
    pub text: String,
    /// What it depends on, dev-dependencies left out.
    pub dependencies: Vec<String>,
    /// What only its tests depend on.
    pub dev_dependencies: Vec<String>,
}

impl Crate {
    /// The line of the manifest that names a dependency; 0 if none does.
    pub fn line_of(&self, dependency: &str) -> usize {
        let names = |line: &str| {
            let key = line.split(['=', '.', ' ']).next().unwrap_or("").trim_matches(['[', ']', '"']);
            key == dependency || line.contains(&format!("\"{dependency}\"")) || line.contains(&format!(".{dependency}]"))
        };
        self.text.lines().position(names).map_or(0, |at| at + 1)
    }
}

/// Asks cargo for the workspace's members, without resolving anything and without the network.
pub fn read(root: &Path) -> Result<Vec<Crate>, String> {
    let manifest = root.join("Cargo.toml");
    let output = Command::new("cargo")
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1", "--manifest-path"])
        .arg(&manifest)
        .output()
        .map_err(|error| format!("cargo cannot be started: {error}; install the Rust toolchain"))?;
    if !output.status.success() {
        return Err(format!("cargo metadata refuses {}: {}", manifest.display(), String::from_utf8_lossy(&output.stderr).trim()));
    }
    let metadata: Value = serde_json::from_slice(&output.stdout).map_err(|error| format!("cargo metadata answered something else: {error}"))?;
    let base = metadata["workspace_root"].as_str().unwrap_or("").to_owned();
    let mut crates = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        crates.push(one(package, &base)?);
    }
    Ok(crates)
}

fn one(package: &Value, base: &str) -> Result<Crate, String> {
    let path = package["manifest_path"].as_str().unwrap_or("");
    let text = std::fs::read_to_string(path).map_err(|error| format!("{path} cannot be read: {error}"))?;
    let named = |dev: bool| {
        let all = package["dependencies"].as_array().into_iter().flatten();
        all.filter(|dependency| (dependency["kind"] == "dev") == dev).filter_map(|dependency| dependency["name"].as_str()).map(str::to_owned).collect()
    };
    Ok(Crate {
        name: package["name"].as_str().unwrap_or("").to_owned(),
        manifest: Path::new(path).strip_prefix(base).unwrap_or(Path::new(path)).to_string_lossy().into_owned(),
        text,
        dependencies: named(false),
        dev_dependencies: named(true),
    })
}
