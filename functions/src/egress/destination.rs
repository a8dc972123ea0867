//! Whom an outgoing request is for.
//!
//! The URI that a guest made comes in, and scheme, host and port go out, in the one form that
//! entries are compared with, names are looked up by and connections are kept under. What could be
//! read in two ways must not get through: who judges and who connects would read it differently.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use http::{Uri, uri::Scheme};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Destination {
    pub tls: bool,
    pub host: Host,
    pub port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Host {
    /// Lower case, without the root's dot.
    Name(String),
    /// Not an IPv6 address that only wraps an IPv4 one.
    Address(IpAddr),
}

impl Destination {
    /// None where there is no host, or more than scheme, host and port: credentials, a port that is
    /// none, a host that is neither name nor address.
    pub(crate) fn of(uri: &Uri) -> Option<Self> {
        let tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            _ => return None,
        };
        let authority = uri.authority()?.as_str();
        let host = uri.host()?;
        let port = match authority.strip_prefix(host)? {
            "" => own_port(tls),
            rest => number(rest.strip_prefix(':')?)?,
        };
        Some(Self {
            tls,
            host: Host::read(host)?,
            port,
        })
    }

    pub(crate) fn has_own_port(&self) -> bool {
        self.port == own_port(self.tls)
    }

    /// The entry of `spec.allowedHosts` that names `host` and this destination's port.
    pub(crate) fn entry(&self, host: &Host) -> String {
        if self.has_own_port() {
            host.to_string()
        } else {
            format!("{host}:{}", self.port)
        }
    }
}

/// 443 or 80.
fn own_port(tls: bool) -> u16 {
    if tls { 443 } else { 80 }
}

/// A port from 1 on, in digits only.
pub(super) fn number(text: &str) -> Option<u16> {
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|port| *port != 0)
}

impl Host {
    pub(super) fn read(text: &str) -> Option<Self> {
        if let Some(address) = text.strip_prefix('[') {
            let address: Ipv6Addr = address.strip_suffix(']')?.parse().ok()?;
            return Some(Self::Address(IpAddr::V6(address).to_canonical()));
        }
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            return Some(Self::Address(address.into()));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        is_name(name).then(|| Self::Name(name.to_ascii_lowercase()))
    }
}

pub(super) fn is_name(text: &str) -> bool {
    text.split('.').all(|label| {
        !label.is_empty()
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    })
}

/// As it stands in a URI.
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn read(uri: &str) -> Option<String> {
        let to = Destination::of(&uri.parse().ok()?)?;
        Some(format!("{} {} {}", to.tls, to.host, to.port))
    }

    #[test]
    fn a_destination_has_one_form() {
        for (uri, expected) in [
            ("https://example.com/", "true example.com 443"),
            ("http://EXAMPLE.com./x?y", "false example.com 80"),
            ("http://example.com:8080/", "false example.com 8080"),
            ("http://10.0.0.1/", "false 10.0.0.1 80"),
            ("http://[::1]:81/", "false [::1] 81"),
            ("http://[0:0::1]/", "false [::1] 80"),
            ("http://[::ffff:127.0.0.1]/", "false 127.0.0.1 80"),
            ("http://[::FFFF:7f00:1]/", "false 127.0.0.1 80"),
            // Names, for all that is known here: what they are looked up to is judged.
            ("http://0x7f.1/", "false 0x7f.1 80"),
            ("http://2130706433/", "false 2130706433 80"),
            ("http://127.1/", "false 127.1 80"),
        ] {
            assert_eq!(read(uri).as_deref(), Some(expected), "{uri}");
        }
    }

    #[test]
    fn what_is_more_than_scheme_host_and_port_is_none() {
        for uri in [
            "/path",
            "example.com",
            "ftp://example.com/",
            "http://user@example.com/",
            "http://allowed@127.0.0.1/",
            "http://user:secret@example.com/",
            "http://example.com:0/",
            "http://example.com:/",
            "http://example.com:99999/",
            "http://example.com:+80/",
            "http://example.com:80@evil/",
            "http://example..com/",
            "http://./",
            "http://ex%61mple.com/",
            "http://[fe80::1%25eth0]/",
            "http://[::1]x/",
            "http://a;b/",
        ] {
            assert_eq!(read(uri), None, "{uri}");
        }
    }
}
