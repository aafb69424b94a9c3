//! Who waits for whom: the chain that a call carries, and rings of calls.
//!
//! A ring is found by a probe that goes along waiting calls (Chandy, Misra and Haas, 1983, for one answer that all wait
//! for). Each call is a hop, named by its caller, the number of its operation and the invocation that it became; a hop
//! that is gone never comes back. A probe reads hop by hop, at different times, so that a ring which was broken while it
//! travelled may look whole. A second round over the very same hops rules that out: what was there before the second
//! round began and is there when it looks was there in between, all of it at once.

use serde::{Deserialize, Serialize};

use crate::error::WorkError;
use crate::id::{ActorId, InvocationId};
use crate::limit;
use crate::time::Millis;

/// One invocation that waits for a call, and the actor that it holds while it waits.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Link {
    /// Which invocation.
    pub invocation: InvocationId,
    /// Which actor it holds.
    pub actor: ActorId,
    /// Which of its handlers.
    pub handler: String,
}

impl std::fmt::Display for Link {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}.{} ({})", self.actor, self.handler, self.invocation)
    }
}

/// Why a call by the last of `chain` to `target` can never be answered, if it cannot: it goes to an actor that one of
/// the chain holds, or the chain is too long.
pub fn refuse_call(chain: &[Link], target: &ActorId, handler: &str) -> Result<(), WorkError> {
    if let Some(from) = chain.iter().position(|link| link.actor == *target) {
        let ring: Vec<String> = chain.iter().skip(from).map(ToString::to_string).collect();
        let text = format!(
            "{} → {target}.{handler}: each waits for the next, and the last for an actor that the first holds; send instead, or use a shared handler",
            ring.join(" → ")
        );
        return Err(WorkError::new("call_cycle", text).bounded());
    }
    if chain.len() > limit::CALL_DEPTH {
        let text = format!("{} calls wait for one another, the limit is {}: send instead of calling", chain.len(), limit::CALL_DEPTH);
        return Err(WorkError::new("limit: call depth", text));
    }
    Ok(())
}

/// One call that is waited for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hop {
    /// Who waits, and what he holds.
    pub caller: Link,
    /// The operation whose row is kept until the answer has come.
    pub number: u32,
    /// What the call became.
    pub called: InvocationId,
    /// Since when he waits.
    pub since: Millis,
}

/// The call of a ring that is given up: the one that was made last.
#[must_use]
pub fn youngest(ring: &[Hop]) -> Option<&Hop> {
    ring.iter().max_by_key(|hop| (hop.since, hop.called))
}

/// The error of a call that a ring of calls has given up.
#[must_use]
pub fn deadlock(ring: &[Hop]) -> WorkError {
    let names: Vec<String> = ring.iter().map(|hop| hop.caller.to_string()).collect();
    let first = ring.first().map(|hop| hop.caller.actor.to_string()).unwrap_or_default();
    let text = format!("{} → {first}: each holds its actor and waits for the next; this call was the last one made, and was given up", names.join(" → "));
    WorkError::new("deadlock", text).bounded()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::id::RawId;

    fn link(key: &str) -> Link {
        let actor = ActorId { tenant: "default".to_owned(), kind: "a".to_owned(), key: key.to_owned() };
        Link { invocation: InvocationId(RawId { hash: actor.hash16(), uuid: [key.len() as u8; 16] }), actor, handler: "go".to_owned() }
    }

    #[test]
    fn a_call_into_its_own_chain_is_refused_with_the_ring_in_words() {
        let chain = [link("x"), link("yy"), link("zzz")];
        let error = refuse_call(&chain, &link("yy").actor, "go").unwrap_err();
        assert_eq!(error.code, "call_cycle");
        assert!(!error.message.contains("a/x.go"), "{error}");
        assert!(error.message.contains("a/yy.go") && error.message.contains("→ a/zzz.go"), "{error}");
        assert!(refuse_call(&chain, &link("other").actor, "go").is_ok());
    }

    #[test]
    fn the_sixty_fifth_waiting_call_names_the_limit() {
        let chain: Vec<Link> = (1..=64).map(|n| link(&"k".repeat(n))).collect();
        assert!(refuse_call(&chain, &link("").actor, "go").is_ok());
        let longer: Vec<Link> = (1..=65).map(|n| link(&"k".repeat(n))).collect();
        assert_eq!(refuse_call(&longer, &link("").actor, "go").unwrap_err().code, "limit: call depth");
    }

    #[test]
    fn the_youngest_call_of_a_ring_is_the_one_made_last() {
        let hop = |key: &str, since: u64| Hop { caller: link(key), number: 0, called: link(key).invocation, since: Millis(since) };
        let ring = [hop("x", 5), hop("yy", 9), hop("zzz", 7)];
        assert_eq!(youngest(&ring).unwrap().caller, link("yy"));
        let error = deadlock(&ring);
        assert_eq!(error.code, "deadlock");
        assert!(error.message.contains("a/x.go") && error.message.ends_with("given up"), "{error}");
    }
}
