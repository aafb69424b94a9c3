//! Answers that were given before, a bounded number of them.

use std::collections::{BTreeMap, HashMap};

use selvedge_kernel::auth::{Action, AuthorizationContext, Hop, Principal, Resource, Verdict};

use super::slices::Uses;

/// Answers of one generation; two are kept.
pub(super) const GENERATION: usize = 4_096;

/// All that an answer can depend on, but the time.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Asked {
    principal: Principal,
    chain: Vec<Hop>,
    claims: BTreeMap<String, String>,
    action: Action,
    resource: Resource,
    address: Option<String>,
}

impl Asked {
    /// None where the answer depends on the time.
    pub(super) fn of(context: &AuthorizationContext, action: Action, resource: &Resource, uses: Uses) -> Option<Asked> {
        (!uses.time).then(|| Asked {
            principal: context.principal.clone(),
            chain: context.chain.clone(),
            claims: context.claims.clone(),
            action,
            resource: resource.clone(),
            address: context.request.address.clone().filter(|_| uses.address),
        })
    }
}

/// Two generations: when the young one is full it becomes the old one, and what was not asked again meanwhile goes.
#[derive(Default)]
pub(super) struct Cache {
    young: HashMap<Asked, Verdict>,
    old: HashMap<Asked, Verdict>,
}

impl Cache {
    pub(super) fn get(&mut self, asked: &Asked) -> Option<Verdict> {
        if let Some(found) = self.young.get(asked) {
            return Some(found.clone());
        }
        let (asked, found) = self.old.remove_entry(asked)?;
        self.put(asked, found.clone());
        Some(found)
    }

    pub(super) fn put(&mut self, asked: Asked, verdict: Verdict) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(asked, verdict);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}
