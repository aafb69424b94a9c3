//! Time as a number that comes in by parameter.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// Milliseconds since the Unix epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, Debug)]
pub struct Millis(pub u64);

impl Millis {
    /// The time `span` after this one, saturating.
    #[must_use]
    pub fn after(self, span: Duration) -> Millis {
        Millis(self.0.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long from `earlier` to this time; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Millis) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// The day (UTC) that this time falls on.
    #[must_use]
    pub fn day(self) -> Day {
        Day(u32::try_from(self.0 / 86_400_000).unwrap_or(u32::MAX))
    }
}

impl fmt::Display for Millis {
    /// RFC 3339 in UTC, with milliseconds.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match i64::try_from(self.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()) {
            Some(at) => write!(out, "{at:.3}"),
            None => write!(out, "{} ms after 1970", self.0),
        }
    }
}

/// A time as people and other programs read it: RFC 3339 in UTC.
pub mod text {
    use serde::{Deserialize, Deserializer, Serializer, de};

    use super::Millis;

    /// Writes it as text.
    pub fn serialize<S: Serializer>(at: &Millis, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(at)
    }

    /// Reads what [`serialize`] has written.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Millis, D::Error> {
        let text = String::deserialize(deserializer)?;
        let at: jiff::Timestamp = text.parse().map_err(de::Error::custom)?;
        u64::try_from(at.as_millisecond()).map(Millis).map_err(de::Error::custom)
    }

    /// The same for a time that may be missing.
    pub mod optional {
        use serde::{Deserialize, Deserializer, Serialize, Serializer};

        use super::Millis;

        #[derive(Serialize, Deserialize)]
        struct Text(#[serde(with = "super")] Millis);

        /// Writes it as text, or nothing.
        pub fn serialize<S: Serializer>(at: &Option<Millis>, serializer: S) -> Result<S::Ok, S::Error> {
            at.map(Text).serialize(serializer)
        }

        /// Reads what [`serialize`] has written.
        pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Millis>, D::Error> {
            Ok(Option::<Text>::deserialize(deserializer)?.map(|text| text.0))
        }
    }
}

/// A day in UTC, counted from 1970-01-01; what may vanish together vanishes on one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Debug)]
pub struct Day(pub u32);

impl Day {
    /// The first day on which something kept from `from` for `keep` may vanish: the day after its end.
    #[must_use]
    pub fn expiry(from: Millis, keep: Duration) -> Day {
        Day(from.after(keep).day().0.saturating_add(1))
    }

    /// When it begins.
    #[must_use]
    pub fn start(self) -> Millis {
        Millis(u64::from(self.0) * 86_400_000)
    }
}
