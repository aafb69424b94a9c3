//! `http` of an activity, and `egress`, as they stand in a file.

use std::collections::{BTreeMap, BTreeSet};

use super::activity::{Egress, reference};
use super::definition::{Header, Http, METHODS};
use super::document::{Kind, Tree};
use super::scope::{InScope, has_expression, template};
use super::template::Template;
use crate::diagnostic::Report;
use crate::egress::{Allowed, Target, named};
use crate::fields::{Fields, shown, string, strings, whole, word};

/// Headers that are ours to set, because of what they mean for the connection or for the attempt.
const OURS: [&str; 12] = [
    "accept-encoding",
    "connection",
    "content-length",
    "expect",
    "host",
    "idempotency-key",
    "keep-alive",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// `egress`: a list of hosts and addresses.
pub(crate) fn egress(report: &mut Report, tree: &Tree) -> Vec<Allowed> {
    let mut found = Vec::new();
    for (text, place) in strings(report, "egress", tree).unwrap_or_default() {
        match text.parse::<Allowed>() {
            Ok(allowed) => found.push(allowed),
            Err(error) => report.error(place, format!("`egress`: {}", error.message), error.hint),
        }
    }
    found
}

/// What `http` says.
pub(crate) fn http(report: &mut Report, name: &str, tree: &Tree, egress: &Egress<'_>) -> Option<Http> {
    let mut fields =
        Fields::of(report, tree, format!("the request of `{}`", shown(name)), "write http: {method: GET, url: \"https://api.example.org/${input.id}\"}")?;
    let method = fields.get("method").map_or(Some("GET"), |entry| word(report, "method", &entry.value, &METHODS));
    let url_tree = fields.required(report, "url", "write url: \"https://api.example.org/${input.id}\"").map(|entry| &entry.value);
    let url = url_tree.and_then(|tree| string(report, "url", tree));
    if let (Some(tree), Some(url)) = (url_tree, url) {
        in_scope(report, "url", tree);
        reach(report, tree, url, egress);
    }
    let headers = fields.get("headers").map(|entry| headers(report, &entry.value)).unwrap_or_default();
    let body = fields.get("body");
    if let Some(entry) = body {
        in_scope(report, "body", &entry.value);
        if matches!(method, Some("GET" | "HEAD")) {
            report.error(entry.place, format!("a {} has no body", method.unwrap_or_default()), "take it out, or write method: POST");
        }
    }
    let redirects = fields.get("redirects").and_then(|entry| whole(report, "redirects", &entry.value, 0..=10)).unwrap_or(0) as u32;
    fields.end(report);
    Some(Http { method: method?.to_owned(), url: url?.to_owned(), headers, body: body.map(|entry| entry.value.to_value()), redirects, folder: ".".to_owned() })
}

/// A template of which `input` is the only root.
fn in_scope(report: &mut Report, name: &str, tree: &Tree) {
    if let Ok(compiled) = Template::compile(&tree.to_value()) {
        for root in compiled.roots().iter().filter(|root| *root != "input") {
            let message = format!("`{name}` reads `{}`, and the task's `input` is all that there is in a request", shown(root));
            report.error(
                tree.place,
                message,
                format!("give it to the task: write it in the `input` of the stage that calls this, and read `input.{root}` here"),
            );
        }
        if compiled.roots().iter().any(|root| root != "input") {
            return;
        }
    }
    let (stages, nullable, input) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
    // The input is the task's, whose fields are not known here: it stands as a further root.
    let scope = InScope { input: &input, stages: &stages, upstream: None, own: None, nullable: &nullable, more: vec![("input".to_owned(), None)] };
    template(report, name, tree, &scope);
}

/// A URL of which scheme and host are written out must be one, and must be named.
fn reach(report: &mut Report, tree: &Tree, url: &str, egress: &Egress<'_>) {
    let Some(literal) = literal_start(url) else { return };
    match Target::parse(&literal) {
        Err(error) => report.error(tree.place, format!("`url` cannot be called: {error}"), "write https://host/path"),
        Ok(target) => {
            let all: Vec<Allowed> = egress.here.iter().chain(egress.elsewhere.unwrap_or_default()).cloned().collect();
            match named(&all, &target.host, target.port) {
                Err(error) if egress.elsewhere.is_some() => report.error(tree.place, format!("`url`: {}", error.message), error.hint),
                Err(error) => report.warn(tree.place, format!("`url`: {}, unless app.yaml names it", error.message), error.hint),
                Ok(()) => {}
            }
        }
    }
}

/// The URL as far as it is literal, if that is its scheme and its whole host.
fn literal_start(url: &str) -> Option<String> {
    if !has_expression(url) {
        return Some(url.replace("$${", "${"));
    }
    let start = &url[..url.find("${")?];
    let host = start.find("://")? + 3;
    start[host..].contains(['/', '?', '#']).then(|| start.to_owned())
}

fn headers(report: &mut Report, tree: &Tree) -> BTreeMap<String, Header> {
    let mut found = BTreeMap::new();
    let Kind::Map(entries) = &tree.kind else {
        report.error(tree.place, format!("`headers` must be a mapping, it is {}", tree.type_name()), "write headers: {accept: application/json}");
        return found;
    };
    for entry in entries {
        let name = entry.key.to_ascii_lowercase();
        let fits = !name.is_empty() && name.len() <= 128 && name.bytes().all(|c| c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&c));
        if !fits {
            report.error(entry.place, format!("`{}` is no name of a header", shown(&entry.key)), "use letters, digits and `-`");
        }
        if OURS.contains(&name.as_str()) {
            report.error(entry.place, format!("the header `{}` is set by us", shown(&entry.key)), "take it out");
        }
        let value = match &entry.value.kind {
            Kind::Map(_) => secret(report, &entry.key, &entry.value),
            _ => string(report, &format!("headers.{}", shown(&entry.key)), &entry.value).map(|text| {
                in_scope(report, &format!("headers.{}", shown(&entry.key)), &entry.value);
                if text.chars().any(char::is_control) {
                    report.error(entry.value.place, format!("the header `{}` has a control character in it", shown(&entry.key)), "write it on one line");
                }
                Header::Text(text.to_owned())
            }),
        };
        if let Some(value) = value
            && found.insert(name, value).is_some()
        {
            report.error(
                entry.place,
                format!("the header `{}` stands here twice", shown(&entry.key)),
                "take one out: names of headers are the same in any case",
            );
        }
    }
    found
}

fn secret(report: &mut Report, name: &str, tree: &Tree) -> Option<Header> {
    let mut fields = Fields::of(report, tree, format!("the header `{}`", shown(name)), "write {secret: env:NAME}")?;
    let secret = fields.required(report, "secret", "write {secret: env:NAME}").and_then(|entry| reference(report, &entry.value));
    let prefix = fields.get("prefix").and_then(|entry| string(report, "prefix", &entry.value)).unwrap_or_default().to_owned();
    fields.end(report);
    Some(Header::Secret { secret: secret?, prefix })
}
