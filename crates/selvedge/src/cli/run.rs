//! `run`: a pipeline to its end, continued by the same command after any kill.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use selvedge_engine::desk::{Asker, Problem, Runs, sentence};
use selvedge_engine::engine::LogLine;
use selvedge_kernel::auth::{AuthorizationContext, local};
use selvedge_kernel::config::{Level, LogFormat};
use selvedge_kernel::machine::RunState;
use selvedge_kernel::pipeline::run::RunStatus;
use selvedge_kernel::pipeline::schema::validate_input;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use crate::app::App;
use crate::bootstrap::Engine;
use crate::manifest::{self, LoadedPipeline};

use super::access;
use super::args::{Common, Output, Run};
use super::check::{manifest_of, with_manifest};
use super::exit::{Code, Stop};
use super::explain::pointer;
use super::progress::{Lines, Progress};
use super::slots::{Slot, Slots};
use super::{happened, print, said, settings, stored, usage};

/// Performs it.
pub async fn run(common: &Common, app: App, run: Run) -> Result<Code, Stop> {
    if !run.pipeline.exists()
        && let Some(meant) = usage::swapped(&["run".to_owned(), run.pipeline.display().to_string()])
    {
        return Err(Stop::usage(meant));
    }
    let declared = manifest_of(common, Some(&run.pipeline));
    let (mut config, app, pipeline) = prepared(common, app, declared.as_deref(), &run.pipeline).await?;
    let said = said::json("--input", run.input.as_deref().unwrap_or("{}"))?;
    let input = validate_input(&pipeline.definition, said.value.clone()).map_err(|wrong| Stop::usage(selvedge_kernel::diagnostic::listed(&wrong)))?;
    for warning in &pipeline.warnings {
        print::note(&format!("warning: {warning}"));
    }
    let lines = Lines::open();
    config.exec.log = Some(log(common, &lines)?);
    let (data, command) = (config.data.clone(), config.command.clone());
    let engine = access::hold(config, app).await?;
    let followed = Follow { common, context: local(&engine.tenant, engine.inner.now()), engine: &engine, lines: &lines, data: &data, command: &command };
    let ended = tokio::select! {
        ended = followed.to_the_end(&pipeline, &said.value, &input, declared.as_deref(), run.new) => ended,
        ended = interrupted() => ended.map(|()| {
            lines.close();
            print::note(&format!("stopped; nothing is lost. The same command goes on where it was:\n  {command}"));
            Code::Waits
        }),
    };
    lines.close();
    tokio::select! {
        closed = engine.close() => closed?,
        // Asked twice: what was accepted is on disk, a kill does no harm.
        _ = interrupted() => {}
    }
    ended
}

/// Everything that is read before anything is opened, with everything that is wrong with it.
async fn prepared(common: &Common, app: App, declared: Option<&Path>, file: &Path) -> Result<(crate::config::Config, App, LoadedPipeline), Stop> {
    let config = access::config(common);
    let app = with_manifest(app, declared).map_err(Stop::from);
    let pipeline = match &app {
        Ok(app) => stored::load(common, app, file).await.map_err(Stop::from),
        // Calls cannot be judged without it, the rest can.
        Err(_) => manifest::check_alone(file).map_err(Stop::from),
    };
    match (config, app, pipeline) {
        (Ok(config), Ok(app), Ok(pipeline)) => Ok((config, app, pipeline)),
        (config, app, pipeline) => {
            let wrong: Vec<String> = [config.err(), app.err(), pipeline.err()].into_iter().flatten().map(|stop| stop.message).collect();
            Err(Stop::new(Code::Configuration, wrong.join("\n")))
        }
    }
}

/// Where `print()` of a task goes.
fn log(common: &Common, lines: &Lines) -> Result<LogLine, Stop> {
    let log = settings::configured(common)?.config.log;
    let lines = lines.clone();
    Ok(LogLine(Arc::new(move |activity, line| {
        if log.level >= Level::Info {
            lines.line(&match log.format {
                LogFormat::Human => format!("  {activity} | {line}"),
                LogFormat::Json => json!({ "level": "info", "activity": activity, "line": line }).to_string(),
            });
        }
    })))
}

/// Comes to its end when somebody wants this process to end.
pub async fn interrupted() -> Result<(), Stop> {
    let failed = |error: std::io::Error| Stop::new(Code::Failed, format!("signals cannot be received: {error}"));
    let (mut asked, mut told) = (signal(SignalKind::interrupt()).map_err(failed)?, signal(SignalKind::terminate()).map_err(failed)?);
    tokio::select! {
        _ = asked.recv() => Ok(()),
        _ = told.recv() => Ok(()),
    }
}

struct Follow<'a> {
    common: &'a Common,
    engine: &'a Engine,
    context: AuthorizationContext,
    lines: &'a Lines,
    data: &'a Path,
    command: &'a str,
}

impl Follow<'_> {
    fn runs(&self) -> Runs<'_> {
        Runs(Asker { engine: &self.engine.inner, context: &self.context, binary: &self.engine.desk.binary })
    }

    async fn to_the_end(&self, pipeline: &LoadedPipeline, said: &Value, input: &Value, manifest: Option<&Path>, new: bool) -> Result<Code, Stop> {
        let began = Instant::now();
        let id = self.started(pipeline, said, input, manifest, new).await?;
        let status = self.watched(&id).await?;
        self.lines.close();
        if !status.state.ended() {
            return Err(Stop::new(Code::Waits, format!("{}\n  go on with: {}", sentence(&status), self.command)));
        }
        if status.state != RunState::Completed {
            if matches!(self.common.output, Output::Json) {
                print::say(&print::pretty(&json!({ "id": id, "status": status.state, "error": status.error })))?;
            }
            let more = status.error.as_ref().and_then(|error| pointer(&error.code)).map(|more| format!("\n{more}")).unwrap_or_default();
            return Err(Stop::new(Code::Failed, format!("{}{more}", sentence(&status))));
        }
        print::note(&format!("{id} is completed, {} in this process", happened::span(began.elapsed())));
        let output = self.runs().output(&id).await?;
        match self.common.output {
            Output::Text => print::say(&print::pretty(&output))?,
            Output::Json => print::say(&print::pretty(&json!({ "id": id, "status": status.state, "output": output })))?,
        }
        Ok(Code::Done)
    }

    /// The open run of this pipeline and input, or a new one.
    async fn started(&self, pipeline: &LoadedPipeline, said: &Value, input: &Value, manifest: Option<&Path>, new: bool) -> Result<String, Stop> {
        let name = &pipeline.definition.name;
        let place = format!("{name}:{}", blake3::hash(&sorted(said)).to_hex());
        let mut slots = Slots::read(self.data)?;
        let known = slots.runs.get(&place).cloned();
        let open = match &known {
            Some(slot) => self.open(slot).await?,
            None => false,
        };
        let slot = match known {
            Some(slot) if open && new => {
                let id = slot.run.as_deref().unwrap_or("an earlier run");
                self.lines.line(&format!("{id} stays open; `selvedge runs cancel {id}` ends it"));
                Slot { generation: slot.generation + 1, version: pipeline.version.clone(), run: None }
            }
            Some(slot) if open && slot.version != pipeline.version => {
                let id = slot.run.as_deref().unwrap_or("a run");
                let text = format!(
                    "{id} of `{name}` is open with this input, and was started from another version of the file ({} then, {} now): \
                     put that version back to go on with it, or add --new to start afresh",
                    slot.version, pipeline.version
                );
                return Err(Stop::new(Code::Configuration, text));
            }
            Some(slot) if open => slot,
            Some(slot) => Slot { generation: slot.generation + 1, version: pipeline.version.clone(), run: None },
            None => Slot { generation: 1, version: pipeline.version.clone(), run: None },
        };
        // Noted before it is started: whatever a kill leaves, the same command comes to the same key.
        slots.manifest = manifest.and_then(|file| file.canonicalize().ok());
        slots.runs.insert(place.clone(), slot.clone());
        let key = format!("cli:{}:{place}:{}", slots.nonce()?, slot.generation);
        slots.write(self.data)?;
        let bytes = Bytes::from(serde_json::to_vec(input).map_err(|error| Stop::usage(error.to_string()))?);
        let id = self.runs().start(pipeline.definition.clone(), bytes, key).await?.to_string();
        let again = slot.run.is_some();
        if !again {
            slots.runs.insert(place, Slot { run: Some(id.clone()), ..slot });
            slots.write(self.data)?;
        }
        self.lines.line(&format!("{} {id} of `{name}`, data in {}", if again { "going on with" } else { "started" }, self.data.display()));
        Ok(id)
    }

    /// Whether the run of a slot is open. One that was noted and never known may be.
    async fn open(&self, slot: &Slot) -> Result<bool, Stop> {
        let Some(id) = &slot.run else { return Ok(true) };
        match self.runs().status(id).await {
            Ok(status) => Ok(!status.state.ended()),
            Err(Problem { consequence: selvedge_kernel::error::Consequence::NotFound, .. }) => Ok(false),
            Err(problem) => Err(problem.into()),
        }
    }

    /// Watches it until it ends or is blocked.
    async fn watched(&self, id: &str) -> Result<RunStatus, Stop> {
        let data = if self.common.data.is_some() { format!("selvedge --data {} runs", self.data.display()) } else { "selvedge runs".to_owned() };
        let mut progress = Progress::new(self.lines.clone(), data);
        let mut next = self.runs().next_event(id).await?;
        loop {
            let status = self.runs().status(id).await?;
            progress.status(&status);
            if status.state.ended() || status.state == RunState::Blocked {
                return Ok(status);
            }
            for (number, event) in self.runs().events(id, next).await? {
                next = number + 1;
                event.happened.iter().for_each(|happening| progress.happened(happening));
            }
        }
    }
}

/// JSON with sorted keys: the same input, the same bytes.
fn sorted(value: &Value) -> Vec<u8> {
    fn sort(value: &Value) -> Value {
        match value {
            Value::Object(entries) => {
                let mut names: Vec<&String> = entries.keys().collect();
                names.sort();
                Value::Object(names.into_iter().map(|name| (name.clone(), sort(&entries[name]))).collect())
            }
            Value::Array(items) => Value::Array(items.iter().map(sort).collect()),
            leaf => leaf.clone(),
        }
    }
    sort(value).to_string().into_bytes()
}
