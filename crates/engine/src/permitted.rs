//! Whether what was accepted may still be done: asked at each live call, never in a replay.

use selvedge_kernel::auth::{Action, AuthorizationContext, Denied, PrincipalKind, Resource};
use selvedge_kernel::error::{Consequence, WorkError};

use crate::keys::Standing;
use crate::shard::VerbError;
use crate::wiring::Wiring;

impl Wiring {
    /// The policies in force, and what stands above them.
    pub(crate) fn policies(&self) -> Standing<'_> {
        Standing::new(&self.keys, &self.standstill, self.settings.policies.policies())
    }

    /// The error of a call that is not allowed any more. The end of a credential stands at the door alone.
    pub(crate) fn denied(&self, context: &AuthorizationContext, action: Action, resource: impl FnOnce() -> Resource) -> Option<WorkError> {
        if context.principal.kind == PrincipalKind::System {
            return None;
        }
        let context = AuthorizationContext { until: None, ..context.clone() };
        self.permit(context, action, resource()).err().map(|denied| WorkError::new(DENIED, denied.to_string()))
    }

    /// Whether somebody may still start a pipeline.
    pub(crate) fn may_start(&self, context: &AuthorizationContext, name: &str) -> Result<(), VerbError> {
        let pipeline = || Resource::Pipeline { tenant: context.principal.tenant.clone(), name: name.to_owned() };
        match self.denied(context, Action::Start, pipeline) {
            None => Ok(()),
            Some(error) => Err(VerbError::new(Consequence::NotPermitted, &error.code, error.message)),
        }
    }

    /// The error of a call to an activity, which no policy names, of somebody whose key was revoked or who is disabled.
    pub(crate) fn revoked(&self, context: &AuthorizationContext, activity: &str) -> Option<WorkError> {
        let reason = self.policies().revoked(context)?;
        let resource = Resource::Activity { tenant: context.principal.tenant.clone(), name: activity.to_owned() };
        let denied = self.refuse(context, Action::Invoke, resource, &reason);
        Some(WorkError::new(DENIED, denied.to_string()))
    }
}

/// The code of what is denied.
const DENIED: &str = "denied";

impl From<Denied> for VerbError {
    fn from(denied: Denied) -> VerbError {
        VerbError::new(Consequence::NotPermitted, DENIED, denied.to_string())
    }
}
