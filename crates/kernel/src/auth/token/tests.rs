#![allow(clippy::unwrap_used)]
use super::*;
use proptest::prelude::*;
use serde_json::json;

fn issuer() -> Issuer {
    serde_json::from_value(json!({
        "issuer": "i", "audience": "a", "jwks": "k", "claims": ["c"],
        "tenant": { "claim": "t" }, "roles": { "claim": "/r/s", "map": { "x": "owner" } },
    }))
    .unwrap()
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        "[a-z]{0,3}".prop_map(Value::from)
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[rstx]", inner, 0..3).prop_map(|map| json!(map))
        ]
    })
}

proptest! {
    #[test]
    fn whatever_a_token_claims_it_is_nobody_or_a_user_of_a_tenant_that_it_names(
        claims in prop::collection::btree_map(prop::sample::select(vec!["iss", "aud", "sub", "exp", "nbf", "t", "r", "c"]), value(), 0..8), at in any::<u64>()
    ) {
        let read = Claims::read(json!(claims).to_string().as_bytes()).unwrap();
        let right = [("iss", json!("i")), ("aud", json!("a")), ("sub", json!("s")), ("exp", json!(4_000_000_000_u64)), ("t", json!("acme"))];
        for filled in [false, true] {
            let mut all: BTreeMap<&str, Value> = claims.clone();
            if filled {
                right.iter().for_each(|(name, value)| { all.entry(name).or_insert_with(|| value.clone()); });
            }
            let claims = if filled { Claims::read(json!(all).to_string().as_bytes()).unwrap() } else { read.clone() };
            if let Ok(who) = from_jwt(&claims, "corp", &issuer(), RequestFacts { address: None, at: Millis(at) }) {
                prop_assert_eq!(who.principal.kind, PrincipalKind::User);
                prop_assert_eq!(Some(who.principal.id), claims.text("sub").map(|sub| format!("corp:{sub}")));
                prop_assert_eq!(claims.text("t"), Some(&*who.principal.tenant));
                prop_assert!(who.principal.roles.iter().all(|role| role == "owner"));
                prop_assert!(who.chain.is_empty() && who.until.is_none());
                prop_assert!(at < 4_000_060_000_000 || claims.get("exp") != Some(&json!(4_000_000_000_u64)));
            }
        }
    }

    #[test]
    fn any_bytes_are_claims_or_none(bytes in prop::collection::vec(any::<u8>(), 0..100), text in "[{}\\[\\]\",:a-c0-9]{0,60}") {
        let _ = (Claims::read(&bytes), Claims::read(text.as_bytes()));
    }
}

#[test]
fn a_claim_is_found_by_its_name_first_and_by_a_pointer_where_no_name_is_like_that() {
    let claims = Claims::read(json!({ "/a/b": 1, "a": { "b": 2, "c": { "d/e": 3 } }, "https://x/roles": 4 }).to_string().as_bytes()).unwrap();
    let at = |name: &str| claims.at(name).and_then(Value::as_u64);
    assert_eq!(
        [at("/a/b"), at("/a/c/d~1e"), at("https://x/roles"), at("/a/x"), at("a/b"), at("/"), at("")],
        [Some(1), Some(3), Some(4), None, None, None, None]
    );
    assert!(claims.at("/a").is_some());
}
