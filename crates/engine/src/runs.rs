//! Runs of pipelines: actors of the built-in type `pipeline`, performed by their shard.

use bytes::Bytes;
use selvedge_kernel::error::AttemptError;
use selvedge_kernel::error::WorkError;
use selvedge_kernel::id::{Key, RunId};
use selvedge_kernel::journal::Signature;
use selvedge_kernel::record::Writes;
use selvedge_kernel::record::invocation::Begun;
use selvedge_kernel::record::message::Outcome;
use selvedge_kernel::record::shard::LedgerLine;
use selvedge_kernel::time::Millis;

use crate::core::Given;
use crate::shard::{Activation, Effect, Shard, VerbError};
use crate::verify::ShardReport;

/// What a client asks of a run.
pub(crate) enum RunCommand {}

/// What a run lets out once its commit is durable.
pub(crate) enum RunEffect {}

/// The runs of a shard.
#[derive(Default)]
pub(crate) struct Runs {}

impl Runs {
    pub(crate) fn next_due(&self) -> Option<Millis> {
        None
    }
}

impl Shard {
    pub(crate) async fn recover_runs(&mut self) -> Result<(), VerbError> {
        Ok(())
    }
    pub(crate) async fn turn_runs(&mut self) {}
    pub(crate) fn perform_run(&mut self, effect: RunEffect) {
        match effect {}
    }
    pub(crate) async fn run_command(&mut self, command: RunCommand) {
        match command {}
    }
    pub(crate) async fn run_timer(&mut self, _: RunId, _: u64, _: Key) {}
    pub(crate) async fn run_task_done(&mut self, _: RunId, _: u16, _: u32, _: u32, _: Result<Bytes, AttemptError>) {}
    pub(crate) async fn keep_task_reply(&mut self, _: RunId, _: u16, _: u32, _: u32, _: Outcome, _: &mut Writes, _: &mut Vec<Effect>) -> Result<(), VerbError> {
        Ok(())
    }
    pub(crate) async fn start_run_from(&mut self, activation: &mut Activation, number: u32, _: Signature, _: Bytes, _: Option<Begun>) -> Result<(), VerbError> {
        self.decide(activation, number, Given::Error(WorkError::new("refused", "no pipelines")));
        Ok(())
    }
    pub(crate) async fn verify_run(&self, _: &LedgerLine, _: &mut ShardReport) -> Result<(), VerbError> {
        Ok(())
    }
}
