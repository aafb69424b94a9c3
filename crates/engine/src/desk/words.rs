//! What the verbs are asked with.

use std::collections::BTreeMap;

use selvedge_kernel::time::Millis;
use serde::{Deserialize, Serialize};

/// How a run is steered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Steer {
    /// End it as cancelled.
    Cancel {
        /// Why.
        reason: String,
    },
    /// Start nothing new.
    Pause,
    /// Go on after a pause.
    Resume,
    /// Take up what failed or is blocked.
    Retry,
    /// The same, and more of it.
    RetryMore {
        /// This stage, and every stage that depends on it, starts over.
        from: Option<String>,
        /// Only failed tasks run again.
        failed_only: bool,
    },
}

/// How a schedule is steered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SteerSchedule {
    /// Fire no more until it is resumed.
    Pause,
    /// Fire again from now on.
    Resume,
    /// Fire now.
    Fire,
    /// Take it away.
    Remove,
}

/// The answer to an approval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Yes.
    Approve,
    /// No.
    Reject,
}

/// A message to a handler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invoke {
    /// The actor's type.
    pub kind: String,
    /// Its key.
    pub key: String,
    /// The handler.
    pub handler: String,
    /// JSON.
    pub input: String,
    /// The sender's key.
    pub idempotency_key: Option<String>,
    /// Handled after so many milliseconds.
    #[serde(default)]
    pub delay_ms: Option<u64>,
    /// W3C trace context.
    #[serde(default)]
    pub trace: Option<String>,
}

/// Which recorded decisions somebody wants to see.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SeeDecisions {
    /// `dec_…`
    pub id: Option<String>,
    /// Of this principal.
    pub principal: Option<String>,
    /// Of this action.
    pub action: Option<String>,
    /// Where the policies in the shadow differ, instead of what was denied and allowed.
    pub shadow: bool,
    /// At most so many; 50, if it is not said.
    pub limit: Option<usize>,
}

/// Would this be allowed, and why?
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestPolicy {
    /// `start`, `read`, …
    pub action: String,
    /// `pipeline:NAME`, `actor:TYPE/KEY`, …
    pub resource: String,
    /// Who asks.
    #[serde(default = "somebody")]
    pub principal: String,
    /// What it may act as; of a key of the tenant those that it has, if none are said.
    #[serde(default)]
    pub roles: Vec<String>,
    /// What its credential claims.
    #[serde(default)]
    pub claims: BTreeMap<String, String>,
    /// From where it asks.
    #[serde(default)]
    pub address: Option<std::net::IpAddr>,
    /// The handlers that act for it, in order, each as `TYPE.HANDLER`.
    #[serde(default)]
    pub through: Vec<String>,
    /// When; now, if it is not said.
    #[serde(default, with = "selvedge_kernel::time::text::optional")]
    pub at: Option<Millis>,
}

fn somebody() -> String {
    "somebody".to_owned()
}

/// What is done with the API keys of a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum KeyVerb {
    /// Make one.
    Create {
        /// What it is for.
        #[serde(default)]
        name: String,
        /// What it may act as.
        roles: Vec<String>,
        /// How long it opens something, in milliseconds; none: until it is revoked.
        #[serde(default)]
        lasts_ms: Option<u64>,
    },
    /// Those that there are.
    List,
    /// Take one back.
    Revoke {
        /// `slv_…`
        id: String,
        /// Why.
        reason: String,
    },
}

/// What is done with the principals of a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum PrincipalVerb {
    /// Let it do nothing any more.
    Disable {
        /// As policies know it: `slv_…`, `corp:ada`.
        id: String,
        /// Why.
        reason: String,
    },
    /// Let it do again what policies allow.
    Enable {
        /// As policies know it.
        id: String,
    },
    /// Those that are disabled.
    List,
}

/// What is done with a tenant as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum TenantVerb {
    /// Let nothing begin in it and nothing go on.
    Disable {
        /// Why.
        reason: String,
    },
    /// Let it go on.
    Enable,
    /// Those that are disabled.
    List,
}
