//! Words about who may do what: keys and policies.

#[cfg(feature = "cedar")]
use std::path::PathBuf;

use clap::{Args, Subcommand};
use selvedge_kernel::policy::Span;

#[derive(Subcommand, Debug)]
pub enum Keys {
    /// Make a key and print it: it is shown this once
    Create {
        /// What it may act as, as policies name it; `owner` may do everything in its tenant where no policies are given
        #[arg(long = "role", value_name = "ROLE", required = true)]
        roles: Vec<String>,
        #[command(flatten)]
        of: OfTenant,
        /// What it is for
        #[arg(long, value_name = "TEXT", default_value = "")]
        name: String,
        /// How long it opens something, as in 12h or 90d [default: until it is revoked]
        #[arg(long, value_name = "SPAN")]
        expires: Option<Span>,
    },
    /// The keys of a tenant, the newest first
    List(OfTenant),
    /// Take a key back: it opens nothing any more, and what was asked with it ends at its next call
    Revoke {
        /// slv_ and 16 digits
        id: String,
        #[command(flatten)]
        of: OfTenant,
        /// Why
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
}

#[derive(Subcommand, Debug)]
pub enum Principals {
    /// Let a key or a user do nothing any more: what was asked with it ends at its next call
    Disable {
        /// As policies know it: the id of a key, or ISSUER:SUBJECT of a token
        id: String,
        #[command(flatten)]
        of: OfTenant,
        /// Why
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Let it do again what policies allow; its schedules go on
    Enable {
        /// As policies know it
        id: String,
        #[command(flatten)]
        of: OfTenant,
    },
    /// Those that are disabled
    List(OfTenant),
}

#[derive(Subcommand, Debug)]
pub enum Tenants {
    /// Let nothing begin in a tenant, and end what goes on at its next call
    Disable {
        /// Its name
        tenant: String,
        /// Why
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Let it go on; its schedules do
    Enable {
        /// Its name
        tenant: String,
    },
    /// Those that are disabled
    List,
}

#[derive(Subcommand, Debug)]
pub enum Policy {
    /// Would this be allowed, and by which policies? Exit codes: 0 allowed, 77 denied, 78 the policies have faults
    #[cfg(feature = "cedar")]
    Test(Asked),
    /// What was denied, the newest first, why, and how often what was allowed
    Decisions(See),
}

/// Which decisions.
#[derive(Args, Debug)]
pub struct See {
    /// The one with this id: dec_…, as whoever was denied was told
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,
    /// Those of this principal: the id of a key
    #[arg(long, value_name = "ID")]
    pub principal: Option<String>,
    /// Those of this action
    #[arg(long, value_name = "ACTION", value_parser = selvedge_kernel::auth::Action::read)]
    pub action: Option<selvedge_kernel::auth::Action>,
    /// Where the policies in the shadow would have decided otherwise
    #[arg(long)]
    pub shadow: bool,
    /// At most so many [default: 50]
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    #[command(flatten)]
    pub of: OfTenant,
}

/// Who asks for what.
#[cfg(feature = "cedar")]
#[derive(Args, Debug)]
pub struct Asked {
    /// invoke, signal, start, read, control, rewrite, define, operate, administer or work
    #[arg(value_parser = selvedge_kernel::auth::Action::read)]
    pub action: selvedge_kernel::auth::Action,
    /// pipeline:NAME, actor:TYPE/KEY, handler:TYPE/KEY.HANDLER, activity:NAME, work:ID, tenant or store
    pub resource: String,
    /// Who asks: the id of a key
    #[arg(long = "as", value_name = "ID", default_value = "somebody")]
    pub principal: String,
    /// What it may act as
    #[arg(long = "role", value_name = "ROLE")]
    pub roles: Vec<String>,
    /// Of which tenant, and of which tenant the resource is [default: `default`; of a server that of the key]
    #[arg(long, value_name = "TENANT")]
    pub tenant: Option<String>,
    /// What its credential claims
    #[arg(long = "claim", value_name = "NAME=VALUE")]
    pub claims: Vec<String>,
    /// From where it asks
    #[arg(long, value_name = "IP")]
    pub address: Option<std::net::IpAddr>,
    /// The handlers that act for it, in order
    #[arg(long, value_name = "TYPE.HANDLER")]
    pub through: Vec<String>,
    /// When, as in 2026-01-31T08:00:00Z [default: now]
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub at: Option<selvedge_kernel::time::Millis>,
    /// The folder of the policies [default: those of --server, else as configured, else ./policies, else the rule that is built in]
    #[arg(long, value_name = "DIR")]
    pub policies: Option<PathBuf>,
}

#[cfg(feature = "cedar")]
fn time(text: &str) -> Result<selvedge_kernel::time::Millis, serde::de::value::Error> {
    use serde::de::IntoDeserializer;
    selvedge_kernel::time::text::deserialize(text.to_owned().into_deserializer())
}

/// Whose.
#[derive(Args, Debug)]
pub struct OfTenant {
    /// Of which tenant [default: the one of the data directory's owner]
    #[arg(long, value_name = "TENANT")]
    pub tenant: Option<String>,
}
