//! What a service manager is told: that we serve, that we stop. The protocol is `sd_notify(3)`: a datagram of `NAME=VALUE` lines to
//! the socket that `NOTIFY_SOCKET` names. Without that variable nobody wants to know.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use super::print;

/// The variable with the socket: a path, or `@` and a name that is no path.
const SOCKET: &str = "NOTIFY_SOCKET";

/// Whoever started us, if they want to know.
pub struct Notify(Option<OsString>);

impl Notify {
    /// Who is named in the environment.
    pub fn of_environment() -> Notify {
        Notify(std::env::var_os(SOCKET).filter(|named| !named.is_empty()))
    }

    /// Requests are answered from now on.
    pub fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}"));
    }

    /// It is coming to its end, and why.
    pub fn stopping(&self, status: &str) {
        self.tell(&format!("STOPPING=1\nSTATUS={}", status.lines().next().unwrap_or_default()));
    }

    /// A manager that cannot be told does not keep us from serving: it is said on standard error.
    fn tell(&self, state: &str) {
        let Some(named) = &self.0 else { return };
        if let Err(error) = sent(named, state) {
            print::note(&format!("the service manager cannot be told on {SOCKET}={} ({error}): it may think that we never started", named.display()));
        }
    }
}

fn sent(named: &OsStr, state: &str) -> io::Result<()> {
    let address = match named.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(named)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}
