//! Replays of recorded journals with the code at hand, before a deploy. They read, and write nothing.

use selvedge_kernel::auth::{Action, Permit, Resource};
use selvedge_kernel::id::InvocationId;
use selvedge_kernel::time::Millis;
use serde::Serialize;

use crate::door::{expect_action, misused};
use crate::engine::Engine;
use crate::listing::Listed;
use crate::shard::{Command, VerbError};

/// Which journals are replayed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Journals {
    /// Those of actors of this type; of all, if there is none.
    pub kind: Option<String>,
    /// Those of invocations that are open, and of those that were accepted since then.
    pub since: Millis,
}

/// What replays have shown.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Rehearsed {
    /// How many journals were replayed.
    pub replayed: usize,
    /// What does not fit, the oldest first.
    pub misfits: Vec<Misfit>,
}

/// A journal that the code at hand does not fit.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Misfit {
    /// Of which invocation.
    pub id: InvocationId,
    /// Of which actor, as TYPE/KEY.
    pub actor: String,
    /// Of which handler.
    pub handler: String,
    /// Where the two part, in words.
    pub reason: String,
}

impl Engine {
    /// Replays recorded journals with the code of this process, one after the other, and says which would block.
    pub async fn rehearse(&self, permit: Permit, journals: Journals) -> Result<Rehearsed, VerbError> {
        expect_action(&permit, Action::Operate)?;
        if *permit.resource() != Resource::Store {
            return Err(misused(&permit));
        }
        let mut lines = self.kept_invocations(&permit.context().principal.tenant, Listed::All).await?;
        let of_kind = |actor: &str| journals.kind.as_deref().is_none_or(|kind| actor.split('/').next() == Some(kind));
        lines.retain(|line| of_kind(&line.actor) && (!line.status.ended() || line.accepted_at >= journals.since));
        lines.sort_by_key(|line| (line.accepted_at, line.id));
        let mut found = Rehearsed { replayed: lines.len(), misfits: Vec::new() };
        for line in lines {
            let id = line.id;
            let reason = self.ask(self.wiring.shard_of_invocation(id), |reply| Command::Rehearse { id, reply }).await?;
            found.misfits.extend(reason.map(|reason| Misfit { id, actor: line.actor, handler: line.handler, reason }));
        }
        Ok(found)
    }
}
