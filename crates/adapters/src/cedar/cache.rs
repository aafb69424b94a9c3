//! Answers that were given before, a bounded number of them.

use std::collections::{BTreeMap, HashMap};

use selvedge_kernel::auth::{Action, AuthorizationContext, Hop, Principal, Resource, Verdict};

use super::slices::Uses;

/// Answers of one generation; two are kept.
pub(super) const GENERATION: usize = 4_096;

/// Text in a question of which the answer is kept: callers choose what they ask for, and what is longer is asked anew.
const TEXT_BYTES: usize = 2_048;

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
    /// None where the answer depends on the time, and where there is too much to keep.
    pub(super) fn of(context: &AuthorizationContext, action: Action, resource: &Resource, uses: Uses) -> Option<Asked> {
        let kept = !uses.time && text_bytes(context, resource) <= TEXT_BYTES;
        kept.then(|| Asked {
            principal: context.principal.clone(),
            chain: context.chain.clone(),
            claims: context.claims.clone(),
            action,
            resource: resource.clone(),
            address: context.request.address.clone().filter(|_| uses.address),
        })
    }
}

fn text_bytes(context: &AuthorizationContext, resource: &Resource) -> usize {
    let roles = context.principal.roles.iter().map(String::len);
    let chain = context.chain.iter().map(|hop| hop.actor.tenant.len() + hop.actor.kind.len() + hop.actor.key.len() + hop.handler.len());
    let claims = context.claims.iter().map(|(name, value)| name.len() + value.len());
    let named = match resource {
        Resource::Handler { actor, handler } => actor.tenant.len() + actor.kind.len() + actor.key.len() + handler.len(),
        Resource::Pipeline { tenant, name } | Resource::Activity { tenant, name } => tenant.len() + name.len(),
        Resource::Work { tenant, id } => tenant.len() + id.len(),
        Resource::Tenant { tenant } => tenant.len(),
        Resource::Store => 0,
    };
    named + context.principal.id.len() + context.principal.tenant.len() + roles.chain(chain).chain(claims).sum::<usize>()
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
