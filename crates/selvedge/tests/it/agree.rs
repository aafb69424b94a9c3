//! Two who name one limit, or one breaker, say the same of it.

use selvedge::{App, Definition, test};

use crate::rig::Folder;

fn text(name: &str, charge: &str) -> String {
    format!("selvedge: 1\nname: {name}\nactivities:\n  charge: {{ exec: [cat], persistent: false, {charge} }}\nstages: [{{ name: a, call: charge }}]\n")
}

fn definition(name: &str, charge: &str) -> Definition {
    selvedge::pipeline(name, &text(name, charge)).unwrap_or_else(|wrong| panic!("{wrong:?}")).0
}

const TWO: &str = "throttle: { concurrency: 2 }";
const THREE: &str = "throttle: { concurrency: 3 }";

#[test]
fn check_and_run_refuse_two_policies_of_one_name_and_name_both_places() {
    let folder = Folder::new();
    folder.write("one.yaml", &text("one", TWO));
    folder.write("two.yaml", &text("two", THREE));
    let wrong = "the `throttle` of the activity `charge` is {concurrency: 2} in the pipeline `one` (one.yaml:4:45) \
                 and {concurrency: 3} in the pipeline `two` (two.yaml:4:45): both name the same one";
    let said = folder.selvedge(&["pipelines", "check", "one.yaml", "two.yaml"]);
    assert!(said.code == 78 && said.err.contains(&format!("two.yaml:4:45: {wrong}")), "{said:?}");
    assert!(said.err.contains("hint: write the same in both places"), "{said:?}");
    folder.write("app.yaml", "pipelines: [one.yaml]\n");
    let named = wrong;
    for words in [&["pipelines", "check", "two.yaml"][..], &["run", "two.yaml"], &["pipelines", "put", "two.yaml"]] {
        let said = folder.selvedge(words);
        assert!(said.code == 78 && said.err.contains(named), "{words:?}: {said:?}");
    }
    // Another version of the one that is there takes its place, and one that says the same shares it.
    folder.write("one.yaml", &text("one", THREE));
    for file in ["one.yaml", "two.yaml"] {
        assert_eq!(folder.selvedge(&["run", file]).code, 0);
    }
    folder.write("app.yaml", "activities:\n  charge: { exec: [cat], persistent: false, breaker: { failures: 3 } }\n");
    folder.write("two.yaml", &text("two", "breaker: { failures: 4 }"));
    let said = folder.selvedge(&["run", "two.yaml"]);
    assert!(
        said.code == 78
            && said
                .err
                .contains("the `breaker` of the activity `charge` is {failures: 3, window: 1m, open_for: 30s, probes: 1} in the manifest (app.yaml:2:45)"),
        "{said:?}"
    );
}

#[test]
fn a_pipeline_is_stored_only_if_it_agrees_with_the_program_and_what_is_stored_can_be_changed_one_after_the_other() {
    let folder = Folder::new();
    folder.write("one.yaml", &text("one", TWO));
    folder.write("two.yaml", &text("two", TWO));
    folder.json(&["run", "one.yaml"]);
    for file in ["one.yaml", "two.yaml"] {
        folder.json(&["pipelines", "put", file]);
    }
    folder.write("two.yaml", &text("two", THREE));
    folder.json(&["pipelines", "put", "two.yaml"]);
    folder.write("app.yaml", "pipelines: [two.yaml]\n");
    let said = folder.selvedge(&["pipelines", "put", "one.yaml"]);
    assert!(
        said.code != 0 && said.err.contains("is {concurrency: 3} in the pipeline `two`") && said.err.contains("and {concurrency: 2} in the pipeline `one`"),
        "{said:?}"
    );
    // What is stored already goes on: the last task that asked says what holds.
    folder.json(&["pipelines", "start", "one"]);
    folder.write("one.yaml", &text("one", THREE));
    folder.json(&["pipelines", "put", "one.yaml"]);
}

#[tokio::test]
async fn an_engine_does_not_open_with_two_policies_of_one_name() {
    let Err(error) = test::Engine::new(App::new().pipeline(definition("one", TWO)).pipeline(definition("two", THREE))).await else { panic!("it opened") };
    assert!(error.to_string().contains("the `throttle` of the activity `charge` is {concurrency: 2} in the pipeline `one` and {concurrency: 3} in"), "{error}");
    let app = App::new().pipeline(definition("two", THREE)).pipeline(definition("one", TWO)).pipeline(definition("two", TWO));
    assert!(test::Engine::new(app).await.is_ok(), "the last one of a name counts");
}
