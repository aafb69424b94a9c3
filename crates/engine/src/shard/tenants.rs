//! What tenants have open: counted in this shard, in the transition that changes it, and summed over the process.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use selvedge_kernel::error::Consequence;
use selvedge_kernel::record::kind::Kind;
use selvedge_kernel::record::tally::{Change, Tally};
use selvedge_kernel::record::{Writes, key};
use selvedge_kernel::wire;

use super::kept::Kept;
use super::{Shard, VerbError};
use crate::load::TenantLoad;

/// Sums over the shards of a process, by tenant.
#[derive(Default)]
pub(crate) struct Sums(Mutex<HashMap<String, Arc<Sum>>>);

/// What a tenant has open in all shards.
#[derive(Default)]
pub(super) struct Sum {
    open: AtomicU64,
    delayed: AtomicU64,
    /// Bytes that it keeps.
    pub(super) kept: AtomicU64,
}

impl Sum {
    fn change(&self, before: Tally, after: Tally) {
        moved(&self.open, before.open, after.open);
        moved(&self.delayed, before.delayed, after.delayed);
    }

    pub(super) fn keep(&self, before: u64, after: u64) {
        moved(&self.kept, before, after);
    }
}

fn moved(sum: &AtomicU64, before: u64, after: u64) {
    if after >= before {
        sum.fetch_add(after - before, Ordering::Relaxed);
    } else {
        sum.fetch_sub(before - after, Ordering::Relaxed);
    }
}

impl Sums {
    /// The bytes that each tenant keeps in all shards, the most first.
    pub(crate) fn kept(&self) -> Vec<(String, u64)> {
        let sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kept: Vec<(String, u64)> =
            sums.iter().map(|(tenant, sum)| (tenant.clone(), sum.kept.load(Ordering::Relaxed))).filter(|(_, bytes)| *bytes > 0).collect();
        drop(sums);
        kept.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        kept
    }

    /// What each tenant has open and keeps in all shards.
    pub(crate) fn all(&self) -> Vec<(String, TenantLoad)> {
        let sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let read = |sum: &Sum| TenantLoad {
            open: sum.open.load(Ordering::Relaxed),
            delayed: sum.delayed.load(Ordering::Relaxed),
            kept: sum.kept.load(Ordering::Relaxed),
        };
        sums.iter().map(|(tenant, sum)| (tenant.clone(), read(sum))).collect()
    }

    pub(super) fn of(&self, tenant: &str) -> Arc<Sum> {
        let mut sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match sums.get(tenant) {
            Some(sum) => sum.clone(),
            None => sums.entry(tenant.to_owned()).or_default().clone(),
        }
    }
}

/// What tenants have open, and keep, in one shard.
#[derive(Default)]
pub(crate) struct Tenants {
    open: HashMap<String, (Tally, Arc<Sum>)>,
    pub(super) kept: Kept,
}

impl Shard {
    /// Reads what its last owner counted.
    pub(super) async fn load_tallies(&mut self) -> Result<(), VerbError> {
        for (row, value) in self.scan_all(&key::all(Kind::Tally)).await? {
            let Some(tenant) = key::tenant(&row) else { continue };
            let tally = wire::decode("tally", &value)?;
            let sum = self.wiring.sums.of(tenant);
            sum.change(Tally::default(), tally);
            self.tenants.open.insert(tenant.to_owned(), (tally, sum));
        }
        Ok(())
    }

    /// Counts what a transition changes, and writes the tallies with it.
    pub(super) fn tally(&mut self, writes: &mut Writes) {
        for (tenant, change) in std::mem::take(&mut writes.tallies) {
            if change == Change::default() {
                continue;
            }
            let (tally, sum) = match self.tenants.open.get_mut(&tenant) {
                Some(found) => found,
                None => {
                    let sum = self.wiring.sums.of(&tenant);
                    self.tenants.open.entry(tenant.clone()).or_insert((Tally::default(), sum))
                }
            };
            let after = tally.after(change);
            sum.change(*tally, after);
            *tally = after;
            if after == Tally::default() {
                self.tenants.open.remove(&tenant);
                writes.delete(key::tally(&tenant));
            } else {
                writes.put(key::tally(&tenant), wire::encode(&after));
            }
        }
    }

    /// Whether a tenant may have one more invocation open.
    pub(super) fn room_of_tenant(&self, tenant: &str) -> Result<(), VerbError> {
        let open = self.wiring.sums.of(tenant).open.load(Ordering::Relaxed);
        let bound = self.wiring.settings.limits.tenant_invocations;
        if open < bound {
            return Ok(());
        }
        Err(VerbError::new(
            Consequence::Limit,
            "limit: open invocations",
            format!(
                "the tenant `{tenant}` has {open} open invocations, the limit is {bound}: wait until some of them have ended; `selvedge stuck` lists the oldest"
            ),
        ))
    }

    /// Whether a tenant may have one more message that is not due yet.
    pub(super) fn room_for_delayed(&self, tenant: &str) -> Result<(), VerbError> {
        let delayed = self.wiring.sums.of(tenant).delayed.load(Ordering::Relaxed);
        let bound = self.wiring.settings.limits.tenant_timers;
        if delayed < bound {
            return Ok(());
        }
        Err(VerbError::new(
            Consequence::Limit,
            "limit: timers",
            format!("the tenant `{tenant}` has {delayed} delayed messages, the limit of its timers is {bound}: wait until some are due, or cancel some"),
        ))
    }
}
