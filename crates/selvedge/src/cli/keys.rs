//! `keys …`

use selvedge_engine::wiring::Tasks;
use serde_json::Value;

use crate::app::App;
use crate::control::{GONE, KeyVerb, Request};

use super::access::{Access, ask_once, config, hold};
use super::actors::{done, text};
use super::args::{Common, Keys, OfTenant};
use super::exit::{Code, Stop};
use super::print;

/// Performs one of them.
pub async fn keys(common: &Common, app: App, verb: Keys) -> Result<Code, Stop> {
    match verb {
        Keys::Create { roles, of, name, expires } => {
            let lasts_ms = expires.map(|span| u64::try_from(span.0.as_millis()).unwrap_or(u64::MAX));
            create(common, app, asked(of, KeyVerb::Create { name, roles, lasts_ms })).await?;
        }
        Keys::List(of) => {
            let found = ask_once(common, app, Tasks::Leave, asked(of, KeyVerb::List)).await?;
            print::result(common.output, &found, || listed(&found))?;
        }
        Keys::Revoke { id, of, reason } => {
            let key = ask_once(common, app, Tasks::Leave, asked(of, KeyVerb::Revoke { id, reason })).await?;
            done(common, &format!("{} opens nothing any more since {}", text(&key["id"]), text(&key["revoked"]["at"])))?;
        }
    }
    Ok(Code::Done)
}

fn asked(of: OfTenant, ask: KeyVerb) -> Request {
    Request::Keys { tenant: of.tenant, ask }
}

/// Makes a key, and the data directory if it is not there: a server wants a key before it starts. What is printed on
/// standard output is the key alone. It is asked for once: a second key would be one that nobody has.
async fn create(common: &Common, app: App, request: Request) -> Result<(), Stop> {
    let mut config = config(common)?;
    if !common.is_remote() && !config.data.join("meta").exists() {
        config.settings.tasks = Tasks::Leave;
        config.control = crate::config::Control::Silent;
        print::note(&format!("making the data directory {}", config.data.display()));
        hold(config, app.clone()).await?.close().await?;
    }
    let mut access = Access::open(common, app, Tasks::Leave).await?;
    let answer = access.ask(request).await;
    access.close().await?;
    let made = answer.map_err(|mut problem| {
        if problem.code == GONE {
            problem.message = format!("{}. The key may have been made, and nobody has it: `selvedge keys list` shows it, revoke it then", problem.message);
        }
        problem
    })?;
    print::result(common.output, &made, || text(&made["key"]))?;
    let ends = made["ends"].as_str().map_or_else(|| "until it is revoked".to_owned(), |at| format!("until {at}"));
    print::note(&format!(
        "this is the only time that it is shown; {} opens the tenant `{}` {ends}, as {}",
        text(&made["id"]),
        text(&made["tenant"]),
        roles(&made)
    ));
    Ok(())
}

fn listed(found: &Value) -> String {
    let row = |key: &Value| {
        let ends = key["ends"].as_str().unwrap_or("never").to_owned();
        vec![text(&key["id"]), text(&key["status"]), roles(key), text(&key["created"]), ends, text(&key["name"])]
    };
    let rows: Vec<Vec<String>> = found.as_array().into_iter().flatten().map(row).collect();
    if rows.is_empty() {
        return "there is no key: `selvedge keys create --role owner` makes one".to_owned();
    }
    print::table(&["KEY", "STATUS", "ROLES", "CREATED", "ENDS", "NAME"], &rows)
}

fn roles(key: &Value) -> String {
    key["roles"].as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>().join(",")
}
