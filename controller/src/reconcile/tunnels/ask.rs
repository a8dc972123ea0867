//! What is tried to find out whether a tunnel is reached. Pure.

mod advertised;
mod question;

use std::time::Duration;

use hive_manifests::tunnel::access::Access;
use hive_manifests::tunnel::{Protocol, Provider, TunnelSpec};
use hive_proto::v1::Route;

pub use advertised::Advertised;
pub use question::Question;

use super::trust::Trust;
use crate::ingress::routes::{domain, routes_of};
use crate::reconcile::status::Base;
use crate::state::{Key, State};
use crate::tunnels::certificates::Certificate;
use advertised::Port;
use question::question;

/// For an answer, however much longer the spec allows: then the next try is due.
const LONGEST_PATIENCE: Duration = Duration::from_secs(30);

/// One try.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    pub way: Way,
    /// All controllers, where each is reached for this.
    pub controllers: Vec<Advertised>,
    /// The controllers let not everybody in, and nobody for this: they answer themselves, or end the connection.
    pub guarded: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Way {
    /// A request to wherever the name of its host leads, and to each controller.
    Http(Question),
    /// A connection to each controller.
    Tcp,
    /// A handshake with whoever answers for this name behind the controllers.
    Tls(Greeting),
    /// A datagram to each controller, where one is known that the target answers. Others might do anything there.
    Udp {
        datagram: Option<Vec<u8>>,
        /// For its answer.
        patience: Duration,
    },
    /// What a provider brings to a controller: a request to each, as it hands it over. `None` where it hands over
    /// connections, which nobody else can.
    Brought {
        by: Provider,
        question: Option<Question>,
    },
}

impl Way {
    /// Whose address is looked up, as a client does.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Http(question) => Some(&question.host),
            Self::Tls(greeting) => Some(&greeting.name),
            Self::Tcp | Self::Udp { .. } | Self::Brought { .. } => None,
        }
    }

    /// The request that is made, if it is one.
    pub fn question(&self) -> Option<&Question> {
        match self {
            Self::Http(question) => Some(question),
            Self::Brought { question, .. } => question.as_ref(),
            Self::Tcp | Self::Tls(_) | Self::Udp { .. } => None,
        }
    }
}

/// A handshake, after which nothing is said.
#[derive(Clone, Debug, PartialEq)]
pub struct Greeting {
    pub name: String,
    /// For the target to answer.
    pub patience: Duration,
}

/// What is to be tried for a tunnel, and where people are told to reach it. `certificate` is what it is served
/// with, by https.
pub fn ask(
    key: &Key,
    spec: &TunnelSpec,
    certificate: Option<&Certificate>,
    state: &State,
) -> (Ask, Vec<String>) {
    let port = match spec.protocol {
        Protocol::Tcp | Protocol::Udp => Port::Own(spec.port),
        Protocol::Tls => Port::Tls,
        Protocol::Http if spec.tls.is_some() => Port::Tls,
        Protocol::Http => Port::Ingress,
    };
    let members = state.controllers();
    let controllers: Vec<Advertised> = members
        .filter_map(|(id, member)| Advertised::of(id, member, port))
        .collect();
    let check = &spec.health_check;
    let guarded = spec.access.as_ref().is_some_and(Access::guards);
    let (way, mut addresses): (_, Vec<String>) = match spec.protocol {
        Protocol::Tcp => {
            let addresses = controllers.iter().map(Advertised::address).collect();
            (Way::Tcp, addresses)
        }
        Protocol::Tls => {
            let port = controllers.first().map_or(443, |first| first.port);
            let names = spec.server_names.iter().map(|it| it.to_ascii_lowercase());
            let names: Vec<String> = names.collect();
            let greeting = Greeting {
                name: names.first().cloned().unwrap_or_default(),
                patience: check.timeout.0.min(LONGEST_PATIENCE),
            };
            let addresses = names.iter().map(|name| format!("{name}:{port}"));
            (Way::Tls(greeting), addresses.collect())
        }
        Protocol::Udp => {
            let addresses = controllers.iter().map(Advertised::address).collect();
            let way = Way::Udp {
                // Guards let no datagram of the leader's in.
                datagram: check.datagram().filter(|_| !guarded),
                patience: check.timeout.0.min(LONGEST_PATIENCE),
            };
            (way, addresses)
        }
        Protocol::Http => {
            let http = spec.http.clone().unwrap_or_default();
            let routes = routes_of(&key.name, &key.namespace, &http, domain(state));
            let base = Base::of(state);
            let by_https = spec.tls.is_some();
            let url = |route: &Route| match by_https {
                true => base.secure_url(route),
                false => base.url(route),
            };
            let addresses = routes.iter().map(url).collect();
            let mut question = question(&routes, check.path.as_deref(), check.timeout.0);
            question.https = by_https.then(|| certificate.map(Trust::of).unwrap_or_default());
            (Way::Http(question), addresses)
        }
    };
    // Controllers of one machine have one host, and routes of several methods one path.
    dedup_in_order(&mut addresses);
    if matches!(port, Port::Tls) && controllers.is_empty() {
        // Nobody takes TLS: there is no address yet.
        addresses.clear();
    }
    let ask = Ask {
        way,
        controllers,
        guarded,
    };
    match spec.provider {
        Provider::Hive => (ask, addresses),
        by => (brought(ask, by), at_provider(by, spec, key, state)),
    }
}

/// The same where somebody else takes what comes from outside.
fn brought(ask: Ask, by: Provider) -> Ask {
    let (question, controllers) = match ask.way {
        Way::Http(question) => (Some(question), ask.controllers),
        _ => (None, Vec::new()),
    };
    Ask {
        way: Way::Brought { by, question },
        controllers,
        guarded: ask.guarded,
    }
}

/// Cloudflare answers for the hosts, and ends TLS. The address of an onion service is known to who serves it.
fn at_provider(by: Provider, spec: &TunnelSpec, key: &Key, state: &State) -> Vec<String> {
    if by != Provider::Cloudflare {
        return Vec::new();
    }
    let http = spec.http.clone().unwrap_or_default();
    let routes = routes_of(&key.name, &key.namespace, &http, domain(state));
    let mut addresses: Vec<String> = routes
        .iter()
        .map(|route| format!("https://{}{}", route.host, route.path))
        .collect();
    dedup_in_order(&mut addresses);
    addresses
}

fn dedup_in_order(addresses: &mut Vec<String>) {
    let all = std::mem::take(addresses);
    for address in all {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
}

#[cfg(test)]
mod tests;
