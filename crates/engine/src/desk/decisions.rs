//! The verbs on decisions: those that were recorded, and those that would be taken.

use selvedge_kernel::auth::{Action, AuthorizationContext, Effect, Hop, Permit, Principal, PrincipalKind, RequestFacts, Resource, Verdict};
use selvedge_kernel::error::Consequence;
use selvedge_kernel::id::ActorId;
use selvedge_kernel::limit::PAGE;
use selvedge_kernel::record::decision::{DecisionRecord, Said, What};
use selvedge_kernel::time::Millis;
use serde_json::{Value, json};

use super::asker::Asker;
use super::{Problem, SeeDecisions, TestPolicy};
use crate::decisions::Wanted;
use crate::decisions::{ShadowSummary, Summary};

/// How many are shown if nobody says how many.
const SHOWN: usize = 50;

/// Asks about decisions in the asker's tenant.
pub struct Rights<'a>(pub Asker<'a>);

impl Rights<'_> {
    /// Recorded decisions, the newest first, and what was counted since the process began.
    pub async fn decisions(&self, see: SeeDecisions) -> Result<Value, Problem> {
        let (found, summary) = self.0.engine.decisions(self.permit()?, wanted(see)?).await?;
        let decisions: Vec<Value> = found.iter().map(shown).collect();
        Ok(json!({ "decisions": decisions, "summary": summed(&summary) }))
    }

    /// Would this be allowed, and why? Nothing is granted, counted or recorded by it.
    pub fn test(&self, test: &TestPolicy) -> Result<Value, Problem> {
        let engine = self.0.engine;
        let (context, action, resource) = asked_of(test, &self.0.tenant(), engine.now())?;
        let now = context.request.at;
        Ok(said(&engine.would(self.permit()?, context, action, &resource, now)?))
    }

    fn permit(&self) -> Result<Permit, Problem> {
        self.0.permit(Action::Administer, Resource::Tenant { tenant: self.0.tenant() })
    }
}

fn wrong(text: impl Into<String>) -> Problem {
    Problem::new(Consequence::FixInput, "bad_request", text)
}

fn wanted(see: SeeDecisions) -> Result<Wanted, Problem> {
    let id = see.id.map(|id| id.parse().map_err(|error: selvedge_kernel::id::IdError| wrong(error.to_string()))).transpose()?;
    let action = see.action.map(|action| Action::read(&action).map(|action| action.name().to_owned()).map_err(wrong)).transpose()?;
    let most = see.limit.unwrap_or(SHOWN);
    if !(1..=PAGE).contains(&most) {
        return Err(wrong(format!("{most} decisions cannot be shown at once: ask for 1 to {PAGE}")));
    }
    let whats = match (see.shadow, id) {
        // Whoever has an id may not know what it is of.
        (false, Some(_)) => What::ALL.to_vec(),
        (false, None) => vec![What::Denied, What::Allowed],
        (true, _) => vec![What::WouldAllow, What::WouldDeny],
    };
    Ok(Wanted { whats, id, principal: see.principal, action, most })
}

/// Who asks for what in a question, of a principal of this tenant.
///
/// # Errors
/// What cannot be asked, with how it is written.
pub fn asked_of(test: &TestPolicy, tenant: &str, now: Millis) -> Result<(AuthorizationContext, Action, Resource), Problem> {
    let hop = |said: &String| {
        let (kind, handler) = said.rsplit_once('.').ok_or_else(|| wrong(format!("`{said}` is no handler: write it as TYPE.HANDLER")))?;
        Ok(Hop { actor: ActorId { tenant: tenant.to_owned(), kind: kind.to_owned(), key: String::new() }, handler: handler.to_owned() })
    };
    // As policies know them: a user of an issuer is ISSUER:SUBJECT, a key has no colon.
    let kind = if test.principal.contains(':') { PrincipalKind::User } else { PrincipalKind::ApiKey };
    let context = AuthorizationContext {
        principal: Principal { id: test.principal.clone(), kind, tenant: tenant.to_owned(), roles: test.roles.clone() },
        chain: test.through.iter().map(hop).collect::<Result<_, Problem>>()?,
        claims: test.claims.clone(),
        request: RequestFacts { address: test.address.map(|address| address.to_string()), at: test.at.unwrap_or(now) },
        until: None,
    };
    Ok((context, Action::read(&test.action).map_err(wrong)?, Resource::read(&test.resource, tenant).map_err(wrong)?))
}

/// The answer to a question.
#[must_use]
pub fn said(verdict: &Verdict) -> Value {
    json!({ "allowed": verdict.outcome() == Effect::Allow, "policies": verdict.policies, "reason": verdict.why() })
}

/// A record as lists show it.
fn shown(record: &DecisionRecord) -> Value {
    let resource = if record.name.is_empty() || record.kind == "tenant" { record.kind.clone() } else { format!("{}:{}", record.kind, record.name) };
    let through: Vec<String> = record.chain.iter().map(|hop| format!("{}.{}", hop.actor, hop.handler)).collect();
    let in_force = |said: &Said| json!({ "reason": said.reason, "policies": said.policies });
    json!({
        "id": record.id.to_string(), "decision": record.what.name(), "principal": record.principal.id, "roles": record.principal.roles,
        "through": through, "action": record.action, "resource": resource, "reason": record.said.reason, "policies": record.said.policies,
        "in_force": record.in_force.as_ref().map(in_force), "took_us": record.took_ns as f64 / 1_000.0, "address": record.address,
        "first": record.first.to_string(), "last": record.last.to_string(), "count": record.count,
    })
}

fn summed(summary: &Summary) -> Value {
    let by_action =
        |counts: &[(Action, u64)]| counts.iter().map(|(action, count)| (action.name().to_owned(), (*count).into())).collect::<serde_json::Map<_, _>>();
    let shadow = |of: &ShadowSummary| json!({ "asked": of.asked, "would_allow": of.would_allow, "would_deny": of.would_deny, "failed": of.failed, "passed_over": of.passed_over });
    json!({
        "allowed": by_action(&summary.allowed), "denied": by_action(&summary.denied), "unrecorded": summary.unrecorded,
        "without_credential": summary.without_credential, "shadow": summary.shadow.as_ref().map(shadow),
    })
}
