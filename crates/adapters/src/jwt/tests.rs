use super::*;
use proptest::prelude::*;

proptest! {
    #[test]
    fn any_text_is_taken_apart_or_refused(text in "\\PC{0,80}", parts in prop::collection::vec("[A-Za-z0-9_-]{0,20}", 0..5), json in "[{}\\[\\]\",:a-z0-9]{0,60}") {
        let _ = compact::read(&text);
        let _ = compact::read(&parts.join("."));
        let header = data_encoding::BASE64URL_NOPAD.encode(br#"{"alg":"ES256"}"#);
        let claims = data_encoding::BASE64URL_NOPAD.encode(json.as_bytes());
        if let Ok(token) = compact::read(&format!("{header}.{claims}.AAAA")) {
            prop_assert_eq!(token.algorithm, compact::Algorithm::Es256);
            prop_assert_eq!(token.signed.len(), header.len() + 1 + claims.len());
        }
        let _ = keys::Keys::read(json.as_bytes());
        let _ = keys::Keys::read(format!("{{\"keys\":[{json}]}}").as_bytes());
    }

    #[test]
    fn any_key_of_a_set_is_taken_or_left_out_and_verifies_nothing_that_it_did_not_sign(
        kind in prop::sample::select(vec!["RSA", "EC", "OKP", "oct"]), curve in prop::sample::select(vec!["P-256", "Ed25519", "P-384"]),
        a in prop::collection::vec(any::<u8>(), 0..300), b in prop::collection::vec(any::<u8>(), 0..40), signature in prop::collection::vec(any::<u8>(), 0..300)
    ) {
        let text = |bytes: &[u8]| data_encoding::BASE64URL_NOPAD.encode(bytes);
        let key = serde_json::json!({ "kty": kind, "crv": curve, "kid": "k", "n": text(&a), "e": text(&b), "x": text(&a[..a.len().min(32)]), "y": text(&b[..b.len().min(32)]) });
        let keys = keys::Keys::read(serde_json::json!({ "keys": [key] }).to_string().as_bytes()).map_err(TestCaseError::fail)?;
        for algorithm in [compact::Algorithm::Rs256, compact::Algorithm::Es256, compact::Algorithm::EdDsa] {
            if let Some(key) = keys.find(algorithm, Some("k")) {
                prop_assert!(!key.verifies(b"a.b", &signature));
            }
        }
    }
}
