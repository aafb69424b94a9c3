//! How many names an actor's state holds: bounded, and counted only when somebody writes.

use std::collections::BTreeSet;

use selvedge_kernel::error::WorkError;
use selvedge_kernel::id::ActorId;
use selvedge_kernel::ports::under;
use selvedge_kernel::record::key;
use selvedge_kernel::record::kind::Kind;

use super::activate::Activation;
use super::{Shard, VerbError};
use crate::core::Fresh;

impl Shard {
    /// Fails a handler that has written more names than its actor's state may hold.
    pub(super) async fn check_names(&mut self, activation: &Activation) -> Result<(), VerbError> {
        let written: Vec<String> = {
            let state = activation.core.state.borrow();
            let names = state.fresh.iter().filter_map(|fresh| if let Fresh::Set { name, .. } = fresh { Some(name.clone()) } else { None });
            names.collect()
        };
        if written.is_empty() {
            return Ok(());
        }
        let names: BTreeSet<&str> = written.iter().map(String::as_str).collect();
        if let Some(error) = self.names_fit(&activation.record.message.target, &names).await? {
            activation.core.state.borrow_mut().failed.get_or_insert(error);
        }
        Ok(())
    }

    /// Whether an actor's state may hold these names too; why not, if not. The count is an upper bound until it meets
    /// the limit: only then are the rows counted again.
    pub(super) async fn names_fit(&mut self, actor: &ActorId, names: &BTreeSet<&str>) -> Result<Option<WorkError>, VerbError> {
        let limit = self.wiring.settings.limits.state_names;
        let more = names.len() as u64;
        let known = self.actors.get(actor).and_then(|found| found.names).filter(|known| known + more <= limit);
        let count = match known {
            Some(known) => known + more,
            None => {
                let rows = self.scan(under(&key::of_actor(Kind::State, actor)), usize::try_from(limit).unwrap_or(usize::MAX)).await?;
                let fresh = names.iter().filter(|name| rows.binary_search_by(|(row, _)| row.as_ref().cmp(key::state(actor, name).as_ref())).is_err());
                rows.len() as u64 + fresh.count() as u64
            }
        };
        if count > limit {
            return Ok(Some(WorkError::new(
                "limit: state names",
                format!("the state of {actor} would hold {count} names, the limit is {limit}: keep several values under one name, or spread them over actors"),
            )));
        }
        if let Some(found) = self.actors.get_mut(actor) {
            found.names = Some(count);
        }
        Ok(None)
    }
}
