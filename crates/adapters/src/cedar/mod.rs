//! Policies in Cedar: a folder of files, checked against the schema of our actions and resources, cut by tenant and action.
//!
//! Nothing is allowed but what a policy permits, and any error in an evaluation denies: Cedar itself skips a policy that errs,
//! a `forbid` as well. A set with a fault in it is refused whole, and the one before it stays in force.

mod cache;
mod fault;
mod load;
mod question;
mod slices;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use cedar_policy::{Authorizer, Decision, Schema};
use selvedge_kernel::auth::{Action, AuthorizationContext, Effect, Resource, Verdict};
use selvedge_kernel::ports::Policies;
use selvedge_kernel::time::Millis;

pub use fault::{Fault, Refused};

use cache::{Asked, Cache};
use question::Types;
use slices::Slices;

/// The schema of our entities and actions, as policies are written against it.
pub const SCHEMA: &str = include_str!("schema.cedarschema");

/// The policies of a folder.
pub struct CedarPolicies {
    folder: PathBuf,
    schema: Schema,
    types: Types,
    loaded: RwLock<Arc<Loaded>>,
    version: AtomicU64,
    /// What is wrong with the folder since it was read last; what was in force before stays so.
    refused: Mutex<Option<Refused>>,
}

/// A set that is in force, with the answers that it has given.
struct Loaded {
    slices: Slices,
    policies: usize,
    cache: Mutex<Cache>,
}

/// What a folder said when somebody looked at it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark([u8; 32]);

impl CedarPolicies {
    /// Reads the policies of a folder: `*.cedar` are for every tenant, `TENANT/*.cedar` for one.
    ///
    /// # Errors
    /// Everything that is wrong in all of its files.
    pub fn open(folder: impl Into<PathBuf>) -> Result<CedarPolicies, Refused> {
        let folder = folder.into();
        let schema = schema(&folder)?;
        let types = Types::new();
        let loaded = load(&folder, &schema, &types)?;
        Ok(CedarPolicies { folder, schema, types, loaded: RwLock::new(Arc::new(loaded)), version: AtomicU64::new(1), refused: Mutex::default() })
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// How many policies are in force.
    #[must_use]
    pub fn count(&self) -> usize {
        self.in_force().policies
    }

    /// What the folder says now; none if it cannot be read.
    #[must_use]
    pub fn mark(&self) -> Option<Mark> {
        load::mark(&self.folder).map(Mark)
    }

    /// Reads the folder again: its policies are in force when this returns.
    ///
    /// # Errors
    /// Everything that is wrong with it; what was in force stays in force.
    pub fn reload(&self) -> Result<(), Refused> {
        let loaded = load(&self.folder, &self.schema, &self.types);
        let refused = || self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = match loaded {
            Ok(loaded) => loaded,
            Err(error) => {
                *refused() = Some(error.clone());
                return Err(error);
            }
        };
        *refused() = None;
        *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(loaded);
        self.version.fetch_add(1, Ordering::Release);
        Ok(())
    }

    fn in_force(&self) -> Arc<Loaded> {
        self.loaded.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn evaluate(&self, slice: &slices::Slice, context: &AuthorizationContext, action: Action, resource: &Resource, now: Millis) -> Verdict {
        let (request, entities) = match self.types.question(&self.schema, context, action, resource, (slice.uses, now)) {
            Ok(question) => question,
            Err(error) => return Verdict { errors: vec![error], ..Verdict::deny("it cannot be asked") },
        };
        let answer = Authorizer::new().is_authorized(&request, &slice.policies, &entities);
        let mut policies: Vec<String> = answer.diagnostics().reason().map(ToString::to_string).collect();
        policies.sort_unstable();
        let errors = answer.diagnostics().errors().map(ToString::to_string).collect();
        let (effect, reason) = match (answer.decision(), policies.is_empty()) {
            (Decision::Allow, _) => (Effect::Allow, "a policy allows it"),
            (Decision::Deny, false) => (Effect::Deny, "a policy forbids it"),
            (Decision::Deny, true) => (Effect::Deny, NOBODY),
        };
        Verdict { effect, policies, reason: reason.to_owned(), errors, took: Duration::ZERO }
    }
}

const NOBODY: &str = "no policy allows it";

impl Policies for CedarPolicies {
    fn decide(&self, context: &AuthorizationContext, action: Action, resource: &Resource, now: Millis) -> Verdict {
        let began = Instant::now();
        let answer = self.find(context, action, resource, now);
        Verdict { took: began.elapsed(), ..answer }
    }

    fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    fn fault(&self) -> Option<String> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(ToString::to_string)
    }
}

impl CedarPolicies {
    fn find(&self, context: &AuthorizationContext, action: Action, resource: &Resource, now: Millis) -> Verdict {
        let loaded = self.in_force();
        let Some(slice) = loaded.slices.get(&context.principal.tenant, action) else { return Verdict::deny(NOBODY) };
        let asked = Asked::of(context, action, resource, slice.uses);
        let known = || loaded.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = asked.as_ref().and_then(|asked| known().get(asked)) {
            return answer;
        }
        let answer = self.evaluate(slice, context, action, resource, now);
        if let Some(asked) = asked {
            known().put(asked, answer.clone());
        }
        answer
    }
}

fn schema(folder: &Path) -> Result<Schema, Refused> {
    // The warnings are about names that hide others; ours hide none, and a test reads it.
    let read = Schema::from_cedarschema_str(SCHEMA).map(|(schema, _)| schema);
    read.map_err(|error| Refused(vec![Fault::whole(folder, format!("the schema of this program is broken, report it: {error}"))]))
}

fn load(folder: &Path, schema: &Schema, types: &Types) -> Result<Loaded, Refused> {
    let read = load::read(folder, schema)?;
    let policies = read.all.len() + read.tenants.values().map(Vec::len).sum::<usize>();
    let slices = Slices::of(&read, types).map_err(|error| Refused(vec![Fault::whole(folder, error.to_string())]))?;
    Ok(Loaded { slices, policies, cache: Mutex::default() })
}

#[cfg(test)]
mod tests;
