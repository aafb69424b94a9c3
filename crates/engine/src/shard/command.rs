//! What is asked of a shard, and what it answers.

use bytes::Bytes;
use selvedge_kernel::error::Consequence;
use selvedge_kernel::id::{ActorId, InvocationId};
use selvedge_kernel::ports::StoreError;
use selvedge_kernel::record::definition::StoredVersion;
use selvedge_kernel::record::message::{Message, Outcome};
use selvedge_kernel::wire::WireError;
use tokio::sync::oneshot;

use super::Redriven;

/// Why a verb of the engine did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct VerbError {
    /// What the caller can do.
    pub consequence: Consequence,
    /// A stable code.
    pub code: String,
    /// For people.
    pub message: String,
}

impl VerbError {
    pub(crate) fn new(consequence: Consequence, code: &str, message: impl Into<String>) -> VerbError {
        VerbError { consequence, code: code.to_owned(), message: message.into() }
    }

    /// The engine has stopped or is stopping.
    pub(crate) fn closed(reason: Option<String>) -> VerbError {
        VerbError::new(Consequence::Retry, "closed", reason.unwrap_or_else(|| "the engine has been closed: open it again".to_owned()))
    }
}

impl From<StoreError> for VerbError {
    fn from(error: StoreError) -> VerbError {
        match error {
            StoreError::Behind { .. } => VerbError::new(Consequence::Retry, "store_behind", error.to_string()),
            StoreError::Stopped { .. } => VerbError::new(Consequence::Stop, "store_stopped", error.to_string()),
        }
    }
}

impl From<WireError> for VerbError {
    fn from(error: WireError) -> VerbError {
        VerbError::new(Consequence::Stop, "store_damaged", error.to_string())
    }
}

/// What an invocation that was asked about has come to.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    /// It has ended.
    Ended(Outcome),
    /// It was accepted, and goes on.
    Open,
}

/// The answer to an invocation.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Which invocation it is; none for a shared handler.
    pub id: Option<InvocationId>,
    /// What it has come to.
    pub progress: Progress,
    /// Whether its key led to one that was accepted before and goes on.
    pub joined: bool,
}

pub(crate) type Reply<T> = oneshot::Sender<Result<T, VerbError>>;

/// What a client asks of a shard.
pub(crate) enum Command {
    Invoke {
        message: Message,
        wait: bool,
        delay: Option<std::time::Duration>,
        reply: Reply<Answer>,
    },
    Signal {
        target: SignalTarget,
        name: String,
        payload: Bytes,
        context: selvedge_kernel::auth::AuthorizationContext,
        key: Option<String>,
        reply: Reply<()>,
    },
    Result {
        id: InvocationId,
        wait: bool,
        reply: Reply<Answer>,
    },
    Cancel {
        id: InvocationId,
        reason: String,
        reply: Reply<()>,
    },
    Kill {
        id: InvocationId,
        reason: String,
        reply: Reply<()>,
    },
    Retry {
        id: InvocationId,
        reply: Reply<()>,
    },
    Edit {
        message: Message,
        reply: Reply<Answer>,
    },
    Resolve {
        resolve: Box<crate::hand::Resolve>,
        by: String,
        reply: Reply<crate::hand::Resolved>,
    },
    Fork {
        fork: Box<crate::hand::Fork>,
        by: String,
        reply: Reply<crate::hand::Forked>,
    },
    Journal {
        id: InvocationId,
        from: u32,
        reply: Reply<crate::hand::JournalPage>,
    },
    Erase {
        id: InvocationId,
        reply: Reply<()>,
    },
    Tenant {
        id: InvocationId,
        reply: Reply<Option<String>>,
    },
    Rehearse {
        id: InvocationId,
        reply: Reply<Option<String>>,
    },
    Why {
        id: InvocationId,
        reply: Reply<crate::why::Why>,
    },
    Output {
        id: InvocationId,
        from: u64,
        reply: Reply<Vec<(u64, Bytes)>>,
    },
    State {
        actor: ActorId,
        reply: Reply<Vec<(String, Bytes)>>,
    },
    Verify {
        quick: bool,
        kept: Option<crate::verify::Head>,
        reply: Reply<crate::verify::ShardReport>,
    },
    Head {
        reply: Reply<crate::verify::Head>,
    },
    DeadLetter {
        id: InvocationId,
        tenant: String,
        reply: Reply<selvedge_kernel::record::actor::DeadLetter>,
    },
    Redrive {
        id: InvocationId,
        tenant: String,
        input: Option<Bytes>,
        reply: Reply<Redriven>,
    },
    Census {
        reply: Reply<crate::why::Census>,
    },
    Run(crate::runs::RunCommand),
    Schedule(crate::schedules::ScheduleCommand),
    Key(crate::keys::KeyCommand),
    /// Something with who is disabled.
    Disable(crate::disabled::DisableCommand),
    PutDefinition {
        put: Box<crate::definitions::Put>,
        reply: Reply<Option<StoredVersion>>,
    },
    /// Write what was noted of the decisions of a tenant.
    Decisions {
        tenant: String,
        reply: Reply<()>,
    },
}

/// Whom a signal addresses.
#[derive(Clone, Debug)]
pub enum SignalTarget {
    /// An actor: whoever waits first.
    Actor(ActorId),
    /// One invocation.
    Invocation(InvocationId),
}
