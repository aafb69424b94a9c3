//! What people are asked, and their answers.

use serde_json::Value;
use utoipa::ToSchema;

/// An approval, as lists show it.
#[derive(ToSchema)]
pub(crate) struct ApprovalSummary {
    /// `apr_…`.
    id: String,
    /// The run that asks.
    run: String,
    /// Its pipeline.
    pipeline: String,
    /// The stage that asks.
    stage: String,
    /// Where it is.
    status: ApprovalState,
    /// Of an open one: whom it asks.
    #[schema(nullable = false)]
    assignees: Option<Vec<String>>,
    /// Of an open one: until when.
    #[schema(nullable = false, format = DateTime)]
    expires: Option<String>,
    /// Of an answered one: who answered.
    #[schema(nullable = false)]
    by: Option<String>,
    /// Of an answered one: when.
    #[schema(format = DateTime)]
    at: Option<String>,
    /// Of an answered one: a remark.
    comment: Option<String>,
}

/// Where an approval is.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(crate) enum ApprovalState {
    /// Its assignees are asked.
    Open,
    /// Its time was up once and others are asked.
    Escalated,
    /// Yes.
    Approved,
    /// No.
    Rejected,
    /// Its stage ended before anyone answered.
    Withdrawn,
    /// Its run ended before anyone answered.
    Closed,
}

/// An approval, with what it shows to whom it asks.
#[derive(ToSchema)]
pub(crate) struct Approval {
    /// `apr_…`.
    id: String,
    /// The run that asks.
    run: String,
    /// Its pipeline.
    pipeline: String,
    /// The stage that asks.
    stage: String,
    /// Where it is.
    status: ApprovalState,
    /// Since when it asks.
    #[schema(format = DateTime)]
    asked_at: String,
    /// What it shows, any JSON.
    show: Value,
    /// Of an open one: whom it asks.
    #[schema(nullable = false)]
    assignees: Option<Vec<String>>,
    /// Of an open one: until when.
    #[schema(nullable = false, format = DateTime)]
    expires: Option<String>,
    /// Of an answered one: who answered.
    #[schema(nullable = false)]
    by: Option<String>,
    /// Of an answered one: when.
    #[schema(format = DateTime)]
    at: Option<String>,
    /// Of an answered one: a remark.
    comment: Option<String>,
}

/// How an approval was answered.
#[derive(ToSchema)]
pub(crate) struct ApprovalDecision {
    /// What it is by that.
    status: ApprovalState,
    /// Who answered.
    by: String,
    /// When.
    #[schema(required, format = DateTime)]
    at: Option<String>,
    /// What they said.
    #[schema(required)]
    comment: Option<String>,
}

/// An approval that was answered.
#[derive(ToSchema)]
pub(crate) struct AnsweredApproval {
    /// The stage that goes on.
    stage: String,
}
