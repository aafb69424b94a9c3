//! Files that are right, warnings, versions, inputs.

use proptest::prelude::*;
use selvedge_kernel::diagnostic::listed;
use selvedge_kernel::pipeline::definition::{Combine, Definition, Mode, OnFailure};
use selvedge_kernel::pipeline::document::parse_documents;
use selvedge_kernel::pipeline::expression::Expression;
use selvedge_kernel::pipeline::parse::{Known, parse_pipeline, parse_pipeline_among, version};
use selvedge_kernel::pipeline::schema::validate_input;
use selvedge_kernel::pipeline::template::Template;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const AUDIT: &str = include_str!("../data/right/audit.yaml");

fn parsed(text: &str) -> (Definition, String) {
    match parse_pipeline("pipeline.yaml", text) {
        Ok((definition, warnings)) => (definition, listed(&warnings)),
        Err(errors) => panic!("{}", listed(&errors)),
    }
}

fn errors(text: &str) -> String {
    listed(&parse_pipeline("pipeline.yaml", text).unwrap_err())
}

#[test]
fn whole_file_becomes_the_definition_with_its_defaults() {
    let (definition, warnings) = parsed(AUDIT);
    insta::assert_json_snapshot!("audit", definition);
    insta::assert_snapshot!("audit_warnings", warnings);
    // What is stored can be read again.
    let stored = serde_json::to_vec(&definition).unwrap();
    assert_eq!(serde_json::from_slice::<Definition>(&stored).unwrap(), definition);
}

#[test]
fn every_expression_of_a_valid_definition_compiles() {
    let (definition, _) = parsed(AUDIT);
    for stage in &definition.stages {
        Template::compile(&stage.input).unwrap();
        Template::compile(&stage.output).unwrap();
        stage.when.iter().for_each(|text| drop(Expression::compile(text).unwrap()));
    }
}

#[test]
fn the_same_pipeline_as_json_is_the_same_definition() {
    let tree = &parse_documents("audit.yaml", AUDIT).unwrap()[0];
    let json = serde_json::to_string_pretty(&tree.to_value()).unwrap();
    assert_eq!(parsed(&json).0, parsed(AUDIT).0);
}

#[test]
fn version_depends_on_what_is_said_and_not_on_how_it_is_written() {
    let one = parsed("selvedge: 1\nname: a\nstages: [{name: s, call: w, retry: {max_attempts: 3, jitter: 0}, input: {x: 1, y: 2}}]\n").0;
    let same = parsed("# a comment\nname: a\nstages:\n  - call: w\n    input: {y: 2, x: 1}\n    name: s\n    mode: single\n    retry: {jitter: 0.0, max_attempts: 3}\nselvedge: 1\n").0;
    let other = parsed("selvedge: 1\nname: a\nstages: [{name: s, call: w, retry: {max_attempts: 4, jitter: 0}, input: {x: 1, y: 2}}]\n").0;
    assert_eq!(version(&one), version(&same));
    assert_ne!(version(&one), version(&other));
    assert!(version(&one).len() == 32 && version(&one).bytes().all(|c| c.is_ascii_hexdigit()));
}

#[test]
fn stage_without_depends_on_waits_for_the_one_above_and_a_gather_for_what_it_gathers() {
    let (definition, _) = parsed(
        "selvedge: 1\nname: p\nstages:\n  - {name: a, call: w}\n  - {name: b, call: w}\n  - {name: c, call: w, depends_on: []}\n  - {name: d, mode: gather, stages: [a, c]}\n  - {name: e, mode: gather, stages: [a], depends_on: [b, a]}\n",
    );
    let all: Vec<Vec<String>> = definition.stages.iter().map(|stage| stage.depends_on.clone()).collect();
    assert_eq!(all, [vec![], vec!["a"], vec![], vec!["a", "c"], vec!["a", "b"]]);
    assert!(matches!(&definition.stages[3].mode, Mode::Gather { combine: Combine::Concat, .. }));
}

#[test]
fn projection_over_a_stage_that_can_give_nulls_is_warned_of() {
    let (_, warnings) = parsed(
        "selvedge: 1\nname: p\ninput: {files: {type: array}}\nstages:\n  - name: a\n    mode: scatter\n    over: input.files\n    call: w\n    on_failure: continue\n  - name: b\n    call: w\n    when: length(stages.a.output) > `0`\n    input: \"${stages.a.failures[].item}\"\n  - name: c\n    call: w\n    input: \"${stages.a.output[].x} ${stages.a.output[*].y} ${map(&x, stages.a.output)}\"\n",
    );
    insta::assert_snapshot!(warnings);
}

#[test]
fn calls_are_checked_against_what_exists_where_that_is_known() {
    let known = Known {
        activities: BTreeSet::from(["charge_card".to_owned()]),
        actors: BTreeMap::from([("stock".to_owned(), BTreeSet::from(["reserve".to_owned(), "release".to_owned()]))]),
        pipelines: Some(BTreeSet::from(["totals".to_owned()])),
        ..Known::default()
    };
    let text = "selvedge: 1\nname: p\nactivities: {own: {native: true}}\nstages:\n  - {name: a, call: charge_cart}\n  - {name: b, call: own}\n  - {name: c, call: {actor: stok, key: x, handler: reserve}}\n  - {name: d, call: {actor: stock, key: x, handler: reserv}, on_failure: {call: zzz}}\n  - {name: e, call: charge_card}\n  - {name: f, call: {pipeline: total}}\n  - {name: g, call: {pipeline: totals}}\n";
    let found = parse_pipeline_among("pipeline.yaml", text, Some(&known)).unwrap_err();
    insta::assert_snapshot!(listed(&found));
    assert!(parse_pipeline("pipeline.yaml", text).is_ok());
}

#[test]
fn documents_beyond_their_limits_are_refused_by_the_limits_name() {
    let bombs = [
        ("levels", "[".repeat(10_000)),
        ("block levels", (0..100).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect()),
        ("nodes", format!("a: [{}]", "1,".repeat(100_001))),
        ("bytes", format!("a: {}", "x".repeat(1 << 20))),
        ("keys", (0..60_000).map(|key| format!("k{key}: 1\n")).collect::<String>()),
    ];
    let found: Vec<String> = bombs
        .iter()
        .map(|(name, text)| {
            format!(
                "{name}:\n{}",
                errors(text).lines().last().map_or(String::new(), |_| errors(text)
                    .lines()
                    .filter(|line| line.contains("limit:"))
                    .collect::<Vec<_>>()
                    .join("\n"))
            )
        })
        .collect();
    insta::assert_snapshot!(found.join("\n"));
}

#[test]
fn file_with_endless_errors_lists_a_hundred() {
    let text: String = (0..500).map(|key| format!("k{key}: 1\n")).collect();
    let found = parse_pipeline("pipeline.yaml", &text).unwrap_err();
    assert_eq!(found.len(), 101);
    assert_eq!(found[100].to_string(), "pipeline.yaml: 403 more errors are not listed");
}

#[test]
fn several_documents_are_read_where_asked() {
    let trees = parse_documents("all.yaml", "a: 1\n---\nb: 2\n").unwrap();
    assert_eq!(trees.iter().map(|tree| tree.to_value()).collect::<Vec<_>>(), [json!({"a": 1}), json!({"b": 2})]);
}

const INPUT: &str = "selvedge: 1\nname: p\ninput:\n  files: {type: array, items: {type: string, minLength: 2}, maxItems: 3}\n  limit: {type: integer, minimum: 1, maximum: 10, default: 5}\n  kind: {enum: [a, b, 1], default: a}\n  who: {type: object, properties: {name: {type: string}, lang: {type: string, default: en}}, required: [name, lang], default: {name: x}}\n  any: {type: [string, \"null\"], default: null}\nstages: [{name: s, call: w}]\n";

#[test]
fn input_is_checked_whole_and_filled_with_defaults() {
    let (definition, _) = parsed(INPUT);
    let given = json!({"files": ["ab"], "who": {"name": "ada"}});
    assert_eq!(
        validate_input(&definition, given).unwrap(),
        json!({"files": ["ab"], "who": {"name": "ada", "lang": "en"}, "limit": 5, "kind": "a", "any": null})
    );
    let (nothing, _) = parsed("selvedge: 1\nname: p\nstages: [{name: s, call: w}]\n");
    assert_eq!(validate_input(&nothing, Value::Null).unwrap(), json!({}));
}

#[test]
fn broken_inputs_are_refused_with_every_error() {
    let (definition, _) = parsed(INPUT);
    let inputs = [
        json!([]),
        json!({}),
        json!({"file": []}),
        json!({"files": "x"}),
        json!({"files": ["ab", "c", 3, "ab"], "limit": 11, "kind": "c", "who": {}, "any": 5}),
        json!({"files": [], "limit": 1.5}),
        json!({"files": [], "limit": 0, "kind": 1.0, "who": {"name": 7}}),
    ];
    let all: Vec<String> = inputs.into_iter().map(|input| format!("{input}\n{}", listed(&validate_input(&definition, input.clone()).unwrap_err()))).collect();
    insta::assert_snapshot!(all.join("\n\n"));
}

#[test]
fn max_failed_is_a_count_or_a_percentage() {
    let failure = |text: &str| parsed(&format!("selvedge: 1\nname: p\nstages: [{{name: s, call: w, on_failure: {text}}}]\n")).0.stages[0].on_failure.clone();
    assert_eq!(serde_json::to_value(failure("{continue: {max_failed: 2.5%}}")).unwrap(), json!({"continue": {"max_failed": {"percent": 2.5}}}));
    assert_eq!(serde_json::to_value(failure("{continue: {max_failed: 5}}")).unwrap(), json!({"continue": {"max_failed": {"count": 5}}}));
    assert_eq!(failure("{continue: {}}"), OnFailure::Continue { max_failed: None });
}

proptest! {
    #[test]
    fn any_text_is_a_definition_or_errors_each_with_its_place(text in "([a-z]{1,6}: |- |  |\\n|\\[|\\]|\\{|\\}|,|'|\"|&a|\\*a|!x|`|\\$\\{|---|selvedge: 1\\n|name: p\\n|stages:\\n|[0-9.]{1,3}| ){0,40}") {
        if let Err(errors) = parse_pipeline("p", &text) {
            prop_assert!(!errors.is_empty());
            prop_assert!(errors.iter().all(|error| error.line > 0 && error.column > 0), "{}", listed(&errors));
            prop_assert!(errors.is_sorted());
        }
    }

    #[test]
    fn cut_anywhere_or_with_a_byte_changed_a_file_never_panics(at in 0usize..2_000, byte in 0u8..128) {
        let at = at.min(AUDIT.len() - 1);
        if AUDIT.is_char_boundary(at) {
            let _ = parse_pipeline("p", &AUDIT[..at]);
            if AUDIT.is_char_boundary(at + 1) {
                let _ = parse_pipeline("p", &format!("{}{}{}", &AUDIT[..at], char::from(byte), &AUDIT[at + 1..]));
            }
        }
    }

    #[test]
    fn cycles_are_found_if_and_only_if_there_is_one(edges in prop::collection::vec((0usize..8, 0usize..8), 0..14)) {
        let mut text = "selvedge: 1\nname: p\nstages:\n".to_owned();
        for stage in 0..8 {
            let before: Vec<String> = edges.iter().filter(|(from, _)| *from == stage).map(|(_, to)| format!("s{to}")).collect();
            text += &format!("  - {{name: s{stage}, call: w, depends_on: [{}]}}\n", before.join(", "));
        }
        // Naive: whoever can reach itself.
        let mut reach = [[false; 8]; 8];
        edges.iter().for_each(|(from, to)| reach[*from][*to] = true);
        for middle in 0..8 { for from in 0..8 { for to in 0..8 { reach[from][to] |= reach[from][middle] && reach[middle][to]; } } }
        let cyclic = (0..8).any(|stage| reach[stage][stage]);
        match parse_pipeline("p", &text) {
            Ok(_) => prop_assert!(!cyclic),
            Err(errors) => {
                prop_assert!(cyclic && errors.iter().all(|error| error.message.contains("wait for one another")));
                for error in errors {
                    let names: Vec<usize> = error.message.rsplit(": ").next().unwrap().split(" → ").map(|name| name[1..].parse().unwrap()).collect();
                    prop_assert!(names.windows(2).all(|pair| edges.contains(&(pair[0], pair[1]))));
                }
            }
        }
    }

    #[test]
    fn reading_a_stage_is_allowed_if_and_only_if_it_is_upstream(edges in prop::collection::vec((1usize..7, 0usize..6), 0..12), reader in 0usize..7, read in 0usize..7) {
        let edges: Vec<(usize, usize)> = edges.into_iter().filter(|(from, to)| to < from).collect();
        let mut text = "selvedge: 1\nname: p\nstages:\n".to_owned();
        for stage in 0..7 {
            let before: Vec<String> = edges.iter().filter(|(from, _)| *from == stage).map(|(_, to)| format!("s{to}")).collect();
            let input = if stage == reader { format!(", input: \"${{stages.s{read}.output}}\"") } else { String::new() };
            text += &format!("  - {{name: s{stage}, call: w, depends_on: [{}]{input}}}\n", before.join(", "));
        }
        let mut reach = [[false; 7]; 7];
        edges.iter().for_each(|(from, to)| reach[*from][*to] = true);
        for middle in 0..7 { for from in 0..7 { for to in 0..7 { reach[from][to] |= reach[from][middle] && reach[middle][to]; } } }
        prop_assert_eq!(parse_pipeline("p", &text).is_ok(), reach[reader][read]);
    }
}

#[test]
fn field_that_other_systems_have_is_answered_with_the_name_that_it_has_here() {
    let stages = "stages:\n  - { name: a, call: x }\n  - { name: b, call: x, FIELD: [a] }\n";
    let file = |rest: &str| format!("selvedge: 1\nname: p\n{rest}");
    for (theirs, ours) in [("after", "depends_on"), ("needs", "depends_on"), ("depends", "depends_on"), ("uses", "call"), ("if", "when")] {
        let said = errors(&file(&stages.replace("FIELD", theirs)));
        assert!(said.contains(&format!("has no field `{theirs}`\n  hint: did you mean `{ours}`?")), "{said}");
    }
    let said = errors(&file("steps: [{ name: a, call: x }]\n"));
    assert!(said.contains("a pipeline has no field `steps`\n  hint: did you mean `stages`?"), "{said}");
    // A name is only proposed where it may be written.
    let said = errors(&file("if: true\nstages: [{ name: a, call: x }]\n"));
    assert!(said.contains("a pipeline has no field `if`") && !said.contains("when`?"), "{said}");
}
