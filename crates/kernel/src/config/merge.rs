//! Layers of configuration, and what they come to.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// One layer of configuration.
#[derive(Clone, PartialEq, Debug)]
pub struct Layer {
    /// Where it comes from, for people.
    pub origin: String,
    /// Higher ones win.
    pub priority: i32,
    /// What it says.
    pub value: Value,
}

/// What layers come to.
#[derive(Clone, PartialEq, Debug)]
pub struct Merged {
    /// The result.
    pub value: Value,
    /// Per leaf, by JSON Pointer: the layer that it came from. A leaf is whatever is no object, or an empty one.
    pub origins: BTreeMap<String, String>,
}

/// Merges layers, lowest to highest priority, ties in the order given. Objects merge deeply, arrays and scalars
/// replace, an explicit null removes, an absent key keeps.
#[must_use]
pub fn merge_config(layers: &[Layer]) -> Merged {
    let mut order: Vec<&Layer> = layers.iter().collect();
    // The sort is stable: ties stay in the order given.
    order.sort_by_key(|layer| layer.priority);
    let mut root = Node::Object(Map::new(), BTreeMap::new(), None);
    for layer in order {
        root.take(&layer.value, &layer.origin);
    }
    let mut origins = BTreeMap::new();
    let value = root.finish("", &mut origins);
    Merged { value, origins }
}

/// A value that remembers who said it. An object keeps its keys' order in the map of the first part.
enum Node {
    Leaf(Value, String),
    Object(Map<String, Value>, BTreeMap<String, Node>, Option<String>),
}

impl Node {
    fn of(value: &Value, origin: &str) -> Node {
        match value {
            Value::Object(_) => {
                let mut node = Node::Object(Map::new(), BTreeMap::new(), Some(origin.to_owned()));
                node.take(value, origin);
                node
            }
            leaf => Node::Leaf(leaf.clone(), origin.to_owned()),
        }
    }

    fn take(&mut self, value: &Value, origin: &str) {
        match (&mut *self, value) {
            (Node::Object(order, parts, said), Value::Object(entries)) => {
                *said = Some(origin.to_owned());
                for (key, value) in entries {
                    if value.is_null() {
                        order.shift_remove(key);
                        parts.remove(key);
                        continue;
                    }
                    match parts.get_mut(key) {
                        Some(part) => part.take(value, origin),
                        None => {
                            order.insert(key.clone(), Value::Null);
                            parts.insert(key.clone(), Node::of(value, origin));
                        }
                    }
                }
            }
            (_, Value::Null) => *self = Node::Object(Map::new(), BTreeMap::new(), Some(origin.to_owned())),
            (_, value) => *self = Node::of(value, origin),
        }
    }

    fn finish(self, pointer: &str, origins: &mut BTreeMap<String, String>) -> Value {
        match self {
            Node::Leaf(value, origin) => {
                origins.insert(pointer.to_owned(), origin);
                value
            }
            Node::Object(order, mut parts, said) => {
                if order.is_empty()
                    && let Some(origin) = said
                {
                    origins.insert(pointer.to_owned(), origin);
                }
                let mut whole = Map::new();
                for key in order.keys() {
                    if let Some(part) = parts.remove(key) {
                        let pointer = format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"));
                        whole.insert(key.clone(), part.finish(&pointer, origins));
                    }
                }
                Value::Object(whole)
            }
        }
    }
}
