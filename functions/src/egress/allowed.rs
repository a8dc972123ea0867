//! What `spec.allowedHosts` lets through.
//!
//! Entries and destinations come in, and whether a request may leave goes out: first by the host
//! that it names, then by each address that the name stands for. No entry but one that names an
//! address, or `localhost`, must ever open an address that is not public.

use std::{net::IpAddr, str::FromStr};

use http::Uri;

use super::destination::{Destination, Host, is_name, number};
use crate::address::{Class, Network, class};

/// The hosts of `spec.allowedHosts`. Empty: none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedHosts(Vec<Pattern>);

/// An entry that has none of the forms.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not an allowed host: write \"host\", \"*.suffix\", \"10.0.0.0/8\", \"[fd00::/8]\" or \
     \"*\", with or without \":port\" or \":*\", without scheme or path"
)]
pub struct InvalidHostPattern(pub String);

/// Why a request must stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No entry names its host and port.
    Host,
    /// It would reach this address, which no entry names.
    Address(IpAddr, Class),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    host: HostPattern,
    port: PortPattern,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum HostPattern {
    /// Every name, every public address.
    Any,
    /// Lower case, with the dot: ".example.com" matches every host below example.com.
    Below(String),
    /// Lower case.
    Exactly(String),
    Within(Network),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PortPattern {
    /// 80 for http, 443 for https.
    SchemesOwn,
    Any,
    Exactly(u16),
}

impl FromStr for Pattern {
    type Err = InvalidHostPattern;

    fn from_str(text: &str) -> Result<Self, InvalidHostPattern> {
        let invalid = || InvalidHostPattern(text.to_owned());
        if text == "*" {
            return Ok(Self {
                host: HostPattern::Any,
                port: PortPattern::Any,
            });
        }
        // The colons inside the brackets of an IPv6 address end no host.
        let host_end = text.rfind(']').map_or(0, |end| end + 1);
        let (host, port) = match text[host_end..].find(':') {
            Some(colon) => {
                let (host, port) = text.split_at(host_end + colon);
                let port = PortPattern::read(&port[1..]).ok_or_else(invalid)?;
                (host, port)
            }
            None => (text, PortPattern::SchemesOwn),
        };
        let host = HostPattern::read(host).ok_or_else(invalid)?;
        Ok(Self { host, port })
    }
}

impl HostPattern {
    fn read(text: &str) -> Option<Self> {
        if let Some(suffix) = text.strip_prefix('*') {
            if suffix.is_empty() {
                return Some(Self::Any);
            }
            return is_name(suffix.strip_prefix('.')?)
                .then(|| Self::Below(suffix.to_ascii_lowercase()));
        }
        if let Some(network) = text.strip_prefix('[') {
            let network = network.strip_suffix(']')?;
            // An IPv4 address has no brackets.
            return network
                .contains(':')
                .then(|| network.parse().ok().map(Self::Within))?;
        }
        if text.contains('/') {
            return text.parse().ok().map(Self::Within);
        }
        match Host::read(text)? {
            Host::Name(name) => Some(Self::Exactly(name)),
            Host::Address(address) => Some(Self::Within(address.into())),
        }
    }
}

impl PortPattern {
    fn read(text: &str) -> Option<Self> {
        match text {
            "*" => Some(Self::Any),
            text => number(text).map(Self::Exactly),
        }
    }

    fn matches(self, destination: &Destination) -> bool {
        match self {
            Self::SchemesOwn => destination.has_own_port(),
            Self::Any => true,
            Self::Exactly(port) => destination.port == port,
        }
    }
}

impl AllowedHosts {
    pub fn parse<S: AsRef<str>>(entries: &[S]) -> Result<Self, InvalidHostPattern> {
        entries
            .iter()
            .map(|entry| entry.as_ref().parse())
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether a request to `uri` may leave, as far as the URI tells: what its host's name stands
    /// for is judged when it is looked up.
    pub fn allow(&self, uri: &Uri) -> bool {
        Destination::of(uri).is_some_and(|destination| self.judge(&destination).is_ok())
    }

    pub(crate) fn judge(&self, destination: &Destination) -> Result<(), Refusal> {
        let mut of_port = self.of_port(destination);
        match &destination.host {
            Host::Name(name) => of_port
                .any(|host| match host {
                    HostPattern::Any => true,
                    HostPattern::Below(suffix) => {
                        name.len() > suffix.len() && name.ends_with(suffix.as_str())
                    }
                    HostPattern::Exactly(exactly) => name == exactly,
                    HostPattern::Within(_) => false,
                })
                .then_some(())
                .ok_or(Refusal::Host),
            Host::Address(address) => {
                if self
                    .of_port(destination)
                    .any(|host| *host == HostPattern::Any)
                {
                    self.judge_address(destination, *address)
                } else {
                    self.names(destination, *address)
                        .then_some(())
                        .ok_or(Refusal::Host)
                }
            }
        }
    }

    /// Whether a request whose host may be asked may reach it at this address.
    pub(crate) fn judge_address(
        &self,
        destination: &Destination,
        address: IpAddr,
    ) -> Result<(), Refusal> {
        let address = address.to_canonical();
        let class = class(address);
        if class == Class::Public || self.names(destination, address) {
            Ok(())
        } else {
            Err(Refusal::Address(address, class))
        }
    }

    /// Whether an entry opens this very address. The name `localhost` does where it is written
    /// out: nobody who writes it means anything else.
    fn names(&self, destination: &Destination, address: IpAddr) -> bool {
        self.of_port(destination).any(|host| match host {
            HostPattern::Within(network) => network.contains(address),
            HostPattern::Exactly(name) => {
                name == "localhost"
                    && destination.host == Host::Name(name.clone())
                    && address.is_loopback()
            }
            HostPattern::Any | HostPattern::Below(_) => false,
        })
    }

    fn of_port<'a>(
        &'a self,
        destination: &'a Destination,
    ) -> impl Iterator<Item = &'a HostPattern> {
        self.0
            .iter()
            .filter(|pattern| pattern.port.matches(destination))
            .map(|pattern| &pattern.host)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn allows(entry: &str, uri: &str) -> bool {
        AllowedHosts::parse(&[entry])
            .unwrap()
            .allow(&uri.parse().unwrap())
    }

    #[test]
    fn only_what_an_entry_names_may_leave() {
        let cases = [
            ("example.com", "https://example.com/", true),
            ("example.com", "http://example.com/", true),
            ("example.com", "https://EXAMPLE.com:443/x?y", true),
            ("Example.Com", "https://example.com./", true),
            ("example.com", "https://example.com:8443/", false),
            ("example.com", "http://example.com:443/", false),
            ("example.com", "https://www.example.com/", false),
            ("example.com", "https://example.com.evil.org/", false),
            ("example.com", "https://example.com@evil.org/", false),
            ("example.com", "https://user@example.com/", false),
            ("example.com", "https://evil.org/example.com", false),
            ("example.com:8080", "http://example.com:8080/", true),
            ("example.com:8080", "http://example.com/", false),
            ("example.com:*", "http://example.com:9999/", true),
            ("example.com:*", "http://example.org:9999/", false),
            ("*.example.com", "https://a.example.com/", true),
            ("*.example.com", "https://a.b.example.com/", true),
            ("*.example.com", "https://example.com/", false),
            ("*.example.com", "https://evilexample.com/", false),
            ("*.example.com", "https://a.example.com:81/", false),
            ("*.example.com:81", "https://a.example.com:81/", true),
            ("*.example.com:*", "https://a.example.com:81/", true),
            ("*", "http://example.com:9999/", true),
            ("*", "http://1.1.1.1:9999/", true),
            ("*", "http://[2606:4700::1]/", true),
            ("*:443", "https://example.com/", true),
            ("*:443", "http://example.com/", false),
            ("*:*", "http://example.com:81/", true),
            ("10.0.0.1:9999", "http://10.0.0.1:9999/", true),
            ("10.0.0.1:*", "http://10.0.0.1:9999/", true),
            ("10.0.0.1", "http://[::ffff:10.0.0.1]/", true),
            ("10.0.0.0/8", "http://10.9.8.7/", true),
            ("10.0.0.0/8", "http://10.9.8.7:8080/", false),
            ("10.0.0.0/8:8080", "http://10.9.8.7:8080/", true),
            ("10.0.0.0/8", "http://11.9.8.7/", false),
            ("10.0.0.0/8", "http://nas.lan/", false),
            ("1.1.1.0/24", "http://1.1.1.1/", true),
            ("[::1]:80", "http://[::1]/", true),
            ("[::1]", "http://[::2]/", false),
            ("[fd00::/8]:443", "https://[fd12::1]/", true),
            ("[fd00::/8]:443", "http://[fd12::1]/", false),
            ("localhost", "http://localhost/", true),
            ("localhost", "http://127.0.0.1/", false),
        ];
        for (entry, uri, expected) in cases {
            assert_eq!(allows(entry, uri), expected, "{entry} against {uri}");
        }
        let none = AllowedHosts::default();
        assert!(!none.allow(&"https://example.com/".parse().unwrap()));
    }

    #[test]
    fn any_host_is_not_any_address() {
        for uri in [
            "http://10.0.0.1:9999/",
            "http://127.0.0.1/",
            "http://169.254.169.254/latest/meta-data/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[64:ff9b::7f00:1]/",
            "http://[fd00:ec2::254]/",
            "http://0.0.0.0/",
        ] {
            assert!(!allows("*", uri), "{uri}");
            assert!(!allows("*:*", uri), "{uri}");
        }
    }

    #[test]
    fn what_a_name_stands_for_is_judged_again() {
        let cases = [
            ("nas.lan", "http://nas.lan/", "1.1.1.1", true),
            ("nas.lan", "http://nas.lan/", "192.168.1.10", false),
            ("*", "http://nas.lan/", "192.168.1.10", false),
            ("*", "http://localhost/", "127.0.0.1", false),
            ("*.localhost", "http://a.localhost/", "127.0.0.1", false),
            ("localhost", "http://localhost/", "127.0.0.1", true),
            ("localhost:81", "http://localhost:81/", "::1", true),
            ("localhost:81", "http://localhost/", "::1", false),
            ("localhost", "http://localhost/", "10.0.0.1", false),
            ("*", "http://evil.org/", "::ffff:127.0.0.1", false),
        ];
        for (entry, uri, address, expected) in cases {
            let allowed = AllowedHosts::parse(&[entry]).unwrap();
            let to = Destination::of(&uri.parse().unwrap()).unwrap();
            let judged = allowed.judge_address(&to, address.parse().unwrap());
            assert_eq!(judged.is_ok(), expected, "{entry}, {uri} at {address}");
        }
        let both = AllowedHosts::parse(&["nas.lan:81", "192.168.1.0/24:81"]).unwrap();
        let to = Destination::of(&"http://nas.lan:81/".parse().unwrap()).unwrap();
        assert_eq!(both.judge(&to), Ok(()));
        let at = |address: &str| both.judge_address(&to, address.parse().unwrap());
        assert_eq!(at("192.168.1.10"), Ok(()));
        assert!(matches!(at("192.168.2.10"), Err(Refusal::Address(..))));
    }

    #[test]
    fn entries_of_no_form_are_refused() {
        for entry in [
            "",
            "https://example.com",
            "example.com/path",
            "example.com:",
            "example.com:port",
            "example.com:0",
            "example.com:99999",
            "*example.com",
            "a.*.com",
            "*.",
            "**",
            "*:",
            "user@host",
            "[::1",
            "[zz]",
            "[10.0.0.1]",
            "10.0.0.0/33",
            "fd00::/8",
            "::1",
        ] {
            assert!(AllowedHosts::parse(&[entry]).is_err(), "{entry}");
        }
    }

    proptest! {
        #[test]
        fn a_suffix_matches_exactly_what_is_below_it(
            host in "[ab.]{1,8}", suffix in "[ab]{1,2}(\\.[ab]{1,2})?"
        ) {
            let Ok(uri) = format!("https://{host}/").parse::<Uri>() else { return Ok(()) };
            let bare = host.strip_suffix('.').unwrap_or(&host);
            let below = is_name(bare)
                && bare.strip_suffix(&suffix).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'));
            prop_assert_eq!(
                AllowedHosts::parse(&[format!("*.{suffix}")]).unwrap().allow(&uri),
                below
            );
        }
    }
}
