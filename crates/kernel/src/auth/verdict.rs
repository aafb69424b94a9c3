//! What policies answer, and the rule that is built in.

use std::time::Duration;

use super::{Action, AuthorizationContext, Resource};
use crate::ports::Policies;
use crate::time::Millis;

/// Yes or no.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Effect {
    /// It is allowed.
    Allow,
    /// It is not.
    Deny,
}

/// The answer of a policy set to one question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// Yes or no.
    pub effect: Effect,
    /// The policies that decided, by their ids.
    pub policies: Vec<String>,
    /// Why, for people.
    pub reason: String,
    /// What could not be evaluated. An answer with an error denies.
    pub errors: Vec<String>,
    /// How long it took to find, where whoever answers has measured that.
    pub took: Duration,
}

impl Verdict {
    /// Yes, by no policy with an id.
    #[must_use]
    pub fn allow(reason: impl Into<String>) -> Verdict {
        Verdict { effect: Effect::Allow, policies: Vec::new(), reason: reason.into(), errors: Vec::new(), took: Duration::ZERO }
    }

    /// No, by no policy with an id.
    #[must_use]
    pub fn deny(reason: impl Into<String>) -> Verdict {
        Verdict { effect: Effect::Deny, ..Verdict::allow(reason) }
    }

    /// What comes of it: an answer with an error in it denies, whatever else it says.
    #[must_use]
    pub fn outcome(&self) -> Effect {
        if self.errors.is_empty() { self.effect } else { Effect::Deny }
    }

    /// Why, with what could not be evaluated.
    #[must_use]
    pub fn why(&self) -> String {
        match self.errors.first() {
            Some(error) => format!("a policy could not be evaluated ({error}), and what is not known to be allowed is denied"),
            None => self.reason.clone(),
        }
    }
}

/// The role that the built-in rule knows.
pub const OWNER: &str = "owner";

/// The rule that is in force where no policies are given: whoever has the role [`OWNER`] may do everything in their own tenant,
/// nobody else anything. The store as a whole belongs to nobody's tenant: it may be read, as far as one's own tenant shows in it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Owners;

impl Policies for Owners {
    fn decide(&self, context: &AuthorizationContext, action: Action, resource: &Resource, _now: Millis) -> Verdict {
        let owner = context.principal.roles.iter().any(|role| role == OWNER);
        let shared = *resource == Resource::Store && action == Action::Operate;
        match (owner, shared) {
            (true, false) => Verdict::allow(format!("the role `{OWNER}` may do everything in its tenant")),
            (true, true) => Verdict::deny("the store as a whole is operated by its local owner"),
            (false, _) => Verdict::deny(format!("no policy allows it: there are none, and the built-in rule wants the role `{OWNER}`")),
        }
    }

    fn version(&self) -> u64 {
        0
    }

    fn fault(&self) -> Option<String> {
        None
    }
}
