#![allow(clippy::unwrap_used)]
use super::*;
use crate::machine::{ApprovalState, InvocationState, RunState};
use proptest::prelude::*;

fn filter(text: &str) -> Filter {
    parse(List::Runs, text).unwrap()
}

fn refused(list: List, text: &str) -> Vec<String> {
    parse(list, text).unwrap_err().iter().map(ToString::to_string).collect()
}

fn row() -> Row {
    let text = |text: &str| Value::Text(text.to_owned());
    Row {
        fields: vec![
            ("status".to_owned(), text("waiting")),
            ("pipeline".to_owned(), text("order")),
            ("age".to_owned(), Value::Duration("2h".parse().unwrap())),
            ("started".to_owned(), Value::Time(Millis(1_764_057_600_000))),
            ("attr.customer".to_owned(), text("ada")),
            ("attr.cents".to_owned(), Value::Number(1250.0)),
        ],
        texts: vec!["order of Ada Lovelace".to_owned(), "waits for a decision".to_owned()],
    }
}

fn keeps(text: &str) -> bool {
    matches(&filter(text), &row())
}

#[test]
fn filter_of_the_design_keeps_what_it_says() {
    assert!(keeps(r#"status:waiting pipeline:order age>1h attr.customer:ada "Ada Love""#));
    for one_wrong in [
        r#"status:failed pipeline:order age>1h attr.customer:ada "Ada Love""#,
        r#"status:waiting pipeline:orders age>1h attr.customer:ada "Ada Love""#,
        r#"status:waiting pipeline:order age>2h attr.customer:ada "Ada Love""#,
        r#"status:waiting pipeline:order age>1h attr.customer:bob "Ada Love""#,
        r#"status:waiting pipeline:order age>1h attr.customer:ada "Adam""#,
        r#"status:waiting pipeline:order age>1h attr.customer:ada -"Ada Love""#,
    ] {
        assert!(!keeps(one_wrong), "{one_wrong}");
    }
}

#[test]
fn numbers_durations_and_times_compare_at_their_bounds() {
    for (text, kept) in [
        ("age>=2h", true),
        ("age>2h", false),
        ("age<=120m", true),
        ("age<2h", false),
        ("age:PT2H", true),
        ("attr.cents>1249.5", true),
        ("attr.cents<=1250", true),
        ("attr.cents:1250.0", true),
        ("attr.cents:1251", false),
        ("started>=2025-11-25", true),
        ("started>2025-11-25T08:00:00Z", false),
        ("started<2025-11-26", true),
    ] {
        assert_eq!(keeps(text), kept, "{text}");
    }
}

#[test]
fn field_that_a_row_has_not_got_holds_for_nothing_and_its_negation_for_everything() {
    assert!(!keeps("attr.country:at"));
    assert!(!keeps("attr.country<5"));
    assert!(keeps("-attr.country:at"));
    assert!(keeps("-ended>2020-01-01"));
}

#[test]
fn empty_filter_keeps_everything() {
    assert!(matches(&filter(""), &Row::default()));
    assert!(matches(&filter(" \t "), &Row::default()));
}

#[test]
fn words_alone_are_text_in_any_case() {
    assert!(keeps("LOVELACE decision"));
    assert!(keeps("-nobody"));
    assert!(!keeps("-lovelace"));
}

#[test]
fn every_error_names_its_column_and_what_to_write() {
    assert_eq!(
        refused(List::Runs, "statsu:waiting age>soon pipeline>order"),
        [
            "column 1: there is no field `statsu` here; did you mean `status`?",
            "column 20: `age`: `soon` is not a duration: it does not start with a whole number; write 250ms, 30s, 5m, 2h, 7d or ISO 8601 such as PT30S",
            "column 33: `pipeline` is text: `>` does not compare it; write pipeline:order",
        ]
    );
    assert_eq!(refused(List::Runs, "ä status:waitng"), ["column 10: `status` is never `waitng`; did you mean `waiting`?"]);
    assert_eq!(refused(List::Runs, "status: waiting"), ["column 8: `status` has no value; write status:VALUE, without a space"]);
    assert_eq!(refused(List::Runs, "status"), ["column 1: `status` is a field without a value; write status:VALUE, or \"status\" for the text"]);
    assert_eq!(refused(List::Runs, "age>1h - x"), ["column 8: `-` negates nothing; write it in front of a term, without a space"]);
    assert_eq!(refused(List::Runs, "a \"b c"), ["column 3: a quote is not closed; write \" at its end"]);
    assert_eq!(refused(List::Runs, "\"a\"b"), ["column 4: something follows a closing quote; write a space between terms, and \\\" for a quote"]);
    assert_eq!(refused(List::Runs, "\"a\\n\""), ["column 3: `\\` stands before something else than `\"` and `\\`; write \\\\ for `\\`"]);
    assert_eq!(refused(List::Runs, "attr.cents>many"), ["column 12: `>` compares numbers, durations and times, `many` is none; write attr.cents:many"]);
    assert_eq!(
        refused(List::Actors, "attr.x:1"),
        ["column 1: there is no field `attr.x` here; known here: type, key, status, inbox; text with such a sign stands in quotes"]
    );
    assert_eq!(refused(List::Actors, "inbox>nan"), ["column 7: `inbox` is a number, `nan` is none; write digits"]);
    assert_eq!(refused(List::Approvals, "expires<friday"), ["column 9: `expires` is a time, `friday` is none; write 2026-11-25 or 2026-11-25T08:00:00Z"]);
}

#[test]
fn filter_beyond_its_limits_is_refused_by_their_names() {
    assert_eq!(refused(List::Runs, &"a".repeat(4097)), ["column 1: the filter has 4097 bytes; limit: filter = 4096; leave terms out"]);
    assert_eq!(refused(List::Runs, &"a ".repeat(65)), ["column 1: the filter has 65 terms; limit: filter_terms = 64; leave terms out"]);
}

fn suggested(text: &str) -> Vec<String> {
    let (before, after) = text.split_once('|').unwrap();
    let whole = format!("{before}{after}");
    let found = complete(List::Runs, &whole, before.len());
    found.into_iter().map(|one| format!("{}{}{}", &whole[..one.replaces.start], one.text, &whole[one.replaces.end..])).collect()
}

#[test]
fn completion_gives_fields_at_the_beginning_of_a_term_and_values_after_an_operator() {
    assert_eq!(suggested("|"), ["id:", "pipeline:", "status:", "version:", "age>", "started>", "ended>", "attr."]);
    assert_eq!(suggested("st|"), ["status:", "started>"]);
    assert_eq!(suggested("-st| age>1h"), ["-status: age>1h", "-started> age>1h"]);
    assert_eq!(suggested("age>1h status:|"), RunState::ALL.iter().map(|state| format!("age>1h status:{state}")).collect::<Vec<_>>());
    assert_eq!(suggested("status:pa|"), ["status:paused"]);
    assert_eq!(suggested("age>=|"), ["age>=5m", "age>=1h", "age>=1d", "age>=7d"]);
    for nothing in ["\"st|", "\"a b |", "pipeline:|", "nothing:|", "\"a\"|", "status:waiting|"] {
        assert_eq!(suggested(nothing), Vec::<String>::new(), "{nothing}");
    }
}

#[test]
fn words_of_the_states_are_those_of_their_machines() {
    let words = |list: List| match list.find("status").unwrap().kind {
        FieldKind::Word(words) => words.iter().map(ToString::to_string).collect::<Vec<_>>(),
        _ => Vec::new(),
    };
    assert_eq!(words(List::Runs), RunState::ALL.iter().map(ToString::to_string).collect::<Vec<_>>());
    // A kill ends an invocation from outside of its machine.
    assert_eq!(words(List::Invocations), InvocationState::ALL.iter().map(ToString::to_string).chain(["killed".to_owned()]).collect::<Vec<_>>());
    assert_eq!(words(List::Approvals), ApprovalState::ALL.iter().map(ToString::to_string).collect::<Vec<_>>());
}

fn texts() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z]{1,8}", "[ -~]{0,12}", "\\PC{0,8}", "[\"\\\\ \\-:<>é]{0,6}"]
}

fn says() -> impl Strategy<Value = Says> {
    let field = |name: &str, operator, value| Says::Field { name: name.to_owned(), operator, value };
    let operators = || prop::sample::select(Operator::ALL.to_vec());
    prop_oneof![
        texts().prop_map(Says::Text),
        prop::sample::select(RunState::ALL.to_vec()).prop_map(move |state| field("status", Operator::Is, Value::Text(state.to_string()))),
        texts().prop_map(move |text| field("pipeline", Operator::Is, Value::Text(text))),
        texts().prop_map(move |text| field("attr.customer", Operator::Is, Value::Text(text))),
        (operators(), 0u64..1_000_000_000).prop_map(move |(operator, ms)| field("age", operator, Value::Duration(Span(std::time::Duration::from_millis(ms))))),
        (operators(), 0u64..4_000_000_000_000).prop_map(move |(operator, ms)| field("started", operator, Value::Time(Millis(ms)))),
        (prop::sample::select(Operator::ALL[..4].to_vec()), -1e12..1e12f64).prop_map(move |(operator, number)| field(
            "attr.cents",
            operator,
            Value::Number(number)
        )),
    ]
}

fn filters() -> impl Strategy<Value = Filter> {
    prop::collection::vec((any::<bool>(), says()), 0..6)
        .prop_map(|terms| Filter { terms: terms.into_iter().map(|(negated, says)| Term { negated, says }).collect() })
}

fn rows() -> impl Strategy<Value = Row> {
    let fields = prop::collection::vec(says(), 0..6)
        .prop_map(|says| says.into_iter().filter_map(|says| if let Says::Field { name, value, .. } = says { Some((name, value)) } else { None }).collect());
    (fields, prop::collection::vec(texts(), 0..3)).prop_map(|(fields, texts)| Row { fields, texts })
}

proptest! {
    #[test]
    fn what_is_printed_parses_to_the_same_filter(filter in filters()) {
        prop_assert_eq!(parse(List::Runs, &filter.to_string()).unwrap(), filter);
    }

    #[test]
    fn negated_term_keeps_exactly_what_the_term_does_not(says in says(), row in rows()) {
        let of = |negated| matches(&Filter { terms: vec![Term { negated, says: says.clone() }] }, &row);
        prop_assert_eq!(of(true), !of(false));
    }

    #[test]
    fn two_filters_one_after_the_other_keep_what_both_keep(one in filters(), two in filters(), row in rows()) {
        let both = Filter { terms: one.terms.iter().chain(&two.terms).cloned().collect() };
        prop_assert_eq!(matches(&both, &row), matches(&one, &row) && matches(&two, &row));
        prop_assert_eq!(parse(List::Runs, &format!("{one} {two}")).unwrap(), both);
    }

    #[test]
    fn any_text_gives_a_filter_or_errors_inside_of_it(text in "(\\PC|[\\x00-\\x7f]){0,60}", cursor in 0usize..200) {
        for list in List::ALL {
            match parse(list, &text) {
                Ok(filter) => prop_assert_eq!(parse(list, &filter.to_string()).unwrap(), filter),
                Err(errors) => prop_assert!(errors.iter().all(|error| (1..=text.chars().count() + 1).contains(&error.column))),
            }
            for one in complete(list, &text, cursor) {
                prop_assert!(text.get(one.replaces.clone()).is_some_and(|replaced| one.text.starts_with(replaced)));
            }
        }
    }

    #[test]
    fn text_of_signs_gives_a_filter_or_errors(text in "[ \"\\\\:<>=a-]{0,20}", cursor in 0usize..20) {
        let _ = parse(List::Runs, &text);
        let _ = complete(List::Runs, &text, cursor);
    }
}

#[test]
fn reference_page_names_the_fields_of_every_list() {
    let page = include_str!("../../../../docs/reference/where.md");
    let names = ["runs", "actors", "invocations", "jobs", "approvals", "schedules", "dead letters", "stuck"];
    for (list, name) in List::ALL.into_iter().zip(names) {
        let mut fields: Vec<&str> = list.fields().iter().map(|field| field.name).collect();
        fields.extend(list.has_attributes().then_some("attr.NAME"));
        let row = format!("| {name} | `{}` |", fields.join(" "));
        assert!(page.contains(&row), "docs/reference/where.md lacks: {row}");
    }
}
