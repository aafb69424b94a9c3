//! The reference of `selvedge.yaml`, as `docs/reference/configuration.md` has it.

use std::fmt::Write;

use serde_json::Value;

use super::Config;
use crate::limit::Limits;

/// A key that can be written, and what a reader has to know of it. Its default is that of the type.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// With dots.
    pub path: &'static str,
    /// What its value is.
    pub kind: &'static str,
    /// A value that is right.
    pub example: &'static str,
    /// What it does.
    pub meaning: &'static str,
}

const fn key(path: &'static str, kind: &'static str, example: &'static str, meaning: &'static str) -> Key {
    Key { path, kind, example, meaning }
}

const SPAN: &str = "duration";

/// Every key but the limits, which have a table of their own.
pub const KEYS: [Key; 19] = [
    key(
        "profile",
        "`production` or `development`",
        "production",
        "What it is run for. Not written, `serve` is for production and `dev` for development; `dev` refuses production, and production refuses test doubles.",
    ),
    key("data", "folder", "./.selvedge", "The data directory, relative to the folder in which the command is given."),
    key("workers", "whole number, 1 to 1024", "4", "Threads that own shards. Not written: one for each core."),
    key("suspend_after", SPAN, "1s", "A handler that waits longer leaves memory, and is replayed when what it waits for is there."),
    key("replay_always", "`true` or `false`", "false", "Drops and replays the handler after each delivery, to find what is not deterministic. It is slow."),
    key("retention.finished", SPAN, "7d", "How long invocations and runs are kept that have ended."),
    key("retention.dead_letters", SPAN, "30d", "How long dead letters are kept."),
    key("retention.decisions", SPAN, "30d", "How long decisions are kept that were recorded: what was denied, and where a shadow differs."),
    key("retention.ledger", SPAN, "365d", "How long the lines of the ledger are kept."),
    key(
        "landlock",
        "`auto`, `always` or `never`",
        "auto",
        "Whether programs are kept out of the data directory: `auto` where they lose nothing else by it, `always` in any case.",
    ),
    key(
        "authorization.policies",
        "folder",
        "./policies",
        "Policies in Cedar, read again when they change. Not written: the rule that is built in, which allows the role `owner` everything in its tenant.",
    ),
    key(
        "authorization.shadow",
        "folder",
        "./policies-next",
        "Policies that are asked beside those in force and decide nothing: where they differ is counted and listed by `selvedge policy decisions --shadow`.",
    ),
    key(
        "authorization.record_allowed",
        "`true` or `false`",
        "false",
        "Records what is allowed, too. What is denied is recorded in any case, and both are counted.",
    ),
    key(
        "listen",
        "address with a port",
        "127.0.0.1:7420",
        "Where the HTTP API is served. An address that other machines reach wants `tls`. The flag `--listen` goes before it.",
    ),
    key(
        "tls",
        "`off`, or a mapping",
        "off",
        "`off`: not by us, on an address that other machines reach: something in front of it speaks TLS, or nobody is on the way.",
    ),
    key(
        "tls.certificate",
        "file",
        "./cert.pem",
        "The chain in PEM, our own certificate first. Read again when it changes; a bad pair is refused, and the one before stays.",
    ),
    key("tls.key", "file", "./key.pem", "The private key of the first certificate, in PEM: PKCS #8, SEC 1 or PKCS #1."),
    key("log.level", "`error`, `warn`, `info`, `debug` or `trace`", "info", "The least severe that `serve` and `dev` write to standard error."),
    key("log.format", "`human` or `json`", "human", "How a line looks: for people, or one JSON object a line."),
];

/// Every field of an issuer of tokens, which has a name of its own: `authentication.issuers.NAME`.
pub const ISSUER: [Key; 7] = [
    key("issuer", "text", "https://login.example", "What its tokens say in `iss`, letter for letter."),
    key("audience", "text, or a list", "selvedge", "What its tokens say in `aud`: one of these."),
    key("jwks", "file, or an https URL", "https://login.example/keys", "Where its keys are, fetched again when they are old or a key is not known."),
    key("skew", SPAN, "60s", "How far its clock may be from ours; 60s, if it is not written."),
    key("tenant", "text, or `{claim, map}`", "acme", "Whose tenant its tokens open."),
    key("roles", "list, or `{claim, map}`", "[reader]", "What whoever presents one may act as."),
    key("claims", "list", "[email]", "Claims that policies can look at, beside `iss`."),
];

/// The page as a whole.
#[must_use]
pub fn reference() -> String {
    let defaults = serde_json::to_value(Config::default()).unwrap_or_default();
    let mut out = String::from(PREFACE);
    let mut row = |cells: [&str; 5]| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "| {} |", cells.join(" | "));
    };
    row(["key", "value", "default", "environment", "meaning"]);
    row(["---"; 5]);
    for key in &KEYS {
        let default = shown(defaults.pointer(&format!("/{}", key.path.replace('.', "/"))));
        row([&format!("`{}`", key.path), key.kind, &default, &variable(key.path), key.meaning]);
    }
    out.push_str(ISSUERS);
    for key in &ISSUER {
        let _ = writeln!(out, "| `{}` | {} | {} |", key.path, key.kind, key.meaning);
    }
    out.push_str(LIMITS);
    let (usual, most) = (serde_json::to_value(Limits::default()).unwrap_or_default(), serde_json::to_value(Limits::MAX).unwrap_or_default());
    for (name, meaning) in Limits::MEANINGS {
        let _ = writeln!(out, "| `limits.{name}` | {} | {} | {meaning} |", usual[name], most[name]);
    }
    out.push_str(WRONG);
    out
}

/// The variable of a key. A section has none of its own.
fn variable(path: &str) -> String {
    format!("`SELVEDGE__{}`", path.to_uppercase().replace('.', "__"))
}

fn shown(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "none".to_owned(),
        Some(Value::String(text)) => format!("`{text}`"),
        Some(value) => format!("`{value}`"),
    }
}

const PREFACE: &str = "# `selvedge.yaml`

This page is generated from the types of `kernel::config`; a test compares both. `SELVEDGE_WRITE_REFERENCE=1 cargo nextest run --workspace reference` writes it.

Three layers: the file (`selvedge.yaml` in the current folder, or `--config FILE`), then the environment, then flags; the later one wins, value by value.
An empty variable removes what the file says. A key that is not on this page is an error, and so is a value of another type: all errors come at once, each with
its key, its place and what to write instead. `selvedge config check` looks at the whole, what it refers to included; `selvedge config show` prints every value and where it came from.
`serve` and `dev` bind no port and open no store before all of it is right.

A duration is `250ms`, `30s`, `5m`, `2h`, `7d` or ISO 8601; a day is 24 hours. Folders and files are relative to the folder in which the command is given.

";

const ISSUERS: &str = "
## Issuers of tokens

`authentication.issuers` is a mapping from names to these; [jwt.md](../jwt.md) has an example. The variable of the `skew` of `corp` is `SELVEDGE__AUTHENTICATION__ISSUERS__CORP__SKEW`.

| of `authentication.issuers.NAME` | value | meaning |
| --- | --- | --- |
";

const LIMITS: &str = "
## Limits

Each from 1 up to its hard maximum; a value beyond is an error. The variable of `limits.inbox` is `SELVEDGE__LIMITS__INBOX`.

| key | default | hard maximum | of what |
| --- | --- | --- | --- |
";

const WRONG: &str = "
## Secrets

No value of this file is a secret: `tls.key` names a file. Secrets of activities stand in `app.yaml` and in pipelines, as references (`{secret: env:NAME}`, `{secret: file:PATH}`).
`selvedge config check` looks whether what they refer to is there.
";
