//! `policy …`

use std::path::{Path, PathBuf};

use selvedge_adapters::cedar::{CedarPolicies, Refused};
use selvedge_kernel::auth::{AuthorizationContext, Denied, Effect, Hop, Owners, Principal, PrincipalKind, RequestFacts, Resource, answer, permit};
use selvedge_kernel::id::ActorId;
use selvedge_kernel::ports::Policies;
use selvedge_kernel::time::Millis;
use serde_json::json;

use super::args::{Asked, Common, Policy};
use super::exit::{Code, Stop};
use super::print;
use super::settings::configured;

/// Performs one of them.
pub fn policy(common: &Common, verb: Policy) -> Result<Code, Stop> {
    match verb {
        Policy::Test(asked) => test(common, asked),
    }
}

/// Asks a set of policies, without a server and without a data directory. Exit codes: 0 allowed, 77 denied, 78 the set has faults.
fn test(common: &Common, asked: Asked) -> Result<Code, Stop> {
    let named = match asked.policies.clone() {
        Some(folder) => Some(folder),
        None => configured(common)?.config.authorization.policies.map(PathBuf::from),
    };
    let folder = named.or_else(|| Some(PathBuf::from("policies")).filter(|folder| folder.is_dir()));
    let given = folder.as_deref().map(opened).transpose()?;
    let policies: &dyn Policies = match &given {
        Some(given) => given,
        None => &Owners,
    };
    let now = match &asked.at {
        Some(at) => *at,
        None => crate::bootstrap::environment().clock.now(),
    };
    let context = somebody(&asked, now)?;
    let resource = Resource::read(&asked.resource, &asked.tenant).map_err(Stop::usage)?;
    let verdict = answer(policies, &context, asked.action, &resource, now);
    let denied = permit(policies, context, asked.action, resource, now).err();
    let allowed = verdict.effect == Effect::Allow && denied.is_none();
    let value = json!({ "allowed": allowed, "policies": verdict.policies, "reason": denied.as_ref().map_or(&verdict.reason, |denied| &denied.reason) });
    print::result(common.output, &value, || match &denied {
        Some(Denied { principal, action, resource, reason, policies, .. }) => {
            format!("denied: {principal} may not {action} {resource}: {reason}{}", by(policies))
        }
        None => format!("allowed: {}{}", verdict.reason, by(&verdict.policies)),
    })?;
    if given.is_none() {
        print::note("no folder of policies is named: this is the answer of the rule that is built in");
    }
    Ok(if allowed { Code::Done } else { Code::NotPermitted })
}

fn by(policies: &[String]) -> String {
    if policies.is_empty() { String::new() } else { format!(", by {}", policies.join(", ")) }
}

/// The policies of a folder, or everything that is wrong with them.
pub fn opened(folder: &Path) -> Result<CedarPolicies, Stop> {
    CedarPolicies::open(folder).map_err(|refused: Refused| Stop::new(Code::Configuration, format!("the policies are refused:\n{refused}")))
}

fn somebody(asked: &Asked, now: Millis) -> Result<AuthorizationContext, Stop> {
    let claim = |said: &String| {
        let (name, value) = said.split_once('=').ok_or_else(|| Stop::usage(format!("`{said}` is no claim: write it as NAME=VALUE")))?;
        Ok((name.to_owned(), value.to_owned()))
    };
    let hop = |said: &String| {
        let (kind, handler) = said.rsplit_once('.').ok_or_else(|| Stop::usage(format!("`{said}` is no handler: write it as TYPE.HANDLER")))?;
        Ok(Hop { actor: ActorId { tenant: asked.tenant.clone(), kind: kind.to_owned(), key: String::new() }, handler: handler.to_owned() })
    };
    Ok(AuthorizationContext {
        principal: Principal { id: asked.principal.clone(), kind: PrincipalKind::ApiKey, tenant: asked.tenant.clone(), roles: asked.roles.clone() },
        chain: asked.through.iter().map(hop).collect::<Result<_, Stop>>()?,
        claims: asked.claims.iter().map(claim).collect::<Result<_, Stop>>()?,
        request: RequestFacts { address: asked.address.map(|address| address.to_string()), at: now },
        until: None,
    })
}
