//! A JSON value that is cheap to clone and keeps what it was given: the order of keys, integers beyond 2⁵³.
//!
//! jmespath's own value sorts the keys of objects, so expressions are parsed by jmespath and run on this type.

use bytes::Bytes;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Number, Value};
use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use super::expression::ExpressionError;

/// A JSON value, shared: a clone copies a pointer.
#[derive(Clone, PartialEq)]
pub struct Doc(pub(super) Node);

#[derive(Clone, PartialEq)]
pub(super) enum Node {
    Null,
    Bool(bool),
    Number(Number),
    /// An integer beyond 64 bits, as it was written.
    Long(Arc<str>),
    Text(Arc<str>),
    List(Arc<List>),
    Object(Arc<Object>),
}

/// The items of a list, and how much it would weigh written out (shared parts count each time).
#[derive(PartialEq)]
pub(super) struct List {
    pub(super) items: Vec<Doc>,
    weight: u64,
}

/// The entries of an object in their order.
#[derive(PartialEq)]
pub(super) struct Object {
    pub(super) entries: Vec<(Arc<str>, Doc)>,
    /// Positions sorted by key; empty while a linear search is as good.
    sorted: Vec<u32>,
    weight: u64,
}

const LINEAR: usize = 8;

impl Object {
    /// A key that comes twice keeps its first place and its last value, as in `serde_json`.
    fn new(entries: Vec<(Arc<str>, Doc)>) -> Object {
        let mut object = Object { entries, sorted: Vec::new(), weight: 0 };
        object.unite();
        object.weight = object.entries.iter().fold(1, |sum: u64, (_, value)| sum.saturating_add(1 + value.weight()));
        object
    }

    fn unite(&mut self) {
        if self.entries.len() <= LINEAR {
            let mut index = 1;
            while index < self.entries.len() {
                match self.entries[..index].iter().position(|(key, _)| *key == self.entries[index].0) {
                    Some(first) => self.entries[first].1 = self.entries.remove(index).1,
                    None => index += 1,
                }
            }
            return;
        }
        let mut sorted: Vec<u32> = (0..self.entries.len() as u32).collect();
        sorted.sort_by(|a, b| self.entries[*a as usize].0.cmp(&self.entries[*b as usize].0).then(a.cmp(b)));
        let twice = sorted.windows(2).any(|pair| self.entries[pair[0] as usize].0 == self.entries[pair[1] as usize].0);
        if !twice {
            self.sorted = sorted;
            return;
        }
        let mut drop = vec![false; self.entries.len()];
        let mut first = sorted[0] as usize;
        for &index in &sorted[1..] {
            let index = index as usize;
            if self.entries[first].0 == self.entries[index].0 {
                self.entries[first].1 = self.entries[index].1.clone();
                drop[index] = true;
            } else {
                first = index;
            }
        }
        let mut gone = drop.into_iter();
        self.entries.retain(|_| !gone.next().unwrap_or(false));
        self.unite();
    }

    pub(super) fn get(&self, key: &str) -> Option<&Doc> {
        if self.sorted.is_empty() {
            return self.entries.iter().find(|(known, _)| &**known == key).map(|(_, value)| value);
        }
        let found = self.sorted.binary_search_by(|index| (*self.entries[*index as usize].0).cmp(key)).ok()?;
        Some(&self.entries[self.sorted[found] as usize].1)
    }
}

impl Doc {
    /// `null`.
    #[must_use]
    pub fn null() -> Doc {
        Doc(Node::Null)
    }

    /// A boolean.
    #[must_use]
    pub fn bool(value: bool) -> Doc {
        Doc(Node::Bool(value))
    }

    /// A number.
    #[must_use]
    pub fn number(value: Number) -> Doc {
        Doc(Node::Number(value))
    }

    /// A string.
    #[must_use]
    pub fn string(value: &str) -> Doc {
        Doc(Node::Text(Arc::from(value)))
    }

    /// A list of values, which are shared.
    #[must_use]
    pub fn list(items: Vec<Doc>) -> Doc {
        let weight = items.iter().fold(1, |sum: u64, item| sum.saturating_add(item.weight()));
        Doc(Node::List(Arc::new(List { items, weight })))
    }

    /// An object of values, which are shared, in this order. A key that comes twice keeps its last value.
    #[must_use]
    pub fn object(entries: Vec<(Arc<str>, Doc)>) -> Doc {
        Doc(Node::Object(Arc::new(Object::new(entries))))
    }

    /// Parses JSON. Errors: what is not JSON, and nesting beyond 128.
    pub fn parse(bytes: &[u8]) -> Result<Doc, ExpressionError> {
        let parsed = if has_long_integer(bytes) { serde_json::from_slice(bytes).and_then(with_long_integers) } else { serde_json::from_slice(bytes) };
        parsed.map_err(|error| ExpressionError {
            expression: String::new(),
            column: error.column().max(1),
            message: format!("the value is not JSON: {error}"),
            hint: None,
        })
    }

    /// Copies a value.
    #[must_use]
    pub fn from_value(value: &Value) -> Doc {
        match value {
            Value::Null => Doc::null(),
            Value::Bool(value) => Doc::bool(*value),
            Value::Number(number) => Doc::number(number.clone()),
            Value::String(text) => Doc::string(text),
            Value::Array(items) => Doc::list(items.iter().map(Doc::from_value).collect()),
            Value::Object(entries) => Doc::object(entries.iter().map(|(key, value)| (Arc::from(key.as_str()), Doc::from_value(value))).collect()),
        }
    }

    /// Copies into a value. That cannot hold an integer beyond 64 bits, which becomes floating point:
    /// what is passed on goes by [`Doc::to_bytes`].
    #[must_use]
    pub fn to_value(&self) -> Value {
        match &self.0 {
            Node::Null => Value::Null,
            Node::Bool(value) => Value::Bool(*value),
            Node::Number(number) => Value::Number(number.clone()),
            Node::Long(digits) => serde_json::from_str(digits).unwrap_or_default(),
            Node::Text(text) => Value::String(text.to_string()),
            Node::List(list) => Value::Array(list.items.iter().map(Doc::to_value).collect()),
            Node::Object(object) => {
                let mut map = Map::with_capacity(object.entries.len());
                map.extend(object.entries.iter().map(|(key, value)| (key.to_string(), value.to_value())));
                Value::Object(map)
            }
        }
    }

    /// The JSON text, without spaces.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        // Invariant: keys are strings, numbers finite, the sink a vector: serde_json has no error for these.
        Bytes::from(serde_json::to_vec(self).unwrap_or_default())
    }

    /// The boolean, if it is one.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        match self.0 {
            Node::Bool(value) => Some(value),
            _ => None,
        }
    }

    /// The string, if it is one.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match &self.0 {
            Node::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The items, if it is a list; they are shared, not copied.
    #[must_use]
    pub fn as_list(&self) -> Option<Vec<Doc>> {
        self.items().map(<[Doc]>::to_vec)
    }

    /// The items, if it is a list.
    #[must_use]
    pub fn items(&self) -> Option<&[Doc]> {
        match &self.0 {
            Node::List(list) => Some(&list.items),
            _ => None,
        }
    }

    /// The entry of an object; null where there is none, or where it is no object.
    #[must_use]
    pub fn field(&self, key: &str) -> Doc {
        match &self.0 {
            Node::Object(object) => object.get(key).cloned().unwrap_or_else(Doc::null),
            _ => Doc::null(),
        }
    }

    /// The item of a list, from the end where negative; null where there is none, or where it is no list.
    #[must_use]
    pub fn item(&self, index: i64) -> Doc {
        let Some(items) = self.items() else { return Doc::null() };
        let index = if index < 0 { index + items.len() as i64 } else { index };
        usize::try_from(index).ok().and_then(|index| items.get(index)).cloned().unwrap_or_else(Doc::null)
    }

    /// Whether it is null.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self.0, Node::Null)
    }

    /// As text inside a longer text: a string as it is, anything else as JSON.
    #[must_use]
    pub fn text(&self) -> String {
        match self.as_str() {
            Some(text) => text.to_owned(),
            None => serde_json::to_string(self).unwrap_or_default(),
        }
    }

    /// The JSON word for its type.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self.0 {
            Node::Null => "null",
            Node::Bool(_) => "boolean",
            Node::Number(_) | Node::Long(_) => "number",
            Node::Text(_) => "string",
            Node::List(_) => "array",
            Node::Object(_) => "object",
        }
    }

    /// How many nodes it has when written out; 16 bytes of text count as one.
    pub(super) fn weight(&self) -> u64 {
        match &self.0 {
            Node::Text(text) | Node::Long(text) => 1 + text.len() as u64 / 16,
            Node::List(list) => list.weight,
            Node::Object(object) => object.weight,
            _ => 1,
        }
    }
}

impl Default for Doc {
    fn default() -> Doc {
        Doc::null()
    }
}

impl fmt::Debug for Doc {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&serde_json::to_string(self).unwrap_or_default())
    }
}

impl Serialize for Doc {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Node::Null => to.serialize_unit(),
            Node::Bool(value) => to.serialize_bool(*value),
            Node::Number(number) => number.serialize(to),
            Node::Long(digits) => RawValue::from_string(digits.to_string()).map_err(serde::ser::Error::custom)?.serialize(to),
            Node::Text(text) => to.serialize_str(text),
            Node::List(list) => {
                let mut seq = to.serialize_seq(Some(list.items.len()))?;
                list.items.iter().try_for_each(|item| seq.serialize_element(item))?;
                seq.end()
            }
            Node::Object(object) => {
                let mut map = to.serialize_map(Some(object.entries.len()))?;
                object.entries.iter().try_for_each(|(key, value)| map.serialize_entry(&**key, value))?;
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Doc {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Doc, D::Error> {
        Keys::default().deserialize(from)
    }
}

/// Keys seen first: the objects of a list share them.
#[derive(Default)]
struct Keys {
    seen: RefCell<Vec<Arc<str>>>,
}

/// At most so many keys are shared: the search is linear.
const SHARED_KEYS: usize = 32;

impl Keys {
    fn shared(&self, key: &str) -> Arc<str> {
        let mut seen = self.seen.borrow_mut();
        if let Some(known) = seen.iter().find(|known| &***known == key) {
            return known.clone();
        }
        let fresh: Arc<str> = Arc::from(key);
        if seen.len() < SHARED_KEYS {
            seen.push(fresh.clone());
        }
        fresh
    }
}

impl<'de> DeserializeSeed<'de> for &Keys {
    type Value = Doc;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Doc, D::Error> {
        from.deserialize_any(DocVisitor { keys: self })
    }
}

/// Reads one key.
struct KeySeed<'k>(&'k Keys);

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = Arc<str>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Arc<str>, D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed<'_> {
    type Value = Arc<str>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a key")
    }
    fn visit_str<E>(self, key: &str) -> Result<Arc<str>, E> {
        Ok(self.0.shared(key))
    }
}

struct DocVisitor<'k> {
    keys: &'k Keys,
}

impl<'de> Visitor<'de> for DocVisitor<'_> {
    type Value = Doc;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a JSON value")
    }
    fn visit_unit<E>(self) -> Result<Doc, E> {
        Ok(Doc::null())
    }
    fn visit_none<E>(self) -> Result<Doc, E> {
        Ok(Doc::null())
    }
    fn visit_bool<E>(self, value: bool) -> Result<Doc, E> {
        Ok(Doc::bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Doc, E> {
        Ok(Doc::number(value.into()))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Doc, E> {
        Ok(Doc::number(value.into()))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Doc, E> {
        Ok(Number::from_f64(value).map_or_else(Doc::null, Doc::number))
    }
    fn visit_str<E>(self, value: &str) -> Result<Doc, E> {
        Ok(Doc::string(value))
    }
    fn visit_string<E>(self, value: String) -> Result<Doc, E> {
        Ok(Doc(Node::Text(Arc::from(value))))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Doc, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = from.next_element_seed(self.keys)? {
            items.push(item);
        }
        Ok(Doc::list(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Doc, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = from.next_key_seed(KeySeed(self.keys))? {
            entries.push((key, from.next_value_seed(self.keys)?));
        }
        Ok(Doc::object(entries))
    }
}

/// Whether an integer that may not fit 64 bits stands outside of strings: 19 digits or more, no fraction, no exponent.
fn has_long_integer(bytes: &[u8]) -> bool {
    let (mut digits, mut exact, mut quoted, mut at) = (0usize, true, false, 0);
    while let Some(byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'\\' if quoted => at += 1,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'0'..=b'9' => digits += 1,
            b'.' | b'e' | b'E' if digits > 0 => exact = false,
            _ => {
                if digits >= 19 && exact {
                    return true;
                }
                (digits, exact) = (0, true);
            }
        }
    }
    digits >= 19 && exact
}

/// Parses level by level, so that the text of each number is at hand. Reads nested text once per level: it is the way
/// for the few documents that have such numbers.
fn with_long_integers(raw: &RawValue) -> Result<Doc, serde_json::Error> {
    let text = raw.get();
    match text.as_bytes().first() {
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(text)?;
            Ok(Doc::list(items.into_iter().map(with_long_integers).collect::<Result<_, _>>()?))
        }
        Some(b'{') => {
            let Entries(raw) = serde_json::from_str(text)?;
            let mut entries = Vec::with_capacity(raw.len());
            for (key, value) in raw {
                entries.push((Arc::from(key), with_long_integers(value)?));
            }
            Ok(Doc::object(entries))
        }
        Some(b'-' | b'0'..=b'9') if !text.contains(['.', 'e', 'E']) && text.parse::<i64>().is_err() && text.parse::<u64>().is_err() => {
            Ok(Doc(Node::Long(Arc::from(text))))
        }
        _ => serde_json::from_str(text),
    }
}

/// An object's entries in their order, the values unread.
struct Entries<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Entries<'de>, D::Error> {
        from.deserialize_map(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries<'de>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a JSON object")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Entries<'de>, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = from.next_entry()? {
            entries.push(entry);
        }
        Ok(Entries(entries))
    }
}
