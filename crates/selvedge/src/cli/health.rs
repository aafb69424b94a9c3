//! `health`: whether a server is ready, for whoever watches it. It needs no key.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use selvedge_kernel::config::Tls;
use serde_json::Value;

use super::args::Common;
use super::checked::scheme;
use super::exit::{Code, Stop};
use super::print;
use super::remote::Remote;
use super::settings::configured;

/// A server that takes longer is not there for anybody.
const WITHIN: Duration = Duration::from_secs(5);

/// Asks the server that is named, else the one that this configuration starts.
pub async fn health(common: &Common) -> Result<Code, Stop> {
    let (server, remote) = match &common.server {
        Some(server) => (server.clone(), Remote::for_anybody(server, common.cacert.as_deref())?),
        None => {
            let configured = configured(common)?;
            let address = reached(configured.config.listen);
            let files = match &configured.config.tls {
                Some(Tls::Files(files)) => Some(files),
                Some(Tls::Off(_)) | None => None,
            };
            let server = format!("{}://{address}", scheme(&configured));
            let remote = match &common.cacert {
                Some(file) => Remote::for_anybody(&server, Some(file))?,
                None => Remote::of_ours(address, files)?,
            };
            (server, remote)
        }
    };
    let Ok(looked) = tokio::time::timeout(WITHIN, remote.look("/readyz")).await else {
        let text = format!("the server {server} has not answered for {} s: look whether its process is stopped or overloaded", WITHIN.as_secs());
        return Err(Stop::new(Code::Unreachable, text));
    };
    let (status, document) = looked?;
    let ready = status == 200;
    print::result(common.output, &document, || if ready { format!("{server} is ready") } else { format!("{server} is not ready: {}", missing(&document)) })?;
    Ok(if ready { Code::Done } else { Code::Failed })
}

/// Where a server that listens everywhere is reached from its own machine.
fn reached(listen: SocketAddr) -> SocketAddr {
    let host = match listen.ip() {
        IpAddr::V4(host) if host.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(host) if host.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        host => host,
    };
    SocketAddr::new(host, listen.port())
}

/// Each part that is not ready, with its reason. None: it is stopping.
fn missing(document: &Value) -> String {
    let parts = document["parts"].as_object().into_iter().flatten();
    let reasons: Vec<String> = parts.filter_map(|(name, part)| Some(format!("{name}: {}", part["reason"].as_str()?))).collect();
    if reasons.is_empty() { "it is stopping".to_owned() } else { reasons.join("; ") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_server_that_listens_everywhere_is_reached_on_its_own_machine() {
        for (listen, asked) in [("0.0.0.0:7420", "127.0.0.1:7420"), ("[::]:7420", "[::1]:7420"), ("10.0.0.7:80", "10.0.0.7:80")] {
            assert_eq!(reached(listen.parse().unwrap()).to_string(), asked);
        }
    }
}
