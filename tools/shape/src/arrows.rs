//! Crate arrows and heavy dependencies: what DESIGN.md, "Shape", draws.

use crate::finding::Finding;
use crate::manifest::Crate;

/// Which crates of ours a crate may use.
const ARROWS: [(&str, &[&str]); 10] = [
    ("selvedge-kernel", &[]),
    ("selvedge-store", &["selvedge-kernel"]),
    ("selvedge-sandbox", &["selvedge-kernel"]),
    ("selvedge-adapters", &["selvedge-kernel"]),
    ("selvedge-engine", &["selvedge-kernel"]),
    ("selvedge-http", &["selvedge-kernel", "selvedge-engine"]),
    ("selvedge", &["selvedge-kernel", "selvedge-store", "selvedge-sandbox", "selvedge-adapters", "selvedge-engine", "selvedge-http"]),
    // Tools stand outside the picture and look at it as a user does.
    ("selvedge-shape", &[]),
    ("selvedge-kill", &["selvedge"]),
    ("selvedge-bench", &["selvedge", "selvedge-kernel", "selvedge-store", "selvedge-engine", "selvedge-adapters", "selvedge-http"]),
];

/// What a program under `examples/` may use: what its reader would write.
const EXAMPLE_ARROWS: &[&str] = &["selvedge"];

/// Heavy dependencies, by name or by `prefix*`, and the only crates that may use them.
const HEAVY: [(&str, &[&str]); 9] = [
    ("fjall", &["selvedge-store"]),
    ("wasmtime", &["selvedge-sandbox"]),
    ("redis", &["selvedge-adapters"]),
    ("azure_*", &["selvedge-adapters"]),
    ("async-openai", &["selvedge-adapters"]),
    ("cedar-policy*", &["selvedge-adapters", "selvedge-bench"]),
    ("axum", &["selvedge-http", "selvedge-bench"]),
    ("clap*", &["selvedge"]),
    ("tracing-subscriber", &["selvedge"]),
];

/// What a crate may never have, not even in its tests where that is marked.
const REFUSED: [(&str, &[&str]); 2] = [
    (
        "selvedge-kernel",
        &[
            "tokio",
            "async-std",
            "smol",
            "futures-timer",
            "rustix",
            "libc",
            "nix",
            "mio",
            "socket2",
            "reqwest",
            "rand",
            "getrandom",
            "fastrand",
            "chrono",
            "time",
        ],
    ),
    ("selvedge-store", &["tokio", "async-std", "smol"]),
];

/// Registries that fill themselves before `main`.
const SELF_FILLING: [&str; 3] = ["inventory", "ctor", "linkme"];

/// Finds arrows that are not drawn, heavy dependencies in the wrong place and self-filling registries.
pub fn check(crates: &[Crate]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for one in crates {
        arrows(one, crates, &mut findings);
        heavy(one, &mut findings);
        self_filling(one, &mut findings);
    }
    findings
}

fn arrows(one: &Crate, crates: &[Crate], findings: &mut Vec<Finding>) {
    let drawn = ARROWS.iter().find(|(name, _)| *name == one.name).map(|(_, drawn)| *drawn);
    let Some(drawn) = drawn.or_else(|| one.manifest.starts_with("examples/").then_some(EXAMPLE_ARROWS)) else {
        findings.push(Finding {
            file: one.manifest.clone(),
            line: one.line_of("name"),
            rule: "crate",
            what: format!("DESIGN.md draws no crate `{}`", one.name),
            why: "a crate is added when its first real content comes, with its place in the picture",
            remedy: "draw it in DESIGN.md and give it its arrows in tools/shape/src/arrows.rs, or move the code into a crate that is drawn".to_owned(),
        });
        return;
    };
    for used in one.dependencies.iter().filter(|used| crates.iter().any(|other| other.name == **used)) {
        if !drawn.contains(&used.as_str()) {
            findings.push(Finding {
                file: one.manifest.clone(),
                line: one.line_of(used),
                rule: "arrow",
                what: format!("`{}` uses `{used}`", one.name),
                why: "DESIGN.md draws every arrow there is; another one makes the picture false and the build longer",
                remedy: "let the kernel define what both need, and let bootstrap.rs bring them together; in tests use dev-dependencies".to_owned(),
            });
        }
    }
}

fn heavy(one: &Crate, findings: &mut Vec<Finding>) {
    for used in &one.dependencies {
        let rule = HEAVY.iter().find(|(name, _)| name.strip_suffix('*').map_or(used == name, |prefix| used.starts_with(prefix)));
        let misplaced = rule.is_some_and(|(_, allowed)| !allowed.contains(&one.name.as_str()));
        let refused = REFUSED.iter().any(|(name, list)| *name == one.name && list.contains(&used.as_str()));
        if misplaced || refused {
            findings.push(Finding {
                file: one.manifest.clone(),
                line: one.line_of(used),
                rule: "heavy",
                what: format!("`{}` depends on `{used}`", one.name),
                why: "a heavy dependency belongs to one leaf; the kernel and the store have no runtime, the kernel no clock and no randomness",
                remedy: match rule {
                    Some((_, allowed)) => format!("reach it through a port; only {} may use it", allowed.join(", ")),
                    None => "take what you need as a parameter; the engine performs it".to_owned(),
                },
            });
        }
    }
}

fn self_filling(one: &Crate, findings: &mut Vec<Finding>) {
    for used in one.dependencies.iter().chain(&one.dev_dependencies).filter(|used| SELF_FILLING.contains(&used.as_str())) {
        findings.push(Finding {
            file: one.manifest.clone(),
            line: one.line_of(used),
            rule: "registry",
            what: format!("`{}` depends on `{used}`", one.name),
            why: "a registry that fills itself before main is a global that nobody can read or leave out",
            remedy: "list the parts in bootstrap.rs, or register them on the App by value".to_owned(),
        });
    }
}
