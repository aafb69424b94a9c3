//! Lists, each with `where`.

use selvedge_engine::desk::{Paged, Pages, Pipelines, Runs, Schedules};
use selvedge_engine::listing::Listed;
use selvedge_kernel::policy::Span;
use serde::Deserialize;
use std::time::Duration;
use utoipa::IntoParams;

use crate::answer::{Answer, Done};
use crate::caller::Caller;
use crate::shapes::actors::Actor;
use crate::shapes::approvals::ApprovalSummary;
use crate::shapes::invocations::InvocationSummary;
use crate::shapes::letters::{DeadLetterSummary, StuckWork};
use crate::shapes::pipelines::PipelineSummary;
use crate::shapes::runs::RunSummary;
use crate::shapes::schedules::Schedule;
use crate::take::Words;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Keep {
    /// What to keep, such as `status:failed age<1d`; all, if it is not there.
    #[serde(rename = "where", default)]
    filter: String,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct KeepPage {
    /// What to keep, such as `status:failed age<1d`; all, if it is not there.
    #[serde(rename = "where", default)]
    filter: String,
    /// So many lines at most, 1 to 1000; 1000, if it is not there.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// What the page before gave in its `Link` for the next one.
    cursor: Option<String>,
}

/// A page, with a `Link` to the next one if there is one. `more`: what else the query says.
fn page(paged: Paged, filter: &str, limit: Option<usize>, more: &str) -> Answer {
    let query = paged.next.map(|next| {
        let filter = if filter.is_empty() { String::new() } else { format!("where={}&", escaped(filter)) };
        let limit = limit.map(|limit| format!("limit={limit}&")).unwrap_or_default();
        format!("{filter}{more}{limit}cursor={}", escaped(&next))
    });
    Answer::of(paged.lines).next(query.as_deref())
}

fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// Actors, by type and key.
#[utoipa::path(get, path = "/v1/actors", tag = "actors", params(KeepPage),
    responses((status = 200, description = "a page", body = Vec<Actor>, headers(("Link" = String, description = "the next page, `rel=\"next\"`")))))]
pub(crate) async fn actors(caller: Caller, Words(keep): Words<KeepPage>) -> Done {
    let pages = Pages { limit: keep.limit, cursor: keep.cursor };
    Ok(page(caller.asker().actors(&keep.filter, &pages).await?, &keep.filter, keep.limit, ""))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct KeepOpen {
    /// What to keep; all, if it is not there.
    #[serde(rename = "where", default)]
    filter: String,
    /// Those that have ended as well.
    #[serde(default)]
    all: bool,
    /// So many lines at most, 1 to 1000; 1000, if it is not there.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// What the page before gave in its `Link` for the next one.
    cursor: Option<String>,
}

/// Invocations, the newest first.
#[utoipa::path(get, path = "/v1/invocations", tag = "invocations", params(KeepOpen),
    responses((status = 200, description = "a page", body = Vec<InvocationSummary>,
        headers(("Link" = String, description = "the next page, `rel=\"next\"`")))))]
pub(crate) async fn invocations(caller: Caller, Words(keep): Words<KeepOpen>) -> Done {
    let listed = if keep.all { Listed::All } else { Listed::Open };
    let pages = Pages { limit: keep.limit, cursor: keep.cursor };
    let more = if keep.all { "all=true&" } else { "" };
    Ok(page(caller.asker().invocations(listed, &keep.filter, &pages).await?, &keep.filter, keep.limit, more))
}

/// Runs, the newest first.
#[utoipa::path(get, path = "/v1/runs", tag = "runs", params(KeepPage),
    responses((status = 200, description = "a page", body = Vec<RunSummary>, headers(("Link" = String, description = "the next page, `rel=\"next\"`")))))]
pub(crate) async fn runs(caller: Caller, Words(keep): Words<KeepPage>) -> Done {
    let pages = Pages { limit: keep.limit, cursor: keep.cursor };
    Ok(page(Runs(caller.asker()).list(&keep.filter, &pages).await?, &keep.filter, keep.limit, ""))
}

/// Approvals that are open, then those that were answered.
#[utoipa::path(get, path = "/v1/approvals", tag = "approvals", params(Keep),
    responses((status = 200, description = "those of the newest runs", body = Vec<ApprovalSummary>)))]
pub(crate) async fn approvals(caller: Caller, Words(keep): Words<Keep>) -> Done {
    Ok(Answer::of(Runs(caller.asker()).approvals(&keep.filter).await?))
}

/// Pipelines, by name.
#[utoipa::path(get, path = "/v1/pipelines", tag = "pipelines", responses((status = 200, description = "all of them", body = Vec<PipelineSummary>)))]
pub(crate) async fn pipelines(caller: Caller) -> Done {
    Ok(Answer::of(Pipelines(caller.asker()).list().await?))
}

/// Schedules, by the names of their pipelines.
#[utoipa::path(get, path = "/v1/schedules", tag = "schedules", params(Keep), responses((status = 200, description = "all of them", body = Vec<Schedule>)))]
pub(crate) async fn schedules(caller: Caller, Words(keep): Words<Keep>) -> Done {
    Ok(Answer::of(Schedules(caller.asker()).list(&keep.filter).await?))
}

/// Messages that could not be handled, the newest first.
#[utoipa::path(get, path = "/v1/dead-letters", tag = "dead letters", params(KeepPage),
    responses((status = 200, description = "a page", body = Vec<DeadLetterSummary>,
        headers(("Link" = String, description = "the next page, `rel=\"next\"`")))))]
pub(crate) async fn dead_letters(caller: Caller, Words(keep): Words<KeepPage>) -> Done {
    let pages = Pages { limit: keep.limit, cursor: keep.cursor };
    Ok(page(caller.asker().dead_letters(&keep.filter, &pages).await?, &keep.filter, keep.limit, ""))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct KeepLong {
    /// What to keep; all, if it is not there.
    #[serde(rename = "where", default)]
    filter: String,
    /// For how long, such as `1h`; each for as long as its type expects, if it is not there.
    #[param(value_type = Option<String>)]
    longer_than: Option<Span>,
}

/// What has waited for long, those that wait longest first, each with its sentence.
#[utoipa::path(get, path = "/v1/stuck", tag = "why", params(KeepLong),
    responses((status = 200, description = "each with its sentence", body = Vec<StuckWork>)))]
pub(crate) async fn stuck(caller: Caller, Words(keep): Words<KeepLong>) -> Done {
    let longer_than: Option<Duration> = keep.longer_than.map(|span| span.0);
    Ok(Answer::of(caller.asker().stuck(longer_than, &keep.filter).await?))
}
