//! One policy for everything that can fail: `Retry`, `Timeout`, `Throttle`, `Breaker`.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::time::Duration;

use crate::error::AttemptError;
use crate::limit::Limits;

/// A span of time as people write it: `250ms`, `30s`, `5m`, `2h`, `7d`, or ISO 8601 (a day is 24 h).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default)]
pub struct Span(pub Duration);

/// Text that is no span.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
#[error("`{text}` is not a duration: {reason}; write 250ms, 30s, 5m, 2h, 7d or ISO 8601 such as PT30S")]
pub struct SpanError {
    text: String,
    reason: &'static str,
}

impl std::str::FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Span, SpanError> {
        let wrong = |reason| SpanError { text: text.chars().take(40).collect(), reason };
        let trimmed = text.trim();
        if trimmed.is_empty() {
            return Err(wrong("it is empty"));
        }
        if trimmed.starts_with('-') {
            return Err(wrong("it is negative"));
        }
        if trimmed.starts_with(['P', 'p']) {
            return parse_iso(trimmed).map_err(wrong);
        }
        let digits = trimmed.find(|c: char| !c.is_ascii_digit()).ok_or_else(|| wrong("it has no unit"))?;
        let (number, unit) = trimmed.split_at(digits);
        let number: u64 = number.parse().map_err(|_| wrong("it does not start with a whole number"))?;
        let unit_ms = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong("its unit is none of ms, s, m, h, d")),
        };
        let ms = number.checked_mul(unit_ms).ok_or_else(|| wrong("it is too long"))?;
        if ms > Limits::MAX.delay_ms {
            return Err(wrong("it is longer than 10 years"));
        }
        Ok(Span(Duration::from_millis(ms)))
    }
}

fn parse_iso(text: &str) -> Result<Span, &'static str> {
    let upper = text.to_ascii_uppercase();
    let body = upper.strip_prefix('P').ok_or("it is not ISO 8601")?;
    let (date, time) = body.split_once('T').map_or((body, ""), |(date, time)| (date, time));
    if date.is_empty() && time.is_empty() {
        return Err("it names no amount");
    }
    let mut ms = 0f64;
    for (part, units) in [(date, &[('W', 604_800_000f64), ('D', 86_400_000.)][..]), (time, &[('H', 3_600_000.), ('M', 60_000.), ('S', 1_000.)][..])] {
        let mut rest = part;
        let mut known = units.iter();
        while !rest.is_empty() {
            let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or("an amount has no unit")?;
            let amount: f64 = rest[..end].parse().map_err(|_| "an amount is not a number")?;
            let unit = rest[end..].chars().next().ok_or("an amount has no unit")?;
            if part == date && (unit == 'M' || unit == 'Y') {
                return Err("months and years have no fixed length");
            }
            let (_, unit_ms) = known.find(|(name, _)| *name == unit).ok_or("its units are not ISO 8601, or not in order")?;
            ms += amount * unit_ms;
            rest = &rest[end + unit.len_utf8()..];
        }
    }
    if ms > Limits::MAX.delay_ms as f64 {
        return Err("it is longer than 10 years");
    }
    Ok(Span(Duration::from_millis(ms.round() as u64)))
}

impl fmt::Display for Span {
    /// The shortest of the units that says it exactly.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        for (unit_ms, name) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")] {
            if ms > 0 && ms.is_multiple_of(unit_ms) {
                return write!(out, "{}{name}", ms / unit_ms);
            }
        }
        write!(out, "{ms}ms")
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() { to.collect_str(self) } else { to.serialize_u64(u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)) }
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Span, D::Error> {
        if from.is_human_readable() {
            let text = String::deserialize(from)?;
            text.parse().map_err(serde::de::Error::custom)
        } else {
            Ok(Span(Duration::from_millis(u64::deserialize(from)?)))
        }
    }
}

/// How the wait grows from attempt to attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backoff {
    /// Always `initial`.
    Fixed,
    /// `initial` × attempt.
    Linear,
    /// `initial` × `multiplier` ^ (attempt − 1).
    Exponential,
}

/// When and how often to try again.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retry {
    /// Attempts in all, the first included; 1 is no retry.
    pub max_attempts: u32,
    /// How the wait grows.
    pub backoff: Backoff,
    /// The first wait.
    pub initial: Span,
    /// The longest wait.
    pub max: Span,
    /// The growth of `exponential`.
    pub multiplier: f64,
    /// Up to which part of the wait is added or taken away by chance, 0 to 1.
    pub jitter: f64,
    /// If not empty: only errors with these codes are tried again.
    pub retry_on: Vec<String>,
    /// Errors with these codes are never tried again.
    pub give_up_on: Vec<String>,
}

impl Default for Retry {
    /// Activities and steps: 10 attempts, exponential from 500 ms by 2 up to 1 min, jitter 0.25.
    fn default() -> Retry {
        Retry {
            max_attempts: 10,
            backoff: Backoff::Exponential,
            initial: Span(Duration::from_millis(500)),
            max: Span(Duration::from_secs(60)),
            multiplier: 2.0,
            jitter: 0.25,
            retry_on: Vec::new(),
            give_up_on: Vec::new(),
        }
    }
}

impl Retry {
    /// One attempt.
    #[must_use]
    pub fn none() -> Retry {
        Retry { max_attempts: 1, ..Retry::default() }
    }

    /// Exponential with the default waits and this many attempts.
    #[must_use]
    pub fn exponential(max_attempts: u32) -> Retry {
        Retry { max_attempts, ..Retry::default() }
    }

    /// The same wait between this many attempts.
    #[must_use]
    pub fn fixed(max_attempts: u32, wait: Duration) -> Retry {
        Retry { max_attempts, backoff: Backoff::Fixed, initial: Span(wait), max: Span(wait), jitter: 0.0, ..Retry::default() }
    }

    /// Messages to actors: 1 000 attempts, at most 10 min apart, about a week.
    #[must_use]
    pub fn message() -> Retry {
        Retry { max_attempts: 1_000, max: Span(Duration::from_secs(600)), ..Retry::default() }
    }
}

/// After so many failed attempts somebody is to look, long before the last one: a tenth of them, and 20 at least. None where
/// there are no more than that.
///
/// ```
/// use selvedge_kernel::policy::{look_after, Retry};
/// assert_eq!(look_after(&Retry::message()), Some(100));
/// assert_eq!(look_after(&Retry::exponential(20)), None);
/// ```
#[must_use]
pub fn look_after(retry: &Retry) -> Option<u32> {
    let failed = (retry.max_attempts / 10).max(20);
    (failed < retry.max_attempts).then_some(failed)
}

/// How long an attempt, and all attempts together, may take.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timeout {
    /// One attempt.
    pub attempt: Option<Span>,
    /// From the first attempt's start to the end.
    pub total: Option<Span>,
}

impl Default for Timeout {
    fn default() -> Timeout {
        Timeout { attempt: Some(Span(Duration::from_secs(300))), total: None }
    }
}

/// So many in so much time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// How many.
    pub count: u32,
    /// In which time.
    pub per: Span,
}

/// How many at once, and how many in which time. Without `key` it belongs to its stage.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Throttle {
    /// At most this many at once.
    pub concurrency: Option<u32>,
    /// At most this many starts in a time.
    pub rate: Option<Rate>,
    /// An expression: one limit for each of its values.
    pub key: Option<String>,
}

impl fmt::Display for Throttle {
    /// As it is written in a file, its key apart.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let concurrency = self.concurrency.map(|most| format!("concurrency: {most}"));
        let rate = self.rate.map(|rate| format!("rate: {{count: {}, per: {}}}", rate.count, rate.per));
        write!(out, "{{{}}}", concurrency.into_iter().chain(rate).collect::<Vec<_>>().join(", "))
    }
}

/// After so many failures in a window, stop trying for a while.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Breaker {
    /// Failures that open it.
    pub failures: u32,
    /// In which window.
    pub window: Span,
    /// How long it stays open.
    pub open_for: Span,
    /// Attempts let through to find out.
    pub probes: u32,
}

impl Default for Breaker {
    fn default() -> Breaker {
        Breaker { failures: 5, window: Span(Duration::from_secs(60)), open_for: Span(Duration::from_secs(30)), probes: 1 }
    }
}

/// How long an approval waits, if its stage does not say.
pub const APPROVAL_EXPIRES: Span = Span(Duration::from_secs(7 * 86_400));

/// What holds where nothing is written, as JSON: `step` is an activity's too.
#[must_use]
pub fn defaults() -> serde_json::Value {
    serde_json::json!({
        "step": { "retry": Retry::default(), "timeout": Timeout::default() },
        "message": { "retry": Retry::message() },
        "breaker": Breaker::default(),
        "approval": { "expires": APPROVAL_EXPIRES, "fallback": "reject" },
    })
}

/// The wait after failed attempt number `attempt` (from 1). `seed` decides the jitter: the same seed, the same wait.
///
/// ```
/// use selvedge_kernel::policy::{delay, Retry};
/// let policy = Retry { jitter: 0.0, ..Retry::exponential(5) };
/// assert_eq!(delay(1, &policy, 7).as_millis(), 500);
/// assert_eq!(delay(3, &policy, 7).as_millis(), 2_000);
/// ```
#[must_use]
pub fn delay(attempt: u32, policy: &Retry, seed: u64) -> Duration {
    let initial = policy.initial.0.as_secs_f64();
    let steps = f64::from(attempt.max(1) - 1);
    let wait = match policy.backoff {
        Backoff::Fixed => initial,
        Backoff::Linear => initial * (steps + 1.0),
        Backoff::Exponential => initial * policy.multiplier.max(1.0).powf(steps),
    };
    let max = policy.max.0.as_secs_f64();
    let wait = if wait.is_finite() { wait.min(max) } else { max };
    let unit = {
        let mut bytes = [0u8; 16];
        bytes[..8].copy_from_slice(&seed.to_be_bytes());
        bytes[8..12].copy_from_slice(&attempt.to_be_bytes());
        let hash = blake3::hash(&bytes);
        let mut word = [0u8; 4];
        word.copy_from_slice(&hash.as_bytes()[..4]);
        f64::from(u32::from_be_bytes(word)) / f64::from(u32::MAX)
    };
    let jitter = policy.jitter.clamp(0.0, 1.0);
    Duration::from_secs_f64((wait * (1.0 + jitter * (2.0 * unit - 1.0))).clamp(0.0, max))
}

/// What follows a failed attempt.
#[derive(Clone, PartialEq, Debug)]
pub enum Verdict {
    /// Wait, then try again.
    Again {
        /// The wait.
        delay: Duration,
    },
    /// That was the last: attempts used up.
    Exhausted,
    /// The error says, or the policy says, that no attempt helps.
    GiveUp,
}

/// Decides what follows failed attempt number `attempt` (from 1).
#[must_use]
pub fn after_failure(attempt: u32, failure: &AttemptError, policy: &Retry, seed: u64) -> Verdict {
    let code = &failure.error.code;
    let chosen = policy.retry_on.is_empty() || policy.retry_on.contains(code);
    if !failure.retryable || policy.give_up_on.contains(code) || !chosen {
        return Verdict::GiveUp;
    }
    if attempt >= policy.max_attempts {
        return Verdict::Exhausted;
    }
    let asked = Duration::from_millis(failure.retry_after_ms.unwrap_or(0));
    Verdict::Again { delay: delay(attempt, policy, seed).max(asked) }
}
