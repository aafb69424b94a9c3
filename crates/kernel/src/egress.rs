//! What may be reached over the network: the targets of requests, the addresses behind them, and who allowed them.
//!
//! A name is allowed by a name, an address by an address. What a name leads to must be a public address, unless the
//! manifest names that address, too: a name that somebody else controls leads nowhere inside.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

mod target;
pub use target::{Target, TargetError};

/// Who may be reached: one entry of `egress`. As text it is `api.example.org`, `*.example.org:8443`, `*`,
/// `127.0.0.1:8080`, `10.0.0.0/8` or `[fd00::]/8`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Allowed {
    to: To,
    /// Without one: 80 and 443 of a host.
    port: Option<u16>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum To {
    /// Every name, and every public address.
    Anywhere,
    /// One name.
    Name(String),
    /// All names below one: the text after `*`, with its dot.
    Below(String),
    /// The addresses that begin with so many bits of one.
    Range(IpAddr, u8),
}

/// What is wrong with an entry, and what to write.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct EgressError {
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: String,
}

/// The host of a target.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Host {
    /// A name, in lower case, without a dot at its end.
    Name(String),
    /// An address.
    Address(IpAddr),
}

impl fmt::Display for Host {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Name(name) => out.write_str(name),
            Host::Address(IpAddr::V4(address)) => write!(out, "{address}"),
            Host::Address(IpAddr::V6(address)) => write!(out, "[{address}]"),
        }
    }
}

impl FromStr for Allowed {
    type Err = EgressError;

    fn from_str(text: &str) -> Result<Allowed, EgressError> {
        let wrong = |message: String| EgressError { message, hint: "write api.example.org, *.example.org:8443, 127.0.0.1:8080 or 10.0.0.0/8".to_owned() };
        if text.contains("://") {
            return Err(wrong(format!("`{text}` is a URL, and egress names hosts")));
        }
        let (rest, bits) = match text.split_once('/') {
            None => (text, None),
            // The port of a range stands behind its bits.
            Some((address, bits)) => {
                let (bits, port) = bits.split_once(':').map_or((bits, None), |(bits, port)| (bits, Some(port)));
                let bits = bits.parse::<u8>().map_err(|_| wrong(format!("`{text}` has no number of bits behind its `/`")))?;
                (address, Some((bits, port)))
            }
        };
        let (host, port) = match (bits, split_port(rest)) {
            (Some((_, port)), (host, None)) => (host, port),
            (None, split) => split,
            (Some(_), (_, Some(_))) => return Err(wrong(format!("`{text}` has its port before its bits"))),
        };
        let port = match port {
            None => None,
            Some(digits) => Some(digits.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(|| wrong(format!("`{digits}` is no port")))?),
        };
        let to = match (host, bits) {
            ("*", None) => To::Anywhere,
            (host, None) if host.starts_with("*.") => match target::host(&host[2..]) {
                Ok(Host::Name(name)) => To::Below(format!(".{name}")),
                _ => return Err(wrong(format!("`{text}` has no name behind its `*.`"))),
            },
            (host, bits) => match (target::host(host).map_err(|error| wrong(format!("`{text}`: {error}")))?, bits) {
                (Host::Name(name), None) => To::Name(name),
                (Host::Name(_), Some(_)) => return Err(wrong(format!("`{text}` is a range of names: bits belong to an address"))),
                (Host::Address(address), bits) => {
                    let most = if address.is_ipv4() { 32 } else { 128 };
                    let bits = bits.map_or(most, |(bits, _)| bits);
                    if bits > most {
                        return Err(wrong(format!("`{text}` has more than {most} bits")));
                    }
                    To::Range(address, bits)
                }
            },
        };
        Ok(Allowed { to, port })
    }
}

/// A host and the port behind its last colon; the colons in square brackets are the address's.
fn split_port(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') && (host.ends_with(']') || !host.contains(':')) => (host, Some(port)),
        _ => (text, None),
    }
}

impl fmt::Display for Allowed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.to {
            To::Anywhere => out.write_str("*")?,
            To::Name(name) => out.write_str(name)?,
            To::Below(end) => write!(out, "*{end}")?,
            To::Range(address, bits) => {
                write!(out, "{}", Host::Address(*address))?;
                if *bits != if address.is_ipv4() { 32 } else { 128 } {
                    write!(out, "/{bits}")?;
                }
            }
        }
        self.port.map_or(Ok(()), |port| write!(out, ":{port}"))
    }
}

impl Serialize for Allowed {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Allowed {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Allowed, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Allowed {
    fn names(&self, host: &Host, port: u16) -> bool {
        let host_fits = match (&self.to, host) {
            (To::Anywhere, Host::Name(_)) => true,
            (To::Anywhere, Host::Address(address)) => is_public(*address),
            (To::Name(name), Host::Name(host)) => name == host,
            (To::Below(end), Host::Name(host)) => host.ends_with(end.as_str()),
            (To::Range(..), Host::Address(address)) => self.holds(*address),
            _ => false,
        };
        host_fits && self.port.map_or(matches!(port, 80 | 443), |allowed| allowed == port)
    }

    fn holds(&self, address: IpAddr) -> bool {
        let To::Range(range, bits) = &self.to else { return false };
        match (range, address) {
            (IpAddr::V4(range), IpAddr::V4(address)) => begins(&range.octets(), &address.octets(), *bits),
            (IpAddr::V6(range), IpAddr::V6(address)) => begins(&range.octets(), &address.octets(), *bits),
            _ => false,
        }
    }
}

fn begins(range: &[u8], address: &[u8], bits: u8) -> bool {
    let (whole, rest) = (usize::from(bits / 8), bits % 8);
    range[..whole] == address[..whole] && (rest == 0 || (range[whole] ^ address[whole]) >> (8 - rest) == 0)
}

/// Whether a request to this host and port may be made at all; the error says what to write. The addresses that a name
/// leads to are another question: [`reachable`].
///
/// # Errors
/// When no entry names it.
pub fn named(egress: &[Allowed], host: &Host, port: u16) -> Result<(), EgressError> {
    if egress.iter().any(|allowed| allowed.names(host, port)) {
        return Ok(());
    }
    let entry = if matches!(port, 80 | 443) && matches!(host, Host::Name(_)) { host.to_string() } else { format!("{host}:{port}") };
    Err(EgressError {
        message: format!("`{host}` port {port} is not named by `egress`, and nothing else can be reached"),
        hint: format!("add it: egress: [\"{entry}\"]"),
    })
}

/// Whether an address that a named host has may be connected to: it is public, or `egress` names the address itself.
///
/// # Errors
/// When it is neither.
pub fn reachable(egress: &[Allowed], host: &Host, address: IpAddr, port: u16) -> Result<(), EgressError> {
    let forms = [Some(address), plain(address).map(IpAddr::V4)];
    let allowed = |allowed: &Allowed| allowed.port.is_none_or(|named| named == port) && forms.iter().flatten().any(|form| allowed.holds(*form));
    if is_public(address) || egress.iter().any(allowed) {
        return Ok(());
    }
    let shown = Host::Address(address);
    Err(EgressError {
        message: format!("`{host}` leads to {shown}, which is no public address, and `egress` does not name it"),
        hint: format!("if it is meant, add the address: egress: [\"{shown}:{port}\"]"),
    })
}

/// The address of version 4 that a mapped or translated one of version 6 stands for.
fn plain(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(address) = address else { return None };
    let parts = address.segments();
    let last = || Ipv4Addr::from(((u32::from(parts[6])) << 16) | u32::from(parts[7]));
    match parts {
        [0, 0, 0, 0, 0, 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => Some(last()),
        _ => None,
    }
}

/// Whether an address is one of the public internet: not of this machine, of a private or shared network, link-local,
/// multicast, reserved, for documentation, or a form of version 6 in which one of these can hide.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match (address, plain(address)) {
        (_, Some(inner)) => is_public_v4(inner),
        (IpAddr::V4(address), _) => is_public_v4(address),
        (IpAddr::V6(address), _) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    !matches!(
        address.octets(),
        [0 | 10 | 127, ..]
            | [100, 64..=127, ..]
            | [169, 254, ..]
            | [172, 16..=31, ..]
            | [192, 0, 0 | 2, _]
            | [192, 88, 99, _]
            | [192, 168, ..]
            | [198, 18 | 19, ..]
            | [198, 51, 100, _]
            | [203, 0, 113, _]
            | [224..=255, ..]
    )
}

/// Of version 6, 2000::/3 is public, without the parts of it that are for tunnels (6to4 and Teredo hold an address of
/// version 4 each), protocols and documentation.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let parts = address.segments();
    match parts[0] {
        0x2001 => parts[1] >= 0x200 && parts[1] != 0xdb8,
        0x2002 => false,
        0x3fff => parts[1] >= 0x1000,
        first => (0x2000..=0x3fff).contains(&first),
    }
}

#[cfg(test)]
#[path = "egress/tests.rs"]
mod tests;
