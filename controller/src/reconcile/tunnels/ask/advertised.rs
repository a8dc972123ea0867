//! Where controllers are reached, as they say themselves.

use std::fmt;

use crate::state::{Member, State};

/// Where a controller is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertised {
    pub id: u64,
    /// A name or an address.
    pub host: String,
    pub port: u16,
}

/// Which of a controller's ports.
#[derive(Clone, Copy)]
pub(super) enum Port {
    Ingress,
    Tls,
    Own(Option<u16>),
}

impl Advertised {
    /// Where all controllers take requests.
    pub fn all(state: &State) -> Vec<Self> {
        let members = state.controllers();
        members
            .filter_map(|(id, member)| Self::of(id, member, Port::Ingress))
            .collect()
    }

    /// `None` of what is no endpoint.
    pub(super) fn of(id: u64, member: &Member, port: Port) -> Option<Self> {
        let endpoint = match port {
            Port::Ingress | Port::Own(_) => &member.ingress,
            Port::Tls => member.ingress_tls.as_ref()?,
        };
        let (host, advertised) = endpoint.rsplit_once(':')?;
        Some(Self {
            id,
            host: host.trim_matches(['[', ']']).to_owned(),
            port: match port {
                Port::Own(Some(own)) => own,
                _ => advertised.parse().ok()?,
            },
        })
    }

    /// `203.0.113.7:2222`, `[2001:db8::7]:2222`, `hive.example.org:2222`.
    pub fn address(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Display for Advertised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "controller {} at {}", self.id, self.address())
    }
}
