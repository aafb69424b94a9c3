//! Tokens of other issuers: which of them open something, and which do not, whatever they say.

mod door;
pub mod signer;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use selvedge::tokens::Pace;
use selvedge_http::Tokens;
use selvedge_kernel::auth::{AuthorizationContext, Issuer, OneOrMany, PrincipalKind, RequestFacts, Roles, Tenant, TokenError};
use selvedge_kernel::time::Millis;
use serde_json::{Value, json};

use signer::{Key, Keys, base64, claims, issuer, set};

/// The time of these tests, in seconds.
const NOW: u64 = 1_800_000_000;

pub async fn believed(issuer: Issuer) -> Tokens {
    believed_at(issuer, Duration::from_secs(10)).await
}

/// With another pace: so long between two looks for a key that is not known.
async fn believed_at(issuer: Issuer, again: Duration) -> Tokens {
    let pace = Pace { again, ..Pace::default() };
    selvedge::tokens::believed(BTreeMap::from([("corp".to_owned(), issuer)]), pace, None).await.unwrap().unwrap()
}

async fn at(tokens: &Tokens, token: &str, now: u64) -> Result<AuthorizationContext, TokenError> {
    (tokens.verify)(token.to_owned(), RequestFacts { address: None, at: Millis(now * 1_000) }).await
}

async fn opens(tokens: &Tokens, token: &str) -> Result<AuthorizationContext, TokenError> {
    at(tokens, token, NOW).await
}

/// An issuer with one key in a file, and whoever believes it.
struct One {
    key: Key,
    tokens: Tokens,
    _folder: tempfile::TempDir,
}

impl One {
    async fn new() -> One {
        One::of(Key::ed25519(), |_| {}).await
    }

    async fn of(key: Key, change: impl FnOnce(&mut Issuer)) -> One {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys.json");
        std::fs::write(&file, set(&[key.public("k1")])).unwrap();
        let mut issuer = issuer(file.to_str().unwrap());
        change(&mut issuer);
        One { key, tokens: believed(issuer).await, _folder: folder }
    }

    /// What becomes of a token with changed claims: null takes one away.
    async fn with(&self, changes: Value) -> Result<AuthorizationContext, TokenError> {
        let mut said = claims(NOW);
        for (name, value) in changes.as_object().unwrap() {
            said[name] = value.clone();
        }
        said.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        opens(&self.tokens, &self.key.token("k1", &said)).await
    }

    async fn written(&self, header: &str) -> Result<AuthorizationContext, TokenError> {
        opens(&self.tokens, &self.key.token_of(header, &claims(NOW).to_string())).await
    }
}

#[tokio::test]
async fn a_token_that_is_signed_with_rs256_es256_or_eddsa_is_whoever_it_says() {
    for key in [Key::rsa(), Key::p256(), Key::ed25519()] {
        let one = One::of(key, |_| {}).await;
        let who = one.with(json!({})).await.unwrap();
        let principal = &who.principal;
        assert_eq!((principal.id.as_str(), principal.kind, principal.tenant.as_str()), ("corp:ada", PrincipalKind::User, "default"));
        assert_eq!(principal.roles, ["owner"], "a group without a meaning gives no role");
        assert_eq!((who.until, who.claims["iss"].as_str()), (None, "https://login.test"));
        // One letter of the claims, of the header, of the signature.
        let token = one.key.token("k1", &claims(NOW));
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let mut bent = data_encoding::BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap();
        bent[7] ^= 1;
        assert_eq!(opens(&one.tokens, &format!("{signed}.{}", base64(&bent))).await, Err(TokenError::Signature));
        let other = json!({ "iss": "https://login.test", "aud": "selvedge", "sub": "eve", "exp": NOW + 9 });
        let forged = format!("{}.{}.{signature}", token.split('.').next().unwrap(), base64(other.to_string()));
        assert_eq!(opens(&one.tokens, &forged).await, Err(TokenError::Signature));
    }
}

#[tokio::test]
async fn none_and_hmac_are_refused_whatever_the_set_says_also_with_the_public_key_as_the_secret() {
    let key = Key::rsa();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.json");
    let secret = json!({ "kty": "oct", "kid": "k2", "alg": "HS256", "k": base64("secret") });
    let claimed = json!({ "kty": "RSA", "kid": "k3", "alg": "HS256", "n": key.public("")["n"], "e": key.public("")["e"] });
    std::fs::write(&file, set(&[secret, claimed, key.public("k1")])).unwrap();
    let tokens = believed(issuer(file.to_str().unwrap())).await;
    assert!(opens(&tokens, &key.token("k1", &claims(NOW))).await.is_ok());
    let said = base64(claims(NOW).to_string());
    for (algorithm, id) in [("none", "k1"), ("None", "k1"), ("NONE", "k2"), ("", "k1")] {
        let header = base64(json!({ "alg": algorithm, "kid": id }).to_string());
        for signature in ["", "AAAA"] {
            assert_eq!(opens(&tokens, &format!("{header}.{said}.{signature}")).await, Err(TokenError::Algorithm), "{algorithm}");
        }
    }
    let n = data_encoding::BASE64URL_NOPAD.decode(key.public("")["n"].as_str().unwrap().as_bytes()).unwrap();
    for (secret, id) in [(&n[..], "k1"), (b"secret", "k2"), (&n[..], "k3"), (key.public("k1").to_string().as_bytes(), "k1")] {
        let signed = format!("{}.{said}", base64(json!({ "alg": "HS256", "kid": id }).to_string()));
        let mac = ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret), signed.as_bytes());
        assert_eq!(opens(&tokens, &format!("{signed}.{}", base64(mac))).await, Err(TokenError::Algorithm));
    }
    // What one kind of key signed is not verified with another one.
    let other = Key::ed25519();
    let mixed = other.token_of(&json!({ "alg": "RS256", "kid": "k1" }).to_string(), &claims(NOW).to_string());
    assert_eq!(opens(&tokens, &mixed).await, Err(TokenError::Signature));
    for (algorithm, id) in [("EdDSA", "k1"), ("ES256", "k1"), ("RS256", "k3")] {
        let mixed = other.token_of(&json!({ "alg": algorithm, "kid": id }).to_string(), &claims(NOW).to_string());
        assert!(matches!(opens(&tokens, &mixed).await, Err(TokenError::UnknownKey { .. })), "{algorithm} with {id}");
    }
}

#[tokio::test]
async fn a_key_that_a_token_brings_along_is_not_used() {
    let one = One::new().await;
    let own = Key::ed25519();
    let header = json!({ "alg": "EdDSA", "kid": "own", "jwk": own.public("own"), "jku": "http://127.0.0.1:1/keys", "x5u": "http://127.0.0.1:1/" });
    let token = own.token_of(&header.to_string(), &claims(NOW).to_string());
    assert!(matches!(opens(&one.tokens, &token).await, Err(TokenError::UnknownKey { .. })));
}

#[tokio::test]
async fn time_counts_with_the_skew_that_is_configured_and_a_token_without_an_end_opens_nothing() {
    let one = One::new().await;
    for (end, is_open) in [(NOW + 1, true), (NOW, true), (NOW - 59, true), (NOW - 60, false), (NOW - 3_600, false)] {
        let found = one.with(json!({ "exp": end })).await;
        assert_eq!(found.is_ok(), is_open, "{end}: {found:?}");
        assert!(is_open || found == Err(TokenError::Expired(Millis(end * 1_000))));
    }
    for (begin, is_open) in [(NOW + 60, true), (NOW + 61, false)] {
        let found = one.with(json!({ "nbf": begin })).await;
        assert!(is_open == found.is_ok() && (is_open || found == Err(TokenError::NotYet(Millis(begin * 1_000)))), "{begin}");
    }
    assert!(one.with(json!({ "exp": NOW as f64 + 0.5 })).await.is_ok(), "a time may have a fraction");
    for wrong in [json!(null), json!("1900000000"), json!(-1), json!(1e300), json!([NOW]), json!(true)] {
        assert_eq!(one.with(json!({ "exp": wrong })).await, Err(TokenError::Claim("exp")), "{wrong}");
        if !wrong.is_null() {
            assert_eq!(one.with(json!({ "nbf": wrong })).await, Err(TokenError::Claim("nbf")), "{wrong}");
        }
    }
    assert!(one.with(json!({ "nbf": null, "iat": null })).await.is_ok());
}

#[tokio::test]
async fn a_token_for_somebody_else_or_of_somebody_else_opens_nothing() {
    let one = One::new().await;
    assert!(one.with(json!({ "aud": "selvedge" })).await.is_ok());
    for aud in [json!("other"), json!(["a", "b"]), json!([]), json!([["selvedge"]]), json!("selvedge ")] {
        assert_eq!(one.with(json!({ "aud": aud })).await, Err(TokenError::Audience), "{aud}");
    }
    for aud in [json!(null), json!({ "selvedge": 1 }), json!(7)] {
        assert_eq!(one.with(json!({ "aud": aud })).await, Err(TokenError::Claim("aud")), "{aud}");
    }
    for iss in ["https://login.test/", "https://evil.test", "HTTPS://login.test"] {
        assert_eq!(one.with(json!({ "iss": iss })).await, Err(TokenError::Issuer), "{iss}");
    }
    assert_eq!(one.with(json!({ "iss": null })).await, Err(TokenError::Claim("iss")));
    for sub in [json!(null), json!(""), json!(7), json!("a\nb"), json!("x".repeat(300))] {
        assert_eq!(one.with(json!({ "sub": sub })).await, Err(TokenError::Claim("sub")), "{sub}");
    }
}

#[tokio::test]
async fn two_issuers_do_not_speak_for_one_another_and_the_same_subject_is_two_principals() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (Key::ed25519(), Key::ed25519());
    let mut issuers = BTreeMap::new();
    for (name, key) in [("corp", &first), ("guests", &second)] {
        let file = folder.path().join(name);
        std::fs::write(&file, set(&[key.public("k1")])).unwrap();
        let own = Issuer { issuer: format!("https://{name}.test"), tenant: Tenant::Fixed(name.to_owned()), ..issuer(file.to_str().unwrap()) };
        issuers.insert(name.to_owned(), own);
    }
    let tokens = selvedge::tokens::believed(issuers, Pace::default(), None).await.unwrap().unwrap();
    let said = |name: &str| {
        let mut said = claims(NOW);
        said["iss"] = format!("https://{name}.test").into();
        said
    };
    let (a, b) = (opens(&tokens, &first.token("k1", &said("corp"))).await.unwrap(), opens(&tokens, &second.token("k1", &said("guests"))).await.unwrap());
    assert_eq!([(&*a.principal.id, &*a.principal.tenant), (&*b.principal.id, &*b.principal.tenant)], [("corp:ada", "corp"), ("guests:ada", "guests")]);
    assert_eq!(opens(&tokens, &second.token("k1", &said("corp"))).await, Err(TokenError::Signature));
}

#[tokio::test]
async fn tenants_roles_and_claims_are_those_of_the_mapping() {
    let by = |claim: &str, map: &[(&str, &str)]| (claim.to_owned(), map.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect());
    let one = One::of(Key::ed25519(), |issuer| {
        let (claim, map) = by("org", &[("o1", "acme")]);
        issuer.tenant = Tenant::Claim { claim, map };
        let (claim, map) = by("/realm/roles", &[]);
        issuer.roles = Roles::Claim { claim, map };
        issuer.audience = OneOrMany::Many(vec!["a".to_owned(), "selvedge".to_owned()]);
        issuer.claims = ["email", "level", "teams", "absent"].map(str::to_owned).to_vec();
    })
    .await;
    let who =
        one.with(json!({ "org": "o1", "realm": { "roles": ["b", "a", "a", "not a role"] }, "email": "a@b.c", "level": 7, "teams": ["x", "y"] })).await.unwrap();
    assert_eq!((who.principal.tenant.as_str(), who.principal.roles), ("acme", vec!["a".to_owned(), "b".to_owned()]));
    let seen = [("email", "a@b.c"), ("iss", "https://login.test"), ("level", "7"), ("teams", "x y")];
    assert_eq!(who.claims, seen.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    assert_eq!(one.with(json!({ "org": "o1", "realm": { "roles": "scope other" } })).await.unwrap().principal.roles, ["other", "scope"]);
    assert!(one.with(json!({ "org": "o1" })).await.unwrap().principal.roles.is_empty());
    for org in [json!("acme"), json!(null), json!(["o1"]), json!("o2")] {
        assert_eq!(one.with(json!({ "org": org })).await, Err(TokenError::Tenant("org".to_owned())), "{org}");
    }
    let many: Vec<String> = (0..17).map(|n| format!("r{n}")).collect();
    let found = one.with(json!({ "org": "o1", "realm": { "roles": many } })).await;
    assert_eq!(found, Err(TokenError::Roles { claim: "/realm/roles".to_owned(), count: 17 }));
    for email in [json!({ "a": 1 }), json!("x".repeat(257)), json!([1])] {
        assert_eq!(one.with(json!({ "org": "o1", "email": email })).await, Err(TokenError::Shown("email".to_owned())), "{email}");
    }
}

#[tokio::test]
async fn strange_headers_and_what_is_too_long_or_said_twice_are_refused() {
    let one = One::new().await;
    for header in [
        r#"{"alg":"EdDSA","kid":"k1"}"#,
        r#"{"alg":"EdDSA"}"#,
        r#"{"alg":"EdDSA","kid":"k1","typ":"at+jwt"}"#,
        r#"{"alg":"EdDSA","kid":"k1","typ":"application/at+JWT","cty":"x"}"#,
    ] {
        assert!(one.written(header).await.is_ok(), "{header}");
    }
    for header in [
        r#"{"alg":"EdDSA","kid":"k1","crit":["b64"],"b64":false}"#,
        r#"{"alg":"EdDSA","kid":"k1","typ":"logout+jwt"}"#,
        r#"{"alg":"EdDSA","kid":"k1","typ":7}"#,
        r#"{"alg":"EdDSA","kid":["k1"]}"#,
        r#"{"alg":"none","kid":"k1","alg":"EdDSA"}"#,
        r#"["EdDSA"]"#,
        r#"{"alg":"EdDSA","kid":"k1"} "x""#,
    ] {
        assert!(matches!(one.written(header).await, Err(TokenError::Malformed(_))), "{header}");
    }
    for header in [r#"{"kid":"k1"}"#, r#"{"alg":["EdDSA"]}"#, r#"{"alg":"PS256"}"#, r#"{"alg":"HS256"}"#] {
        assert_eq!(one.written(header).await, Err(TokenError::Algorithm), "{header}");
    }
    let twice = claims(NOW).to_string().replacen('{', r#"{"sub":"eve","#, 1);
    let token = one.key.token_of(r#"{"alg":"EdDSA","kid":"k1"}"#, &twice);
    assert!(matches!(opens(&one.tokens, &token).await, Err(TokenError::Malformed(_))));
    let long = one.with(json!({ "more": "x".repeat(16 * 1024) })).await;
    assert!(matches!(long, Err(TokenError::Malformed(_))), "{long:?}");
    let token = one.key.token("k1", &claims(NOW));
    for wrong in
        [format!("{token}."), format!("{token}="), token.replace('.', ""), token.replacen('.', "..", 1), format!(" {token}"), "a.b.c".to_owned(), String::new()]
    {
        assert!(matches!(opens(&one.tokens, &wrong).await, Err(TokenError::Malformed(_))), "{wrong}");
    }
}

/// Between two looks, where a test waits for the second one.
const AGAIN: Duration = Duration::from_millis(300);

#[tokio::test]
async fn a_new_key_is_fetched_when_a_token_names_it_and_one_that_is_gone_opens_nothing() {
    let (first, second) = (Key::p256(), Key::rsa());
    let keys = Keys::new(set(&[first.public("k1")])).await;
    let tokens = believed_at(issuer(&keys.url), AGAIN).await;
    let old = first.token("k1", &claims(NOW));
    assert!(opens(&tokens, &old).await.is_ok());
    keys.say(200, set(&[second.public("k2")]));
    let new = second.token("k2", &claims(NOW));
    while let Err(error) = opens(&tokens, &new).await {
        assert!(matches!(error, TokenError::UnknownKey { trouble: None, .. }), "{error}");
    }
    assert!(matches!(opens(&tokens, &old).await, Err(TokenError::UnknownKey { .. })));
}

#[tokio::test]
async fn tokens_that_name_no_key_make_nobody_ask_an_issuer_more_often_than_its_pace() {
    let (first, stranger) = (Key::ed25519(), Key::ed25519());
    let keys = Keys::new(set(&[first.public("k1")])).await;
    let tokens = believed_at(issuer(&keys.url), AGAIN).await;
    let begun = Instant::now();
    let bad: Vec<String> = (0..20).map(|n| stranger.token(&format!("s{n}"), &claims(NOW))).collect();
    while begun.elapsed() < AGAIN * 4 {
        for found in futures(&tokens, &bad).await {
            assert!(matches!(found, Err(TokenError::UnknownKey { .. })));
        }
    }
    let most = begun.elapsed().as_millis() / AGAIN.as_millis() + 1;
    assert!((2..=most).contains(&u128::from(keys.asked())), "{} in {most} times the pace", keys.asked());
    // Another issuer's token, or one that is broken, makes nobody ask at all.
    let asked = keys.asked();
    let tokens = believed(issuer(&keys.url)).await;
    while keys.asked() == asked {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for token in ["x".to_owned(), stranger.token("s", &json!({ "iss": "https://other.test" }))] {
        assert!(opens(&tokens, &token).await.is_err());
    }
    assert_eq!(keys.asked(), asked + 1, "the first look alone");
}

/// All of them at the same time.
async fn futures(tokens: &Tokens, all: &[String]) -> Vec<Result<AuthorizationContext, TokenError>> {
    let mut set = tokio::task::JoinSet::new();
    for token in all {
        set.spawn((tokens.verify)(token.clone(), RequestFacts { address: None, at: Millis(NOW * 1_000) }));
    }
    set.join_all().await
}

#[tokio::test]
async fn what_cannot_be_fetched_leaves_what_is_there_in_force() {
    let (first, second) = (Key::ed25519(), Key::ed25519());
    let keys = Keys::new(set(&[first.public("k1")])).await;
    let tokens = believed_at(issuer(&keys.url), Duration::from_millis(20)).await;
    let (token, other) = (first.token("k1", &claims(NOW)), second.token("k2", &claims(NOW)));
    assert!(opens(&tokens, &token).await.is_ok());
    let wrong = [
        (500, "no".to_owned()),
        (302, set(&[second.public("k2")])),
        (200, "<html>".to_owned()),
        (200, "{}".to_owned()),
        (200, format!("{{\"keys\":[{}]}}", vec!["{}"; 101].join(","))),
        (200, format!("{{\"keys\":[],\"x\":\"{}\"}}", "x".repeat(256 * 1024))),
    ];
    for (turn, (status, body)) in wrong.into_iter().enumerate() {
        keys.say(status, body);
        let asked = keys.asked();
        // The first answer after this may be of before.
        while keys.asked() < asked + 2 {
            assert!(opens(&tokens, &other).await.is_err(), "{turn}");
        }
        let found = opens(&tokens, &other).await;
        assert!(matches!(&found, Err(TokenError::UnknownKey { trouble: Some(_), .. })), "{turn}: {found:?}");
        assert!(opens(&tokens, &token).await.is_ok(), "{turn}");
    }
    // What the set says is done, also where it says that there is none.
    keys.say(200, set(&[]));
    while opens(&tokens, &token).await.is_ok() {
        assert!(opens(&tokens, &other).await.is_err());
    }
    assert!(matches!(opens(&tokens, &token).await, Err(TokenError::UnknownKey { .. })));
}

#[tokio::test]
async fn an_issuer_that_is_down_at_the_start_is_waited_for_and_a_file_that_is_no_set_is_refused() {
    let key = Key::ed25519();
    // Bound and not listened to: nobody else gets the port meanwhile.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}/keys?v=1", socket.local_addr().unwrap());
    let tokens = believed_at(issuer(&url), AGAIN).await;
    let token = key.token("k1", &claims(NOW));
    let found = opens(&tokens, &token).await;
    assert!(matches!(&found, Err(TokenError::UnknownKey { issuer, trouble: Some(_) }) if issuer == "corp"), "{found:?}");
    let _keys = Keys::on(socket.listen(8).unwrap(), set(&[key.public("k1")]));
    while opens(&tokens, &token).await.is_err() {}
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.json");
    let weak = json!({ "kty": "RSA", "kid": "k1", "n": base64(vec![255; 128]), "e": "AQAB" });
    for text in [None, Some("no".to_owned()), Some(set(&[])), Some(set(&[weak]))] {
        if let Some(text) = &text {
            std::fs::write(&file, text).unwrap();
        }
        let refused = selvedge::tokens::believed(BTreeMap::from([("corp".to_owned(), issuer(file.to_str().unwrap()))]), Pace::default(), None).await;
        let said = refused.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(said.contains("`corp`") && said.contains("keys.json"), "{text:?}: {said}");
    }
}
