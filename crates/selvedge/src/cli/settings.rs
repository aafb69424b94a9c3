//! `selvedge.yaml` < environment < flags, and the verbs that show what came of it.

use std::path::Path;

use selvedge_kernel::config::{Configured, Profile, Source, parse_config, policies};
use selvedge_kernel::diagnostic::{Diagnostic, listed};
use serde_json::{Value, json};

use crate::app::App;

use super::args::{Common, ConfigVerb, Output};
use super::check::count;
use super::checked::{Extent, checked};
use super::exit::{Code, Stop};
use super::print;

/// The file that is read if it is there.
const FILE: &str = "selvedge.yaml";

/// The configuration in force, or everything that is wrong with it.
pub fn configured(common: &Common) -> Result<Configured, Stop> {
    Ok(parse_config(&sources(common, None)?)?)
}

/// The layers, with the address that a flag names.
pub fn sources(common: &Common, listen: Option<&str>) -> Result<Vec<Source>, Vec<Diagnostic>> {
    let mut sources = Vec::new();
    let file = common.config.as_deref();
    if let Some(file) = file.or_else(|| Some(Path::new(FILE)).filter(|file| file.exists())) {
        let name = file.display().to_string();
        let text = std::fs::read_to_string(file).map_err(|error| {
            let (message, hint) = (format!("the configuration cannot be read: {error}"), Some("name a file that is there, as UTF-8 text".to_owned()));
            vec![Diagnostic { file: name.clone(), line: 0, column: 0, message, hint }]
        })?;
        sources.push(Source::File { name, text });
    }
    sources.push(Source::Environment(std::env::vars().collect()));
    let data = common.data.as_ref().map(|data| ("data".to_owned(), data.display().to_string()));
    let listen = listen.map(|listen| ("listen".to_owned(), listen.to_owned()));
    sources.push(Source::Flags(data.into_iter().chain(listen).collect()));
    Ok(sources)
}

/// `config check` and `config show`.
pub fn config(common: &Common, app: App, verb: ConfigVerb) -> Result<Code, Stop> {
    match verb {
        ConfigVerb::Check => check(common, app),
        ConfigVerb::Show => show(common),
    }
}

/// The whole, as `serve` would take it.
fn check(common: &Common, app: App) -> Result<Code, Stop> {
    let extent = Extent { listen: None, profile: Profile::Production, dev: false };
    let (written, values, wrong, warnings) = match checked(common, app, &extent) {
        Ok(checked) => (checked.configured.origins.len(), checked.configured.explain().len(), Vec::new(), checked.warnings),
        Err(wrong) => (0, 0, wrong, Vec::new()),
    };
    if common.output == Output::Json {
        let said = json!({ "ok": wrong.is_empty(), "written": written, "errors": shown(&wrong), "warnings": shown(&warnings) });
        print::say(&print::pretty(&said))?;
        return Ok(if wrong.is_empty() { Code::Done } else { Code::Configuration });
    }
    for warning in &warnings {
        print::note(&format!("warning: {warning}"));
    }
    if !wrong.is_empty() {
        return Err(Stop::new(Code::Configuration, format!("{}\n{}", count(wrong.len(), "error"), listed(&wrong))));
    }
    print::say(&format!("the configuration is right: {written} of {values} values are written, the others are defaults"))?;
    Ok(Code::Done)
}

fn shown(found: &[Diagnostic]) -> Vec<Value> {
    found.iter().map(|one| json!({ "file": one.file, "line": one.line, "column": one.column, "message": one.message, "hint": one.hint })).collect()
}

fn show(common: &Common) -> Result<Code, Stop> {
    let configured = configured(common)?;
    let mut leaves = configured.explain();
    leaves.extend(policies().into_iter().map(|(path, value)| (path, value, "built in, where a file or a program says nothing else".to_owned())));
    let value = leaves.iter().map(|(path, value, origin)| json!({ "path": path, "value": value, "origin": origin })).collect();
    let rows: Vec<Vec<String>> = leaves.iter().map(|(path, value, origin)| vec![path.clone(), value.to_string(), origin.clone()]).collect();
    print::result(common.output, &value, || print::table(&["NAME", "VALUE", "FROM"], &rows))?;
    Ok(Code::Done)
}
