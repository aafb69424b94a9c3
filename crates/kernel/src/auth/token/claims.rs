//! Claims as they stand in a token.

use std::fmt;

use serde::Deserializer;
use serde::de::{self, MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::time::Millis;

/// The last second of the year 9999: what is later is no time that anybody means.
const LAST_SECOND: f64 = 253_402_300_799.0;

/// What a token claims: an object, in which no name stands twice.
#[derive(Clone, PartialEq, Debug)]
pub struct Claims(Map<String, Value>);

impl Claims {
    /// Reads them; none if they are no such object.
    #[must_use]
    pub fn read(json: &[u8]) -> Option<Claims> {
        members(json).map(Claims)
    }

    /// A claim by its name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// A claim that is a text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name)?.as_str()
    }

    /// A claim by its name, or by a JSON Pointer (`/realm_access/roles`) where no name is like that.
    pub(super) fn at(&self, name: &str) -> Option<&Value> {
        if let Some(found) = self.get(name) {
            return Some(found);
        }
        let (first, rest) = name.strip_prefix('/')?.split_once('/').unwrap_or((&name[1..], ""));
        let member = self.get(&first.replace("~1", "/").replace("~0", "~"))?;
        if rest.is_empty() { Some(member) } else { member.pointer(&format!("/{rest}")) }
    }

    /// A claim that is a time: seconds since 1970, which may have a fraction. None: it is not there.
    ///
    /// # Errors
    /// It is there and is no time.
    pub(super) fn time(&self, name: &str) -> Result<Option<Millis>, ()> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let seconds = value.as_f64().filter(|seconds| (0.0..=LAST_SECOND).contains(seconds)).ok_or(())?;
        // In bounds, so that nothing is cut off but a part of a millisecond.
        Ok(Some(Millis((seconds * 1_000.0) as u64)))
    }
}

/// The members of a JSON object; none if it is none, or if a name stands in it twice: two readers could see two things in it.
#[must_use]
pub fn members(json: &[u8]) -> Option<Map<String, Value>> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let members = reader.deserialize_map(Once).ok()?;
    reader.end().ok()?;
    Some(members)
}

struct Once;

impl<'de> Visitor<'de> for Once {
    type Value = Map<String, Value>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object in which no name stands twice")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut members = Map::new();
        while let Some((name, value)) = access.next_entry::<String, Value>()? {
            if members.insert(name, value).is_some() {
                return Err(de::Error::custom("a name stands twice"));
            }
        }
        Ok(members)
    }
}
