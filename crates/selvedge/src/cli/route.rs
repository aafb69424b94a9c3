//! Which route a request of the command line is.

use selvedge_kernel::error::Consequence;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::control::{Decision, Gives, Invoke, KeyVerb, PrincipalVerb, Problem, Request, SeeDecisions, Steer, SteerSchedule};

use super::remote::patient;

/// How often it is asked.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Once.
    Once,
    /// Until there is a result.
    UntilResult,
    /// Until something happened to a run, or it has ended.
    UntilEvent {
        /// Which.
        run: String,
    },
}

/// A request over HTTP.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: &'static str,
    pub path: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
    pub kind: Kind,
}

impl Asked {
    pub fn get(path: String) -> Asked {
        Asked { method: "GET", path, headers: Vec::new(), body: String::new(), kind: Kind::Once }
    }

    fn post(path: String, body: impl ToString) -> Asked {
        Asked { method: "POST", body: body.to_string(), ..Asked::get(path) }
    }

    fn key(mut self, key: Option<String>) -> Asked {
        self.headers.extend(key.map(|key| ("idempotency-key", key)));
        self
    }
}

/// A name in a path or in a query.
fn name(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    // A path that is a dot or two would lead somewhere else.
    let dots = text.bytes().all(|byte| byte == b'.');
    text.bytes().map(|byte| if plain(byte) && !dots { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn listed(list: &str, filter: &str) -> Asked {
    Asked::get(if filter.is_empty() { format!("/v1/{list}") } else { format!("/v1/{list}?where={}", name(filter)) })
}

fn message(verb: &str, invoke: Invoke) -> Asked {
    let Invoke { kind, key, handler, input, idempotency_key, delay_ms, trace: _ } = invoke;
    let delay = delay_ms.map(|delay| format!("?delay={delay}ms")).unwrap_or_default();
    Asked::post(format!("/v1/actors/{}/{}/{verb}/{}{delay}", name(&kind), name(&key), name(&handler)), input).key(idempotency_key)
}

fn raw(text: String) -> Result<Box<RawValue>, Problem> {
    RawValue::from_string(text).map_err(|error| Problem::new(Consequence::FixInput, "not_json", error.to_string()))
}

/// A JSON object of what is there.
fn object(entries: &[(&str, Option<String>)]) -> String {
    let there = entries.iter().filter_map(|(name, value)| value.as_ref().map(|value| format!("{}:{value}", json!(name))));
    format!("{{{}}}", there.collect::<Vec<_>>().join(","))
}

fn quoted(text: impl Into<Value>) -> Option<String> {
    Some(text.into().to_string())
}

/// The route of a request. Errors: what is done where the data directory is, and nowhere else.
pub fn route(request: Request) -> Result<Asked, Problem> {
    let run = |id: &str, rest: &str| format!("/v1/runs/{}{rest}", name(id));
    let invocation = |id: &str, rest: &str| format!("/v1/invocations/{}{rest}", name(id));
    let actor = |kind: &str, key: &str, rest: &str| format!("/v1/actors/{}/{}{rest}", name(kind), name(key));
    let reason = |reason: String| json!({ "reason": reason });
    Ok(match request {
        Request::Call(invoke) => {
            let mut call = message("call", invoke);
            call.headers.push(patient());
            call
        }
        Request::Send(invoke) => message("send", invoke),
        Request::SignalActor { kind, key, name: signal, payload, idempotency_key } => {
            Asked::post(actor(&kind, &key, &format!("/signals/{}", name(&signal))), payload).key(idempotency_key)
        }
        Request::State { kind, key } => Asked::get(actor(&kind, &key, "/state")),
        Request::StateEtags { kind, key } => Asked::get(actor(&kind, &key, "/state?etags=true")),
        Request::EditState(edit) => {
            let path = actor(&edit.kind, &edit.key, &format!("/state/{}?reason={}", name(&edit.name), name(&edit.reason)));
            let asked = match edit.set {
                Some(value) => Asked { method: "PUT", ..Asked::post(path, value) },
                None => Asked { method: "DELETE", ..Asked::get(path) },
            };
            let mut asked = asked.key(edit.idempotency_key);
            asked.headers.extend(edit.if_match.map(|tag| ("if-match", format!("\"{tag}\""))));
            asked
        }
        Request::Journal { id, from } => Asked::get(invocation(&id, &format!("/journal?from={from}"))),
        Request::Resolve { id, operation, gives, reason } => {
            let operation = quoted(operation);
            let body = match gives {
                Gives::Result(text) => object(&[("operation", operation), ("result", Some(raw(text)?.get().to_owned())), ("reason", quoted(reason))]),
                Gives::Error { code, message } => {
                    object(&[("operation", operation), ("error", quoted(json!({ "code": code, "message": message }))), ("reason", quoted(reason))])
                }
            };
            Asked::post(invocation(&id, "/resolve"), body)
        }
        Request::Fork { id, from, kill_original, reason, key } => {
            Asked::post(invocation(&id, "/fork"), json!({ "from": from, "kill_original": kill_original, "reason": reason })).key(Some(key))
        }
        Request::ForkRun { id, from, input, reason, key } => {
            let input = input.map(raw).transpose()?.map(|input| input.get().to_owned());
            Asked::post(run(&id, "/fork"), object(&[("from", from.and_then(quoted)), ("input", input), ("reason", quoted(reason))])).key(Some(key))
        }
        Request::Invocations { all, filter } => {
            let asked = listed("invocations", &filter);
            let more = if filter.is_empty() { '?' } else { '&' };
            Asked { path: if all { format!("{}{more}all=true", asked.path) } else { asked.path.clone() }, ..asked }
        }
        Request::Stuck { longer_than_ms, filter } => {
            let asked = listed("stuck", &filter);
            let more = if filter.is_empty() { '?' } else { '&' };
            Asked { path: longer_than_ms.map_or_else(|| asked.path.clone(), |span| format!("{}{more}longer_than={span}ms", asked.path)), ..asked }
        }
        Request::Await { id } => Asked { headers: vec![patient()], kind: Kind::UntilResult, ..Asked::get(invocation(&id, "/result")) },
        Request::Invocation { id } => Asked::get(invocation(&id, "")),
        Request::CancelInvocation { id, reason: why } => Asked::post(invocation(&id, "/cancel"), reason(why)),
        Request::KillInvocation { id, reason: why } => Asked::post(invocation(&id, "/kill"), reason(why)),
        Request::RetryInvocation { id } => Asked::post(invocation(&id, "/retry"), ""),
        Request::Why { id } => Asked::get(format!("/v1/why/{}", name(&id))),
        Request::Approvals { filter } => listed("approvals", &filter),
        Request::Approval { id, stage } => {
            let stage = stage.map(|stage| format!("?stage={}", name(&stage))).unwrap_or_default();
            Asked::get(format!("/v1/approvals/{}{stage}", name(&id)))
        }
        Request::Decide { id, stage, answer, by: _, comment } => {
            let answer = if answer == Decision::Approve { "approve" } else { "reject" };
            // Who answers is whom the key names.
            Asked::post(format!("/v1/approvals/{}", name(&id)), json!({ "answer": answer, "comment": comment, "stage": stage }))
        }
        Request::Runs { filter } => listed("runs", &filter),
        Request::Actors { filter } => listed("actors", &filter),
        Request::Run { id } => Asked::get(run(&id, "")),
        Request::RunEvents { id, from } => {
            let kind = Kind::UntilEvent { run: name(&id) };
            Asked { headers: vec![patient()], kind, ..Asked::get(run(&id, &format!("/journal?from={from}"))) }
        }
        Request::RunJournal { id, from } => Asked::get(run(&id, &format!("/journal?from={from}"))),
        Request::SteerRun { id, steer } => match steer {
            Steer::Cancel { reason: why } => Asked::post(run(&id, "/cancel"), reason(why)),
            Steer::Pause => Asked::post(run(&id, "/pause"), ""),
            Steer::Resume => Asked::post(run(&id, "/resume"), ""),
            Steer::Retry => Asked::post(run(&id, "/retry"), ""),
            Steer::RetryMore { from, failed_only } => Asked::post(run(&id, "/retry"), json!({ "from": from, "failed_only": failed_only })),
        },
        Request::SignalRun { id, name: signal, payload, idempotency_key } => {
            Asked::post(run(&id, &format!("/signals/{}", name(&signal))), payload).key(idempotency_key)
        }
        Request::PutPipeline { definition } => {
            let named: Value = serde_json::from_str(&definition).unwrap_or_default();
            let path = format!("/v1/pipelines/{}", name(named["name"].as_str().unwrap_or_default()));
            let headers = vec![("content-type", selvedge_http::DEFINITION.to_owned())];
            Asked { method: "PUT", headers, ..Asked::post(path, definition) }
        }
        Request::Pipeline { name: asked } => {
            let (named, version) = asked.split_once('@').map_or((asked.as_str(), None), |(named, version)| (named, Some(version)));
            let version = version.map(|version| format!("?version={}", name(version))).unwrap_or_default();
            Asked::get(format!("/v1/pipelines/{}{version}", name(named)))
        }
        Request::Pipelines => Asked::get("/v1/pipelines".to_owned()),
        Request::DiffPipeline { name: named, before, after } => {
            Asked::get(format!("/v1/pipelines/{}/diff?before={}&after={}", name(&named), name(&before), name(&after)))
        }
        Request::StartPipeline { name: named, version, input, key } => {
            let version = version.map(|version| format!("?version={}", name(&version))).unwrap_or_default();
            Asked::post(format!("/v1/pipelines/{}/runs{version}", name(&named)), input).key(Some(key))
        }
        Request::Schedules { filter } => listed("schedules", &filter),
        Request::Schedule { pipeline } => Asked::get(format!("/v1/schedules/{}", name(&pipeline))),
        Request::SteerSchedule { pipeline, steer } => {
            let path = format!("/v1/schedules/{}", name(&pipeline));
            match steer {
                SteerSchedule::Pause => Asked::post(format!("{path}/pause"), ""),
                SteerSchedule::Resume => Asked::post(format!("{path}/resume"), ""),
                SteerSchedule::Fire => Asked::post(format!("{path}/fire"), ""),
                SteerSchedule::Remove => Asked { method: "DELETE", ..Asked::get(path) },
            }
        }
        Request::DeadLetters { filter } => listed("dead-letters", &filter),
        Request::DeadLetter { id } => Asked::get(format!("/v1/dead-letters/{}", name(&id))),
        Request::Redrive { id, input } => {
            let input = input.map(raw).transpose()?.map(|input| input.get().to_owned());
            Asked::post(format!("/v1/dead-letters/{}/redrive", name(&id)), object(&[("input", input)]))
        }
        Request::Keys { tenant: None, ask } => match ask {
            KeyVerb::List => Asked::get("/v1/keys".to_owned()),
            KeyVerb::Create { name, roles, lasts_ms } => {
                let expires = lasts_ms.map(|span| format!("{span}ms"));
                Asked::post("/v1/keys".to_owned(), json!({ "name": name, "roles": roles, "expires": expires }))
            }
            KeyVerb::Revoke { id, reason: why } => Asked::post(format!("/v1/keys/{}/revoke", name(&id)), reason(why)),
        },
        Request::Keys { tenant: Some(tenant), .. } => {
            return Err(elsewhere(&format!("keys of the tenant `{tenant}`, where another key may belong to another one,")));
        }
        Request::Principals { tenant: None, ask } => match ask {
            PrincipalVerb::List => Asked::get("/v1/principals".to_owned()),
            PrincipalVerb::Disable { id, reason: why } => Asked::post(format!("/v1/principals/{}/disable", name(&id)), reason(why)),
            PrincipalVerb::Enable { id } => Asked::post(format!("/v1/principals/{}/enable", name(&id)), ""),
        },
        Request::Principals { tenant: Some(tenant), .. } => {
            return Err(elsewhere(&format!("principals of the tenant `{tenant}`, where another key may belong to another one,")));
        }
        Request::Tenants { .. } => return Err(elsewhere("tenants as a whole")),
        Request::Decisions { tenant: None, see } => {
            let SeeDecisions { id, principal, action, shadow, limit } = see;
            let words = [("id", id), ("principal", principal), ("action", action), ("limit", limit.map(|limit| limit.to_string()))];
            let words = words.into_iter().filter_map(|(word, value)| Some(format!("{word}={}", name(&value?)))).chain(shadow.then(|| "shadow=true".to_owned()));
            let words = words.collect::<Vec<_>>().join("&");
            Asked::get(if words.is_empty() { "/v1/policy/decisions".to_owned() } else { format!("/v1/policy/decisions?{words}") })
        }
        Request::TestPolicy { tenant: None, test } => Asked::post("/v1/policy/test".to_owned(), json!(test)),
        Request::Decisions { tenant: Some(tenant), .. } => {
            return Err(elsewhere(&format!("decisions of the tenant `{tenant}`, where the key may belong to another one,")));
        }
        Request::TestPolicy { tenant: Some(tenant), .. } => {
            return Err(elsewhere(&format!("what somebody of the tenant `{tenant}` may do, where the key may belong to another one,")));
        }
        Request::RetryWhere { .. } => return Err(elsewhere("a retry of many invocations")),
        Request::Health => return Err(elsewhere("`doctor`")),
        Request::Backup { .. } => return Err(elsewhere("a backup")),
        Request::Export { .. } => return Err(elsewhere("an export")),
        Request::Verify { .. } | Request::Heads => return Err(elsewhere("`verify`")),
    })
}

fn elsewhere(what: &str) -> Problem {
    let text = format!("{what} is asked for where the data directory is, not over HTTP: leave out --server there, and unset SELVEDGE_SERVER");
    Problem::new(Consequence::FixInput, "not_over_http", text)
}
