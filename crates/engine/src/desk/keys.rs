//! The verbs on API keys.

use std::time::Duration;

use selvedge_kernel::auth::{Action, Permit, Resource};
use selvedge_kernel::record::api_key::ApiKey;
use selvedge_kernel::time::Millis;
use serde_json::{Value, json};

use super::asker::Asker;
use super::{KeyVerb, Problem};
use crate::keys::NewKey;

/// Asks about the keys of the asker's tenant.
pub struct Keys<'a>(pub Asker<'a>);

impl Keys<'_> {
    /// Does one of them. The answer to a new key is the only place where what its owner presents is to be seen.
    pub async fn perform(&self, verb: KeyVerb) -> Result<Value, Problem> {
        let engine = self.0.engine;
        match verb {
            KeyVerb::Create { name, roles, lasts_ms } => {
                let new = NewKey { name, roles, lasts: lasts_ms.map(Duration::from_millis) };
                let made = engine.create_key(self.permit()?, new).await?;
                let mut answer = shown(&made.key, engine.now());
                answer["key"] = made.presented.text().into();
                Ok(answer)
            }
            KeyVerb::List => Ok(engine.keys(self.permit()?)?.iter().map(|key| shown(key, engine.now())).collect()),
            KeyVerb::Revoke { id, reason } => Ok(shown(&engine.revoke_key(self.permit()?, &id, &reason).await?, engine.now())),
        }
    }

    fn permit(&self) -> Result<Permit, Problem> {
        self.0.permit(Action::Administer, Resource::Tenant { tenant: self.0.tenant() })
    }
}

/// A key as lists show it: without its hash.
fn shown(key: &ApiKey, now: Millis) -> Value {
    let status = match &key.revoked {
        Some(_) => "revoked",
        None if key.opens(now) => "open",
        None => "ended",
    };
    json!({
        "id": key.id, "tenant": key.tenant, "name": key.name, "roles": key.roles, "status": status, "by": key.by,
        "created": key.created.to_string(), "ends": key.expires.map(|at| at.to_string()),
        "revoked": key.revoked.as_ref().map(|revoked| json!({ "at": revoked.at.to_string(), "by": revoked.by, "reason": revoked.reason })),
    })
}
