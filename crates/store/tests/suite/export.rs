//! What is exported holds together: a ledger that was changed gets no new chain values.

use crate::support::{Place, claim, small, wait};
use selvedge_kernel::id::{Hash16, RawId, ShardId};
use selvedge_kernel::journal::Hash32;
use selvedge_kernel::ports::{Commit, CommitOutcome, Put, Store};
use selvedge_kernel::record::key;
use selvedge_kernel::record::shard::{LedgerState, ShardHead, ledger_line};
use selvedge_kernel::wire;
use selvedge_store::{EmbeddedStore, Options, PortError, export, import};

/// Three ledger lines and their head, some of it changed.
fn ledger(store: &EmbeddedStore, change: impl Fn(&mut ShardHead, &mut Vec<Put>)) {
    let (epoch, last) = claim(store, 0);
    let mut head = ShardHead::default();
    let mut puts = Vec::new();
    for n in 0..3 {
        let id = RawId { hash: Hash16(1), uuid: [n; 16] };
        let (place, line) = ledger_line(&mut head, id, false, LedgerState::Accepted, Hash32([n; 32]), 1);
        puts.push(Put { key: key::ledger(place), value: wire::encode(&line), expires: None });
    }
    change(&mut head, &mut puts);
    puts.push(Put { key: key::shard_head(), value: wire::encode(&head), expires: None });
    let commit = Commit { shard: ShardId(0), epoch, number: last + 1, puts, deletes: Vec::new(), folds: Vec::new() };
    assert_eq!(wait(store.commit(vec![commit])), [CommitOutcome::Done]);
}

#[test]
fn a_ledger_that_does_not_hold_together_is_not_exported_and_no_file_is_left() {
    let place = Place::new("unsound");
    let to = place.data().with_file_name("export.jsonl");
    let store = EmbeddedStore::open(&place.data(), Options { shards: 2, ..small() }).unwrap();
    ledger(&store, |_, _| {});
    assert!(export(&store, &to, None).unwrap().lines > 4);
    import(&to, &place.data().with_file_name("copy"), 5, "test", |_| {}).unwrap();
    std::fs::remove_file(&to).unwrap();
    let changes: [fn(&mut ShardHead, &mut Vec<Put>); 3] =
        [|head, _| head.ledger = Hash32([9; 32]), |head, _| head.ledger_lines = 4, |_, puts| puts[1].value = puts[2].value.clone()];
    for change in changes {
        ledger(&store, change);
        let refused = export(&store, &to, None).unwrap_err();
        assert!(matches!(refused, PortError::Unsound { shard: ShardId(0), .. }), "{refused}");
        assert!(refused.to_string().contains("`selvedge verify` says more"), "{refused}");
        assert!(!to.exists() && !place.data().with_file_name("export.jsonl.part").exists());
    }
}
