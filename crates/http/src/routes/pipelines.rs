//! `/v1/pipelines`: stored pipelines, and their starts.

use selvedge_engine::RunStart;
use selvedge_engine::desk::Pipelines;
use selvedge_kernel::diagnostic::listed;
use selvedge_kernel::error::Consequence;
use selvedge_kernel::limit::LEASE_MS;
use selvedge_kernel::pipeline::definition::{Definition, Executor};
use selvedge_kernel::pipeline::parse::parse_pipeline;
use serde::Deserialize;
use utoipa::IntoParams;

use super::actors::{KeyHeader, TraceHeader};
use super::state::MatchHeader;
use crate::answer::{Answer, Done};
use crate::caller::Caller;
use crate::refusal::Refusal;
use crate::shapes::pipelines::{PipelineDiff, ShownPipeline, StartedRun, StoredPipeline};
use crate::take::{Names, Payload, Said, Text, Words};

/// The media type of a definition as programs have it, beside the file that people write.
pub const DEFINITION: &str = "application/vnd.selvedge.definition+json";

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct Name {
    /// The name of the pipeline.
    name: String,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Version {
    /// The beginning of a version; the current one, if it is not there.
    version: Option<String>,
}

/// A pipeline with its versions, or one version whole.
#[utoipa::path(get, path = "/v1/pipelines/{name}", tag = "pipelines", params(Name, Version),
    responses((status = 200, description = "it", body = ShownPipeline, headers(("ETag" = String, description = "its version, for `If-Match`")))))]
pub(crate) async fn show(caller: Caller, Names(at): Names<Name>, Words(of): Words<Version>) -> Done {
    let asked = of.version.map_or_else(|| at.name.clone(), |version| format!("{}@{version}", at.name));
    let shown = Pipelines(caller.asker()).show(&asked).await?;
    let tag = shown["version"].as_str().unwrap_or_default().to_owned();
    Ok(Answer::of(shown).etag(&tag))
}

/// Stores a pipeline under its name: the body is its file, YAML or JSON. `If-Match` names the version that it takes the place of.
#[utoipa::path(put, path = "/v1/pipelines/{name}", tag = "pipelines", params(Name, MatchHeader),
    request_body(content = String, content_type = "application/yaml", description = "the file of the pipeline"),
    responses((status = 200, description = "what changed", body = StoredPipeline), (status = 201, description = "it is new", body = StoredPipeline)))]
pub(crate) async fn put(caller: Caller, Names(at): Names<Name>, said: Said, Text { text, media }: Text) -> Done {
    // Asked first: who may not store it is told nothing of what it says.
    let permit = Pipelines(caller.asker()).may_put(&at.name)?;
    let definition = match media.as_deref() {
        Some(DEFINITION) => serde_json::from_str(&text).map_err(|error| wrong(format!("this is no definition of this version: {error}")))?,
        _ => parse_pipeline("body", &text).map_err(|errors| wrong(listed(&errors)))?.0,
    };
    let definition = taken(&at.name, definition)?;
    let done = Pipelines(caller.asker()).store(permit, definition, said.if_match.as_deref()).await?;
    let tag = done["version"].as_str().unwrap_or_default().to_owned();
    let answer = if done["before"].is_null() { Answer::created(done).at(&format!("/v1/pipelines/{}", at.name)) } else { Answer::of(done) };
    Ok(answer.etag(&tag))
}

fn wrong(text: String) -> Refusal {
    Refusal::new(Consequence::FixInput, "definition", text)
}

/// A pipeline that came from outside, if it may be taken.
fn taken(name: &str, definition: Definition) -> Result<Definition, Refusal> {
    if definition.name != name {
        return Err(wrong(format!("the file names its pipeline `{}`, the path names `{name}`: write the same in both", definition.name)));
    }
    // The right to store a pipeline is not the right to start programs on this machine, to reach what it reaches, or to read its secrets.
    let own = definition.activities.iter().find_map(|(activity, declared)| match declared.executor {
        Executor::Exec(_) => Some((activity, "a program (`exec`), and programs are")),
        Executor::Http(_) => Some((activity, "a request of this machine (`http`), and those are")),
        Executor::Native | Executor::Worker(_) => None,
    });
    for (activity, declared) in &definition.activities {
        if let Executor::Worker(worker) = &declared.executor
            && !LEASE_MS.contains(&u64::try_from(worker.lease.0.as_millis()).unwrap_or(u64::MAX))
        {
            return Err(wrong(format!("the lease of the activity `{activity}` is not 1 s to 1 h long")));
        }
    }
    if let Some((activity, what)) = own {
        return Err(wrong(format!(
            "the activity `{activity}` is {what} not taken over HTTP: declare it in app.yaml beside the server, and call it by its name"
        )));
    }
    if !definition.egress.is_empty() {
        return Err(wrong("`egress` is not taken over HTTP: name what may be reached in app.yaml beside the server".to_owned()));
    }
    Ok(definition)
}

/// Two versions.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Two {
    /// The beginning of a version.
    before: String,
    /// The beginning of another one.
    after: String,
}

/// What differs between two versions of a stored pipeline.
#[utoipa::path(get, path = "/v1/pipelines/{name}/diff", tag = "pipelines", params(Name, Two),
    responses((status = 200, description = "what changed", body = PipelineDiff)))]
pub(crate) async fn diff(caller: Caller, Names(at): Names<Name>, Words(two): Words<Two>) -> Done {
    Ok(Answer::of(Pipelines(caller.asker()).diff(&at.name, &two.before, &two.after).await?))
}

/// Starts a run of a pipeline. The same `Idempotency-Key`, the same run.
#[utoipa::path(post, path = "/v1/pipelines/{name}/runs", tag = "pipelines", params(Name, Version, KeyHeader, TraceHeader),
    request_body(content = Value, description = "the input of the run"),
    responses((status = 201, description = "the run", body = StartedRun)))]
pub(crate) async fn start(caller: Caller, Names(at): Names<Name>, Words(of): Words<Version>, said: Said, Payload(input): Payload) -> Done {
    // A run without an input has an empty one.
    let input = if input == "null" { "{}".to_owned() } else { input };
    let start = RunStart { key: said.key, trace: said.trace };
    let started = Pipelines(caller.asker()).start(&at.name, of.version.as_deref(), input, start).await?;
    let place = format!("/v1/runs/{}", started["run"].as_str().unwrap_or_default());
    Ok(Answer::created(started).at(&place))
}
