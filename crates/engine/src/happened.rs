//! What happens to work, for whoever follows it from outside.

use selvedge_kernel::id::{ActorId, InvocationId, RunId};

use crate::env::Observation;
use crate::shard::{Effect, Shard};

/// How much of it the observer is told.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Follow {
    /// Nothing.
    #[default]
    Nothing,
    /// Runs, and invocations that failed or wait for somebody.
    Notable,
    /// Every invocation as well.
    Everything,
}

/// A change of work, in ids and names; nothing of what the work carries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Happened {
    /// A run.
    Run {
        /// Which.
        run: RunId,
        /// Whose.
        tenant: String,
        /// Of which pipeline.
        pipeline: String,
        /// What has become of it.
        became: Became,
    },
    /// An invocation.
    Invocation {
        /// Which.
        invocation: InvocationId,
        /// Of which actor.
        actor: ActorId,
        /// Which handler.
        handler: String,
        /// The trace that it belongs to, as its sender said.
        trace: Option<String>,
        /// What has become of it.
        became: Became,
    },
}

/// What has become of a run or an invocation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Became {
    /// It was accepted, and goes on from here.
    Started,
    /// It has ended well.
    Completed,
    /// It has ended with an error.
    Failed {
        /// The code of its error.
        code: String,
        /// Whether it is kept as a dead letter.
        dead_letter: bool,
    },
    /// Somebody ended it.
    Cancelled,
    /// It waits for somebody to look at it.
    Blocked {
        /// Why, in a word that stays the same.
        reason: &'static str,
    },
}

impl Became {
    /// Whether somebody who follows little wants to know.
    fn of(&self, run: bool) -> Follow {
        match self {
            Became::Failed { .. } | Became::Blocked { .. } => Follow::Notable,
            Became::Started | Became::Completed | Became::Cancelled if run => Follow::Notable,
            Became::Started | Became::Completed | Became::Cancelled => Follow::Everything,
        }
    }
}

impl Shard {
    /// Tells the observer, once what goes with these effects is durable. Where nobody follows, nothing is made.
    pub(crate) fn tell_of(&self, effects: &mut Vec<Effect>, became: Became, run: bool, happened: impl FnOnce(Became) -> Happened) {
        if self.wiring.settings.follow < became.of(run) {
            return;
        }
        let (env, happened) = (self.wiring.env.clone(), happened(became));
        effects.push(Effect::Answer(Box::new(move || env.observe(&Observation::Work(&happened)))));
    }
}
