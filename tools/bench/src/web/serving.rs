//! Our server, in a process of its own: the program that is measured, with a key for each of two tenants.

use std::path::Path;

use selvedge::serve::Server;
use selvedge::{Config, Engine};
use selvedge_engine::keys::NewKey;
use selvedge_http::Patience;
use selvedge_kernel::auth::{Action, OWNER, Resource, authorize, local};
use tokio::net::TcpListener;

use super::child::{self, Said};
use crate::load::Failed;
use crate::program::app;

/// The tenants that have a key.
pub const TENANTS: [&str; 2] = ["default", "other"];

/// Serves until nobody holds its standard input any more. `requests`: how many a tenant may ask within a second.
pub async fn run(data: &Path, requests: u64) -> Result<(), Failed> {
    child::room_for_connections();
    let mut config = Config::on(data);
    config.settings.limits.tenant_requests = requests;
    config.settings.limits.tenant_invocations = 10_000_000;
    let engine = Engine::open(config, app()?).await?;
    let mut keys = Vec::new();
    for tenant in TENANTS {
        let now = engine.inner().now();
        let permit = authorize(local(tenant, now), Action::Administer, Resource::Tenant { tenant: tenant.to_owned() }, now)?;
        let new = NewKey { name: "bench".to_owned(), roles: vec![OWNER.to_owned()], lasts: None };
        keys.push(engine.inner().create_key(permit, new).await?.presented.text());
    }
    let server = Server::start(engine.inner().clone(), TcpListener::bind("127.0.0.1:0").await?, Patience::default())?;
    child::say(&Said { address: server.address(), keys })?;
    child::until_nobody_asks().await;
    server.stop().await;
    Ok(engine.close().await?)
}
