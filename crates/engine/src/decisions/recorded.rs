//! Decisions as they are read back: beside the shard that writes them.

use selvedge_kernel::id::{DecisionId, ShardId};
use selvedge_kernel::limit::PAGE;
use selvedge_kernel::ports::under;
use selvedge_kernel::record::decision::{DecisionRecord, What, decisions_of, row};
use selvedge_kernel::wire;

use crate::shard::VerbError;
use crate::wiring::Wiring;

/// Which records somebody wants to see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Of these kinds.
    pub whats: Vec<What>,
    /// With this id.
    pub id: Option<DecisionId>,
    /// Of this principal.
    pub principal: Option<String>,
    /// Of this action.
    pub action: Option<String>,
    /// At most so many.
    pub most: usize,
}

impl Wanted {
    fn keeps(&self, record: &DecisionRecord) -> bool {
        self.id.is_none_or(|id| id == record.id)
            && self.principal.as_ref().is_none_or(|principal| *principal == record.principal.id)
            && self.action.as_ref().is_none_or(|action| *action == record.action)
    }
}

impl Wiring {
    /// Records of a tenant, the newest first.
    pub(crate) async fn recorded(&self, shard: ShardId, tenant: &str, wanted: &Wanted) -> Result<Vec<DecisionRecord>, VerbError> {
        let mut found = Vec::new();
        for what in &wanted.whats {
            if let Some(id) = wanted.id {
                if let Some(value) = self.store.get(shard, row(tenant, *what, id)).await? {
                    found.push(wire::decode::<DecisionRecord>("decision", &value)?);
                }
                continue;
            }
            let (mut range, mut kept) = (under(&decisions_of(tenant, *what)), 0);
            while kept < wanted.most {
                let page = self.store.scan(shard, range.clone(), PAGE).await?;
                for (_, value) in &page {
                    let record: DecisionRecord = wire::decode("decision", value)?;
                    if kept < wanted.most && wanted.keeps(&record) {
                        kept += 1;
                        found.push(record);
                    }
                }
                let Some((last, _)) = page.last().filter(|_| page.len() == PAGE) else { break };
                range.start = [last, &[0][..]].concat().into();
            }
        }
        found.retain(|record| wanted.keeps(record));
        found.sort_by_key(|record| std::cmp::Reverse((record.first, record.id)));
        found.truncate(wanted.most);
        Ok(found)
    }
}
