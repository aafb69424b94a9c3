//! `/v1/policy`: what was decided in the caller's tenant, and what would be.

use std::collections::BTreeMap;
use std::net::IpAddr;

use selvedge_engine::desk::{Rights, SeeDecisions, TestPolicy};
use selvedge_kernel::time::Millis;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use crate::answer::{Answer, Done};
use crate::caller::Caller;
use crate::shapes::policy::{Decisions, PolicyAnswer};
use crate::take::{Fields, Words};

/// Which decisions are shown.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct See {
    /// The one with this id: that of a problem document, for one.
    id: Option<String>,
    /// Those of this principal.
    principal: Option<String>,
    /// Those of this action.
    action: Option<String>,
    /// Those where the policies in the shadow differ, instead of what was denied and allowed.
    #[serde(default)]
    shadow: bool,
    /// At most so many; 50, if it is not there.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

/// Decisions that were recorded, the newest first, and what was counted since this process began.
#[utoipa::path(get, path = "/v1/policy/decisions", tag = "policy", params(See),
    responses((status = 200, description = "`decisions` and `summary`", body = Decisions)))]
pub(crate) async fn decisions(caller: Caller, Words(see): Words<See>) -> Done {
    let See { id, principal, action, shadow, limit } = see;
    Ok(Answer::of(Rights(caller.asker()).decisions(SeeDecisions { id, principal, action, shadow, limit }).await?))
}

/// Who asks for what.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Test {
    /// Such as `start`.
    action: String,
    /// Such as `pipeline:NAME`, `handler:TYPE/KEY.HANDLER`, `work:ID`, `tenant`.
    resource: String,
    /// The id of a key of the tenant, or of somebody who has none; `somebody`, if it is not there.
    principal: Option<String>,
    /// What it may act as; of a key of the tenant those that it has, if none are named.
    #[serde(default)]
    roles: Vec<String>,
    /// What its credential claims.
    #[serde(default)]
    claims: BTreeMap<String, String>,
    /// From where it asks.
    #[schema(value_type = Option<String>)]
    address: Option<IpAddr>,
    /// The handlers that act for it, in order, each as `TYPE.HANDLER`.
    #[serde(default)]
    through: Vec<String>,
    /// When, such as `2026-01-31T08:00:00Z`; now, if it is not there.
    #[serde(default, with = "selvedge_kernel::time::text::optional")]
    #[schema(value_type = Option<String>)]
    at: Option<Millis>,
}

/// Would this be allowed to somebody of the caller's tenant, and why? Nothing is done, counted or recorded.
#[utoipa::path(post, path = "/v1/policy/test", tag = "policy", request_body = Test,
    responses((status = 200, description = "`allowed`, `policies` and `reason`", body = PolicyAnswer)))]
pub(crate) async fn test(caller: Caller, Fields(test): Fields<Test>) -> Done {
    let Test { action, resource, principal, roles, claims, address, through, at } = test;
    let principal = principal.unwrap_or_else(|| "somebody".to_owned());
    Ok(Answer::of(Rights(caller.asker()).test(&TestPolicy { action, resource, principal, roles, claims, address, through, at })?))
}
