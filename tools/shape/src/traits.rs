//! Traits of ours stay small and whole.

use std::collections::BTreeSet;

use syn::visit::Visit;

use crate::finding::Finding;
use crate::tree::Source;

/// How many methods a trait of ours may have.
pub const MOST_METHODS: usize = 6;

struct Traits<'a> {
    found: Vec<&'a syn::ItemTrait>,
}

impl<'a> Visit<'a> for Traits<'a> {
    fn visit_item_trait(&mut self, item: &'a syn::ItemTrait) {
        self.found.push(item);
        syn::visit::visit_item_trait(self, item);
    }
}

/// The traits that a file declares.
pub fn of(source: &Source) -> Vec<&syn::ItemTrait> {
    let mut traits = Traits { found: Vec::new() };
    traits.visit_file(&source.syntax);
    traits.found
}

/// Finds traits with too many methods, with a default body, and with a supertrait of ours.
pub fn check(sources: &[Source]) -> Vec<Finding> {
    let ours: BTreeSet<String> = sources.iter().flat_map(of).map(|item| item.ident.to_string()).collect();
    let mut findings = Vec::new();
    for source in sources {
        for item in of(source) {
            one(&source.path, item, &ours, &mut findings);
        }
    }
    findings
}

fn one(file: &str, item: &syn::ItemTrait, ours: &BTreeSet<String>, findings: &mut Vec<Finding>) {
    let methods: Vec<&syn::TraitItemFn> =
        item.items.iter().filter_map(|item| if let syn::TraitItem::Fn(method) = item { Some(method) } else { None }).collect();
    if methods.len() > MOST_METHODS {
        findings.push(Finding {
            file: file.to_owned(),
            line: item.ident.span().start().line,
            rule: "trait",
            what: format!("`{}` has {} methods; at most {MOST_METHODS} are allowed", item.ident, methods.len()),
            why: "every implementation carries every method; a wide trait is several ports, or queries that belong above it",
            remedy: "move queries into plain functions over the trait, or find the second noun".to_owned(),
        });
    }
    for method in methods.iter().filter(|method| method.default.is_some()) {
        findings.push(Finding {
            file: file.to_owned(),
            line: method.sig.ident.span().start().line,
            rule: "trait",
            what: format!("`{}::{}` has a default body", item.ident, method.sig.ident),
            why: "a default body is a stub by another name: an implementation that forgets it still compiles",
            remedy: "make it a free function over the trait, or let every implementation say what it does".to_owned(),
        });
    }
    for bound in &item.supertraits {
        if let syn::TypeParamBound::Trait(bound) = bound
            && let Some(last) = bound.path.segments.last()
            && ours.contains(&last.ident.to_string())
        {
            findings.push(Finding {
                file: file.to_owned(),
                line: last.ident.span().start().line,
                rule: "trait",
                what: format!("`{}` has our trait `{}` as its supertrait", item.ident, last.ident),
                why: "a ladder of traits hides what an implementation must do",
                remedy: "take two parameters, or put the methods into one trait of at most six".to_owned(),
            });
        }
    }
}
