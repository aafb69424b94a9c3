//! `selvedge.yaml` < environment < flags, and the verbs that show what came of it.

use std::path::Path;

use selvedge_kernel::config::{Configured, Source, parse_config, policies};
use serde_json::json;

use super::args::{Common, ConfigVerb};
use super::exit::{Code, Stop};
use super::print;

/// The file that is read if it is there.
const FILE: &str = "selvedge.yaml";

/// The configuration in force, or everything that is wrong with it.
pub fn configured(common: &Common) -> Result<Configured, Stop> {
    configured_at(common, None)
}

/// The same, with the address that a flag names.
pub fn configured_at(common: &Common, listen: Option<&str>) -> Result<Configured, Stop> {
    let mut sources = Vec::new();
    let file = common.config.as_deref();
    if let Some(file) = file.or_else(|| Some(Path::new(FILE)).filter(|file| file.exists())) {
        let text = std::fs::read_to_string(file)
            .map_err(|error| Stop::new(Code::Configuration, format!("the configuration {} cannot be read: {error}", file.display())))?;
        sources.push(Source::File { name: file.display().to_string(), text });
    }
    sources.push(Source::Environment(std::env::vars().collect()));
    let data = common.data.as_ref().map(|data| ("data".to_owned(), data.display().to_string()));
    let listen = listen.map(|listen| ("listen".to_owned(), listen.to_owned()));
    sources.push(Source::Flags(data.into_iter().chain(listen).collect()));
    Ok(parse_config(&sources)?)
}

/// `config check` and `config show`.
pub fn config(common: &Common, verb: ConfigVerb) -> Result<Code, Stop> {
    let configured = configured(common)?;
    let mut leaves = configured.explain();
    match verb {
        ConfigVerb::Check => {
            let written = configured.origins.len();
            print::result(common.output, &json!({ "ok": true, "written": written }), || {
                format!("the configuration is right: {written} of {} values are written, the others are defaults", leaves.len())
            })?;
        }
        ConfigVerb::Show => {
            leaves.extend(policies().into_iter().map(|(path, value)| (path, value, "built in, where a file or a program says nothing else".to_owned())));
            let value = leaves.iter().map(|(path, value, origin)| json!({ "path": path, "value": value, "origin": origin })).collect();
            let rows: Vec<Vec<String>> = leaves.iter().map(|(path, value, origin)| vec![path.clone(), value.to_string(), origin.clone()]).collect();
            print::result(common.output, &value, || print::table(&["NAME", "VALUE", "FROM"], &rows))?;
        }
    }
    Ok(Code::Done)
}
