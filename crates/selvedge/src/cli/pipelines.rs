//! `pipelines put`, `show`, `list`, `diff` and `start`.

use std::path::Path;

use selvedge_engine::wiring::Tasks;
use selvedge_kernel::pipeline::editor::{app_schema, pipeline_schema};
use serde_json::Value;

use crate::app::App;
use crate::control::Request;

use super::access::{ask_once, ask_whoever, fresh_key};
use super::actors::text;
use super::args::{Common, Pipelines, RunId, Runs};
use super::check::{count, manifest_of, with_manifest};
use super::exit::{Code, Stop};
use super::{print, runs, said, stored};

/// Performs one of them.
pub async fn pipelines(common: &Common, app: App, verb: Pipelines) -> Result<Code, Stop> {
    match verb {
        Pipelines::Check { files } => return super::check::pipelines(common, app, files).await,
        Pipelines::Put { file } => put(common, app, &file).await?,
        Pipelines::Schema { of_manifest } => print::say(&print::pretty(&if of_manifest { app_schema() } else { pipeline_schema() }))?,
        Pipelines::List => {
            let found = ask_once(common, app, Tasks::Leave, Request::Pipelines).await?;
            print::result(common.output, &found, || {
                let row = |one: &Value| {
                    vec![text(&one["name"]), text(&one["version"]), text(&one["stages"]), text(&one["source"]), one["at"].as_str().unwrap_or("").to_owned()]
                };
                let rows: Vec<Vec<String>> = list(&found).map(row).collect();
                let none = "no pipeline is stored, and app.yaml names none: `selvedge pipelines put FILE` stores one";
                if rows.is_empty() { none.to_owned() } else { print::table(&["PIPELINE", "VERSION", "STAGES", "SOURCE", "STORED"], &rows) }
            })?;
        }
        Pipelines::Show { name } => {
            let found = ask_once(common, app, Tasks::Leave, Request::Pipeline { name }).await?;
            print::result(common.output, &found, || shown(&found))?;
        }
        Pipelines::Diff { name, before, after } => {
            let found = ask_once(common, app, Tasks::Leave, Request::DiffPipeline { name, before, after }).await?;
            print::result(common.output, &found, || match changed(&found) {
                lines if lines.is_empty() => "both do the same".to_owned(),
                lines => lines,
            })?;
        }
        Pipelines::Start { name, input, key, follow } => return start(common, app, &name, &input, key, follow).await,
    }
    Ok(Code::Done)
}

async fn put(common: &Common, app: App, file: &Path) -> Result<(), Stop> {
    let declared = with_manifest(app.clone(), manifest_of(common, Some(file)).as_deref())?;
    let pipeline = stored::load(common, &declared, file).await?;
    for warning in &pipeline.warnings {
        print::note(&format!("warning: {warning}"));
    }
    let definition = serde_json::to_string(&pipeline.definition).map_err(|error| Stop::new(Code::Failed, error.to_string()))?;
    let found = ask_once(common, app, Tasks::Leave, Request::PutPipeline { definition }).await?;
    print::result(common.output, &found, || {
        let (name, version) = (text(&found["name"]), text(&found["version"]));
        let fires = found["fires"][0].as_str().map(|fire| format!("\nits schedule is stored with it, and fires next at {fire}")).unwrap_or_default();
        match found["status"].as_str() {
            Some("new") => format!("`{name}` is stored, version {version}{fires}"),
            Some("unchanged") => format!("`{name}` is stored already, version {version}: nothing is changed"),
            _ => format!(
                "`{name}` is stored, version {version}; before it was {}:\n{}\nopen runs go on with the version that they were started with{fires}",
                text(&found["before"]),
                changed(&found)
            ),
        }
    })
}

/// Starts one; the key makes a repeated start the same run.
async fn start(common: &Common, app: App, name: &str, input: &str, key: Option<String>, follow: bool) -> Result<Code, Stop> {
    let (name, version) = match name.split_once('@') {
        Some((name, version)) => (name.to_owned(), Some(version.to_owned())),
        None => (name.to_owned(), None),
    };
    let input = said::json("--input", input)?.text;
    let key = key.map_or_else(fresh_key, Ok)?;
    let request = Request::StartPipeline { name, version, input, key };
    let (started, held) = ask_whoever(common, app.clone(), Tasks::Leave, request).await?;
    let id = text(&started["run"]);
    if follow {
        print::note(&format!("started {id}, version {}", text(&started["version"])));
        return runs::runs(common, app, Runs::Follow(RunId { id })).await;
    }
    print::result(common.output, &started, || id.clone())?;
    if !held {
        print::note(&format!("accepted; nobody holds the data directory: `selvedge runs follow {id}` goes on with it"));
    }
    Ok(Code::Done)
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// What differs, a line each.
fn changed(found: &Value) -> String {
    list(&found["changes"]).map(|line| format!("  {}", text(line))).collect::<Vec<_>>().join("\n")
}

fn shown(found: &Value) -> String {
    if !found["definition"].is_null() {
        let of = |name: &str| text(&found[name]);
        return format!("`{}`, version {}, stored at {} by {}\n{}", of("name"), of("version"), of("at"), of("by"), print::pretty(&found["definition"]));
    }
    let stages: Vec<String> = list(&found["stages"]).map(text).collect();
    let source = if found["source"] == "stored" { "stored" } else { "from app.yaml, not stored" };
    let mut parts =
        vec![format!("`{}`, {source}, version {}: {}: {}", text(&found["name"]), text(&found["version"]), count(stages.len(), "stage"), stages.join(", "))];
    let fires: Vec<String> = list(&found["fires"]).map(|fire| format!("  {}", text(fire))).collect();
    if !fires.is_empty() {
        parts.push(format!("its next fires:\n{}", fires.join("\n")));
    }
    let rows: Vec<Vec<String>> = list(&found["versions"]).map(|one| ["version", "at", "by", "open"].map(|name| text(&one[name])).to_vec()).collect();
    if !rows.is_empty() {
        parts.push(print::table(&["VERSION", "STORED", "BY", "OPEN RUNS"], &rows));
    }
    let kept = |version: &str| list(&found["versions"]).any(|one| one["version"] == version);
    let others = found["open"].as_object().into_iter().flatten().filter(|(version, _)| !kept(version));
    parts.extend(
        others.map(|(version, open)| format!("{} of version {version}, which is not kept here", count(open.as_u64().unwrap_or_default() as usize, "open run"))),
    );
    parts.join("\n\n")
}
