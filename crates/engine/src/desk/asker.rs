//! Who asks, and whom.

use selvedge_kernel::auth::{Action, AuthorizationContext, Permit, Resource, authorize};
use selvedge_kernel::id::ActorId;

use super::Problem;
use crate::engine::Engine;

/// Who asks, and whom. Each verb takes a permit of its own.
#[derive(Clone, Copy)]
pub struct Asker<'a> {
    /// The engine.
    pub engine: &'a Engine,
    /// Who asks; everything that is asked is in this principal's tenant.
    pub context: &'a AuthorizationContext,
    /// The program that asks for itself, in a sentence: what is blocked for want of code names it.
    pub binary: &'a str,
}

impl Asker<'_> {
    /// The proof that the asker may do this. Errors: `denied`.
    pub fn permit(&self, action: Action, resource: Resource) -> Result<Permit, Problem> {
        Ok(authorize(self.context.clone(), action, resource, self.engine.now())?)
    }

    /// The tenant of the asker.
    #[must_use]
    pub fn tenant(&self) -> String {
        self.context.principal.tenant.clone()
    }

    pub(super) fn work(&self, action: Action, id: &str) -> Result<Permit, Problem> {
        self.permit(action, Resource::Work { tenant: self.tenant(), id: id.to_owned() })
    }

    pub(super) fn actor(&self, kind: String, key: String) -> ActorId {
        ActorId { tenant: self.tenant(), kind, key }
    }
}
