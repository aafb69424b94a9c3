//! The verbs on who is disabled.

use selvedge_kernel::auth::{Action, Permit, Resource};
use selvedge_kernel::record::disabled::Disabled;
use serde_json::{Value, json};

use super::asker::Asker;
use super::{PrincipalVerb, Problem, TenantVerb};

/// Asks about the principals of the asker's tenant, and about tenants as a whole.
pub struct Principals<'a>(pub Asker<'a>);

impl Principals<'_> {
    /// Does something with a principal.
    ///
    /// # Errors
    /// What the engine or the policy says.
    pub async fn perform(&self, verb: PrincipalVerb) -> Result<Value, Problem> {
        let engine = self.0.engine;
        Ok(match verb {
            PrincipalVerb::Disable { id, reason } => shown(&engine.disable_principal(self.permit()?, &id, &reason).await?),
            PrincipalVerb::Enable { id } => {
                engine.enable_principal(self.permit()?, &id).await?;
                json!({ "principal": id, "tenant": self.0.tenant(), "disabled": false })
            }
            PrincipalVerb::List => engine.disabled_principals(&self.permit()?)?.iter().map(shown).collect(),
        })
    }

    /// Does something with the tenant as a whole.
    ///
    /// # Errors
    /// As [`Principals::perform`]; whoever is not the local owner.
    pub async fn tenants(&self, verb: TenantVerb) -> Result<Value, Problem> {
        let engine = self.0.engine;
        Ok(match verb {
            TenantVerb::Disable { reason } => shown(&engine.disable_tenant(self.permit()?, &reason).await?),
            TenantVerb::Enable => {
                engine.enable_tenant(self.permit()?).await?;
                json!({ "tenant": self.0.tenant(), "disabled": false })
            }
            TenantVerb::List => engine.disabled_tenants(&self.0.permit(Action::Operate, Resource::Store)?)?.iter().map(shown).collect(),
        })
    }

    fn permit(&self) -> Result<Permit, Problem> {
        self.0.permit(Action::Administer, Resource::Tenant { tenant: self.0.tenant() })
    }
}

fn shown(disabled: &Disabled) -> Value {
    let mut shown = json!({ "tenant": disabled.tenant, "disabled": true, "since": disabled.at.to_string(), "by": disabled.by, "reason": disabled.reason });
    if let Some(principal) = &disabled.principal {
        shown["principal"] = principal.clone().into();
    }
    shown
}
