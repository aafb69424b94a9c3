//! Why something is where it is, and why that which it waits for is, to the end.

use selvedge_kernel::auth::AuthorizationContext;
use selvedge_kernel::id::RunId;
use selvedge_kernel::limit::CALL_DEPTH;
use selvedge_kernel::record::build::{Build, Builds};
use selvedge_kernel::waiting::Waiting;
use serde_json::{Value, json};

use super::Problem;
use super::asker::Asker;
use super::json::value;
use super::runs::Runs;

/// One edge of the way.
pub(super) struct Place {
    pub sentence: String,
    pub status: Value,
    pub waiting: Vec<Waiting>,
    pub last_error: Value,
    /// Who asked for it, and through whom.
    pub caller: Option<AuthorizationContext>,
    /// Of an invocation: the build that recorded it, and the one that is here.
    pub builds: Option<Builds>,
}

impl Place {
    /// Of what this waits for, the first that waits for something itself.
    fn next(&self) -> Option<String> {
        self.waiting.iter().find_map(|waiting| match waiting {
            Waiting::Call { invocation, .. } | Waiting::Behind { invocation } | Waiting::Child { invocation } => Some(invocation.to_string()),
            Waiting::ChildRun { run, .. } | Waiting::RunLimit { holder: run, .. } => Some(run.to_string()),
            _ => None,
        })
    }
}

/// Who asked for something, and the handlers through which they did.
pub(super) fn who(caller: &AuthorizationContext) -> Result<Value, Problem> {
    let through: Vec<String> = caller.chain.iter().map(|hop| format!("{}.{}", hop.actor, hop.handler)).collect();
    let principal = &caller.principal;
    Ok(json!({ "principal": principal.id, "kind": value(&principal.kind)?, "roles": principal.roles, "through": through }))
}

/// Both builds, as they are written elsewhere.
pub(super) fn in_json(builds: &Builds) -> Value {
    let text = |build: &Option<Build>| build.map(|build| build.to_string());
    json!({ "recorded": text(&builds.recorded), "here": text(&builds.here) })
}

async fn place(asker: Asker<'_>, id: &str) -> Result<Place, Problem> {
    if id.starts_with(RunId::PREFIX) { Runs(asker).place(id).await } else { asker.place(id).await }
}

/// The place of an invocation or a run, and those on the way to the end of its wait.
pub async fn why(asker: Asker<'_>, id: &str) -> Result<Value, Problem> {
    let first = place(asker, id).await?;
    let (mut seen, mut then) = (vec![id.to_owned()], Vec::new());
    let mut next = first.next();
    while let Some(below) = next.take() {
        if seen.contains(&below) {
            then.push(json!({ "id": below, "sentence": format!("{below} is on this way already: they wait for each other; cancel or kill one of them") }));
            break;
        }
        if seen.len() >= CALL_DEPTH {
            then.push(json!({ "id": below, "sentence": format!("{below}, and so on: ask `selvedge why {below}`") }));
            break;
        }
        // Ended and gone in between, it is waited for no more.
        let Ok(found) = place(asker, &below).await else { break };
        next = found.next();
        then.push(json!({ "id": below, "sentence": found.sentence }));
        seen.push(below);
    }
    let mut shown = json!({
        "id": id, "sentence": first.sentence, "status": first.status, "waiting": first.waiting, "last_error": first.last_error, "then": then,
    });
    if let Some(caller) = &first.caller {
        shown["caller"] = who(caller)?;
    }
    if let Some(builds) = &first.builds {
        shown["build"] = in_json(builds);
    }
    Ok(shown)
}
