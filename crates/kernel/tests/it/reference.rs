//! The pages that are generated from types: what they say is what is read, and they are committed as they are.

use std::collections::BTreeSet;
use std::path::Path;

use selvedge_kernel::config::{Config, ISSUER, KEYS, Off, Profile, Source, Tls, TlsFiles, parse_config, reference};
use selvedge_kernel::limit::Limits;
use selvedge_kernel::pipeline::editor::app_reference;
use serde_json::{Map, Value};

#[test]
fn the_reference_in_docs_is_what_the_types_say() {
    for (page, written) in [("configuration.md", reference()), ("app.md", app_reference())] {
        let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference").join(page);
        if std::env::var_os("SELVEDGE_WRITE_REFERENCE").is_some() {
            std::fs::write(&place, &written).unwrap();
        }
        let committed = std::fs::read_to_string(&place).unwrap_or_default();
        assert!(
            committed == written,
            "docs/reference/{page} is not what the types say: run this test with SELVEDGE_WRITE_REFERENCE=1 and look at the difference"
        );
    }
}

fn leaves(value: &Value, path: String, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| leaves(value, if path.is_empty() { name.clone() } else { format!("{path}.{name}") }, found))
        }
        _ => drop(found.insert(path)),
    }
}

#[test]
fn every_field_of_the_configuration_has_a_row_and_every_row_a_field() {
    let files = TlsFiles { certificate: "c".to_owned(), key: "k".to_owned() };
    let mut fields = BTreeSet::new();
    for tls in [Tls::Off(Off::Off), Tls::Files(files)] {
        let config = Config { tls: Some(tls), profile: Some(Profile::Production), ..Config::default() };
        leaves(&serde_json::to_value(&config).unwrap(), String::new(), &mut fields);
    }
    let limits: BTreeSet<String> = Limits::MEANINGS.iter().map(|(name, _)| format!("limits.{name}")).collect();
    let rows: BTreeSet<String> = KEYS.iter().map(|key| key.path.to_owned()).chain(limits).collect();
    assert_eq!(fields, rows, "a key has no row in `KEYS` of kernel/config/reference.rs, or a row has no key");
}

#[test]
fn every_field_of_an_issuer_has_a_row_and_every_row_a_field() {
    let text = "authentication: { issuers: { corp: { issuer: i, audience: a, jwks: ./k.json, tenant: t, roles: [r] } } }";
    let configured = parse_config(&[Source::File { name: "selvedge.yaml".to_owned(), text: text.to_owned() }]).unwrap();
    let issuer = serde_json::to_value(&configured.config.authentication.issuers["corp"]).unwrap();
    let fields: BTreeSet<String> = issuer.as_object().unwrap().keys().cloned().collect();
    let rows: BTreeSet<String> = ISSUER.iter().map(|key| key.path.to_owned()).collect();
    assert_eq!(fields, rows, "a field of an issuer has no row in `ISSUER` of kernel/config/reference.rs, or a row has no field");
}

#[test]
fn every_example_of_the_reference_is_taken_and_no_list_is() {
    for key in KEYS {
        // One of two files alone is an error of its own.
        let beside = if key.path.starts_with("tls.") {
            vec![("tls.certificate".to_owned(), "c".to_owned()), ("tls.key".to_owned(), "k".to_owned())]
        } else {
            Vec::new()
        };
        let flag = (key.path.to_owned(), key.example.to_owned());
        parse_config(&[Source::Flags(beside.into_iter().chain([flag]).collect())]).unwrap_or_else(|errors| panic!("{}: {errors:?}", key.path));
        let list = key.path.split('.').rev().fold(serde_json::json!([1]), |value, name| Value::Object(Map::from_iter([(name.to_owned(), value)])));
        let errors = parse_config(&[Source::File { name: "selvedge.yaml".to_owned(), text: list.to_string() }]).unwrap_err();
        assert!(errors.iter().all(|error| error.line == 1 && error.hint.is_some()) && errors[0].message.contains(key.path), "{}: {errors:?}", key.path);
    }
}
