//! The verbs on stored pipelines.

use std::collections::BTreeMap;

use selvedge_kernel::auth::{Action, Permit, Resource};
use selvedge_kernel::error::Consequence;
use selvedge_kernel::pipeline::changes::changes;
use selvedge_kernel::pipeline::definition::Definition;
use selvedge_kernel::pipeline::parse::version;
use selvedge_kernel::record::definition::StoredVersion;
use selvedge_kernel::schedule::{Schedule, next, shown};
use serde_json::{Value, json};

use super::Problem;
use super::asker::Asker;
use super::json::{text_of, value};
use crate::runs::RunStart;

/// Asks about pipelines.
pub struct Pipelines<'a>(pub Asker<'a>);

impl Pipelines<'_> {
    fn permit(&self, action: Action, name: &str) -> Result<Permit, Problem> {
        self.0.permit(action, Resource::Pipeline { tenant: self.0.tenant(), name: name.to_owned() })
    }

    /// Stores a pipeline, given as JSON, and says what changed.
    pub async fn put(&self, definition: &str) -> Result<Value, Problem> {
        let definition: Definition = serde_json::from_str(definition)
            .map_err(|error| Problem::new(Consequence::FixInput, "definition", format!("this is no definition of this version: {error}")))?;
        self.store(self.may_put(&definition.name)?, definition, None).await
    }

    /// The proof that the asker may store a pipeline under a name. Errors: `denied`.
    pub fn may_put(&self, name: &str) -> Result<Permit, Problem> {
        self.permit(Action::Define, name)
    }

    /// Stores a pipeline, and says what changed. With `if_match` only where that is the current version.
    /// Errors: `changed_since`, when it is another one.
    pub async fn store(&self, permit: Permit, definition: Definition, if_match: Option<&str>) -> Result<Value, Problem> {
        let (name, new) = (definition.name.clone(), version(&definition));
        let before = self.0.engine.put_definition_if(permit, definition.clone(), if_match.map(str::to_owned)).await?;
        let (status, changed) = match &before {
            None => ("new", Vec::new()),
            Some(before) if before.version == new => ("unchanged", Vec::new()),
            Some(before) => ("changed", changes(&definition_of(before)?, &definition)),
        };
        let before = before.map(|before| before.version);
        Ok(json!({ "name": name, "version": new, "before": before, "status": status, "changes": changed, "fires": self.fires(&definition) }))
    }

    /// Pipelines, by name.
    pub async fn list(&self) -> Result<Value, Problem> {
        let mut lines: BTreeMap<String, Value> = BTreeMap::new();
        for (name, definition) in self.0.engine.pipelines() {
            let line = json!({ "version": version(&definition), "stages": definition.stages.len(), "source": "app.yaml", "at": null });
            lines.insert(name, line);
        }
        for stored in self.0.engine.stored_definitions(self.permit(Action::Read, "")?).await? {
            let stages = definition_of(&stored)?.stages.len();
            lines.insert(stored.name, json!({ "version": stored.version, "stages": stages, "source": "stored", "at": stored.at.to_string() }));
        }
        let named = |(name, mut line): (String, Value)| {
            line["name"] = name.into();
            line
        };
        Ok(Value::Array(lines.into_iter().map(named).collect()))
    }

    /// A pipeline with its versions; `NAME@VERSION` is one of them, whole.
    pub async fn show(&self, asked: &str) -> Result<Value, Problem> {
        let (name, wanted) = match asked.split_once('@') {
            Some((name, wanted)) => (name, Some(wanted)),
            None => (asked, None),
        };
        let versions = self.0.engine.stored_versions(self.permit(Action::Read, name)?).await?;
        if let Some(wanted) = wanted {
            let found = one_of(name, &versions, wanted)?;
            let (at, definition) = (found.at.to_string(), value(&definition_of(found)?)?);
            return Ok(json!({ "name": name, "version": found.version, "at": at, "by": found.by, "definition": definition }));
        }
        let (definition, source) = match versions.first() {
            Some(current) => (definition_of(current)?, "stored"),
            None => (self.0.engine.definition(self.permit(Action::Read, name)?).await?, "app.yaml"),
        };
        let open = self.0.engine.open_by_version(self.permit(Action::Read, name)?, name).await?;
        let line = |stored: &StoredVersion| {
            let open = open.get(&stored.version).copied().unwrap_or_default();
            json!({ "version": stored.version, "at": stored.at.to_string(), "by": stored.by, "open": open })
        };
        let kept: Vec<Value> = versions.iter().map(line).collect();
        Ok(json!({
            "name": name, "source": source, "version": version(&definition), "description": definition.description,
            "stages": definition.stages.iter().map(|stage| &stage.name).collect::<Vec<_>>(),
            "versions": kept, "open": open, "fires": self.fires(&definition),
        }))
    }

    /// The next five fires of its schedule, as the clock of its zone shows them.
    fn fires(&self, definition: &Definition) -> Vec<String> {
        let Some(Ok(schedule)) = definition.schedule.clone().map(Schedule::new) else { return Vec::new() };
        next(&schedule, self.0.engine.now(), 5).into_iter().map(|fire| shown(&schedule, fire)).collect()
    }

    /// What differs between two versions of a stored pipeline.
    pub async fn diff(&self, name: &str, before: &str, after: &str) -> Result<Value, Problem> {
        let versions = self.0.engine.stored_versions(self.permit(Action::Read, name)?).await?;
        let (before, after) = (one_of(name, &versions, before)?, one_of(name, &versions, after)?);
        let changed = changes(&definition_of(before)?, &definition_of(after)?);
        Ok(json!({ "name": name, "before": before.version, "after": after.version, "changes": changed }))
    }

    /// Starts a run of a pipeline. The same key, the same run.
    pub async fn start(&self, name: &str, wanted: Option<&str>, input: String, start: RunStart) -> Result<Value, Problem> {
        let versions = self.0.engine.stored_versions(self.permit(Action::Read, name)?).await?;
        let definition = match (wanted, versions.first()) {
            (Some(wanted), _) => definition_of(one_of(name, &versions, wanted)?)?,
            (None, Some(current)) => definition_of(current)?,
            (None, None) => self.0.engine.definition(self.permit(Action::Read, name)?).await?,
        };
        let used = version(&definition);
        let run = self.0.engine.start_run(self.permit(Action::Start, name)?, definition, text_of(input)?, start).await?;
        Ok(json!({ "run": run.to_string(), "version": used }))
    }
}

/// The definition of a stored version. Errors: this build cannot read it.
pub fn definition_of(stored: &StoredVersion) -> Result<Definition, Problem> {
    serde_json::from_slice(&stored.definition).map_err(|error| {
        let text = format!("version {} of `{}` cannot be read ({error}): store it again from its file", stored.version, stored.name);
        Problem::new(Consequence::FixInput, "definition", text)
    })
}

/// The version that begins so.
fn one_of<'a>(name: &str, versions: &'a [StoredVersion], wanted: &str) -> Result<&'a StoredVersion, Problem> {
    let mut found: Vec<&StoredVersion> = versions.iter().filter(|stored| !wanted.is_empty() && stored.version.starts_with(wanted)).collect();
    found.dedup_by(|a, b| a.version == b.version);
    match found[..] {
        [first, ..] if found.iter().all(|other| other.version == first.version) => Ok(first),
        _ => {
            let known: Vec<String> = versions.iter().map(|stored| stored.version.chars().take(12).collect()).collect();
            let known = if known.is_empty() {
                "none is stored: `selvedge pipelines put FILE` stores one".to_owned()
            } else {
                format!("there are {}", known.join(", "))
            };
            let what = if found.is_empty() { "no version" } else { "more than one version" };
            Err(Problem::new(Consequence::NotFound, "unknown_version", format!("{what} of `{name}` begins with `{wanted}`; {known}")))
        }
    }
}
