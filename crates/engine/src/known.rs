//! What an engine can run, by name.

use selvedge_kernel::error::Consequence;
use selvedge_kernel::nearest::suggestion;
use selvedge_kernel::pipeline::definition::Exec;

use crate::engine::Engine;
use crate::registry::{Executor, Handler};
use crate::shard::VerbError;

impl Engine {
    /// The programs that activities and handlers registered here run in, by activity.
    #[must_use]
    pub fn programs(&self) -> Vec<(String, Exec)> {
        let registry = &self.wiring.registry;
        let activities = registry.activities.iter().filter_map(|(name, activity)| match &activity.run {
            Executor::Exec(exec) => Some((name.clone(), exec.clone())),
            Executor::Native(_) | Executor::Http(_) => None,
        });
        let handlers = registry.actors.values().flat_map(|actor| actor.handlers.values()).filter_map(|handler| match handler {
            Handler::Transition(transition) => Some((transition.activity.clone(), transition.exec.clone())),
            Handler::Exclusive(_) | Handler::Shared(_) => None,
        });
        let mut programs: Vec<_> = activities.chain(handlers).collect();
        programs.sort_by(|a, b| a.0.cmp(&b.0));
        programs
    }

    /// Errors: an actor type that nothing here declares, with the nearest ones.
    pub fn check_actor_type(&self, kind: &str) -> Result<(), VerbError> {
        let actors = &self.wiring.registry.actors;
        if actors.contains_key(kind) {
            return Ok(());
        }
        let mut types: Vec<&str> = actors.keys().map(String::as_str).collect();
        types.sort_unstable();
        let hint = match suggestion(kind, types.iter().copied()) {
            hint if hint.is_empty() && types.is_empty() => "nothing declares one: name the manifest with --app FILE".to_owned(),
            hint if hint.is_empty() => format!("there are {}", types.join(", ")),
            hint => hint,
        };
        Err(VerbError::new(Consequence::NotFound, "unknown_actor_type", format!("there is no actor type `{kind}` here: {hint}")))
    }
}
