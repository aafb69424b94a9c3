#![allow(clippy::unwrap_used)]
use super::*;
use crate::auth::{OneOrMany, Roles, Tenant};
use crate::config::{Config, Source, parse_config};

const RIGHT: &str = "authentication:
  issuers:
    corp:
      issuer: https://login.example.org
      audience: [selvedge, other]
      jwks: https://login.example.org/keys
      skew: 5s
      tenant: { claim: org, map: { o1: acme } }
      roles: { claim: groups }
      claims: [email]
    own: { issuer: me, audience: selvedge, jwks: ./keys.json, tenant: acme, roles: [clerk] }
";

fn read(text: &str, variables: &[(&str, &str)]) -> Result<Config, Vec<Diagnostic>> {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let sources = [Source::File { name: "selvedge.yaml".to_owned(), text: text.to_owned() }, Source::Environment(variables)];
    parse_config(&sources).map(|configured| configured.config)
}

#[test]
fn issuers_are_read_with_their_mappings_and_a_layer_above_changes_one_field() {
    let issuers = read(RIGHT, &[("SELVEDGE__AUTHENTICATION__ISSUERS__OWN__JWKS", "http://127.0.0.1:1/keys")]).unwrap().authentication.issuers;
    let (corp, own) = (&issuers["corp"], &issuers["own"]);
    assert_eq!(corp.audience, OneOrMany::Many(vec!["selvedge".to_owned(), "other".to_owned()]));
    assert_eq!((corp.skew.0.as_secs(), own.skew.0.as_secs()), (5, 60));
    assert_eq!(corp.tenant, Tenant::Claim { claim: "org".to_owned(), map: [("o1".to_owned(), "acme".to_owned())].into() });
    assert_eq!((&corp.roles, corp.claims.as_slice()), (&Roles::Claim { claim: "groups".to_owned(), map: BTreeMap::new() }, &["email".to_owned()][..]));
    assert_eq!((&own.tenant, &own.roles), (&Tenant::Fixed("acme".to_owned()), &Roles::Fixed(vec!["clerk".to_owned()])));
    assert_eq!(own.jwks, "http://127.0.0.1:1/keys");
}

#[test]
fn each_thing_that_is_wrong_with_an_issuer_is_told_with_its_line_and_what_to_write() {
    for (change, to, line, says) in [
        ("skew: 5s", "skew: 11m", 7, "10 minutes"),
        ("skew: 5s", "skew: 5", 7, "skew"),
        ("skew: 5s", "scew: 5s", 7, "no field `scew`"),
        ("https://login.example.org/keys", "http://login.example.org/keys", 6, "on the way"),
        ("https://login.example.org/keys", "ftp://login.example.org/keys", 6, "scheme"),
        ("[selvedge, other]", "[]", 5, "is empty"),
        ("[selvedge, other]", "[selvedge, '']", 5, "is empty"),
        ("{ claim: org, map: { o1: acme } }", "{ claim: '' }", 8, "is empty"),
        ("{ claim: org, map: { o1: acme } }", "{ claim: org, map: [] }", 8, "must be a mapping"),
        ("{ claim: org, map: { o1: acme } }", "{ claim: org, map: {} }", 8, "is empty"),
        ("{ claim: org, map: { o1: acme } }", "[acme]", 8, "must be a string"),
        ("{ claim: org, map: { o1: acme } }", "{ map: { o1: acme } }", 3, "`tenant` of the issuer `corp` has no `claim`"),
        ("{ claim: groups }", "{ claim: groups, map: { a: 'b c' } }", 9, "no name of a role"),
        ("{ claim: groups }", "clerk", 9, "must be a list"),
        ("roles: [clerk]", "roles: ['a b']", 11, "no name of a role"),
        (", roles: [clerk]", "", 11, "the issuer `own` has no `roles`"),
        ("issuer: me", "issuer: https://login.example.org", 11, "are the same"),
        ("    own:", "    Own:", 11, "not a name"),
        ("  issuers:", "  isuers:", 2, "no field"),
    ] {
        assert!(RIGHT.contains(change), "{change}");
        let errors = read(&RIGHT.replacen(change, to, 1), &[]).unwrap_err();
        let found = errors.iter().find(|error| error.message.contains(says)).unwrap_or_else(|| panic!("{to}: {errors:?}"));
        assert_eq!((found.file.as_str(), found.line), ("selvedge.yaml", line), "{to}: {found}");
        assert!(found.hint.as_ref().is_some_and(|hint| !hint.is_empty()), "{found}");
    }
}

#[test]
fn a_layer_that_names_an_issuer_of_its_own_has_to_say_all_of_it() {
    let errors = read("data: x\n", &[("SELVEDGE__AUTHENTICATION__ISSUERS__CORP__JWKS", "./keys.json")]).unwrap_err();
    assert_eq!(errors.len(), 4, "{errors:?}");
    assert!(errors.iter().all(|error| error.file == "SELVEDGE__AUTHENTICATION__ISSUERS__CORP__JWKS"), "{errors:?}");
}

#[test]
fn a_map_from_which_everything_was_taken_does_not_let_each_value_mean_itself() {
    let emptied = RIGHT.replace("roles: { claim: groups }", "roles: { claim: groups, map: { admins: ~ } }");
    let meant = RIGHT.replace("roles: { claim: groups }", "roles: { claim: groups, map: { admins: owner } }");
    let errors: Vec<String> = read(&emptied, &[]).unwrap_err().into_iter().map(|error| error.message).collect();
    assert_eq!(errors, ["`roles.map` of the issuer `corp` has nothing in it"]);
    assert!(read(&meant, &[]).is_ok());
}
