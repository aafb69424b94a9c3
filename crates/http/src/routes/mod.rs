//! The routes, by what they are about. A handler takes a [`crate::caller::Caller`], says what the request carries, and asks the desk.

pub(crate) mod actors;
pub(crate) mod approvals;
pub(crate) mod health;
pub(crate) mod invocations;
pub(crate) mod keys;
pub(crate) mod letters;
pub(crate) mod lists;
pub(crate) mod metrics;
pub(crate) mod nodes;
pub(crate) mod pipelines;
pub(crate) mod policy;
pub(crate) mod principals;
pub(crate) mod runs;
pub(crate) mod schedules;
pub(crate) mod session;
pub(crate) mod state;
pub(crate) mod work;
