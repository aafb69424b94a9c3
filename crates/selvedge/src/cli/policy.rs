//! `policy …`

#[cfg(feature = "cedar")]
use std::path::{Path, PathBuf};

#[cfg(feature = "cedar")]
use selvedge_adapters::cedar::{CedarPolicies, Refused};
#[cfg(feature = "cedar")]
use selvedge_engine::desk::{asked_of, said};
use selvedge_engine::wiring::Tasks;
#[cfg(feature = "cedar")]
use selvedge_kernel::auth::{Owners, Resource, answer};
#[cfg(feature = "cedar")]
use selvedge_kernel::ports::Policies;
use serde_json::Value;

use crate::app::App;
#[cfg(feature = "cedar")]
use crate::control::TestPolicy;
use crate::control::{Request, SeeDecisions};

use super::access::ask_once;
use super::actors::text;
#[cfg(feature = "cedar")]
use super::args::Asked;
use super::args::{Common, Policy, See};
use super::exit::{Code, Stop};
use super::print;
#[cfg(feature = "cedar")]
use super::settings::configured;

/// Performs one of them.
pub async fn policy(common: &Common, app: App, verb: Policy) -> Result<Code, Stop> {
    match verb {
        #[cfg(feature = "cedar")]
        Policy::Test(asked) => test(common, app, asked).await,
        Policy::Decisions(see) => decisions(common, app, see).await,
    }
}

/// Asks the policies of a server, or those of a folder, without a server and without a data directory. Exit codes: 0 allowed,
/// 77 denied, 78 the set has faults.
#[cfg(feature = "cedar")]
async fn test(common: &Common, app: App, asked: Asked) -> Result<Code, Stop> {
    let question = question(&asked)?;
    let tenant = asked.tenant.clone().unwrap_or_else(|| "default".to_owned());
    let resource = Resource::read(&asked.resource, &tenant).map_err(Stop::usage)?;
    let value = if common.is_remote() && asked.policies.is_none() {
        ask_once(common, app, Tasks::Leave, Request::TestPolicy { tenant: asked.tenant, test: question }).await?
    } else {
        offline(common, asked.policies, &question, &tenant)?
    };
    let allowed = value["allowed"] == true;
    print::result(common.output, &value, || {
        let by = value["policies"].as_array().into_iter().flatten().map(text).collect::<Vec<_>>().join(", ");
        let by = if by.is_empty() { by } else { format!(", by {by}") };
        let reason = text(&value["reason"]);
        if allowed { format!("allowed: {reason}{by}") } else { format!("denied: {} may not {} {resource}: {reason}{by}", asked.principal, asked.action) }
    })?;
    Ok(if allowed { Code::Done } else { Code::NotPermitted })
}

/// What a folder answers: the one that is named, else the configured one, else the one that is usual, else the built-in rule.
#[cfg(feature = "cedar")]
fn offline(common: &Common, named: Option<PathBuf>, question: &TestPolicy, tenant: &str) -> Result<Value, Stop> {
    let named = match named {
        Some(folder) => Some(folder),
        None => configured(common)?.config.authorization.policies.map(PathBuf::from),
    };
    let folder = named.or_else(|| Some(PathBuf::from("policies")).filter(|folder| folder.is_dir()));
    let given = folder.as_deref().map(opened).transpose()?;
    let policies: &dyn Policies = match &given {
        Some(given) => given,
        None => &Owners,
    };
    if given.is_none() {
        print::note("no folder of policies is named: this is the answer of the rule that is built in");
    }
    let (context, action, resource) = asked_of(question, tenant, crate::bootstrap::environment().clock.now())?;
    let now = context.request.at;
    Ok(said(&answer(policies, &context, action, &resource, now)))
}

/// The policies of a folder, or everything that is wrong with them.
#[cfg(feature = "cedar")]
pub fn opened(folder: &Path) -> Result<CedarPolicies, Stop> {
    CedarPolicies::open(folder).map_err(|refused: Refused| Stop::new(Code::Configuration, format!("the policies are refused:\n{refused}")))
}

#[cfg(feature = "cedar")]
fn question(asked: &Asked) -> Result<TestPolicy, Stop> {
    let claim = |said: &String| {
        let (name, value) = said.split_once('=').ok_or_else(|| Stop::usage(format!("`{said}` is no claim: write it as NAME=VALUE")))?;
        Ok((name.to_owned(), value.to_owned()))
    };
    Ok(TestPolicy {
        action: asked.action.name().to_owned(),
        resource: asked.resource.clone(),
        principal: asked.principal.clone(),
        roles: asked.roles.clone(),
        claims: asked.claims.iter().map(claim).collect::<Result<_, Stop>>()?,
        address: asked.address,
        through: asked.through.clone(),
        at: asked.at,
    })
}

/// Decisions that were recorded, and what was counted.
async fn decisions(common: &Common, app: App, see: See) -> Result<Code, Stop> {
    let See { id, principal, action, shadow, limit, of } = see;
    let wanted = SeeDecisions { id, principal, action: action.map(|action| action.name().to_owned()), shadow, limit };
    let found = ask_once(common, app, Tasks::Leave, Request::Decisions { tenant: of.tenant, see: wanted }).await?;
    print::result(common.output, &found, || shown(&found, shadow))?;
    if common.output == super::args::Output::Text {
        summarize(&found["summary"], shadow);
    }
    Ok(Code::Done)
}

fn shown(found: &Value, shadow: bool) -> String {
    let row = |one: &Value| {
        let times = one["count"].as_u64().unwrap_or(1);
        let mut reason = text(&one["reason"]);
        let by = list(&one["policies"]);
        if !by.is_empty() {
            reason = format!("{reason}, by {by}");
        }
        if let Some(in_force) = one["in_force"].as_object() {
            let by = list(&in_force["policies"]);
            reason = format!("{reason}; in force: {}{}", text(&in_force["reason"]), if by.is_empty() { by } else { format!(", by {by}") });
        }
        let through = list(&one["through"]);
        let who = if through.is_empty() { text(&one["principal"]) } else { format!("{} through {through}", text(&one["principal"])) };
        vec![text(&one["id"]), text(&one["last"]), times.to_string(), text(&one["decision"]), who, text(&one["action"]), text(&one["resource"]), reason]
    };
    let rows: Vec<Vec<String>> = found["decisions"].as_array().into_iter().flatten().map(row).collect();
    match (rows.is_empty(), shadow) {
        (true, false) => "no decision is recorded that fits".to_owned(),
        (true, true) => "no difference is recorded that fits".to_owned(),
        _ => print::table(&["ID", "LAST", "TIMES", "DECISION", "WHO", "ACTION", "RESOURCE", "WHY"], &rows),
    }
}

fn list(value: &Value) -> String {
    value.as_array().into_iter().flatten().map(text).collect::<Vec<_>>().join(", ")
}

/// What was counted, for people.
fn summarize(summary: &Value, shadow: bool) {
    let counts = |of: &Value| {
        let counts: Vec<String> = of.as_object().into_iter().flatten().map(|(action, count)| format!("{action} {count}")).collect();
        if counts.is_empty() { "nothing".to_owned() } else { counts.join(", ") }
    };
    let number = |of: &Value| of.as_u64().unwrap_or_default();
    let (allowed, denied) = (counts(&summary["allowed"]), counts(&summary["denied"]));
    print::note(&format!("since this process began it has allowed {allowed}, and denied {denied}"));
    if number(&summary["without_credential"]) > 0 {
        print::note(&format!("{} requests had no valid credential: they are counted, not recorded", summary["without_credential"]));
    }
    if number(&summary["unrecorded"]) > 0 {
        print::note(&format!("{} decisions are in no record: too many different ones came within a minute", summary["unrecorded"]));
    }
    let of = &summary["shadow"];
    if of.is_object() {
        print::note(&format!(
            "the policies in the shadow were asked {} times: they would have allowed {} that were denied, and denied {} that were allowed; \
             {} could not be evaluated, {} were passed over because too much came at once",
            of["asked"], of["would_allow"], of["would_deny"], of["failed"], of["passed_over"]
        ));
    } else if shadow {
        print::note("there are no policies in the shadow: `authorization: { shadow: ./policies-next }` in selvedge.yaml names their folder");
    }
}
