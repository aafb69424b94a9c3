//! The list of runs.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use selvedge_kernel::auth::{Action, Permit};
use selvedge_kernel::error::Consequence;
use selvedge_kernel::filter::{Filter, List, matches};
use selvedge_kernel::id::{Key, RunId, ShardId};
use selvedge_kernel::pipeline::definition::Definition;
use selvedge_kernel::ports::under;
use selvedge_kernel::record::attribute::{Place, behind, decode, with_value};
use selvedge_kernel::record::key::index_of;
use selvedge_kernel::record::run::{Pinned, definition_key};
use selvedge_kernel::wire;

use super::page::Kept;
use super::row::{self, Beside, equal_attribute, names};
use super::{Newest, Page};
use crate::door::tenant_for;
use crate::engine::Engine;
use crate::runs::RunSummary;
use crate::runs::turn::LIST;
use crate::shard::VerbError;

/// Rows read at once.
const ROWS: usize = 256;

impl Engine {
    /// The runs of a tenant, the newest first, a page at most.
    pub async fn list_runs(&self, permit: Permit) -> Result<Vec<RunSummary>, VerbError> {
        self.find_runs(permit, &Filter::default(), &Page::default()).await
    }

    /// A page of the runs of a tenant for which a filter holds, the newest first. A filter that asks for the value of an
    /// attribute reads the runs that have it, every other one all lines, page by page.
    pub async fn find_runs(&self, permit: Permit, filter: &Filter, page: &Page<Newest<RunId>>) -> Result<Vec<RunSummary>, VerbError> {
        let tenant = tenant_for(&permit, Action::Read)?;
        let mut kept = Kept::new(page, |line: &RunSummary| (Reverse(line.started_at), line.id));
        for shard in (0..self.wiring.shards).map(ShardId) {
            self.runs_of_shard(shard, &tenant, filter, page).await?.into_iter().for_each(|line| kept.push(line));
        }
        Ok(kept.done())
    }

    async fn runs_of_shard(&self, shard: ShardId, tenant: &str, filter: &Filter, page: &Page<Newest<RunId>>) -> Result<Vec<RunSummary>, VerbError> {
        let all = index_of(tenant, LIST);
        let by_value = equal_attribute(filter).map(|(name, value)| with_value(tenant, name, value));
        let mut range: Range<Key> = under(by_value.as_ref().unwrap_or(&all));
        if let Some((Reverse(started_at), run)) = page.after {
            // Both lists are in the order of time and run.
            range.start = behind(by_value.as_ref().unwrap_or(&all), started_at, run);
        }
        let mut found = Vec::new();
        loop {
            let rows = self.wiring.store.scan(shard, range.clone(), ROWS).await?;
            let Some((last, _)) = rows.last() else { return Ok(found) };
            let mut next = last.to_vec();
            next.push(0);
            range.start = next.into();
            for (key, value) in rows {
                let line = match &by_value {
                    None => Some(value),
                    Some(prefix) => {
                        // Behind the prefix of either list stand time and run.
                        let key = [&all[..], key.get(prefix.len()..).unwrap_or_default()].concat();
                        self.wiring.store.get(shard, key.into()).await?
                    }
                };
                let Some(line) = line else { continue };
                let line: RunSummary = wire::decode("line of the list of runs", &line)?;
                if self.holds(shard, tenant, filter, &line).await? {
                    found.push(line);
                }
                if found.len() == page.size {
                    return Ok(found);
                }
            }
        }
    }

    async fn holds(&self, shard: ShardId, tenant: &str, filter: &Filter, line: &RunSummary) -> Result<bool, VerbError> {
        if filter.terms.is_empty() {
            return Ok(true);
        }
        let mut beside = self.attributes_of(shard, tenant, line).await?;
        if names(filter, |name| name == "version") {
            beside.version = self.version_of(shard, line.id).await?;
        }
        Ok(matches(filter, &row::run(line, &beside, self.now())))
    }

    /// How many runs of a pipeline are open, by version; of the newest page of them.
    pub async fn open_by_version(&self, permit: Permit, pipeline: &str) -> Result<BTreeMap<String, usize>, VerbError> {
        let text = format!("pipeline:{pipeline} -status:completed -status:failed -status:cancelled");
        let mut counts = BTreeMap::new();
        for line in self.find_runs(permit, &row::filter(List::Runs, &text)?, &Page::default()).await? {
            let version = self.version_of(line.id.0.hash.shard(self.wiring.shards), line.id).await?;
            *counts.entry(version.unwrap_or_default()).or_default() += 1;
        }
        Ok(counts)
    }

    /// The definitions that open runs are pinned to, one for each version; of the newest page of them.
    pub async fn open_definitions(&self, permit: Permit) -> Result<Vec<Definition>, VerbError> {
        let mut found = BTreeMap::new();
        for line in self.find_runs(permit, &row::filter(List::Runs, "-status:completed -status:failed -status:cancelled")?, &Page::default()).await? {
            let Some(row) = self.wiring.store.get(line.id.0.hash.shard(self.wiring.shards), definition_key(line.id)).await? else { continue };
            let pinned: Pinned = wire::decode("pinned definition", &row)?;
            found.entry((line.pipeline, pinned.version)).or_insert(pinned.definition);
        }
        let read = |bytes: Bytes| serde_json::from_slice(&bytes).map_err(|error| VerbError::new(Consequence::FixInput, "definition", error.to_string()));
        found.into_values().map(read).collect()
    }

    async fn attributes_of(&self, shard: ShardId, tenant: &str, line: &RunSummary) -> Result<Beside, VerbError> {
        let row = Place { tenant, started_at: line.started_at, run: line.id }.row();
        Ok(match self.wiring.store.get(shard, row).await? {
            Some(row) => Beside { attributes: decode(&row)?, version: None },
            None => Beside::default(),
        })
    }

    async fn version_of(&self, shard: ShardId, run: RunId) -> Result<Option<String>, VerbError> {
        let Some(row) = self.wiring.store.get(shard, definition_key(run)).await? else { return Ok(None) };
        Ok(Some(wire::decode::<Pinned>("pinned definition", &row)?.version))
    }

    /// The attributes of a run, by name.
    pub async fn run_attributes(&self, permit: Permit, line: &RunSummary) -> Result<BTreeMap<String, serde_json::Value>, VerbError> {
        let tenant = tenant_for(&permit, Action::Read)?;
        Ok(self.attributes_of(line.id.0.hash.shard(self.wiring.shards), &tenant, line).await?.attributes)
    }
}
