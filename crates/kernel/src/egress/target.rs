//! The target of a request, from a URL that must have one meaning only.

use std::net::{IpAddr, Ipv6Addr};

use super::Host;

/// A URL in its parts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// `https` and not `http`.
    pub tls: bool,
    /// Whom.
    pub host: Host,
    /// Written, or that of the scheme.
    pub port: u16,
    /// Path and query, beginning with `/`; what may not stand there is percent-encoded.
    pub path: String,
}

/// Why a text is no URL that may be called.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct TargetError(pub String);

impl Target {
    /// Reads an absolute URL. What programs read in different ways is refused: user names, back slashes, control characters,
    /// numbers as hosts other than `1.2.3.4`, names that are not ASCII.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(url: &str) -> Result<Target, TargetError> {
        let wrong = |text: &str| Err(TargetError(text.to_owned()));
        if url.chars().any(char::is_control) {
            return wrong("it has a control character in it (a line break or a tab)");
        }
        let Some((scheme, rest)) = url.split_once("://") else {
            return wrong("it is not absolute: write https://host/path");
        };
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return wrong("its scheme is neither https nor http"),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if authority.contains('@') {
            return wrong("it has a user name before its host: credentials belong in headers, as {secret: env:NAME}");
        }
        if url.contains('\\') {
            return wrong("it has a back slash in it");
        }
        let (name, digits) = super::split_port(authority);
        let port = match digits {
            None => {
                if tls {
                    443
                } else {
                    80
                }
            }
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => match digits.parse::<u16>() {
                Ok(port) if port > 0 => port,
                _ => return wrong("its port is not a number from 1 to 65535"),
            },
            Some(_) => return wrong("its port is not a number from 1 to 65535"),
        };
        let host = host(name)?;
        let path = path.split('#').next().unwrap_or_default();
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(Target { tls, host, port, path: format!("{slash}{}", encoded(path)) })
    }

    /// Where a `Location` leads from here.
    ///
    /// # Errors
    /// When it is no URL and no path.
    pub fn join(&self, location: &str) -> Result<Target, TargetError> {
        let scheme = if self.tls { "https" } else { "http" };
        if location.contains("://") && !location.starts_with(['/', '?']) {
            Target::parse(location)
        } else if location.starts_with("//") {
            Target::parse(&format!("{scheme}:{location}"))
        } else {
            let folder = match location.chars().next() {
                Some('/') => "",
                Some('?') => self.path.split('?').next().unwrap_or_default(),
                _ => self.path.split('?').next().and_then(|path| path.rfind('/').map(|at| &path[..=at])).unwrap_or("/"),
            };
            Target::parse(&format!("{scheme}://{}{folder}{location}", self.authority()))
        }
    }

    /// Whether both are of one scheme, host and port.
    #[must_use]
    pub fn same_origin(&self, other: &Target) -> bool {
        (self.tls, &self.host, self.port) == (other.tls, &other.host, other.port)
    }

    /// `host`, or `host:port` where the port is not the scheme's.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.port == if self.tls { 443 } else { 80 } { self.host.to_string() } else { format!("{}:{}", self.host, self.port) }
    }

    /// For people: without path and query, which may hold what nobody should read.
    #[must_use]
    pub fn shown(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

/// A host as it stands in a URL.
pub(super) fn host(text: &str) -> Result<Host, TargetError> {
    let wrong = |reason: &str| Err(TargetError(format!("its host `{}` {reason}", text.chars().take(80).collect::<String>())));
    if let Some(inner) = text.strip_prefix('[') {
        let address = inner.strip_suffix(']').and_then(|inner| inner.parse::<Ipv6Addr>().ok());
        return address.map(|address| Host::Address(IpAddr::V6(address))).ok_or(()).or_else(|()| wrong("is no address of version 6"));
    }
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let fits = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && !label.starts_with('-')
    };
    if name.len() > 253 || !name.split('.').all(fits) {
        return wrong("is no name: write letters, digits, `-` and dots (a name in another script as xn--…)");
    }
    // A last part that is a number makes it an address, and addresses are written in one way.
    let last = name.rsplit('.').next().unwrap_or_default();
    if last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x") {
        return match name.parse() {
            Ok(address) if !text.ends_with('.') => Ok(Host::Address(IpAddr::V4(address))),
            _ => wrong("is a number that programs read in different ways: write the address as four decimal numbers"),
        };
    }
    Ok(Host::Name(name))
}

fn encoded(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_graphic() && !matches!(byte, b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}') {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}
