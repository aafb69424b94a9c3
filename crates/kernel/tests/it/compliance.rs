//! The official JMESPath compliance suite through our wrapper.

use selvedge_kernel::pipeline::expression::{Doc, Expression};
use serde_json::Value;

const DEEP: &str = "a[*].b[*].c[*].d[*].e[*].f[*].g[*].h[*].i[*].j[*].k[*].l[*].m[*].n[*].o[*].p[*].q[*].r[*].s[*].t[*].u[*].v[*].w[*].x[*].y[*].z[*].a[*].b[*].c[*].d[*].e[*].f[*].g[*].h[*].i[*].j[*].k[*].l[*].m[*].n[*].o[*].p[*].q[*].r[*].s[*].t[*].u[*].v[*].w[*].x[*].y[*].z[*].a[*].b[*].c[*].d[*].e[*].f[*].g[*].h[*].i[*].j[*].k[*].l[*].m[*].n[*].o[*].p[*].q[*].r[*].s[*].t[*].u[*].v[*].w[*].x[*].y[*].z[*].a[*].b[*].c[*].d[*].e[*].f[*].g[*].h[*].i[*].j[*].k[*].l[*].m[*].n[*].o[*].p[*].q[*].r[*].s[*].t[*].u[*].v[*].w[*].x[*].y[*].z[*]";

/// Where we differ on purpose: file, expression, why.
const DIFFERENCES: [(&str, &str, &str); 3] = [
    (
        "benchmarks",
        "sum(z, y, x, w, v, u, t, s, r, q, p, o, n, m, l, k, j, i, h, g, f, e, d, c, b, a)",
        "measures parsing only: the arity of sum is wrong, which we find when compiling",
    ),
    ("benchmarks", "foo[bar > baz][qux > baz]", "measures parsing only, and is no JMESPath: jmespath refuses it too"),
    ("benchmarks", DEEP, "134 projections in one another: our limit is 100"),
];

/// Equal, where 3 and 3.0 are the same number and the order of an object's keys does not matter.
fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left.as_f64() == right.as_f64(),
        (Value::Array(left), Value::Array(right)) => left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same(left, right)),
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len() && left.iter().all(|(key, value)| right.get(key).is_some_and(|other| same(value, other)))
        }
        _ => left == right,
    }
}

fn verdict(given: &Doc, case: &Value) -> Result<(), String> {
    let text = case["expression"].as_str().unwrap();
    let outcome = Expression::compile(text).and_then(|expression| expression.search(given));
    match (case.get("error"), outcome) {
        (Some(_), Err(_)) => Ok(()),
        (Some(kind), Ok(value)) => Err(format!("expected the error {kind}, got {value:?}")),
        (None, Err(error)) => Err(error.to_string()),
        (None, Ok(value)) => match case.get("result") {
            Some(wanted) if !same(&value.to_value(), wanted) => Err(format!("expected {wanted}, got {value:?}")),
            _ => Ok(()),
        },
    }
}

#[test]
fn official_suite_passes_except_for_the_listed_differences() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/jmespath");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|ext| ext == "json")).collect();
    files.sort();
    let (mut cases, mut wrong, mut differed) = (0, Vec::new(), Vec::new());
    for file in files {
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        let suites: Vec<Value> = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        for suite in suites {
            let given = Doc::from_value(&suite["given"]);
            for case in suite["cases"].as_array().unwrap() {
                cases += 1;
                let text = case["expression"].as_str().unwrap();
                let listed = DIFFERENCES.iter().any(|(file, expression, _)| *file == name && *expression == text);
                match verdict(&given, case) {
                    Ok(()) => {}
                    Err(_) if listed => differed.push((name.clone(), text.to_owned())),
                    Err(why) => wrong.push(format!("{name}: {text}: {why}")),
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {cases} cases differ:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(cases, 875);
    assert_eq!(differed.len(), DIFFERENCES.len(), "a listed difference is none any more: {differed:?}");
}
