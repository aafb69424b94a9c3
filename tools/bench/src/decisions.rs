//! What a decision costs with a hundred policies: from memory, evaluated on its slice, and by Cedar alone on the whole set. The
//! questions are a mix as a server has it; each time is that of one question.

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use cedar_policy::{Authorizer, Context, Entities, Entity, EntityUid, PolicySet, Request, RestrictedExpression};
use selvedge_adapters::cedar::CedarPolicies;
use selvedge_kernel::auth::{Action, AuthorizationContext, Effect, Principal, PrincipalKind, RequestFacts, Resource};
use selvedge_kernel::id::ActorId;
use selvedge_kernel::ports::Policies;
use selvedge_kernel::time::Millis;

use crate::figure::Figure;
use crate::load::Failed;

/// Policies of the set.
const POLICIES: usize = 100;
/// Questions of each kind.
const QUESTIONS: usize = 20_000;
/// Who asks.
const PRINCIPALS: usize = 40;
/// What it may take at the 99th percentile.
const AIM_US: f64 = 50.0;

struct Question {
    context: AuthorizationContext,
    action: Action,
    resource: Resource,
}

/// A hundred policies as somebody has them: roles on one action or a few, on a type, a pipeline or everything, some with a
/// condition, some that forbid.
fn policies() -> String {
    let mut text = String::new();
    for n in 0..POLICIES {
        let (role, action) = (n % 25, Action::ALL[n % Action::ALL.len()].name());
        text += &match n % 10 {
            0 => format!("permit(principal in Role::\"role{role}\", action in [Action::\"invoke\", Action::\"signal\"], resource in ActorType::\"order\");\n"),
            3 => format!("permit(principal in Role::\"role{role}\", action in [Action::\"read\", Action::\"start\"], resource == Pipeline::\"p{n}\");\n"),
            5 => format!(
                "forbid(principal in Role::\"role{role}\", action == Action::\"rewrite\", resource in ActorType::\"ledger\") unless {{ principal.hasTag(\"scope\") }};\n"
            ),
            7 => format!(
                "permit(principal in Role::\"role{role}\", action == Action::\"operate\", resource) when {{ context has address && context.address.isInRange(ip(\"10.0.0.0/8\")) }};\n"
            ),
            _ => format!("permit(principal in Role::\"role{role}\", action == Action::\"{action}\", resource);\n"),
        };
    }
    text
}

/// The question of a place: mostly calls and reads, some starts, signals and controls. `width` is how many things there are.
fn question(n: usize, width: usize) -> Question {
    let who = n.wrapping_mul(7_919) % PRINCIPALS;
    let tenant = || "acme".to_owned();
    let thing = n.wrapping_mul(104_729) % width;
    let actor = || ActorId { tenant: tenant(), kind: "order".to_owned(), key: format!("o-{thing}") };
    let (action, resource) = match n % 20 {
        0..9 => (Action::Invoke, Resource::Handler { actor: actor(), handler: "pay".to_owned() }),
        9..15 => (Action::Read, Resource::Work { tenant: tenant(), id: format!("run_{thing}") }),
        15..17 => (Action::Start, Resource::Pipeline { tenant: tenant(), name: format!("p{thing}") }),
        17 => (Action::Signal, Resource::Handler { actor: actor(), handler: String::new() }),
        18 => (Action::Control, Resource::Work { tenant: tenant(), id: format!("run_{thing}") }),
        _ => (Action::Read, Resource::Tenant { tenant: tenant() }),
    };
    let principal = Principal {
        id: format!("slv_{who:016}"),
        kind: PrincipalKind::ApiKey,
        tenant: tenant(),
        roles: vec![format!("role{}", who % 25), format!("role{}", (who + 9) % 25)],
    };
    let request = RequestFacts { address: Some(format!("10.0.{who}.1")), at: Millis(1) };
    let claims = [("key".to_owned(), "ci".to_owned())].into();
    Question { context: AuthorizationContext { principal, chain: Vec::new(), claims, request, until: None }, action, resource }
}

/// The 50th and the 99th percentile, in microseconds.
fn percentiles(mut ns: Vec<u128>) -> (f64, f64) {
    ns.sort_unstable();
    let at = |part: usize| ns.get(ns.len() * part / 100).copied().unwrap_or_default() as f64 / 1e3;
    (at(50), at(99))
}

fn timed(questions: &[Question], mut decide: impl FnMut(&Question) -> Effect) -> (f64, f64) {
    let mut ns = Vec::with_capacity(questions.len());
    for question in questions {
        let start = Instant::now();
        black_box(decide(black_box(question)));
        ns.push(start.elapsed().as_nanos());
    }
    percentiles(ns)
}

/// Measures it.
///
/// # Errors
/// What cannot be written, and policies that are refused, which would be a fault of this program.
pub fn cost(dir: &Path) -> Result<Vec<Figure>, Failed> {
    let folder = dir.join("policies");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("all.cedar"), policies())?;
    let set = CedarPolicies::open(&folder)?;
    let decide = |question: &Question| set.decide(&question.context, question.action, &question.resource, Millis(1)).effect;
    // Few things, asked for again and again: answers that are kept.
    let known: Vec<Question> = (0..QUESTIONS).map(|n| question(n, 20)).collect();
    known.iter().for_each(|question| {
        decide(question);
    });
    let kept = timed(&known, decide);
    // Each one for the first time.
    let fresh: Vec<Question> = (0..QUESTIONS).map(|n| question(n, usize::MAX)).collect();
    let evaluated = timed(&fresh, decide);
    let alone = alone(&fresh)?;
    let figure = |name, value: f64| Figure { letter: "i", name, value, unit: "us", ratio: value / AIM_US };
    Ok(vec![
        figure("decision_kept_p50", kept.0),
        figure("decision_kept_p99", kept.1),
        figure("decision_evaluated_p50", evaluated.0),
        figure("decision_evaluated_p99", evaluated.1),
        figure("cedar_alone_p50", alone.0),
        figure("cedar_alone_p99", alone.1),
    ])
}

/// Cedar on the whole set, as its own documentation has it: the same questions, with their entities.
fn alone(questions: &[Question]) -> Result<(f64, f64), Failed> {
    let set: PolicySet = policies().parse()?;
    let authorizer = Authorizer::new();
    let mut failed = None;
    let times = timed(questions, |question| match ask(&authorizer, &set, question) {
        Ok(effect) => effect,
        Err(error) => {
            failed = Some(error);
            Effect::Deny
        }
    });
    failed.map_or(Ok(times), Err)
}

fn ask(authorizer: &Authorizer, set: &PolicySet, question: &Question) -> Result<Effect, Failed> {
    let uid = |of: &str, id: &str| -> Result<EntityUid, Failed> { Ok(EntityUid::from_type_name_and_id(of.parse()?, cedar_policy::EntityId::new(id))) };
    let principal = &question.context.principal;
    let text = |name: &str, value: &str| (name.to_owned(), RestrictedExpression::new_string(value.to_owned()));
    let roles = principal.roles.iter().map(|role| uid("Role", role)).collect::<Result<Vec<_>, Failed>>()?;
    let attributes = [text("id", &principal.id), text("tenant", &principal.tenant)];
    let tags = question.context.claims.iter().map(|(name, value)| text(name, value));
    let who = Entity::new_with_tags(uid("Principal", &principal.id)?, attributes, roles, tags)?;
    let (kind, name) = question.resource.names();
    let of = match kind {
        "handler" => "Handler",
        "actor" => "Actor",
        "pipeline" => "Pipeline",
        "tenant" => "Tenant",
        _ => "Work",
    };
    let mut parents = vec![uid("Tenant", &principal.tenant)?];
    if let Resource::Handler { actor, .. } = &question.resource {
        parents.push(uid("ActorType", &actor.kind)?);
    }
    let what = if of == "Tenant" { None } else { Some(Entity::new_no_attrs(uid(of, &name)?, parents.into_iter().collect())) };
    let resource = uid(of, &name)?;
    let entities = Entities::from_entities(what.into_iter().chain([who]), None)?;
    let address = question.context.request.address.clone().unwrap_or_default();
    let context = Context::from_pairs([("address".to_owned(), RestrictedExpression::new_ip(address))])?;
    let request = Request::new(uid("Principal", &principal.id)?, uid("Action", question.action.name())?, resource, context, None)?;
    let allowed = authorizer.is_authorized(&request, set, &entities).decision() == cedar_policy::Decision::Allow;
    Ok(if allowed { Effect::Allow } else { Effect::Deny })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_answer_the_same_and_not_always_the_same() -> Result<(), Failed> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("all.cedar"), policies())?;
        let (set, whole, authorizer) = (CedarPolicies::open(folder.path())?, policies().parse()?, Authorizer::new());
        assert_eq!(set.count(), POLICIES);
        let mut allowed = 0;
        for n in 0..500 {
            let question = question(n, 50);
            let ours = set.decide(&question.context, question.action, &question.resource, Millis(1)).effect;
            assert_eq!(ours, ask(&authorizer, &whole, &question)?, "{n}");
            allowed += usize::from(ours == Effect::Allow);
        }
        assert!((50..450).contains(&allowed), "{allowed}");
        Ok(())
    }
}
