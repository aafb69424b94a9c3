//! Each rule bites on a small tree that breaks it, and lets a tree alone that does not.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use selvedge_shape::finding::Finding;
use selvedge_shape::{check, globals, tree};
use tempfile::TempDir;

const PORTS: &str = "pub trait Store: Send + Sync {\n    fn get(&self);\n}\n";

/// A tree of a workspace with a kernel, a store and an engine, and the files given on top.
fn plant(files: &[(&str, &str)]) -> TempDir {
    let root = TempDir::new().unwrap();
    let package = |name: &str, rest: &str| format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n{rest}");
    write(root.path(), "Cargo.toml", "[workspace]\nresolver = \"3\"\nmembers = [\"crates/*\"]\n");
    write(root.path(), "crates/kernel/Cargo.toml", &package("selvedge-kernel", ""));
    write(root.path(), "crates/kernel/src/lib.rs", "pub mod ports;\n");
    write(root.path(), "crates/kernel/src/ports.rs", PORTS);
    write(root.path(), "crates/store/Cargo.toml", &package("selvedge-store", "[dependencies]\nselvedge-kernel = { path = \"../kernel\" }\n"));
    write(root.path(), "crates/store/src/lib.rs", "pub struct Embedded;\nimpl selvedge_kernel::ports::Store for Embedded {\n    fn get(&self) {}\n}\n");
    write(root.path(), "crates/engine/Cargo.toml", &package("selvedge-engine", "[dependencies]\nselvedge-kernel = { path = \"../kernel\" }\n"));
    write(root.path(), "crates/engine/src/lib.rs", "");
    for (path, text) in files {
        write(root.path(), path, text);
    }
    root
}

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn findings(files: &[(&str, &str)]) -> Vec<Finding> {
    let root = plant(files);
    check(root.path()).unwrap().findings
}

/// The single finding of a tree: its rule and its line.
fn only(files: &[(&str, &str)]) -> (&'static str, usize) {
    let found = findings(files);
    assert_eq!(found.len(), 1, "{found:#?}");
    (found[0].rule, found[0].line)
}

const ENGINE: &str = "crates/engine/src/lib.rs";

#[test]
fn a_tree_in_shape_has_no_findings() {
    let found = findings(&[
        (ENGINE, "pub mod bootstrap;\npub fn name() -> &'static str { \"static\" }\n"),
        (
            "crates/engine/src/bootstrap.rs",
            "use std::sync::Arc;\npub fn store() -> Arc<dyn selvedge_kernel::ports::Store> { Arc::new(selvedge_store::Embedded) }\n",
        ),
    ]);
    assert_eq!(found, []);
}

#[test]
fn a_global_is_found_also_inside_a_macro() {
    assert_eq!(only(&[(ENGINE, "\nstatic COUNT: u64 = 1;\n")]), ("global", 2));
    assert_eq!(only(&[(ENGINE, "thread_local! { }\n")]), ("global", 1));
    assert_eq!(only(&[(ENGINE, "fn f() {\n    let _ = std::sync::OnceLock::<u8>::new();\n}\n")]), ("global", 2));
    assert_eq!(only(&[(ENGINE, "type L = std::sync::LazyLock<u8>;\n")]), ("global", 1));
    assert_eq!(only(&[(ENGINE, "macro_rules! hide {\n    () => { static HIDDEN: u8 = 1; };\n}\n")]), ("global", 2));
}

#[test]
fn the_list_of_globals_holds_three_and_names_file_and_word() {
    let root = plant(&[(ENGINE, "static COUNT: u64 = 1;\n")]);
    let sources = tree::read(root.path()).unwrap();
    let entry = globals::Allowed { file: ENGINE, word: "static", reason: "a test" };
    assert_eq!(globals::check(&sources, &[entry]), []);
    assert_eq!(globals::check(&sources, &[globals::Allowed { word: "OnceLock", ..entry }]).len(), 1);
    assert_eq!(globals::check(&sources, &[entry; 4]).len(), 1);
}

#[test]
fn a_trait_of_seven_methods_is_found() {
    let wide = "pub trait Wide {\n fn a(&self); fn b(&self); fn c(&self); fn d(&self); fn e(&self); fn f(&self); fn g(&self);\n}\n";
    assert_eq!(only(&[(ENGINE, wide)]), ("trait", 1));
    assert_eq!(findings(&[(ENGINE, &wide.replace("fn g(&self);", ""))]), []);
}

#[test]
fn a_default_body_is_found() {
    assert_eq!(only(&[(ENGINE, "trait Lazy {\n    fn a(&self);\n    fn b(&self) {}\n}\n")]), ("trait", 3));
}

#[test]
fn a_supertrait_of_ours_is_found_and_a_foreign_one_is_not() {
    assert_eq!(only(&[(ENGINE, "trait Low { fn a(&self); }\ntrait High: Send + Low { fn b(&self); }\n")]), ("trait", 2));
    assert_eq!(findings(&[(ENGINE, "trait High: Send + std::fmt::Debug { fn b(&self); }\n")]), []);
}

#[test]
fn a_self_filling_registry_is_found_also_as_dev_dependency() {
    let manifest =
        |section: &str, name: &str| format!("[package]\nname = \"selvedge-engine\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[{section}]\n{name} = \"*\"\n");
    for name in ["inventory", "ctor", "linkme"] {
        assert_eq!(only(&[("crates/engine/Cargo.toml", &manifest("dependencies", name))]), ("registry", 7));
        assert_eq!(only(&[("crates/engine/Cargo.toml", &manifest("dev-dependencies", name))]), ("registry", 7));
    }
}

#[test]
fn a_port_made_outside_bootstrap_is_found() {
    let cast = "fn f(e: E) {\n    let _ = std::sync::Arc::new(e) as std::sync::Arc<dyn selvedge_kernel::ports::Store>;\n}\n";
    assert_eq!(only(&[(ENGINE, cast)]), ("factory", 2));
    let typed = "fn f(e: E) {\n    let _s: Arc<dyn Store> = Arc::new(e);\n}\n";
    assert_eq!(only(&[(ENGINE, typed)]), ("factory", 2));
    let returned = "fn f(e: E) -> Result<Arc<dyn Store>, ()> {\n    Ok(Arc::new(e))\n}\n";
    assert_eq!(only(&[(ENGINE, returned)]), ("factory", 2));
    let coerced = "fn f() {\n    start(Arc::new(selvedge_store::Embedded::open()));\n}\n";
    assert_eq!(only(&[(ENGINE, coerced)]), ("factory", 2));
    let turbofish = "fn f(e: Box<E>) {\n    start(Arc::<dyn Store>::from(e));\n}\n";
    assert_eq!(only(&[(ENGINE, turbofish)]), ("factory", 2));
}

#[test]
fn a_port_made_in_a_test_or_held_as_a_parameter_is_let_alone() {
    let cast = "fn f(e: E) { let _ = Arc::new(e) as Arc<dyn Store>; }\n";
    assert_eq!(findings(&[("crates/engine/tests/all.rs", cast)]), []);
    assert_eq!(findings(&[(ENGINE, &format!("#[cfg(test)]\nmod checks {{\n{cast}}}\n"))]), []);
    assert_eq!(findings(&[(ENGINE, "#[cfg(test)]\nmod checks;\n"), ("crates/engine/src/checks.rs", cast)]), []);
    assert_eq!(findings(&[(ENGINE, "struct Shard { store: Arc<dyn Store> }\nfn f(store: Arc<dyn Store>) -> Shard { Shard { store } }\n")]), []);
}

#[test]
fn an_arrow_that_is_not_drawn_is_found_and_a_dev_dependency_is_none() {
    let manifest = |section: &str| {
        format!("[package]\nname = \"selvedge-engine\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[{section}]\nselvedge-store = {{ path = \"../store\" }}\n")
    };
    assert_eq!(only(&[("crates/engine/Cargo.toml", &manifest("dependencies"))]), ("arrow", 7));
    assert_eq!(findings(&[("crates/engine/Cargo.toml", &manifest("dev-dependencies"))]), []);
}

#[test]
fn a_crate_that_is_not_drawn_is_found() {
    let manifest = "[package]\nname = \"selvedge-types\"\nversion = \"0.1.0\"\nedition = \"2024\"\n";
    assert_eq!(only(&[("crates/types/Cargo.toml", manifest), ("crates/types/src/lib.rs", "")]), ("crate", 2));
}

#[test]
fn a_heavy_dependency_in_the_wrong_crate_is_found() {
    let manifest = |package: &str, dependency: &str| {
        format!("[package]\nname = \"selvedge-{package}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[dependencies]\n{dependency} = \"*\"\n")
    };
    for (package, dependency) in [
        ("kernel", "tokio"),
        ("kernel", "rand"),
        ("store", "tokio"),
        ("engine", "fjall"),
        ("engine", "clap"),
        ("engine", "axum"),
        ("kernel", "azure_core"),
        ("store", "cedar-policy-core"),
    ] {
        let path = format!("crates/{package}/Cargo.toml");
        assert_eq!(only(&[(&path, &manifest(package, dependency))]), ("heavy", 7), "{dependency} in {package}");
    }
    assert_eq!(findings(&[("crates/store/Cargo.toml", &manifest("store", "fjall"))]), []);
    assert_eq!(findings(&[("crates/engine/Cargo.toml", &manifest("engine", "tokio"))]), []);
}

#[test]
fn a_case_that_names_a_missing_test_is_found_and_not_yet_is_let_alone() {
    let table = "# Cases\n\n| n | guarantee | test |\n|---|---|---|\n| 1 | a | `crates/engine/tests/all.rs::it_holds` |\n| 2 | b | not yet |\n";
    let tests = "#[test]\nfn it_holds() {}\n";
    assert_eq!(findings(&[("docs/failure-cases.md", table), ("crates/engine/tests/all.rs", tests)]), []);
    assert_eq!(only(&[("docs/failure-cases.md", table)]), ("case", 5));
    assert_eq!(only(&[("docs/failure-cases.md", table), ("crates/engine/tests/all.rs", "fn it_holds_more() {}\n")]), ("case", 5));
}

#[test]
fn a_word_without_a_test_and_one_that_can_be_written_and_has_no_row_are_found() {
    let parser = (
        "crates/kernel/src/pipeline/stage.rs",
        "fn f() { fields.get(\"over\"); word(report, \"wait\", x, &[\"all\"]); }\nconst MODES: [&str; 1] = [\"single\"];\n",
    );
    let verbs = (
        "crates/selvedge/src/cli/args.rs",
        "pub enum Noun {\n    /// Runs\n    #[command(subcommand)]\n    DeadLetters(Letters),\n    Why { id: String },\n}\n\npub enum Letters {\n    List,\n}\n",
    );
    let tests = ("crates/engine/tests/all.rs", "#[test]\nfn it_holds() {}\n");
    let row = |word: &str| format!("| `{word}` | `crates/engine/tests/all.rs::it_holds` |\n");
    let words = ["over", "wait: all", "single", "dead-letters list", "why"];
    let table: String = words.iter().map(|word| row(word)).collect();
    let package = ("crates/selvedge/Cargo.toml", "[package]\nname = \"selvedge\"\nversion = \"0.1.0\"\nedition = \"2024\"\n");
    let with = |table: &str| findings(&[parser, verbs, package, ("crates/selvedge/src/lib.rs", ""), tests, ("docs/coverage-of-words.md", table)]);
    assert_eq!(with(&table), []);
    for word in words {
        let found = with(&table.replace(&row(word), ""));
        assert!(found.len() == 1 && found[0].rule == "word" && found[0].what.contains(&format!("`{word}`")), "{found:?}");
        let found = with(&table.replace(&row(word), &format!("| `{word}` | not yet |\n")));
        assert!(found.len() == 1 && found[0].what.contains("has no test"), "{found:?}");
    }
    let found = with(&table.replace("it_holds", "it_is_gone"));
    assert_eq!(found.len(), words.len(), "{found:?}");
}

#[test]
fn every_finding_says_where_why_and_what_to_do() {
    let found = findings(&[(ENGINE, "static COUNT: u64 = 1;\n")]);
    let text = found[0].to_string();
    assert!(text.starts_with("crates/engine/src/lib.rs:1: global: `static`"), "{text}");
    assert!(text.contains("\n    why: ") && text.contains("\n    do:  "), "{text}");
}

#[test]
fn a_file_that_is_not_rust_is_an_error_that_names_it() {
    let root = plant(&[(ENGINE, "fn {\n")]);
    assert!(check(root.path()).unwrap_err().starts_with(ENGINE));
}

const MADE: &str = "pub fn e() { let _ = (WorkError::new(\"too_late\", \"\"), VerbError::new(Consequence::Limit, \"limit: day\", String::new())); }\n";
const CARRIED: &str = "crates/selvedge/src/cli/explain/pages.rs";

#[test]
fn a_code_without_a_page_and_a_page_without_a_code_are_found() {
    let late = ("docs/errors/too_late.md", "# too_late\n");
    let both = "const P: [&str; 2] = [include_str!(\"/docs/errors/too_late.md\"), include_str!(\"/docs/errors/limit_day.md\")];\n";
    let selvedge = ("crates/selvedge/Cargo.toml", "[package]\nname = \"selvedge\"\nversion = \"0.1.0\"\nedition = \"2024\"\n");
    let lib = ("crates/selvedge/src/lib.rs", "");
    let day = ("docs/errors/limit_day.md", "# limit: day\n");
    assert_eq!(findings(&[(ENGINE, MADE), late, day, selvedge, lib, (CARRIED, both)]), []);
    assert_eq!(only(&[(ENGINE, MADE), late, selvedge, lib, (CARRIED, both)]), ("code", 1));
    let extra = ("docs/errors/nobody.md", "# nobody\n");
    let found = findings(&[(ENGINE, MADE), late, day, extra, selvedge, lib, (CARRIED, both)]);
    assert_eq!(found.iter().map(|one| one.what.as_str()).collect::<Vec<_>>(), ["`selvedge explain` does not know this page", "no error has this code"]);
    let tested = "#[cfg(test)]\nmod tests {\n    fn e() { WorkError::new(\"of_a_test\", \"\"); }\n}\n";
    assert_eq!(findings(&[(ENGINE, tested)]), []);
}
