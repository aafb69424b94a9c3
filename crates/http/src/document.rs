//! The routes as a whole: a router, and the OpenAPI document that is made of the same list.

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Router, middleware};
use selvedge_kernel::error::Consequence;
use utoipa::OpenApi;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::door::Door;
use crate::refusal::{Document, NO_METHOD, NO_ROUTE, PROBLEM, Refusal};
use crate::routes::{
    actors, approvals, health, invocations, keys, letters, lists, nodes, pipelines, policy, principals, runs, schedules, session, state, work,
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
        .routes(routes!(letters::why_it_waits))
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
    for item in document.paths.paths.values_mut() {
        for operation in [&mut item.get, &mut item.put, &mut item.post, &mut item.delete].into_iter().flatten() {
            if operation.security.is_none() {
                refusals(operation);
            }
        }
    }
    document
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
        // Bodies have a limit of their own, which says what it is.
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::map_response(hardened))
        .with_state(Arc::new(door))
}

async fn hardened(mut response: axum::response::Response) -> impl IntoResponse {
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
