//! Policies as they stand in a file.

use super::scope::{InScope, expression};
use crate::diagnostic::Report;
use crate::fields::{Fields, number, span, strings, whole, word};
use crate::limit::Limits;
use crate::pipeline::document::{Kind, Tree};
use crate::policy::{Backoff, Breaker, Rate, Retry, Throttle, Timeout};

/// The most failures, and the most probes, of a breaker.
pub(super) const BREAKER_COUNT: u64 = 1_000;
const ATTEMPTS: std::ops::RangeInclusive<u64> = 1..=Limits::MAX.attempts;

/// `retry`: a mapping, or `none`. Fields that are not written take the defaults.
pub(crate) fn retry(report: &mut Report, tree: &Tree) -> Option<Retry> {
    if let Kind::Text(text) = &tree.kind {
        if text.value == "none" {
            return Some(Retry::none());
        }
        report.error(tree.place, "`retry` must be a mapping or `none`", "write retry: {max_attempts: 3} or retry: none");
        return None;
    }
    let mut fields = Fields::of(report, tree, "`retry`", "write retry: {max_attempts: 3} or retry: none")?;
    let mut retry = Retry::default();
    if let Some(entry) = fields.get("max_attempts") {
        retry.max_attempts = whole(report, "max_attempts", &entry.value, ATTEMPTS).unwrap_or(1) as u32;
    }
    if let Some(entry) = fields.get("backoff") {
        retry.backoff = match word(report, "backoff", &entry.value, &["fixed", "linear", "exponential"]) {
            Some("fixed") => Backoff::Fixed,
            Some("linear") => Backoff::Linear,
            _ => Backoff::Exponential,
        };
    }
    if let Some(entry) = fields.get("initial") {
        retry.initial = span(report, "initial", &entry.value).unwrap_or(retry.initial);
        retry.max = retry.max.max(retry.initial);
    }
    if let Some(entry) = fields.get("max") {
        let max = span(report, "max", &entry.value).unwrap_or(retry.max);
        if max < retry.initial {
            report.error(
                entry.value.place,
                format!("`max` ({max}) is shorter than `initial` ({})", retry.initial),
                "`initial` is the first wait, `max` the longest",
            );
        }
        retry.max = max;
    }
    if let Some(entry) = fields.get("multiplier") {
        retry.multiplier = number(report, "multiplier", &entry.value, 1.0..=100.0).unwrap_or(retry.multiplier);
    }
    if let Some(entry) = fields.get("jitter") {
        retry.jitter = number(report, "jitter", &entry.value, 0.0..=1.0).unwrap_or(retry.jitter);
    }
    let mut codes = |report: &mut Report, name: &str| {
        let entry = fields.get(name)?;
        let codes = strings(report, name, &entry.value)?;
        Some(codes.into_iter().map(|(code, _)| code).collect::<Vec<_>>())
    };
    retry.retry_on = codes(report, "retry_on").unwrap_or_default();
    retry.give_up_on = codes(report, "give_up_on").unwrap_or_default();
    fields.end(report);
    Some(retry)
}

/// `timeout` of an activity or a stage: `{attempt, total}`.
pub(crate) fn timeout(report: &mut Report, tree: &Tree) -> Option<Timeout> {
    if let Kind::Text(text) = &tree.kind {
        report.error(
            tree.place,
            "`timeout` must be a mapping",
            format!("write timeout: {{attempt: {0}}} for each attempt, timeout: {{total: {0}}} for all of them", text.value),
        );
        return None;
    }
    let mut fields = Fields::of(report, tree, "`timeout`", "write timeout: {attempt: 10s, total: 1h}")?;
    let mut timeout = Timeout::default();
    if let Some(entry) = fields.get("attempt") {
        timeout.attempt = span(report, "attempt", &entry.value);
    }
    if let Some(entry) = fields.get("total") {
        timeout.total = span(report, "total", &entry.value);
    }
    fields.end(report);
    Some(timeout)
}

/// `timeout` of a stage that waits: `{total}`.
pub(crate) fn waiting_timeout(report: &mut Report, tree: &Tree) -> Option<Timeout> {
    let mut fields = Fields::of(report, tree, "`timeout`", "write timeout: {total: 3d}")?;
    fields.elsewhere(report, "attempt", "makes no sense here: a wait has no attempts", "write timeout: {total: 3d}");
    let total = fields.required(report, "total", "write timeout: {total: 3d}").and_then(|entry| span(report, "total", &entry.value));
    fields.end(report);
    Some(Timeout { attempt: None, total })
}

/// `breaker` of an activity or a stage: `{failures, window, open_for, probes}`.
pub(crate) fn breaker(report: &mut Report, tree: &Tree) -> Option<Breaker> {
    let mut fields = Fields::of(report, tree, "`breaker`", "write breaker: {failures: 5, window: 1m, open_for: 30s, probes: 1}")?;
    let mut breaker = Breaker::default();
    let mut count = |report: &mut Report, name: &str, into: &mut u32| {
        if let Some(value) = fields.get(name).and_then(|entry| whole(report, name, &entry.value, 1..=BREAKER_COUNT)) {
            *into = value as u32;
        }
    };
    count(report, "failures", &mut breaker.failures);
    count(report, "probes", &mut breaker.probes);
    for (name, into) in [("window", &mut breaker.window), ("open_for", &mut breaker.open_for)] {
        if let Some(entry) = fields.get(name) {
            *into = span(report, name, &entry.value).unwrap_or(*into);
        }
    }
    fields.end(report);
    Some(breaker)
}

/// `throttle`: `{concurrency, rate: {count, per}, key}`. The key is an expression in `scope`.
pub(crate) fn throttle(report: &mut Report, tree: &Tree, scope: &InScope<'_>) -> Option<Throttle> {
    let mut fields = Fields::of(report, tree, "`throttle`", "write throttle: {concurrency: 16}")?;
    let mut throttle = Throttle::default();
    if let Some(entry) = fields.get("concurrency") {
        throttle.concurrency = whole(report, "concurrency", &entry.value, 1..=Limits::MAX.run_tasks).map(|value| value as u32);
    }
    if let Some(entry) = fields.get("rate") {
        throttle.rate = rate(report, &entry.value);
    }
    if let Some(entry) = fields.get("key") {
        throttle.key = expression(report, "throttle.key", &entry.value, scope);
    }
    if fields.peek("concurrency").is_none() && fields.peek("rate").is_none() {
        report.error(tree.place, "`throttle` limits nothing", "write throttle: {concurrency: 16} or throttle: {rate: {count: 5, per: 1s}}");
    }
    fields.end(report);
    Some(throttle)
}

fn rate(report: &mut Report, tree: &Tree) -> Option<Rate> {
    let mut fields = Fields::of(report, tree, "`rate`", "write rate: {count: 5, per: 1s}")?;
    let hint = "write rate: {count: 5, per: 1s}";
    let count = fields.required(report, "count", hint).and_then(|entry| whole(report, "count", &entry.value, 1..=1_000_000));
    let per = fields.required(report, "per", hint).and_then(|entry| span(report, "per", &entry.value));
    fields.end(report);
    Some(Rate { count: count? as u32, per: per? })
}
