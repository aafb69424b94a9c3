//! Every stable error code has a page in `docs/errors/`, every page a code, and the binary carries each page.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

use crate::finding::Finding;
use crate::tree::Source;

/// Where the pages are.
pub const PAGES: &str = "docs/errors";
/// Where the binary takes them in.
pub const EMBEDDED: &str = "crates/selvedge/src/cli/explain/pages.rs";
/// What makes an error of a code.
const MAKERS: [&str; 6] = ["WorkError", "VerbError", "Problem", "Refusal", "Failure", "terminal"];

/// Finds codes without a page, pages without a code, and pages that the binary does not carry.
pub fn check(root: &Path, sources: &[Source]) -> Result<Vec<Finding>, String> {
    let ours = sources.iter().filter(|source| !source.test && source.path.starts_with("crates/") && source.path.contains("/src/"));
    let (mut literal, mut named) = (BTreeMap::new(), Vec::new());
    let mut constants = BTreeMap::new();
    for source in ours {
        let mut found = Found { path: &source.path, literal: &mut literal, named: &mut named, constants: &mut constants };
        found.scan(source.tokens.clone());
    }
    for (name, place) in named {
        if let Some(code) = constants.get(&name) {
            literal.entry(code.clone()).or_insert(place);
        }
    }
    let pages = pages(root)?;
    let embedded = std::fs::read_to_string(root.join(EMBEDDED)).unwrap_or_default();
    let mut findings = Vec::new();
    for (code, (file, line)) in &literal {
        if !pages.contains(&file_of(code)) {
            findings.push(finding(file.clone(), *line, format!("the code `{code}` has no page"), format!("write {PAGES}/{}.md", file_of(code))));
        }
    }
    let known: BTreeSet<String> = literal.keys().map(|code| file_of(code)).collect();
    for page in &pages {
        let file = format!("{PAGES}/{page}.md");
        if !known.contains(page) {
            findings.push(finding(file.clone(), 0, "no error has this code".to_owned(), "remove the page, or mend its name".to_owned()));
        }
        if !embedded.contains(&format!("/{file}\"")) {
            findings.push(finding(file, 0, "`selvedge explain` does not know this page".to_owned(), format!("name it in {EMBEDDED}")));
        }
    }
    Ok(findings)
}

fn finding(file: String, line: usize, what: String, remedy: String) -> Finding {
    Finding { file, line, rule: "code", what, why: "whoever meets a code at night asks `selvedge explain` for it", remedy }
}

/// The name of a code's page: `limit: body` is `limit_body`.
fn file_of(code: &str) -> String {
    code.split(|c: char| !c.is_ascii_alphanumeric()).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("_")
}

fn pages(root: &Path) -> Result<BTreeSet<String>, String> {
    let Ok(entries) = std::fs::read_dir(root.join(PAGES)) else { return Ok(BTreeSet::new()) };
    let names = entries.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()));
    let names: Result<Vec<String>, _> = names.collect();
    let names = names.map_err(|error| format!("{PAGES} cannot be listed: {error}"))?;
    Ok(names.iter().filter_map(|name| name.strip_suffix(".md")).map(str::to_owned).collect())
}

type Place = (String, usize);

struct Found<'a> {
    path: &'a str,
    literal: &'a mut BTreeMap<String, Place>,
    named: &'a mut Vec<(String, Place)>,
    constants: &'a mut BTreeMap<String, String>,
}

impl Found<'_> {
    /// Looks at tokens, so that what stands inside a macro counts too; what only tests compile does not.
    fn scan(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            if is_test_only(&tokens[at..]) {
                // The item behind it ends with its body, or with a semicolon.
                at += 2;
                while at < tokens.len() && !ends_item(&tokens[at]) {
                    at += 1;
                }
                at += 1;
                continue;
            }
            self.constant(&tokens[at..]);
            self.field(&tokens[at..]);
            if let TokenTree::Group(group) = &tokens[at] {
                if group.delimiter() == Delimiter::Parenthesis {
                    let before = &tokens[..at];
                    let makes = makes(before);
                    self.arguments(group, makes);
                }
                self.scan(group.stream());
            }
            at += 1;
        }
    }

    /// `const NAME: &str = "code";`
    fn constant(&mut self, tokens: &[TokenTree]) {
        let [TokenTree::Ident(word), TokenTree::Ident(name), rest @ ..] = tokens else { return };
        if word != "const" {
            return;
        }
        let mut after = rest.iter().skip_while(|token| !matches!(token, TokenTree::Punct(punct) if matches!(punct.as_char(), '=' | ';')));
        if let (Some(TokenTree::Punct(_)), Some(TokenTree::Literal(literal))) = (after.next(), after.next())
            && let Some(text) = text(&literal.to_string())
        {
            self.constants.insert(name.to_string(), text);
        }
    }

    /// `code: "code"`
    fn field(&mut self, tokens: &[TokenTree]) {
        let [TokenTree::Ident(name), TokenTree::Punct(colon), TokenTree::Literal(literal), ..] = tokens else { return };
        if name == "code" && colon.as_char() == ':' {
            self.code(text(&literal.to_string()), (self.path.to_owned(), name.span().start().line));
        }
    }

    /// What stands in parentheses: the arguments of what makes an error, or a pair of consequence and code.
    fn arguments(&mut self, group: &Group, makes: bool) {
        let mut arguments = Vec::new();
        let mut argument = Vec::new();
        for token in group.stream() {
            match &token {
                TokenTree::Punct(punct) if punct.as_char() == ',' => arguments.push(std::mem::take(&mut argument)),
                _ => argument.push(token),
            }
        }
        arguments.push(argument);
        let consequence = arguments.first().is_some_and(|first| first.iter().any(|token| matches!(token, TokenTree::Ident(word) if word == "Consequence")));
        if !makes && !consequence {
            return;
        }
        let code = arguments.get(usize::from(consequence)).map(Vec::as_slice).unwrap_or_default();
        let line = group.span_open().start().line;
        let place = (self.path.to_owned(), line);
        match code {
            [TokenTree::Literal(literal)] => self.code(text(&literal.to_string()), place),
            [TokenTree::Ident(name)] => self.named.push((name.to_string(), place)),
            // `format!("http_{}", …)` is the page `http_N`.
            [TokenTree::Ident(macro_name), TokenTree::Punct(_), TokenTree::Group(inner)] if macro_name == "format" => {
                if let Some(TokenTree::Literal(literal)) = inner.stream().into_iter().next() {
                    self.code(text(&literal.to_string()).map(|text| format!("{}N", text.split('{').next().unwrap_or_default())), place);
                }
            }
            _ => {}
        }
    }

    fn code(&mut self, code: Option<String>, place: Place) {
        let is_code = |code: &String| {
            let name = code.strip_prefix("limit: ").unwrap_or(code).trim_end_matches('N');
            !name.is_empty()
                && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == ' ')
                && (!name.contains(' ') || name != code)
        };
        if let Some(code) = code.filter(is_code) {
            self.literal.entry(code).or_insert(place);
        }
    }
}

/// Whether what stands before parentheses makes an error.
fn makes(before: &[TokenTree]) -> bool {
    let words: Vec<String> = before
        .iter()
        .rev()
        .take_while(|token| matches!(token, TokenTree::Ident(_)) || matches!(token, TokenTree::Punct(punct) if punct.as_char() == ':'))
        .filter_map(|token| if let TokenTree::Ident(word) = token { Some(word.to_string()) } else { None })
        .take(2)
        .collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["new" | "terminal" | "retryable", kind] => MAKERS.contains(&kind),
        [maker, ..] => maker == "terminal",
        [] => false,
    }
}

fn text(literal: &str) -> Option<String> {
    Some(literal.strip_prefix('"')?.strip_suffix('"')?.to_owned())
}

fn is_test_only(tokens: &[TokenTree]) -> bool {
    let [TokenTree::Punct(punct), TokenTree::Group(group), ..] = tokens else { return false };
    punct.as_char() == '#' && group.delimiter() == Delimiter::Bracket && group.stream().to_string().replace(' ', "") == "cfg(test)"
}

fn ends_item(token: &TokenTree) -> bool {
    match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        TokenTree::Punct(punct) => punct.as_char() == ';',
        _ => false,
    }
}
