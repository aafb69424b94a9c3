//! The storage schema: one kind a row.

/// The kinds of rows. The number of a kind never changes.
///
/// Every key is `hash16 (2 bytes, big endian) ‖ kind (1 byte) ‖ parts`; parts of variable length are prefixed by their
/// length (`u16`, big endian), ids are 18 bytes, numbers are big endian. Rows of a shard as a whole stand under the hash
/// `0xffff`, which no identity has. Every value starts with a format version byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, serde::Serialize, serde::Deserialize)]
#[repr(u8)]
pub enum Kind {
    /// Shard-wide, no parts → marks, ledger head, time of the last commit. Written by every commit.
    ShardHead = 1,
    /// invocation → the invocation: input, caller, status, result. Written at accept, at each failed attempt and at the end; leaves by retention.
    Invocation = 2,
    /// tenant, type, key, order (u64) → invocation. An open exclusive invocation of an actor, in the order accepted. Leaves at its end.
    Inbox = 3,
    /// Shard-wide, ready number → an invocation or a run. What a reopened shard activates. Leaves when it suspends, only waits, or ends.
    Ready = 4,
    /// invocation, index of the first (u32) → the journal entries that one transition wrote. Folded at the end; leaves by retention.
    Journal = 5,
    /// invocation → 32 bytes that key its seals. Leaves by retention or erasure.
    SealKey = 6,
    /// invocation, operation number (u32) → an operation that was begun. Leaves with the operation's entry.
    Begun = 7,
    /// tenant, type, key, name → a state entry. Leaves by delete.
    State = 8,
    /// Shard-wide, due (u64), number (u64) → what fires. Leaves when it fires or is given up.
    Timer = 9,
    /// Shard-wide, receiving shard (u16), n (u64) → an envelope. Leaves when the receiver has it.
    Outbox = 10,
    /// Shard-wide, sending shard (u16) → n of the last one taken.
    Taken = 11,
    /// tenant, type, key, handler, idempotency key → invocation and seal of the body. Leaves by retention.
    Idempotency = 12,
    /// tenant, type, key, signal name, n (u64) → a signal kept for an actor. Leaves when it is taken.
    ActorSignal = 13,
    /// invocation, signal name, n (u64) → a signal kept for an invocation. Leaves when it is taken or with the invocation.
    InvocationSignal = 14,
    /// invocation, n (u64) → a chunk of output. Leaves when its invocation's retention has passed.
    Output = 15,
    /// invocation → a dead letter. Leaves by retention or redrive.
    DeadLetter = 16,
    /// owner (18 bytes), seal (32 bytes), n (u32) → a chunk of a large payload. Leaves with its owner.
    Chunk = 17,
    /// Shard-wide, n (u64) → a ledger line. Leaves after a year.
    Ledger = 18,
    /// invocation → the folded journal, pieces by n (u32). Leaves by retention.
    FoldedJournal = 19,
    /// Shard-wide, tenant, what (1 byte), time (u64), id → a line of a list. `r`: runs, the time counted down so that the newest comes first; `a`: attribute, value,
    /// time counted down, run; `b`: the attributes of a run. Leaves with the run.
    Index = 20,
    /// invocation, peer → a caller that joined it by its idempotency key. Leaves at its end.
    Joined = 21,
    /// Shard-wide, receiving shard (u16) → n of the last envelope sent.
    Sent = 22,
    /// invocation → the timer of a client's message that is not due yet. Leaves when it fires.
    Delayed = 23,
    /// Shard-wide, tenant → how many invocations and delayed messages of it are open here. Written with each change; leaves when there are none.
    Tally = 24,
    /// Shard-wide, no parts → the epoch of the owner that wrote last. Written by the first commit of each owner.
    Owner = 25,
    /// invocation, index (u32) of an entry → index of the entry that stands in its place by hand. Leaves when its invocation's retention has passed.
    Resolved = 26,
    /// invocation, invocation → that the one was forked from the other. Leaves when its invocation's retention has passed.
    Fork = 27,
    /// tenant, type, key → a lender: what a limit has given to which shard. Leaves when nothing is lent and its window is empty, or by time when nobody asks again.
    Limit = 28,
    /// tenant, type, key → a breaker: what it is and since when, its failures, who has passes. Leaves when it is closed without failures, or by time.
    Breaker = 29,
    /// Shard-wide, tenant, day (u32) → bytes that it keeps here: until that day, or, without one, until they are removed. Written with each change; leaves on its day, or when there are none.
    /// Without a tenant → nothing: the shard counts them.
    Kept = 30,
    /// run → the run's header. Leaves by retention.
    Run = 32,
    /// run → the definition that the run is pinned to. Leaves by retention.
    RunDefinition = 33,
    /// run, stage (u16), piece (u32) → items of `over`. Leaves with the run.
    RunItems = 34,
    /// run, stage (u16), item (u32) → a task's end, or its failed attempts so far. Leaves with the run.
    RunTask = 35,
    /// run, stage (u16), group (part), gathered stage (u16), item (u32) → empty. Leaves with the run.
    RunGroup = 36,
    /// run, n (u64) → an event for readers. Leaves by retention.
    RunEvent = 37,
    /// run, n (u64) → a chain entry: the digest of one commit of the run. Leaves by retention.
    RunChain = 38,
    /// run → whose child it is, what finished in which order, what is being undone. Leaves by retention.
    RunAnnex = 39,
    /// tenant, pipeline, key, n (u64) → a run that goes, or waits in line. Leaves at its end.
    RunLine = 40,
    /// tenant, pipeline, key, run → n of its place in line. Leaves at its end.
    RunPlace = 41,
    /// Shard-wide, tenant, pipeline → a schedule: what it says, when it fires next, what it did. Leaves when it is removed.
    Schedule = 48,
    /// Shard-wide, tenant, pipeline, n (u64) counted down → a version of a stored pipeline. Leaves when too many newer ones are there.
    Definition = 49,
    /// Shard-wide, tenant, id → an API key: whose it is, what it may act as, a keyed hash. Stays when it is revoked; leaves when room is needed for a new one.
    ApiKey = 50,
    /// Shard-wide, tenant, principal → that it is disabled; without a principal the tenant as a whole. Leaves when it is enabled again.
    Disabled = 51,
    /// Shard-wide, tenant, what (1 byte), time (u64) counted down, id (18 bytes) → a decision, or equal ones of a minute. Leaves by retention, or when newer ones need room.
    Decision = 56,
}

impl Kind {
    /// All kinds, by their numbers.
    pub const ALL: [Kind; 45] = [
        Kind::ShardHead,
        Kind::Invocation,
        Kind::Inbox,
        Kind::Ready,
        Kind::Journal,
        Kind::SealKey,
        Kind::Begun,
        Kind::State,
        Kind::Timer,
        Kind::Outbox,
        Kind::Taken,
        Kind::Idempotency,
        Kind::ActorSignal,
        Kind::InvocationSignal,
        Kind::Output,
        Kind::DeadLetter,
        Kind::Chunk,
        Kind::Ledger,
        Kind::FoldedJournal,
        Kind::Index,
        Kind::Joined,
        Kind::Sent,
        Kind::Delayed,
        Kind::Tally,
        Kind::Owner,
        Kind::Resolved,
        Kind::Fork,
        Kind::Limit,
        Kind::Breaker,
        Kind::Kept,
        Kind::Run,
        Kind::RunDefinition,
        Kind::RunItems,
        Kind::RunTask,
        Kind::RunGroup,
        Kind::RunEvent,
        Kind::RunChain,
        Kind::RunAnnex,
        Kind::RunLine,
        Kind::RunPlace,
        Kind::Schedule,
        Kind::Definition,
        Kind::ApiKey,
        Kind::Disabled,
        Kind::Decision,
    ];

    /// The kind of a row, by the third byte of its key.
    #[must_use]
    pub fn of(key: &[u8]) -> Option<Kind> {
        let number = *key.get(2)?;
        Kind::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_found_by_its_number() {
        let declared = include_str!("kind.rs").split("impl Kind").next().unwrap_or_default().matches(" = ").count();
        assert_eq!(declared, Kind::ALL.len());
        for kind in Kind::ALL {
            assert_eq!(Kind::of(&[0, 0, kind as u8]), Some(kind));
        }
    }
}
