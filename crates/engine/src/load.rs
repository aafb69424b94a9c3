//! What is going on, in numbers: of a tenant for whoever may read it, of the process for whoever may operate the store.

use selvedge_kernel::auth::{Action, Permit};

use crate::door::{expect_action, tenant_for};
use crate::engine::Engine;
use crate::shard::VerbError;

/// What a tenant has open, and keeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TenantLoad {
    /// Invocations that have not ended; runs are not among them.
    pub open: u64,
    /// Messages that are not due yet.
    pub delayed: u64,
    /// Bytes that it keeps.
    pub kept: u64,
}

/// What this process has to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Load {
    /// By tenant, those that keep most first.
    pub tenants: Vec<(String, TenantLoad)>,
    /// Tasks for workers that nobody has taken.
    pub offered: usize,
    /// Tasks that workers have.
    pub leased: usize,
    /// How much of the store's tightest bound is used, in thousandths.
    pub pressure: u32,
}

impl Engine {
    /// What the tenant of a permit has open.
    ///
    /// # Errors
    /// A permit for something else.
    pub fn tenant_load(&self, permit: &Permit) -> Result<TenantLoad, VerbError> {
        let tenant = tenant_for(permit, Action::Read)?;
        Ok(self.wiring.sums.all().into_iter().find(|(other, _)| *other == tenant).map_or_else(TenantLoad::default, |(_, load)| load))
    }

    /// What this process has to do, for all tenants.
    ///
    /// # Errors
    /// A permit for something else.
    pub fn load(&self, permit: &Permit) -> Result<Load, VerbError> {
        expect_action(permit, Action::Operate)?;
        let mut tenants = self.wiring.sums.all();
        tenants.sort_by(|a, b| b.1.kept.cmp(&a.1.kept).then_with(|| a.0.cmp(&b.0)));
        let (offered, leased) = self.wiring.offers.counts();
        Ok(Load { tenants, offered, leased, pressure: self.wiring.settings.pressure.thousandths() })
    }
}
