//! What an engine can run, by name.

use std::collections::BTreeMap;

use selvedge_kernel::error::Consequence;
use selvedge_kernel::nearest::suggestion;
use selvedge_kernel::pipeline::definition::{Definition, Exec};

use crate::engine::Engine;
use crate::shard::VerbError;

impl Engine {
    /// The programs that activities and handlers registered here run in, by activity.
    #[must_use]
    pub fn programs(&self) -> BTreeMap<String, Exec> {
        self.wiring.registry.programs()
    }

    /// The pipelines that are registered here, by name: a stored one of the same name goes before.
    #[must_use]
    pub fn pipelines(&self) -> BTreeMap<&str, &Definition> {
        self.wiring.registry.pipelines.iter().map(|(name, definition)| (name.as_str(), definition)).collect()
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
