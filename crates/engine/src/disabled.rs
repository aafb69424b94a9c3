//! Principals and tenants that are disabled: by verbs that consume a permit, held in memory for whoever asks who may go on.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use selvedge_kernel::auth::{Action, AuthorizationContext, Permit, PrincipalKind, Resource};
use selvedge_kernel::error::Consequence;
use selvedge_kernel::limit;
use selvedge_kernel::ports::under;
use selvedge_kernel::record::Writes;
use selvedge_kernel::record::api_key::{self, home};
use selvedge_kernel::record::disabled::{Disabled, disabled_of, row};
use selvedge_kernel::record::key;
use selvedge_kernel::record::kind::Kind;
use selvedge_kernel::wire;

use crate::door::{check_part, check_reason, expect_action, misused};
use crate::engine::Engine;
use crate::keys::{each_row, tenant_of};
use crate::shard::{Command, Effect, Reply, Shard, VerbError};
use crate::wiring::Wiring;

/// Who: of which tenant, and which principal; none: the tenant as a whole.
type Whom = (String, Option<String>);

/// Who is disabled, as it is durable. Whoever was enabled meanwhile stays here as nobody: what was read of him before does not
/// come back.
#[derive(Default)]
pub(crate) struct Standstill {
    held: RwLock<BTreeMap<Whom, Option<Arc<Disabled>>>>,
    version: AtomicU64,
}

impl Standstill {
    fn put(&self, whom: Whom, disabled: Option<Disabled>) {
        self.held.write().unwrap_or_else(PoisonError::into_inner).insert(whom, disabled.map(Arc::new));
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Takes in what was read before its shard was open: what that says stands.
    fn learn(&self, disabled: Disabled) {
        let whom = (disabled.tenant.clone(), disabled.principal.clone());
        self.held.write().unwrap_or_else(PoisonError::into_inner).entry(whom).or_insert_with(|| Some(Arc::new(disabled)));
        self.version.fetch_add(1, Ordering::Release);
    }

    fn has(&self, tenant: &str, id: &str) -> bool {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.get(&(tenant.to_owned(), Some(id.to_owned()))).is_some_and(Option::is_some)
    }

    fn all(&self, keep: impl Fn(&Disabled) -> bool) -> Vec<Disabled> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.values().flatten().filter(|disabled| keep(disabled)).map(|disabled| Disabled::clone(disabled)).collect()
    }

    /// Changes with each change.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Why somebody may do nothing: the tenant is disabled, whoever acts in it, or the principal is.
    pub(crate) fn reason(&self, context: &AuthorizationContext) -> Option<String> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        // Most stores have nobody like that.
        if held.is_empty() {
            return None;
        }
        let principal = &context.principal;
        let mut whom = (principal.tenant.clone(), None);
        if let Some(Some(tenant)) = held.get(&whom) {
            return Some(format!("the tenant `{}` is disabled since {} ({})", tenant.tenant, tenant.at, tenant.reason));
        }
        if matches!(principal.kind, PrincipalKind::Local) {
            return None;
        }
        whom.1 = Some(principal.id.clone());
        let disabled = held.get(&whom)?.as_ref()?;
        Some(format!("it is disabled since {} ({})", disabled.at, disabled.reason))
    }
}

/// What is asked of the shard where it is written.
pub(crate) enum DisableCommand {
    Disable { disabled: Box<Disabled>, reply: Reply<Disabled> },
    Enable { tenant: String, principal: Option<String>, reply: Reply<()> },
}

impl Engine {
    /// Disables a principal of the permit's tenant: when this returns it is denied everything, and what it asked for before
    /// ends at its next call; also after a restart. One that is disabled stays as it is.
    ///
    /// # Errors
    /// A permit for something else, no reason, a key that the tenant has not got, too many of them.
    pub async fn disable_principal(&self, permit: Permit, id: &str, reason: &str) -> Result<Disabled, VerbError> {
        let tenant = tenant_of(&permit)?;
        check_part("the principal", id)?;
        self.no_other_key(&tenant, id)?;
        self.disable(permit, tenant, Some(id.to_owned()), reason).await
    }

    /// Enables a principal again. One that is not disabled stays as it is.
    ///
    /// # Errors
    /// A permit for something else; a key that the tenant has not got.
    pub async fn enable_principal(&self, permit: Permit, id: &str) -> Result<(), VerbError> {
        let tenant = tenant_of(&permit)?;
        check_part("the principal", id)?;
        // A key may have made room for another one meanwhile.
        if !self.wiring.standstill.has(&tenant, id) {
            self.no_other_key(&tenant, id)?;
        }
        self.enable(tenant, Some(id.to_owned())).await
    }

    /// The principals of the permit's tenant that are disabled.
    ///
    /// # Errors
    /// A permit for something else.
    pub fn disabled_principals(&self, permit: &Permit) -> Result<Vec<Disabled>, VerbError> {
        let tenant = tenant_of(permit)?;
        Ok(self.wiring.standstill.all(|disabled| disabled.tenant == tenant && disabled.principal.is_some()))
    }

    /// Disables the permit's tenant as a whole: nothing new begins in it, and what goes on ends at its next call. Only the local
    /// owner can, who can also look at it all the same, and enable it again.
    ///
    /// # Errors
    /// A permit of somebody else or for something else; no reason.
    pub async fn disable_tenant(&self, permit: Permit, reason: &str) -> Result<Disabled, VerbError> {
        let tenant = whole_tenant(&permit)?;
        check_part("the tenant", &tenant)?;
        self.disable(permit, tenant, None, reason).await
    }

    /// Enables the permit's tenant again. One that is not disabled stays as it is.
    ///
    /// # Errors
    /// A permit of somebody else or for something else.
    pub async fn enable_tenant(&self, permit: Permit) -> Result<(), VerbError> {
        let tenant = whole_tenant(&permit)?;
        self.enable(tenant, None).await
    }

    /// The tenants that are disabled.
    ///
    /// # Errors
    /// A permit for something else than operating the store.
    pub fn disabled_tenants(&self, permit: &Permit) -> Result<Vec<Disabled>, VerbError> {
        expect_action(permit, Action::Operate)?;
        if *permit.resource() != Resource::Store {
            return Err(misused(permit));
        }
        Ok(self.wiring.standstill.all(|disabled| disabled.principal.is_none()))
    }

    /// Refuses what looks like a key and is none of this tenant: somebody has mistyped it.
    fn no_other_key(&self, tenant: &str, id: &str) -> Result<(), VerbError> {
        if id.starts_with(api_key::PREFIX) && !self.wiring.keys.has(tenant, id) { Err(crate::keys::unknown(tenant, id)) } else { Ok(()) }
    }

    async fn disable(&self, permit: Permit, tenant: String, principal: Option<String>, reason: &str) -> Result<Disabled, VerbError> {
        check_reason(reason)?;
        let by = permit.into_context().principal.id;
        let disabled = Box::new(Disabled { tenant, principal, at: self.now(), by, reason: reason.to_owned() });
        let shard = self.wiring.shard_of(&home(&disabled.tenant));
        self.ask(shard, |reply| Command::Disable(DisableCommand::Disable { disabled, reply })).await
    }

    async fn enable(&self, tenant: String, principal: Option<String>) -> Result<(), VerbError> {
        self.ask(self.wiring.shard_of(&home(&tenant)), |reply| Command::Disable(DisableCommand::Enable { tenant, principal, reply })).await
    }
}

/// The tenant that somebody disables as a whole.
fn whole_tenant(permit: &Permit) -> Result<String, VerbError> {
    let tenant = tenant_of(permit)?;
    if permit.context().principal.kind == PrincipalKind::Local {
        return Ok(tenant);
    }
    let text =
        format!("{} may not disable or enable the tenant `{tenant}` as a whole: the local owner of the data directory can", permit.context().principal.id);
    Err(VerbError::new(Consequence::NotPermitted, "denied", text))
}

/// Reads who is disabled in all shards: whoever goes on with accepted work asks it, whichever shards are open yet.
pub(crate) async fn learn_disabled(wiring: &Wiring) -> Result<(), VerbError> {
    each_row(wiring, Kind::Disabled, |value| {
        wire::decode("disabled principal", value).map(|disabled| wiring.standstill.learn(disabled)).map_err(VerbError::from)
    })
    .await
}

impl Shard {
    /// Reads who is disabled by rows that lie here.
    pub(crate) async fn load_disabled(&mut self) -> Result<(), VerbError> {
        for (_, value) in self.scan_all(&key::all(Kind::Disabled)).await? {
            let disabled: Disabled = wire::decode("disabled principal", &value)?;
            self.wiring.standstill.put((disabled.tenant.clone(), disabled.principal.clone()), Some(disabled));
        }
        Ok(())
    }

    pub(crate) async fn disable_command(&mut self, command: DisableCommand) {
        match command {
            DisableCommand::Disable { disabled, reply } => match self.disabled_before(&disabled).await {
                Ok(Some(before)) => self.answer(reply, Ok(before)),
                Ok(None) => {
                    let mut writes = Writes::default();
                    writes.put(row(&disabled.tenant, disabled.principal.as_deref()), wire::encode(&*disabled));
                    let whom = (disabled.tenant.clone(), disabled.principal.clone());
                    self.write_standing(writes, whom, Some(Disabled::clone(&disabled)), reply, *disabled);
                }
                Err(error) => self.answer(reply, Err(error)),
            },
            DisableCommand::Enable { tenant, principal, reply } => {
                match self.get(row(&tenant, principal.as_deref())).await {
                    Ok(Some(_)) => {}
                    // Nobody is disabled by it: there is nothing to write, and nothing to remember.
                    Ok(None) => return self.answer(reply, Ok(())),
                    Err(error) => return self.answer(reply, Err(error.into())),
                }
                let mut writes = Writes::default();
                writes.delete(row(&tenant, principal.as_deref()));
                self.write_standing(writes, (tenant, principal), None, reply, ());
            }
        }
    }

    /// The row that is there, or that there is room for one.
    async fn disabled_before(&self, disabled: &Disabled) -> Result<Option<Disabled>, VerbError> {
        if let Some(value) = self.get(row(&disabled.tenant, disabled.principal.as_deref())).await? {
            return Ok(Some(wire::decode("disabled principal", &value)?));
        }
        let own = row(&disabled.tenant, None);
        let held = self.scan(under(&disabled_of(&disabled.tenant)), limit::DISABLED + 1).await?;
        if disabled.principal.is_some() && held.iter().filter(|(key, _)| *key != own).count() >= limit::DISABLED {
            let text = format!(
                "the tenant `{}` has {} principals that are disabled, the limit is {}: take the rights of others away by a policy, or disable the tenant",
                disabled.tenant,
                limit::DISABLED,
                limit::DISABLED
            );
            return Err(VerbError::new(Consequence::Limit, "limit: disabled", text));
        }
        Ok(None)
    }

    /// Writes it; who asks finds it, and the caller is answered, once that is durable.
    fn write_standing<T: Send + 'static>(&mut self, writes: Writes, whom: Whom, disabled: Option<Disabled>, reply: Reply<T>, answer: T) {
        let wiring = self.wiring.clone();
        let durable = move || {
            wiring.standstill.put(whom, disabled);
            let _ = reply.send(Ok(answer));
        };
        self.write(writes, vec![Effect::Answer(Box::new(durable))]);
    }
}
