//! What the answers with 2xx look like, for the document: schemas of what the desk of the engine makes as JSON. None of these types
//! is ever made. A test asks a live server for one of each and holds it against its schema; so does each request of the tests.
//!
//! A field that may be null and is always there is `required`; one that may be left out and is never null is `nullable = false`.

pub(crate) mod actors;
pub(crate) mod approvals;
pub(crate) mod events;
pub(crate) mod health;
pub(crate) mod invocations;
pub(crate) mod letters;
pub(crate) mod pipelines;
pub(crate) mod policy;
pub(crate) mod principals;
pub(crate) mod runs;
pub(crate) mod schedules;
pub(crate) mod waiting;
pub(crate) mod work;

use utoipa::ToSchema;

/// An error of work.
#[derive(ToSchema)]
pub(crate) struct WorkError {
    /// Stable, lower case with underscores.
    code: String,
    /// For people.
    message: String,
}

/// Who asked for something.
#[derive(ToSchema)]
pub(crate) struct Caller {
    /// A key by its id, a user as `ISSUER:SUBJECT`.
    principal: String,
    /// What kind of somebody that is.
    kind: PrincipalKind,
    /// What it may act as.
    roles: Vec<String>,
    /// The handlers through which it asked, in order, each as `TYPE/KEY.HANDLER`.
    through: Vec<String>,
}

/// What kind of somebody a principal is.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(crate) enum PrincipalKind {
    /// The server itself.
    System,
    /// Whoever owns the process.
    Local,
    /// An actor.
    Actor,
    /// Whoever presents an API key.
    ApiKey,
    /// Whoever presents a token of another issuer.
    User,
}
