//! A question as Cedar takes it: entities, action, context.

use std::net::IpAddr;

use cedar_policy::{Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, Request, RestrictedExpression, Schema};
use selvedge_kernel::auth::{Action, AuthorizationContext, Principal, PrincipalKind, Resource};
use selvedge_kernel::id::{ActorId, RunId};
use selvedge_kernel::time::Millis;

use super::slices::Uses;

/// The types of entities that the schema has, parsed once.
pub(super) struct Types {
    action: EntityTypeName,
    principal: EntityTypeName,
    role: EntityTypeName,
    tenant: EntityTypeName,
    actor_type: EntityTypeName,
    actor: EntityTypeName,
    handler: EntityTypeName,
    pipeline: EntityTypeName,
    activity: EntityTypeName,
    work: EntityTypeName,
    store: EntityTypeName,
    /// The context for policies that look at nothing in it: to read a time and an address costs as much as all the rest.
    unread: Option<Context>,
}

fn type_name(name: &str) -> EntityTypeName {
    // Invariant: a plain word is the name of a type; a test makes all of them.
    name.parse().expect("a plain word is the name of a type")
}

fn uid(of: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(of.clone(), EntityId::new(id))
}

fn text(value: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(value.to_owned())
}

fn attribute(name: &str, value: &str) -> (String, RestrictedExpression) {
    (name.to_owned(), text(value))
}

impl Types {
    pub(super) fn new() -> Types {
        Types {
            action: type_name("Action"),
            principal: type_name("Principal"),
            role: type_name("Role"),
            tenant: type_name("Tenant"),
            actor_type: type_name("ActorType"),
            actor: type_name("Actor"),
            handler: type_name("Handler"),
            pipeline: type_name("Pipeline"),
            activity: type_name("Activity"),
            work: type_name("Work"),
            store: type_name("Store"),
            unread: Context::from_pairs([now_of(Millis(0)), ("through".to_owned(), RestrictedExpression::new_set([]))]).ok(),
        }
    }

    pub(super) fn action(&self, action: Action) -> EntityUid {
        uid(&self.action, action.name())
    }

    fn principal(&self, principal: &Principal) -> EntityUid {
        uid(&self.principal, &principal.id)
    }

    fn actor(&self, actor: &ActorId) -> (EntityUid, [EntityUid; 2]) {
        (uid(&self.actor, &actor.to_string()), [uid(&self.actor_type, &actor.kind), uid(&self.tenant, &actor.tenant)])
    }

    /// What the resource is in policies, and the entities that it takes to say so. What is asked of the store as a whole is
    /// asked of the asker's tenant, unless all tenants are meant; so is a list of pipelines.
    fn resource(&self, asker: &Principal, action: Action, resource: &Resource) -> Result<(EntityUid, Vec<Entity>), String> {
        let broken = |error: cedar_policy::EntityAttrEvaluationError| error.to_string();
        let in_tenant = |tenant: &str| Ok((uid(&self.tenant, tenant), Vec::new()));
        let (entity, more) = match resource {
            Resource::Store if action == Action::Operate => return Ok((uid(&self.store, ""), Vec::new())),
            Resource::Store => return in_tenant(&asker.tenant),
            Resource::Tenant { tenant } => return in_tenant(tenant),
            Resource::Pipeline { tenant, name } if name.is_empty() => return in_tenant(tenant),
            Resource::Pipeline { tenant, name } => (Entity::new_no_attrs(uid(&self.pipeline, name), [uid(&self.tenant, tenant)].into()), None),
            Resource::Activity { tenant, name } => (Entity::new_no_attrs(uid(&self.activity, name), [uid(&self.tenant, tenant)].into()), None),
            Resource::Work { tenant, id } => {
                let kind = if id.starts_with(RunId::PREFIX) { "run" } else { "invocation" };
                (Entity::new_with_tags(uid(&self.work, id), [attribute("kind", kind)], [uid(&self.tenant, tenant)], []).map_err(broken)?, None)
            }
            Resource::Handler { actor, handler } => {
                let (name, parents) = self.actor(actor);
                let own = [attribute("type", &actor.kind), attribute("key", &actor.key)];
                let whole = Entity::new_with_tags(name.clone(), own.clone(), parents.clone(), []).map_err(broken)?;
                if handler.is_empty() {
                    (whole, None)
                } else {
                    let attributes = own.into_iter().chain([attribute("name", handler)]);
                    let id = uid(&self.handler, &format!("{actor}.{handler}"));
                    (Entity::new_with_tags(id, attributes, parents.into_iter().chain([name]), []).map_err(broken)?, Some(whole))
                }
            }
        };
        let id = entity.uid();
        Ok((id, std::iter::once(entity).chain(more).collect()))
    }

    /// The context of a question: all that the policies look at in it, and all that has to be there.
    fn context(&self, asker: &AuthorizationContext, uses: Uses, now: Millis) -> Result<Context, String> {
        if let Some(unread) = self.unread.as_ref().filter(|_| uses == Uses::default() && asker.chain.is_empty()) {
            return Ok(unread.clone());
        }
        let through = asker.chain.iter().map(|hop| RestrictedExpression::new_string(format!("{}.{}", hop.actor.kind, hop.handler)));
        let mut context = vec![now_of(now), ("through".to_owned(), RestrictedExpression::new_set(through))];
        if let Some(address) = asker.request.address.as_deref().and_then(|address| address.parse::<IpAddr>().ok()) {
            context.push(("address".to_owned(), RestrictedExpression::new_ip(address.to_string())));
        }
        Context::from_pairs(context).map_err(|error| error.to_string())
    }

    /// The whole question. Errors: what does not fit the schema, such as an action that is not known for a resource.
    pub(super) fn question(
        &self,
        schema: &Schema,
        asker: &AuthorizationContext,
        action: Action,
        resource: &Resource,
        (uses, now): (Uses, Millis),
    ) -> Result<(Request, Entities), String> {
        let principal = &asker.principal;
        let attributes = [attribute("id", &principal.id), attribute("kind", kind(principal.kind)), attribute("tenant", &principal.tenant)];
        let roles = principal.roles.iter().map(|role| uid(&self.role, role));
        let claims = asker.claims.iter().map(|(name, value)| attribute(name, value));
        let who = Entity::new_with_tags(self.principal(principal), attributes, roles, claims).map_err(|error| error.to_string())?;
        let (what, mut entities) = self.resource(principal, action, resource)?;
        entities.push(who);
        let entities = Entities::from_entities(entities, None).map_err(|error| error.to_string())?;
        let context = self.context(asker, uses, now)?;
        let request = Request::new(self.principal(principal), self.action(action), what, context, Some(schema)).map_err(|error| error.to_string())?;
        Ok((request, entities))
    }
}

fn now_of(now: Millis) -> (String, RestrictedExpression) {
    ("now".to_owned(), RestrictedExpression::new_datetime(now.to_string()))
}

/// A kind of principal, as policies name it.
fn kind(kind: PrincipalKind) -> &'static str {
    match kind {
        PrincipalKind::System => "system",
        PrincipalKind::Local => "local",
        PrincipalKind::Actor => "actor",
        PrincipalKind::ApiKey => "api_key",
        PrincipalKind::User => "user",
    }
}
