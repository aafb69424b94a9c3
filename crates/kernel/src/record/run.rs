//! Rows of a run: keys and values of the kinds `Run*`, and of the signals kept for it.
//!
//! All of them stand under the hash of the run, so that one commit of its shard can write any of them.

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;

use super::kind::Kind;
use super::message::Peer;
use crate::auth::AuthorizationContext;
use crate::error::WorkError;
use crate::id::{ApprovalId, Key, RunId, push_part};
use crate::journal::Hash32;
use crate::machine::{ApprovalState, RunState, StageState};
use crate::pipeline::throttle::Slice;
use crate::time::Millis;
use crate::wire::{self, WireError};

/// The number of the task that `on_failure: {call}` runs for a stage: after every item.
pub const FALLBACK_ITEM: u32 = u32::MAX;

fn base(kind: Kind, run: RunId) -> Vec<u8> {
    let mut key = Vec::with_capacity(40);
    key.extend_from_slice(&run.0.hash.0.to_be_bytes());
    key.push(kind as u8);
    key.extend_from_slice(&run.0.to_bytes());
    key
}

/// run → [`RunRow`].
#[must_use]
pub fn run_key(run: RunId) -> Key {
    base(Kind::Run, run).into()
}

/// run → [`Pinned`].
#[must_use]
pub fn definition_key(run: RunId) -> Key {
    base(Kind::RunDefinition, run).into()
}

/// run → [`crate::journal::SealKey`].
#[must_use]
pub fn seal_key_key(run: RunId) -> Key {
    base(Kind::SealKey, run).into()
}

/// run, stage, piece → [`Piece`].
#[must_use]
pub fn items_key(run: RunId, stage: u16, piece: u32) -> Key {
    let mut key = base(Kind::RunItems, run);
    key.extend_from_slice(&stage.to_be_bytes());
    key.extend_from_slice(&piece.to_be_bytes());
    key.into()
}

/// run, stage, item → [`TaskRow`].
#[must_use]
pub fn task_key(run: RunId, stage: u16, item: u32) -> Key {
    let mut key = base(Kind::RunTask, run);
    key.extend_from_slice(&stage.to_be_bytes());
    key.extend_from_slice(&item.to_be_bytes());
    key.into()
}

/// The stage in a key of [`task_key`] or [`items_key`].
#[must_use]
pub fn stage_of_key(key: &[u8]) -> Option<u16> {
    key.get(21..)?.first_chunk::<2>().map(|first| u16::from_be_bytes(*first))
}

/// The item in a key of [`task_key`].
#[must_use]
pub fn item_of_task_key(key: &[u8]) -> Option<u32> {
    key.last_chunk::<4>().map(|last| u32::from_be_bytes(*last))
}

/// run, stage → the prefix of its [`group_key`]s.
#[must_use]
pub fn groups_prefix(run: RunId, stage: u16) -> Key {
    let mut key = base(Kind::RunGroup, run);
    key.extend_from_slice(&stage.to_be_bytes());
    key.into()
}

/// run, stage, group → the prefix of the [`group_key`]s of one group.
#[must_use]
pub fn group_prefix(run: RunId, stage: u16, group: &[u8]) -> Key {
    let mut key = groups_prefix(run, stage).to_vec();
    push_part(&mut key, group);
    key.into()
}

/// run, stage, group, gathered stage (its place in `stages`), item → empty.
#[must_use]
pub fn group_key(run: RunId, stage: u16, group: &[u8], member: u16, item: u32) -> Key {
    let mut key = group_prefix(run, stage, group).to_vec();
    key.extend_from_slice(&member.to_be_bytes());
    key.extend_from_slice(&item.to_be_bytes());
    key.into()
}

/// Group, place and item in a key of [`group_key`].
#[must_use]
pub fn parts_of_group_key(key: &[u8]) -> Option<(&[u8], u16, u32)> {
    let rest = key.get(23..)?;
    let (len, rest) = rest.split_first_chunk::<2>()?;
    let (group, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
    let (member, item) = rest.split_first_chunk::<2>()?;
    let item: [u8; 4] = item.try_into().ok()?;
    Some((group, u16::from_be_bytes(*member), u32::from_be_bytes(item)))
}

/// run, n → [`Event`].
#[must_use]
pub fn event_key(run: RunId, n: u64) -> Key {
    let mut key = base(Kind::RunEvent, run);
    key.extend_from_slice(&n.to_be_bytes());
    key.into()
}

/// run, n → [`ChainRow`].
#[must_use]
pub fn chain_key(run: RunId, n: u64) -> Key {
    let mut key = base(Kind::RunChain, run);
    key.extend_from_slice(&n.to_be_bytes());
    key.into()
}

/// run, signal name, n → [`Stored`]: a signal that nobody waited for yet.
#[must_use]
pub fn signal_key(run: RunId, name: &str, n: u64) -> Key {
    let mut key = base(Kind::InvocationSignal, run);
    push_part(&mut key, name.as_bytes());
    key.extend_from_slice(&n.to_be_bytes());
    key.into()
}

/// run → [`Annex`].
#[must_use]
pub fn annex_key(run: RunId) -> Key {
    base(Kind::RunAnnex, run).into()
}

/// The rows of one kind of one run.
#[must_use]
pub fn prefix(kind: Kind, run: RunId) -> Key {
    base(kind, run).into()
}

/// A JSON value: here, or in chunks under (run, seal).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Stored {
    /// Here.
    Inline(Bytes),
    /// In rows of kind `Chunk`, owner the run.
    Chunked {
        /// Their seal.
        seal: Hash32,
        /// Bytes in all.
        len: u64,
    },
}

impl Stored {
    /// How many bytes the value has.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Stored::Inline(bytes) => bytes.len() as u64,
            Stored::Chunked { len, .. } => *len,
        }
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What is fixed when a run starts.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Pinned {
    /// The definition, as JSON.
    pub definition: Bytes,
    /// Its version: the content hash of the file's definition.
    pub version: String,
    /// Who started the run: its tasks act as this principal.
    pub context: AuthorizationContext,
    /// The input.
    pub input: Stored,
}

/// What moves: written by each commit of the run.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Header {
    /// The tenant.
    pub tenant: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// When it was accepted.
    pub started_at: Millis,
    /// Where it is.
    pub state: RunState,
    /// When its time is up.
    pub deadline: Option<Millis>,
    /// Who paused it, and when.
    pub paused: Option<Paused>,
    /// What it lacks.
    pub blocked: Option<String>,
    /// In the order of the definition.
    pub stages: Vec<StageHeader>,
    /// Signals kept: by name their numbers, in the order in which they came.
    pub signals: BTreeMap<String, Vec<u64>>,
    /// Signals that ever came: the number of the next one.
    pub signals_seen: u64,
    /// How many commits it has made: the number of the next event and of the next chain entry.
    pub commits: u64,
    /// The earliest timer row of this run.
    pub timer: Option<Millis>,
    /// The result of a completed run.
    pub output: Option<Stored>,
    /// Why it failed.
    pub error: Option<WorkError>,
    /// When it ended.
    pub ended_at: Option<Millis>,
}

impl Header {
    /// The bytes of what its tasks have given in the rounds that count, and of its result.
    #[must_use]
    pub fn kept(&self) -> u64 {
        self.stages.iter().map(|stage| stage.output_bytes).sum::<u64>() + self.output.as_ref().map_or(0, Stored::len)
    }
}

/// The row of a run: its header, and the chain up to this commit.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RunRow {
    /// What the chain covers.
    pub header: Header,
    /// The chain value of the commit that wrote this row.
    pub head: Hash32,
}

/// What a run knows beside its header: written by the commits that change it, with [`Annex::encode`]. A run to which none of this
/// applies has no such row.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct Annex {
    /// Whose child it is.
    pub parent: Option<Parent>,
    /// Stages with something to undo, in the order in which they finished.
    pub finished: Vec<u16>,
    /// By gather that waits for a part of its stages: those that had given an output when it went on.
    pub winners: BTreeMap<u16, Vec<u16>>,
    /// How the run ends once all is undone.
    pub ending: Option<Ending>,
    /// Its place in the line of its pipeline.
    pub line: Option<InLine>,
    /// By stage that was started over: its rows count from this round on.
    pub fresh: BTreeMap<u16, u32>,
    /// The trace that it belongs to, as W3C writes it.
    #[serde(skip)]
    pub trace: Option<String>,
}

/// The version of an annex that says its trace. One that does not is written as before.
const WITH_TRACE: u8 = 2;

impl Annex {
    /// The value of its row.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        match &self.trace {
            Some(trace) => wire::encode_as(WITH_TRACE, &(Untraced(self), trace)),
            None => wire::encode(&Untraced(self)),
        }
    }

    /// Reads what [`Annex::encode`] wrote, also before there were traces.
    pub fn decode(row: &[u8]) -> Result<Annex, WireError> {
        if row.first().is_none_or(|version| *version <= wire::VERSION) {
            return Ok(wire::decode::<Read>("annex", row)?.0);
        }
        let (Read(annex), trace) = wire::decode_as::<(Read, String)>("annex", WITH_TRACE, row)?;
        Ok(Annex { trace: Some(trace), ..annex })
    }
}

/// An annex without its trace. Annexes themselves are not `Serialize`: none is written without its trace by mistake.
struct Untraced<'a>(&'a Annex);

impl Serialize for Untraced<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        Annex::serialize(self.0, to)
    }
}

/// The same, read.
struct Read(Annex);

impl<'de> Deserialize<'de> for Read {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Read, D::Error> {
        Annex::deserialize(from).map(Read)
    }
}

/// Who waits for the end of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Parent {
    /// The task of the run that called it.
    pub peer: Peer,
    /// How many runs stand above it.
    pub depth: u32,
}

/// The place of a run among those of its pipeline that do not go at once.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct InLine {
    /// The value of `concurrency.key`, as text.
    pub key: String,
    /// Whether it may go.
    pub admitted: bool,
}

/// An end that waits until what was done is undone.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Ending {
    /// Whether somebody cancelled the run: else it failed.
    pub cancelled: bool,
    /// Who, or why.
    pub reason: Option<String>,
    /// Stages of the plan that undo others, in the order in which they run.
    pub order: Vec<u16>,
    /// How many of them have ended.
    pub done: u32,
    /// What could not be undone, as sentences; the first ten.
    pub troubles: Vec<String>,
    /// How much could not be undone.
    pub failed: u64,
}

/// Somebody stopped the run for a while.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Paused {
    /// Who.
    pub by: String,
    /// When.
    pub since: Millis,
}

/// Where a stage is.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct StageHeader {
    /// Its state.
    pub state: StageState,
    /// What it does while it runs.
    pub phase: Phase,
    /// When it started to run.
    pub since: Millis,
    /// Pieces of items stored.
    pub pieces: Vec<u32>,
    /// Its tasks, once they are known.
    pub total: u32,
    /// Tasks from here on were never started.
    pub cursor: u32,
    /// Tasks before this one have ended.
    pub low: u32,
    /// Tasks before this one may have a row from before a retry of the run.
    pub visited: u32,
    /// How often the run was retried with this stage unfinished.
    pub round: u32,
    /// Tasks that ended, failed ones included.
    pub done: u32,
    /// Tasks that failed.
    pub failed: u32,
    /// Attempts of all its ended tasks.
    pub attempts: u64,
    /// Bytes of all its outputs.
    pub output_bytes: u64,
    /// What it waits for.
    pub wait: Option<Wait>,
    /// Why it failed, or why its fallback runs.
    pub error: Option<WorkError>,
    /// Why this gather cannot start: met while its members ended.
    pub defect: Option<WorkError>,
    /// Starts in the window of its throttle.
    pub window: Vec<Slice>,
}

impl Default for StageHeader {
    fn default() -> StageHeader {
        StageHeader {
            state: StageState::Pending,
            phase: Phase::Begin,
            since: Millis(0),
            pieces: Vec::new(),
            total: 0,
            cursor: 0,
            low: 0,
            visited: 0,
            round: 0,
            done: 0,
            failed: 0,
            attempts: 0,
            output_bytes: 0,
            wait: None,
            error: None,
            defect: None,
            window: Vec::new(),
        }
    }
}

/// What a running stage does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Phase {
    /// Nothing yet.
    Begin,
    /// Its items are evaluated and stored.
    Items,
    /// Its tasks run.
    Tasks,
    /// It waits for something outside.
    Wait,
    /// A task failed and `on_failure: {call}` runs, or gave the output.
    Fallback,
}

/// What a stage waits for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Wait {
    /// A time.
    Until(Millis),
    /// A signal.
    Signal {
        /// When waiting is over.
        until: Option<Millis>,
    },
    /// A person.
    Approval {
        /// The approval's id.
        id: ApprovalId,
        /// Where it is.
        state: ApprovalState,
        /// When its time is up.
        expires: Millis,
        /// Who answered.
        by: Option<String>,
        /// What they said.
        comment: Option<String>,
        /// When.
        at: Option<Millis>,
        /// Whether it stands in the list of approvals.
        listed: bool,
    },
}

/// Items of one stage, in order, as JSON.
pub type Piece = Vec<Bytes>;

/// One attempt that failed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FailedAttempt {
    /// Which, from 1.
    pub attempt: u32,
    /// How.
    pub error: WorkError,
    /// When.
    pub at: Millis,
}

/// A task's end, or its failed attempts so far.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TaskRow {
    /// In which round of its stage.
    pub round: u32,
    /// Attempts made.
    pub attempts: u32,
    /// Attempts made in earlier rounds.
    pub earlier: u32,
    /// When the first attempt of this round started.
    pub first_at: Millis,
    /// When this row was decided.
    pub at: Millis,
    /// The last failed attempts, at most [`FailedAttempt::KEPT`].
    pub failures: Vec<FailedAttempt>,
    /// How it stands.
    pub end: TaskEnd,
}

impl FailedAttempt {
    /// So many of a task are kept.
    pub const KEPT: usize = 10;
}

/// How a task stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum TaskEnd {
    /// The next attempt follows. Of a task whose attempts have a time together also before any has failed: then its first
    /// attempt has started, and that is when its time began.
    Again {
        /// When.
        at: Millis,
    },
    /// It gave an output.
    Completed {
        /// Its output.
        output: Stored,
    },
    /// No attempt helps.
    Failed {
        /// Why.
        error: WorkError,
        /// Its item, as JSON; null where it has none.
        item: Stored,
        /// What stands in its place, as JSON.
        output: Bytes,
    },
}

/// What one commit of a run did, for readers.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub at: Millis,
    /// Where the run is now.
    pub state: RunState,
    /// Stages whose counts changed.
    pub progress: Vec<Progress>,
    /// What happened, in order.
    pub happened: Vec<Happening>,
}

/// The counts of a stage.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Progress {
    /// Which stage.
    pub stage: String,
    /// Tasks ended.
    pub done: u32,
    /// Tasks failed.
    pub failed: u32,
    /// Tasks in all, 0 while unknown.
    pub total: u32,
}

/// One thing that happened.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Happening {
    /// The run changed.
    Run {
        /// To what.
        state: RunState,
        /// Why, where there is a reason.
        reason: Option<String>,
    },
    /// A stage changed.
    Stage {
        /// Which.
        stage: String,
        /// To what.
        state: StageState,
        /// Why, where there is a reason.
        reason: Option<String>,
    },
    /// An attempt failed and another follows.
    Retrying {
        /// Of which stage.
        stage: String,
        /// Which item.
        item: u32,
        /// Attempts made.
        attempts: u32,
        /// How the last one failed.
        error: WorkError,
        /// When the next one starts.
        at: Millis,
    },
    /// A task failed for good.
    TaskFailed {
        /// Of which stage.
        stage: String,
        /// Which item.
        item: u32,
        /// Attempts made.
        attempts: u32,
        /// Why.
        error: WorkError,
    },
    /// A person is asked.
    ApprovalOpened {
        /// By which stage.
        stage: String,
        /// The approval's id, as printed.
        id: String,
        /// Who.
        assignees: Vec<String>,
        /// Until when.
        expires: Millis,
    },
    /// An approval was answered, or its fallback did.
    ApprovalDecided {
        /// Of which stage.
        stage: String,
        /// The approval's id, as printed.
        id: String,
        /// What it is now.
        state: ApprovalState,
        /// Who.
        by: String,
    },
    /// A signal came.
    Signal {
        /// Its name.
        name: String,
        /// The stage that took it; none if it is kept.
        stage: Option<String>,
    },
}

/// One commit of a run in its chain: a keyed hash (16 bytes of BLAKE3 under the run's seal key) of each row it wrote,
/// so that a row that was changed later is found and named.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChainRow {
    /// Rows written: key without hash, and hash of the value; deleted ones have none.
    pub rows: Vec<(Bytes, Option<[u8; 16]>)>,
    /// Keyed hash of the header.
    pub header: Hash32,
    /// The chain up to and including this commit.
    pub chain: Hash32,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn run() -> RunId {
        RunId::of("default", [7; 16])
    }

    /// An annex as it was before there were traces.
    #[derive(Serialize)]
    struct Old {
        parent: Option<Parent>,
        finished: Vec<u16>,
        winners: BTreeMap<u16, Vec<u16>>,
        ending: Option<Ending>,
        line: Option<InLine>,
        fresh: BTreeMap<u16, u32>,
    }

    #[test]
    fn an_annex_from_before_there_were_traces_decodes_and_one_without_a_trace_is_written_as_it_was() {
        let peer = Peer::Task { run: run(), stage: 1, item: 2, attempt: 3 };
        let old = Old {
            parent: Some(Parent { peer, depth: 1 }),
            finished: vec![0, 2],
            winners: BTreeMap::from([(4, vec![1])]),
            ending: Some(Ending { cancelled: true, reason: Some("enough".to_owned()), order: vec![5], done: 0, troubles: Vec::new(), failed: 0 }),
            line: Some(InLine { key: "k".to_owned(), admitted: true }),
            fresh: BTreeMap::from([(3, 1)]),
        };
        let bytes = wire::encode(&old);
        let Old { parent, finished, winners, ending, line, fresh } = old;
        let annex = Annex { parent, finished, winners, ending, line, fresh, trace: None };
        assert_eq!(Annex::decode(&bytes).unwrap(), annex);
        assert_eq!(annex.encode(), bytes);
        let empty = [wire::VERSION, 0, 0, 0, 0, 0, 0];
        assert_eq!(Annex::decode(&empty).unwrap(), Annex::default());
        assert_eq!(Annex::default().encode()[..], empty);
        let traced = Annex { trace: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()), ..annex };
        assert_eq!(Annex::decode(&traced.encode()).unwrap(), traced);
        let newer = wire::encode_as(WITH_TRACE + 1, &Untraced(&traced));
        assert!(matches!(Annex::decode(&newer), Err(WireError::Newer { found: 3, known: 2, .. })));
    }

    proptest! {
        #[test]
        fn group_keys_round_trip_and_sort_by_member_then_item(
            group in prop::collection::vec(any::<u8>(), 0..200), member in any::<u16>(), item in any::<u32>(), other in any::<u32>()
        ) {
            let key = group_key(run(), 3, &group, member, item);
            prop_assert_eq!(parts_of_group_key(&key), Some((&group[..], member, item)));
            prop_assert!(key.starts_with(&group_prefix(run(), 3, &group)));
            let next = group_key(run(), 3, &group, member, other);
            prop_assert_eq!(key.cmp(&next), item.cmp(&other));
        }

        #[test]
        fn task_keys_sort_by_item(stage in any::<u16>(), item in any::<u32>(), other in any::<u32>()) {
            let (one, two) = (task_key(run(), stage, item), task_key(run(), stage, other));
            prop_assert_eq!(one.cmp(&two), item.cmp(&other));
            prop_assert_eq!(item_of_task_key(&one), Some(item));
        }

        #[test]
        fn task_rows_round_trip(round in any::<u32>(), attempts in any::<u32>(), at in any::<u64>(), bytes in prop::collection::vec(any::<u8>(), 0..100), which in 0u8..4) {
            let error = WorkError::new("code", "text");
            let end = match which {
                0 => TaskEnd::Again { at: Millis(at) },
                1 => TaskEnd::Completed { output: Stored::Inline(bytes.clone().into()) },
                2 => TaskEnd::Completed { output: Stored::Chunked { seal: Hash32([3; 32]), len: at } },
                _ => TaskEnd::Failed { error: error.clone(), item: Stored::Inline(bytes.clone().into()), output: Bytes::from_static(b"null") },
            };
            let failures = vec![FailedAttempt { attempt: 1, error, at: Millis(at) }];
            let row = TaskRow { round, attempts, earlier: 0, first_at: Millis(at), at: Millis(at), failures, end };
            prop_assert_eq!(wire::decode::<TaskRow>("task", &wire::encode(&row)).unwrap(), row);
        }

        #[test]
        fn bytes_of_a_stranger_decode_to_an_error_or_a_value(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = wire::decode::<RunRow>("run", &bytes);
            let _ = wire::decode::<TaskRow>("task", &bytes);
            let _ = wire::decode::<ChainRow>("chain entry", &bytes);
            let _ = wire::decode::<Event>("event", &bytes);
            let _ = wire::decode::<Piece>("items", &bytes);
            let _ = wire::decode::<Pinned>("pinned definition", &bytes);
            let _ = Annex::decode(&bytes);
            let _ = parts_of_group_key(&bytes);
        }
    }
}
