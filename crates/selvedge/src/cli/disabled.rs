//! `principals …` and `tenants …`: who is disabled.

use selvedge_engine::wiring::Tasks;
use serde_json::Value;

use crate::app::App;
use crate::control::{PrincipalVerb, Request, TenantVerb};

use super::access::ask_once;
use super::actors::{done, text};
use super::args::{Common, Principals, Tenants};
use super::exit::{Code, Stop};
use super::print;

/// Performs something with a principal.
pub async fn principals(common: &Common, app: App, verb: Principals) -> Result<Code, Stop> {
    let (of, ask) = match verb {
        Principals::Disable { id, of, reason } => (of, PrincipalVerb::Disable { id, reason }),
        Principals::Enable { id, of } => (of, PrincipalVerb::Enable { id }),
        Principals::List(of) => (of, PrincipalVerb::List),
    };
    let answer = ask_once(common, app, Tasks::Leave, Request::Principals { tenant: of.tenant, ask }).await?;
    told(common, &answer, "principal", "no principal of this tenant is disabled")
}

/// Performs something with a tenant.
pub async fn tenants(common: &Common, app: App, verb: Tenants) -> Result<Code, Stop> {
    let (tenant, ask) = match verb {
        Tenants::Disable { tenant, reason } => (Some(tenant), TenantVerb::Disable { reason }),
        Tenants::Enable { tenant } => (Some(tenant), TenantVerb::Enable),
        Tenants::List => (None, TenantVerb::List),
    };
    let answer = ask_once(common, app, Tasks::Leave, Request::Tenants { tenant, ask }).await?;
    told(common, &answer, "tenant", "no tenant is disabled")
}

/// Says what came of it: a list, or how one stands now.
fn told(common: &Common, answer: &Value, whom: &str, none: &str) -> Result<Code, Stop> {
    let Some(all) = answer.as_array() else {
        let state = if answer["disabled"] == true { format!("is disabled since {}", text(&answer["since"])) } else { "is not disabled".to_owned() };
        done(common, &format!("{} {state}", text(&answer[whom])))?;
        return Ok(Code::Done);
    };
    print::result(common.output, answer, || {
        if all.is_empty() {
            return none.to_owned();
        }
        let rows: Vec<Vec<String>> = all.iter().map(|one| [whom, "since", "by", "reason"].map(|field| text(&one[field])).to_vec()).collect();
        print::table(&[&whom.to_uppercase(), "SINCE", "BY", "REASON"], &rows)
    })?;
    Ok(Code::Done)
}
