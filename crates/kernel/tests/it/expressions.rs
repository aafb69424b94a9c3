//! Expressions and templates.

use proptest::prelude::*;
use selvedge_kernel::pipeline::expression::{Doc, Expression, Scope};
use selvedge_kernel::pipeline::template::Template;
use serde_json::{Value, json};

fn scope(value: Value) -> Scope {
    let mut scope = Scope::new();
    for (key, value) in value.as_object().unwrap() {
        scope.set(key, Doc::from_value(value));
    }
    scope
}

fn eval(text: &str, value: Value) -> Value {
    Expression::compile(text).unwrap().eval(&scope(value)).unwrap().to_value()
}

fn compile_error(text: &str) -> String {
    Expression::compile(text).unwrap_err().to_string()
}

fn eval_error(text: &str, value: Value) -> String {
    Expression::compile(text).unwrap().eval(&scope(value)).unwrap_err().to_string()
}

fn fill(template: Value, value: Value) -> Value {
    Template::compile(&template).unwrap().eval(&scope(value)).unwrap()
}

#[test]
fn path_that_finds_nothing_is_null_and_never_its_own_text() {
    assert_eq!(eval("input.nothing.here[3].x", json!({"input": {}})), Value::Null);
    assert_eq!(fill(json!({"a": "${input.nothing}"}), json!({"input": {}})), json!({"a": null}));
    assert_eq!(eval("stages.a.output", json!({})), Value::Null);
}

#[test]
fn malformed_expressions_are_refused_when_compiled_with_column_and_hint() {
    let all: Vec<String> = [
        "a.",
        "length(a) > 0",
        "lenght(a)",
        "length(a, b)",
        "sort_by(a, b)",
        "length(&a)",
        "a[0:1:0]",
        "`[1`",
        "${a}",
        "a and b",
        "",
        "&a",
        "foo.*.length(@)(",
        "ä",
    ]
    .into_iter()
    .map(compile_error)
    .collect();
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn expression_over_its_limit_is_refused_before_it_is_parsed() {
    assert!(compile_error(&"[".repeat(1_025)).contains("limit: expression_bytes = 1024"));
}

#[test]
fn deepest_expressions_neither_overflow_the_parser_nor_the_evaluation() {
    let nests = [
        ("[", "a", "]"),
        ("(", "a", ")"),
        ("!", "a", ""),
        ("{a:", "a", "}"),
        ("abs(", "`1`", ")"),
        ("a[?", "a", "]"),
        ("a.", "a", ""),
        ("a|", "a", ""),
        ("a||", "a", ""),
        ("a&&", "a", ""),
        ("a==", "a", ""),
    ];
    let chains = ["[]", "[0]", "[*]", "[?a]", "[::]", ".*", ".[a]", "|[@]"];
    let nested = |(open, middle, close): (&str, &str, &str), times: usize| format!("{}{middle}{}", open.repeat(times), close.repeat(times));
    let mut fit: Vec<String> = nests.iter().map(|parts| nested(*parts, 45)).collect();
    fit.extend(chains.iter().map(|step| format!("a{}", step.repeat(45))));
    // Not a tenth as many bytes as this fit: none of them may reach the parser's recursion.
    let mut deep: Vec<String> = nests.iter().map(|parts| nested(*parts, 1_000 / (parts.0.len() + parts.2.len()))).collect();
    deep.extend(nests.iter().map(|(open, ..)| open.repeat(1_024 / open.len())));
    deep.extend(chains.iter().map(|step| format!("a{}", step.repeat(1_000 / step.len()))));
    // Smaller than any thread that will run this.
    let on_small_stack = std::thread::Builder::new().stack_size(1 << 20).spawn(move || {
        let scope = scope(json!({"a": [[{"a": 1}]]}));
        for text in &fit {
            Expression::compile(text).unwrap().eval(&scope).unwrap();
        }
        for text in &deep {
            assert!(Expression::compile(text).is_err(), "{text}");
        }
    });
    on_small_stack.unwrap().join().unwrap();
}

#[test]
fn roots_are_what_is_read_from_the_scope_and_nothing_else() {
    let roots = |text: &str| Expression::compile(text).unwrap().roots().into_iter().collect::<Vec<_>>().join(" ");
    assert_eq!(roots("stages.a.output[?x > y].z | [0].item"), "stages");
    assert_eq!(roots("{a: input.x, b: [item, @.index]}"), "index input item");
    assert_eq!(roots("map(&input, stages.a)"), "stages");
    assert_eq!(roots("a.b[0].c || !d && e == f"), "a d e f");
    assert_eq!(roots("`{\"input\": 1}`"), "");
    let reads = |text: &str| -> Vec<Vec<String>> {
        Expression::compile(text).unwrap().reads().iter().map(|read| read.path.iter().map(|(name, at)| format!("{name}@{at}")).collect()).collect()
    };
    assert_eq!(reads("length(stages.check.failures) > `0`"), [["stages@8", "check@15", "failures@21"]]);
    assert_eq!(reads("stages.a.output[0].x.y"), [["stages@1", "a@8", "output@10"]]);
    assert_eq!(reads("stages.a.output[*].x[].y"), [["stages@1", "a@8", "output@10"]]);
    assert_eq!(reads("stages.a.output.*.x | [?input > y]"), [["stages@1", "a@8", "output@10"]]);
    assert_eq!(reads("(input.a || item)[].{x: y}"), [vec!["input@2", "a@8"], vec!["item@13"]]);
    assert_eq!(reads("keys(@)"), [Vec::<String>::new()]);
}

#[test]
fn order_of_keys_and_large_integers_are_carried_unchanged() {
    let text = br#"{"zeta":9007199254740993,"alpha":{"y":1,"b":[18446744073709551615,-9223372036854775808]},"1":1.5}"#;
    let mut scope = Scope::new();
    scope.set("input", Doc::parse(text).unwrap());
    for expression in ["input", "[input][0]", "{a: input}.a", "not_null(`null`, input)", "input || `1`", "to_array(input)[]|[0]"] {
        let value = Expression::compile(expression).unwrap().eval(&scope).unwrap();
        assert_eq!(value.to_bytes(), &text[..], "{expression}");
    }
    let template = Template::compile(&json!("${ input }")).unwrap();
    assert_eq!(serde_json::to_vec(&template.eval(&scope).unwrap()).unwrap(), text);
}

#[test]
fn integers_beyond_64_bits_are_carried_digit_by_digit() {
    let text = br#"{"a":[123456789012345678901234567890,-99999999999999999999,{"s":"12345678901234567890123 \" [1","f":1.5}],"b":18446744073709551616}"#;
    let mut scope = Scope::new();
    scope.set("input", Doc::parse(text).unwrap());
    let eval = |expression: &str| Expression::compile(expression).unwrap().eval(&scope);
    assert_eq!(eval("input").unwrap().to_bytes(), &text[..]);
    assert_eq!(eval("{x: input.a[0]}").unwrap().to_bytes(), &b"{\"x\":123456789012345678901234567890}"[..]);
    assert_eq!(eval("concat('n', input.b)").unwrap().to_bytes(), &b"\"n18446744073709551616\""[..]);
    let filled = Template::compile(&json!("n=${input.b}")).unwrap().eval(&scope).unwrap();
    assert_eq!(filled, json!("n=18446744073709551616"));
    for expression in ["input.b == input.b", "input.b > `1`", "add(input.b, `1`)", "max(input.a[:2])", "contains(input.a, `5`)"] {
        assert!(eval(expression).unwrap_err().message.contains("beyond 2^53"), "{expression}");
    }
    assert!(Doc::parse(b"[123456789012345678901234567890,]").is_err());
    assert!(Doc::parse(b"[0123456789012345678901234567890]").is_err());
}

#[test]
fn integers_beyond_2_to_the_53_are_refused_where_they_are_compared_or_computed() {
    for expression in [
        "a == b",
        "a < b",
        "a != `1`",
        "add(a, `1`)",
        "sum([a])",
        "sort([a, b])",
        "max([a])",
        "contains([a], b)",
        "{x: a} == {x: b}",
        "abs(a)",
        "mul(`9007199254740992`, `2`)",
    ] {
        let error = eval_error(expression, json!({"a": 9_007_199_254_740_993_u64, "b": 9_007_199_254_740_992_u64}));
        assert!(error.contains("beyond 2^53"), "{expression}: {error}");
    }
    assert_eq!(eval("a == 'x'", json!({"a": 9_007_199_254_740_993_u64})), json!(false));
    assert_eq!(eval("a == `9007199254740992`", json!({"a": 9_007_199_254_740_992_u64})), json!(true));
    assert_eq!(eval("to_string(a)", json!({"a": 9_007_199_254_740_993_u64})), json!("9007199254740993"));
}

#[test]
fn evaluation_is_bounded_in_nodes_visited_and_made() {
    let inner = Doc::list((0..4_000_u32).map(|n| Doc::number(n.into())).collect());
    let mut wide = Scope::new();
    wide.set("lists", Doc::list(vec![inner; 4_000]));
    let quadratic = Expression::compile("map(&length(map(&@, @)), lists)").unwrap().eval(&wide).unwrap_err();
    assert!(quadratic.message.contains("more than 10000000 nodes; limit: expression_nodes"), "{quadratic}");
    // Doubling a list, a text and an object of references: small in memory, endless when written out.
    for bomb in [format!("a{}", "|[@,@]".repeat(90)), format!("a{}", "|{x:@,y:@}".repeat(60)), format!("a{}", "|[@,@][]".repeat(40))] {
        let error = eval_error(&bomb, json!({"a": [1]}));
        assert!(error.contains("limit: expression_nodes"), "{error}");
    }
    let text = format!("t{}", "|replace(@,'a','aaaaaaaaaaaa')".repeat(30));
    assert!(eval_error(&text, json!({"t": "a"})).contains("limit: expression_nodes"));
    let equal = format!("a{}|[@==@,@==@]", "|[@,@]".repeat(22));
    assert!(eval_error(&equal, json!({"a": 1})).contains("limit: expression_nodes"));
}

#[test]
fn added_functions_do_what_their_page_says() {
    let cases: &[(&str, Value)] = &[
        ("add(`1`, `2`)", json!(3)),
        ("add(`1`, `2`, `0.5`)", json!(3.5)),
        ("sub(`1`, `2.5`)", json!(-1.5)),
        ("mul(`3`, `4`, `2`)", json!(24)),
        ("div(`6`, `3`)", json!(2)),
        ("div(`1`, `4`)", json!(0.25)),
        ("mod(`7`, `3`)", json!(1)),
        ("mod(`-7`, `3`)", json!(-1)),
        ("concat('a', `1`, `true`)", json!("a1true")),
        ("concat(`[1]`, `[]`, `[2, [3]]`)", json!([1, 2, [3]])),
        ("split('a,b,,c', ',')", json!(["a", "b", "", "c"])),
        ("replace('aXbX', 'X', '--')", json!("a--b--")),
        ("lower('ÄB')", json!("äb")),
        ("upper('äb')", json!("ÄB")),
        ("trim('  a b \n')", json!("a b")),
        ("host('https://user:pw@Example.ORG:8443/path?q#f')", json!("example.org")),
        ("host('http://[2001:db8::1]:80/')", json!("2001:db8::1")),
        ("host('mailto:ada')", Value::Null),
        ("default(nothing, 'x')", json!("x")),
        ("default(`false`, 'x')", json!(false)),
        ("date('2026-11-25T23:30:00-02:00')", json!("2026-11-26")),
        ("date(`0`, '%Y-%m %H:%M')", json!("1970-01 00:00")),
        ("sum([`1`, `2`])", json!(3)),
        ("avg([`1`, `2`])", json!(1.5)),
        ("floor(`1.9`)", json!(1)),
        ("to_number('[1]')", Value::Null),
        ("keys({b: `1`, a: `2`})", json!(["b", "a"])),
    ];
    for (text, wanted) in cases {
        assert_eq!(eval(text, json!({})), *wanted, "{text}");
    }
}

#[test]
fn functions_say_which_argument_is_wrong_and_what_it_was() {
    let all: Vec<String> = [
        "div(`1`, `0`)",
        "mod(`1`, `0`)",
        "add('a', `1`)",
        "length(nothing)",
        "concat('a', nothing)",
        "concat(`[1]`, 'a')",
        "join(',', [`1`])",
        "sort([`1`, 'a'])",
        "sort_by(list, &x)",
        "split('a', '')",
        "replace('a', '', 'b')",
        "date('yesterday')",
        "date(`0`, '%500Y')",
        "date(`0`, '%!')",
        "sum(['a'])",
        "x.y | lower(@)",
    ]
    .into_iter()
    .map(|text| eval_error(text, json!({"list": [{"x": 1}, {"x": null}]})))
    .collect();
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn template_of_one_expression_gives_its_json_value_and_inside_text_its_text() {
    let data = json!({"input": {"n": 5, "s": "x", "l": [1, {"a": "b"}], "t": true}});
    assert_eq!(fill(json!("${input.n}"), data.clone()), json!(5));
    assert_eq!(fill(json!("${ input.l }"), data.clone()), json!([1, {"a": "b"}]));
    assert_eq!(fill(json!("a ${input.n}/${input.s}/${input.l}/${input.t}"), data.clone()), json!("a 5/x/[1,{\"a\":\"b\"}]/true"));
    assert_eq!(fill(json!({"k": ["${input.n}", 7, null, "plain"]}), data.clone()), json!({"k": [5, 7, null, "plain"]}));
    assert_eq!(fill(json!("costs $${5} and $5 and $"), data.clone()), json!("costs ${5} and $5 and $"));
    assert_eq!(fill(json!("$${input.n}"), data.clone()), json!("${input.n}"));
    assert_eq!(fill(json!("${{a: input.n}.a}"), data.clone()), json!(5));
    assert_eq!(fill(json!("${'}'}"), data.clone()), json!("}"));
    assert_eq!(fill(json!("${`\"}{\"`}${'it\\'s }'}"), data.clone()), json!("}{it's }"));
    assert_eq!(fill(json!(""), data), json!(""));
}

#[test]
fn null_inside_a_text_is_an_error_that_names_the_path() {
    let error = Template::compile(&json!("Dear ${input.name}!")).unwrap().eval(&scope(json!({"input": {}}))).unwrap_err();
    insta::assert_snapshot!(error, @"`Dear ${input.name}!`, column 8: `input.name` is null, and null cannot stand inside a text; give another value: ${default(input.name, '')}");
}

#[test]
fn errors_of_templates_count_columns_in_the_whole_string() {
    let error = |text: &str| Template::compile(&json!(text)).unwrap_err();
    assert_eq!(error("ab ${ lenght(x) }").column, 7);
    assert_eq!(error("ä ${x.}").column, 7);
    assert_eq!(error("a ${x").column, 3);
}

#[test]
fn expressions_are_shared_between_threads() {
    fn shared<T: Clone + Send + Sync>() {}
    shared::<Expression>();
    shared::<Template>();
    shared::<Doc>();
}

proptest! {
    #[test]
    fn any_text_compiles_or_is_refused_and_any_compiled_one_ends(text in "[a-z.\\[\\]()&|!<>=*@{}:,?`'\"0-9 \\\\$-]{0,60}") {
        if let Ok(expression) = Expression::compile(&text) {
            let _ = expression.eval(&scope(json!({"a": [1, {"b": "x"}], "b": {"a": null}})));
        }
        let _ = Template::compile(&json!(text)).map(|template| template.eval(&scope(json!({"a": 1}))));
    }

    #[test]
    fn documents_come_back_as_they_were(value in json_value()) {
        let bytes = serde_json::to_vec(&value).unwrap();
        let doc = Doc::parse(&bytes).unwrap();
        prop_assert_eq!(&doc.to_bytes()[..], &bytes[..]);
        prop_assert_eq!(&serde_json::to_vec(&doc.to_value()).unwrap(), &bytes);
        prop_assert_eq!(Doc::from_value(&value), doc);
    }
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(|x| json!(x)),
        ".{0,8}".prop_map(Value::from)
    ];
    leaf.prop_recursive(4, 64, 12, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..12).prop_map(Value::from),
            prop::collection::vec(("[a-e]{0,2}", inner), 0..14).prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}
