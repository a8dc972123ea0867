//! Which addresses registries may be at: those of the internet, and what an administrator names.
//!
//! A name is resolved and its addresses are looked at in one step, the one that connects: what is
//! asked about first and resolved again later could have become another address.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::task::{Context, Poll};

use hive_functions::address::{Class, Network, class};
use hyper_util::client::legacy::connect::dns::Name;

/// A host, or a network, that is allowed although it is not the internet's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allow {
    Host(String),
    Network(Network),
}

impl FromStr for Allow {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("{text:?} is neither a host name nor an address or network, such as 10.0.0.0/8")
        };
        if let Ok(network) = text.parse() {
            return Ok(Self::Network(network));
        }
        let is_letter = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-');
        match !text.is_empty() && text.bytes().all(is_letter) {
            true => Ok(Self::Host(text.to_ascii_lowercase())),
            false => Err(wrong()),
        }
    }
}

impl Allow {
    fn holds(&self, host: &str, address: IpAddr) -> bool {
        match self {
            Self::Host(name) => name == host,
            Self::Network(network) => network.contains(address),
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Allowed(Vec<Allow>);

impl Allowed {
    pub fn new(named: Vec<Allow>) -> Self {
        Self(named)
    }

    /// `host` is the name that led there; empty where the address was named itself.
    pub fn permits(&self, host: &str, address: IpAddr) -> bool {
        // ::ffff:10.0.0.1 is 10.0.0.1 to the system that connects.
        let address = address.to_canonical();
        class(address) == Class::Public || self.0.iter().any(|allow| allow.holds(host, address))
    }
}

/// The addresses of a name are all forbidden; this is one of them.
#[derive(Debug, thiserror::Error)]
#[error("{0} is not allowed")]
pub struct Forbidden(pub IpAddr);

/// Resolves names, and keeps what is allowed.
#[derive(Clone)]
pub struct Checked(pub Arc<Allowed>);

type Resolved = std::vec::IntoIter<SocketAddr>;
type Failed = Box<dyn std::error::Error + Send + Sync>;

impl tower::Service<Name> for Checked {
    type Response = Resolved;
    type Error = Failed;
    type Future = Pin<Box<dyn Future<Output = Result<Resolved, Failed>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let allowed = self.0.clone();
        Box::pin(async move {
            let found: Vec<SocketAddr> =
                tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let first = found.first().map(SocketAddr::ip);
            let kept: Vec<SocketAddr> = found
                .into_iter()
                .filter(|address| allowed.permits(name.as_str(), address.ip()))
                .collect();
            match (kept.is_empty(), first) {
                (false, _) => Ok(kept.into_iter()),
                (true, Some(address)) => Err(Forbidden(address).into()),
                (true, None) => Err(io::Error::from(io::ErrorKind::NotFound).into()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_the_internet_is_allowed_unless_named() {
        let nothing = Allowed::default();
        for public in [
            "1.1.1.1",
            "140.82.121.33",
            "2606:4700::1111",
            "64:ff9b::101:101",
            "2002:101:101::1",
        ] {
            assert!(nothing.permits("a", public.parse().unwrap()), "{public}");
        }
        for inner in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "100.127.255.255",
            "192.0.0.1",
            "198.18.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "fec0::1",
            "::ffff:10.0.0.1",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "2002:a00:1::1",
            "2001::1",
            "2001:db8::1",
        ] {
            assert!(!nothing.permits("a", inner.parse().unwrap()), "{inner}");
        }
    }

    #[test]
    fn what_is_named_is_allowed_and_nothing_beside() {
        let named = ["10.0.0.0/8", "127.0.0.1", "fd00::/8", "Registry.lan"]
            .map(|text| text.parse().unwrap());
        let allowed = Allowed::new(named.into());
        for (host, address, is_allowed) in [
            ("", "10.200.0.1", true),
            ("", "::ffff:10.200.0.1", true),
            ("", "11.0.0.1", true),
            ("", "127.0.0.1", true),
            ("", "127.0.0.2", false),
            ("", "fd12::1", true),
            ("", "fe80::1", false),
            ("registry.lan", "192.168.1.1", true),
            ("registry.lan.evil", "192.168.1.1", false),
            ("", "192.168.1.1", false),
        ] {
            assert_eq!(
                allowed.permits(host, address.parse().unwrap()),
                is_allowed,
                "{host} {address}"
            );
        }
        assert!("0.0.0.0/0".parse::<Allow>().is_ok());
        for bad in ["", "10.0.0.0/33", "10.0.0.0/", "a/8", "a b", "http://a"] {
            assert!(bad.parse::<Allow>().is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_name_of_this_machine_is_refused_where_it_is_resolved() {
        let resolve = |allowed: Allowed| {
            let name: Name = "localhost".parse().unwrap();
            tower::Service::call(&mut Checked(Arc::new(allowed)), name)
        };
        let refused = resolve(Allowed::default()).await.unwrap_err();
        assert!(refused.downcast_ref::<Forbidden>().unwrap().0.is_loopback());
        let allowed = Allowed::new(vec!["localhost".parse().unwrap()]);
        assert_ne!(resolve(allowed).await.unwrap().count(), 0);
    }
}
