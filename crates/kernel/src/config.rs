//! Configuration: layers, their merge, and the typed result.
//!
//! `selvedge.yaml` < environment (`SELVEDGE__SECTION__KEY`) < flags. Every layer is checked whole, so that all errors
//! come at once, each with the file and line, the variable or the flag that it stands in.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::diagnostic::{Diagnostic, Place, Report};
use crate::fields::{Fields, boolean, shown, span, string, whole, word};
use crate::limit::Limits;
use crate::pipeline::document::{Entry, Kind, Text, Tree, one_document, scalar};
use crate::policy::{Span, defaults};

/// What the runtime is configured with.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
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
    /// Who may do what.
    pub authorization: Authorization,
    /// Where the HTTP API is served.
    pub listen: SocketAddr,
    /// How the HTTP API is kept from being overheard; none: only this machine may reach it.
    pub tls: Option<Tls>,
    /// What is written to the log.
    pub log: Log,
}

/// Where the HTTP API is served, unless somebody says otherwise.
pub const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7420);

/// How the HTTP API is kept from being overheard.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tls {
    /// Not by us: something in front of it does, or nobody else is on the way.
    Off,
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
    /// Dead letters and denials.
    pub dead_letters: Span,
    /// Lines of the ledger.
    pub ledger: Span,
}

/// Who may do what.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Authorization {
    /// The folder of the policies; none: the rule that is built in.
    pub policies: Option<String>,
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
    Text,
    /// For programs.
    Json,
}

const DAY: u64 = 86_400;

impl Default for Config {
    fn default() -> Config {
        Config {
            data: "./.selvedge".to_owned(),
            workers: None,
            suspend_after: Span(Duration::from_secs(1)),
            replay_always: false,
            retention: Retention::default(),
            limits: Limits::default(),
            landlock: Landlock::default(),
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
            ledger: Span(Duration::from_secs(365 * DAY)),
        }
    }
}

impl Default for Log {
    fn default() -> Log {
        Log { level: Level::Info, format: LogFormat::Text }
    }
}

/// One layer of configuration.
#[derive(Clone, PartialEq, Debug)]
pub struct Layer {
    /// Where it comes from, for people.
    pub origin: String,
    /// Higher ones win.
    pub priority: i32,
    /// What it says.
    pub value: Value,
}

/// What layers come to.
#[derive(Clone, PartialEq, Debug)]
pub struct Merged {
    /// The result.
    pub value: Value,
    /// Per leaf, by JSON Pointer: the layer that it came from. A leaf is whatever is no object, or an empty one.
    pub origins: BTreeMap<String, String>,
}

/// Merges layers, lowest to highest priority, ties in the order given. Objects merge deeply, arrays and scalars
/// replace, an explicit null removes, an absent key keeps.
#[must_use]
pub fn merge_config(layers: &[Layer]) -> Merged {
    let mut order: Vec<&Layer> = layers.iter().collect();
    // The sort is stable: ties stay in the order given.
    order.sort_by_key(|layer| layer.priority);
    let mut root = Node::Object(Map::new(), BTreeMap::new(), None);
    for layer in order {
        root.take(&layer.value, &layer.origin);
    }
    let mut origins = BTreeMap::new();
    let value = root.finish("", &mut origins);
    Merged { value, origins }
}

/// A value that remembers who said it. An object keeps its keys' order in the map of the first part.
enum Node {
    Leaf(Value, String),
    Object(Map<String, Value>, BTreeMap<String, Node>, Option<String>),
}

impl Node {
    fn of(value: &Value, origin: &str) -> Node {
        match value {
            Value::Object(_) => {
                let mut node = Node::Object(Map::new(), BTreeMap::new(), Some(origin.to_owned()));
                node.take(value, origin);
                node
            }
            leaf => Node::Leaf(leaf.clone(), origin.to_owned()),
        }
    }

    fn take(&mut self, value: &Value, origin: &str) {
        match (&mut *self, value) {
            (Node::Object(order, parts, said), Value::Object(entries)) => {
                *said = Some(origin.to_owned());
                for (key, value) in entries {
                    if value.is_null() {
                        order.shift_remove(key);
                        parts.remove(key);
                        continue;
                    }
                    match parts.get_mut(key) {
                        Some(part) => part.take(value, origin),
                        None => {
                            order.insert(key.clone(), Value::Null);
                            parts.insert(key.clone(), Node::of(value, origin));
                        }
                    }
                }
            }
            (_, Value::Null) => *self = Node::Object(Map::new(), BTreeMap::new(), Some(origin.to_owned())),
            (_, value) => *self = Node::of(value, origin),
        }
    }

    fn finish(self, pointer: &str, origins: &mut BTreeMap<String, String>) -> Value {
        match self {
            Node::Leaf(value, origin) => {
                origins.insert(pointer.to_owned(), origin);
                value
            }
            Node::Object(order, mut parts, said) => {
                if order.is_empty()
                    && let Some(origin) = said
                {
                    origins.insert(pointer.to_owned(), origin);
                }
                let mut whole = Map::new();
                for key in order.keys() {
                    if let Some(part) = parts.remove(key) {
                        let pointer = format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"));
                        whole.insert(key.clone(), part.finish(&pointer, origins));
                    }
                }
                Value::Object(whole)
            }
        }
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
}

impl Configured {
    /// Every leaf with its path, its value and where it came from, for `config show`.
    #[must_use]
    pub fn explain(&self) -> Vec<(String, Value, String)> {
        // Invariant: a configuration is made of strings, numbers and booleans: it has a JSON form.
        let value = serde_json::to_value(&self.config).unwrap_or_default();
        let mut out = Vec::new();
        leaves(&value, String::new(), &mut |pointer, value| {
            let origin = self.origins.get(pointer).map_or("default", String::as_str).to_owned();
            out.push((dotted(pointer), value, origin));
        });
        out
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
    let mut take = |origin: String, priority: usize, read: &dyn Fn(&mut Report) -> Option<Tree>| {
        let mut report = Report::new(&origin);
        let tree = read(&mut report);
        if let Some(tree) = &tree {
            check(&mut report, tree);
        }
        match report.end(tree) {
            Ok((tree, _)) => layers.push(Layer { origin, priority: priority as i32, value: tree.to_value() }),
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
    match serde_json::from_value(merged.value) {
        Ok(config) => Ok(Configured { config, origins: merged.origins }),
        // Invariant: each layer was checked for exactly what the type takes. Said anyway, should the two ever differ.
        Err(error) => Err(vec![Diagnostic { file: "configuration".to_owned(), line: 0, column: 0, message: error.to_string(), hint: None }]),
    }
}

/// `a.b` = `text` as a tree.
fn nested(report: &mut Report, path: &[String], text: &str) -> Option<Tree> {
    let place = Place::default();
    if path.iter().any(String::is_empty) {
        report.error(place, "a part of this name is empty", "write SELVEDGE__SECTION__KEY");
        return None;
    }
    // A folder may be called 2026.
    let is_text = matches!(path.iter().map(String::as_str).collect::<Vec<_>>()[..], ["data"] | ["listen"] | ["authorization", "policies"]);
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
    // There are no test doubles yet that a profile could refuse.
    fields.later(report, &["profile"]);
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
        word(report, "tls", tree, &["off"]);
    }
    if let Some(tree) = said(&mut fields, "retention")
        && let Some(mut inner) = Fields::of(report, tree, "`retention`", "write retention: {finished: 7d}")
    {
        for name in ["finished", "dead_letters", "ledger"] {
            if let Some(tree) = said(&mut inner, name) {
                span(report, &format!("retention.{name}"), tree);
            }
        }
        inner.end(report);
    }
    if let Some(tree) = said(&mut fields, "limits") {
        limits(report, tree);
    }
    if let Some(tree) = said(&mut fields, "authorization")
        && let Some(mut inner) = Fields::of(report, tree, "`authorization`", "write authorization: {policies: ./policies}")
    {
        if let Some(tree) = said(&mut inner, "policies")
            && string(report, "authorization.policies", tree).is_some_and(str::is_empty)
        {
            report.error(tree.place, "`authorization.policies` names no folder", "write authorization: {policies: ./policies}");
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
            word(report, "log.format", tree, &["text", "json"]);
        }
        inner.end(report);
    }
    fields.end(report);
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
