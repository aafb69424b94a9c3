//! The routes as a whole: a router, and the OpenAPI document that is made of the same list.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::{self, Next};
use axum::routing::get;
use selvedge_kernel::error::Consequence;
use utoipa::OpenApi;
use utoipa::openapi::path::Operation;
use utoipa::openapi::request_body::RequestBody;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Components, Content, ContentBuilder, Ref, RefOr, Required, Response, ResponseBuilder, Schema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::door::Door;
use crate::refusal::{Document, NO_METHOD, NO_ROUTE, PROBLEM, Refusal};
use crate::routes::{
    actors, approvals, health, invocations, keys, letters, lists, metrics, nodes, pipelines, policy, principals, runs, schedules, session, state, work,
};
use crate::session::COOKIE;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Selvedge",
        description = "Durable actors, pipelines and queued work. What is answered with 2xx is on disk.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")
    ),
    components(schemas(Document))
)]
struct Written;

fn routed() -> OpenApiRouter<Arc<Door>> {
    OpenApiRouter::with_openapi(Written::openapi())
        .routes(routes!(actors::call))
        .routes(routes!(actors::send))
        .routes(routes!(actors::signal))
        .routes(routes!(lists::actors))
        .routes(routes!(state::all))
        .routes(routes!(state::one, state::set, state::remove))
        .routes(routes!(lists::invocations))
        .routes(routes!(invocations::show))
        .routes(routes!(invocations::result))
        .routes(routes!(invocations::journal))
        .routes(routes!(invocations::output))
        .routes(routes!(invocations::cancel))
        .routes(routes!(invocations::kill))
        .routes(routes!(invocations::retry))
        .routes(routes!(invocations::fork))
        .routes(routes!(invocations::resolve))
        .routes(routes!(invocations::signal))
        .routes(routes!(lists::pipelines))
        .routes(routes!(pipelines::show, pipelines::put))
        .routes(routes!(pipelines::diff))
        .routes(routes!(pipelines::start))
        .routes(routes!(lists::runs))
        .routes(routes!(runs::show))
        .routes(routes!(runs::tasks))
        .routes(routes!(runs::journal))
        .routes(routes!(runs::events))
        .routes(routes!(runs::cancel))
        .routes(routes!(runs::pause))
        .routes(routes!(runs::resume))
        .routes(routes!(runs::retry))
        .routes(routes!(runs::fork))
        .routes(routes!(runs::signal))
        .routes(routes!(lists::approvals))
        .routes(routes!(approvals::show, approvals::answer))
        .routes(routes!(lists::schedules))
        .routes(routes!(schedules::show, schedules::remove))
        .routes(routes!(schedules::pause))
        .routes(routes!(schedules::resume))
        .routes(routes!(schedules::fire))
        .routes(routes!(lists::dead_letters))
        .routes(routes!(letters::show))
        .routes(routes!(letters::redrive))
        .routes(routes!(letters::waits))
        .routes(routes!(lists::stuck))
        .routes(routes!(nodes::nodes))
        .routes(routes!(work::lease))
        .routes(routes!(work::heartbeat))
        .routes(routes!(work::complete))
        .routes(routes!(work::fail))
        .routes(routes!(keys::list, keys::create))
        .routes(routes!(keys::revoke))
        .routes(routes!(session::open, session::end))
        .routes(routes!(principals::list))
        .routes(routes!(principals::disable))
        .routes(routes!(principals::enable))
        .routes(routes!(policy::decisions))
        .routes(routes!(policy::test))
        .routes(routes!(health::alive))
        .routes(routes!(health::ready))
        .routes(routes!(metrics::metrics))
}

/// The OpenAPI 3.1 document of what is served.
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    let mut document = routed().into_openapi();
    let bearer = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
    let cookie = SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::new(COOKIE)));
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("key", bearer);
    components.add_security_scheme("session", cookie);
    document.security = Some(["key", "session"].map(|name| SecurityRequirement::new::<_, [&str; 0], &str>(name, [])).into());
    let empty = document.components.as_ref().map(without_required).unwrap_or_default();
    for item in document.paths.paths.values_mut() {
        for operation in [&mut item.get, &mut item.put, &mut item.post, &mut item.delete].into_iter().flatten() {
            operation.operation_id = named(operation);
            if operation.security.is_none() {
                refusals(operation);
            }
            if let Some(RefOr::T(body)) = operation.request_body.as_mut()
                && may_be_absent(body, &empty)
            {
                body.required = Some(Required::False);
            }
        }
    }
    document
}

/// What an operation is called in clients that are made of the document: each by a name of its own.
fn named(operation: &Operation) -> Option<String> {
    let (id, tag) = (operation.operation_id.as_deref()?, operation.tags.as_ref()?.first()?.replace(' ', "_"));
    Some(if id == tag { format!("{tag}_list") } else { format!("{tag}_{id}") })
}

/// The schemas of objects in which nothing must stand.
fn without_required(components: &Components) -> BTreeSet<String> {
    let nothing = |schema: &RefOr<Schema>| matches!(schema, RefOr::T(Schema::Object(object)) if object.required.is_empty());
    components.schemas.iter().filter(|(_, schema)| nothing(schema)).map(|(name, _)| format!("#/components/schemas/{name}")).collect()
}

/// A body that is not there is read as an object without anything in it: where that is enough, no body is.
fn may_be_absent(body: &RequestBody, empty: &BTreeSet<String>) -> bool {
    let enough = |schema: &RefOr<Schema>| matches!(schema, RefOr::Ref(Ref { ref_location, .. }) if empty.contains(ref_location));
    let content = |content: &RefOr<Content>| matches!(content, RefOr::T(content) if content.schema.as_ref().is_some_and(enough));
    !body.content.is_empty() && body.content.values().all(content)
}

/// What each operation that needs a credential may answer beside its own.
fn refusals(operation: &mut Operation) {
    let all = [
        ("400", "the request is wrong"),
        ("401", "no valid credential"),
        ("403", "no policy allows it"),
        ("404", "there is no such thing, or it is another tenant's"),
        ("408", "the body did not come in time"),
        ("409", "something is in the way"),
        ("412", "it is not what `If-Match` names"),
        ("413", "the body is too long"),
        ("422", "the same key with another body, a definition with errors, or the work itself failed"),
        ("429", "a limit is met: try again later"),
        ("500", "the server needs to be looked at"),
        ("503", "try again later"),
    ];
    for (status, what) in all {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Document"))).build();
        let response: Response = ResponseBuilder::new().description(what).content(PROBLEM, content).build();
        operation.responses.responses.entry(status.to_owned()).or_insert(RefOr::T(response));
    }
}

/// Everything that is served.
pub fn router(door: Door) -> Router {
    let text = document().to_json().unwrap_or_default();
    let served = get(move || async move { ([(header::CONTENT_TYPE, "application/json")], text) });
    let (router, _) = routed().split_for_parts();
    router
        .route("/openapi.json", served)
        .fallback(|| async { Refusal::new(Consequence::NotFound, NO_ROUTE, "there is nothing at this path: /openapi.json has all that there is") })
        .method_not_allowed_fallback(|| async {
            Refusal::new(Consequence::FixInput, NO_METHOD, "this path has no such method: /openapi.json has those that it has")
        })
        // One layer for all of it: each takes a part of what a small request costs. Bodies are read by `take` alone, which has their limit.
        .layer(middleware::from_fn_with_state(Arc::new(metrics::HttpCounts::default()), counted))
        .with_state(Arc::new(door))
}

/// Counts a request, where `/metrics` finds it, and takes no answer for what it does not say that it is.
async fn counted(State(counts): State<Arc<metrics::HttpCounts>>, mut request: Request, next: Next) -> axum::response::Response {
    request.extensions_mut().insert(counts.clone());
    let mut response = metrics::count(&counts, request, next).await;
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
