//! Heads of ledgers that were kept: what lay behind them must still be there.

use serde_json::Value;

use crate::rig::Folder;

const TWO: &str = "
selvedge: 1
name: two
input: { n: { type: integer, default: 1 } }
activities: { note: { exec: [cat], persistent: false } }
stages: [{ name: a, call: note, input: input.n }]
";

fn with_runs(count: u32) -> Folder {
    let folder = Folder::new();
    folder.write("p.yaml", TWO);
    more(&folder, count);
    folder
}

fn more(folder: &Folder, count: u32) {
    for _ in 0..count {
        let said = folder.selvedge(&["run", "p.yaml", "--new"]);
        assert_eq!(said.code, 0, "{}", said.err);
    }
}

#[test]
fn heads_of_before_are_met_again_and_one_that_was_changed_names_its_shard() {
    let folder = with_runs(2);
    let text = folder.selvedge(&["verify", "--heads"]).out;
    assert_eq!(text.lines().count(), 64);
    folder.write("heads", &text);
    folder.write("heads.json", &folder.selvedge(&["verify", "--heads", "-o", "json"]).out);
    more(&folder, 2);
    for file in ["heads", "heads.json"] {
        let said = folder.selvedge(&["verify", "--against", file]);
        assert!(said.code == 0 && said.out.contains("of the heads that were kept, 64 are still there, 0 differ"), "{said:?}");
    }
    let written = text.lines().find(|line| !line.contains(" 0 ")).unwrap();
    let shard = written.split(' ').next().unwrap();
    let (rest, last) = written.split_at(written.len() - 1);
    folder.write("heads", &text.replace(written, &format!("{rest}{}", if last == "0" { "1" } else { "0" })));
    let said = folder.selvedge(&["verify", "--quick", "--against", "heads"]);
    assert!(said.code == 1 && said.err.contains(&format!("ledger of shard {shard}: line ")) && said.err.contains("has the chain"), "{said:?}");
    let json: Value = serde_json::from_str(&folder.selvedge(&["verify", "--against", "heads", "-o", "json"]).out).unwrap();
    assert_eq!((&json["sound"], &json["shards"][shard.parse::<usize>().unwrap()]["kept"]), (&Value::Bool(false), &Value::from("differs")));
}

#[test]
fn a_store_that_is_older_than_the_heads_or_another_one_is_found_out() {
    let folder = with_runs(1);
    assert_eq!(folder.selvedge(&["backup", "--to", "backup"]).code, 0);
    more(&folder, 1);
    folder.write("heads", &folder.selvedge(&["verify", "--heads"]).out);
    assert_eq!(folder.selvedge(&["restore", "--from", "backup", "--data", "older"]).code, 0);
    let older = folder.selvedge(&["verify", "--quick", "--against", "heads", "--data", "older"]);
    assert!(older.code == 1 && older.err.contains("lines were lost, or this is an older copy"), "{older:?}");
}

#[test]
fn a_quick_walk_leaves_the_chains_out_and_a_file_without_heads_is_usage() {
    let folder = with_runs(1);
    let sum = |words: &[&str], name: &str| folder.json(words)["shards"].as_array().unwrap().iter().map(|shard| shard[name].as_u64().unwrap()).sum::<u64>();
    assert_eq!((sum(&["verify", "--quick"], "ledger_lines"), sum(&["verify", "--quick"], "runs")), (2, 0));
    assert_eq!(sum(&["verify"], "runs"), 1);
    folder.write("heads", "not heads\n");
    let said = folder.selvedge(&["verify", "--against", "heads"]);
    assert!(said.code == 64 && said.err.contains("`selvedge verify --heads > FILE` writes them"), "{said:?}");
    folder.write("heads", "64 1 ab\n");
    assert_eq!(folder.selvedge(&["verify", "--against", "heads"]).code, 64);
    assert_eq!(folder.selvedge(&["verify", "--quick", "--heads"]).code, 64);
}
