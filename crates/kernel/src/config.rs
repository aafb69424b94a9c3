//! Configuration: layers, their merge, and the typed result.
//!
//! `selvedge.yaml` < environment (`SELVEDGE__SECTION__KEY`) < flags. Every layer is checked whole, so that all errors
//! come at once, each with the file and line, the variable or the flag that it stands in.

mod issuers;
mod merge;
mod reference;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::auth::Issuer;
use crate::diagnostic::{Diagnostic, Place, Report};
use crate::fields::{Fields, boolean, shown, span, string, whole, word};
use crate::limit::Limits;
use crate::pipeline::document::{Entry, Kind, Text, Tree, one_document, scalar};
use crate::policy::{Span, defaults};

pub use issuers::{KeySet, place_of_keys};
pub use merge::{Layer, Merged, merge_config};
pub use reference::{ISSUER, KEYS, Key, reference};

/// What the runtime is configured with.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What it is run for; none: what the verb is for, `serve` for production and `dev` for development.
    pub profile: Option<Profile>,
    /// The folder of the store.
    pub data: String,
    /// Threads that own shards; none: one per core.
    pub workers: Option<u32>,
    /// A handler that waits longer is dropped from memory and replayed later.
    pub suspend_after: Span,
    /// Drops and replays the handler after every delivery.
    pub replay_always: bool,
    /// How long finished things are kept.
    pub retention: Retention,
    /// Limits that differ from the defaults.
    pub limits: Limits,
    /// Whether programs are kept out of the data directory.
    pub landlock: Landlock,
    /// Whose tokens are believed.
    pub authentication: Authentication,
    /// Who may do what.
    pub authorization: Authorization,
    /// Where the HTTP API is served.
    pub listen: SocketAddr,
    /// How the HTTP API is kept from being overheard; none: only this machine may reach it.
    pub tls: Option<Tls>,
    /// What is written to the log.
    pub log: Log,
}

/// What it is run for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// For others: no key makes itself, nothing is reloaded on save, no test double is borne.
    Production,
    /// For whoever writes it.
    Development,
}

/// Where the HTTP API is served, unless somebody says otherwise.
pub const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7420);

/// How the HTTP API is kept from being overheard.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Tls {
    /// Not by us: something in front of it does, or nobody else is on the way.
    Off(Off),
    /// By TLS, with what these files hold.
    Files(TlsFiles),
}

/// The word `off`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Off {
    /// `off`.
    Off,
}

/// Where a certificate and its key are.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The chain in PEM, our own certificate first.
    pub certificate: String,
    /// The private key of the first of them, in PEM.
    pub key: String,
}

/// Whether programs are kept out of the data directory, by Landlock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Landlock {
    /// Where they lose nothing else by it.
    #[default]
    Auto,
    /// In any case: what cannot be started so is not started.
    Always,
    /// They are not.
    Never,
}

/// How long finished things are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// Invocations and runs.
    pub finished: Span,
    /// Dead letters.
    pub dead_letters: Span,
    /// Decisions that were recorded: denials above all.
    pub decisions: Span,
    /// Lines of the ledger.
    pub ledger: Span,
}

/// Whose tokens are believed.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Authentication {
    /// By the name that they have here.
    pub issuers: BTreeMap<String, Issuer>,
}

/// Who may do what.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Authorization {
    /// The folder of the policies; none: the rule that is built in.
    pub policies: Option<String>,
    /// The folder of policies that are asked beside them and decide nothing; none: no others are asked.
    pub shadow: Option<String>,
    /// Records what is allowed, too: what is denied is recorded in any case.
    pub record_allowed: bool,
}

/// What is written to the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// The least severe that is written.
    pub level: Level,
    /// How a line looks.
    pub format: LogFormat,
}

/// How severe a line of the log is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Something failed.
    Error,
    /// Something needs a look.
    Warn,
    /// What an operator follows.
    Info,
    /// What a developer follows.
    Debug,
    /// Everything.
    Trace,
}

/// How a line of the log looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Human,
    /// For programs: one JSON object a line.
    Json,
}

const DAY: u64 = 86_400;

impl Default for Config {
    fn default() -> Config {
        Config {
            profile: None,
            data: "./.selvedge".to_owned(),
            workers: None,
            suspend_after: Span(Duration::from_secs(1)),
            replay_always: false,
            retention: Retention::default(),
            limits: Limits::default(),
            landlock: Landlock::default(),
            authentication: Authentication::default(),
            authorization: Authorization::default(),
            listen: LISTEN,
            tls: None,
            log: Log::default(),
        }
    }
}

impl Default for Retention {
    fn default() -> Retention {
        Retention {
            finished: Span(Duration::from_secs(7 * DAY)),
            dead_letters: Span(Duration::from_secs(30 * DAY)),
            decisions: Span(Duration::from_secs(30 * DAY)),
            ledger: Span(Duration::from_secs(365 * DAY)),
        }
    }
}

impl Default for Log {
    fn default() -> Log {
        Log { level: Level::Info, format: LogFormat::Human }
    }
}

/// Where a layer's text comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// `selvedge.yaml`.
    File {
        /// As it was named.
        name: String,
        /// What it says.
        text: String,
    },
    /// Variables; those that do not begin with `SELVEDGE__` are left alone. An empty value removes.
    Environment(Vec<(String, String)>),
    /// Flags by their path (`limits.inbox`) with their values.
    Flags(Vec<(String, String)>),
}

/// A configuration, and where each value came from.
#[derive(Clone, PartialEq, Debug)]
pub struct Configured {
    /// The typed result.
    pub config: Config,
    /// By JSON Pointer; what is not here is a default.
    pub origins: BTreeMap<String, String>,
    /// By JSON Pointer: where it stands in a file.
    pub places: BTreeMap<String, Place>,
}

impl Configured {
    /// What is wrong with a value, said where it was written; of a default without a place.
    #[must_use]
    pub fn wrong(&self, pointer: &str, message: impl Into<String>, hint: impl Into<String>) -> Diagnostic {
        let file = self.origins.get(pointer).map_or("the configuration", String::as_str).to_owned();
        let Place { line, column } = self.places.get(pointer).copied().unwrap_or_default();
        Diagnostic { file, line, column, message: message.into(), hint: Some(hint.into()) }
    }

    /// Every leaf with its path, its value and where it came from, for `config show`.
    #[must_use]
    pub fn explain(&self) -> Vec<(String, Value, String)> {
        // Invariant: a configuration is made of strings, numbers and booleans: it has a JSON form.
        let value = serde_json::to_value(&self.config).unwrap_or_default();
        let mut out = Vec::new();
        leaves(&value, String::new(), &mut |pointer, value| {
            let origin = self.origins.get(pointer).map_or("default", String::as_str).to_owned();
            out.push((dotted(pointer), redacted(pointer, value), origin));
        });
        out
    }
}

/// A value as it may be shown: whatever lets somebody in is left out. A reference to a secret (`env:`, `file:`) is none.
fn redacted(pointer: &str, value: Value) -> Value {
    const LEFT_OUT: &str = "[redacted]";
    let Value::String(text) = &value else { return value };
    let name = pointer.rsplit('/').next().unwrap_or_default();
    if text.starts_with("env:") || text.starts_with("file:") {
        return value;
    }
    if ["password", "secret", "token"].iter().any(|word| name.contains(word)) {
        return LEFT_OUT.into();
    }
    // The name and the password in an address.
    let Some((scheme, rest)) = text.split_once("://") else { return value };
    match rest.split(['/', '?', '#']).next().and_then(|host| host.rfind('@')) {
        Some(at) => format!("{scheme}://{LEFT_OUT}{}", &rest[at..]).into(),
        None => value,
    }
}

/// The policies that hold where none is written: each leaf with its path and its value, for `config show`.
#[must_use]
pub fn policies() -> Vec<(String, Value)> {
    let mut out = Vec::new();
    leaves(&defaults(), "/policies".to_owned(), &mut |pointer, value| out.push((dotted(pointer), value)));
    out
}

fn dotted(pointer: &str) -> String {
    pointer[1..].replace('/', ".")
}

fn leaves(value: &Value, pointer: String, out: &mut impl FnMut(&str, Value)) {
    match value {
        Value::Object(entries) => entries.iter().for_each(|(key, value)| leaves(value, format!("{pointer}/{key}"), out)),
        leaf => out(&pointer, leaf.clone()),
    }
}

/// Checks all layers, merges them in the order given and gives the typed result, or every error of every layer.
pub fn parse_config(sources: &[Source]) -> Result<Configured, Vec<Diagnostic>> {
    let mut layers = Vec::new();
    let mut errors = Vec::new();
    let mut places = BTreeMap::new();
    let mut named = issuers::Named::new();
    let mut take = |origin: String, priority: usize, read: &dyn Fn(&mut Report) -> Option<Tree>| {
        let mut report = Report::new(&origin);
        let tree = read(&mut report);
        if let Some(tree) = &tree {
            check(&mut report, tree);
            issuers::named(&origin, tree, &mut named);
        }
        match report.end(tree) {
            Ok((tree, _)) => {
                placed(&tree, String::new(), &origin, &mut places);
                layers.push(Layer { origin, priority: priority as i32, value: tree.to_value() });
            }
            Err(mut found) => errors.append(&mut found),
        }
    };
    for (priority, source) in sources.iter().enumerate() {
        match source {
            Source::File { name, text } => take(name.clone(), priority, &|report| one_document(report, text)),
            Source::Environment(variables) => {
                for (name, value) in variables {
                    if let Some(path) = name.strip_prefix("SELVEDGE__") {
                        let path: Vec<String> = path.split("__").map(str::to_lowercase).collect();
                        take(name.clone(), priority, &|report| nested(report, &path, value));
                    }
                }
            }
            Source::Flags(flags) => {
                for (name, value) in flags {
                    let path: Vec<String> = name.split('.').map(str::to_owned).collect();
                    take(format!("--{name}"), priority, &|report| nested(report, &path, value));
                }
            }
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let merged = merge_config(&layers);
    let found = |pointer: &str, origin: &String| Some((pointer.to_owned(), *places.get(&(origin.clone(), pointer.to_owned()))?));
    let places: BTreeMap<String, Place> = merged.origins.iter().filter_map(|(pointer, origin)| found(pointer, origin)).collect();
    let mut wrong = issuers::whole(&merged.value, &named);
    wrong.extend(half(&merged.value, &merged.origins, &places));
    if !wrong.is_empty() {
        return Err(wrong);
    }
    match serde_json::from_value(merged.value) {
        Ok(config) => Ok(Configured { config, origins: merged.origins, places }),
        // Invariant: each layer was checked for exactly what the type takes. Said anyway, should the two ever differ.
        Err(error) => Err(vec![Diagnostic { file: "configuration".to_owned(), line: 0, column: 0, message: error.to_string(), hint: None }]),
    }
}

/// Where each value of a layer stands, by the layer and the pointer.
fn placed(tree: &Tree, pointer: String, origin: &str, out: &mut BTreeMap<(String, String), Place>) {
    if let Kind::Map(entries) = &tree.kind {
        entries.iter().for_each(|entry| placed(&entry.value, format!("{pointer}/{}", entry.key), origin, out));
    }
    out.insert((origin.to_owned(), pointer), tree.place);
}

/// TLS with one of its two files: each layer may name one, all of them together name both.
fn half(value: &Value, origins: &BTreeMap<String, String>, places: &BTreeMap<String, Place>) -> Option<Diagnostic> {
    let tls = value.get("tls")?.as_object()?;
    let (there, missing) = match (tls.get("certificate"), tls.get("key")) {
        (Some(_), Some(_)) => return None,
        (Some(_), None) => ("/tls/certificate", "key"),
        (None, Some(_)) => ("/tls/key", "certificate"),
        (None, None) => ("/tls", "certificate` and no `key"),
    };
    let Place { line, column } = places.get(there).copied().unwrap_or_default();
    let file = origins.get(there).map_or("the configuration", String::as_str).to_owned();
    Some(Diagnostic { file, line, column, message: format!("`tls` has no `{missing}`"), hint: Some(TLS.to_owned()) })
}

const TLS: &str = "write tls: {certificate: ./cert.pem, key: ./key.pem}, or tls: off";

/// A text that names something outside, as the highest layer has it that does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mention {
    /// The text.
    pub text: String,
    /// Where it stands, with nothing said of it yet.
    pub place: Diagnostic,
}

/// What layers name in the world outside, by the path of the key: also where they are wrong in something else, so that what is
/// wrong there can be said at the same time.
#[must_use]
pub fn mentions(sources: &[Source]) -> BTreeMap<&'static str, Mention> {
    const NAMED: [&str; 5] = ["data", "authorization.policies", "authorization.shadow", "tls.certificate", "tls.key"];
    let mut found = BTreeMap::new();
    let mut take = |origin: &str, tree: Option<Tree>| {
        for path in NAMED {
            let mut other = false;
            let named = path.split('.').try_fold(tree.as_ref()?, |tree, part| match &tree.kind {
                Kind::Map(entries) => entries.iter().find(|entry| entry.key == part).map(|entry| &entry.value),
                // Something else stands in the place of what lower layers say, such as `tls: off`.
                _ => {
                    other = true;
                    None
                }
            });
            if other {
                found.remove(path);
            }
            match named.map(|tree| (&tree.kind, tree.place)) {
                Some((Kind::Text(text), Place { line, column })) if !text.value.is_empty() => {
                    let place = Diagnostic { file: origin.to_owned(), line, column, message: String::new(), hint: None };
                    found.insert(path, Mention { text: text.value.clone(), place });
                }
                Some(_) => drop(found.remove(path)),
                None => {}
            }
        }
        Some(())
    };
    for source in sources {
        match source {
            Source::File { name, text } => {
                take(name, one_document(&mut Report::new(name), text));
            }
            Source::Environment(variables) => {
                for (name, value) in variables.iter().filter(|(name, _)| name.starts_with("SELVEDGE__")) {
                    let path: Vec<String> = name.trim_start_matches("SELVEDGE__").split("__").map(str::to_lowercase).collect();
                    take(name, nested(&mut Report::new(name), &path, value));
                }
            }
            Source::Flags(flags) => {
                for (name, value) in flags {
                    let path: Vec<String> = name.split('.').map(str::to_owned).collect();
                    take(&format!("--{name}"), nested(&mut Report::new(name), &path, value));
                }
            }
        }
    }
    found
}

/// `a.b` = `text` as a tree.
fn nested(report: &mut Report, path: &[String], text: &str) -> Option<Tree> {
    let place = Place::default();
    if path.iter().any(String::is_empty) {
        report.error(place, "a part of this name is empty", "write SELVEDGE__SECTION__KEY");
        return None;
    }
    // A folder may be called 2026.
    let is_text = matches!(
        path.iter().map(String::as_str).collect::<Vec<_>>()[..],
        ["data"] | ["listen"] | ["authorization", "policies" | "shadow"] | ["tls", "certificate" | "key"]
    );
    let kind = match scalar(if is_text && !text.is_empty() { "x" } else { text }) {
        Ok(Some(kind)) => kind,
        Ok(None) => Kind::Text(Text { value: text.to_owned(), origin: None }),
        Err((message, hint)) => {
            report.error(place, message, hint);
            return None;
        }
    };
    let leaf = Tree { place, kind };
    Some(path.iter().rev().fold(leaf, |value, key| Tree { place, kind: Kind::Map(vec![Entry { key: key.clone(), place, value }]) }))
}

/// Null removes, so that it fits every field.
fn said<'a>(fields: &mut Fields<'a>, name: &str) -> Option<&'a Tree> {
    fields.get(name).map(|entry| &entry.value).filter(|tree| !matches!(tree.kind, Kind::Null))
}

fn check(report: &mut Report, tree: &Tree) {
    let Some(mut fields) = Fields::of(report, tree, "the configuration", "write data: ./.selvedge") else { return };
    if let Some(tree) = said(&mut fields, "data")
        && string(report, "data", tree).is_some_and(str::is_empty)
    {
        report.error(tree.place, "`data` names no folder", "write data: ./.selvedge");
    }
    if let Some(tree) = said(&mut fields, "profile") {
        word(report, "profile", tree, &["production", "development"]);
    }
    doubles(report, &mut fields);
    if let Some(tree) = said(&mut fields, "workers") {
        whole(report, "workers", tree, 1..=1_024);
    }
    if let Some(tree) = said(&mut fields, "suspend_after") {
        span(report, "suspend_after", tree);
    }
    if let Some(tree) = said(&mut fields, "replay_always") {
        boolean(report, "replay_always", tree);
    }
    if let Some(tree) = said(&mut fields, "landlock") {
        word(report, "landlock", tree, &["auto", "always", "never"]);
    }
    if let Some(tree) = said(&mut fields, "listen")
        && string(report, "listen", tree).is_some_and(|text| text.parse::<SocketAddr>().is_err())
    {
        report.error(tree.place, "`listen` is no address with a port", "write listen: 127.0.0.1:7420, or 0.0.0.0:7420 for every address of this machine");
    }
    if let Some(tree) = said(&mut fields, "tls") {
        tls(report, tree);
    }
    if let Some(tree) = said(&mut fields, "retention")
        && let Some(mut inner) = Fields::of(report, tree, "`retention`", "write retention: {finished: 7d}")
    {
        for name in ["finished", "dead_letters", "decisions", "ledger"] {
            if let Some(tree) = said(&mut inner, name) {
                span(report, &format!("retention.{name}"), tree);
            }
        }
        inner.end(report);
    }
    if let Some(tree) = said(&mut fields, "limits") {
        limits(report, tree);
    }
    if let Some(tree) = said(&mut fields, "authentication") {
        issuers::check(report, tree);
    }
    if let Some(tree) = said(&mut fields, "authorization")
        && let Some(mut inner) = Fields::of(report, tree, "`authorization`", "write authorization: {policies: ./policies}")
    {
        for (name, folder) in [("policies", "./policies"), ("shadow", "./policies-next")] {
            if let Some(tree) = said(&mut inner, name)
                && string(report, &format!("authorization.{name}"), tree).is_some_and(str::is_empty)
            {
                report.error(tree.place, format!("`authorization.{name}` names no folder"), format!("write authorization: {{{name}: {folder}}}"));
            }
        }
        if let Some(tree) = said(&mut inner, "record_allowed") {
            boolean(report, "authorization.record_allowed", tree);
        }
        inner.end(report);
    }
    if let Some(tree) = said(&mut fields, "log")
        && let Some(mut inner) = Fields::of(report, tree, "`log`", "write log: {level: info}")
    {
        if let Some(tree) = said(&mut inner, "level") {
            word(report, "log.level", tree, &["error", "warn", "info", "debug", "trace"]);
        }
        if let Some(tree) = said(&mut inner, "format") {
            word(report, "log.format", tree, &["human", "json"]);
        }
        inner.end(report);
    }
    fields.end(report);
}

/// `off`, or the files.
fn tls(report: &mut Report, tree: &Tree) {
    match &tree.kind {
        Kind::Map(_) => {}
        Kind::Text(text) if text.value == "off" => return,
        // YAML 1.1 reads `off` as this one, and many a tool writes it so.
        Kind::Bool(false) => return report.error(tree.place, "`tls` must be `off` or a mapping, it is a boolean", "write tls: off"),
        _ => return report.error(tree.place, format!("`tls` must be `off` or a mapping, it is {}", tree.type_name()), TLS),
    }
    let Some(mut fields) = Fields::of(report, tree, "`tls`", TLS) else { return };
    for name in ["certificate", "key"] {
        if let Some(tree) = said(&mut fields, name)
            && string(report, &format!("tls.{name}"), tree).is_some_and(str::is_empty)
        {
            report.error(tree.place, format!("`tls.{name}` names no file"), TLS);
        }
    }
    fields.end(report);
}

/// What stands in for something real in tests: no binary has it that serves anybody, whatever its profile.
fn doubles(report: &mut Report, fields: &mut Fields<'_>) {
    const DOUBLES: [&str; 6] = ["canned", "accept_all", "accept-all", "double", "fake", "mock"];
    for name in ["authorization", "authorizer", "llm", "verifier"] {
        let Some(entry) = fields.peek(name) else { continue };
        let is_double = |tree: &Tree| matches!(&tree.kind, Kind::Text(text) if DOUBLES.contains(&text.value.as_str()));
        let key = match &entry.value.kind {
            // A folder may be called as it likes.
            Kind::Map(_) if name == "authorization" => None,
            Kind::Map(entries) => entries.iter().find(|entry| is_double(&entry.value)).map(|inner| format!("{name}.{}", inner.key)),
            _ => is_double(&entry.value).then(|| name.to_owned()),
        };
        if let Some(key) = key {
            let hint = "take it out: a test double exists in builds with the feature `doubles` alone, and the profile production refuses it";
            report.error(entry.place, format!("`{key}` names a test double, and this binary has none"), hint);
            // It is all that there is to say of it.
            fields.pass(name);
            report.settle(entry.value.place);
        }
    }
}

/// Each limit from 1 up to its hard maximum.
fn limits(report: &mut Report, tree: &Tree) {
    let Some(mut fields) = Fields::of(report, tree, "`limits`", "write limits: {inbox: 20000}") else { return };
    // Invariant: `Limits` is a struct of numbers: its JSON form is an object of them.
    let maxima = serde_json::to_value(Limits::MAX).unwrap_or_default();
    for (name, most) in maxima.as_object().into_iter().flatten() {
        if let Some(tree) = said(&mut fields, name) {
            let most = most.as_u64().unwrap_or(u64::MAX);
            if let Kind::Number(number, written) = &tree.kind
                && number.as_u64().is_some_and(|value| value > most)
            {
                report.error(tree.place, format!("`limits.{name}` is {}; its hard maximum is {most}", shown(written)), format!("write {most} or less"));
            } else {
                whole(report, &format!("limits.{name}"), tree, 1..=most);
            }
        }
    }
    fields.end(report);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lets_somebody_in_is_not_shown_and_a_reference_to_it_is() {
        for (pointer, value, shown) in [
            ("/jwt/url", "https://ada:hunter2@keys.example/jwks?x=a@b", "https://[redacted]@keys.example/jwks?x=a@b"),
            ("/jwt/url", "https://keys.example/@me", "https://keys.example/@me"),
            ("/store/password", "hunter2", "[redacted]"),
            ("/store/password", "env:STORE", "env:STORE"),
            ("/token_of_it", "hunter2", "[redacted]"),
            ("/tls/key", "./key.pem", "./key.pem"),
        ] {
            assert_eq!(redacted(pointer, value.into()), shown, "{pointer}");
        }
        assert_eq!(redacted("/secret_count", 3.into()), 3);
    }
}
