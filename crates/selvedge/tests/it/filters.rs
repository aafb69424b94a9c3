//! `--where` on every list, and the attributes that it can ask for.

use std::time::Duration;

use selvedge::{App, RunId, test};
use selvedge_engine::listing::{Page, row};
use selvedge_kernel::auth::{Action, Resource, authorize, local};
use selvedge_kernel::filter::List;
use selvedge_kernel::record::kind::Kind;
use serde_json::Value;

use crate::rig::Folder;

/// A run of it waits for a signal, with three attributes.
const ORDER: &str = "
selvedge: 1
name: order
input: { customer: { type: string }, cents: { type: integer, default: 5 }, vip: { type: boolean, default: false } }
attributes: { customer: input.customer, cents: input.cents, vip: input.vip }
stages:
  - { name: hold, mode: wait_signal, signal: go }
";

const ASKS: &str = "
selvedge: 1
name: asks
retention: 1s
attributes: { who: \"'ada'\" }
stages:
  - { name: review, mode: approval, assignees: [role:finance, user:bo], show: {}, expires: 1d, fallback: reject }
";

fn ids(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|line| line["id"].as_str().unwrap().to_owned()).collect()
}

/// How many lines a list has with a filter.
fn count(folder: &Folder, list: &[&str], filter: &str) -> usize {
    folder.json(&[list, &["--where", filter]].concat()).as_array().unwrap().len()
}

fn counts(folder: &Folder, list: &[&str], wanted: &[(&str, usize)]) {
    for (filter, lines) in wanted {
        assert_eq!(count(folder, list, filter), *lines, "{list:?} --where '{filter}'");
    }
}

/// Runs that are listed, the newest first; none while nothing is there to ask.
fn runs(folder: &Folder) -> Vec<String> {
    let said = folder.selvedge(&["runs", "list", "-o", "json"]);
    serde_json::from_str(&said.out).map(|list| ids(&list)).unwrap_or_default()
}

/// Starts a run that waits, and kills its process once it does.
fn waits(folder: &Folder, file: &str, input: &str) -> String {
    let before = runs(folder).len();
    let _running = folder.start(&["run", file, "--input", input]);
    folder.until("the new run waits", |folder| {
        let runs = runs(folder);
        runs.len() > before && folder.selvedge(&["why", &runs[0]]).out.contains("waits for ")
    });
    runs(folder)[0].clone()
}

#[test]
fn runs_are_found_by_each_of_their_fields_and_attributes() {
    let folder = Folder::new();
    folder.write("order.yaml", ORDER);
    let ada = waits(&folder, "order.yaml", r#"{"customer":"ada"}"#);
    let bo = waits(&folder, "order.yaml", r#"{"customer":"bo b","cents":700,"vip":true}"#);
    assert_eq!(folder.selvedge(&["runs", "cancel", &bo]).code, 0);
    let all = folder.json(&["runs", "list"]);
    assert_eq!(ids(&all).len(), 2);
    assert_eq!(all[1]["attributes"]["customer"], "ada");
    let started = all[1]["started_at"].as_str().unwrap();
    let version = folder.json(&["runs", "show", &ada])["version"].as_str().unwrap().to_owned();
    let by_id = format!("id:{ada}");
    let by_version = format!("version:{version}");
    let by_time = format!("started:{started} pipeline:order");
    counts(
        &folder,
        &["runs", "list"],
        &[
            ("attr.customer:ada", 1),
            ("attr.customer:\"bo b\"", 1),
            ("attr.customer:a", 0),
            ("-attr.customer:ada", 1),
            ("attr.cents>100", 1),
            ("attr.cents:5", 1),
            ("attr.cents:5.0", 1),
            ("attr.vip:true", 1),
            ("attr.vip:false status:cancelled", 0),
            ("attr.nobody:ada", 0),
            ("status:cancelled", 1),
            ("-status:cancelled", 1),
            ("pipeline:order", 2),
            ("pipeline:other", 0),
            ("age<1h", 2),
            ("age>1h", 0),
            ("ended>2020-01-01", 1),
            ("-ended>2020-01-01", 1),
            ("\"BO B\"", 1),
            (&by_id, 1),
            (&by_version, 2),
            ("version:other", 0),
            (&by_time, 1),
        ],
    );
    assert_eq!(ids(&folder.json(&["runs", "list", "--where", "attr.customer:ada"])), std::slice::from_ref(&ada));
    let said = folder.selvedge(&["runs", "list"]);
    assert!(said.out.contains("ATTRIBUTES") && said.out.contains("cents:5 customer:ada vip:false"), "{}", said.out);
    counts(
        &folder,
        &["stuck", "--longer-than", "1ms"],
        &[("", 1), ("attr.customer:ada", 1), ("attr.customer:\"bo b\"", 0), ("pipeline:other", 0), ("type:order", 0)],
    );
    let none = folder.selvedge(&["runs", "list", "--where", "attr.customer:eve"]);
    insta::assert_snapshot!(none.out, @"there is no run, with `--where 'attr.customer:eve'`");
}

#[test]
fn a_term_that_a_list_has_no_field_for_is_an_error_that_names_its_fields() {
    let folder = Folder::new();
    folder.write("order.yaml", ORDER);
    waits(&folder, "order.yaml", r#"{"customer":"ada"}"#);
    let said = folder.selvedge(&["runs", "list", "--where", "stauts:failed"]);
    assert_eq!(said.code, 64);
    insta::assert_snapshot!(said.err, @"selvedge: `where` does not read: column 1: there is no field `stauts` here (did you mean `status`?); this list has the fields id, pipeline, status, version, age, started, ended, attr.NAME");
    for list in [&["invocations", "list"][..], &["actors", "list"], &["approvals", "list"], &["schedules", "list"], &["dead-letters", "list"], &["stuck"]] {
        let said = folder.selvedge(&[list, &["--where", "wrong:1"]].concat());
        assert!(said.code == 64 && said.err.contains("this list has the fields "), "{list:?}: {}", said.err);
    }
}

#[test]
fn an_attribute_that_is_no_text_keeps_the_run_from_starting() {
    let folder = Folder::new();
    folder.write("p.yaml", &ORDER.replace("customer: input.customer", "customer: \"[input.customer]\""));
    let said = folder.selvedge(&["run", "p.yaml", "--input", r#"{"customer":"ada"}"#]);
    assert_eq!(said.code, 64);
    assert!(said.err.contains("the attribute `customer` of `order`"), "{}", said.err);
    assert_eq!(folder.selvedge(&["runs", "list"]).out, "there is no run\n");
}

#[test]
fn approvals_are_found_by_each_of_their_fields() {
    let folder = Folder::new();
    folder.write("asks.yaml", ASKS);
    let run = waits(&folder, "asks.yaml", "{}");
    let by_run = format!("run:{run}");
    let list = ["approvals", "list"];
    let id = format!("id:{}", ids(&folder.json(&list))[0]);
    counts(
        &folder,
        &list,
        &[
            ("status:open", 1),
            ("status:approved", 0),
            ("assignee:role:finance", 1),
            ("assignee:user:bo", 1),
            ("assignee:user:eve", 0),
            ("pipeline:asks stage:review", 1),
            ("stage:other", 0),
            ("expires>2020-01-01", 1),
            ("age<1h", 1),
            ("age>1h", 0),
            (&by_run, 1),
            (&id, 1),
        ],
    );
}

/// An actor that counts well and pays badly, and a run beside which its messages are handled.
fn shop() -> Folder {
    let folder = Folder::new();
    folder.write("p.yaml", "selvedge: 1\nname: p\nstages: [{ name: hold, mode: wait_signal, signal: go }]\n");
    folder.write(
        "app.yaml",
        r#"
actors:
  stock:
    handlers:
      count: { exec: [sh, -c, 'cat > /dev/null; echo ''{"result": 1, "state": {"set": {"n": 1}}}'''], persistent: false }
  order:
    handlers:
      pay: { exec: [sh, -c, 'cat > /dev/null; exit 3'], persistent: false, retry: none }
"#,
    );
    folder
}

#[test]
fn invocations_actors_and_dead_letters_are_found_by_each_of_their_fields() {
    let folder = shop();
    let holder = folder.start(&["run", "p.yaml"]);
    folder.until_run("for the signal `go`");
    for key in ["a", "b"] {
        assert_eq!(folder.selvedge(&["actors", "call", &format!("stock/{key}"), "count"]).code, 0);
    }
    let letter = folder.json(&["actors", "send", "order/7", "pay"])["id"].as_str().unwrap().to_owned();
    folder.until("it has failed", |folder| folder.json(&["dead-letters", "list"]).as_array().is_some_and(|letters| letters.len() == 1));
    let by_id = format!("id:{letter}");
    let all = |folder: &Folder| {
        counts(
            folder,
            &["invocations", "list", "--all"],
            &[
                ("", 3),
                ("type:stock", 2),
                ("type:stock key:a", 1),
                ("key:c", 0),
                ("handler:count", 2),
                ("status:completed", 2),
                ("status:failed", 1),
                ("-status:failed", 2),
                ("attempts:1", 3),
                ("attempts>1", 0),
                ("age<1h", 3),
                ("started>2020-01-01 ended>2020-01-01", 3),
                ("stock/a", 1),
                (&by_id, 1),
            ],
        );
        counts(folder, &["invocations", "list"], &[("", 0), ("status:completed", 0)]);
        counts(
            folder,
            &["dead-letters", "list"],
            &[
                ("type:order key:7", 1),
                ("type:stock", 0),
                ("handler:pay", 1),
                ("error:attempts_exhausted", 1),
                ("error:exit_3", 0),
                ("exit_3", 1),
                ("attempts:1", 1),
                ("age<1h", 1),
                (&by_id, 1),
            ],
        );
        counts(
            folder,
            &["actors", "list"],
            &[("", 2), ("type:stock key:b", 1), ("type:order", 0), ("status:idle", 2), ("status:busy", 0), ("inbox:0", 2), ("inbox>0", 0)],
        );
    };
    all(&folder);
    holder.signal("TERM");
    assert_eq!(folder.end(holder).code, 2);
    all(&folder);
    // Nobody holds the directory: what is sent waits.
    for _ in 0..3 {
        assert_eq!(folder.selvedge(&["actors", "send", "stock/b", "count"]).code, 0);
    }
    counts(&folder, &["actors", "list"], &[("status:busy", 1), ("status:idle", 1), ("inbox:2", 1), ("key:b inbox>1", 1)]);
    counts(&folder, &["stuck", "--longer-than", "1ms"], &[("type:stock key:b", 3), ("type:order", 0), ("handler:count", 3)]);
    assert_eq!(folder.json(&["actors", "list"])[1]["key"], "b");
}

#[test]
fn schedules_are_found_by_each_of_their_fields() {
    let folder = Folder::new();
    for name in ["early", "late"] {
        let text = format!("selvedge: 1\nname: {name}\nschedule: {{ every: 1h }}\nstages: [{{ name: a, mode: sleep, for: 1ms }}]\n");
        folder.write(&format!("{name}.yaml"), &text);
    }
    folder.write("app.yaml", "pipelines: [early.yaml, late.yaml]\n");
    assert_eq!(folder.selvedge(&["run", "early.yaml"]).code, 0);
    assert_eq!(folder.selvedge(&["schedules", "pause", "late"]).code, 0);
    counts(
        &folder,
        &["schedules", "list"],
        &[
            ("", 2),
            ("pipeline:early", 1),
            ("status:paused", 1),
            ("status:active", 1),
            ("next>2020-01-01", 1),
            ("last>2020-01-01", 2),
            ("started:0", 2),
            ("missed>0", 0),
            ("late", 1),
        ],
    );
}

#[tokio::test]
async fn attributes_are_found_at_once_and_leave_with_the_run() {
    let text =
        "selvedge: 1\nname: p\ninput: { c: { type: string } }\nretention: 1h\nattributes: { customer: input.c }\nstages: [{ name: a, mode: sleep, for: 1s }]\n";
    let engine = test::Engine::new(App::new().pipeline(crate::runs::parse(text))).await.unwrap();
    let now = engine.engine().now();
    let permit = || authorize(local("default", now), Action::Read, Resource::Store, now).unwrap();
    let filter = row::filter(List::Runs, "attr.customer:ada").unwrap();
    let mut ids = Vec::new();
    for customer in ["ada", "bo", "ada"] {
        ids.push(engine.local().start("p", serde_json::json!({ "c": customer })).await.unwrap().id());
        engine.advance(Duration::from_millis(1)).await;
    }
    let found: Vec<RunId> = engine.engine().find_runs(permit(), &filter, &Page::default()).await.unwrap().iter().map(|line| line.id).collect();
    assert_eq!(found, [ids[2], ids[0]], "the newest first");
    let rows = |id: RunId| {
        engine.model().rows(id.0.hash.shard(64)).into_iter().filter(|(key, _)| key.ends_with(&id.0.to_bytes()) && key[2] == Kind::Index as u8).count()
    };
    assert_eq!(ids.iter().map(|id| rows(*id)).collect::<Vec<_>>(), [3, 3, 3], "a line, an attribute by value, the attributes of the run");
    for span in [5, 2 * 86_400, 2 * 86_400] {
        engine.advance(Duration::from_secs(span)).await;
    }
    assert_eq!(engine.engine().find_runs(permit(), &filter, &Page::default()).await.unwrap(), []);
    // The line itself may vanish on a day, and readers pass it over from then on.
    assert!(ids.iter().all(|id| rows(*id) <= 1), "{:?}", ids.iter().map(|id| rows(*id)).collect::<Vec<_>>());
}
