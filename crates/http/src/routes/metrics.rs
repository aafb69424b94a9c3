//! `/metrics`: numbers for Prometheus. A tenant's own for whoever may read it; those of the process, and of all tenants, for whoever
//! may operate the store. What has no credential gets none: names of tenants are among them.

use std::sync::Arc;

use axum::extract::{Extension, MatchedPath, Request};
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use selvedge_engine::desk::Problem;
use selvedge_engine::load::TenantLoad;
use selvedge_kernel::auth::{Action, Resource};
use serde::Deserialize;
use tokio::time::Instant;
use utoipa::IntoParams;

use crate::caller::Caller;
use crate::refusal::Refusal;
use crate::take::Words;

/// Tenants with numbers of their own; the others are one.
const TENANTS: usize = 100;
/// What the others are called: no tenant can be.
const OTHERS: &str = "";
/// The bounds of the times that are counted, in seconds.
const SECONDS: [f64; 12] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0, 15.0, 60.0];

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Asked {
    route: String,
    method: String,
    status: u16,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Route {
    route: String,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Tenant {
    tenant: String,
}

/// What was asked of one server.
#[derive(Clone, Debug)]
pub(crate) struct HttpCounts {
    requests: Family<Asked, Counter>,
    seconds: Family<Route, Histogram>,
    under_way: Gauge,
}

impl Default for HttpCounts {
    fn default() -> HttpCounts {
        let fresh: fn() -> Histogram = || Histogram::new(SECONDS);
        let seconds = Family::new_with_constructor(fresh);
        HttpCounts { requests: Family::default(), seconds, under_way: Gauge::default() }
    }
}

/// Counts a request by the route that it met: names and ids that stand in paths are not counted one by one.
pub(crate) async fn count(counted: &Arc<HttpCounts>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
    // A client may call a method whatever it likes.
    let known = ["GET", "PUT", "POST", "DELETE"].into_iter().find(|known| request.method() == *known);
    let method = known.unwrap_or("OTHER").to_owned();
    let began = Instant::now();
    counted.under_way.inc();
    let held = UnderWay(counted.clone());
    let response = next.run(request).await;
    drop(held);
    counted.seconds.get_or_create(&Route { route: route.clone() }).observe(began.elapsed().as_secs_f64());
    counted.requests.get_or_create(&Asked { route, method, status: response.status().as_u16() }).inc();
    response
}

/// A request that is under way, until it is answered or given up.
struct UnderWay(Arc<HttpCounts>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.dec();
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Whose {
    /// Those of all tenants, and of the process: needs the right to operate the store.
    #[serde(default)]
    all: bool,
}

/// Numbers for Prometheus, as OpenMetrics text: what the tenant of the key has open and keeps, or what all have, what was asked of this
/// server, and how full the store is.
#[utoipa::path(get, path = "/metrics", tag = "health", params(Whose),
    responses((status = 200, description = "the numbers", body = String, content_type = "application/openmetrics-text")))]
pub(crate) async fn metrics(caller: Caller, Words(whose): Words<Whose>, Extension(counted): Extension<Arc<HttpCounts>>) -> Result<Response, Refusal> {
    let (asker, engine) = (caller.asker(), &caller.door.engine);
    let mut registry = Registry::with_prefix("selvedge");
    if whose.all {
        let load = engine.load(&asker.permit(Action::Operate, Resource::Store)?).map_err(Problem::from)?;
        tenants(&mut registry, load.tenants);
        gauge(&mut registry, "tasks_offered", "Tasks for workers that nobody has taken", load.offered);
        gauge(&mut registry, "tasks_leased", "Tasks that workers have", load.leased);
        gauge(&mut registry, "store_pressure_thousandths", "How much of the tightest bound of the store is used", load.pressure as usize);
        registry.register("http_requests", "Requests that were answered", counted.requests.clone());
        registry.register_with_unit("http_request", "The time until they were", Unit::Seconds, counted.seconds.clone());
        registry.register("http_requests_under_way", "Requests that are not answered yet", counted.under_way.clone());
    } else {
        let load = engine.tenant_load(&asker.permit(Action::Read, Resource::Store)?).map_err(Problem::from)?;
        tenants(&mut registry, vec![(asker.tenant(), load)]);
    }
    let mut text = String::new();
    // A string takes what is written into it: it cannot fail.
    let _ = encode(&mut text, &registry);
    Ok(([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response())
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: usize) {
    let gauge = <Gauge>::default();
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
    registry.register(name, help, gauge);
}

/// Those that keep most by name, the others as one.
fn tenants(registry: &mut Registry, mut loads: Vec<(String, TenantLoad)>) {
    let others = loads.split_off(loads.len().min(TENANTS));
    let sum = |sum: TenantLoad, (_, load): &(String, TenantLoad)| TenantLoad {
        open: sum.open + load.open,
        delayed: sum.delayed + load.delayed,
        kept: sum.kept + load.kept,
    };
    if !others.is_empty() {
        loads.push((OTHERS.to_owned(), others.iter().fold(TenantLoad::default(), sum)));
    }
    let (open, delayed, kept): (Family<Tenant, Gauge>, Family<Tenant, Gauge>, Family<Tenant, Gauge>) = Default::default();
    for (tenant, load) in loads {
        for (family, value) in [(&open, load.open), (&delayed, load.delayed), (&kept, load.kept)] {
            family.get_or_create(&Tenant { tenant: tenant.clone() }).set(i64::try_from(value).unwrap_or(i64::MAX));
        }
    }
    registry.register("invocations_open", "Invocations that have not ended; runs are not among them", open);
    registry.register("messages_delayed", "Messages that are not due yet", delayed);
    registry.register_with_unit("kept", "What is stored", Unit::Bytes, kept);
}
