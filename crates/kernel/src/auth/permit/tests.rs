#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::*;
use crate::auth::{Hop, OWNER, Owners, Principal, RequestFacts, local, system};

/// Answers everything with one verdict.
struct Always(Verdict);

impl Policies for Always {
    fn decide(&self, _: &AuthorizationContext, _: Action, _: &Resource, _: Millis) -> Verdict {
        self.0.clone()
    }

    fn version(&self) -> u64 {
        1
    }

    fn fault(&self) -> Option<String> {
        None
    }
}

fn somebody(roles: &[&str]) -> AuthorizationContext {
    AuthorizationContext {
        principal: Principal {
            id: "ada".to_owned(),
            kind: PrincipalKind::Actor,
            tenant: "acme".to_owned(),
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        },
        chain: Vec::new(),
        claims: Default::default(),
        request: RequestFacts::default(),
        until: None,
    }
}

fn pipeline(tenant: &str) -> Resource {
    Resource::Pipeline { tenant: tenant.to_owned(), name: "bill".to_owned() }
}

fn asked(policies: &dyn Policies, context: &AuthorizationContext, resource: Resource) -> Result<Permit, Denied> {
    permit(policies, context.clone(), Action::Start, resource, Millis(1_000))
}

#[test]
fn what_policies_allow_is_allowed_in_ones_own_tenant_and_before_the_end_of_the_delegation_only() {
    let yes = Always(Verdict::allow("all may"));
    let ada = somebody(&[]);
    let allowed = asked(&yes, &ada, pipeline("acme")).unwrap();
    assert_eq!((allowed.action(), allowed.resource(), allowed.context()), (Action::Start, &pipeline("acme"), &ada));
    let refused = asked(&yes, &ada, pipeline("other")).unwrap_err();
    assert_eq!(refused.reason, "it belongs to another tenant");
    let ended = AuthorizationContext { until: Some(Millis(1_000)), ..ada.clone() };
    assert_eq!(asked(&yes, &ended, pipeline("acme")).unwrap_err().reason, "the delegation has ended");
    let ends = AuthorizationContext { until: Some(Millis(1_001)), ..ada };
    assert!(asked(&yes, &ends, pipeline("acme")).is_ok());
}

#[test]
fn case_37_an_error_in_the_answer_denies_although_the_answer_says_yes() {
    let mut answer = Verdict::allow("all may");
    answer.policies = vec!["all".to_owned()];
    answer.errors = vec!["`limits`: there is no attribute `size`".to_owned()];
    let denied = asked(&Always(answer), &somebody(&[OWNER]), pipeline("acme")).unwrap_err();
    assert!(denied.reason.contains("`limits`: there is no attribute `size`"), "{denied}");
    assert_eq!(denied.policies, ["all"]);
}

#[test]
fn a_denial_says_who_what_why_by_which_policies_and_by_which_decision() {
    let mut answer = Verdict::deny("it is forbidden");
    answer.policies = vec!["no_bills".to_owned(), "night".to_owned()];
    let denied = asked(&Always(answer.clone()), &somebody(&[]), pipeline("acme")).unwrap_err();
    let decision = denied.decision;
    assert_eq!(denied.to_string(), format!("ada may not start the pipeline bill: it is forbidden, by no_bills, night ({decision})"));
    assert_eq!(decision.0.time(), Millis(1_000), "decisions are in the order of time");
    let other = permit(&Always(answer), somebody(&[]), Action::Read, pipeline("acme"), Millis(1_000)).unwrap_err();
    assert_ne!(other.decision, decision);
}

#[test]
fn the_owner_of_the_process_needs_no_policy_and_gets_no_other_tenant() {
    let no = Always(Verdict::deny("nobody may"));
    for context in [local("acme", Millis(0)), system("acme", Millis(0))] {
        assert!(asked(&no, &context, pipeline("acme")).is_ok());
        assert!(asked(&no, &context, pipeline("other")).is_err());
    }
    assert!(authorize(somebody(&[OWNER]), Action::Start, pipeline("acme"), Millis(0)).is_err(), "without policies nobody else gets anything");
}

#[test]
fn the_built_in_rule_lets_an_owner_do_everything_in_its_tenant_and_nobody_else_anything() {
    let resources = [
        pipeline("acme"),
        Resource::Tenant { tenant: "acme".to_owned() },
        Resource::Work { tenant: "acme".to_owned(), id: "inv_1".to_owned() },
        Resource::Store,
    ];
    for (action, resource) in Action::ALL.into_iter().flat_map(|action| resources.iter().map(move |resource| (action, resource))) {
        let whole = *resource == Resource::Store && action == Action::Operate;
        let ask = |roles| permit(&Owners, somebody(roles), action, resource.clone(), Millis(5)).is_ok();
        assert_eq!((ask(&[OWNER]), ask(&["clerk"]), ask(&[])), (!whole, false, false), "{action} {resource}");
    }
}

#[test]
fn what_is_written_names_the_resource_and_the_action() {
    let actor = || ActorId { tenant: "acme".to_owned(), kind: "order".to_owned(), key: "a.b/c".to_owned() };
    let cases = [
        ("pipeline:bill", pipeline("acme")),
        ("activity:resize", Resource::Activity { tenant: "acme".to_owned(), name: "resize".to_owned() }),
        ("work:run_1", Resource::Work { tenant: "acme".to_owned(), id: "run_1".to_owned() }),
        ("actor:order/a.b/c", Resource::Handler { actor: actor(), handler: String::new() }),
        ("handler:order/a.b/c.pay", Resource::Handler { actor: actor(), handler: "pay".to_owned() }),
        ("tenant", Resource::Tenant { tenant: "acme".to_owned() }),
        ("store", Resource::Store),
    ];
    for (text, resource) in cases {
        assert_eq!(Resource::read(text, "acme"), Ok(resource), "{text}");
    }
    for text in ["", "bill", "actor:order", "handler:order/1", "handler:order/1.", "stores", "pipe:x"] {
        assert!(Resource::read(text, "acme").unwrap_err().contains("pipeline:NAME"), "{text}");
    }
    assert!(Action::ALL.into_iter().all(|action| Action::read(action.name()) == Ok(action)));
    assert!(Action::read("strat").unwrap_err().contains("start, read"));
}

fn hop() -> impl Strategy<Value = Hop> {
    ("[a-c]", "[a-c]", "[a-c]").prop_map(|(kind, key, handler)| Hop { actor: ActorId { tenant: "acme".to_owned(), kind, key }, handler })
}

proptest! {
    #[test]
    fn a_context_only_narrows_along_a_chain(roles in prop::collection::vec("[a-z]{1,5}", 0..3), until in any::<Option<u64>>(), hops in prop::collection::vec(hop(), 0..40)) {
        let mut first = somebody(&[]);
        first.principal.roles = roles;
        first.until = until.map(Millis);
        let mut last = first.clone();
        for hop in &hops {
            let next = last.through(&hop.actor, &hop.handler);
            prop_assert_eq!((&next.principal, &next.claims, next.until), (&first.principal, &first.claims, first.until));
            prop_assert!(next.chain.contains(hop) , "whoever acts stands in the chain");
            prop_assert!(next.chain.len() <= crate::auth::DELEGATION);
            prop_assert!(last.chain.first().is_none_or(|hop| next.chain.first() == Some(hop)), "where it began stays");
            last = next;
        }
    }
}
