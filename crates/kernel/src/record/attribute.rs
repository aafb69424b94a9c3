//! The attributes of a run: kept beside its line in the list of runs, and found by their values.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Writes;
use super::key::index_of;
use crate::id::{Key, RunId, push_part};
use crate::time::Millis;
use crate::wire;

/// The list of attributes by their values, in the index of a shard.
const BY_VALUE: u8 = b'a';
/// The list of the attributes of each run.
const OF_RUN: u8 = b'b';

/// A run as its rows in the index stand: the newest first.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Whose.
    pub tenant: &'a str,
    /// When it was accepted.
    pub started_at: Millis,
    /// Which.
    pub run: RunId,
}

impl Place<'_> {
    fn behind(&self, list: &Key) -> Key {
        behind(list, self.started_at, self.run)
    }

    /// Where all of its attributes stand.
    #[must_use]
    pub fn row(&self) -> Key {
        self.behind(&index_of(self.tenant, OF_RUN))
    }

    fn by_value(&self, name: &str, value: &str) -> Key {
        self.behind(&with_value(self.tenant, name, value))
    }

    /// The rows of these attributes.
    #[must_use]
    pub fn rows(&self, attributes: &BTreeMap<String, Value>) -> Writes {
        let mut writes = Writes::default();
        if attributes.is_empty() {
            return writes;
        }
        for (name, value) in attributes {
            writes.put(self.by_value(name, &text(value)), wire::encode(&()));
        }
        let all: BTreeMap<&String, String> = attributes.iter().map(|(name, value)| (name, value.to_string())).collect();
        writes.put(self.row(), wire::encode(&all));
        writes
    }

    /// Takes the rows of these attributes away.
    pub fn remove(&self, attributes: &BTreeMap<String, Value>, writes: &mut Writes) {
        attributes.iter().for_each(|(name, value)| writes.delete(self.by_value(name, &text(value))));
        writes.delete(self.row());
    }
}

/// Where a run stands in a list of runs, the newest first.
#[must_use]
pub fn behind(list: &Key, started_at: Millis, run: RunId) -> Key {
    let mut key = list.to_vec();
    key.extend_from_slice(&(u64::MAX - started_at.0).to_be_bytes());
    key.extend_from_slice(&run.0.to_bytes());
    Key::from(key)
}

/// The prefix of the runs of a tenant whose attribute has this value as text. Behind it: time counted down, run.
#[must_use]
pub fn with_value(tenant: &str, name: &str, value: &str) -> Key {
    let mut key = index_of(tenant, BY_VALUE).to_vec();
    push_part(&mut key, name.as_bytes());
    push_part(&mut key, value.as_bytes());
    Key::from(key)
}

/// The attributes in a row of [`Place::row`].
///
/// # Errors
/// What does not decode.
pub fn decode(bytes: &[u8]) -> Result<BTreeMap<String, Value>, wire::WireError> {
    let all: BTreeMap<String, String> = wire::decode("attributes of a run", bytes)?;
    // What is no JSON is shown as the text that it is.
    Ok(all.into_iter().map(|(name, json)| (name, serde_json::from_str(&json).unwrap_or(Value::String(json)))).collect())
}

/// A value as `where` writes it.
#[must_use]
pub fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn place(at: u64) -> Place<'static> {
        Place { tenant: "t", started_at: Millis(at), run: RunId::of("t", [7; 16]) }
    }

    #[test]
    fn rows_are_read_back_and_all_of_them_are_removed() {
        let attributes = BTreeMap::from([("customer".to_owned(), json!("ada")), ("cents".to_owned(), json!(5)), ("vip".to_owned(), json!(true))]);
        let written = place(3).rows(&attributes);
        let row = written.puts.iter().find(|put| put.key == place(3).row()).unwrap();
        assert_eq!(decode(&row.value).unwrap(), attributes);
        let mut gone = Writes::default();
        place(3).remove(&attributes, &mut gone);
        let keys = |mut keys: Vec<Key>| {
            keys.sort();
            keys
        };
        assert_eq!(keys(written.puts.into_iter().map(|put| put.key).collect()), keys(gone.deletes));
        assert!(place(3).rows(&BTreeMap::new()).puts.is_empty(), "a run without attributes has no row");
    }

    proptest! {
        #[test]
        fn a_value_finds_its_own_runs_alone_and_the_newest_first(value in "[a-z]{0,9}", other in "[a-z]{0,9}", early in 0u64..1000, later in 1000u64..2000) {
            let prefix = with_value("t", "customer", &value);
            prop_assert!(place(early).by_value("customer", &value).starts_with(&prefix));
            prop_assert_eq!(place(early).by_value("customer", &other).starts_with(&prefix), value == other);
            prop_assert!(place(later).by_value("customer", &value) < place(early).by_value("customer", &value));
        }

        #[test]
        fn bytes_of_a_stranger_decode_to_an_error_or_a_value(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }
    }
}
