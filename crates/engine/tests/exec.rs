//! The exec executor against real programs, and the http executor against real servers.

#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, reason = "tests give time, runtime and environment")]

#[path = "exec/clients.rs"]
mod clients;
#[path = "exec/death.rs"]
mod death;
#[path = "exec/gate.rs"]
mod gate;
#[path = "exec/http.rs"]
mod http;
#[path = "exec/http_runs.rs"]
mod http_runs;
#[path = "exec/oneshot.rs"]
mod oneshot;
#[path = "exec/persistent.rs"]
mod persistent;
#[path = "exec/points.rs"]
mod points;
#[path = "exec/rig.rs"]
mod rig;
#[path = "exec/runs.rs"]
mod runs;
#[path = "exec/server.rs"]
mod server;
#[path = "exec/shut.rs"]
mod shut;
#[path = "exec/starting.rs"]
mod starting;
