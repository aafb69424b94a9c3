//! Pipelines that are stored in the data directory by name: a version is the hash of the content, and runs keep a copy of theirs.

use bytes::Bytes;
use selvedge_kernel::auth::{Action, Permit, Resource};
use selvedge_kernel::error::Consequence;
use selvedge_kernel::id::ShardId;
use selvedge_kernel::limit::{DEFINITIONS, PAGE};
use selvedge_kernel::pipeline::agree::of_definition;
use selvedge_kernel::pipeline::definition::Definition;
use selvedge_kernel::pipeline::parse::version;
use selvedge_kernel::ports::under;
use selvedge_kernel::record::Writes;
use selvedge_kernel::record::definition::{StoredVersion, definitions_of, number_of, version_key, versions_of};
use selvedge_kernel::record::schedule::actor;
use selvedge_kernel::wire;

use crate::door::{agreed, expect_action, misused};
use crate::engine::Engine;
use crate::runs::accept::compiled;
use crate::shard::{Command, Shard, VerbError};

impl Engine {
    /// Stores a pipeline under its name: durable when this returns. Gives the version that it takes the place of, if there is
    /// one; the same version again changes nothing. Errors: a definition that cannot be run here.
    pub async fn put_definition(&self, permit: Permit, definition: Definition) -> Result<Option<StoredVersion>, VerbError> {
        let (tenant, name) = named(&permit, Action::Define)?;
        if name != definition.name {
            return Err(misused(&permit));
        }
        compiled(&self.wiring.registry, definition.clone())?;
        self.agrees(&tenant, &definition).await?;
        let json = serde_json::to_vec(&definition).map_err(|error| VerbError::new(Consequence::FixInput, "definition", error.to_string()))?;
        let by = permit.context().principal.id.clone();
        let stored = Box::new(StoredVersion { name: name.clone(), version: version(&definition), at: self.now(), by, definition: Bytes::from(json) });
        self.admit().await?;
        self.ask(self.wiring.shard_of(&actor(&tenant, &name)), |reply| Command::PutDefinition { tenant, stored, reply }).await
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
        self.current_definitions(&permit.context().principal.tenant).await
    }

    /// Refuses one whose activities share a limit or a breaker with others, registered or stored, under other numbers.
    async fn agrees(&self, tenant: &str, definition: &Definition) -> Result<(), VerbError> {
        let new = of_definition(definition);
        if new.is_empty() {
            return Ok(());
        }
        agreed(&self.wiring.declared, &new)?;
        for stored in self.current_definitions(tenant).await? {
            // One of another version of this program says what is wrong with it when it is started.
            let Ok(stored) = serde_json::from_slice::<Definition>(&stored.definition) else { continue };
            agreed(&of_definition(&stored), &new)?;
        }
        Ok(())
    }

    async fn current_definitions(&self, tenant: &str) -> Result<Vec<StoredVersion>, VerbError> {
        let mut found: Vec<StoredVersion> = Vec::new();
        for shard in (0..self.wiring.shards).map(ShardId) {
            let mut range = under(&definitions_of(tenant));
            while let Some((_, value)) = self.wiring.store.scan(shard, range.clone(), 1).await?.first() {
                let newest: StoredVersion = wire::decode("stored pipeline", value)?;
                range.start = under(&versions_of(tenant, &newest.name)).end;
                found.push(newest);
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found.truncate(PAGE);
        Ok(found)
    }
}

impl Shard {
    /// Stores a version as the current one, unless it is. The oldest leaves when too many are there.
    pub(crate) async fn put_definition(&mut self, tenant: &str, stored: &StoredVersion) -> Result<Option<StoredVersion>, VerbError> {
        let rows = self.scan(under(&versions_of(tenant, &stored.name)), DEFINITIONS + 1).await?;
        let newest =
            rows.first().map(|(key, value)| Ok::<_, VerbError>((number_of(key).unwrap_or_default(), wire::decode::<StoredVersion>("stored pipeline", value)?)));
        let newest = newest.transpose()?;
        let next = newest.as_ref().map_or(0, |(n, _)| n + 1);
        if newest.as_ref().is_none_or(|(_, newest)| newest.version != stored.version || newest.definition != stored.definition) {
            let mut writes = Writes::default();
            writes.put(version_key(tenant, &stored.name, next), wire::encode(stored));
            rows.into_iter().skip(DEFINITIONS - 1).for_each(|(key, _)| writes.delete(key));
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
