//! What an engine can run, by name.

use std::collections::BTreeMap;
use std::time::Duration;

use selvedge_kernel::error::Consequence;
use selvedge_kernel::nearest::suggestion;
use selvedge_kernel::pipeline::definition::{Definition, Exec};

use crate::engine::Engine;
use crate::registry::EXPECTED_WITHIN;
use crate::shard::VerbError;

impl Engine {
    /// The programs that activities and handlers registered here run in, by activity.
    #[must_use]
    pub fn programs(&self) -> BTreeMap<String, Exec> {
        self.wiring.registry.programs()
    }

    /// How long an invocation of an actor of this type waits before it is stuck.
    #[must_use]
    pub fn expected_within(&self, kind: &str) -> Duration {
        self.wiring.registry.actors.get(kind).map_or(EXPECTED_WITHIN, |actor| actor.options.expected_within)
    }

    /// The pipelines that are registered here, by name: a stored one of the same name goes before.
    #[must_use]
    pub fn pipelines(&self) -> BTreeMap<String, Definition> {
        self.wiring.given.get().pipelines.clone()
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
