//! One factory: an `Arc<dyn Port>` is made in bootstrap.rs and in tests, nowhere else.

use std::collections::{BTreeMap, BTreeSet};

use syn::spanned::Spanned;
use syn::visit::Visit;

use crate::finding::Finding;
use crate::traits;
use crate::tree::{Source, is_test_only};

/// The page that holds every port.
pub const PORTS: &str = "crates/kernel/src/ports.rs";

/// Finds the places where a port's trait object is made.
pub fn check(sources: &[Source]) -> Vec<Finding> {
    let ports: BTreeSet<String> = sources.iter().filter(|source| source.path == PORTS).flat_map(traits::of).map(|item| item.ident.to_string()).collect();
    let implementors = implementors(sources, &ports);
    let mut findings = Vec::new();
    for source in sources {
        if source.test || source.path.ends_with("/bootstrap.rs") || !source.path.starts_with("crates/") {
            continue;
        }
        let mut makers = Makers { file: &source.path, ports: &ports, implementors: &implementors, returns_port: false, lines: Vec::new() };
        makers.visit_file(&source.syntax);
        findings.extend(makers.lines.into_iter().map(|(line, what)| Finding {
            file: source.path.clone(),
            line,
            rule: "factory",
            what,
            why: "concrete parts meet in bootstrap.rs alone, so that reading it is reading the architecture",
            remedy: "take the Arc<dyn …> as a parameter and make it in crates/selvedge/src/bootstrap.rs".to_owned(),
        }));
    }
    findings
}

/// Types that implement a port, with the crates whose files say so.
fn implementors(sources: &[Source], ports: &BTreeSet<String>) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources {
        let mut impls = Impls { ports, found: Vec::new() };
        impls.visit_file(&source.syntax);
        for name in impls.found {
            found.entry(name).or_default().insert(crate_of(&source.path).to_owned());
        }
    }
    found
}

fn crate_of(path: &str) -> &str {
    path.split('/').nth(1).unwrap_or(path)
}

struct Impls<'a> {
    ports: &'a BTreeSet<String>,
    found: Vec<String>,
}

impl<'a> Visit<'a> for Impls<'_> {
    fn visit_item_impl(&mut self, item: &'a syn::ItemImpl) {
        if let Some((_, path, _)) = &item.trait_
            && path.segments.last().is_some_and(|last| self.ports.contains(&last.ident.to_string()))
            && let syn::Type::Path(target) = &*item.self_ty
            && let Some(last) = target.path.segments.last()
        {
            self.found.push(last.ident.to_string());
        }
        syn::visit::visit_item_impl(self, item);
    }
}

struct Makers<'a> {
    file: &'a str,
    ports: &'a BTreeSet<String>,
    implementors: &'a BTreeMap<String, BTreeSet<String>>,
    returns_port: bool,
    lines: Vec<(usize, String)>,
}

impl Makers<'_> {
    fn says_port(&self, ty: &syn::Type) -> Option<String> {
        let mut says = Says { ports: self.ports, found: None };
        says.visit_type(ty);
        says.found
    }

    /// The type of another crate that implements a port, if the expression is made from it.
    fn foreign_implementor(&self, made: &syn::Expr) -> Option<String> {
        let mut names = Names { found: Vec::new() };
        names.visit_expr(made);
        let name = names.found.into_iter().find(|name| self.implementors.contains_key(name))?;
        (!self.implementors.get(&name)?.contains(crate_of(self.file))).then_some(name)
    }
}

impl<'a> Visit<'a> for Makers<'_> {
    fn visit_item_mod(&mut self, item: &'a syn::ItemMod) {
        if !is_test_only(&item.attrs) {
            syn::visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'a syn::ItemFn) {
        if !is_test_only(&item.attrs) {
            self.in_function(&item.sig, &item.block);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'a syn::ImplItemFn) {
        if !is_test_only(&item.attrs) {
            self.in_function(&item.sig, &item.block);
        }
    }

    fn visit_expr_cast(&mut self, cast: &'a syn::ExprCast) {
        if let Some(port) = self.says_port(&cast.ty) {
            self.lines.push((cast.span().start().line, format!("a cast to `dyn {port}`")));
        }
        syn::visit::visit_expr_cast(self, cast);
    }

    fn visit_local(&mut self, local: &'a syn::Local) {
        if let syn::Pat::Type(typed) = &local.pat
            && let Some(port) = self.says_port(&typed.ty)
            && let Some(init) = &local.init
            && makes_arc(&init.expr)
        {
            self.lines.push((local.span().start().line, format!("a `dyn {port}` is made")));
        }
        syn::visit::visit_local(self, local);
    }

    fn visit_expr_call(&mut self, call: &'a syn::ExprCall) {
        if is_arc_maker(&call.func) {
            let line = call.span().start().line;
            if self.returns_port {
                self.lines.push((line, "an Arc is made in a function that returns a port".to_owned()));
            } else if let Some(name) = call.args.first().and_then(|made| self.foreign_implementor(made)) {
                self.lines.push((line, format!("an Arc of `{name}`, which implements a port, is made")));
            } else if let syn::Expr::Path(path) = &*call.func {
                let mut says = Says { ports: self.ports, found: None };
                says.visit_path(&path.path);
                if let Some(port) = says.found {
                    self.lines.push((line, format!("a `dyn {port}` is made")));
                }
            }
        }
        syn::visit::visit_expr_call(self, call);
    }
}

impl Makers<'_> {
    fn in_function(&mut self, sig: &syn::Signature, block: &syn::Block) {
        let outer = self.returns_port;
        self.returns_port = match &sig.output {
            syn::ReturnType::Type(_, ty) => self.says_port(ty).is_some(),
            syn::ReturnType::Default => false,
        };
        self.visit_block(block);
        self.returns_port = outer;
    }
}

/// Looks for `dyn Port`.
struct Says<'a> {
    ports: &'a BTreeSet<String>,
    found: Option<String>,
}

impl<'a> Visit<'a> for Says<'_> {
    fn visit_type_trait_object(&mut self, object: &'a syn::TypeTraitObject) {
        for bound in &object.bounds {
            if let syn::TypeParamBound::Trait(bound) = bound
                && let Some(last) = bound.path.segments.last()
                && self.ports.contains(&last.ident.to_string())
            {
                self.found = Some(last.ident.to_string());
            }
        }
    }
}

/// Collects the names that stand in paths.
struct Names {
    found: Vec<String>,
}

impl<'a> Visit<'a> for Names {
    fn visit_path_segment(&mut self, segment: &'a syn::PathSegment) {
        self.found.push(segment.ident.to_string());
        syn::visit::visit_path_segment(self, segment);
    }
}

/// Whether this names `Arc::new`, `Arc::from` or `Arc::new_cyclic`.
fn is_arc_maker(func: &syn::Expr) -> bool {
    let syn::Expr::Path(path) = func else { return false };
    let mut last = path.path.segments.iter().rev();
    let maker = last.next().is_some_and(|segment| segment.ident == "new" || segment.ident == "from" || segment.ident == "new_cyclic");
    maker && last.next().is_some_and(|segment| segment.ident == "Arc")
}

fn makes_arc(expr: &syn::Expr) -> bool {
    struct Found(bool);
    impl<'a> Visit<'a> for Found {
        fn visit_expr_call(&mut self, call: &'a syn::ExprCall) {
            self.0 |= is_arc_maker(&call.func);
            syn::visit::visit_expr_call(self, call);
        }
    }
    let mut found = Found(false);
    found.visit_expr(expr);
    found.0
}
