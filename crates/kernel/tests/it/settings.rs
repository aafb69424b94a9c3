//! The manifest and the configuration.

use proptest::prelude::*;
use selvedge_kernel::config::{Config, Layer, Source, mentions, merge_config, parse_config};
use selvedge_kernel::diagnostic::listed;
use selvedge_kernel::limit::Limits;
use selvedge_kernel::manifest::{Performer, parse_manifest};
use selvedge_kernel::policy::Retry;
use serde_json::{Map, Value, json};

fn file(text: &str) -> Source {
    Source::File { name: "selvedge.yaml".to_owned(), text: text.to_owned() }
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn manifest_names_activities_actors_and_pipelines() {
    let text = "activities:\n  head: {exec: [python3, head.py], processes: 2}\nactors:\n  licence:\n    expected_within: 10m\n    handlers:\n      count: {exec: [python3, licence.py], folder: workers}\n      list: {exec: [python3, licence.py], retry: none, timeout: {attempt: 5s}}\n      weigh: {worker: {lease: 2m}}\npipelines: [a.yaml, sub/b.yaml]\n";
    let (manifest, warnings) = parse_manifest("app.yaml", text).unwrap();
    assert!(warnings.is_empty());
    assert_eq!(manifest.pipelines, ["a.yaml", "sub/b.yaml"]);
    let handlers = &manifest.actors["licence"].handlers;
    assert_eq!(handlers["count"].retry, Retry::message());
    assert!(matches!(&handlers["count"].run, Performer::Exec(exec) if exec.folder == "workers"));
    assert!(matches!(&handlers["weigh"].run, Performer::Worker(worker) if worker.lease.0 == std::time::Duration::from_secs(120)));
    assert_eq!(handlers["list"].retry, Retry::none());
    assert_eq!(manifest.actors["licence"].expected_within.unwrap().0, std::time::Duration::from_secs(600));
    let known = manifest.known();
    assert!(known.activities.contains("head") && known.actors["licence"].contains("list"));
}

#[test]
fn nothing_configured_is_the_defaults() {
    let configured = parse_config(&[]).unwrap();
    assert_eq!(configured.config, Config::default());
    assert!(configured.explain().iter().all(|(_, _, origin)| origin == "default"));
}

#[test]
fn flags_win_over_environment_and_environment_over_file_and_each_value_says_where_it_came_from() {
    let sources = [
        file("data: ./a\nworkers: 3\nlimits: {inbox: 20000, signals: 5}\nlog: {level: debug}\n"),
        Source::Environment(pairs(&[
            ("SELVEDGE__LIMITS__INBOX", "30000"),
            ("SELVEDGE__DATA", "./b"),
            ("SELVEDGE__WORKERS", ""),
            ("SELVEDGE_KEY", "x"),
            ("PATH", "/bin"),
        ])),
        Source::Flags(pairs(&[("data", "2026"), ("suspend_after", "5s")])),
    ];
    let configured = parse_config(&sources).unwrap();
    let config = &configured.config;
    assert_eq!((config.data.as_str(), config.workers), ("2026", None));
    assert_eq!((config.limits.inbox, config.limits.signals, config.limits.stages), (30_000, 5, Limits::default().stages));
    let said: Vec<String> = configured
        .explain()
        .into_iter()
        .filter(|(_, _, origin)| origin != "default")
        .map(|(path, value, origin)| format!("{path} = {value} from {origin}"))
        .collect();
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn errors_of_all_layers_come_at_once_and_name_variable_and_flag() {
    let sources = [
        file("data: 5\n"),
        Source::Environment(pairs(&[("SELVEDGE__LIMITS__INBOX", "lots"), ("SELVEDGE__LIMIT__INBOX", "5"), ("SELVEDGE__", "x"), ("SELVEDGE__WORKERS", "007")])),
        Source::Flags(pairs(&[("replay_always", "maybe"), ("log", "debug")])),
    ];
    insta::assert_snapshot!(listed(&parse_config(&sources).unwrap_err()));
}

#[test]
fn what_is_wrong_between_layers_is_said_where_it_was_written() {
    let configured = parse_config(&[file("workers: 2\nretention:\n  finished: 3d\n"), Source::Environment(pairs(&[("SELVEDGE__WORKERS", "3")]))]).unwrap();
    let of_file = configured.wrong("/retention/finished", "too long", "write less");
    assert_eq!(of_file.to_string(), "selvedge.yaml:3:13: too long\n  hint: write less");
    assert_eq!(configured.wrong("/workers", "too many", "write less").to_string(), "SELVEDGE__WORKERS: too many\n  hint: write less");
    let half = |text: &str, key: &str| parse_config(&[file(text), Source::Environment(pairs(&[("SELVEDGE__TLS__KEY", key)]))]);
    let errors = half("tls: { certificate: a.pem }\n", "").unwrap_err();
    assert!(errors[0].to_string().starts_with("selvedge.yaml:1:21: `tls` has no `key`"), "{}", listed(&errors));
    assert!(half("tls: { certificate: a.pem }\n", "2026").is_ok(), "each layer may name one of them");
    assert!(half("tls: off\n", "k.pem").unwrap_err()[0].to_string().starts_with("SELVEDGE__TLS__KEY: `tls` has no `certificate`"));
}

#[test]
fn what_a_broken_configuration_names_outside_is_known_all_the_same() {
    let layers = [
        file("data: ./a\nworkers: many\nauthorization: { policies: ./rules }\ntls: { certificate: a.pem, key: 5 }\n"),
        Source::Environment(pairs(&[("SELVEDGE__TLS__CERTIFICATE", "b.pem")])),
    ];
    let found: Vec<String> = mentions(&layers).into_iter().map(|(path, mention)| format!("{path} = {} at {}", mention.text, mention.place)).collect();
    assert_eq!(
        found,
        [
            "authorization.policies = ./rules at selvedge.yaml:3:28: ",
            "data = ./a at selvedge.yaml:1:7: ",
            "tls.certificate = b.pem at SELVEDGE__TLS__CERTIFICATE: "
        ]
    );
    let broken = Source::File { name: "selvedge.yaml".to_owned(), text: "data: [".to_owned() };
    assert!(mentions(&[broken]).is_empty());
}

#[test]
fn merge_is_deep_for_objects_replaces_the_rest_and_removes_by_null() {
    let layer = |origin: &str, priority, value| Layer { origin: origin.to_owned(), priority, value };
    let merged = merge_config(&[
        layer("flags", 3, json!({"a": {"y": 9}, "list": [3]})),
        layer("low", 1, json!({"a": {"x": 1, "y": 2, "z": {"q": 1}}, "list": [1, 2], "gone": {"b": 1}, "s": "text"})),
        layer("middle", 2, json!({"a": {"x": null, "z": {"q": 2, "r": 3}}, "gone": null, "s": {"now": "object"}, "e": {}})),
        layer("also middle", 2, json!({"a": {"z": {"r": 4}}})),
    ]);
    assert_eq!(merged.value, json!({"a": {"y": 9, "z": {"q": 2, "r": 4}}, "list": [3], "s": {"now": "object"}, "e": {}}));
    assert_eq!(
        serde_json::to_value(&merged.origins).unwrap(),
        json!({"/a/y": "flags", "/a/z/q": "middle", "/a/z/r": "also middle", "/e": "middle", "/list": "flags", "/s/now": "middle"})
    );
}

/// The merge rule as its page says it, one pair at a time.
fn naive(low: Value, high: &Value) -> Value {
    match (low, high) {
        (low, Value::Object(high)) => {
            let mut whole = if let Value::Object(low) = low { low } else { Map::new() };
            for (key, value) in high {
                let below = whole.shift_remove(key).unwrap_or(Value::Null);
                if !value.is_null() {
                    whole.insert(key.clone(), naive(below, value));
                }
            }
            Value::Object(whole)
        }
        (_, high) => high.clone(),
    }
}

fn tree() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![Just(Value::Null), (0..3).prop_map(Value::from), Just(json!([1])), Just(json!({}))];
    leaf.prop_recursive(3, 16, 3, |inner| prop::collection::vec(("[a-c]", inner), 0..3).prop_map(|entries| Value::Object(entries.into_iter().collect())))
}

fn leaves(value: &Value, pointer: &str, out: &mut Vec<String>) {
    match value {
        Value::Object(entries) if !entries.is_empty() => entries.iter().for_each(|(key, value)| leaves(value, &format!("{pointer}/{key}"), out)),
        _ => out.push(pointer.to_owned()),
    }
}

proptest! {
    #[test]
    fn merge_agrees_with_the_rule_and_every_leaf_has_one_origin(values in prop::collection::vec((0..3i32, prop::collection::vec(("[a-c]", tree()), 0..4)), 1..5)) {
        let layers: Vec<Layer> = values.into_iter().enumerate().map(|(index, (priority, entries))| Layer { origin: index.to_string(), priority, value: Value::Object(entries.into_iter().collect()) }).collect();
        let merged = merge_config(&layers);
        let mut ordered = layers.clone();
        ordered.sort_by_key(|layer| layer.priority);
        let expected = ordered.iter().fold(json!({}), |low, layer| naive(low, &layer.value));
        prop_assert_eq!(&merged.value, &expected);
        let mut found = Vec::new();
        leaves(&merged.value, "", &mut found);
        found.sort();
        prop_assert_eq!(&found, &merged.origins.keys().cloned().collect::<Vec<_>>());
        for (pointer, origin) in &merged.origins {
            // Who is said to have said it did say it, unless it is an object that was emptied.
            let said = layers[origin.parse::<usize>().unwrap()].value.pointer(pointer);
            let value = merged.value.pointer(pointer).unwrap();
            prop_assert!(said == Some(value) || value == &json!({}), "{} from {}", pointer, origin);
        }
    }
}

#[test]
fn what_stands_in_the_place_of_files_in_a_layer_above_takes_them_away() {
    let below = file("tls: { certificate: ./c.pem, key: ./k.pem }\nauthorization: { policies: ./p }\n");
    for (variable, gone) in [("SELVEDGE__TLS", "tls.certificate"), ("SELVEDGE__AUTHORIZATION", "authorization.policies")] {
        let value = if variable == "SELVEDGE__TLS" { "off" } else { "" };
        let layers = [below.clone(), Source::Environment(pairs(&[(variable, value)]))];
        assert!(!mentions(&layers).contains_key(gone), "{variable}");
        assert_eq!(mentions(&layers).len(), if gone == "tls.certificate" { 1 } else { 2 });
    }
}
