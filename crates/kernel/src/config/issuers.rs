//! `authentication.issuers`: whose tokens are believed.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::said;
use crate::auth::is_role;
use crate::diagnostic::{Diagnostic, Place, Report};
use crate::egress::{Host, Target};
use crate::fields::{Fields, name, shown, span, string, strings};
use crate::limit::{CLAIMS, ISSUERS, KEY_PART_BYTES, ROLES};
use crate::pipeline::document::{Kind, Tree};

const EXAMPLE: &str =
    "write corp: {issuer: https://login.example.org, audience: selvedge, jwks: https://login.example.org/jwks.json, tenant: acme, roles: {claim: groups}}";
/// The longest skew: clocks that differ by more are broken.
const SKEW: Duration = Duration::from_secs(600);

/// What every issuer has to say, in one layer or another.
const NEEDED: [(&str, &str); 5] = [
    ("issuer", "write issuer: https://login.example.org, as its tokens say it in `iss`"),
    ("audience", "write audience: selvedge, as its tokens say it in `aud`"),
    ("jwks", "write jwks: https://login.example.org/jwks.json, or jwks: ./keys.json"),
    ("tenant", "write tenant: acme, or tenant: {claim: org}"),
    ("roles", "write roles: {claim: groups, map: {admins: owner}}, or roles: [clerk]"),
];

/// Where each issuer was named first, for what can be told of all layers together only.
pub(super) type Named = BTreeMap<String, (String, Place)>;

pub(super) fn check(report: &mut Report, tree: &Tree) {
    let Some(mut fields) = Fields::of(report, tree, "`authentication`", "write authentication: {issuers: {corp: …}}") else { return };
    let Some(tree) = said(&mut fields, "issuers") else { return fields.end(report) };
    fields.end(report);
    let Kind::Map(entries) = &tree.kind else {
        report.error(tree.place, format!("`authentication.issuers` must be a mapping of names, it is {}", tree.type_name()), EXAMPLE);
        return;
    };
    if entries.len() > ISSUERS {
        report.error(tree.place, format!("there are {} issuers, the limit is {ISSUERS}", entries.len()), "take some out");
    }
    for entry in entries.iter().filter(|entry| !matches!(entry.value.kind, Kind::Null)) {
        if let Some(name) = name(report, "the issuer", &entry.key, entry.place) {
            issuer(report, &name, &entry.value);
        }
    }
}

fn issuer(report: &mut Report, name: &str, tree: &Tree) {
    let Some(mut fields) = Fields::of(report, tree, format!("the issuer `{name}`"), EXAMPLE) else { return };
    let path = |field: &str| format!("authentication.issuers.{name}.{field}");
    if let Some(tree) = said(&mut fields, "issuer")
        && string(report, &path("issuer"), tree).is_some_and(str::is_empty)
    {
        report.error(tree.place, format!("`{}` is empty", path("issuer")), NEEDED[0].1);
    }
    if let Some(tree) = said(&mut fields, "audience") {
        texts(report, &path("audience"), tree, NEEDED[1].1);
    }
    if let Some(tree) = said(&mut fields, "jwks")
        && let Some(written) = string(report, &path("jwks"), tree)
        && let Err(wrong) = place_of_keys(written)
    {
        report.error(tree.place, format!("`{}`: {wrong}", path("jwks")), NEEDED[2].1);
    }
    if let Some(tree) = said(&mut fields, "skew")
        && span(report, &path("skew"), tree).is_some_and(|span| span.0 > SKEW)
    {
        report.error(tree.place, format!("`{}` is longer than 10 minutes", path("skew")), "write 60s, and set the clocks");
    }
    let is_tenant = |text: &str| !text.is_empty() && text.len() <= KEY_PART_BYTES;
    match said(&mut fields, "tenant") {
        Some(tree) if matches!(tree.kind, Kind::Map(_)) => by_claim(report, &path("tenant"), tree, ("a tenant", &is_tenant)),
        Some(tree) if string(report, &path("tenant"), tree).is_some_and(|text| !is_tenant(text)) => {
            report.error(tree.place, format!("`{}` names no tenant", path("tenant")), NEEDED[3].1);
        }
        _ => {}
    }
    match said(&mut fields, "roles") {
        Some(tree) if matches!(tree.kind, Kind::Map(_)) => by_claim(report, &path("roles"), tree, ("a role", &is_role)),
        Some(tree) => {
            let roles = strings(report, &path("roles"), tree).unwrap_or_default();
            if roles.len() > ROLES {
                report.error(tree.place, format!("`{}` are {}, the limit is {ROLES}", path("roles"), roles.len()), "take some out");
            }
            for (role, place) in roles.iter().filter(|(role, _)| !is_role(role)) {
                report.error(*place, no_role(role), "write clerk");
            }
        }
        None => {}
    }
    if let Some(tree) = said(&mut fields, "claims") {
        let claims = strings(report, &path("claims"), tree).unwrap_or_default();
        if claims.len() > CLAIMS {
            report.error(tree.place, format!("`{}` are {}, the limit is {CLAIMS}", path("claims"), claims.len()), "take out what no policy looks at");
        }
    }
    fields.end(report);
}

fn no_role(text: &str) -> String {
    format!("`{}` is no name of a role: letters, digits, `_`, `-`, `.` and `:`, 64 at most", shown(text))
}

/// A text, or a list of at least one.
fn texts(report: &mut Report, name: &str, tree: &Tree, hint: &str) {
    let empty = match &tree.kind {
        Kind::List(_) => strings(report, name, tree).is_some_and(|texts| texts.is_empty() || texts.iter().any(|(text, _)| text.is_empty())),
        _ => string(report, name, tree).is_some_and(str::is_empty),
    };
    if empty {
        report.error(tree.place, format!("`{name}` is empty, or one of its texts is"), hint);
    }
}

/// `{claim: NAME, map: {VALUE: MEANING}}`.
fn by_claim(report: &mut Report, path: &str, tree: &Tree, (what, is_one): (&str, &dyn Fn(&str) -> bool)) {
    let Some(mut fields) = Fields::of(report, tree, format!("`{path}`"), "write {claim: groups}") else { return };
    if let Some(tree) = said(&mut fields, "claim")
        && string(report, &format!("{path}.claim"), tree).is_some_and(str::is_empty)
    {
        report.error(tree.place, format!("`{path}.claim` is empty"), "name a claim, or write a JSON Pointer such as /realm_access/roles");
    }
    if let Some(tree) = said(&mut fields, "map") {
        match &tree.kind {
            Kind::Map(entries) => {
                for entry in entries.iter().filter(|entry| !matches!(entry.value.kind, Kind::Null)) {
                    let at = format!("{path}.map.{}", shown(&entry.key));
                    if string(report, &at, &entry.value).is_some_and(|text| !is_one(text)) {
                        report.error(entry.value.place, format!("`{at}` is no name of {what}"), "write what the value of the claim means here");
                    }
                }
                if entries.is_empty() {
                    report.error(tree.place, format!("`{path}.map` is empty"), "take it out: each value of the claim is then taken as it is");
                }
            }
            _ => report.error(tree.place, format!("`{path}.map` must be a mapping, it is {}", tree.type_name()), "write map: {admins: owner}"),
        }
    }
    fields.end(report);
}

/// Where a set of keys lies: a file, or what answers at a URL.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KeySet {
    /// A file.
    File(String),
    /// What is fetched.
    Url(Target),
}

/// Reads where a set of keys lies.
///
/// # Errors
/// No URL, or one by which somebody on the way could put keys of their own into the set.
pub fn place_of_keys(written: &str) -> Result<KeySet, String> {
    if !written.contains("://") {
        return if written.is_empty() { Err("it names no file".to_owned()) } else { Ok(KeySet::File(written.to_owned())) };
    }
    let target = Target::parse(written).map_err(|error| error.to_string())?;
    let here = match &target.host {
        Host::Name(name) => name == "localhost",
        Host::Address(address) => address.is_loopback(),
    };
    if !target.tls && !here {
        return Err("whoever is on the way could answer with keys of their own: https, or http to this machine itself".to_owned());
    }
    Ok(KeySet::Url(target))
}

/// Where issuers are named in a layer.
pub(super) fn named(origin: &str, tree: &Tree, named: &mut Named) {
    let member = |tree: &'_ Tree, name: &str| match &tree.kind {
        Kind::Map(entries) => entries.iter().find(|entry| entry.key == name).map(|entry| entry.value.clone()),
        _ => None,
    };
    let Some(issuers) = member(tree, "authentication").and_then(|tree| member(&tree, "issuers")) else { return };
    if let Kind::Map(entries) = &issuers.kind {
        for entry in entries {
            named.entry(entry.key.clone()).or_insert_with(|| (origin.to_owned(), entry.place));
        }
    }
}

/// What no layer said of an issuer, and what two say of the same.
pub(super) fn whole(merged: &Value, named: &Named) -> Vec<Diagnostic> {
    let mut errors = Vec::new();
    let mut of: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, issuer) in merged.pointer("/authentication/issuers").and_then(Value::as_object).into_iter().flatten() {
        let (file, place) = named.get(name).cloned().unwrap_or_default();
        let mut error = |message: String, hint: &str| {
            errors.push(Diagnostic { file: file.clone(), line: place.line, column: place.column, message, hint: Some(hint.to_owned()) });
        };
        for (field, hint) in NEEDED.iter().filter(|(field, _)| issuer.get(field).is_none()) {
            error(format!("the issuer `{name}` has no `{field}`"), hint);
        }
        for field in ["tenant", "roles"] {
            if issuer.get(field).is_some_and(|by| by.is_object() && by.get("claim").is_none()) {
                error(format!("`{field}` of the issuer `{name}` has no `claim`"), "write {claim: groups}");
            }
            // Otherwise what takes a meaning away would let each value mean itself.
            let map = issuer.get(field).and_then(|by| by.get("map")).and_then(Value::as_object);
            if map.is_some_and(serde_json::Map::is_empty) {
                error(format!("`{field}.map` of the issuer `{name}` has nothing in it"), "name what its values mean, or take the issuer out");
            }
        }
        if let Some(said) = issuer.get("issuer").and_then(Value::as_str)
            && let Some(other) = of.insert(said, name)
        {
            error(format!("the issuers `{other}` and `{name}` are the same: `{}`", shown(said)), "make one of them, with both audiences: audience: [one, two]");
        }
    }
    errors
}

#[cfg(test)]
mod tests;
