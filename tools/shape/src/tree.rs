//! The source files of the workspace, read and parsed once.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use proc_macro2::TokenStream;

/// One Rust file.
pub struct Source {
    /// Relative to the root, with forward slashes.
    pub path: String,
    /// All of it, macros included.
    pub tokens: TokenStream,
    /// The same, understood.
    pub syntax: syn::File,
    /// Whether only tests (or the test kit) compile it.
    pub test: bool,
}

/// Folders that hold nothing of ours.
const SKIPPED: [&str; 4] = ["target", "node_modules", "out", "corpus"];

/// Reads every Rust file under `root`, in the order of their paths. A file that does not parse is an error that names it.
pub fn read(root: &Path) -> Result<Vec<Source>, String> {
    let mut paths = Vec::new();
    walk(root, &mut paths)?;
    paths.sort();
    let mut sources = Vec::with_capacity(paths.len());
    for path in paths {
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
        let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().replace('\\', "/");
        let tokens: TokenStream = text.parse().map_err(|error| format!("{name} is not Rust: {error}"))?;
        let syntax = syn::parse2(tokens.clone()).map_err(|error| format!("{name}:{}: is not Rust: {error}", error.span().start().line))?;
        let test = name.split('/').any(|part| matches!(part, "tests" | "benches" | "test" | "tests.rs" | "test.rs"));
        sources.push(Source { path: name, tokens, syntax, test });
    }
    mark_test_modules(&mut sources);
    Ok(sources)
}

fn walk(folder: &Path, paths: &mut Vec<PathBuf>) -> Result<(), String> {
    let entries = std::fs::read_dir(folder).map_err(|error| format!("{} cannot be listed: {error}", folder.display()))?;
    for entry in entries {
        let entry = entry.map_err(|error| format!("{} cannot be listed: {error}", folder.display()))?;
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = entry.file_type().map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
        if kind.is_dir() {
            if !name.starts_with('.') && !SKIPPED.contains(&name.as_str()) {
                walk(&path, paths)?;
            }
        } else if kind.is_file() && name.ends_with(".rs") {
            paths.push(path);
        }
    }
    Ok(())
}

/// A file that stands behind `#[cfg(test)] mod name;` is a test, whatever it is called.
fn mark_test_modules(sources: &mut [Source]) {
    let mut test_modules = BTreeSet::new();
    for source in sources.iter() {
        let folder = module_folder(&source.path);
        for item in &source.syntax.items {
            if let syn::Item::Mod(module) = item
                && module.content.is_none()
                && is_test_only(&module.attrs)
            {
                test_modules.insert(format!("{folder}/{}", module.ident));
            }
        }
    }
    for source in sources.iter_mut() {
        let stem = source.path.trim_end_matches(".rs");
        source.test |= test_modules.iter().any(|module| stem == module || stem.strip_prefix(module.as_str()).is_some_and(|rest| rest.starts_with('/')));
    }
}

/// Where the modules that a file declares lie.
fn module_folder(path: &str) -> String {
    let stem = path.trim_end_matches(".rs");
    match stem.rsplit_once('/') {
        Some((folder, "lib" | "main" | "mod")) => folder.to_owned(),
        _ => stem.to_owned(),
    }
}

/// Whether the attributes say `cfg(test)` or `cfg(… feature = "test" …)`.
pub fn is_test_only(attrs: &[syn::Attribute]) -> bool {
    attrs.iter().any(|attr| {
        if !attr.path().is_ident("cfg") {
            return attr.path().is_ident("test");
        }
        let syn::Meta::List(list) = &attr.meta else { return false };
        let words = list.tokens.to_string();
        !words.starts_with("not") && words.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "test")
    })
}
