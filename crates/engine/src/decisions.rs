//! Decisions: each is counted, and denials are recorded, also what was allowed where that is wanted.
//!
//! Whoever decides waits for nothing: a record is noted in memory, equal ones of a minute in one, and the shard of its tenant
//! writes what is noted, a batch at a time. What there is no room for is counted.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use selvedge_kernel::auth::{Action, AuthorizationContext, Decision, Denied, Permit, PrincipalKind, Resource, Verdict, answer, decide, decision, from_api_key};
use selvedge_kernel::id::{DecisionId, ShardId};
use selvedge_kernel::record::decision::{Asked, DecisionRecord, Said, What, home};
use selvedge_kernel::time::Millis;

use crate::door::misused;
use crate::engine::Engine;
use crate::keys::tenant_of;
use crate::shard::{Command, VerbError};
use crate::wiring::{Recorded, Wiring};
use crate::worker::Event;

mod noted;
mod recorded;

use noted::Noted;
pub use recorded::Wanted;

/// What was decided in this process, by tenant.
#[derive(Default)]
pub(crate) struct Decisions {
    tenants: RwLock<HashMap<String, Arc<OfTenant>>>,
    /// Requests of which nobody knows who sent them.
    without_credential: AtomicU64,
}

/// What was decided in one tenant.
#[derive(Default)]
pub(crate) struct OfTenant {
    allowed: [AtomicU64; Action::ALL.len()],
    denied: [AtomicU64; Action::ALL.len()],
    /// Decisions that are counted above, and in no record: too many different ones came within a minute.
    unrecorded: AtomicU64,
    pub(crate) shadow: OfShadow,
    noted: Mutex<Noted>,
}

/// What the policies in the shadow came to.
#[derive(Default)]
pub(crate) struct OfShadow {
    pub(crate) asked: AtomicU64,
    pub(crate) would_allow: AtomicU64,
    pub(crate) would_deny: AtomicU64,
    /// They could not be evaluated.
    pub(crate) failed: AtomicU64,
    /// They were not asked: too much came at once.
    pub(crate) passed_over: AtomicU64,
}

/// What was decided in a tenant since this process has opened its store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Decisions that allowed something, by action; of whoever owns the process none.
    pub allowed: Vec<(Action, u64)>,
    /// Those that denied something.
    pub denied: Vec<(Action, u64)>,
    /// Of these, those that are in no record, because too many different ones came within a minute.
    pub unrecorded: u64,
    /// Requests to this process without a valid credential: of no tenant that is known.
    pub without_credential: u64,
    /// The policies in the shadow, if there are any.
    pub shadow: Option<ShadowSummary>,
}

/// What the policies in the shadow came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShadowSummary {
    /// How often they were asked.
    pub asked: u64,
    /// How often they would have allowed what was denied.
    pub would_allow: u64,
    /// How often they would have denied what was allowed.
    pub would_deny: u64,
    /// How often they could not be evaluated, which would have denied.
    pub failed: u64,
    /// How often they were not asked, because too much came at once.
    pub passed_over: u64,
}

impl OfTenant {
    fn count(of: &[AtomicU64; Action::ALL.len()], action: Action) {
        if let Some(count) = Action::ALL.iter().position(|known| *known == action).and_then(|at| of.get(at)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn noted(&self) -> std::sync::MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Up to so many records that are to be written, each with whether it is there for the first time.
    pub(crate) fn take(&self, most: usize, now: Millis) -> Vec<(DecisionRecord, bool)> {
        self.noted().take(most, now)
    }
}

impl Decisions {
    pub(crate) fn of(&self, tenant: &str) -> Arc<OfTenant> {
        if let Some(found) = self.tenants.read().unwrap_or_else(PoisonError::into_inner).get(tenant) {
            return found.clone();
        }
        self.tenants.write().unwrap_or_else(PoisonError::into_inner).entry(tenant.to_owned()).or_default().clone()
    }

    /// The tenants of which something is to be written.
    pub(crate) fn waiting(&self) -> Vec<String> {
        let tenants = self.tenants.read().unwrap_or_else(PoisonError::into_inner);
        tenants.iter().filter(|(_, of)| of.noted().waits()).map(|(tenant, _)| tenant.clone()).collect()
    }

    pub(crate) fn count_without_credential(&self) {
        self.without_credential.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn summary(&self, tenant: &str, shadow: bool) -> Summary {
        let of = self.of(tenant);
        let counts = |counts: &[AtomicU64; Action::ALL.len()]| {
            let counted = Action::ALL.into_iter().zip(counts).map(|(action, count)| (action, count.load(Ordering::Relaxed)));
            counted.filter(|(_, count)| *count > 0).collect()
        };
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Summary {
            allowed: counts(&of.allowed),
            denied: counts(&of.denied),
            unrecorded: load(&of.unrecorded),
            without_credential: load(&self.without_credential),
            shadow: shadow.then(|| ShadowSummary {
                asked: load(&of.shadow.asked),
                would_allow: load(&of.shadow.would_allow),
                would_deny: load(&of.shadow.would_deny),
                failed: load(&of.shadow.failed),
                passed_over: load(&of.shadow.passed_over),
            }),
        }
    }
}

impl Engine {
    /// Decisions of the permit's tenant that were recorded, the newest first, and what was counted of all of them.
    pub async fn decisions(&self, permit: Permit, wanted: Wanted) -> Result<(Vec<DecisionRecord>, Summary), VerbError> {
        let tenant = tenant_of(&permit)?;
        let (shard, of) = (self.wiring.shard_of_decisions(&tenant), tenant.clone());
        self.ask(shard, |reply| Command::Decisions { tenant: of, reply }).await?;
        let found = self.wiring.recorded(shard, &tenant, &wanted).await?;
        Ok((found, self.wiring.decisions.summary(&tenant, self.wiring.shadow.is_some())))
    }

    /// What the policies in force would answer somebody of the permit's tenant. Who is named as a key of the tenant is asked for as
    /// that key: as what it may act as, if nothing else is said. Nothing is counted or recorded.
    pub fn would(&self, permit: Permit, mut context: AuthorizationContext, action: Action, resource: &Resource, now: Millis) -> Result<Verdict, VerbError> {
        if context.principal.tenant != tenant_of(&permit)? {
            return Err(misused(&permit));
        }
        let key = self.wiring.keys.get(&context.principal.id).filter(|key| key.tenant == context.principal.tenant);
        let Some(key) = key else {
            // Of whoever is no key of the tenant it is known that they are disabled, and nothing else.
            if let Some(reason) = self.wiring.standstill.reason(&context) {
                return Ok(Verdict::deny(reason));
            }
            return Ok(answer(self.wiring.settings.policies.policies(), &context, action, resource, now));
        };
        let own = from_api_key(&key, context.request.clone());
        if context.principal.roles.is_empty() {
            context.principal.roles = own.principal.roles;
        }
        context.claims = own.claims.into_iter().chain(context.claims).collect();
        Ok(answer(&self.wiring.policies(), &context, action, resource, now))
    }

    /// Of the policies in force, and of those in the shadow: why a newer set was refused, as long as it is.
    #[must_use]
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        let in_force = self.wiring.settings.policies.policies().fault().map(|fault| ("policies", fault));
        let shadow = self.wiring.shadow.as_ref().and_then(|shadow| shadow.rules.policies().fault()).map(|fault| ("policies in the shadow", fault));
        in_force.into_iter().chain(shadow).collect()
    }

    /// Counts a request without a valid credential: of whom it is nobody can say.
    pub fn count_without_credential(&self) {
        self.wiring.decisions.count_without_credential();
    }
}

impl Wiring {
    /// The permit of somebody, if the policies of now allow it. What is decided is counted, and recorded.
    pub(crate) fn permit(&self, context: AuthorizationContext, action: Action, resource: Resource) -> Result<Permit, Denied> {
        let (standing, now) = (self.policies(), self.env.clock.now());
        // The local owner asks no policy; in a tenant that is disabled nothing begins for it either.
        let begins = matches!(action, Action::Invoke | Action::Signal | Action::Start | Action::Work);
        if let Some(reason) = standing.revoked(&context).filter(|_| begins && context.principal.kind == PrincipalKind::Local) {
            return Err(self.refuse(&context, action, resource, &reason));
        }
        match decide(&standing, context, action, resource, now) {
            // Whoever owns the process asked no policy.
            Decision::Allowed(permit, _) if is_owner(permit.context()) => Ok(permit),
            Decision::Allowed(permit, verdict) => {
                let of = self.decisions.of(&permit.context().principal.tenant);
                OfTenant::count(&of.allowed, action);
                let asked = Asked { context: permit.context(), action, resource: permit.resource() };
                self.compare(&asked, &verdict, now);
                if self.settings.recorded == Recorded::All {
                    let id = decision(asked.context, action, asked.resource, now);
                    self.note(DecisionRecord::first(id, What::Allowed, &asked, &verdict));
                }
                Ok(permit)
            }
            Decision::Denied(denied, context, verdict) => {
                self.compare(&Asked { context: &context, action, resource: &denied.resource }, &verdict, now);
                Err(self.record(denied, &context, &verdict))
            }
        }
    }

    /// A denial that no policy was asked for.
    pub(crate) fn refuse(&self, context: &AuthorizationContext, action: Action, resource: Resource, reason: &str) -> Denied {
        let (decision, principal) = (decision(context, action, &resource, self.env.clock.now()), context.principal.id.clone());
        let denied = Denied { decision, principal, action, resource, reason: reason.to_owned(), policies: Vec::new() };
        self.record(denied, context, &Verdict::deny(reason))
    }

    /// Counts and records a denial; it gets the id of its record.
    fn record(&self, mut denied: Denied, context: &AuthorizationContext, verdict: &Verdict) -> Denied {
        OfTenant::count(&self.decisions.of(&context.principal.tenant).denied, denied.action);
        let asked = Asked { context, action: denied.action, resource: &denied.resource };
        denied.decision = self.note(DecisionRecord::first(denied.decision, What::Denied, &asked, verdict));
        denied
    }

    /// Records that the policies in the shadow would have decided otherwise.
    pub(crate) fn record_difference(&self, asked: &Asked<'_>, what: What, in_force: Said, shadow: &Verdict, now: Millis) {
        let id = decision(asked.context, asked.action, asked.resource, now);
        self.note(DecisionRecord { in_force: Some(in_force), ..DecisionRecord::first(id, what, asked, shadow) });
    }

    /// Notes a record, and lets its shard know; gives the id of the record that it is part of.
    fn note(&self, record: DecisionRecord) -> DecisionId {
        let tenant = record.principal.tenant.clone();
        let of = self.decisions.of(&tenant);
        let noted = of.noted().note(record);
        of.unrecorded.fetch_add(noted.unrecorded, Ordering::Relaxed);
        if noted.first {
            let shard = self.shard_of_decisions(&tenant);
            self.send(shard, Event::Decided { shard, tenant });
        }
        noted.id
    }

    pub(crate) fn shard_of_decisions(&self, tenant: &str) -> ShardId {
        self.shard_of(&home(tenant))
    }
}

/// Whether somebody may do everything in a tenant because the process is theirs.
pub(crate) fn is_owner(context: &AuthorizationContext) -> bool {
    matches!(context.principal.kind, PrincipalKind::System | PrincipalKind::Local)
}
