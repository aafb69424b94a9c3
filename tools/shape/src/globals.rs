//! No globals: what a part needs comes in by parameter.

use proc_macro2::{TokenStream, TokenTree};

use crate::finding::Finding;
use crate::tree::Source;

/// A global that is allowed, and why.
#[derive(Clone, Copy, Debug)]
pub struct Allowed {
    /// The file it stands in.
    pub file: &'static str,
    /// The word that is allowed there: `static`, `thread_local`, `OnceLock` or `LazyLock`.
    pub word: &'static str,
    /// Why it cannot come in by parameter.
    pub reason: &'static str,
}

/// At most three.
pub const ALLOWED: &[Allowed] = &[
    Allowed { file: "crates/selvedge/src/main.rs", word: "static", reason: "the language takes the allocator of a program as a static, docs/decisions/0010" },
    Allowed { file: "tools/bench/src/main.rs", word: "static", reason: "it allocates as the binary does" },
];

/// How many globals the whole system may have.
pub const MOST: usize = 3;

/// Finds every global that is not on the list, and a list that is too long.
pub fn check(sources: &[Source], allowed: &[Allowed]) -> Vec<Finding> {
    let mut findings = Vec::new();
    if allowed.len() > MOST {
        findings.push(finding("tools/shape/src/globals.rs".to_owned(), 0, format!("the list of allowed globals has {} entries", allowed.len())));
    }
    for source in sources {
        let mut hits = Vec::new();
        scan(source.tokens.clone(), &mut hits);
        for (line, word) in hits {
            if !allowed.iter().any(|entry| entry.file == source.path && entry.word == word) {
                findings.push(finding(source.path.clone(), line, format!("`{word}`")));
            }
        }
    }
    findings
}

fn finding(file: String, line: usize, what: String) -> Finding {
    Finding {
        file,
        line,
        rule: "global",
        what,
        why: "a global is a parameter that no signature shows; two engines in one process, a test and a replay would share it",
        remedy: "pass the value from bootstrap.rs; if that is truly impossible, one of the three places in tools/shape/src/globals.rs, with the reason"
            .to_owned(),
    }
}

/// Looks at tokens, so that what stands inside a macro counts too; the lifetime `'static` does not.
fn scan(tokens: TokenStream, hits: &mut Vec<(usize, &'static str)>) {
    let mut after_quote = false;
    for token in tokens {
        match token {
            TokenTree::Group(group) => scan(group.stream(), hits),
            TokenTree::Ident(ident) if !after_quote => {
                let word = ["static", "thread_local", "OnceLock", "LazyLock"].into_iter().find(|word| ident == word);
                hits.extend(word.map(|word| (ident.span().start().line, word)));
            }
            TokenTree::Punct(punct) if punct.as_char() == '\'' => {
                after_quote = true;
                continue;
            }
            _ => {}
        }
        after_quote = false;
    }
}
