//! Pipelines that are stored in the data directory by name: a version is the hash of the content, and runs keep a copy of theirs.
//!
//! What a name means, whoever starts it (a person, a schedule, a handler, a task of another run), is decided in [`in_force`].

use std::collections::BTreeSet;

use bytes::Bytes;
use selvedge_kernel::auth::{Action, Permit, Resource};
use selvedge_kernel::error::Consequence;
use selvedge_kernel::id::ShardId;
use selvedge_kernel::limit::{DEFINITIONS, PAGE};
use selvedge_kernel::pipeline::agree::of_definition;
use selvedge_kernel::pipeline::definition::Definition;
use selvedge_kernel::pipeline::parse::version;
use selvedge_kernel::ports::under;
use selvedge_kernel::record::definition::{StoredVersion, definitions_of, number_of, version_key, versions_of};
use selvedge_kernel::record::schedule::{ScheduleRecord, actor};
use selvedge_kernel::record::{Writes, kept};
use selvedge_kernel::wire;

use crate::door::{agreed, expect_action, misused};
use crate::engine::Engine;
use crate::runs::accept::compiled;
use crate::schedules::new_record;
use crate::shard::{Command, Shard, VerbError};
use crate::wiring::Wiring;

impl Engine {
    /// Stores a pipeline under its name, and its schedule with it: durable when this returns. Gives the version that it takes
    /// the place of, if there is one; the same version again changes nothing. Errors: a definition that cannot be run here.
    pub async fn put_definition(&self, permit: Permit, definition: Definition) -> Result<Option<StoredVersion>, VerbError> {
        self.put_definition_if(permit, definition, None).await
    }

    /// The same, only where the version that it takes the place of is the one that `if_match` names, decided in the commit that
    /// stores it. Errors: `changed_since`, with the version that is current.
    pub async fn put_definition_if(&self, permit: Permit, definition: Definition, if_match: Option<String>) -> Result<Option<StoredVersion>, VerbError> {
        let (tenant, name) = named(&permit, Action::Define)?;
        if name != definition.name {
            return Err(misused(&permit));
        }
        compiled(&self.wiring.registry, definition.clone())?;
        agreed(&self.wiring.given.get().declared, &of_definition(&definition))?;
        let json = serde_json::to_vec(&definition).map_err(|error| VerbError::new(Consequence::FixInput, "definition", error.to_string()))?;
        let by = permit.context().principal.id.clone();
        let stored = StoredVersion { name: name.clone(), version: version(&definition), at: self.now(), by, definition: Bytes::from(json) };
        let schedule = match &definition.schedule {
            Some(spec) => Some(new_record(permit, spec, self.now())?),
            None => None,
        };
        self.admit().await?;
        let shard = self.wiring.shard_of(&actor(&tenant, &name));
        let put = Box::new(Put { tenant, stored, schedule, if_match });
        self.ask(shard, |reply| Command::PutDefinition { put, reply }).await
    }

    /// The versions of a stored pipeline that are kept, the newest first.
    pub async fn stored_versions(&self, permit: Permit) -> Result<Vec<StoredVersion>, VerbError> {
        let (tenant, name) = named(&permit, Action::Read)?;
        let shard = self.wiring.shard_of(&actor(&tenant, &name));
        let rows = self.wiring.store.scan(shard, under(&versions_of(&tenant, &name)), DEFINITIONS + 1).await?;
        rows.iter().map(|(_, value)| Ok(wire::decode("stored pipeline", value)?)).collect()
    }

    /// The current version of each stored pipeline, by name, a page at most.
    pub async fn stored_definitions(&self, permit: Permit) -> Result<Vec<StoredVersion>, VerbError> {
        expect_action(&permit, Action::Read)?;
        let mut found = current(&self.wiring, &permit.context().principal.tenant).await?;
        found.truncate(PAGE);
        Ok(found)
    }

    /// What the name of a pipeline means for a run that is started now. Errors: a name that is neither stored nor registered.
    pub async fn definition(&self, permit: Permit) -> Result<Definition, VerbError> {
        let (tenant, name) = named(&permit, Action::Read)?;
        in_force(&self.wiring, &tenant, &name).await
    }
}

/// What the name of a pipeline means for a run that starts now. Errors: a name that is neither stored nor registered, with
/// those that are; a stored version that cannot be read.
pub(crate) async fn in_force(wiring: &Wiring, tenant: &str, name: &str) -> Result<Definition, VerbError> {
    match found(wiring, tenant, name).await? {
        Some(definition) => Ok(definition),
        None => Err(unknown_pipeline(wiring, tenant, name).await?),
    }
}

/// The newest stored version of a pipeline, else what this process was given. Errors: a stored version that cannot be read.
pub(crate) async fn found(wiring: &Wiring, tenant: &str, name: &str) -> Result<Option<Definition>, VerbError> {
    let shard = wiring.shard_of(&actor(tenant, name));
    let rows = wiring.store.scan(shard, under(&versions_of(tenant, name)), 1).await?;
    if let Some((_, value)) = rows.first() {
        let stored: StoredVersion = wire::decode("stored pipeline", value)?;
        return serde_json::from_slice(&stored.definition).map(Some).map_err(|error| {
            let text = format!(
                "version {} of `{name}` cannot be read here ({error}): store it again from its file, with `selvedge pipelines put FILE`",
                stored.version
            );
            VerbError::new(Consequence::FixInput, "definition", text)
        });
    }
    Ok(wiring.given.get().pipelines.get(name).cloned())
}

/// The error of a pipeline that is neither stored nor registered, with those that are.
async fn unknown_pipeline(wiring: &Wiring, tenant: &str, name: &str) -> Result<VerbError, VerbError> {
    let stored = current(wiring, tenant).await?;
    let given = wiring.given.get();
    let names: BTreeSet<&str> = given.pipelines.keys().map(String::as_str).chain(stored.iter().map(|stored| stored.name.as_str())).collect();
    let known = if names.is_empty() { "none".to_owned() } else { names.into_iter().take(PAGE).collect::<Vec<_>>().join(", ") };
    Ok(VerbError::new(Consequence::NotFound, "unknown_pipeline", format!("there is no pipeline `{name}` here; there are: {known}")))
}

/// The current version of each stored pipeline of a tenant, by name.
async fn current(wiring: &Wiring, tenant: &str) -> Result<Vec<StoredVersion>, VerbError> {
    let mut found: Vec<StoredVersion> = Vec::new();
    for shard in (0..wiring.shards).map(ShardId) {
        let mut range = under(&definitions_of(tenant));
        while let Some((_, value)) = wiring.store.scan(shard, range.clone(), 1).await?.first() {
            let newest: StoredVersion = wire::decode("stored pipeline", value)?;
            range.start = under(&versions_of(tenant, &newest.name)).end;
            found.push(newest);
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// A version that is to be stored.
pub(crate) struct Put {
    tenant: String,
    stored: StoredVersion,
    schedule: Option<ScheduleRecord>,
    /// The version that it takes the place of, where somebody looked at that first.
    if_match: Option<String>,
}

impl Shard {
    /// Stores a version as the current one, unless it is, and in the same commit the schedule that it names, or that it
    /// names none. The oldest version leaves when too many are there.
    pub(crate) async fn put_definition(&mut self, put: Put) -> Result<Option<StoredVersion>, VerbError> {
        let Put { tenant, stored, schedule, if_match } = put;
        let rows = self.scan(under(&versions_of(&tenant, &stored.name)), DEFINITIONS + 1).await?;
        let newest =
            rows.first().map(|(key, value)| Ok::<_, VerbError>((number_of(key).unwrap_or_default(), wire::decode::<StoredVersion>("stored pipeline", value)?)));
        let newest = newest.transpose()?;
        // What is shown is what is compared: the newest stored version, else the one that this process was given.
        let given = || self.wiring.given.get().pipelines.get(&stored.name).map(version);
        let there = newest.as_ref().map(|(_, newest)| newest.version.clone()).or_else(given);
        if let Some(wanted) = &if_match
            && there.as_ref().is_none_or(|there| wanted != "*" && there != wanted)
        {
            let current = there.map_or_else(|| "there is none".to_owned(), |there| format!("its version is {there}"));
            let text = format!("`{}` is not what you looked at: {current}, not {wanted}; look again, and store it with the version that is there", stored.name);
            return Err(VerbError::new(Consequence::Conflict, "changed_since", text));
        }
        let next = newest.as_ref().map_or(0, |(n, _)| n + 1);
        let mut writes = Writes::default();
        if newest.as_ref().is_none_or(|(_, newest)| newest.version != stored.version || newest.definition != stored.definition) {
            self.room_to_keep(&tenant)?;
            writes.put(version_key(&tenant, &stored.name, next), wire::encode(&stored));
            writes.keep(&tenant, kept::change(stored.definition.len()));
            for (key, value) in rows.into_iter().skip(DEFINITIONS - 1) {
                writes.keep(&tenant, -kept::change(wire::decode::<StoredVersion>("stored pipeline", &value)?.definition.len()));
                writes.delete(key);
            }
        }
        match schedule {
            Some(record) => self.put_schedule(record, &mut writes).await?,
            None => _ = self.remove_schedule(&tenant, &stored.name, &mut writes).await?,
        }
        if !writes.puts.is_empty() || !writes.deletes.is_empty() {
            self.write(writes, Vec::new());
        }
        Ok(newest.map(|(_, newest)| newest))
    }
}

fn named(permit: &Permit, action: Action) -> Result<(String, String), VerbError> {
    expect_action(permit, action)?;
    let Resource::Pipeline { tenant, name } = permit.resource().clone() else { return Err(misused(permit)) };
    Ok((tenant, name))
}
