//! What was answered, for whoever follows the server: routes and codes, no path, no header, no body.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{ConnectInfo, MatchedPath, Request};
use axum::http::StatusCode;
use axum::middleware::{self, Next};

use crate::refusal::Refused;
use crate::take::trace;

/// A request that was answered.
#[derive(Clone, Debug)]
pub struct Answered<'a> {
    /// Its method.
    pub method: &'a str,
    /// Its route, as the document has it; none: there is none.
    pub route: Option<&'a str>,
    /// The status of the answer.
    pub status: StatusCode,
    /// The code of a refusal.
    pub code: Option<&'a str>,
    /// The decision that denied it.
    pub decision: Option<&'a str>,
    /// The `traceparent` that it came with.
    pub trace: Option<&'a str>,
    /// Where it came from.
    pub address: Option<SocketAddr>,
    /// How long it took until its answer began.
    pub took: Duration,
}

/// Takes what was answered.
pub type Told = Arc<dyn Fn(&Answered<'_>) + Send + Sync>;

/// A router that tells of each answer.
pub fn watched(router: Router, told: Told) -> Router {
    router.layer(middleware::from_fn(move |request: Request, next: Next| {
        let told = told.clone();
        async move {
            let began = Instant::now();
            let method = request.method().clone();
            let route = request.extensions().get::<MatchedPath>().cloned();
            let address = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0);
            let trace = trace(request.headers());
            let response = next.run(request).await;
            let refused = response.extensions().get::<Refused>();
            told(&Answered {
                method: method.as_str(),
                route: route.as_ref().map(MatchedPath::as_str),
                status: response.status(),
                code: refused.map(|refused| refused.code.as_str()),
                decision: refused.and_then(|refused| refused.decision.as_deref()),
                trace: trace.as_deref(),
                address,
                took: began.elapsed(),
            });
            response
        }
    }))
}
