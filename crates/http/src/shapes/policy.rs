//! What was decided, and what would be.

use std::collections::BTreeMap;

use utoipa::ToSchema;

/// Decisions, and what was counted.
#[derive(ToSchema)]
pub(crate) struct Decisions {
    /// The newest first.
    decisions: Vec<Decision>,
    /// What was counted since this process began.
    summary: DecisionSummary,
}

/// A decision; the same one, taken more than once within a while, is one.
#[derive(ToSchema)]
pub(crate) struct Decision {
    /// `dec_…`, of the first of them.
    id: String,
    /// What was decided.
    decision: DecisionKind,
    /// Who asked.
    principal: String,
    /// What it may act as.
    roles: Vec<String>,
    /// The handlers through which it asked, each as `TYPE/KEY.HANDLER`.
    through: Vec<String>,
    /// What was asked for.
    action: String,
    /// Of what.
    resource: String,
    /// Why it was decided so.
    reason: String,
    /// The policies that decided, by their ids.
    policies: Vec<String>,
    /// Where policies in the shadow differ: what those in force said.
    #[schema(required)]
    in_force: Option<InForce>,
    /// How long the answer took, in microseconds.
    took_us: f64,
    /// Where the first of them came from, if that is known.
    #[schema(required)]
    address: Option<String>,
    /// When the first of them was.
    #[schema(format = DateTime)]
    first: String,
    /// When the last of them was.
    #[schema(format = DateTime)]
    last: String,
    /// How many.
    count: u64,
}

/// What was decided.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(crate) enum DecisionKind {
    /// It was not done.
    Denied,
    /// It was done.
    Allowed,
    /// It was denied; the policies in the shadow would have allowed it.
    WouldAllow,
    /// It was allowed; the policies in the shadow would have denied it.
    WouldDeny,
}

/// What the policies in force said.
#[derive(ToSchema)]
pub(crate) struct InForce {
    /// Why.
    reason: String,
    /// Those that decided, by their ids.
    policies: Vec<String>,
}

/// Decisions, counted since the process began.
#[derive(ToSchema)]
pub(crate) struct DecisionSummary {
    /// By action: those that were allowed.
    allowed: BTreeMap<String, u64>,
    /// By action: those that were denied.
    denied: BTreeMap<String, u64>,
    /// Those that were counted and not recorded.
    unrecorded: u64,
    /// Requests without a valid credential.
    without_credential: u64,
    /// What policies in the shadow said, if there are some.
    #[schema(required)]
    shadow: Option<ShadowSummary>,
}

/// What policies in the shadow said, counted since the process began.
#[derive(ToSchema)]
pub(crate) struct ShadowSummary {
    /// How often they were asked.
    asked: u64,
    /// How often they would have allowed what was denied.
    would_allow: u64,
    /// How often they would have denied what was allowed.
    would_deny: u64,
    /// How often they could not be evaluated.
    failed: u64,
    /// How often there was no time to ask them.
    passed_over: u64,
}

/// Whether something would be allowed.
#[derive(ToSchema)]
pub(crate) struct PolicyAnswer {
    /// Yes or no.
    allowed: bool,
    /// The policies that decide, by their ids.
    policies: Vec<String>,
    /// Why.
    reason: String,
}
