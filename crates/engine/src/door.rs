//! What is checked where something enters: sizes, names, waits, and what a permit is for.

use std::time::Duration;

use bytes::Bytes;
use selvedge_kernel::auth::{Action, Permit};
use selvedge_kernel::error::Consequence;
use selvedge_kernel::limit::{self, Limits};
use selvedge_kernel::pipeline::agree::{self, Declared};

use crate::registry::Registry;
use crate::shard::VerbError;

/// Refuses a program whose policies allow more attempts than anything may have.
pub(crate) fn check_attempts(registry: &Registry, limits: &Limits) -> Result<(), VerbError> {
    let actors = registry.actors.iter().map(|(name, actor)| (format!("actors of the type `{name}`"), actor.options.retry.max_attempts));
    let activities = registry.activities.iter().map(|(name, activity)| (format!("the activity `{name}`"), activity.retry.max_attempts));
    match actors.chain(activities).find(|(_, attempts)| u64::from(*attempts) > limits.attempts) {
        None => Ok(()),
        Some((what, attempts)) => Err(VerbError::new(
            Consequence::FixInput,
            "limit: attempts",
            format!("the retry policy of {what} allows {attempts} attempts, the limit is {}: lower max_attempts", limits.attempts),
        )),
    }
}

/// Refuses a program in which two give one limit, or one breaker, different numbers.
pub(crate) fn check_shared(registry: &Registry) -> Result<(), VerbError> {
    let declared = registry.declared();
    agreed(&declared, &declared)
}

/// Refuses what differs from what is known.
pub(crate) fn agreed(known: &[Declared], new: &[Declared]) -> Result<(), VerbError> {
    match agree::disagreements(known, new).pop() {
        None => Ok(()),
        Some(one) => Err(VerbError::new(Consequence::FixInput, "definition", format!("{one}; {}", agree::ADVICE))),
    }
}

pub(crate) fn check_signal(name: &str, payload: &Bytes) -> Result<(), VerbError> {
    let bound = limit::TRANSITION_BYTES;
    if payload.len() <= bound {
        return Ok(());
    }
    let text = format!("the signal `{name}` carries {} bytes, the limit is {bound}: send a reference instead", payload.len());
    Err(VerbError::new(Consequence::Limit, "limit: signal", text))
}

pub(crate) fn check_body(limits: &Limits, bytes: usize) -> Result<(), VerbError> {
    let bound = limits.body_bytes;
    if bytes as u64 <= bound {
        return Ok(());
    }
    Err(VerbError::new(Consequence::Limit, "limit: body", format!("the input has {bytes} bytes, the limit of a body is {bound}: send a reference instead")))
}

pub(crate) fn check_delay(limits: &Limits, span: Duration) -> Result<(), VerbError> {
    let ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    if ms <= limits.delay_ms {
        return Ok(());
    }
    Err(VerbError::new(Consequence::Limit, "limit: delay", format!("a delay of {ms} ms is longer than the limit, {} ms: wait in parts", limits.delay_ms)))
}

pub(crate) fn expect_action(permit: &Permit, action: Action) -> Result<(), VerbError> {
    if permit.action() == action { Ok(()) } else { Err(misused(permit)) }
}

/// The tenant that a permit for an action is about.
pub(crate) fn tenant_for(permit: &Permit, action: Action) -> Result<String, VerbError> {
    expect_action(permit, action)?;
    Ok(permit.resource().tenant().unwrap_or(&permit.context().principal.tenant).to_owned())
}

pub(crate) fn misused(permit: &Permit) -> VerbError {
    VerbError::new(Consequence::NotPermitted, "wrong_permit", format!("a permit for {:?} on {:?} does not allow this", permit.action(), permit.resource()))
}

/// Checks the reason of something that is done by hand.
pub(crate) fn check_reason(reason: &str) -> Result<(), VerbError> {
    let (bytes, bound) = (reason.len(), limit::REASON_BYTES);
    if reason.trim().is_empty() {
        return Err(VerbError::new(Consequence::FixInput, "no_reason", "the reason is empty: say why, it stays with what was done"));
    }
    if bytes > bound {
        return Err(VerbError::new(Consequence::Limit, "limit: reason", format!("the reason has {bytes} bytes, the limit is {bound}: shorten it")));
    }
    Ok(())
}

pub(crate) fn check_part(what: &str, part: &str) -> Result<(), VerbError> {
    if part.is_empty() {
        return Err(VerbError::new(Consequence::FixInput, "empty", format!("{what} is empty: name it")));
    }
    crate::core::check_part(what, part).map_err(|error| VerbError::new(Consequence::Limit, &error.code, error.message))
}
