#![allow(clippy::unwrap_used)]
use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use selvedge_kernel::ports::{Fold, Put};

fn bytes(max: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..max).prop_map(Bytes::from)
}

fn expires() -> impl Strategy<Value = Option<Day>> {
    proptest::option::of((0..u32::MAX - 1).prop_map(Day))
}

prop_compose! {
    fn commit()(puts in vec((bytes(20), bytes(6000), expires()), 0..5),
                deletes in vec(bytes(20), 0..5),
                folds in vec((bytes(9), bytes(9), expires()), 0..3),
                shard: u16, number: u64) -> Commit {
        Commit {
            shard: ShardId(shard),
            epoch: Epoch(3),
            number,
            puts: puts.into_iter().map(|(key, value, expires)| Put { key, value, expires }).collect(),
            deletes,
            folds: folds.into_iter().map(|(prefix, into, expires)| Fold { prefix, into, expires }).collect(),
        }
    }
}

proptest! {
    #[test]
    fn commit_reads_back_as_it_was_written(commit in commit()) {
        let encoded = encode(commit.clone(), Day(77));
        let mut body = Vec::new();
        append_claim(&mut body, ShardId(9), Epoch(8), Owner([5; 16]));
        encoded.append(&mut body);
        prop_assert_eq!(body.len(), 27 + encoded.bytes());
        let read: Vec<_> = entries(&body).map(Option::unwrap).collect();
        prop_assert_eq!(read[0], Entry::Claim { shard: ShardId(9), epoch: Epoch(8), owner: Owner([5; 16]) });
        let Entry::Commit { shard, number, rows: encoded_rows, large_at } = read[1] else { panic!("no commit") };
        prop_assert_eq!((shard, number), (commit.shard, commit.number));
        let whole = Bytes::copy_from_slice(encoded_rows);
        let mut back = Commit { puts: vec![], deletes: vec![], folds: vec![], ..commit.clone() };
        for row in rows(&whole).unwrap().map(Option::unwrap) {
            match row {
                Row::Put { key, value: Value::Inline(value), expires } => back.puts.push(Put { key, value, expires }),
                Row::Put { key, value: Value::Large { offset, len }, expires } => {
                    let start = large_at + offset as usize;
                    let value = Bytes::copy_from_slice(&body[start..start + len as usize]);
                    back.puts.push(Put { key, value, expires });
                }
                Row::Delete { key } => back.deletes.push(key),
                Row::Fold { prefix, into, expires, on: Day(77) } => back.folds.push(Fold { prefix, into, expires }),
                Row::Fold { .. } => panic!("another day"),
            }
        }
        prop_assert_eq!(back, commit);
    }

    #[test]
    fn any_bytes_are_read_without_panic(body in vec(any::<u8>(), 0..200)) {
        for entry in entries(&body).flatten() {
            if let Entry::Commit { rows: encoded, .. } = entry {
                let whole = Bytes::copy_from_slice(encoded);
                let count = rows(&whole).into_iter().flatten().count();
                prop_assert!(count <= 3 * 255);
            }
        }
        let whole = Bytes::from(body);
        let count = rows(&whole).into_iter().flatten().count();
        prop_assert!(count <= 3 * 255);
    }
}
