//! A set of policies, cut by tenant and action when it is loaded: a question looks only at what can answer it.

use std::collections::{BTreeSet, HashMap};

use cedar_policy::{ActionConstraint, EntityUid, Policy, PolicySet, PolicySetError};
use selvedge_kernel::auth::Action;

use super::load::Read;
use super::question::Types;

/// The policies that may speak about one action in one tenant.
#[derive(Default)]
pub(super) struct Slice {
    pub policies: PolicySet,
    pub uses: Uses,
}

/// What of a request the policies look at, beside who, what and on what: an answer holds for as long as that is the same.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Uses {
    /// The address.
    pub address: bool,
    /// The time, or more than can be told: no answer is kept.
    pub time: bool,
}

/// The slices of all tenants.
pub(super) struct Slices {
    all: HashMap<Action, Slice>,
    tenants: HashMap<String, HashMap<Action, Slice>>,
}

impl Slices {
    pub(super) fn of(read: &Read, types: &Types) -> Result<Slices, PolicySetError> {
        let cut = |own: &[Policy]| -> Result<HashMap<Action, Slice>, PolicySetError> {
            Action::ALL.into_iter().map(|action| Ok((action, slice(read.all.iter().chain(own), &types.action(action))?))).collect()
        };
        let tenants = read.tenants.iter().map(|(tenant, own)| Ok((tenant.clone(), cut(own)?))).collect::<Result<_, PolicySetError>>()?;
        Ok(Slices { all: cut(&[])?, tenants })
    }

    /// None where no policy speaks about it.
    pub(super) fn get(&self, tenant: &str, action: Action) -> Option<&Slice> {
        self.tenants.get(tenant).unwrap_or(&self.all).get(&action).filter(|slice| !slice.policies.is_empty())
    }
}

fn slice<'a>(policies: impl Iterator<Item = &'a Policy>, action: &EntityUid) -> Result<Slice, PolicySetError> {
    let mut slice = Slice::default();
    for policy in policies.filter(|policy| speaks_about(policy, action)) {
        let uses = uses(policy);
        slice.uses.address |= uses.address;
        slice.uses.time |= uses.time;
        slice.policies.add(policy.clone())?;
    }
    Ok(slice)
}

fn speaks_about(policy: &Policy, action: &EntityUid) -> bool {
    match policy.action_constraint() {
        ActionConstraint::Any => true,
        // The schema has no groups of actions, so that `in` names actions themselves.
        ActionConstraint::In(named) => named.contains(action),
        ActionConstraint::Eq(named) => named == *action,
    }
}

/// What a policy looks at. Attributes of the context that are named are told apart; whoever takes it whole looks at all of it.
fn uses(policy: &Policy) -> Uses {
    let Ok(json) = policy.to_json() else { return Uses { address: true, time: true } };
    let text = json.to_string();
    let whole = text.matches(r#"{"Var":"context"}"#).count();
    let named: BTreeSet<(&str, usize)> = ["address", "now", "through"].into_iter().map(|name| (name, reads(&text, name))).collect();
    let count = |wanted: &str| named.iter().find(|(name, _)| *name == wanted).map_or(0, |(_, count)| *count);
    let known: usize = named.iter().map(|(_, count)| count).sum();
    Uses { address: count("address") > 0, time: count("now") > 0 || known != whole }
}

/// How often a policy reads, or asks for, an attribute of the context.
fn reads(text: &str, name: &str) -> usize {
    text.matches(&format!(r#"{{"left":{{"Var":"context"}},"attr":"{name}"}}"#)).count()
}
