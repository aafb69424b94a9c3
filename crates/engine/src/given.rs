//! The pipelines that this process was given. They may be exchanged while it runs: whoever starts a run asks for those of now,
//! and a run that was started keeps its own copy.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use selvedge_kernel::pipeline::agree::Declared;
use selvedge_kernel::pipeline::definition::Definition;

use crate::door::check_shared;
use crate::engine::Engine;
use crate::registry::Registry;
use crate::runs::accept::compiled;
use crate::shard::VerbError;

/// Pipelines, and what they and the activities of this process share.
pub(crate) struct Given {
    /// By name.
    pub pipelines: BTreeMap<String, Definition>,
    /// By who says it.
    pub declared: Vec<Declared>,
}

impl Given {
    fn of(registry: &Registry) -> Given {
        let pipelines = registry.pipelines.iter().map(|(name, definition)| (name.clone(), definition.clone())).collect();
        Given { pipelines, declared: registry.declared() }
    }
}

/// Those of now.
pub(crate) struct GivenNow(RwLock<Arc<Given>>);

impl GivenNow {
    pub(crate) fn of(registry: &Registry) -> GivenNow {
        GivenNow(RwLock::new(Arc::new(Given::of(registry))))
    }

    pub(crate) fn get(&self) -> Arc<Given> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Engine {
    /// Exchanges the pipelines that this process was given: new runs have these. Errors: one that cannot be run here, or what two
    /// do not agree on; then those before stay.
    pub fn give(&self, pipelines: HashMap<String, Definition>) -> Result<(), VerbError> {
        let registry = Registry { pipelines, ..self.wiring.registry.clone() };
        for definition in registry.pipelines.values() {
            compiled(&registry, definition.clone())?;
        }
        check_shared(&registry)?;
        *self.wiring.given.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Given::of(&registry));
        Ok(())
    }
}
