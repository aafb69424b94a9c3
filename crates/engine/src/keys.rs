//! API keys: made, listed and revoked by verbs that consume a permit, held in memory for whoever stands at a door.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use selvedge_kernel::auth::{Action, AuthorizationContext, OWNER, Permit, PrincipalKind, RequestFacts, Resource, Verdict, from_api_key, is_role};
use selvedge_kernel::error::Consequence;
use selvedge_kernel::id::{PIPELINE_TYPE, ShardId};
use selvedge_kernel::limit;
use selvedge_kernel::pipeline::compiled::UNDOES;
use selvedge_kernel::ports::{Policies, under};
use selvedge_kernel::record::Writes;
use selvedge_kernel::record::api_key::{self, ApiKey, Presented, Revoked, home, keys_of};
use selvedge_kernel::record::key;
use selvedge_kernel::record::kind::Kind;
use selvedge_kernel::time::Millis;
use selvedge_kernel::wire;

use crate::disabled::Standstill;
use crate::door::{check_part, check_reason, expect_action, misused};
use crate::engine::Engine;
use crate::shard::{Command, Effect, Reply, Shard, VerbError};
use crate::wiring::Wiring;

/// The keys of all tenants, as they are durable.
#[derive(Default)]
pub(crate) struct Keys {
    held: RwLock<HashMap<String, Arc<ApiKey>>>,
    version: AtomicU64,
}

impl Keys {
    pub(crate) fn get(&self, id: &str) -> Option<Arc<ApiKey>> {
        self.held.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    fn put(&self, key: ApiKey) {
        self.held.write().unwrap_or_else(PoisonError::into_inner).insert(key.id.clone(), Arc::new(key));
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Takes in a key that was read before its shard was open: what that says stands.
    fn learn(&self, key: ApiKey) {
        self.held.write().unwrap_or_else(PoisonError::into_inner).entry(key.id.clone()).or_insert_with(|| Arc::new(key));
        self.version.fetch_add(1, Ordering::Release);
    }

    fn remove(&self, id: &str) {
        self.held.write().unwrap_or_else(PoisonError::into_inner).remove(id);
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Whether a tenant has this key.
    pub(crate) fn has(&self, tenant: &str, id: &str) -> bool {
        self.get(id).is_some_and(|key| key.tenant == tenant)
    }

    fn of(&self, tenant: &str) -> Vec<ApiKey> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        let mut found: Vec<ApiKey> = held.values().filter(|key| key.tenant == tenant).map(|key| ApiKey::clone(key)).collect();
        found.sort_by(|a, b| (b.created, &b.id).cmp(&(a.created, &a.id)));
        found
    }
}

/// What a new key is to be.
#[derive(Clone, Debug, Default)]
pub struct NewKey {
    /// What it is for, for people.
    pub name: String,
    /// What it may act as.
    pub roles: Vec<String>,
    /// How long it opens something; none: until it is revoked.
    pub lasts: Option<Duration>,
}

/// A key that was made, with the only copy of what its owner presents.
#[derive(Clone, Debug)]
pub struct MadeKey {
    /// What is stored.
    pub key: ApiKey,
    /// What its owner presents.
    pub presented: Presented,
}

/// Why somebody is nobody here.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unauthenticated {
    /// No key of ours, or not with this secret.
    #[error("nobody here knows this key: `selvedge keys create` makes one")]
    Unknown,
    /// It has ended.
    #[error("the key {id} ended at {at}: `selvedge keys create` makes another one")]
    Expired {
        /// Which.
        id: String,
        /// When.
        at: Millis,
    },
    /// It was taken back.
    #[error("the key {id} was revoked at {at}: ask whoever looks after keys for another one")]
    Revoked {
        /// Which.
        id: String,
        /// When.
        at: Millis,
    },
}

/// What is asked of the shard of a tenant's keys.
pub(crate) enum KeyCommand {
    Put { key: Box<ApiKey>, reply: Reply<()> },
    Revoke { tenant: String, id: String, revoked: Revoked, reply: Reply<ApiKey> },
}

impl Engine {
    /// Makes a key of the permit's tenant: durable when this returns. Nobody can be shown it again.
    pub async fn create_key(&self, permit: Permit, new: NewKey) -> Result<MadeKey, VerbError> {
        let tenant = tenant_of(&permit)?;
        check_part("the tenant", &tenant)?;
        check_roles(&new.roles)?;
        if !new.name.is_empty() {
            check_part("the name of the key", &new.name)?;
        }
        let ends = self.no_more_than(permit.context(), &new)?;
        let (mut name, mut secret, mut salt) = ([0; 8], [0; 32], [0; 32]);
        [&mut name[..], &mut secret[..], &mut salt[..]].into_iter().for_each(|part| (self.wiring.env.random)(part));
        let presented = Presented::fresh(name, secret);
        let created = self.now();
        let key = ApiKey {
            id: presented.id.clone(),
            tenant: tenant.clone(),
            name: new.name,
            roles: new.roles,
            created,
            by: permit.into_context().principal.id,
            expires: new.lasts.map(|span| created.after(span)).into_iter().chain(ends).min(),
            revoked: None,
            salt,
            hash: api_key::hash(&salt, &secret),
        };
        let put = Box::new(key.clone());
        self.ask_keys(&tenant, |reply| KeyCommand::Put { key: put, reply }).await?;
        Ok(MadeKey { key, presented })
    }

    /// Refuses a key that may more than its maker: a role that the maker has not got. When the maker's own key ends; the new one
    /// ends then too.
    fn no_more_than(&self, maker: &AuthorizationContext, new: &NewKey) -> Result<Option<Millis>, VerbError> {
        let (id, has) = (&maker.principal.id, &maker.principal.roles);
        let owner = matches!(maker.principal.kind, PrincipalKind::Local | PrincipalKind::System) || has.iter().any(|role| role == OWNER);
        if let Some(role) = new.roles.iter().find(|role| !owner && !has.contains(role)) {
            let reason = format!("it has not got the role `{role}`, and cannot give it to a key: ask somebody who has it, or who is `{OWNER}`");
            let tenant = Resource::Tenant { tenant: maker.principal.tenant.clone() };
            return Err(self.wiring.refuse(maker, Action::Administer, tenant, &reason).into());
        }
        Ok(self.wiring.keys.get(id).and_then(|key| key.expires))
    }

    /// The keys of the permit's tenant, those that were revoked included, the newest first.
    pub fn keys(&self, permit: Permit) -> Result<Vec<ApiKey>, VerbError> {
        Ok(self.wiring.keys.of(&tenant_of(&permit)?))
    }

    /// Takes a key back: when this returns it opens nothing any more, also after a restart. One that was taken back stays as it is.
    pub async fn revoke_key(&self, permit: Permit, id: &str, reason: &str) -> Result<ApiKey, VerbError> {
        let tenant = tenant_of(&permit)?;
        check_reason(reason)?;
        let revoked = Revoked { at: self.now(), by: permit.into_context().principal.id, reason: reason.to_owned() };
        self.ask_keys(&tenant, |reply| KeyCommand::Revoke { tenant: tenant.clone(), id: id.to_owned(), revoked, reply }).await
    }

    /// Who presents this key. It is asked for each request: no wait, no I/O.
    pub fn authenticate(&self, presented: &str, request: RequestFacts) -> Result<AuthorizationContext, Unauthenticated> {
        let presented = Presented::read(presented).ok_or(Unauthenticated::Unknown)?;
        let key = self.wiring.keys.get(&presented.id).filter(|key| key.is(&presented.secret)).ok_or(Unauthenticated::Unknown)?;
        if let Some(revoked) = &key.revoked {
            return Err(Unauthenticated::Revoked { id: key.id.clone(), at: revoked.at });
        }
        match key.expires {
            Some(at) if !key.opens(self.now()) => Err(Unauthenticated::Expired { id: key.id.clone(), at }),
            _ => Ok(from_api_key(&key, request)),
        }
    }

    /// The policies in force, and what stands above them: a key that was revoked, and whoever is disabled, is denied everything,
    /// whenever it came in.
    #[must_use]
    pub fn policies(&self) -> Standing<'_> {
        self.wiring.policies()
    }

    /// Whether any key opens anything now, of whatever tenant.
    #[must_use]
    pub fn opens_to_somebody(&self) -> bool {
        let now = self.now();
        let held = self.wiring.keys.held.read().unwrap_or_else(PoisonError::into_inner);
        held.values().any(|key| key.opens(now))
    }

    async fn ask_keys<T>(&self, tenant: &str, command: impl FnOnce(Reply<T>) -> KeyCommand) -> Result<T, VerbError> {
        self.ask(self.wiring.shard_of(&home(tenant)), |reply| Command::Key(command(reply))).await
    }
}

/// See [`Engine::policies`].
pub struct Standing<'a> {
    keys: &'a Keys,
    standstill: &'a Standstill,
    policies: &'a dyn Policies,
}

impl<'a> Standing<'a> {
    pub(crate) fn new(keys: &'a Keys, standstill: &'a Standstill, policies: &'a dyn Policies) -> Standing<'a> {
        Standing { keys, standstill, policies }
    }

    /// Why somebody is nobody any more: the tenant or the principal is disabled, or the key was revoked.
    pub(crate) fn revoked(&self, context: &AuthorizationContext) -> Option<String> {
        let kind = context.principal.kind;
        if kind == PrincipalKind::System || undoes(context) {
            return None;
        }
        if let Some(reason) = self.standstill.reason(context) {
            return Some(reason);
        }
        if kind != PrincipalKind::ApiKey {
            return None;
        }
        match self.keys.get(&context.principal.id) {
            None => Some("its key is not here any more".to_owned()),
            Some(key) => key.revoked.as_ref().map(|revoked| format!("its key was revoked at {} ({})", revoked.at, revoked.reason)),
        }
    }
}

/// Whether somebody acts through a stage that undoes what was done: that goes on after its key was revoked, and while it is
/// disabled, as far as the policies let it. Only the engine makes hops, and no stage of a file has such a name.
fn undoes(context: &AuthorizationContext) -> bool {
    context.chain.iter().rev().take(2).any(|hop| hop.actor.kind == PIPELINE_TYPE && hop.handler.ends_with(UNDOES))
}

impl Policies for Standing<'_> {
    fn decide(&self, context: &AuthorizationContext, action: Action, resource: &Resource, now: Millis) -> Verdict {
        match self.revoked(context) {
            Some(reason) => Verdict::deny(reason),
            None => self.policies.decide(context, action, resource, now),
        }
    }

    fn version(&self) -> u64 {
        self.policies.version() + self.keys.version.load(Ordering::Acquire) + self.standstill.version()
    }

    fn fault(&self) -> Option<String> {
        self.policies.fault()
    }
}

/// Reads the keys of all shards: whoever goes on with accepted work asks them, whichever shards are open yet.
pub(crate) async fn learn_keys(wiring: &Wiring) -> Result<(), VerbError> {
    each_row(wiring, Kind::ApiKey, |value| wire::decode("API key", value).map(|key| wiring.keys.learn(key)).map_err(VerbError::from)).await
}

/// Reads all rows of a kind, of every shard, before the shards are open.
pub(crate) async fn each_row(wiring: &Wiring, kind: Kind, mut take: impl FnMut(&[u8]) -> Result<(), VerbError>) -> Result<(), VerbError> {
    for shard in (0..wiring.shards).map(ShardId) {
        let mut range = under(&key::all(kind));
        loop {
            let page = wiring.store.scan(shard, range.clone(), limit::PAGE).await?;
            for (_, value) in &page {
                take(value)?;
            }
            let Some((last, _)) = page.last().filter(|_| page.len() == limit::PAGE) else { break };
            range.start = [last, &[0][..]].concat().into();
        }
    }
    Ok(())
}

impl Shard {
    /// Reads the keys that lie here.
    pub(crate) async fn load_keys(&mut self) -> Result<(), VerbError> {
        for (_, value) in self.scan_all(&key::all(Kind::ApiKey)).await? {
            self.wiring.keys.put(wire::decode("API key", &value)?);
        }
        Ok(())
    }

    pub(crate) async fn key_command(&mut self, command: KeyCommand) {
        match command {
            KeyCommand::Put { key, reply } => {
                if let Err((error, reply)) = self.put_key(*key, reply).await {
                    self.answer(reply, Err(error));
                }
            }
            KeyCommand::Revoke { tenant, id, revoked, reply } => match self.find_key(&tenant, &id).await {
                Ok(found) if found.revoked.is_some() => self.answer(reply, Ok(found)),
                Ok(found) => {
                    let key = ApiKey { revoked: Some(revoked), ..found };
                    self.write_key(Writes::default(), key.clone(), None, reply, key);
                }
                Err(error) => self.answer(reply, Err(error)),
            },
        }
    }

    /// Writes a new key. When a tenant has too many, the oldest one that was revoked makes room.
    async fn put_key(&mut self, key: ApiKey, reply: Reply<()>) -> Result<(), (VerbError, Reply<()>)> {
        let mut rows = match self.keys_here(&key.tenant).await {
            Ok(rows) => rows,
            Err(error) => return Err((error, reply)),
        };
        let mut writes = Writes::default();
        let mut gone = None;
        if rows.len() >= limit::KEYS {
            // What was accepted with a key that has ended goes on: only one that was taken back may go.
            rows.retain(|held| held.revoked.is_some());
            let Some(oldest) = rows.into_iter().min_by_key(|held| held.created) else {
                let text = format!(
                    "the tenant `{}` has {} keys that were not revoked, the limit is {}: revoke some with `selvedge keys revoke`",
                    key.tenant,
                    limit::KEYS,
                    limit::KEYS
                );
                return Err((VerbError::new(Consequence::Limit, "limit: keys", text), reply));
            };
            writes.delete(api_key::row(&oldest.tenant, &oldest.id));
            gone = Some(oldest.id);
        }
        self.write_key(writes, key, gone, reply, ());
        Ok(())
    }

    /// Writes a key; who asks for it finds it, and the caller is answered, once that is durable.
    fn write_key<T: Send + 'static>(&mut self, mut writes: Writes, key: ApiKey, gone: Option<String>, reply: Reply<T>, answer: T) {
        writes.put(api_key::row(&key.tenant, &key.id), wire::encode(&key));
        let wiring = self.wiring.clone();
        let durable = move || {
            if let Some(id) = gone {
                wiring.keys.remove(&id);
            }
            wiring.keys.put(key);
            let _ = reply.send(Ok(answer));
        };
        self.write(writes, vec![Effect::Answer(Box::new(durable))]);
    }

    async fn keys_here(&self, tenant: &str) -> Result<Vec<ApiKey>, VerbError> {
        let rows = self.scan(under(&keys_of(tenant)), limit::KEYS + 1).await?;
        rows.iter().map(|(_, value)| Ok(wire::decode("API key", value)?)).collect()
    }

    async fn find_key(&self, tenant: &str, id: &str) -> Result<ApiKey, VerbError> {
        match self.get(api_key::row(tenant, id)).await? {
            Some(value) => Ok(wire::decode("API key", &value)?),
            None => Err(unknown(tenant, id)),
        }
    }
}

/// The error of a key that a tenant has not got.
pub(crate) fn unknown(tenant: &str, id: &str) -> VerbError {
    let text = format!("the tenant `{tenant}` has no key {id}: `selvedge keys list` names those that it has");
    VerbError::new(Consequence::NotFound, "unknown_key", text)
}

/// The tenant that a permit to administer is about.
pub(crate) fn tenant_of(permit: &Permit) -> Result<String, VerbError> {
    expect_action(permit, Action::Administer)?;
    let Resource::Tenant { tenant } = permit.resource() else { return Err(misused(permit)) };
    Ok(tenant.clone())
}

fn check_roles(roles: &[String]) -> Result<(), VerbError> {
    let wrong = |text: String| Err(VerbError::new(Consequence::FixInput, "bad_request", text));
    if roles.is_empty() {
        return wrong("a key without a role opens nothing: give it at least one, as in `--role owner`".to_owned());
    }
    if roles.len() > limit::ROLES {
        return wrong(format!("a key has {} roles, the limit is {}: make one role of those that go together", roles.len(), limit::ROLES));
    }
    match roles.iter().find(|role| !is_role(role)) {
        Some(role) => wrong(format!("{role:?} is no name of a role: letters, digits, `_`, `-`, `.` and `:`, 64 at most")),
        None => Ok(()),
    }
}
