//! Where clients come from: networks, and whose word about that counts. Pure.

use std::net::{IpAddr, SocketAddr};

use hive_functions::address::Network;
use hive_manifests::Resource;
use http::{HeaderMap, HeaderName};

use crate::access::tokens::SYSTEM_NAMESPACE;
use crate::ingress::routes::SETTINGS;
use crate::state::{Key, State};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The swarm's setting: networks of proxies in front of the ingress, separated by commas.
const FORWARDING: &str = "trustedProxies";

/// The same of those in front of the ports of tunnels.
const ANNOUNCING: &str = "proxyProtocolFrom";

/// Proxies in a row that are believed; nobody has more.
const MAX_PROXIES: usize = 8;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<Network>);

impl Networks {
    /// Refused is the first that is no network.
    pub fn read<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, &'a str> {
        let texts = texts.into_iter();
        let networks = texts.map(|text| text.parse::<Network>().map_err(|()| text));
        networks.collect::<Result<_, _>>().map(Self)
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(address))
    }
}

/// Who may say for whom it comes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// By X-Forwarded-For.
    pub forwarding: Networks,
    /// By a header of the PROXY protocol, with which all its connections to ports of tunnels begin.
    pub announcing: Networks,
}

impl Proxies {
    /// As the swarm's settings say. What is no network is nobody's.
    pub fn of(state: &State) -> Self {
        let key = Key::new(Resource::ConfigMap, SYSTEM_NAMESPACE, SETTINGS);
        let settings = state.get(&key);
        let networks = |name: &str| {
            let said = settings.and_then(|settings| settings.body()["data"][name].as_str());
            let texts = said.unwrap_or_default().split(',').map(str::trim);
            let networks = texts.filter_map(|text| text.parse::<Network>().ok());
            Networks(networks.collect())
        };
        Self {
            forwarding: networks(FORWARDING),
            announcing: networks(ANNOUNCING),
        }
    }
}

/// Who sends a request whose X-Forwarded-For ends with the peer itself, as this ingress wrote it: the peer, or whom
/// trusted proxies name one after the other. Whoever is not trusted is the client, whatever it says.
pub fn client_of(peer: IpAddr, headers: &HeaderMap, trusted: &Networks) -> IpAddr {
    let mut client = peer.to_canonical();
    if !trusted.contains(client) {
        return client;
    }
    let values = headers.get_all(FORWARDED_FOR).iter();
    // As bytes: a client that writes other letters must not take out what a proxy wrote behind them.
    let chain: Vec<&[u8]> = values
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .collect();
    for said in chain.iter().rev().skip(1).take(MAX_PROXIES) {
        if !trusted.contains(client) {
            break;
        }
        let said = std::str::from_utf8(said).unwrap_or_default();
        let Some(before) = address(said.trim()) else {
            break;
        };
        client = before;
    }
    client
}

/// Some proxies add the port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let with_port = || Some(text.parse::<SocketAddr>().ok()?.ip());
    let address = bare.unwrap_or(text).parse::<IpAddr>();
    let address = address.ok().or_else(with_port)?;
    Some(IpAddr::to_canonical(&address))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http::HeaderValue;
    use serde_json::json;

    use super::*;
    use crate::fixture::put;
    use crate::objects;

    fn networks(texts: &[&str]) -> Networks {
        Networks::read(texts.iter().copied()).unwrap()
    }

    #[test]
    fn a_client_is_in_a_network_however_its_address_is_written() {
        let allowed = networks(&["203.0.113.0/24", "2001:db8::/32", "198.51.100.7"]);
        for (address, expected) in [
            ("203.0.113.0", true),
            ("203.0.113.255", true),
            ("203.0.114.0", false),
            ("::ffff:203.0.113.9", true),
            ("2001:db8:ffff::1", true),
            ("2001:db9::1", false),
            ("198.51.100.7", true),
            ("198.51.100.8", false),
            ("::1", false),
        ] {
            assert_eq!(
                allowed.contains(address.parse().unwrap()),
                expected,
                "{address}"
            );
        }
        assert_eq!(
            Networks::read(["10.0.0.0/8", "10.0.0.0/33"]),
            Err("10.0.0.0/33")
        );
    }

    #[test]
    fn only_trusted_proxies_say_who_the_client_is() {
        let trusted = networks(&["10.0.0.0/8", "192.0.2.1"]);
        for (peer, chain, expected) in [
            // A stranger speaks for itself, whatever it claims.
            ("203.0.113.5", "198.51.100.1, 203.0.113.5", "203.0.113.5"),
            // A neighbour that nobody named does as well.
            ("192.168.1.2", "198.51.100.1, 192.168.1.2", "192.168.1.2"),
            ("10.0.0.1", "198.51.100.1, 10.0.0.1", "198.51.100.1"),
            ("::ffff:10.0.0.1", "198.51.100.1, 10.0.0.1", "198.51.100.1"),
            // The client's own claim stands before what the proxy saw.
            (
                "10.0.0.1",
                "1.2.3.4, 198.51.100.1, 10.0.0.1",
                "198.51.100.1",
            ),
            (
                "10.0.0.1",
                "1.2.3.4, 198.51.100.1, 192.0.2.1, 10.0.0.1",
                "198.51.100.1",
            ),
            ("10.0.0.1", "198.51.100.1:4711, 10.0.0.1", "198.51.100.1"),
            ("10.0.0.1", "[2001:db8::7]:80, 10.0.0.1", "2001:db8::7"),
            // What cannot be read names nobody.
            ("10.0.0.1", "198.51.100.1, unknown, 10.0.0.1", "10.0.0.1"),
            ("10.0.0.1", "10.0.0.1", "10.0.0.1"),
            ("10.0.0.1", "10.9.9.9, 10.0.0.1", "10.9.9.9"),
            ("10.0.0.1", "\u{e9}, 198.51.100.1, 10.0.0.1", "198.51.100.1"),
            // Nobody has so many in a row.
            (
                "10.0.0.1",
                "198.51.100.1, 10.0.0.9, 10.0.0.8, 10.0.0.7, 10.0.0.6, 10.0.0.5, 10.0.0.4, 10.0.0.3, 10.0.0.2, 10.0.0.1",
                "10.0.0.9",
            ),
        ] {
            let mut headers = HeaderMap::new();
            let said = HeaderValue::from_bytes(chain.as_bytes()).unwrap();
            headers.insert(FORWARDED_FOR, said);
            let found = client_of(peer.parse().unwrap(), &headers, &trusted);
            assert_eq!(found.to_string(), expected, "{peer}: {chain}");
            let alone = client_of(peer.parse().unwrap(), &headers, &Networks::default());
            assert_eq!(alone, peer.parse::<IpAddr>().unwrap().to_canonical());
        }
    }

    #[test]
    fn each_setting_is_about_its_own_proxies() {
        let mut state = State::default();
        let key = Key::new(Resource::ConfigMap, SYSTEM_NAMESPACE, SETTINGS);
        let data = json!({ "data": { FORWARDING: "10.0.0.1", ANNOUNCING: "10.0.0.2" } });
        let body = objects::fresh(&key, json!({}), data);
        put(&mut state, key, &body);
        let proxies = Proxies::of(&state);
        for (address, forwards, announces) in [("10.0.0.1", true, false), ("10.0.0.2", false, true)]
        {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(proxies.forwarding.contains(address), forwards);
            assert_eq!(proxies.announcing.contains(address), announces);
        }
    }
}
