//! What is asked for, and the proof that it was allowed.

use std::fmt;

use super::verdict::{Effect, Verdict};
use super::{AuthorizationContext, PrincipalKind, WORKER};
use crate::id::{ActorId, DecisionId, RawId};
use crate::ports::Policies;
use crate::record::decision::home;
use crate::time::Millis;

/// What someone wants to do: the verbs of the engine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Action {
    /// Call or send to a handler.
    Invoke,
    /// Deliver a signal or decide an approval.
    Signal,
    /// Start a run.
    Start,
    /// Read state, results, lists, `why`.
    Read,
    /// Cancel, pause, resume, retry.
    Control,
    /// Rewrite history by hand: resolve, set state, kill.
    Rewrite,
    /// Store a definition.
    Define,
    /// Verify, back up, close.
    Operate,
    /// Make, list and revoke keys.
    Administer,
    /// Take tasks of an activity, and report their ends.
    Work,
}

impl Action {
    /// Every action.
    pub const ALL: [Action; 10] = [
        Action::Invoke,
        Action::Signal,
        Action::Start,
        Action::Read,
        Action::Control,
        Action::Rewrite,
        Action::Define,
        Action::Operate,
        Action::Administer,
        Action::Work,
    ];

    /// The action of this name.
    ///
    /// # Errors
    /// A name of none, with those that there are.
    pub fn read(name: &str) -> Result<Action, String> {
        let known = || Action::ALL.map(Action::name).join(", ");
        Action::ALL.into_iter().find(|action| action.name() == name).ok_or_else(|| format!("`{name}` is no action: there are {}", known()))
    }

    /// Its name in policies and in text.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Action::Invoke => "invoke",
            Action::Signal => "signal",
            Action::Start => "start",
            Action::Read => "read",
            Action::Control => "control",
            Action::Rewrite => "rewrite",
            Action::Define => "define",
            Action::Operate => "operate",
            Action::Administer => "administer",
            Action::Work => "work",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// What it is done to.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Resource {
    /// An actor's handler.
    Handler {
        /// The actor.
        actor: ActorId,
        /// Its handler.
        handler: String,
    },
    /// A pipeline by name.
    Pipeline {
        /// Of which tenant.
        tenant: String,
        /// Its name.
        name: String,
    },
    /// An activity whose tasks workers take.
    Activity {
        /// Of which tenant.
        tenant: String,
        /// Its name.
        name: String,
    },
    /// Anything that an id names.
    Work {
        /// Of which tenant.
        tenant: String,
        /// The id as printed.
        id: String,
    },
    /// A tenant as a whole: who may do what in it.
    Tenant {
        /// Which.
        tenant: String,
    },
    /// The store as a whole.
    Store,
}

impl Resource {
    /// The tenant that the resource belongs to; the store as a whole has none.
    #[must_use]
    pub fn tenant(&self) -> Option<&str> {
        match self {
            Resource::Handler { actor, .. } => Some(&actor.tenant),
            Resource::Pipeline { tenant, .. } | Resource::Activity { tenant, .. } | Resource::Work { tenant, .. } | Resource::Tenant { tenant } => Some(tenant),
            Resource::Store => None,
        }
    }

    /// Reads what a person writes: `pipeline:NAME`, `actor:TYPE/KEY`, `handler:TYPE/KEY.HANDLER`, `activity:NAME`, `work:ID`, `tenant`, `store`.
    ///
    /// # Errors
    /// What is none of these, with how they are written.
    pub fn read(text: &str, tenant: &str) -> Result<Resource, String> {
        let tenant = || tenant.to_owned();
        let actor = |text: &str| {
            let (kind, key) = text.split_once('/')?;
            Some(ActorId { tenant: tenant(), kind: kind.to_owned(), key: key.to_owned() })
        };
        let found = match text.split_once(':') {
            None if text == "tenant" => Some(Resource::Tenant { tenant: tenant() }),
            None if text == "store" => Some(Resource::Store),
            Some(("pipeline", name)) => Some(Resource::Pipeline { tenant: tenant(), name: name.to_owned() }),
            Some(("activity", name)) => Some(Resource::Activity { tenant: tenant(), name: name.to_owned() }),
            Some(("work", id)) => Some(Resource::Work { tenant: tenant(), id: id.to_owned() }),
            Some(("actor", text)) => actor(text).map(|actor| Resource::Handler { actor, handler: String::new() }),
            Some(("handler", text)) => {
                let parts = text.rsplit_once('.').filter(|(_, handler)| !handler.is_empty());
                parts.and_then(|(text, handler)| Some(Resource::Handler { actor: actor(text)?, handler: handler.to_owned() }))
            }
            _ => None,
        };
        found.ok_or_else(|| {
            format!("`{text}` is nothing that can be asked for: write pipeline:NAME, actor:TYPE/KEY, handler:TYPE/KEY.HANDLER, activity:NAME, work:ID, tenant or store")
        })
    }

    /// What policies know it by: its kind, and its name inside its kind and tenant.
    #[must_use]
    pub fn names(&self) -> (&'static str, String) {
        match self {
            Resource::Handler { actor, handler } if handler.is_empty() => ("actor", actor.to_string()),
            Resource::Handler { actor, handler } => ("handler", format!("{actor}.{handler}")),
            Resource::Pipeline { name, .. } => ("pipeline", name.clone()),
            Resource::Activity { name, .. } => ("activity", name.clone()),
            Resource::Work { id, .. } => ("work", id.clone()),
            Resource::Tenant { tenant } => ("tenant", tenant.clone()),
            Resource::Store => ("store", String::new()),
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.names() {
            ("pipeline", name) if name.is_empty() => out.write_str("the pipelines"),
            (_, name) if name.is_empty() => out.write_str("the store"),
            ("work", name) => out.write_str(&name),
            (kind, name) => write!(out, "the {kind} {name}"),
        }
    }
}

/// The proof that one action on one resource was allowed. It is neither cloneable nor serialisable,
/// only [`authorize`] and [`permit`] make one, and a verb of the engine consumes it.
///
/// ```compile_fail,E0451
/// use selvedge_kernel::auth::{Action, AuthorizationContext, Permit, Resource};
/// fn forged(context: AuthorizationContext, action: Action, resource: Resource) -> Permit {
///     Permit { context, action, resource }
/// }
/// ```
#[derive(Debug)]
pub struct Permit {
    context: AuthorizationContext,
    action: Action,
    resource: Resource,
}

impl Permit {
    /// Who was allowed.
    #[must_use]
    pub fn context(&self) -> &AuthorizationContext {
        &self.context
    }

    /// What was allowed.
    #[must_use]
    pub fn action(&self) -> Action {
        self.action
    }

    /// On what.
    #[must_use]
    pub fn resource(&self) -> &Resource {
        &self.resource
    }

    /// The context, the permit being used up.
    #[must_use]
    pub fn into_context(self) -> AuthorizationContext {
        self.context
    }
}

/// A denial.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{principal} may not {action} {resource}: {reason}{} ({decision})", by(.policies))]
pub struct Denied {
    /// The decision.
    pub decision: DecisionId,
    /// Who asked.
    pub principal: String,
    /// For what.
    pub action: Action,
    /// On what.
    pub resource: Resource,
    /// Why not.
    pub reason: String,
    /// The policies that decided, by their ids; none where no policy was asked, or none matched.
    pub policies: Vec<String>,
}

fn by(policies: &[String]) -> String {
    if policies.is_empty() { String::new() } else { format!(", by {}", policies.join(", ")) }
}

/// Decides without policies: the system and the local owner are allowed everything in their own tenant, nobody else anything.
/// An expired delegation is denied.
pub fn authorize(context: AuthorizationContext, action: Action, resource: Resource, now: Millis) -> Result<Permit, Denied> {
    permit(&Nobody, context, action, resource, now)
}

/// No policies.
struct Nobody;

impl Policies for Nobody {
    fn decide(&self, _: &AuthorizationContext, _: Action, _: &Resource, _: Millis) -> Verdict {
        Verdict::deny("no policy allows it")
    }

    fn version(&self) -> u64 {
        0
    }

    fn fault(&self) -> Option<String> {
        None
    }
}

/// The answer for anybody: what [`authorize`] allows, and of everybody else what the policies allow. No policy opens another
/// tenant, a delegation that has ended, or to a worker anything but its activity.
#[must_use]
pub fn answer(policies: &dyn Policies, context: &AuthorizationContext, action: Action, resource: &Resource, now: Millis) -> Verdict {
    match never(context, action, resource, now) {
        Some(reason) => Verdict::deny(reason),
        None if is_owner(context) => Verdict::allow("the owner of this process may"),
        None => policies.decide(context, action, resource, now),
    }
}

fn is_owner(context: &AuthorizationContext) -> bool {
    matches!(context.principal.kind, PrincipalKind::System | PrincipalKind::Local)
}

/// What was decided, with what it rests on, for whoever keeps decisions.
#[derive(Debug)]
pub enum Decision {
    /// It may be done.
    Allowed(Permit, Verdict),
    /// It may not; who asked comes back.
    Denied(Denied, AuthorizationContext, Verdict),
}

/// Decides for anybody: a permit where the [`answer`] allows it. An answer with an error in it denies, whatever else it says.
#[must_use]
pub fn decide(policies: &dyn Policies, context: AuthorizationContext, action: Action, resource: Resource, now: Millis) -> Decision {
    let verdict = answer(policies, &context, action, &resource, now);
    if verdict.outcome() == Effect::Allow {
        return Decision::Allowed(Permit { context, action, resource }, verdict);
    }
    let denied = Denied {
        decision: decision(&context, action, &resource, now),
        principal: context.principal.id.clone(),
        action,
        resource,
        reason: verdict.why(),
        policies: verdict.policies.clone(),
    };
    Decision::Denied(denied, context, verdict)
}

/// The same, where nobody wants to know what it rests on.
pub fn permit(policies: &dyn Policies, context: AuthorizationContext, action: Action, resource: Resource, now: Millis) -> Result<Permit, Denied> {
    match decide(policies, context, action, resource, now) {
        Decision::Allowed(permit, _) => Ok(permit),
        Decision::Denied(denied, ..) => Err(denied),
    }
}

/// Why something is denied whatever policies say.
fn never(context: &AuthorizationContext, action: Action, resource: &Resource, now: Millis) -> Option<&'static str> {
    let is_for = |activity: &str| action == Action::Work && matches!(resource, Resource::Activity { name, .. } if name == activity);
    if context.until.is_some_and(|until| now >= until) {
        Some("the delegation has ended")
    } else if resource.tenant().is_some_and(|tenant| tenant != context.principal.tenant) {
        Some("it belongs to another tenant")
    } else if context.chain.iter().any(|hop| hop.actor.kind == WORKER && !is_for(&hop.handler)) {
        Some("a worker acts for its activity alone")
    } else {
        None
    }
}

/// The id of a decision: the identity of its tenant's decisions, its time, then BLAKE3 over who, what, on what and when.
#[must_use]
pub fn decision(context: &AuthorizationContext, action: Action, resource: &Resource, now: Millis) -> DecisionId {
    let (kind, name) = resource.names();
    let home = home(&context.principal.tenant);
    let mut hasher = blake3::Hasher::new();
    for part in [&context.principal.tenant, &context.principal.id, action.name(), kind, &name] {
        hasher.update(&(part.len() as u32).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.update(&now.0.to_be_bytes());
    let mut random = [0; 10];
    random.copy_from_slice(&hasher.finalize().as_bytes()[..10]);
    DecisionId(RawId::at(home.hash16(), now, random))
}

#[cfg(test)]
mod tests;
