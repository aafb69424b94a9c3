//! The process that owns the shards of a store, as others see it.

use selvedge_kernel::auth::{Action, Permit};
use selvedge_kernel::record::build::Build;
use selvedge_kernel::time::Millis;

use crate::door::expect_action;
use crate::engine::Engine;
use crate::shard::VerbError;

/// One process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    /// Another one each time that a store is opened.
    pub id: u64,
    /// The binary that it runs, if that is known.
    pub build: Option<Build>,
    /// Since when it has its shards.
    pub since: Millis,
    /// It owns those from 0 to this one, and not this one.
    pub shards: u16,
    /// Why it has stopped, if it has.
    pub stopped: Option<String>,
}

impl Engine {
    /// This process.
    ///
    /// # Errors
    /// A permit for something else.
    pub fn node(&self, permit: &Permit) -> Result<Node, VerbError> {
        expect_action(permit, Action::Read)?;
        let wiring = &self.wiring;
        Ok(Node { id: wiring.life.0, build: wiring.settings.build, since: wiring.since, shards: wiring.shards, stopped: self.stopped() })
    }
}
