#![allow(clippy::unwrap_used)]
use bytes::Bytes;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::id::{Hash16, InvocationId, RawId};
use crate::journal::Hash32;
use crate::ports::Policies;
use crate::record::schedule::Counts;

/// Policies that know who asks and for what, each question answered in one way or the other; on behalf of whom they do not ask.
struct Table(u64);

impl Policies for Table {
    fn decide(&self, context: &AuthorizationContext, action: Action, resource: &Resource, _: Millis) -> Verdict {
        let mut asked = blake3::Hasher::new();
        asked.update(&self.0.to_be_bytes());
        asked.update(format!("{:?} {action} {resource:?}", context.principal).as_bytes());
        if asked.finalize().as_bytes()[0] < 200 { Verdict::allow("so it says") } else { Verdict::deny("so it says") }
    }

    fn version(&self) -> u64 {
        0
    }

    fn fault(&self) -> Option<String> {
        None
    }
}

/// Whoever comes in from outside, by each of the ways in.
fn first() -> impl Strategy<Value = AuthorizationContext> {
    (0..4_u8, any::<bool>(), prop::option::of(0..20_u64)).prop_map(|(way, owner, until)| {
        let role = if owner { OWNER } else { "clerk" };
        let context = match way {
            0 => system("acme", Millis(1)),
            1 => local("acme", Millis(1)),
            2 => {
                let key = ApiKey {
                    id: "slv_0".to_owned(),
                    tenant: "acme".to_owned(),
                    name: "ci".to_owned(),
                    roles: vec![role.to_owned()],
                    created: Millis(1),
                    by: "local".to_owned(),
                    expires: None,
                    revoked: None,
                    salt: [0; 32],
                    hash: Hash32([0; 32]),
                };
                from_api_key(&key, RequestFacts::default())
            }
            _ => {
                let issuer = json!({ "issuer": "i", "audience": "a", "jwks": "k", "tenant": "acme", "roles": [role] });
                let claims = json!({ "iss": "i", "aud": "a", "sub": "ada", "exp": 4_000_000_000_u64 });
                from_jwt(&Claims::read(claims.to_string().as_bytes()).unwrap(), "corp", &serde_json::from_value(issuer).unwrap(), RequestFacts::default())
                    .unwrap()
            }
        };
        AuthorizationContext { until: until.map(Millis), ..context }
    })
}

/// A way on: who acts for whoever came before.
#[derive(Clone, Debug)]
enum On {
    Through(u8),
    Worker(u8),
    Message,
    Session,
    Schedule(u64),
}

fn on() -> impl Strategy<Value = On> {
    prop_oneof![8 => any::<u8>().prop_map(On::Through), 1 => (0..3_u8).prop_map(On::Worker), 2 => Just(On::Message), 1 => Just(On::Session), 2 => (0..20_u64).prop_map(On::Schedule)]
}

fn actor(n: u8) -> ActorId {
    ActorId { tenant: "acme".to_owned(), kind: format!("k{n}"), key: "1".to_owned() }
}

fn followed(context: &AuthorizationContext, on: &On) -> AuthorizationContext {
    match on {
        On::Through(n) => context.through(&actor(*n), "h"),
        On::Worker(n) => from_worker(context, &format!("a{n}")),
        On::Session => from_session(context, RequestFacts { address: Some("192.0.2.1".to_owned()), at: Millis(7) }),
        On::Message => {
            let id = InvocationId(RawId { hash: Hash16(1), uuid: [0; 16] });
            from_message(&Message::new(id, actor(0), "h", Bytes::new(), context.clone())).clone()
        }
        On::Schedule(at) => {
            let schedule = ScheduleRecord {
                tenant: "acme".to_owned(),
                pipeline: "bill".to_owned(),
                spec: Bytes::new(),
                context: context.clone(),
                since: Millis(0),
                paused: None,
                last: Millis(0),
                next: None,
                timer: None,
                under_way: None,
                buffered: None,
                buffer_timer: None,
                last_error: None,
                counts: Counts::default(),
            };
            from_schedule(&schedule, Millis(*at))
        }
    }
}

fn questions() -> Vec<(Action, Resource)> {
    let mut asked = Vec::new();
    for tenant in ["acme", "other"].map(str::to_owned) {
        let one = |name: &str| Resource::Activity { tenant: tenant.clone(), name: name.to_owned() };
        asked.extend(["a0", "a1", "a2"].map(|name| (Action::Work, one(name))));
        asked.push((Action::Read, one("a0")));
        asked.push((Action::Start, Resource::Pipeline { tenant: tenant.clone(), name: "bill".to_owned() }));
        asked.push((Action::Invoke, Resource::Handler { actor: ActorId { tenant: tenant.clone(), ..actor(0) }, handler: "h".to_owned() }));
        asked.push((Action::Administer, Resource::Tenant { tenant }));
    }
    asked.push((Action::Operate, Resource::Store));
    asked
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whoever_acts_for_somebody_may_no_more_than_that_one_whichever_way_a_context_goes_on(from in first(), ways in prop::collection::vec(on(), 0..100), seed in any::<u64>(), now in 0..20_u64) {
        let policies: [&dyn Policies; 2] = [&Owners, &Table(seed)];
        let may = |context: &AuthorizationContext| -> Vec<bool> {
            let asked = questions().into_iter().flat_map(|(action, resource)| policies.map(|policies| (policies, action, resource.clone())));
            asked.map(|(policies, action, resource)| permit(policies, context.clone(), action, resource, Millis(now)).is_ok()).collect()
        };
        let (mut context, mut before) = (from.clone(), may(&from));
        let mut workers = 0;
        for on in ways {
            let next = followed(&context, &on);
            workers += usize::from(matches!(on, On::Worker(_)));
            let after = may(&next);
            prop_assert!(before.iter().zip(&after).all(|(before, after)| *before || !after), "{:?} gives more: {:?}", on, next);
            prop_assert_eq!((&next.principal, &next.claims, next.until), (&from.principal, &from.claims, from.until));
            prop_assert!(next.chain.len() <= DELEGATION);
            (context, before) = (next, after);
        }
        // Its activity, and nothing else: of two activities neither.
        let opened = questions().into_iter().zip(before.chunks(2)).filter(|(_, may)| may.contains(&true)).count();
        prop_assert!(workers == 0 || opened <= 1);
    }
}

#[test]
fn a_worker_acts_for_its_activity_and_for_nothing_else_also_where_its_credential_may_do_everything() {
    let worker = from_worker(&local("acme", Millis(1)), "resize");
    let may = |action, resource| authorize(worker.clone(), action, resource, Millis(2)).map(|_| ()).map_err(|denied| denied.reason);
    let activity = |name: &str| Resource::Activity { tenant: "acme".to_owned(), name: name.to_owned() };
    assert_eq!(may(Action::Work, activity("resize")), Ok(()));
    let alone = || Err("a worker acts for its activity alone".to_owned());
    assert_eq!(may(Action::Work, activity("pay")), alone());
    assert_eq!(may(Action::Read, activity("resize")), alone());
    assert_eq!(may(Action::Operate, Resource::Store), alone());
    assert_eq!(may(Action::Start, Resource::Pipeline { tenant: "acme".to_owned(), name: "resize".to_owned() }), alone());
}
